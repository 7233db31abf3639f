//! Which locations become hot pairs, and how they are written.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

use alloc::vec::Vec;

use rayon::prelude::*;
use zerocopy::IntoBytes;

use super::Widths;
use crate::encoding::packed::bits::BitVec;
use crate::encoding::packed::recent::FileLine;
use crate::encoding::packed::tokens::write::Entry;
use crate::writer::{EncodeError, narrow};
use crate::{index, wide};

/// Bits of code for a location from which on it counts towards the hot pairs.
const HOT_COST: f32 = 11.0;
/// How often a location must have cost that much to become a hot pair.
const HOT_THRESHOLD: usize = 8;

/// The hot pairs and their lists of successors.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Dictionary {
    pub(in super::super) pairs: Vec<FileLine>,
    pub(in super::super) successors: Vec<Vec<u32>>,
    pub(in super::super) classes: Vec<u8>,
}

impl Dictionary {
    /// Locations that cost much often enough, by falling frequency.
    pub(in super::super) fn new(regions: &[Vec<Entry>], costs: &[Vec<f32>]) -> Self {
        let mut costly: Vec<FileLine> = Vec::new();
        for (entries, costs) in regions.iter().zip(costs) {
            let entries = entries.iter().zip(costs);
            let entries = entries.filter(|(e, cost)| **cost >= HOT_COST && e.location.line != 0);
            costly.extend(entries.map(|(entry, _)| entry.location));
        }
        costly.par_sort_unstable();
        let mut counted: Vec<(usize, FileLine)> = Vec::new();
        for run in costly.chunk_by(|a, b| a == b) {
            // The record of a pair holds 57 bits.
            let fits = run[0].file < 1 << 20 && run[0].line < 1 << 20;
            if run.len() >= HOT_THRESHOLD && fits {
                counted.push((run.len(), run[0]));
            }
        }
        counted.sort_unstable_by_key(|(count, location)| (core::cmp::Reverse(*count), *location));
        counted.truncate(1 << 16);
        Self {
            pairs: counted.into_iter().map(|(_, location)| location).collect(),
            ..Self::default()
        }
    }

    /// Notes in every entry which hot pair its location is.
    pub(in super::super) fn number(&self, regions: &mut [Vec<Entry>]) {
        let mut sorted: Vec<(FileLine, u32)> = self.pairs.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        let entries = regions.iter_mut().map(|entries| entries.par_iter_mut());
        entries.for_each(|entries| {
            entries.for_each(|entry| {
                let found = sorted.binary_search_by_key(&entry.location, |(location, _)| *location);
                if let Ok(at) = found {
                    entry.hot = sorted[at].1;
                }
            });
        });
    }

    /// Number of classes of hot pairs, at least 1.
    pub(in super::super) fn hot_classes(&self) -> u8 {
        self.classes.iter().max().map_or(1, |most| most + 1)
    }

    /// The class of a hot pair; 0 for [`COLD`](crate::encoding::packed::tokens::COLD), and before there are classes.
    pub(in super::super) fn class(&self, pair: u32) -> u8 {
        match self.classes.get(index(pair)) {
            Some(class) => *class,
            None => 0,
        }
    }

    /// The hot pairs of a model section.
    pub(in super::super) fn write(&self) -> Result<Vec<u8>, EncodeError> {
        let largest = |of: fn(&FileLine) -> u32| self.pairs.iter().map(of).max();
        let (Some(file), Some(line)) = (
            largest(|location| location.file),
            largest(|location| location.line),
        ) else {
            return Ok(Vec::new());
        };
        let lists: usize = self.successors.iter().map(Vec::len).sum();
        let widths = Widths {
            file: width(file)?,
            line: width(line)?,
            class: width((self.hot_classes() - 1).into())?,
            begin: width(narrow("the number of successors", lists)?)?,
            index: width(narrow("the number of hot pairs", self.pairs.len())?)?,
        };
        let mut records = BitVec::<false>::default();
        let mut list = BitVec::<false>::default();
        let mut begin = 0_u64;
        let rest = self.classes.iter().zip(&self.successors);
        for (pair, (class, successors)) in self.pairs.iter().zip(rest) {
            records.push(pair.file.into(), widths.file.into());
            records.push(pair.line.into(), widths.line.into());
            records.push((*class).into(), widths.class.into());
            records.push(begin, widths.begin.into());
            begin += wide(successors.len());
            for successor in successors {
                list.push((*successor).into(), widths.index.into());
            }
        }
        let before = [widths.file, widths.line, widths.class];
        records.push(0, before.iter().copied().map(u32::from).sum());
        records.push(begin, widths.begin.into());
        Ok([widths.as_bytes(), records.bytes(), list.bytes()].concat())
    }
}

/// Bits of numbers up to `most`.
pub(in super::super) fn width(most: u32) -> Result<u8, EncodeError> {
    narrow(
        "the width of a field",
        index(u32::BITS - most.leading_zeros()),
    )
}
