//! Blocks of two bit streams, with codes fitted to the image: about 1.5 bytes a row.
//!
//! Compiled code continues by a line or two, returns to where it was, and comes to the same inlined
//! functions of headers everywhere. A row is a *length* and a *token*. The lengths of a block are
//! together, so that a look-up first adds lengths until it has passed its address, which is fast,
//! and then reads exactly as many tokens as it needs. Lengths and tokens have static Huffman codes,
//! the latter one for each kind of context; the tables of the codes are used where they are
//! in the blob. Nothing is expanded.
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
//! A length of 0 belongs to no symbol; a reader that comes to one has no answer. Lengths are at most
//! `bits` in a number code and at most 7 in each table of a token code.
//!
//! # The model section
//!
//! | bytes | contents |
//! |---|---|
//! | 1 | 0: the codes follow, 1: they are the built-in ones |
//! | 1 | `p`: a page has `2^p` bytes of text (8 to 24) |
//! | 1 | `u`: a unit of lengths has `2^u` bytes of text (0 to 4) |
//! | 4 | `u32` number of headers: files with smaller indices are headers |
//! | 4 | `u32` number of hot pairs |
//! | 4 | `u32` size of the hot pairs in bytes |
//! | | the hot pairs |
//! | | the codes |
//!
//! With the built-in codes there are no hot pairs, and all that follows the first three bytes is the
//! number of headers, in as many bytes as there are (0 to 4). A table without a model section has
//! the built-in codes, `p` = 16, `u` = 0, and no headers.
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
//! The hot pairs are locations that many functions come to, in a dictionary by falling frequency; from
//! a hot pair one of few others often follows. If there are none, it is empty; otherwise:
//!
//! | bytes | contents |
//! |---|---|
//! | 5 | the bits of a file, a line, a class (at most 7), a begin, an index (at least 1); without the index together 1 to 57 |
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
//! | 5 | the bits of a begin (at most 31), a number (1 to 24), a distance (at most 8), a file and a line (at most 16) |
//! | | the pages that the region's length needs, fields of a forward stream |
//! | | the records, from the next byte on, fields of a forward stream |
//! | | the blocks, from the next byte on: the *data* |
//!
//! A page is: where in the data the first block begins that starts in this page or a later one; the
//! number of that block; the distance, how many pages back the block before it starts (0 in page 0);
//! the file and the line to expect. If there is no such block, it says where the data ends and how
//! many blocks there are. At most 256 blocks start in a page, and a block has at least one byte.
//!
//! A record is, for each block and once more after the last: where it starts in its page, in units
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
//! The backward stream begins with the location of the first entry: a number of the code *first file*,
//! which is 0 for a gap, and otherwise one more than the difference to the file to expect, folded
//! (0, -1, 1, -2, 2 as 0, 1, 2, 3, 4); and unless it is a gap, a number of the code *first line*,
//! the distance to the line to expect, and a bit that is 1 if the line is below it. For every other
//! entry follows a token.
//!
//! Rows that are cut at the end of a block, and a gap before the first row, are not rows of
//! their own.
//!
//! # Tokens
//!
//! The decoder has eight recent locations (file and line) with ranks 0 to 7, and a *last hot pair*. In
//! the beginning rank 0 is the first location (in a gap, the location to expect), the other ranks are the
//! location to expect, and there is no last hot pair. To
//! *put* a location in at rank `r` is to move ranks below `r` back by one, over rank `r`, and make it
//! rank 0.
//!
//! | symbol | followed by | the location of the entry |
//! |---|---|---|
//! | `r << 7 \| (d + 64)` | | of rank `r`, `d` lines on (-64 to 63); put in at `r` |
//! | 1024 + `r` | *far*, a bit | of rank `r`, so many lines on, or back if the bit is 1; put in at 7 |
//! | 1032 | *file*, *line* | these; put in at 7 |
//! | 1033 | *hot* | of that hot pair, which is the last hot pair now; put in at 7 |
//! | 1034 + `i` | | of successor `i` of the last hot pair, which it is now; put in at 7 |
//! | 1042 | *line* | this line of the *next file*; put in at 7 |
//! | 1043 | | none: a gap |
//!
//! The next file is the one after that of the lowest rank outside headers; if all ranks are in headers, the
//! first file outside headers. A writer numbers the files in the order of the text, so this is where
//! the text of the next unit begins.
//!
//! # Contexts
//!
//! The context of a token is `20 class + 4 length + level`: the codes of all levels are side by side, and
//! a reader loads them together, before it knows the level.
//!
//! *class* is 0 for the first token of a block, and then that of the token before: with `r` = 0 by `d`,
//! 1: -64 to -9, 2: -8 to -4, 3: -3 and -2, 4: -1, 5: 0, 6: 1, 7: 2, 8: 3 and 4, 9: 5 to 8,
//! 10: 9 to 63; with `r` = 1, 11: below 0, 12: 0, 13: above; 14: `r` = 2; 15: higher `r`; 16: far;
//! 17: a file and a line, or the next file; 18: a gap; 19 and the class of the hot pair: a hot pair or a successor.
//!
//! *level* is 0 if rank 0 is in a header; otherwise by its line, 1: at least the top, 2: at most 12
//! below it, 3: further below. The top is 0 if a block begins in a header, else its first line. After
//! a token that leaves rank 0 outside headers the top is the line of rank 0 if the symbol was 1024 to
//! 1042, otherwise the larger of it and the top before.
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
//! At most the 256 records of one page and one more; at most 160 lengths; at most 159 tokens. With
//! blocks of 48 entries on average these are 62 entries, unless no multiple of 16 bytes is near.
//!
//! # The modules
//!
//! Each has the reader of a structure, and in its `write` the writer.
//!
//! | module | structure |
//! |---|---|
//! | `bits` | streams and fields |
//! | `codes` | the tables of codes |
//! | `model` | the model section |
//! | `hot` | the hot pairs in it |
//! | `directory` | the table of a region without its blocks; `cut`: where the writer cuts blocks |
//! | `recent` | the recent locations and contexts; reader and writer do the same with them |
//! | `tokens` | the backward stream of a block |
//! | `rows` | blocks: the full check, and their writer |
//! | `write` | the choices that the writer makes for all regions together |

pub(crate) mod bits;
pub(crate) mod codes;
mod directory;
mod hot;
mod model;
mod recent;
mod rows;
pub(crate) mod tokens;
#[cfg(feature = "write")]
pub(crate) mod write;

use self::bits::Bits;
pub(crate) use self::directory::Block;
use self::directory::Blocks;
use self::model::LENGTH;
pub(crate) use self::model::Model;
use self::recent::{FileLine, length_class, pack};
pub(crate) use self::rows::Rows;
use self::tokens::Head;
use super::{Fault, RegionTable, Row};
use crate::index;
use crate::steps::step;

/// Most entries of a block.
pub(super) const ENTRIES_MAX: usize = 160;

/// Most steps of a look-up: records of a page, and entries of a block.
pub(super) const STEPS_MAX: usize = index(directory::PAGE_BLOCKS_MAX) + ENTRIES_MAX;

#[inline(always)]
const fn row(start: u32, location: FileLine) -> Row {
    let file = if location.line == 0 { 0 } else { location.file };
    Row {
        start,
        file,
        line: location.line,
    }
}

/// Entries for which a stream is filled once.
const FILL: usize = 4;
const _: () = assert!(ENTRIES_MAX.is_multiple_of(FILL));

/// Two functions one after the other, so that only one of them is on the stack of an interrupt.
#[inline(always)]
pub(super) fn find(table: &RegionTable<'_>, target: u32) -> Option<Row> {
    let mut passed = Unseen(Block::EMPTY);
    find_block(table, target, &mut passed.0)?;
    find_in_block(table.bytes, table.model, target, &mut passed)
}

#[inline(always)]
fn find_block(table: &RegionTable<'_>, target: u32, block: &mut Block) -> Option<()> {
    directory::find(table, Model::page_bits(table.model)?, target, block)
}

/// Sees the entries of a block up to the one that is looked for.
trait Passed {
    fn block(&self) -> &Block;

    /// The entries follow; files below `headers` are headers.
    fn begin(&mut self, headers: u32);

    fn entry(&mut self, location: FileLine, class: u8);
}

/// For a look-up of a line alone.
struct Unseen(Block);

impl Passed for Unseen {
    #[inline(always)]
    fn block(&self) -> &Block {
        &self.0
    }

    #[inline(always)]
    fn begin(&mut self, _headers: u32) {}

    #[inline(always)]
    fn entry(&mut self, _location: FileLine, _class: u8) {}
}

/// Lengths and tokens are read in step, so that nothing has to be kept of either; they do not wait
/// for each other.
#[inline(never)]
fn find_in_block(bytes: &[u8], model: &[u8], target: u32, passed: &mut impl Passed) -> Option<Row> {
    let block = passed.block();
    // The first bytes of the streams are far from what was read last. While they are on their way,
    // the processor can find its way in the model.
    let mut lengths = Bits::<false>::new(bytes, block.begin());
    lengths.fill();
    let head = Head::new(bytes, block);
    let model = Model::new(model)?;
    let rarities = model.rarities();
    let (mut tokens, mut slots, mut location) = head.begin(&model, block)?;
    let length_code = model.codes.numbers.code(LENGTH);
    let mut start = block.start;
    passed.begin(model.headers);
    let mut is_first = true;
    for _ in 0..ENTRIES_MAX / FILL {
        lengths.fill();
        tokens.bits.fill();
        for _ in 0..FILL {
            step();
            let (number, shift) = length_code.read_length(&mut lengths, model.unit_bits)?;
            let length = number.wrapping_shl(shift);
            // The first location came with the head of the block.
            if !is_first {
                let class = length_class(length.wrapping_shr(model.unit_bits));
                location = tokens.next_filled(&mut slots, &model, &rarities, class)?;
            }
            is_first = false;
            passed.entry(location, tokens.class());
            let end = start.wrapping_add(length);
            if target < end {
                return Some(row(start, location));
            }
            start = end;
        }
    }
    None
}

/// Entries in a chunk: so many entries of a block are shown to a [`Visitor`] together, or what is left of it.
pub(crate) const CHUNK: usize = 12;

/// Most chunks of a block.
pub(crate) const CHUNKS_MAX: usize = ENTRIES_MAX.div_ceil(CHUNK);

/// What is known of an entry of a block besides its address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) file: u32,
    /// 0 in a gap.
    pub(crate) line: u32,
    /// The kind of its token, 0 to 11 (see [`crate::chain`]).
    pub(crate) kind: u8,
    pub(crate) in_header: bool,
}

/// Entries of a block that follow each other. It is on the stack of a look-up of a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    /// The block; what it says to expect is the last location before the chunk that is not in a header, if there
    /// is one.
    block: Block,
    /// Which of its chunks this is.
    pub(crate) number: u32,
    /// Files below this index are headers.
    headers: u32,
    len: u32,
    /// A packed location each, and above 24 bits of the file the class of the token.
    entries: [u64; CHUNK],
    /// Bytes from the start of the region.
    #[cfg(feature = "write")]
    starts: [u32; CHUNK],
}

impl Chunk {
    /// Of no block.
    pub(crate) const EMPTY: Self = Self {
        block: Block::EMPTY,
        number: 0,
        headers: 0,
        len: 0,
        entries: [0; CHUNK],
        #[cfg(feature = "write")]
        starts: [0; CHUNK],
    };

    /// Begins the next chunk of the block.
    fn go_on(&mut self) {
        let outside = self
            .entries()
            .rev()
            .find(|entry| !entry.in_header && entry.line != 0);
        if let Some(Entry { file, line, .. }) = outside {
            self.block.guess = FileLine { file, line };
        }
        self.number = self.number.wrapping_add(1);
        self.len = 0;
    }

    const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    const fn is_full(&self) -> bool {
        index(self.len) == CHUNK
    }

    #[inline(always)]
    fn push(&mut self, location: FileLine, class: u8) {
        let class = u64::from(class).wrapping_shl(56);
        if let Some(entry) = self.entries.get_mut(index(self.len)) {
            *entry = pack(location) & !(0xff << 56) | class;
        }
        self.len = self.len.wrapping_add(1);
    }

    /// The same with the start of the entry.
    fn push_at(&mut self, start: u32, location: FileLine, class: u8) {
        #[cfg(feature = "write")]
        if let Some(place) = self.starts.get_mut(index(self.len)) {
            *place = start;
        }
        #[cfg(not(feature = "write"))]
        let _ = start;
        self.push(location, class);
    }

    pub(crate) const fn block(&self) -> &Block {
        &self.block
    }

    /// The location to expect at the start of the chunk.
    pub(crate) const fn expected(&self) -> (u32, u32) {
        (self.block.guess.file, self.block.guess.line)
    }

    /// Its entries.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = Entry> {
        self.entries.iter().take(index(self.len)).map(|entry| {
            let high = bits::low(entry.wrapping_shr(32));
            let file = high & 0xff_ffff;
            Entry {
                file,
                line: bits::low(*entry),
                kind: recent::KIND
                    .get(index(high.wrapping_shr(24)))
                    .copied()
                    .unwrap_or(0),
                in_header: file < self.headers,
            }
        })
    }

    /// The starts of its entries, in bytes from the start of the region.
    #[cfg(feature = "write")]
    pub(crate) fn starts(&self) -> impl Iterator<Item = u32> {
        self.starts.iter().take(index(self.len)).copied()
    }
}

impl Passed for Chunk {
    #[inline(always)]
    fn block(&self) -> &Block {
        &self.block
    }

    #[inline(always)]
    fn begin(&mut self, headers: u32) {
        self.number = 0;
        self.headers = headers;
        self.len = 0;
    }

    #[inline(always)]
    fn entry(&mut self, location: FileLine, class: u8) {
        if self.is_full() {
            self.go_on();
        }
        self.push(location, class);
    }
}

/// Goes through the entries of blocks with their reader.
pub(crate) trait Visitor {
    /// The next chunk. `None` ends that.
    fn chunk(&mut self, chunk: &Chunk) -> Option<()>;
}

/// The first half of [`find`] for a chunk: finds the block.
#[inline(always)]
pub(crate) fn begin_chunk(table: &RegionTable<'_>, target: u32, chunk: &mut Chunk) -> Option<()> {
    find_block(table, target, &mut chunk.block)
}

/// The second half: the row, and the chunk up to it; given the table of the region and the model.
#[inline(always)]
pub(crate) fn end_chunk(table: &[u8], model: &[u8], target: u32, chunk: &mut Chunk) -> Option<Row> {
    find_in_block(table, model, target, chunk)
}

/// Shows a visitor all chunks of all blocks, and checks them on the way.
pub(crate) fn visit(table: &RegionTable<'_>, visitor: &mut impl Visitor) -> Result<(), Fault> {
    Rows::new(table)?.visit(visitor)
}

/// The light check of a table: its directory, and no row.
pub(super) fn check(table: &RegionTable<'_>) -> Result<(), Fault> {
    let model = Model::new(table.model).ok_or_else(|| table.fault("a model"))?;
    Blocks::new(table, &model)?.check()
}
