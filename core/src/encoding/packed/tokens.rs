//! The backward stream of a block: tokens, and the locations they lead to.

#[cfg(feature = "write")]
pub(crate) mod write;

use super::bits::Bits;
use super::directory::Block;
use super::model::{FAR, FILE, FIRST_FILE, FIRST_LINE, HOT, LINE, Model, Rarities};
use super::recent::{self, DELTA_MIN, FileLine, Recent, Slots};

/// No hot pair.
pub(super) const COLD: u32 = u32::MAX;

/// The backward stream of a block: its first location, and the tokens of the entries after it.
///
/// A location with line 0 is a gap.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    pub(super) bits: Bits<'a, true>,
    recent: Recent,
    /// The hot pair that the last token named, or [`COLD`].
    hot: u32,
}

impl Tokens<'_> {
    /// The location of the next entry, whose length is of a class.
    #[inline(always)]
    pub(super) fn next(
        &mut self,
        slots: &mut Slots,
        model: &Model<'_>,
        length_class: u64,
    ) -> Option<FileLine> {
        self.bits.fill();
        self.next_filled(slots, model, &model.rarities(), length_class)
    }

    /// The same from a stream that has been filled: once for four entries.
    #[inline(always)]
    pub(super) fn next_filled(
        &mut self,
        slots: &mut Slots,
        model: &Model<'_>,
        rarities: &Rarities<'_>,
        length_class: u64,
    ) -> Option<FileLine> {
        let clusters = model.codes.clusters(self.recent.contexts(length_class))?;
        let cluster = clusters.wrapping_shr(self.recent.level() << 3) & 0xff;
        let symbol = model.codes.tokens.read(cluster, &mut self.bits)?;
        if symbol < recent::FAR {
            let rank = symbol >> 7;
            let from = self.recent.get(slots, rank);
            let delta = i32::from(symbol & 127).wrapping_add(DELTA_MIN);
            let location = FileLine {
                file: from.file,
                line: from.line.checked_add_signed(delta)?,
            };
            self.recent.put(slots, rank, location);
            self.recent.note(symbol, 0);
            return Some(location);
        }
        if symbol == recent::GAP {
            self.recent.note(symbol, 0);
            return Some(FileLine::default());
        }
        let from = match symbol {
            recent::NEXT_FILE => self.recent.next_file(slots),
            _ => self.recent.get(slots, symbol),
        };
        let rare = Rare::read(rarities, symbol, from, self.hot, self.bits)?;
        (self.bits, self.hot) = (rare.bits, rare.hot);
        self.recent.put(slots, 7, rare.location);
        self.recent.note(symbol, rare.class);
        Some(rare.location)
    }

    /// The class of the last token, that of all hot pairs as one.
    #[inline]
    pub(super) const fn class(&self) -> u8 {
        self.recent.class()
    }

    /// Whether the last token was a gap.
    pub(super) const fn in_gap(&self) -> bool {
        self.recent.in_gap()
    }
}

/// The backward stream of a block before its first location, filled.
pub(super) struct Head<'a> {
    bits: Bits<'a, true>,
}

impl<'a> Head<'a> {
    #[inline(always)]
    pub(super) fn new(bytes: &'a [u8], block: &Block) -> Self {
        let mut bits = Bits::new(bytes, block.end());
        bits.fill();
        Self { bits }
    }

    /// Reads the first location.
    #[inline(always)]
    pub(super) fn begin(
        mut self,
        model: &Model<'_>,
        block: &Block,
    ) -> Option<(Tokens<'a>, Slots, FileLine)> {
        let bits = &mut self.bits;
        let (first, location) = match model
            .codes
            .numbers
            .code(FIRST_FILE)
            .read(bits)?
            .checked_sub(1)
        {
            None => (block.guess, FileLine::default()),
            Some(code) => {
                let file = block.guess.file.wrapping_add_signed(unfold(code));
                bits.fill();
                let distance = model.codes.numbers.code(FIRST_LINE).read(bits)?;
                let line = moved(block.guess.line, distance, bits.number(1))?;
                let location = FileLine { file, line };
                (location, location)
            }
        };
        let (recent, slots) = Recent::new(first, block.guess, model.headers);
        let tokens = Tokens {
            bits: self.bits,
            recent,
            hot: COLD,
        };
        Some((tokens, slots, location))
    }
}

/// What a token gives that is not a rank and a small delta, about one in six.
struct Rare<'a> {
    location: FileLine,
    /// The class of the location if it is a hot pair.
    class: u8,
    hot: u32,
    /// The stream after it, filled.
    bits: Bits<'a, true>,
}

impl<'a> Rare<'a> {
    /// Not inlined, and everything by value: what is in registers stays there.
    #[inline(never)]
    fn read(
        rarities: &Rarities<'_>,
        symbol: u16,
        from: FileLine,
        mut hot: u32,
        mut bits: Bits<'a, true>,
    ) -> Option<Self> {
        let mut number = |kind: usize| {
            bits.fill();
            rarities.numbers.code(kind).read(&mut bits)
        };
        let (location, class) = if (recent::HOT..recent::NEXT_FILE).contains(&symbol) {
            hot = match symbol.checked_sub(recent::SUCCESSOR) {
                None => number(HOT)?,
                Some(rank) => rarities.hot.successor(hot, rank.into())?,
            };
            rarities.hot.get(hot)?
        } else if symbol < recent::NEW {
            let distance = number(FAR)?;
            let line = moved(from.line, distance, bits.number(1))?;
            (FileLine { line, ..from }, 0)
        } else if symbol <= recent::NEXT_FILE {
            let file = match symbol {
                recent::NEW => number(FILE)?,
                _ => from.file,
            };
            let line = number(LINE)?;
            (FileLine { file, line }, 0)
        } else {
            return None;
        };
        bits.fill();
        Some(Self {
            location,
            class,
            hot,
            bits,
        })
    }
}

/// A line at a distance from another: up if `sign` is 0, down if it is 1.
#[inline(always)]
fn moved(line: u32, distance: u32, sign: u32) -> Option<u32> {
    if sign == 0 {
        line.checked_add(distance)
    } else {
        line.checked_sub(distance)
    }
}

/// 0, -1, 1, -2, 2, ... as 0, 1, 2, 3, 4, ...
#[inline(always)]
const fn unfold(code: u32) -> i32 {
    let half = (code >> 1).cast_signed();
    if code & 1 == 0 { half } else { !half }
}
