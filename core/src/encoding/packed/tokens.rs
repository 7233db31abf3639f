//! The backward stream of a block: tokens, and the locations they lead to.

#[cfg(feature = "write")]
pub(crate) mod write;

use super::bits::Bits;
use super::directory::Block;
use super::model::{FAR, FILE, FIRST_FILE, FIRST_LINE, HOT, LINE, Model};
use super::recent::{self, DELTA_MIN, FileLine, Recent};

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

impl<'a> Tokens<'a> {
    /// Begins a block, and reads its first location.
    #[inline(always)]
    pub(super) fn begin(
        model: &Model<'_>,
        bytes: &'a [u8],
        block: &Block,
    ) -> Option<(Self, FileLine)> {
        let mut bits = Bits::new(bytes, block.end);
        bits.fill();
        let (first, location) = match model
            .codes
            .number(FIRST_FILE)
            .read(&mut bits)?
            .checked_sub(1)
        {
            None => (block.guess, FileLine::default()),
            Some(code) => {
                let file = block.guess.file.wrapping_add_signed(unfold(code));
                bits.fill();
                let distance = model.codes.number(FIRST_LINE).read(&mut bits)?;
                let line = moved(block.guess.line, distance, bits.number(1))?;
                let location = FileLine { file, line };
                (location, location)
            }
        };
        let tokens = Self {
            bits,
            recent: Recent::new(first, model.headers),
            hot: COLD,
        };
        Some((tokens, location))
    }

    /// The location of the next entry, whose length is of a class.
    #[inline(always)]
    pub(super) fn next(&mut self, model: &Model<'_>, length_class: u8) -> Option<FileLine> {
        self.bits.fill();
        let context = self.recent.context(model.headers, length_class);
        let cluster = *model.codes.cluster_of.get(context)?;
        let symbol = model.codes.tokens.read(cluster, &mut self.bits)?;
        let (location, class) = if symbol < recent::FAR {
            let rank = symbol >> 7;
            let from = self.recent.get(rank);
            let delta = i32::from(symbol & 127).wrapping_add(DELTA_MIN);
            let location = FileLine {
                file: from.file,
                line: from.line.checked_add_signed(delta)?,
            };
            self.recent.put(rank, location);
            (location, 0)
        } else {
            self.rare(model, symbol)?
        };
        self.recent.note(symbol, class, model.headers);
        Some(location)
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

    /// The tokens that are not a rank and a small delta, about one in six: the location, and the class
    /// if it is a hot pair.
    #[inline(never)]
    fn rare(&mut self, model: &Model<'_>, symbol: u16) -> Option<(FileLine, u8)> {
        let mut number = |kind| model.codes.number(kind).read(&mut self.bits);
        let (location, class) = match symbol {
            recent::GAP => return Some((FileLine::default(), 0)),
            recent::FAR..recent::NEW => {
                let from = self.recent.get(symbol);
                let distance = number(FAR)?;
                let line = moved(from.line, distance, self.bits.number(1))?;
                (FileLine { line, ..from }, 0)
            }
            recent::NEW => {
                let file = number(FILE)?;
                self.bits.fill();
                let line = model.codes.number(LINE).read(&mut self.bits)?;
                (FileLine { file, line }, 0)
            }
            recent::HOT => {
                self.hot = number(HOT)?;
                model.hot.get(self.hot)?
            }
            recent::SUCCESSOR..recent::GAP => {
                let rank = symbol.wrapping_sub(recent::SUCCESSOR);
                self.hot = model.hot.successor(self.hot, rank.into())?;
                model.hot.get(self.hot)?
            }
            _ => return None,
        };
        self.recent.put(7, location);
        Some((location, class))
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
