//! Blocks of two bit streams, with codes fitted to the image: about 1.5 bytes a row.
//!
//! Compiled code goes on by a line or two, comes back to where it was, and visits the same inlined
//! functions of headers everywhere. A row is a *length* and a *token*. The lengths of a block stand
//! together, so that a look-up first adds lengths until it has passed its address, which is fast,
//! and then reads exactly as many tokens as it needs. Lengths and tokens have static Huffman codes,
//! the latter one for each kind of context; the tables of the codes stand in the blob and are used
//! there. Nothing is expanded.
//!
//! What follows is the specification. All integers are little-endian and unaligned.
//!
//! # Streams
//!
//! A *forward stream* takes its bytes in ascending order and of each the least significant bit
//! first. A *backward stream* takes its bytes in descending order and of each the most significant
//! bit first. A number of `n` raw bits has its lowest bit first in a forward stream, its highest bit
//! first in a backward stream. Codes have their first bit first in both.
//!
//! # Codes
//!
//! An entry of a code's table is a `u16`. There are two forms of tables.
//!
//! The table of a *number code* has `2^bits` entries (`bits` at most 10). Its index is the next
//! `bits` of the stream, as a number of so many raw bits. Bits 0 to 3 of the entry are the length of
//! the code, 4 to 8 the number of raw bits `e` that follow it, 9 to 15 the head `m`: the number is
//! `(m << e) + raw`, modulo 2^32. A writer gives numbers below 64 heads of their own, larger ones
//! four heads for each power of two (`m` in 4..8), and always has codes for two escapes, of 31 raw
//! bits and the heads 0 and 1.
//!
//! The table of a *token code* has a root of 128 entries; its index is the next 7 bits. Without bit
//! 15, bits 0 to 3 of the entry are the length of the code, and bits 4 to 14 the symbol. With bit 15
//! it leads to a sub-table, which begins in the pool at 8 times bits 4 to 14 (in entries); the index
//! in it is made of the next bits, as many as bits 0 to 3 say. There the length of the code is that
//! beyond 7.
//!
//! A length of 0 belongs to no symbol; a reader refuses it.
//!
//! # The model section
//!
//! | bytes | contents |
//! |---|---|
//! | 1 | 0: the codes follow, 1: they are the built-in ones |
//! | 1 | `p`: a page has `2^p` bytes of text (8 to 24) |
//! | 1 | `u`: a unit of lengths has `2^u` bytes of text (0 to 4) |
//! | 1 | zero |
//! | 4 | `u32` number of headers: files with smaller indices are headers |
//! | 4 | `u32` number of hot pairs |
//! | 4 | `u32` size of the hot pairs in bytes |
//! | | the hot pairs |
//! | | the codes |
//!
//! The codes, in this section or in the file `built-in.codes` beside the source of this module:
//!
//! | bytes | contents |
//! |---|---|
//! | 1 | number of token codes |
//! | 7 | `bits` of each number code: *length*, *far*, *file*, *line*, *hot*, *first file*, *first line* |
//! | 1 | number of classes of hot pairs, `h`, 1 to 128 |
//! | 2 | `u16` size of the pool, in eights of entries |
//! | 20 (19 + h) | for every context the token code that it uses |
//! | | the tables of the number codes, in that order |
//! | | the roots of the token codes |
//! | | the pool |
//!
//! The hot pairs are places that many functions come to, in a dictionary by falling frequency; from
//! a hot pair code often goes on to one of few others. If there are none, it is empty; otherwise:
//!
//! | bytes | contents |
//! |---|---|
//! | 5 | the bits of a file, a line, a class (at most 7), a begin, an index; together at most 57 without the index |
//! | | a record for each pair, and one more of which only the begin counts: file, line, class, begin |
//! | | the lists, from the next byte on: indices of hot pairs |
//!
//! Records and lists are fields of a forward stream. `begin` is the position in the lists where the
//! successors of a pair begin, at most eight; they end where those of the next pair begin.
//!
//! # The table of a region
//!
//! A region without rows has a table of no bytes. If the first byte is 0, the rest is one block,
//! which starts at address 0 with file 0 and line 0 to expect. Otherwise:
//!
//! | bytes | contents |
//! |---|---|
//! | 1 | 1 |
//! | 1 | bits of a size, at most 24 |
//! | 2 | `u16` smallest size of a block, in bytes |
//! | 4 | `u32` number of blocks, below 2^24 |
//! | 12 each | the pages that the region's length needs |
//! | | the records, fields of a forward stream |
//! | | the blocks, from the next byte on: the *data* |
//!
//! A page is: `u32` where in the data the first block begins that starts in this page or a later one;
//! `u32`, the number of that block in the lower 24 bits, and in the upper 8 how many pages back the
//! block before it starts (0 in page 0); `u16` a file and `u16` a line to expect. If there is no such
//! block, it says where the data ends and how many blocks there are.
//!
//! A record is, for each block and once more behind the last: where it starts in its page, in units
//! of 16 bytes, `p - 4` bits; and the size of the block *before* it, less the smallest size. So the
//! record of the next block gives the size of this one.
//!
//! # A block
//!
//! A block has a forward stream of lengths and a backward stream of tokens. They meet with less than
//! 8 bits between them, zeros. There are at most 160 entries in it, and as many as it takes to reach
//! the start of the next block, or the end of the region rounded up to a unit.
//!
//! The forward stream has for every entry a number of the code *length*: its length in units, or in
//! bytes if it is an escape.
//!
//! The backward stream begins with the place of the first entry: a number of the code *first file*,
//! which is 0 for a gap, and otherwise one more than the difference to the file to expect, folded
//! (0, -1, 1, -2, 2 as 0, 1, 2, 3, 4); and unless it is a gap, a number of the code *first line*,
//! the distance to the line to expect, and a bit that is 1 if the line is below it. For every other
//! entry follows a token.
//!
//! Rows that are cut at the end of a block, and a gap in front of the first row, are not rows of
//! their own.
//!
//! # Tokens
//!
//! The decoder has eight recent places (file and line) with ranks 0 to 7, in the beginning all of them
//! the first place (in a gap, the place to expect), and a *last hot pair*, in the beginning none. To
//! *put* a place in at rank `r` is to move ranks below `r` back by one, over rank `r`, and make it
//! rank 0.
//!
//! | symbol | followed by | the place of the entry |
//! |---|---|---|
//! | `r << 7 \| (d + 64)` | | of rank `r`, `d` lines on (-64 to 63); put in at `r` |
//! | 1024 + `r` | *far*, a bit | of rank `r`, so many lines on, or back if the bit is 1; put in at 7 |
//! | 1032 | *file*, *line* | these; put in at 7 |
//! | 1033 | *hot* | of that hot pair, which is the last hot pair now; put in at 7 |
//! | 1034 + `i` | | of successor `i` of the last hot pair, which it is now; put in at 7 |
//! | 1042 | | none: a gap |
//!
//! # Contexts
//!
//! The context of a token is `20 class + 5 level + length`.
//!
//! *class* is 0 for the first token of a block, and then that of the token before: with `r` = 0 by `d`,
//! 1: -64 to -9, 2: -8 to -4, 3: -3 and -2, 4: -1, 5: 0, 6: 1, 7: 2, 8: 3 and 4, 9: 5 to 8,
//! 10: 9 to 63; with `r` = 1, 11: below 0, 12: 0, 13: above; 14: `r` = 2; 15: higher `r`; 16: far;
//! 17: a file and a line; 18: a gap; 19 and the class of the hot pair: a hot pair or a successor.
//!
//! *level* is 0 if rank 0 is in a header; otherwise by its line, 1: at least the top, 2: at most 12
//! below it, 3: further below. The top is 0 if a block begins in a header, else its first line. After
//! a token that leaves rank 0 outside headers the top is the line of rank 0 if the symbol was 1024 to
//! 1041, otherwise the larger of it and the top before.
//!
//! *length* is by the length of the token's entry in units, rounded down: 0: up to 2, 1: 3, 2: 4 and
//! 5, 3: 6 to 9, 4: more.
//!
//! # A worked example
//!
//! Text of 16 bytes with `a.c:7` from 0, `a.c:9` from 4, and a gap from 12. The built-in codes serve.
//!
//! Forward: the lengths 4, 8 and 4, codes `000`, `0111`, `000`. Backward: first file 1 (the file to
//! expect), code `0`; first line 7, code `10111110`; not below, `0`; a token of rank 0 and 2 lines on,
//! in context 0, 1, 3, code `001`; a gap, in context 7, 1, 2, code `11011100`.
//!
#![cfg_attr(not(feature = "write"), doc = "```ignore")]
#![cfg_attr(feature = "write", doc = "```")]
//! # use lineinfo_core::blob::{Encoding, Profile};
//! # use lineinfo_core::writer::{Image, Region, encode};
//! # use lineinfo_core::{Row, Table};
//! # let rows = [
//! #     Row { start: 0, file: 0, line: 7 },
//! #     Row { start: 4, file: 0, line: 9 },
//! #     Row { start: 12, file: 0, line: 0 },
//! # ];
//! # let blob = encode(&Image {
//! #     machine: 62,
//! #     build_id: &[],
//! #     text_start: 0,
//! #     profile: Profile::Full,
//! #     files: &["a.c"],
//! #     exact_files: 1,
//! #     regions: &[Region { name: ".text", start: 0, len: 16, init: false, rows: &rows }],
//! # }, Encoding::Packed)?;
//! # let table = Table::parse(&blob)?;
//! # let range = table.regions().next().ok_or("no region")?.table;
//! # let table = &blob[range.start as usize..range.end as usize];
//! assert_eq!(table, [
//!     0, // one block
//!     0b0_111_0_000, // from the right: 000, 0111, and 0 of 000
//!     0b11100_0_00, // from the right: the rest of it; from the left: the rest of the gap
//!     0b0_0_001_110, // from the left: the rest of the line, not below, 001, 110 of the gap
//!     0b0_1011111, // from the left: the file, and the line but for its end
//! ]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A look-up in steps
//!
//! At most the records of one page and one more; at most 160 lengths; at most 159 tokens. With
//! blocks of 48 entries on average these are 62 entries, unless no multiple of 16 bytes is near.

mod bits;
mod codes;
mod directory;
mod hot;
mod model;
mod recent;
#[cfg(feature = "write")]
pub(crate) mod write;

use self::bits::Bits;
use self::directory::{Block, Blocks, Extent};
pub(crate) use self::model::Model;
use self::model::{FAR, FILE, FIRST_FILE, FIRST_LINE, HOT, LENGTH, LINE};
use self::recent::{DELTA_MIN, Place, Recent, length_class};
use super::{Fault, RegionTable, Row};
use crate::index;
use crate::steps::step;

/// Most entries of a block.
pub(super) const ENTRIES_MAX: usize = 160;

/// Most steps of a look-up: records of a page, and entries of a block.
pub(super) const STEPS_MAX: usize = index(directory::PAGE_BLOCKS_MAX) + ENTRIES_MAX;

/// No hot pair.
const COLD: u32 = u32::MAX;

/// The backward stream of a block: its first place, and the tokens of the entries behind it.
///
/// A place with line 0 is a gap.
#[derive(Clone, Debug)]
struct Tokens<'a> {
    bits: Bits<'a, true>,
    recent: Recent,
    /// The hot pair that the last token named, or [`COLD`].
    hot: u32,
}

impl<'a> Tokens<'a> {
    /// Begins a block, and reads its first place.
    #[inline(always)]
    fn begin(model: &Model<'_>, bytes: &'a [u8], block: &Block) -> Option<(Self, Place)> {
        let mut bits = Bits::new(bytes, block.end);
        bits.fill();
        let (first, place) = match model
            .codes
            .number(FIRST_FILE)
            .read(&mut bits)?
            .checked_sub(1)
        {
            None => (block.guess, Place::default()),
            Some(code) => {
                let file = block.guess.file.wrapping_add_signed(unfold(code));
                bits.fill();
                let distance = model.codes.number(FIRST_LINE).read(&mut bits)?;
                let line = moved(block.guess.line, distance, bits.number(1))?;
                let place = Place { file, line };
                (place, place)
            }
        };
        let tokens = Self {
            bits,
            recent: Recent::new(first, model.headers),
            hot: COLD,
        };
        Some((tokens, place))
    }

    /// The place of the next entry, whose length is of a class.
    #[inline(always)]
    fn next(&mut self, model: &Model<'_>, length_class: u8) -> Option<Place> {
        self.bits.fill();
        let context = self.recent.context(model.headers, length_class);
        let cluster = *model.codes.cluster_of.get(context)?;
        let symbol = model.codes.tokens.read(cluster, &mut self.bits)?;
        let (place, class) = if symbol < recent::FAR {
            let rank = symbol >> 7;
            let from = self.recent.get(rank);
            let delta = i32::from(symbol & 127).wrapping_add(DELTA_MIN);
            let place = Place {
                file: from.file,
                line: from.line.checked_add_signed(delta)?,
            };
            self.recent.put(rank, place);
            (place, 0)
        } else {
            self.rare(model, symbol)?
        };
        self.recent.note(symbol, class, model.headers);
        Some(place)
    }

    /// The tokens that are not a rank and a small delta, about one in six: the place, and the class
    /// if it is a hot pair.
    #[inline(never)]
    fn rare(&mut self, model: &Model<'_>, symbol: u16) -> Option<(Place, u8)> {
        let mut number = |kind| model.codes.number(kind).read(&mut self.bits);
        let (place, class) = match symbol {
            recent::GAP => return Some((Place::default(), 0)),
            recent::FAR..recent::NEW => {
                let from = self.recent.get(symbol);
                let distance = number(FAR)?;
                let line = moved(from.line, distance, self.bits.number(1))?;
                (Place { line, ..from }, 0)
            }
            recent::NEW => {
                let file = number(FILE)?;
                self.bits.fill();
                let line = model.codes.number(LINE).read(&mut self.bits)?;
                (Place { file, line }, 0)
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
        self.recent.put(7, place);
        Some((place, class))
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

#[inline(always)]
const fn row(start: u32, place: Place) -> Row {
    let file = if place.line == 0 { 0 } else { place.file };
    Row {
        start,
        file,
        line: place.line,
    }
}

/// Lengths and tokens are read in step, so that nothing has to be kept of either; they do not wait
/// for each other.
///
/// Not inlined: the other encodings must not pay for its stack.
#[inline(never)]
pub(super) fn find(table: &RegionTable<'_>, target: u32) -> Option<Row> {
    let model = &Model::new(table.model)?;
    let block = directory::find(table, model.page_bits, target)?;
    let mut bits = Bits::<false>::new(table.bytes, block.begin);
    let (mut tokens, mut place) = Tokens::begin(model, table.bytes, &block)?;
    let length_code = model.codes.number(LENGTH);
    let mut start = block.start;
    for entry in 0..ENTRIES_MAX {
        step();
        bits.fill();
        let (number, shift) = length_code.read_length(&mut bits, model.unit_bits)?;
        let length = number.wrapping_shl(shift);
        // The first place came with the head of the block.
        if entry > 0 {
            let class = length_class(length.wrapping_shr(model.unit_bits));
            place = tokens.next(model, class)?;
        }
        let end = start.wrapping_add(length);
        if target < end {
            return Some(row(start, place));
        }
        start = end;
    }
    None
}

/// The light check of a table: its directory, and no row.
pub(super) fn check(table: &RegionTable<'_>) -> Result<(), Fault> {
    let model = Model::new(table.model).ok_or_else(|| table.fault("a model"))?;
    Blocks::new(table, &model)?.check()
}

/// Decodes a table block by block, and proves on the way that every row is there.
#[derive(Clone, Debug)]
pub(crate) struct Rows<'a> {
    table: RegionTable<'a>,
    model: Model<'a>,
    /// The blocks that follow.
    blocks: Blocks<'a>,
    /// The block at hand, if one is.
    current: Option<Current<'a>>,
    /// The row given out last.
    last: Option<Row>,
    done: bool,
}

#[derive(Clone, Debug)]
struct Current<'a> {
    block: Block,
    lengths: Bits<'a, false>,
    tokens: Tokens<'a>,
    /// Of the first entry; afterwards none.
    first: Option<Place>,
    /// Where the next entry starts.
    start: u32,
    /// Where the block ends, in bytes of text.
    end: u32,
    entries: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(table: &RegionTable<'a>) -> Result<Self, Fault> {
        let model = Model::new(table.model).ok_or_else(|| table.fault("a model"))?;
        Ok(Self {
            table: *table,
            model,
            blocks: Blocks::new(table, &model)?,
            current: None,
            last: None,
            done: false,
        })
    }

    /// Goes to the next block.
    fn advance(&mut self) -> Result<bool, Fault> {
        let Some(Extent { block, text_end }) = self.blocks.next()? else {
            return Ok(false);
        };
        let Some((tokens, first)) = Tokens::begin(&self.model, self.table.bytes, &block) else {
            return Err(Fault {
                at: block.end,
                expected: "the first place of a block",
                found: block.start.into(),
            });
        };
        self.current = Some(Current {
            lengths: Bits::new(self.table.bytes, block.begin),
            tokens,
            first: Some(first),
            start: block.start,
            end: text_end,
            entries: 0,
            block,
        });
        Ok(true)
    }

    /// The next entry: part of a row, or of a gap that has none.
    fn entry(&mut self) -> Result<Option<Row>, Fault> {
        if self
            .current
            .as_ref()
            .is_none_or(|current| current.start == current.end)
            && !self.advance()?
        {
            return Ok(None);
        }
        let Some(current) = &mut self.current else {
            return Ok(None);
        };
        current.entry(&self.model).map(Some)
    }
}

impl Current<'_> {
    fn entry(&mut self, model: &Model<'_>) -> Result<Row, Fault> {
        let at = self.block.begin;
        let start = self.start;
        let fault = |expected| Fault {
            at,
            expected,
            found: start.into(),
        };
        step();
        self.entries = self.entries.wrapping_add(1);
        if self.entries > ENTRIES_MAX {
            return Err(fault("a block of at most 160 entries"));
        }
        let length_code = model.codes.number(LENGTH);
        self.lengths.fill();
        let (number, shift) = length_code
            .read_length(&mut self.lengths, model.unit_bits)
            .ok_or_else(|| fault("the code of a length"))?;
        let length = number
            .checked_mul(1_u32.wrapping_shl(shift))
            .filter(|length| *length > 0)
            .ok_or_else(|| fault("a length of at least one byte"))?;
        self.start = start
            .checked_add(length)
            .filter(|end| *end <= self.end)
            .ok_or_else(|| fault("an entry inside its block"))?;
        let is_first = self.first.is_some();
        let place = match self.first.take() {
            Some(first) => Some(first),
            None => self
                .tokens
                .next(model, length_class(length.wrapping_shr(model.unit_bits))),
        };
        let place = place.ok_or_else(|| fault("a token that leads to a place"))?;
        // A gap is said in one way only: by its own token, or by its own first file.
        if place.line == 0 && (place.file != 0 || (!is_first && !self.tokens.in_gap())) {
            return Err(fault("a line from 1"));
        }
        let lengths = self.lengths.taken(self.block.begin);
        let taken = lengths.wrapping_add(self.tokens.bits.taken(self.block.end));
        let size = self.block.end.wrapping_sub(self.block.begin);
        if taken.div_ceil(8) > size {
            return Err(fault("streams that do not run into each other"));
        }
        if self.start == self.end {
            if taken.div_ceil(8) != size {
                return Err(fault("streams that fill their block"));
            }
            let between = size.wrapping_mul(8).wrapping_sub(taken);
            self.lengths.fill();
            if self.lengths.peek(u32::try_from(between).unwrap_or(0)) != 0 {
                return Err(fault("zeros between the streams"));
            }
        }
        Ok(row(start, place))
    }
}

impl Tokens<'_> {
    /// Whether the last token was a gap.
    const fn in_gap(&self) -> bool {
        self.recent.in_gap()
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            match self.entry() {
                Ok(Some(row)) => {
                    // A row that was cut between two blocks is one row, and before the first row
                    // there is a gap anyway.
                    let goes_on = match &self.last {
                        Some(last) => (last.file, last.line) == (row.file, row.line),
                        None => row.is_gap(),
                    };
                    if !goes_on {
                        self.last = Some(row);
                        return Some(Ok(row));
                    }
                }
                Ok(None) => self.done = true,
                Err(fault) => {
                    self.done = true;
                    return Some(Err(fault));
                }
            }
        }
        None
    }
}
