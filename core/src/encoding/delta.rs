//! Blocks of 64 rows, LEB128 differences inside a block, the second design of the field.
//!
//! A directory with one entry per block, then the stream of all blocks:
//!
//! | bytes | contents |
//! |---|---|
//! | 4 | `u32` start of the block's first row, in bytes from the start of the region |
//! | 4 | `u32` where the block begins, in bytes from the start of the stream |
//!
//! In the stream a block's first row is `ULEB file, ULEB line`; every other row is
//! `ULEB start difference, SLEB file difference, SLEB line difference`. Differences of file and
//! line count from the last row that was not a gap (file 0 and line 0 before the first). A row
//! whose line comes out as 0 is a gap; its file difference is 0.
//!
//! Blocks ascend in the directory, and they are in the stream in that order without anything between
//! them. A look-up is a binary search over the directory and at most 64 steps through one block.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Fault, RegionTable, Row};
use crate::steps::step;
#[cfg(feature = "write")]
use crate::writer::{EncodeError, narrow};
use crate::{index, wide};

/// Rows in a block; the last one may have fewer.
const BLOCK_ROWS: u32 = 64;

/// Most steps through one block.
pub(super) const STEPS_MAX: usize = index(BLOCK_ROWS);

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BlockEntry {
    start: U32,
    stream: U32,
}

/// The directory and the stream.
fn split<'a>(table: &RegionTable<'a>) -> Option<(&'a [BlockEntry], &'a [u8])> {
    let blocks = table.rows.div_ceil(BLOCK_ROWS);
    <[BlockEntry]>::ref_from_prefix_with_elems(table.bytes, index(blocks)).ok()
}

/// The light check: the directory ascends, and there are bytes for every row.
pub(super) fn check(table: &RegionTable<'_>) -> Result<(), Fault> {
    let (blocks, stream) =
        split(table).ok_or_else(|| table.fault("a directory entry for every block"))?;
    // The first row of a block has two numbers, every other row three.
    let numbers = u64::from(table.rows)
        .saturating_mul(3)
        .saturating_sub(wide(blocks.len()));
    if wide(stream.len()) < numbers || (blocks.is_empty() && !stream.is_empty()) {
        return Err(table.fault("bytes for every row, and no others"));
    }
    let mut previous: Option<&BlockEntry> = None;
    for (position, block) in blocks.iter().enumerate() {
        step();
        let fault = |expected, found: &U32| Fault {
            at: position.saturating_mul(size_of::<BlockEntry>()),
            expected,
            found: found.get().into(),
        };
        let (start, begin) = (&block.start, &block.stream);
        if start.get() >= table.len || previous.is_some_and(|previous| *start <= previous.start) {
            return Err(fault("blocks that ascend inside the region", start));
        }
        let ascends = match previous {
            Some(previous) => *begin > previous.stream,
            None => begin.get() == 0,
        };
        if !ascends || index(begin.get()) >= stream.len() {
            return Err(fault("a block after the one before", begin));
        }
        previous = Some(block);
    }
    Ok(())
}

/// Reads one block row by row.
#[derive(Clone, Debug)]
struct Block<'a> {
    /// What follows in the stream.
    rest: &'a [u8],
    /// The row read last; before the first, its start.
    row: Row,
    /// File and line of the last row that was not a gap.
    base: (u32, u32),
    first: bool,
}

impl<'a> Block<'a> {
    fn new(entry: &BlockEntry, stream: &'a [u8]) -> Self {
        Self {
            rest: stream.get(index(entry.stream.get())..).unwrap_or(&[]),
            row: Row {
                start: entry.start.get(),
                file: 0,
                line: 0,
            },
            base: (0, 0),
            first: true,
        }
    }

    fn next(&mut self) -> Option<Row> {
        let (file, line) = if self.first {
            self.first = false;
            (self.uleb()?, self.uleb()?)
        } else {
            self.row.start = self.row.start.checked_add(self.uleb()?)?;
            (
                moved(self.base.0, self.sleb()?)?,
                moved(self.base.1, self.sleb()?)?,
            )
        };
        if line != 0 {
            self.base = (file, line);
        } else if file != self.base.0 {
            return None;
        }
        self.row.line = line;
        self.row.file = if line == 0 { 0 } else { file };
        Some(self.row)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    /// An unsigned LEB128 number of at most 32 bits.
    fn uleb(&mut self) -> Option<u32> {
        let first = self.byte()?;
        if first & 0x80 == 0 {
            return Some(u32::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).ok();
            }
        }
        None
    }

    /// A signed LEB128 number of at most 35 bits: the difference of two `u32` takes 33.
    fn sleb(&mut self) -> Option<i64> {
        let first = self.byte()?;
        if first & 0x80 == 0 {
            // Bit 6 is the sign.
            return Some(i64::from((first << 1).cast_signed() >> 1));
        }
        let mut value = i64::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if byte & 0x40 != 0 {
                    value |= -128 << shift;
                }
                return Some(value);
            }
        }
        None
    }
}

/// Not inlined: the other encodings must not pay for its stack.
#[inline(never)]
pub(super) fn find(table: &RegionTable<'_>, target: u32) -> Option<Row> {
    let (blocks, stream) = split(table)?;
    let after = blocks.partition_point(|block| {
        step();
        block.start.get() <= target
    });
    let mut block = Block::new(blocks.get(after.checked_sub(1)?)?, stream);
    let mut found = None;
    // A block does not say where it ends: the next one begins after the target, so the rows of
    // this block are over when the count is, or when one starts beyond the target.
    for _ in 0..rows_of_block(table.rows, after.checked_sub(1)?) {
        step();
        // A block that ends too early gives a miss and not a wrong line.
        let row = block.next()?;
        if row.start > target {
            break;
        }
        found = Some(row);
    }
    found
}

fn moved(base: u32, difference: i64) -> Option<u32> {
    u32::try_from(i64::from(base).checked_add(difference)?).ok()
}

fn rows_of_block(rows: u32, block: usize) -> u32 {
    let before = u32::try_from(block)
        .unwrap_or(u32::MAX)
        .saturating_mul(BLOCK_ROWS);
    rows.saturating_sub(before).min(BLOCK_ROWS)
}

#[derive(Clone, Debug)]
pub(crate) struct Rows<'a> {
    blocks: &'a [BlockEntry],
    stream: &'a [u8],
    /// Index of the block that follows the current one.
    next_block: usize,
    current: Option<Block<'a>>,
    left_in_block: u32,
    left: u32,
}

impl<'a> Rows<'a> {
    pub(super) fn new(table: &RegionTable<'a>) -> Result<Self, Fault> {
        let (blocks, stream) =
            split(table).ok_or_else(|| table.fault("a directory entry for every block"))?;
        Ok(Self {
            blocks,
            stream,
            next_block: 0,
            current: None,
            left_in_block: 0,
            left: table.rows,
        })
    }

    /// Where the current block has been read up to, in bytes from the start of the stream.
    fn stream_at(&self) -> usize {
        let rest = self
            .current
            .as_ref()
            .map_or(self.stream, |block| block.rest);
        self.stream.len().saturating_sub(rest.len())
    }

    fn fault(&self, stream_at: usize, expected: &'static str) -> Fault {
        Fault {
            at: size_of_val(self.blocks).saturating_add(stream_at),
            expected,
            found: wide(stream_at),
        }
    }

    /// Goes to the next block, which must begin where the last one ended.
    fn advance(&mut self) -> Result<Option<&mut Block<'a>>, Fault> {
        if self.left_in_block == 0 {
            let end = self.stream_at();
            let Some(entry) = self.blocks.get(self.next_block) else {
                if end != self.stream.len() {
                    return Err(self.fault(end, "the end of the last block"));
                }
                return Ok(None);
            };
            if index(entry.stream.get()) != end {
                return Err(self.fault(end, "a block where the last one ended"));
            }
            self.left_in_block = rows_of_block(self.left, 0);
            self.next_block = self.next_block.saturating_add(1);
            self.current = Some(Block::new(entry, self.stream));
        }
        Ok(self.current.as_mut())
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match self.advance() {
            Ok(Some(block)) => block.next(),
            Ok(None) => return None,
            Err(fault) => return Some(Err(fault)),
        };
        self.left_in_block = self.left_in_block.saturating_sub(1);
        self.left = self.left.saturating_sub(1);
        Some(row.ok_or_else(|| self.fault(self.stream_at(), "a row in LEB128 differences")))
    }
}

#[cfg(feature = "write")]
pub(crate) fn encode(rows: &[Row]) -> Result<alloc::vec::Vec<u8>, EncodeError> {
    use alloc::vec::Vec;

    let mut directory = Vec::new();
    let mut stream = Vec::new();
    for block in rows.chunks(index(BLOCK_ROWS)) {
        let mut base = (0_u32, 0_u32);
        let mut previous = None;
        for row in block {
            let file = if row.is_gap() { base.0 } else { row.file };
            match previous {
                None => {
                    let at: u32 = narrow("the size of a table", stream.len())?;
                    directory.extend_from_slice(
                        BlockEntry {
                            start: row.start.into(),
                            stream: at.into(),
                        }
                        .as_bytes(),
                    );
                    push_uleb(&mut stream, file);
                    push_uleb(&mut stream, row.line);
                }
                Some(previous) => {
                    push_uleb(&mut stream, row.start.saturating_sub(previous));
                    push_sleb(&mut stream, difference(file, base.0));
                    push_sleb(&mut stream, difference(row.line, base.1));
                }
            }
            previous = Some(row.start);
            if !row.is_gap() {
                base = (row.file, row.line);
            }
        }
    }
    directory.append(&mut stream);
    Ok(directory)
}

#[cfg(feature = "write")]
fn difference(value: u32, base: u32) -> i64 {
    i64::from(value).saturating_sub(i64::from(base))
}

#[cfg(feature = "write")]
fn push_uleb(stream: &mut alloc::vec::Vec<u8>, mut value: u32) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            stream.push(low & 0x7f);
            return;
        }
        stream.push(low | 0x80);
    }
}

#[cfg(feature = "write")]
fn push_sleb(stream: &mut alloc::vec::Vec<u8>, mut value: i64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        let sign = low & 0x40 != 0;
        if (value == 0 && !sign) || (value == -1 && sign) {
            stream.push(low & 0x7f);
            return;
        }
        stream.push(low | 0x80);
    }
}
