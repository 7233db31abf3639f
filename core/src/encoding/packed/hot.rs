//! The hot pairs of the model section ([specified](super#the-model-section) in the head of the
//! encoding).
//!
//! A token that names one costs little more than its index, and one that picks a successor of the
//! last costs a few bits. The dictionary is ordered by falling frequency, so small indices have short
//! codes. Pairs after which code continues in similar ways have the same class, which is part of the
//! context of the next token.

#[cfg(feature = "write")]
pub(super) mod write;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bits::{Fields, field, low};
use super::recent::{FileLine, SUCCESSORS};
use crate::{index, wide};

/// The widths of the fields, in bits.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Widths {
    pub(super) file: u8,
    pub(super) line: u8,
    pub(super) class: u8,
    pub(super) begin: u8,
    pub(super) index: u8,
}

impl Widths {
    /// Bits of a record: at least 1, so that no count is without bytes, and at most 57, which is
    /// what one load gives.
    fn record(self) -> Option<u32> {
        let bits = u32::from(self.file)
            .wrapping_add(u32::from(self.line))
            .wrapping_add(u32::from(self.class))
            .wrapping_add(u32::from(self.begin));
        let fits = [self.file, self.line, self.begin, self.index]
            .iter()
            .all(|bits| *bits <= 31);
        let fits = fits && self.class <= 7 && self.index > 0;
        (fits && (1..=57).contains(&bits)).then_some(bits)
    }
}

/// The dictionary. It is on the stack of every look-up, so it is kept small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hot<'a> {
    /// The records, and then the lists.
    bytes: &'a [u8],
    /// Where these begin.
    lists: u32,
    pairs: u32,
    widths: Widths,
    /// Bits of a record.
    record: u8,
}

impl<'a> Hot<'a> {
    #[inline(always)]
    pub(super) fn new(section: &'a [u8], pairs: u32) -> Option<Self> {
        if pairs == 0 && section.is_empty() {
            return Some(Self {
                bytes: &[],
                lists: 0,
                pairs: 0,
                widths: Widths::default(),
                record: 0,
            });
        }
        let (widths, bytes) = Widths::read_from_prefix(section).ok()?;
        let record = widths.record()?;
        let bits = u64::from(pairs)
            .wrapping_add(1)
            .wrapping_mul(u64::from(record));
        let lists = u32::try_from(bits.div_ceil(8)).ok()?;
        (index(lists) <= bytes.len()).then_some(Self {
            bytes,
            lists,
            pairs,
            widths,
            record: u8::try_from(record).ok()?,
        })
    }

    #[inline(always)]
    fn record(&self, index: u32) -> Option<u64> {
        let at = u64::from(index).wrapping_mul(u64::from(self.record));
        field(self.bytes, at, self.record.into())
    }

    #[inline(always)]
    fn begin(&self, index: u32) -> Option<u32> {
        let fixed = u32::from(self.widths.file)
            .wrapping_add(u32::from(self.widths.line))
            .wrapping_add(u32::from(self.widths.class));
        Some(low(self.record(index)?.wrapping_shr(fixed)))
    }

    /// The pair with an index, and its class.
    #[inline(always)]
    pub(super) fn get(&self, index: u32) -> Option<(FileLine, u8)> {
        if index >= self.pairs {
            return None;
        }
        let mut record = Fields(self.record(index)?);
        let file = record.next(self.widths.file);
        let line = record.next(self.widths.line);
        let class = u8::try_from(record.next(self.widths.class)).unwrap_or(0);
        Some((FileLine { file, line }, class))
    }

    /// The index of a pair's successor.
    #[inline(always)]
    pub(super) fn successor(&self, index: u32, rank: u32) -> Option<u32> {
        if index >= self.pairs {
            return None;
        }
        let at = self.begin(index)?.wrapping_add(rank);
        if at >= self.begin(index.wrapping_add(1))? {
            return None;
        }
        let width = u32::from(self.widths.index);
        let bit = u64::from(at).wrapping_mul(u64::from(width));
        let bit = bit.wrapping_add(u64::from(self.lists).wrapping_mul(8));
        Some(low(field(self.bytes, bit, width)?))
    }

    /// Whether the last list ends where the section does.
    pub(super) fn has_all_lists(&self) -> bool {
        let end = match self.pairs {
            0 => Some(0),
            pairs => self.begin(pairs),
        };
        end.is_some_and(|end| {
            let bits = u64::from(end).wrapping_mul(self.widths.index.into());
            let lists = u64::from(self.lists).wrapping_add(bits.div_ceil(8));
            wide(self.bytes.len()) == lists
        })
    }

    /// Whether every list follows the one before, and every successor a pair.
    pub(super) fn is_sound(&self) -> bool {
        let mut end = 0;
        for index in 0..self.pairs {
            let (Some(begin), Some(next)) = (self.begin(index), self.begin(index.wrapping_add(1)))
            else {
                return false;
            };
            if begin != end || next < begin || next.wrapping_sub(begin) > SUCCESSORS {
                return false;
            }
            for rank in 0..next.wrapping_sub(begin) {
                let successor = self.successor(index, rank);
                if successor.is_none_or(|successor| successor >= self.pairs) {
                    return false;
                }
            }
            end = next;
        }
        true
    }
}
