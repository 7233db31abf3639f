//! From an address to its block, without a binary search.
//!
//! Text is cut into pages of `2^page_bits` bytes. The entry of a page ([`Page`]) names the first
//! block that starts in it or later; from there the records of the blocks are read one after the
//! other. A record has a fixed number of bits: where the block starts in its page, in units of 16
//! bytes, and the size of the block *before* it, less the smallest size in the region. So a run of
//! records gives the positions of the blocks in the stream by addition, and there is one record more
//! than there are blocks.
//!
//! The entry of a page also has the file and the line that its blocks begin with most often and in
//! the middle; a block's first place is stored as a difference from them.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bits::{field, low};
use super::recent::Place;
use crate::encoding::RegionTable;
use crate::index;

/// Binary logarithm of the unit in which blocks start, in bytes of text.
pub(super) const ALIGN_BITS: u32 = 4;
/// Most pages that may lie between the start of a block and a page that it covers.
#[cfg(feature = "alloc")]
pub(super) const BACK_MAX: u32 = 255;

/// The entry of one page, 12 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Page {
    /// Offset 0: where that block begins, in bytes from the start of the stream.
    pub(super) data: U32,
    /// Offset 4: the first block that starts in this page or later (24 bits), and above that how
    /// many pages back the block before it starts (8 bits).
    pub(super) block_and_back: U32,
    /// Offset 8: the file to expect.
    pub(super) file: U16,
    /// Offset 10: the line to expect.
    pub(super) line: U16,
}

impl Page {
    pub(super) const fn block(&self) -> u32 {
        self.block_and_back.get() & 0xff_ffff
    }

    pub(super) const fn back(&self) -> u32 {
        self.block_and_back.get() >> 24
    }

    pub(super) fn guess(&self) -> Place {
        Place {
            file: self.file.get().into(),
            line: self.line.get().into(),
        }
    }
}

/// The first byte of a region's table: it has one block, and nothing else.
pub(super) const ONE_BLOCK: u8 = 0;
/// The first byte of a region's table: it begins with [`DirectoryHeader`].
pub(super) const MANY_BLOCKS: u8 = 1;

/// The head of the table of a region with several blocks, 8 bytes; pages, records and stream follow.
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
}

/// Where a block is, and what to expect there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Its first address, in bytes from the start of the region.
    pub(super) start: u32,
    /// Its bytes in the table.
    pub(super) begin: usize,
    pub(super) end: usize,
    pub(super) guess: Place,
}

/// The directory of one region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory<'a> {
    pub(super) pages: &'a [Page],
    records: &'a [u8],
    /// Where the stream begins in the table.
    pub(super) stream: usize,
    /// Number of blocks.
    pub(super) blocks: u32,
    page_bits: u32,
    size_bits: u32,
    size_min: u32,
}

/// The block that covers `target`.
///
/// Not inlined: the directory must not be on the stack while the block is decoded.
#[inline(never)]
pub(super) fn find(table: &RegionTable<'_>, page_bits: u32, target: u32) -> Option<Block> {
    Directory::new(table, page_bits)?.find(table, target)
}

impl<'a> Directory<'a> {
    /// Of a region without rows.
    pub(super) const EMPTY: Self = Self {
        pages: &[],
        records: &[],
        stream: 0,
        blocks: 0,
        page_bits: 0,
        size_bits: 0,
        size_min: 0,
    };

    /// `None` if the table does not have the form of one.
    #[inline]
    pub(super) fn new(table: &RegionTable<'a>, page_bits: u32) -> Option<Self> {
        if *table.bytes.first()? == ONE_BLOCK {
            return Some(Self {
                pages: &[],
                records: &[],
                stream: 1,
                blocks: 1,
                page_bits,
                size_bits: 0,
                size_min: 0,
            });
        }
        let (header, rest) = DirectoryHeader::ref_from_prefix(table.bytes).ok()?;
        let size_bits = u32::from(header.size_bits);
        let blocks = header.blocks.get();
        if header.form != MANY_BLOCKS || size_bits > 24 || blocks >> 24 != 0 {
            return None;
        }
        let last_page = table.len.wrapping_sub(1).wrapping_shr(page_bits);
        let page_count = index(last_page).wrapping_add(1);
        let (pages, rest) = <[Page]>::ref_from_prefix_with_elems(rest, page_count).ok()?;
        let bits = u64::from(blocks)
            .wrapping_add(1)
            .wrapping_mul(record_bits(page_bits, size_bits).into());
        let (records, stream) = rest.split_at_checked(usize::try_from(bits.div_ceil(8)).ok()?)?;
        Some(Self {
            pages,
            records,
            stream: table.bytes.len().wrapping_sub(stream.len()),
            blocks,
            page_bits,
            size_bits,
            size_min: header.size_min.get().into(),
        })
    }

    /// The start of a block in its page, in bytes, and the size of the block before.
    #[inline(always)]
    pub(super) fn record(&self, block: u32) -> Option<(u32, u32)> {
        let width = record_bits(self.page_bits, self.size_bits);
        let at = u64::from(block).wrapping_mul(width.into());
        let record = field(self.records, at, width)?;
        let start_bits = self.page_bits.wrapping_sub(ALIGN_BITS);
        let start = low(record) & 1_u32.wrapping_shl(start_bits).wrapping_sub(1);
        let size = low(record.wrapping_shr(start_bits)).wrapping_add(self.size_min);
        Some((start << ALIGN_BITS, size))
    }

    /// The block that covers `target`.
    #[inline]
    fn find(&self, table: &RegionTable<'_>, target: u32) -> Option<Block> {
        if self.pages.is_empty() {
            return Some(self.only_block(table));
        }
        let number = target.wrapping_shr(self.page_bits);
        let page = self.pages.get(index(number))?;
        let page_start = number.wrapping_shl(self.page_bits);
        let target_in_page = target.wrapping_sub(page_start);
        let stop = match self.pages.get(index(number.wrapping_add(1))) {
            Some(next) => next.block(),
            None => self.blocks,
        };
        // The block before the one at hand ends where the latter begins.
        let mut block = page.block();
        let mut begin = page.data.get();
        let (mut start, mut size_before) = self.record(block)?;
        let mut found = None;
        while block < stop && start <= target_in_page {
            let block_start = start;
            let block_begin = begin;
            block = block.wrapping_add(1);
            (start, size_before) = self.record(block)?;
            begin = begin.wrapping_add(size_before);
            found = Some((block_start, block_begin));
        }
        let (start, begin, end, guess) = match found {
            Some((start, from)) => (page_start.wrapping_add(start), from, begin, page.guess()),
            None => {
                let home = number.wrapping_sub(page.back());
                let (start, _) = self.record(block.wrapping_sub(1))?;
                let start = home.wrapping_shl(self.page_bits).wrapping_add(start);
                let guess = self.pages.get(index(home))?.guess();
                (start, begin.wrapping_sub(size_before), begin, guess)
            }
        };
        Some(Block {
            start,
            begin: self.stream.wrapping_add(index(begin)),
            end: self.stream.wrapping_add(index(end)),
            guess,
        })
    }

    /// The block of a table that has one.
    pub(super) fn only_block(&self, table: &RegionTable<'_>) -> Block {
        Block {
            start: 0,
            begin: self.stream,
            end: table.bytes.len(),
            guess: Place { file: 0, line: 0 },
        }
    }
}

/// Bits of a record.
pub(super) const fn record_bits(page_bits: u32, size_bits: u32) -> u32 {
    page_bits.wrapping_sub(ALIGN_BITS).wrapping_add(size_bits)
}
