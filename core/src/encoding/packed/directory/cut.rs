//! Where text is cut into blocks.
//!
//! A block begins at a multiple of 16 bytes, as functions do. After a cut the decoder has no recent
//! locations, so the best cut is where they would not have helped: at the row that cost most to write
//! when the region was taken as one block.

#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

use alloc::vec::Vec;
use core::ops::Range;

use super::{ALIGN_BITS, BACK_MAX};
use crate::encoding::packed::ENTRIES_MAX;
use crate::encoding::packed::tokens::write::Entry;
use crate::index;
use crate::writer::EncodeError;

/// One block: its entries, and the address at which they begin.
#[derive(Clone, Debug)]
pub(in super::super) struct Cut {
    pub(in super::super) start: u32,
    pub(in super::super) entries: Range<usize>,
}

/// How large blocks may be.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// In entries.
    least: usize,
    most: usize,
    /// In bytes of text.
    reach: u64,
}

/// An entry of more bytes of text begins a block where there are several: a look-up in it must not
/// pay for entries before it, among which so few addresses are.
const LONG: u64 = 4096;

/// Cuts the entries of a region into blocks of about `wanted`; splits those that reach across a
/// cut.
pub(in super::super) fn cut(
    entries: &[Entry],
    costs: &[f32],
    wanted: u32,
    page_bits: u32,
) -> Result<(Vec<Entry>, Vec<Cut>), EncodeError> {
    let wanted = index(wanted);
    let size = Size {
        least: (wanted * 7).div_ceil(10),
        most: (wanted * 13 / 10).max(1),
        // Entries that cannot be cut go beyond it, up to a few pages.
        reach: u64::from(BACK_MAX - 16) << page_bits,
    };
    let mut splitter = Splitter {
        entries,
        next: 0,
        cut_off: 0,
        out: Vec::with_capacity(entries.len() + entries.len() / 16),
        cuts: Vec::new(),
    };
    let mut start = 0_u32;
    while splitter.next < entries.len() {
        let end = splitter.block_end(start, costs, &size);
        start = splitter.emit(start, end)?;
    }
    Ok((splitter.out, splitter.cuts))
}

/// Where a block ends: before an entry, or within it at an address.
#[derive(Clone, Copy, Debug)]
struct End {
    entry: usize,
    address: u64,
}

struct Splitter<'a> {
    entries: &'a [Entry],
    /// The entry at which the next block begins, and how much of it, in bytes, is in the block
    /// before.
    next: usize,
    cut_off: u32,
    out: Vec<Entry>,
    cuts: Vec<Cut>,
}

impl Splitter<'_> {
    /// The best end of the block that begins with the next entry.
    fn block_end(&self, start: u32, costs: &[f32], size: &Size) -> End {
        const ALIGN: u64 = 1 << ALIGN_BITS;
        let start = u64::from(start);
        let left = self.entries.len() - self.next;
        let is_large = self.entries.len() > size.most;
        let all = End {
            entry: self.entries.len(),
            address: start,
        };
        let mut address = start;
        let mut best: Option<(f32, End)> = None;
        let mut within: Option<End> = None;
        for count in 0..ENTRIES_MAX {
            if count == left {
                // What is left is one block, unless that would be a large one.
                return best
                    .filter(|_| left > size.most)
                    .map_or(all, |(_, end)| end);
            }
            let entry = self.next + count;
            if count > 0 && address.is_multiple_of(ALIGN) {
                let score = costs[entry];
                if count >= size.least && best.is_none_or(|(best, _)| score > best) {
                    best = Some((score, End { entry, address }));
                }
            }
            if count >= size.most && best.is_some() {
                break;
            }
            let cut_off = if count == 0 { self.cut_off } else { 0 };
            let length = self.length(entry, cut_off);
            let end = address + length;
            let at_once = address.next_multiple_of(ALIGN);
            if length > LONG && is_large && start < at_once && at_once < end {
                return End {
                    entry,
                    address: at_once,
                };
            }
            // The first multiple of 16 after the entry's start: a cut within it, if need be.
            let inside = (address + 1).next_multiple_of(ALIGN);
            if inside < end && count >= size.least {
                within = Some(End {
                    entry,
                    address: inside,
                });
                if count >= size.most {
                    break;
                }
            }
            if end - start > size.reach {
                // No further than the directory can look back.
                let far = (start + size.reach) / ALIGN * ALIGN;
                let address = far.max(inside);
                if address < end {
                    within = Some(End { entry, address });
                    break;
                }
            }
            address = end;
        }
        best.map(|(_, end)| end).or(within).unwrap_or(all)
    }

    /// The length of an entry without its first bytes.
    fn length(&self, entry: usize, cut_off: u32) -> u64 {
        u64::from(self.entries[entry].length - cut_off)
    }

    /// Puts out the entries up to `end`, and gives the address after them.
    fn emit(&mut self, start: u32, end: End) -> Result<u32, EncodeError> {
        let from = self.out.len();
        let mut address = u64::from(start);
        while self.next < self.entries.len() && self.next < end.entry {
            let length = self.length(self.next, self.cut_off);
            let mut entry = self.entries[self.next];
            entry.length -= self.cut_off;
            self.out.push(entry);
            address += length;
            self.next += 1;
            self.cut_off = 0;
        }
        if self.next < self.entries.len() && end.address > address {
            let mut entry = self.entries[self.next];
            entry.length = address_of(end.address - address)?;
            self.cut_off += entry.length;
            self.out.push(entry);
            address = end.address;
        }
        self.cuts.push(Cut {
            start,
            entries: from..self.out.len(),
        });
        address_of(address)
    }
}

fn address_of(address: u64) -> Result<u32, EncodeError> {
    u32::try_from(address).map_err(|_| EncodeError::TooLarge {
        what: "the length of a region",
        size: address,
    })
}
