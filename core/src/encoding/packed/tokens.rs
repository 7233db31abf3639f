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
        let mut rare = Rare {
            bits: self.bits,
            location: from,
            hot: self.hot,
            class: 0,
        };
        rare.read(rarities, symbol)?;
        self.bits.resume(&rare.bits);
        self.hot = rare.hot;
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
    /// The stream, filled.
    bits: Bits<'a, true>,
    /// The location that the token counts from, and then that of the entry.
    location: FileLine,
    hot: u32,
    /// The class of the location if it is a hot pair.
    class: u8,
}

impl Rare<'_> {
    /// Not inlined, and what it changes is a copy: what is in registers stays there.
    #[inline(never)]
    fn read(&mut self, rarities: &Rarities<'_>, symbol: u16) -> Option<()> {
        if (recent::HOT..recent::NEXT_FILE).contains(&symbol) {
            self.hot = match symbol.checked_sub(recent::SUCCESSOR) {
                None => self.number(rarities, HOT)?,
                Some(rank) => rarities.hot.successor(self.hot, rank.into())?,
            };
            (self.location, self.class) = rarities.hot.get(self.hot)?;
        } else if symbol < recent::NEW {
            let distance = self.number(rarities, FAR)?;
            self.location.line = moved(self.location.line, distance, self.bits.number(1))?;
        } else if symbol <= recent::NEXT_FILE {
            if symbol == recent::NEW {
                self.location.file = self.number(rarities, FILE)?;
            }
            self.location.line = self.number(rarities, LINE)?;
        } else {
            return None;
        }
        self.bits.fill();
        Some(())
    }

    #[inline(always)]
    fn number(&mut self, rarities: &Rarities<'_>, kind: usize) -> Option<u32> {
        self.bits.fill();
        rarities.numbers.code(kind).read(&mut self.bits)
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
