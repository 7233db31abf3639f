//! From an address to its block without a binary search ([specified](super#the-table-of-a-region) in
//! the head of the encoding).
//!
//! The entry of a page ([`Page`]) names a block, and from there the records of blocks are read one
//! after the other. A record has the size of the block *before* it, so a run of records gives the
//! positions of the blocks by addition.

#[cfg(feature = "write")]
pub(super) mod cut;
#[cfg(feature = "write")]
pub(super) mod write;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bits::{Fields, field, low};
use super::model::Model;
use super::recent::FileLine;
use crate::encoding::{Fault, RegionTable};
use crate::steps::step;
use crate::{index, wide};

/// Binary logarithm of the unit in which blocks start, in bytes of text.
pub(super) const ALIGN_BITS: u32 = 4;
/// Most pages that may lie between the start of a block and a page that it covers.
#[cfg(feature = "write")]
pub(super) const BACK_MAX: u32 = 255;

/// Most blocks that start in one page.
pub(super) const PAGE_BLOCKS_MAX: u32 = 256;

/// The entry of one page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    /// Where that block begins, in bytes from the start of the data.
    pub(super) data: u32,
    /// The first block that starts in this page or later.
    pub(super) block: u32,
    /// How many pages back the block before it starts.
    pub(super) back: u32,
    /// The location to expect.
    pub(super) guess: FileLine,
}

/// The widths of the fields of a page, in bits.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct PageWidths {
    /// Offset 0: of where the block begins, at most 31.
    pub(super) data: u8,
    /// Offset 1: of the number of a block, 1 to 24.
    pub(super) block: u8,
    /// Offset 2: of the pages back, at most 8.
    pub(super) back: u8,
    /// Offset 3: of the file to expect, at most 16.
    pub(super) file: u8,
    /// Offset 4: of the line to expect, at most 16.
    pub(super) line: u8,
}

impl PageWidths {
    /// None is larger than it may be, and a page has at least one bit.
    const fn are_sound(self) -> bool {
        self.data <= 31
            && 1 <= self.block
            && self.block <= 24
            && self.back <= 8
            && self.file <= 16
            && self.line <= 16
    }

    /// Bits of what a look-up needs of every page, and of the rest.
    fn halves(self) -> (u32, u32) {
        let sum = |widths: &[u8]| {
            let widths = widths.iter().copied().map(u32::from);
            widths.fold(0, u32::wrapping_add)
        };
        (
            sum(&[self.data, self.block]),
            sum(&[self.back, self.file, self.line]),
        )
    }

    /// Bits of a page.
    pub(super) fn page(self) -> u32 {
        let (first, second) = self.halves();
        first.wrapping_add(second)
    }
}

/// The first byte of a region's table: it has one block, and nothing else.
pub(super) const ONE_BLOCK: u8 = 0;
/// The first byte of a region's table: it begins with [`DirectoryHeader`].
pub(super) const MANY_BLOCKS: u8 = 1;

/// The head of the table of a region with several blocks, 13 bytes; pages, records and stream follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct DirectoryHeader {
    /// Offset 0: [`MANY_BLOCKS`].
    pub(super) form: u8,
    /// Offset 1: bits of a size in a record, at most 24.
    pub(super) size_bits: u8,
    /// Offset 2: the smallest size of a block, in bytes.
    pub(super) size_min: U16,
    /// Offset 4: number of blocks, at most 2^24 - 1.
    pub(super) blocks: U32,
    /// Offset 8.
    pub(super) widths: PageWidths,
}

/// Where a block is, and what to expect there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Its index, and how many blocks the region has.
    pub(crate) number: u32,
    pub(crate) count: u32,
    /// Its first address, in bytes from the start of the region.
    pub(super) start: u32,
    /// Its bytes in the table; of half the size of a `usize`, because it is on the stack of every
    /// look-up.
    begin: u32,
    end: u32,
    pub(super) guess: FileLine,
}

impl Block {
    /// None.
    pub(super) const EMPTY: Self = Self {
        number: 0,
        count: 0,
        start: 0,
        begin: 0,
        end: 0,
        guess: FileLine { file: 0, line: 0 },
    };

    /// Where it begins in the table.
    #[inline(always)]
    pub(super) const fn begin(&self) -> usize {
        index(self.begin)
    }

    /// Where it ends in the table.
    #[inline(always)]
    pub(super) const fn end(&self) -> usize {
        index(self.end)
    }
}

/// The directory of one region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory<'a> {
    pages: &'a [u8],
    /// Number of pages; 0 in a table of one block.
    page_count: u32,
    widths: PageWidths,
    records: &'a [u8],
    /// Where the stream begins in the table.
    stream: u32,
    /// Number of blocks.
    blocks: u32,
    page_bits: u32,
    size_bits: u32,
    size_min: u32,
}

/// Finds the block that covers `target`.
///
/// Not inlined: the directory must not be on the stack while the block is decoded.
#[inline(never)]
pub(super) fn find(
    table: &RegionTable<'_>,
    page_bits: u32,
    target: u32,
    block: &mut Block,
) -> Option<()> {
    *block = Directory::new(table, page_bits)?.find(table, target)?;
    Some(())
}

impl<'a> Directory<'a> {
    /// Of a region without rows.
    const EMPTY: Self = Self {
        pages: &[],
        page_count: 0,
        widths: PageWidths {
            data: 0,
            block: 0,
            back: 0,
            file: 0,
            line: 0,
        },
        records: &[],
        stream: 0,
        blocks: 0,
        page_bits: 0,
        size_bits: 0,
        size_min: 0,
    };

    /// `None` if the table does not have the form of one.
    #[inline]
    fn new(table: &RegionTable<'a>, page_bits: u32) -> Option<Self> {
        if *table.bytes.first()? == ONE_BLOCK {
            return Some(Self {
                stream: 1,
                blocks: 1,
                ..Self::EMPTY
            });
        }
        let (header, rest) = DirectoryHeader::ref_from_prefix(table.bytes).ok()?;
        let size_bits = u32::from(header.size_bits);
        let blocks = header.blocks.get();
        let known = header.form == MANY_BLOCKS && size_bits <= 24 && blocks >> 24 == 0;
        if !known || !header.widths.are_sound() {
            return None;
        }
        let last_page = table.len.wrapping_sub(1).wrapping_shr(page_bits);
        let page_count = last_page.wrapping_add(1);
        let bits = u64::from(page_count).wrapping_mul(header.widths.page().into());
        let (pages, rest) = rest.split_at_checked(usize::try_from(bits.div_ceil(8)).ok()?)?;
        let bits = u64::from(blocks)
            .wrapping_add(1)
            .wrapping_mul(record_bits(page_bits, size_bits).into());
        let (records, stream) = rest.split_at_checked(usize::try_from(bits.div_ceil(8)).ok()?)?;
        Some(Self {
            pages,
            page_count,
            widths: header.widths,
            records,
            stream: u32::try_from(table.bytes.len().wrapping_sub(stream.len())).ok()?,
            blocks,
            page_bits,
            size_bits,
            size_min: header.size_min.get().into(),
        })
    }

    /// Where the first block of a page or of a later one begins in the data, and its number.
    #[inline(always)]
    fn first_block(&self, page: u32) -> Option<(u32, u32)> {
        let (width, _) = self.widths.halves();
        let at = u64::from(page).wrapping_mul(self.widths.page().into());
        let mut field = Fields(field(self.pages, at, width)?);
        Some((field.next(self.widths.data), field.next(self.widths.block)))
    }

    #[inline(always)]
    fn page(&self, page: u32) -> Option<Page> {
        if page >= self.page_count {
            return None;
        }
        let (first, width) = self.widths.halves();
        let at = u64::from(page).wrapping_mul(self.widths.page().into());
        let mut rest = Fields(field(self.pages, at.wrapping_add(first.into()), width)?);
        let (data, block) = self.first_block(page)?;
        Some(Page {
            data,
            block,
            back: rest.next(self.widths.back),
            guess: FileLine {
                file: rest.next(self.widths.file),
                line: rest.next(self.widths.line),
            },
        })
    }

    /// The start of a block in its page, in bytes, and the size of the block before.
    fn record(&self, block: u32) -> Option<(u32, u32)> {
        let width = record_bits(self.page_bits, self.size_bits);
        self.record_at(u64::from(block).wrapping_mul(width.into()), width)
    }

    /// The same from the position of a record and its width, in bits.
    #[inline(always)]
    fn record_at(&self, at: u64, width: u32) -> Option<(u32, u32)> {
        let record = field(self.records, at, width)?;
        let start_bits = self.page_bits.wrapping_sub(ALIGN_BITS);
        let start = low(record) & 1_u32.wrapping_shl(start_bits).wrapping_sub(1);
        let size = low(record.wrapping_shr(start_bits)).wrapping_add(self.size_min);
        Some((start << ALIGN_BITS, size))
    }

    /// The block that covers `target`.
    #[inline]
    fn find(&self, table: &RegionTable<'_>, target: u32) -> Option<Block> {
        if self.page_count == 0 {
            return Some(self.only_block(table));
        }
        let number = target.wrapping_shr(self.page_bits);
        let page = self.page(number)?;
        let page_start = number.wrapping_shl(self.page_bits);
        let target_in_page = target.wrapping_sub(page_start);
        let after = number.wrapping_add(1);
        let stop = if after < self.page_count {
            self.first_block(after)?.1
        } else {
            self.blocks
        };
        // The block before the one at hand ends where the latter begins.
        let mut block = page.block;
        let mut begin = page.data;
        let width = record_bits(self.page_bits, self.size_bits);
        let mut at = u64::from(block).wrapping_mul(width.into());
        let (mut start, mut size_before) = self.record_at(at, width)?;
        let mut found = None;
        let stop = stop.min(block.saturating_add(PAGE_BLOCKS_MAX));
        while block < stop && start <= target_in_page {
            step();
            let block_start = start;
            let block_begin = begin;
            block = block.wrapping_add(1);
            at = at.wrapping_add(width.into());
            (start, size_before) = self.record_at(at, width)?;
            begin = begin.wrapping_add(size_before);
            found = Some((block_start, block_begin));
        }
        let (start, begin, end, guess) = match found {
            Some((start, from)) => (page_start.wrapping_add(start), from, begin, page.guess),
            None => {
                let home = number.wrapping_sub(page.back);
                let (start, _) = self.record(block.wrapping_sub(1))?;
                let start = home.wrapping_shl(self.page_bits).wrapping_add(start);
                let guess = self.page(home)?.guess;
                (start, begin.wrapping_sub(size_before), begin, guess)
            }
        };
        Some(Block {
            number: block.wrapping_sub(1),
            count: self.blocks,
            start,
            begin: self.stream.wrapping_add(begin),
            end: self.stream.wrapping_add(end),
            guess,
        })
    }

    /// The block of a table that has one.
    fn only_block(&self, table: &RegionTable<'_>) -> Block {
        Block {
            number: 0,
            count: 1,
            start: 0,
            begin: self.stream,
            end: u32::try_from(table.bytes.len()).unwrap_or(u32::MAX),
            guess: FileLine { file: 0, line: 0 },
        }
    }
}

/// A block, and where it ends in text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) block: Block,
    /// Its last address and one, in bytes from the start of the region.
    pub(super) text_end: u32,
}

/// All blocks of a region in order, and a check on the way of what [`find`] relies on.
#[derive(Clone, Debug)]
pub(super) struct Blocks<'a> {
    table: RegionTable<'a>,
    directory: Directory<'a>,
    /// The end of the last block, in bytes of text.
    text_end: u32,
    /// Index of the block that follows.
    next: u32,
    /// Where it starts, in bytes of text.
    start: u32,
    /// Where it begins in the stream.
    begin: u32,
    /// The page in which it starts, and how many blocks start there before it.
    page: u32,
    in_page: u32,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(table: &RegionTable<'a>, model: &Model<'_>) -> Result<Self, Fault> {
        let (page_bits, unit_bits) = (model.page_bits, model.unit_bits);
        let empty = table.bytes.is_empty();
        if empty != (table.rows == 0) || (table.len == 0 && !empty) {
            return Err(table.fault("a table where there are rows, and only there"));
        }
        // A row takes at least a bit of each stream.
        if u64::from(table.rows) > wide(table.bytes.len()).saturating_mul(4) {
            return Err(table.fault("at least two bits for every row"));
        }
        let directory = if empty {
            Directory::EMPTY
        } else {
            Directory::new(table, page_bits)
                .filter(|directory| directory.blocks > 0)
                .ok_or_else(|| table.fault("a directory of pages and blocks"))?
        };
        let unit = 1_u32.wrapping_shl(unit_bits);
        let text_end = match empty {
            true => Some(0),
            false => table.len.checked_next_multiple_of(unit),
        };
        let blocks = Self {
            table: *table,
            directory,
            text_end: text_end.ok_or_else(|| table.fault("text below 4 GB"))?,
            next: 0,
            start: 0,
            begin: 0,
            page: 0,
            in_page: 0,
        };
        if let Some(first) = directory.page(0) {
            blocks.check_page(&first, 0)?;
            if directory.record(0).is_none_or(|(start, _)| start != 0) {
                return Err(table.fault("a first block at the start of the region"));
            }
        }
        Ok(blocks)
    }

    /// Goes through all blocks.
    pub(super) fn check(mut self) -> Result<(), Fault> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// The block that follows; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Extent>, Fault> {
        let directory = self.directory;
        if self.next == directory.blocks {
            return Ok(None);
        }
        step();
        self.next = self.next.wrapping_add(1);
        if directory.page_count == 0 {
            let block = directory.only_block(&self.table);
            let text_end = self.text_end;
            return Ok(Some(Extent { block, text_end }));
        }
        let (start, begin) = (self.start, self.begin);
        let guess = directory.page(self.page).map(|page| page.guess);
        let (start_in_page, size) = directory
            .record(self.next)
            .ok_or_else(|| self.fault(begin, "a record for every block"))?;
        let stream = self
            .table
            .bytes
            .get(index(directory.stream)..)
            .unwrap_or(&[]);
        self.begin = begin
            .checked_add(size)
            .filter(|end| size > 0 && index(*end) <= stream.len())
            .ok_or_else(|| self.fault(size, "a block of bytes inside the table"))?;
        self.in_page = self.in_page.wrapping_add(1);
        let home = self.page;
        while let Some(page) = directory.page(self.page.wrapping_add(1)) {
            // The block that follows starts before this page.
            if page.block > self.next {
                break;
            }
            step();
            self.page = self.page.wrapping_add(1);
            self.in_page = 0;
            self.check_page(&page, home)?;
        }
        let is_last = self.next == directory.blocks;
        if is_last {
            let pages = directory.page_count;
            if self.page.wrapping_add(1) != pages || index(self.begin) != stream.len() {
                return Err(self.fault(self.begin, "pages and blocks up to their ends"));
            }
            self.start = self.text_end;
        } else {
            if self.in_page >= PAGE_BLOCKS_MAX {
                return Err(self.fault(self.page, "at most 256 blocks in a page"));
            }
            let page_start = self.page.wrapping_shl(directory.page_bits);
            self.start = page_start.wrapping_add(start_in_page);
        }
        if self.start <= start || self.start > self.text_end {
            return Err(self.fault(self.start, "blocks that ascend inside the region"));
        }
        let block = Block {
            number: self.next.wrapping_sub(1),
            count: directory.blocks,
            start,
            begin: directory.stream.wrapping_add(begin),
            end: directory.stream.wrapping_add(self.begin),
            guess: guess.unwrap_or_default(),
        };
        let text_end = self.start;
        Ok(Some(Extent { block, text_end }))
    }

    /// Checks that the current page names the block that follows, the block before it starting in
    /// page `home`.
    fn check_page(&self, page: &Page, home: u32) -> Result<(), Fault> {
        if page.block != self.next {
            return Err(self.fault(page.block, "the first block of the page"));
        }
        if page.data != self.begin {
            return Err(self.fault(page.data, "where that block begins"));
        }
        if page.back != self.page.wrapping_sub(home) {
            return Err(self.fault(page.back, "the page of the block before"));
        }
        Ok(())
    }

    /// A fault of the directory at the page at hand.
    fn fault(&self, found: u32, expected: &'static str) -> Fault {
        let bits = u64::from(self.page).wrapping_mul(self.directory.widths.page().into());
        let page = usize::try_from(bits / 8).unwrap_or(usize::MAX);
        Fault {
            at: size_of::<DirectoryHeader>().saturating_add(page),
            expected,
            found: found.into(),
        }
    }
}

/// Bits of a record.
pub(super) const fn record_bits(page_bits: u32, size_bits: u32) -> u32 {
    page_bits.wrapping_sub(ALIGN_BITS).wrapping_add(size_bits)
}
