//! Which codes fit an image, and how they are written.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

use alloc::vec;
use alloc::vec::Vec;

use rayon::prelude::*;
use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::U16;

use super::{CodesHeader, LENGTH, NUMBERS};
use crate::encoding::packed::codes::write::{
    self as codes, ESCAPE, NUMBER_SYMBOLS, escape, number_heads, number_symbol, raw_bits,
};
use crate::encoding::packed::codes::{NUMBER_BITS, POOL_UNIT, TOKEN_BITS};
use crate::encoding::packed::recent::{self, DELTA_MIN, SYMBOLS};
use crate::encoding::packed::tokens::COLD;
use crate::encoding::packed::tokens::write::Sink;
use crate::encoding::packed::write::cluster::{Histogram, as_f32, cluster, log2};
use crate::index;
use crate::writer::{EncodeError, narrow};

/// Most token codes of a model.
const CODES_MAX: usize = 64;
/// Most classes of hot pairs.
const HOT_CLASSES_MAX: usize = 32;
/// What a class costs, in bits: its contexts, and its share in other codes.
const HOT_CLASS_PRICE: f32 = 1000.0;

/// What every symbol costs, in bits.
#[derive(Clone, Debug)]
pub(in super::super) struct Costs {
    /// The cluster of every context.
    pub(in super::super) cluster_of: Vec<u8>,
    /// By cluster and symbol; infinite where there is no code.
    pub(in super::super) tokens: Vec<Vec<f32>>,
    /// By kind and symbol, raw bits included; infinite where there is no code, so that the
    /// escapes are taken.
    pub(in super::super) numbers: Vec<Vec<f32>>,
}

impl Costs {
    /// A guess, before anything has been counted.
    pub(in super::super) fn guess() -> Self {
        let token = |symbol: u16| match symbol {
            0..recent::FAR => {
                let delta = i32::from(symbol & 127) + DELTA_MIN;
                let size = as_f32(delta.unsigned_abs());
                2.0 + f32::from(symbol >> 7) * 1.2 + (size * 0.3).min(5.0 + size * 0.05)
            }
            recent::FAR..recent::NEW => 6.0 + f32::from(symbol - recent::FAR),
            recent::NEW => 6.0,
            recent::HOT => 3.0,
            recent::NEXT_FILE => 6.0,
            recent::SUCCESSOR..recent::NEXT_FILE => {
                4.0 + f32::from(symbol - recent::SUCCESSOR) * 0.4
            }
            recent::GAP.. => 5.0,
        };
        let number = |(symbol, head): (u16, u16)| {
            let symbol = f32::from(symbol.min(64));
            f32::from(raw_bits(head)) + 3.0 + log2(symbol + 1.0) * 0.7
        };
        let numbers: Vec<f32> = (0..).zip(number_heads()).map(number).collect();
        Self {
            cluster_of: vec![0; recent::contexts(1)],
            tokens: vec![(0..).map(token).take(SYMBOLS).collect()],
            numbers: vec![numbers; NUMBERS],
        }
    }

    pub(in super::super) fn number(&self, kind: usize, value: u32) -> f32 {
        let (symbol, _, _) = number_symbol(value);
        let costs = &self.numbers[kind];
        costs[symbol].min(costs[escape(value)])
    }
}

/// How often every symbol was used.
pub(in super::super) struct Counts {
    /// By context and symbol.
    tokens: Vec<u32>,
    hot_classes: u8,
    /// Hot pairs, and the symbols that followed those that named them.
    pub(in super::super) followers: Vec<(u32, u16)>,
    numbers: Vec<Vec<u64>>,
}

impl Counts {
    pub(in super::super) fn new(hot_classes: u8) -> Self {
        Self {
            tokens: vec![0; recent::contexts(hot_classes) * SYMBOLS],
            hot_classes,
            followers: Vec::new(),
            numbers: vec![vec![0; NUMBER_SYMBOLS]; NUMBERS],
        }
    }

    /// Both together.
    pub(in super::super) fn add(mut self, mut other: Self) -> Self {
        let add = |to: &mut [u64], from: &[u64]| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        };
        for (to, from) in self.tokens.iter_mut().zip(&other.tokens) {
            *to += from;
        }
        for (to, from) in self.numbers.iter_mut().zip(&other.numbers) {
            add(to, from);
        }
        self.followers.append(&mut other.followers);
        self
    }

    pub(in super::super) fn length(&mut self, length: u32, unit_bits: u32) {
        if length.trailing_zeros() >= unit_bits {
            self.number(LENGTH, length >> unit_bits);
        } else {
            self.numbers[LENGTH][escape(length)] += 1;
        }
    }

    /// The symbols of every context.
    fn histograms(&self) -> Vec<Histogram> {
        let histogram = |counts: &[u32]| {
            let counts = (0..).zip(counts.iter().copied());
            counts.filter(|(_, count)| *count > 0).collect()
        };
        self.tokens.chunks_exact(SYMBOLS).map(histogram).collect()
    }
}

impl Sink for Counts {
    fn token(&mut self, context: usize, symbol: u16, before: u32) {
        if before != COLD {
            self.followers.push((before, symbol));
        }
        self.tokens[context * SYMBOLS + usize::from(symbol)] += 1;
    }

    fn number(&mut self, kind: usize, value: u32) {
        let (symbol, _, _) = number_symbol(value);
        self.numbers[kind][symbol] += 1;
    }

    fn bit(&mut self, _: bool) {}
}

/// The lengths of all codes.
#[derive(Clone, Debug)]
pub(in super::super) struct Codes {
    hot_classes: u8,
    pub(in super::super) cluster_of: Vec<u8>,
    /// By cluster and symbol.
    pub(in super::super) tokens: Vec<Vec<u8>>,
    /// By kind and symbol.
    pub(in super::super) numbers: Vec<Vec<u8>>,
}

impl Codes {
    /// The codes that fit counts best, if one more token code costs `price` bits.
    pub(in super::super) fn fit(counts: &Counts, price: f32) -> Result<Self, EncodeError> {
        let histograms = counts.histograms();
        let (clusters, count) = cluster(&histograms, CODES_MAX, price)?;
        let mut sums = vec![vec![0_u64; SYMBOLS]; count];
        for (cluster, histogram) in clusters.iter().zip(&histograms) {
            for (symbol, count) in histogram {
                sums[usize::from(*cluster)][usize::from(*symbol)] += u64::from(*count);
            }
        }
        for sum in &mut sums {
            let total: u64 = sum.iter().sum();
            for count in &mut sum[..usize::from(recent::FAR)] {
                // A code for so few uses takes more room than it saves.
                if *count < 3 || *count < total / 10_000 {
                    *count = 0;
                }
            }
            // With these two every location can be written, with the others in fewer bits.
            for symbol in (recent::FAR..=recent::NEW).chain([recent::GAP]) {
                sum[usize::from(symbol)] += 1;
            }
        }
        let number = |(kind, counts): (usize, &Vec<u64>)| {
            let mut counts = counts.clone();
            counts[ESCAPE] += 1;
            counts[ESCAPE + 1] += 1;
            let limit = if kind == LENGTH {
                NUMBER_BITS
            } else {
                NUMBER_BITS - 2
            };
            cheapest_lengths(&counts, limit)
        };
        Ok(Self {
            hot_classes: counts.hot_classes,
            cluster_of: clusters,
            tokens: sums
                .iter()
                .map(|sum| codes::lengths(sum, TOKEN_BITS))
                .collect(),
            numbers: counts.numbers.iter().enumerate().map(number).collect(),
        })
    }

    /// What the codes cost; symbols without a code cost much, and in the end cannot be used.
    pub(in super::super) fn costs(&self, last: bool) -> Costs {
        let cost = |length: u8, least: f32| match length {
            0 if last => f32::INFINITY,
            0 => least,
            length => f32::from(length),
        };
        let tokens = self.tokens.iter();
        let heads = number_heads();
        let number = |lengths: &Vec<u8>| {
            let lengths = lengths.iter().zip(&heads);
            let costs =
                lengths.map(|(length, head)| cost(*length, 11.0) + f32::from(raw_bits(*head)));
            costs.collect()
        };
        Costs {
            cluster_of: self.cluster_of.clone(),
            tokens: tokens
                .map(|lengths| lengths.iter().map(|length| cost(*length, 16.0)).collect())
                .collect(),
            numbers: self.numbers.iter().map(number).collect(),
        }
    }

    /// The codes in the form of a model section.
    pub(in super::super) fn write(&self) -> Result<Vec<u8>, EncodeError> {
        let mut bits = [0; NUMBERS];
        let mut tables = Vec::new();
        for (kind, lengths) in self.numbers.iter().enumerate() {
            let longest = lengths.iter().copied().max();
            bits[kind] = longest.ok_or(EncodeError::Invariant("a number code without symbols"))?;
            tables.extend(codes::number_table(lengths, bits[kind], kind == LENGTH)?);
        }
        let mut pool = Vec::new();
        let mut roots = Vec::new();
        for lengths in &self.tokens {
            roots.extend(codes::token_table(lengths, &mut pool)?);
        }
        let header = CodesHeader {
            clusters: narrow("the number of token codes", self.tokens.len())?,
            bits,
            hot_classes: self.hot_classes,
            pool: narrow::<u16>("the size of the sub-tables", pool.len() / POOL_UNIT)?.into(),
        };
        let entries = [tables, roots, pool].concat();
        let entries: Vec<U16> = entries.into_iter().map(U16::new).collect();
        Ok([header.as_bytes(), &self.cluster_of, entries.as_bytes()].concat())
    }

    /// The lengths of codes that were written; `None` if the bytes are none.
    pub(in super::super) fn read(bytes: &[u8]) -> Option<Self> {
        let codes = super::Codes::new(bytes)?;
        let heads = number_heads();
        let mut numbers = Vec::new();
        for code in (0..NUMBERS).map(|kind| codes.number(kind)) {
            let mut lengths = vec![0; NUMBER_SYMBOLS];
            for entry in code.entries() {
                let symbol = heads.iter().position(|head| *head == entry & !15)?;
                lengths[symbol] = u8::try_from(entry & 15).ok()?;
            }
            numbers.push(lengths);
        }
        let mut tokens = Vec::new();
        for cluster in 0..codes.tokens.roots.len() {
            let mut lengths = vec![0; SYMBOLS];
            for (symbol, length) in codes.tokens.symbols(cluster) {
                *lengths.get_mut(usize::from(symbol))? = u8::try_from(length).ok()?;
            }
            tokens.push(lengths);
        }
        Some(Self {
            hot_classes: 1,
            cluster_of: codes.cluster_of.to_vec(),
            tokens,
            numbers,
        })
    }
}

/// The lengths of the code, of at most `limit` bits, that takes the fewest bits together with its
/// table: one bit less halves the table.
fn cheapest_lengths(counts: &[u64], limit: u32) -> Vec<u8> {
    let symbols = counts.iter().filter(|count| **count > 0).count();
    let least = symbols.next_power_of_two().ilog2().clamp(1, limit);
    let bits = |lengths: &Vec<u8>| {
        let longest = lengths
            .iter()
            .max()
            .map_or(0, |longest| u32::from(*longest));
        let lengths = counts.iter().zip(lengths);
        let codes: u64 = lengths
            .map(|(count, length)| count * u64::from(*length))
            .sum();
        codes + (u64::from(u16::BITS) << longest)
    };
    let candidates = (least..=limit).map(|limit| codes::lengths(counts, limit));
    candidates.min_by_key(bits).unwrap_or_default()
}

/// The class of every hot pair, given all pairs and the symbols that came after them in one of `step`
/// blocks.
pub(in super::super) fn hot_classes(
    followers: &[(u32, u16)],
    pairs: usize,
    step: u8,
) -> Result<Vec<u8>, EncodeError> {
    let mut followers = followers.to_vec();
    followers.par_sort_unstable();
    let mut histograms: Vec<Histogram> = vec![Vec::new(); pairs];
    for run in followers.chunk_by(|a, b| a == b) {
        let (pair, symbol) = run[0];
        let count = narrow("the number of tokens", run.len())?;
        histograms[index(pair)].push((symbol, count));
    }
    let price = HOT_CLASS_PRICE / f32::from(step);
    cluster(&histograms, HOT_CLASSES_MAX, price).map(|(classes, _)| classes)
}

/// The clusters of all contexts when all hot pairs are treated as those of class 0.
pub(in super::super) fn classless(cluster_of: &[u8], hot_classes: u8) -> Vec<u8> {
    let fixed = recent::contexts(0);
    let (fixed, hot) = cluster_of.split_at(fixed);
    let hot = &hot[..recent::CONTEXTS_OF_CLASS];
    let hot = core::iter::repeat_n(hot, hot_classes.into()).flatten();
    fixed.iter().chain(hot).copied().collect()
}
