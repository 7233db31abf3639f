//! Tokens, and the recent locations they refer to ([tokens](super#tokens) and
//! [contexts](super#contexts) are specified in the head of the encoding).
//!
//! Code moves between a few locations: a function, the functions inlined into it, the arguments of a
//! macro. So the decoder keeps the eight locations that were left last ([`Recent`]), and a token says
//! from which of them to continue and by how many lines.

/// Locations that are remembered.
pub(super) const LOCATIONS: u16 = 8;
/// The delta that a token of value 0 in its low seven bits has.
pub(super) const DELTA_MIN: i32 = -64;
/// Symbols from here on are not a rank and a delta.
pub(super) const FAR: u16 = 1024;
pub(super) const NEW: u16 = 1032;
pub(super) const HOT: u16 = 1033;
pub(super) const SUCCESSOR: u16 = 1034;
pub(super) const NEXT_FILE: u16 = 1042;
pub(super) const GAP: u16 = 1043;
/// Most successors of a hot pair.
pub(super) const SUCCESSORS: u32 = 8;
#[cfg(feature = "write")]
pub(super) const SYMBOLS: usize = 1044;

/// Classes of tokens, but for those that name a hot pair.
const CLASSES: usize = 19;
/// Relations of a line to the highest seen.
pub(super) const LEVELS: usize = 4;
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
const CLASS: [u8; 1044] = {
    let mut table = [0; 1044];
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
        1042 => 17, // new as well
        _ => CLASS_GAP,
    }
}

/// The class of a length, counted in units.
#[inline(always)]
pub(super) const fn length_class(length: u32) -> u64 {
    // A table of nibbles: up to 2, 3, 4 and 5, 6 to 9, more.
    const CLASSES: u64 = 0x4444_4433_3322_1000;
    let shift = if length < 15 { length } else { 15 } << 2;
    CLASSES.wrapping_shr(shift) & 15
}

/// The locations that were left last, and what the context of the next token is made of.
///
/// Nothing here is a branch on what the stream says: the processor would guess it wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    /// In no order: the file in the upper half, the line in the lower, so that a location is one word
    /// and a comparison with the first that is no header is one comparison.
    locations: [u64; 8],
    /// The one of rank 0 once more: the next context waits for it.
    here: u64,
    /// For each rank the index of its location, four bits each, rank 0 lowest.
    order: u32,
    /// The highest line seen outside headers.
    top: u32,
    /// The first location outside headers.
    headers_end: u64,
    class: u8,
}

pub(super) const fn pack(location: FileLine) -> u64 {
    #[expect(clippy::as_conversions, reason = "u64::from is not const")]
    let (file, line) = (location.file as u64, location.line as u64);
    file << 32 | line
}

const fn unpack(location: u64) -> FileLine {
    FileLine {
        file: super::bits::low(location >> 32),
        line: super::bits::low(location),
    }
}

impl Recent {
    /// Before the first token of a block that begins at `first`, in a page where `guess` is to be
    /// expected.
    pub(super) const fn new(first: FileLine, guess: FileLine, headers: u32) -> Self {
        let other = pack(guess);
        Self {
            locations: [pack(first), other, other, other, other, other, other, other],
            here: pack(first),
            order: 0x7654_3210,
            top: if first.file < headers { 0 } else { first.line },
            headers_end: pack(FileLine {
                file: headers,
                line: 0,
            }),
            class: CLASS_FIRST,
        }
    }

    /// Whether the last token was a gap.
    pub(super) const fn in_gap(&self) -> bool {
        self.class == CLASS_GAP
    }

    /// The class of the last token, as coarse as the ops of chains need it (see [`crate::chain`]).
    #[inline]
    pub(super) const fn kind(&self) -> usize {
        match self.class {
            CLASS_FIRST => 0,
            5 => 1,
            1..=4 => 2,
            6 | 7 => 3,
            8..=10 => 4,
            12 => 5,
            11 | 13 => 6,
            14 => 7,
            15 => 8,
            16 | CLASS_GAP => 9,
            17 => 10,
            CLASS_HOT.. => 11,
        }
    }

    /// Where the location of a rank is, of which the low three bits count.
    #[inline(always)]
    fn slot(&self, rank: u16) -> u32 {
        self.order.wrapping_shr(u32::from(rank & 7) << 2) & 7
    }

    #[inline(always)]
    fn at(&self, slot: u32) -> u64 {
        let location = self.locations.get(crate::index(slot & 7));
        location.copied().unwrap_or(0)
    }

    /// The location at `rank`, of which the low three bits count.
    #[inline(always)]
    pub(super) fn get(&self, rank: u16) -> FileLine {
        unpack(self.at(self.slot(rank)))
    }

    /// The same, packed.
    #[cfg(feature = "write")]
    pub(super) fn packed(&self, rank: u16) -> u64 {
        self.at(self.slot(rank))
    }

    /// Moves ranks below `rank` back by one, over the one at `rank`, and puts `location` at rank 0.
    #[inline(always)]
    pub(super) fn put(&mut self, rank: u16, location: FileLine) {
        let shift = u32::from(rank & 7) << 2;
        let slot = self.order.wrapping_shr(shift) & 7;
        let kept = self.order & 0xffff_fff0_u32.wrapping_shl(shift);
        let moved = self.order & !u32::MAX.wrapping_shl(shift);
        self.order = kept | moved << 4 | slot;
        self.here = pack(location);
        if let Some(place) = self.locations.get_mut(crate::index(slot)) {
            *place = self.here;
        }
    }

    /// The start of the file after that of the latest location outside headers; of the first file
    /// after the headers if there is none.
    #[inline(always)]
    pub(super) fn next_file(&self) -> FileLine {
        let files = (0..LOCATIONS).map(|rank| self.at(self.slot(rank)));
        let mut outside = files.filter(|location| *location >= self.headers_end);
        let file = match outside.next() {
            Some(location) => unpack(location).file.wrapping_add(1),
            None => unpack(self.headers_end).file,
        };
        FileLine { file, line: 0 }
    }

    /// Notes what the last token was, and the location it led to; and if it named a hot pair, the
    /// class of that (otherwise 0).
    #[inline(always)]
    pub(super) fn note(&mut self, symbol: u16, hot_class: u8) {
        let class = CLASS.get(usize::from(symbol)).copied().unwrap_or(0);
        self.class = class.wrapping_add(hot_class);
        let line = super::bits::low(self.here);
        // A line that was not near the last ones is of another function.
        let other = (FAR..GAP).contains(&symbol);
        let top = if other { line } else { self.top.max(line) };
        self.top = if self.here >= self.headers_end {
            top
        } else {
            self.top
        };
    }

    /// The contexts that the next token may have, by level from this one on, for an entry with a
    /// length of this class.
    ///
    /// It needs no location, so the codes of all levels can be loaded before that is known.
    #[inline(always)]
    pub(super) fn contexts(&self, length_class: u64) -> usize {
        usize::from(self.class)
            .wrapping_mul(LENGTH_CLASSES)
            .wrapping_add(crate::index(super::bits::low(length_class)))
            .wrapping_mul(LEVELS)
    }

    /// How the line of rank 0 relates to the highest seen.
    #[inline(always)]
    pub(super) fn level(&self) -> u32 {
        let line = super::bits::low(self.here);
        let below = u32::from(line < self.top);
        let far_below = u32::from(line.wrapping_add(12) < self.top);
        let level = below.wrapping_add(far_below).wrapping_add(1);
        if self.here >= self.headers_end {
            level
        } else {
            0
        }
    }
}
