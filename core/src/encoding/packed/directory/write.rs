//! How a region that was cut into blocks is written.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

use alloc::vec;
use alloc::vec::Vec;

use rayon::prelude::*;
use zerocopy::IntoBytes;

use super::cut::{Cut, cut};
use super::{
    ALIGN_BITS, DirectoryHeader, MANY_BLOCKS, ONE_BLOCK, PAGE_BLOCKS_MAX, Page, PageWidths,
    record_bits,
};
use crate::encoding::packed::bits::BitVec;
use crate::encoding::packed::hot::write::width;
use crate::encoding::packed::recent::FileLine;
use crate::encoding::packed::tokens::write::Entry;
use crate::encoding::packed::write::BLOCKS;
use crate::writer::{EncodeError, narrow};
use crate::{index, wide};

/// A region that has been cut.
pub(in super::super) struct Region {
    pub(in super::super) entries: Vec<Entry>,
    pub(in super::super) cuts: Vec<Cut>,
    /// What to expect in every page.
    guesses: Vec<FileLine>,
    page_bits: u32,
}

impl Region {
    /// Cuts entries into blocks of about `wanted`, preferably at those that cost most.
    pub(in super::super) fn cut(
        entries: &[Entry],
        costs: &[f32],
        wanted: u32,
        page_bits: u32,
    ) -> Result<Self, EncodeError> {
        let (entries, cuts) = cut(entries, costs, wanted, page_bits)?;
        Ok(Self {
            guesses: guesses(&entries, &cuts, page_bits),
            entries,
            cuts,
            page_bits,
        })
    }

    /// Whether no page has more blocks than the format allows.
    pub(in super::super) fn fits_its_pages(&self) -> bool {
        let page = |cut: &Cut| cut.start >> self.page_bits;
        let mut pages = self.cuts.chunk_by(|a, b| page(a) == page(b));
        pages.all(|cuts| cuts.len() <= index(PAGE_BLOCKS_MAX))
    }

    /// The location to expect where a block begins.
    pub(in super::super) fn guess(&self, cut: &Cut) -> FileLine {
        self.guess_in(cut.start >> self.page_bits)
    }

    /// In pages after the last block nothing begins.
    fn guess_in(&self, page: u32) -> FileLine {
        match self.guesses.get(index(page)) {
            Some(guess) => *guess,
            None => FileLine::default(),
        }
    }

    /// The table of the region, which is `len` bytes long; `new_block` makes for each processor what
    /// encodes a block.
    pub(in super::super) fn write<B: FnMut(&[Entry], FileLine) -> Vec<u8>>(
        &self,
        len: u32,
        new_block: impl Fn() -> B + Sync + Send,
    ) -> Result<Vec<u8>, EncodeError> {
        if self.cuts.is_empty() {
            return Ok(Vec::new());
        }
        if let [only] = self.cuts.as_slice() {
            let mut table = vec![ONE_BLOCK];
            let entries = &self.entries[only.entries.clone()];
            table.append(&mut new_block()(entries, FileLine::default()));
            return Ok(table);
        }
        let encode =
            |block: &mut B, cut: &Cut| block(&self.entries[cut.entries.clone()], self.guess(cut));
        let cuts = self.cuts.par_iter().with_min_len(BLOCKS);
        let blocks: Vec<Vec<u8>> = cuts.map_init(new_block, encode).collect();
        let count: u32 = narrow("the number of blocks", blocks.len())?;
        if count >> 24 != 0 {
            return Err(EncodeError::TooLarge {
                what: "the number of blocks",
                size: count.into(),
            });
        }
        let sizes = || blocks.iter().map(Vec::len);
        let (Some(smallest), Some(largest)) = (sizes().min(), sizes().max()) else {
            return Err(EncodeError::Invariant("a region without blocks"));
        };
        let size_bits = usize::BITS - (largest - smallest).leading_zeros();
        let pages = self.pages(len, &blocks)?;
        let width = |of: fn(&Page) -> u32| width(pages.iter().map(of).max().unwrap_or(0));
        let widths = PageWidths {
            data: width(|page| page.data)?,
            block: width(|page| page.block)?,
            back: width(|page| page.back)?,
            file: width(|page| page.guess.file)?,
            line: width(|page| page.guess.line)?,
        };
        let widths = PageWidths {
            block: widths.block.max(1),
            ..widths
        };
        let header = DirectoryHeader {
            form: MANY_BLOCKS,
            size_bits: narrow("the bits of a size", index(size_bits))?,
            size_min: narrow::<u16>("the size of a block", smallest)?.into(),
            blocks: count.into(),
            widths,
        };
        let mut table = header.as_bytes().to_vec();
        let mut records = BitVec::<false>::default();
        for page in &pages {
            let guess = page.guess;
            records.push(page.data.into(), widths.data.into());
            records.push(page.block.into(), widths.block.into());
            records.push(page.back.into(), widths.back.into());
            records.push(guess.file.into(), widths.file.into());
            records.push(guess.line.into(), widths.line.into());
        }
        table.extend_from_slice(records.bytes());

        let mut records = BitVec::<false>::default();
        let start_bits = record_bits(self.page_bits, 0);
        let mut before = smallest;
        let starts = self.cuts.iter().map(|cut| cut.start).chain([0]);
        for (start, size) in starts.zip(sizes().chain([smallest])) {
            let in_page = (start & ((1 << self.page_bits) - 1)) >> ALIGN_BITS;
            records.push(in_page.into(), start_bits);
            records.push(wide(before - smallest), size_bits);
            before = size;
        }
        table.extend_from_slice(records.bytes());
        blocks
            .iter()
            .for_each(|block| table.extend_from_slice(block));
        Ok(table)
    }

    fn pages(&self, len: u32, blocks: &[Vec<u8>]) -> Result<Vec<Page>, EncodeError> {
        let home_of = |block: usize| self.cuts[block].start >> self.page_bits;
        let count = (len.wrapping_sub(1) >> self.page_bits) + 1;
        let mut block = 0_usize;
        let mut data = 0_usize;
        let mut pages = Vec::with_capacity(index(count));
        for number in 0..count {
            while block < blocks.len() && home_of(block) < number {
                data += blocks[block].len();
                block += 1;
            }
            let home = block.checked_sub(1).map_or(0, home_of);
            let back: u8 = narrow("the pages of a block", index(number - home))?;
            pages.push(Page {
                data: narrow("the size of the blocks", data)?,
                block: narrow("the number of blocks", block)?,
                back: back.into(),
                guess: self.guess_in(number),
            });
        }
        Ok(pages)
    }
}

/// The file that most blocks of a page begin with, and the median of their lines.
fn guesses(entries: &[Entry], cuts: &[Cut], page_bits: u32) -> Vec<FileLine> {
    let mut guesses = Vec::new();
    for blocks in cuts.chunk_by(|a, b| a.start >> page_bits == b.start >> page_bits) {
        let firsts = blocks.iter().map(|cut| entries[cut.entries.start].location);
        let mut firsts: Vec<FileLine> = firsts.filter(|location| location.line != 0).collect();
        firsts.sort_unstable();
        let of_a_file = firsts.chunk_by(|a, b| a.file == b.file);
        let most = of_a_file.max_by_key(|locations| locations.len());
        let guess = most.map_or(FileLine::default(), |locations| {
            locations[locations.len() / 2]
        });
        let page = index(blocks[0].start >> page_bits);
        let narrowed = |value: u32| value.min(u16::MAX.into());
        guesses.resize(page + 1, FileLine::default());
        guesses[page] = FileLine {
            file: narrowed(guess.file),
            line: narrowed(guess.line),
        };
    }
    guesses
}
