//! Tokens, and the recent locations they refer to ([tokens](super#tokens) and
//! [contexts](super#contexts) are specified in the head of the encoding).
//!
//! Code moves between a few locations: a function, the functions inlined into it, the arguments of a
//! macro. So the decoder keeps the eight locations that were left last ([`Recent`]), and a token says
//! from which of them to continue and by how many lines.

/// Locations that are remembered.
#[cfg(feature = "write")]
pub(super) const LOCATIONS: u16 = 8;
/// The delta that a token of value 0 in its low seven bits has.
pub(super) const DELTA_MIN: i32 = -64;
/// Symbols from here on are not a rank and a delta.
pub(super) const FAR: u16 = 1024;
pub(super) const NEW: u16 = 1032;
pub(super) const HOT: u16 = 1033;
pub(super) const SUCCESSOR: u16 = 1034;
pub(super) const GAP: u16 = 1042;
/// Most successors of a hot pair.
pub(super) const SUCCESSORS: u32 = 8;
#[cfg(feature = "write")]
pub(super) const SYMBOLS: usize = 1043;

/// Classes of tokens, but for those that name a hot pair.
const CLASSES: usize = 19;
/// Relations of a line to the highest seen.
const LEVELS: usize = 4;
/// Classes of lengths.
const LENGTH_CLASSES: usize = 5;
/// Contexts of a token after one of a class.
pub(super) const CONTEXTS_OF_CLASS: usize = LEVELS * LENGTH_CLASSES;

/// Contexts of a token, if the hot pairs have a number of classes.
pub(super) const fn contexts(hot_classes: u8) -> usize {
    #[expect(clippy::as_conversions, reason = "usize::from is not const")]
    let hot_classes = hot_classes as usize;
    CLASSES
        .wrapping_add(hot_classes)
        .wrapping_mul(CONTEXTS_OF_CLASS)
}

/// A file and a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileLine {
    pub(super) file: u32,
    pub(super) line: u32,
}

/// Class of the first token of a block.
const CLASS_FIRST: u8 = 0;
/// Class of a gap.
const CLASS_GAP: u8 = 18;
/// Class of a hot pair of class 0; the others follow.
const CLASS_HOT: u8 = 19;

/// The class of every symbol.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
const CLASS: [u8; 1043] = {
    let mut table = [0; 1043];
    let mut symbol = 0;
    while symbol < table.len() {
        table[symbol] = class_of(symbol);
        symbol += 1;
    }
    table
};

const fn class_of(symbol: usize) -> u8 {
    match symbol {
        0..128 => match symbol {
            0..56 => 1,  // 9 or more lines back
            56..61 => 2, // 4 to 8 back
            61..63 => 3, // 2 or 3 back
            63 => 4,     // 1 back
            64 => 5,     // the same line, after a gap
            65 => 6,     // 1 on
            66 => 7,     // 2 on
            67..69 => 8, // 3 or 4 on
            69..73 => 9, // 5 to 8 on
            _ => 10,     // 9 or more on
        },
        128..192 => 11,   // rank 1, back
        192 => 12,        // rank 1, the line that was left
        193..256 => 13,   // rank 1, on
        256..384 => 14,   // rank 2
        384..1024 => 15,  // ranks 3 to 7
        1024..1032 => 16, // far
        1032 => 17,       // new
        1033..1042 => CLASS_HOT,
        _ => CLASS_GAP,
    }
}

/// Classes as coarse as the ops of chains need them (see [`crate::chain`]).
pub(super) const KIND: [u8; 20] = [0, 2, 2, 2, 2, 1, 3, 3, 4, 4, 4, 6, 5, 6, 7, 8, 9, 10, 9, 11];

/// The class of a length, counted in units.
#[inline(always)]
pub(super) const fn length_class(length: u32) -> u8 {
    match length {
        0..=2 => 0,
        3 => 1,
        4..=5 => 2,
        6..=9 => 3,
        _ => 4,
    }
}

/// The locations that were left last, and what the context of the next token is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    /// By rank: the file in the upper half, the line in the lower, so that a move is one move.
    locations: [u64; 8],
    /// The highest line seen outside headers.
    top: u32,
    class: u8,
}

const fn pack(location: FileLine) -> u64 {
    #[expect(clippy::as_conversions, reason = "u64::from is not const")]
    let (file, line) = (location.file as u64, location.line as u64);
    file << 32 | line
}

impl Recent {
    /// Before the first token of a block that begins at `first`.
    pub(super) const fn new(first: FileLine, headers: u32) -> Self {
        Self {
            locations: [pack(first); 8],
            top: if first.file < headers { 0 } else { first.line },
            class: CLASS_FIRST,
        }
    }

    /// Whether the last token was a gap.
    pub(super) const fn in_gap(&self) -> bool {
        self.class == CLASS_GAP
    }

    /// The class of the last token, that of all hot pairs as one.
    #[inline]
    pub(super) const fn class(&self) -> u8 {
        if self.class < CLASS_HOT {
            self.class
        } else {
            CLASS_HOT
        }
    }

    /// The location at `rank`, of which the low three bits count.
    #[inline(always)]
    pub(super) fn get(&self, rank: u16) -> FileLine {
        let packed = self
            .locations
            .get(usize::from(rank & 7))
            .copied()
            .unwrap_or(0);
        FileLine {
            file: super::bits::low(packed >> 32),
            line: super::bits::low(packed),
        }
    }

    /// Moves ranks below `rank` back by one, over the one at `rank`, and puts `location` at rank 0.
    ///
    /// Every step is a choice between two values that are both there, so that the processor does
    /// not have to guess the rank.
    #[inline(always)]
    pub(super) fn put(&mut self, rank: u16, location: FileLine) {
        let [p0, p1, p2, p3, p4, p5, p6, p7] = self.locations;
        let choose = |limit: u16, moved: u64, kept: u64| if rank >= limit { moved } else { kept };
        self.locations = [
            pack(location),
            choose(1, p0, p1),
            choose(2, p1, p2),
            choose(3, p2, p3),
            choose(4, p3, p4),
            choose(5, p4, p5),
            choose(6, p5, p6),
            choose(7, p6, p7),
        ];
    }

    /// Notes what the last token was, and the location it led to; and if it named a hot pair, the
    /// class of that (otherwise 0).
    #[inline(always)]
    pub(super) fn note(&mut self, symbol: u16, hot_class: u8, headers: u32) {
        let class = CLASS.get(usize::from(symbol)).copied().unwrap_or(0);
        self.class = class.wrapping_add(hot_class);
        let location = self.get(0);
        if location.file >= headers {
            // A line that was not near the last ones is of another function.
            let other = (FAR..GAP).contains(&symbol);
            self.top = if other {
                location.line
            } else {
                self.top.max(location.line)
            };
        }
    }

    /// The context of the next token, for an entry with a length of this class.
    #[inline(always)]
    pub(super) fn context(&self, headers: u32, length_class: u8) -> usize {
        let location = self.get(0);
        let level = if location.file < headers {
            0
        } else if location.line >= self.top {
            1
        } else if location.line.wrapping_add(12) >= self.top {
            2
        } else {
            3
        };
        usize::from(self.class)
            .wrapping_mul(LEVELS)
            .wrapping_add(level)
            .wrapping_mul(LENGTH_CLASSES)
            .wrapping_add(usize::from(length_class))
    }
}
