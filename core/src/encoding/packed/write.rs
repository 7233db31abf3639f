//! The writer of the packed encoding (feature `write`).
//!
//! What can be chosen is chosen by what it costs: first with a guess of the costs, and then in
//! rounds with the codes that the round before gave; in a large table the first rounds look at a part of
//! the blocks.
//!
//! All processors work on pieces of it. What comes out does not depend on their number: pieces are of a
//! fixed size, or what they give is added up in integers or sorted.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

pub(crate) mod cluster;

use alloc::vec;
use alloc::vec::Vec;

use rayon::prelude::*;
use zerocopy::IntoBytes;

pub(crate) use self::cluster::{as_f32, log2};
use super::directory::ALIGN_BITS;
use super::directory::write::Region;
use super::hot::write::Dictionary;
use super::model::write::{Codes, Costs, Counts, classless, hot_classes};
use super::model::{
    BUILT_IN, CODES_BUILT_IN, CODES_OWN, DEFAULT, ModelHeader, OwnHeader, PAGE_BITS_MAX,
    PAGE_BITS_MIN,
};
use super::recent::{FileLine, SUCCESSORS};
use super::rows::write::BlockWriter;
use super::tokens::COLD;
use super::tokens::write::{Coder, Entry, Sink};
use crate::blob::SectionEntry;
use crate::encoding::Row;
use crate::index;
use crate::writer::{EncodeError, narrow};

/// Most entries a block may be asked to have; a block has up to 1.3 times as many, and some more
/// where no multiple of 16 bytes is near.
pub(crate) const BLOCK_MAX: u32 = 96;
/// Rounds in which codes and choices are fitted to each other.
const ROUNDS: usize = 4;
/// The last of them look at all blocks.
const LAST_ROUNDS: usize = 2;
/// Entries above which the others look at a part of the blocks: it makes a table no larger.
const SAMPLED: usize = 400_000;
/// What a token code costs in the model, in bits: its root table and some sub-tables.
const CODE_PRICE: f32 = 8000.0;
/// What one of the built-in token codes is worth: they are in every kernel, needed or not.
const BUILT_IN_PRICE: f32 = 25_000.0;
/// Entries below which codes of its own cannot pay for a table.
const SMALL: usize = 4_000;
/// Entries above which the built-in codes never fit as well as codes of its own.
const LARGE: usize = 200_000;
/// Entries whose first costs are found together.
const PIECE: usize = 1 << 16;
/// Blocks that one processor takes at a time.
pub(super) const BLOCKS: usize = 1024;

/// The rows of one region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) rows: &'a [Row],
    /// The chain of each row; empty if there are none.
    pub(crate) chains: &'a [Option<u32>],
    /// Length of the region, in bytes of text.
    pub(crate) len: u32,
}

/// What the writer made.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// The model section.
    pub(crate) model: Vec<u8>,
    /// The table of every region, and how many rows it has.
    pub(crate) tables: Vec<(Vec<u8>, u32)>,
}

impl Packed {
    fn size(&self) -> usize {
        let model = match self.model.len() {
            0 => 0,
            size => size + size_of::<SectionEntry>(),
        };
        model
            + self
                .tables
                .iter()
                .map(|(table, _)| table.len())
                .sum::<usize>()
    }
}

/// The rows without those that add nothing: a gap before the first, and rows like the one before, with
/// the same chain.
pub(crate) fn canonical(rows: &[Row], chains: &[Option<u32>]) -> Vec<Row> {
    let mut out: Vec<Row> = Vec::with_capacity(rows.len());
    let mut last_chain = None;
    for (position, row) in rows.iter().enumerate() {
        let chain = chains.get(position).copied().flatten();
        let goes_on = match out.last() {
            Some(last) if row.is_gap() => last.is_gap(),
            Some(last) => (last.file, last.line, last_chain) == (row.file, row.line, chain),
            None => row.is_gap(),
        };
        if !goes_on {
            last_chain = chain;
            let file = if row.is_gap() { 0 } else { row.file };
            out.push(Row { file, ..*row });
        }
    }
    out
}

/// Encodes regions whose rows are in order, inside their region, and number files so that those
/// below `headers` are headers.
pub(crate) fn encode(
    sources: &[Source<'_>],
    headers: u32,
    block: u32,
) -> Result<Packed, EncodeError> {
    let job = Job::new(sources, headers, block.clamp(1, BLOCK_MAX))?;
    match job.entries() {
        0..SMALL => {
            // Where there is next to nothing, no model at all is best.
            let built_in = job.with_built_in_codes()?;
            let without_headers = Job { headers: 0, ..job }.with_built_in_codes()?;
            let is_smaller = without_headers.size() < built_in.size();
            return Ok(if is_smaller {
                without_headers
            } else {
                built_in
            });
        }
        SMALL..LARGE => {}
        LARGE.. => match job.with_own_codes() {
            Err(EncodeError::TooLarge { .. }) => return job.with_built_in_codes(),
            packed => return packed,
        },
    }
    match rayon::join(|| job.with_own_codes(), || job.with_built_in_codes()) {
        (Ok(own), Ok(built_in)) if built_in.size() < own.size() => Ok(built_in),
        (Ok(packed), Ok(_) | Err(EncodeError::TooLarge { .. }))
        | (Err(EncodeError::TooLarge { .. }), Ok(packed)) => Ok(packed),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// The codes that fit these regions, without hot pairs, in the form of the built-in ones.
pub(crate) fn built_in_codes(
    sources: &[Source<'_>],
    headers: u32,
    block: u32,
) -> Result<Vec<u8>, EncodeError> {
    let job = Job::new(sources, headers, block.clamp(1, BLOCK_MAX))?;
    let mut costs = Costs::guess();
    let dictionary = Dictionary::default();
    let cuts = job.cut(&job.regions, &job.first_costs(&costs))?;
    for _ in 1..ROUNDS {
        let counts = job.count(&cuts, &costs, &dictionary, 1);
        costs = Codes::fit(&counts, BUILT_IN_PRICE)?.costs(false);
    }
    let counts = job.count(&cuts, &costs, &dictionary, 1);
    Codes::fit(&counts, BUILT_IN_PRICE)?.write()
}

/// What is to be encoded, as it is before any choice.
struct Job {
    regions: Vec<Vec<Entry>>,
    lens: Vec<u32>,
    /// Number of canonical rows.
    rows: Vec<u32>,
    headers: u32,
    block: u32,
    unit_bits: u32,
    page_bits: u32,
}

/// All regions, cut into blocks.
struct Cuts {
    page_bits: u32,
    regions: Vec<Region>,
}

/// One block, and the location to expect where it begins.
struct Block<'a> {
    entries: &'a [Entry],
    guess: FileLine,
}

impl Cuts {
    /// One of `step` blocks.
    fn blocks(&self, step: u8) -> Vec<Block<'_>> {
        let regions = self.regions.iter();
        let cuts = regions.flat_map(|region| region.cuts.iter().map(move |cut| (region, cut)));
        let blocks = cuts.map(|(region, cut)| Block {
            entries: &region.entries[cut.entries.clone()],
            guess: region.guess(cut),
        });
        blocks.step_by(step.into()).collect()
    }
}

impl Job {
    fn new(sources: &[Source<'_>], headers: u32, block: u32) -> Result<Self, EncodeError> {
        let rows: Vec<Vec<Row>> = sources
            .iter()
            .map(|s| canonical(s.rows, s.chains))
            .collect();
        let unit_bits = unit_bits(rows.iter().flatten().map(|row| row.start));
        let mut regions = Vec::new();
        for (source, rows) in sources.iter().zip(&rows) {
            let mut entries = Vec::with_capacity(rows.len() + 1);
            let end = source.len.checked_next_multiple_of(1 << unit_bits);
            let end = end.ok_or(EncodeError::TooLarge {
                what: "the length of a region",
                size: source.len.into(),
            })?;
            let ends = rows.iter().skip(1).map(|row| row.start).chain([end]);
            let push = |entries: &mut Vec<Entry>, length: u32, location| {
                entries.push(Entry {
                    length,
                    location,
                    hot: COLD,
                });
            };
            if let Some(first) = rows.first().filter(|first| first.start > 0) {
                push(&mut entries, first.start, FileLine::default());
            }
            for (row, end) in rows.iter().zip(ends) {
                let location = FileLine {
                    file: row.file,
                    line: row.line,
                };
                let length = end.checked_sub(row.start);
                let length = length.ok_or(EncodeError::Invariant("rows that do not ascend"))?;
                push(&mut entries, length, location);
            }
            regions.push(entries);
        }
        let text: u64 = sources.iter().map(|source| u64::from(source.len)).sum();
        let entries = regions.iter().map(Vec::len).sum::<usize>().max(1);
        // About 24 blocks to a page: a compromise between the sizes of the two directories, and the
        // records that a look-up reads.
        let page = text / crate::wide(entries) * u64::from(block) * 32;
        Ok(Self {
            lens: sources.iter().map(|source| source.len).collect(),
            // A reader takes rows that differ in their chains for one.
            rows: sources
                .iter()
                .map(|source| narrow("the number of rows", canonical(source.rows, &[]).len()))
                .collect::<Result<_, _>>()?,
            regions,
            headers,
            block,
            unit_bits,
            page_bits: page.max(1).ilog2().clamp(PAGE_BITS_MIN, PAGE_BITS_MAX),
        })
    }

    fn entries(&self) -> usize {
        self.regions.iter().map(Vec::len).sum()
    }

    /// Of how many blocks one is looked at in the first rounds.
    fn step(&self) -> u8 {
        if self.entries() > SAMPLED { 4 } else { 1 }
    }

    /// What every location costs with no cut and no dictionary.
    fn first_costs(&self, costs: &Costs) -> Vec<Vec<f32>> {
        struct Collect(Vec<f32>);
        impl Sink for Collect {
            fn token(&mut self, _: usize, _: u16, _: u32) {}
            fn number(&mut self, _: usize, _: u32) {}
            fn bit(&mut self, _: bool) {}
            fn entry(&mut self, index: usize, cost: f32, _: u32) {
                self.0[index] = cost;
            }
        }
        let dictionary = Dictionary::default();
        let coder = self.coder(costs, &dictionary);
        let piece = |entries: &[Entry]| {
            let mut collect = Collect(vec![0.0; entries.len()]);
            coder.block(FileLine::default(), entries, &mut collect);
            collect.0
        };
        let regions = self.regions.iter();
        regions
            .map(|entries| entries.par_chunks(PIECE).flat_map(piece).collect())
            .collect()
    }

    /// Cuts regions into blocks, in pages of at most `page_bits` that have room for them.
    fn cut(&self, regions: &[Vec<Entry>], costs: &[Vec<f32>]) -> Result<Cuts, EncodeError> {
        let mut page_bits = self.page_bits;
        loop {
            let regions = self.cut_in_pages(regions, costs, page_bits)?;
            if regions.iter().all(Region::fits_its_pages) {
                return Ok(Cuts { page_bits, regions });
            }
            if page_bits == PAGE_BITS_MIN {
                return Err(EncodeError::Invariant(
                    "too many blocks in the smallest page",
                ));
            }
            page_bits -= 1;
        }
    }

    fn cut_in_pages(
        &self,
        regions: &[Vec<Entry>],
        costs: &[Vec<f32>],
        page_bits: u32,
    ) -> Result<Vec<Region>, EncodeError> {
        let cut = |(entries, costs): (&Vec<Entry>, &Vec<f32>)| {
            let score = |(entry, cost): (&Entry, &f32)| {
                if entry.location.line == 0 || entry.location.file < self.headers {
                    cost * 0.5
                } else {
                    *cost
                }
            };
            let scores: Vec<f32> = entries.iter().zip(costs).map(score).collect();
            Region::cut(entries, &scores, self.block, page_bits)
        };
        regions.iter().zip(costs).map(cut).collect()
    }

    fn with_own_codes(&self) -> Result<Packed, EncodeError> {
        let guess = Costs::guess();
        let first_costs = self.first_costs(&guess);
        let mut dictionary = Dictionary::new(&self.regions, &first_costs);
        let mut regions = self.regions.clone();
        dictionary.number(&mut regions);
        let cuts = self.cut(&regions, &first_costs)?;
        let step = self.step();
        let price = |step: u8| CODE_PRICE / f32::from(step);
        let fit = |costs: &Costs, dictionary: &Dictionary, step: u8| {
            Codes::fit(&self.count(&cuts, costs, dictionary, step), price(step))
        };
        let mut codes = fit(&guess, &dictionary, step)?;
        let costs = codes.costs(false);
        dictionary.successors = self.successors(&cuts, &costs, &dictionary);
        let counts = self.count(&cuts, &costs, &dictionary, step);
        dictionary.classes = hot_classes(&counts.followers, dictionary.pairs.len(), step)?;
        let costs = Costs {
            cluster_of: classless(&codes.cluster_of, dictionary.hot_classes()),
            ..costs
        };
        codes = fit(&costs, &dictionary, step)?;
        for round in 1..ROUNDS {
            let step = if round + LAST_ROUNDS < ROUNDS {
                step
            } else {
                1
            };
            codes = fit(&codes.costs(false), &dictionary, step)?;
        }
        let costs = codes.costs(true);
        let written = codes.write()?;
        self.write(&cuts, &codes, &costs, &dictionary, CODES_OWN, &written)
    }

    fn with_built_in_codes(&self) -> Result<Packed, EncodeError> {
        let codes = Codes::read(BUILT_IN);
        let codes = codes.ok_or(EncodeError::Invariant("built-in codes of another form"))?;
        let costs = codes.costs(true);
        let dictionary = Dictionary::default();
        let cuts = self.cut(&self.regions, &self.first_costs(&costs))?;
        self.write(&cuts, &codes, &costs, &dictionary, CODES_BUILT_IN, &[])
    }

    /// For every hot pair the hot pairs that follow it most often, where that cost much.
    fn successors(&self, cuts: &Cuts, costs: &Costs, dictionary: &Dictionary) -> Vec<Vec<u32>> {
        struct Follow<'a> {
            entries: &'a [Entry],
            seen: Vec<(u32, u32)>,
        }
        impl Sink for Follow<'_> {
            fn token(&mut self, _: usize, _: u16, _: u32) {}
            fn number(&mut self, _: usize, _: u32) {}
            fn bit(&mut self, _: bool) {}
            fn entry(&mut self, index: usize, cost: f32, before: u32) {
                let hot = self.entries[index].hot;
                if before != COLD && hot != COLD && cost >= 9.0 {
                    self.seen.push((before, hot));
                }
            }
        }
        let coder = self.coder(costs, dictionary);
        let blocks = cuts.blocks(1);
        let of_piece = |piece: &[Block<'_>]| {
            let mut seen = Vec::new();
            for block in piece {
                let entries = block.entries;
                let mut follow = Follow { entries, seen };
                coder.block(block.guess, entries, &mut follow);
                seen = follow.seen;
            }
            seen
        };
        let mut seen: Vec<(u32, u32)> = blocks.par_chunks(BLOCKS).flat_map(of_piece).collect();
        seen.par_sort_unstable();
        let mut lists: Vec<Vec<(usize, u32)>> = vec![Vec::new(); dictionary.pairs.len()];
        for run in seen.chunk_by(|a, b| a == b) {
            let (from, to) = run[0];
            if run.len() >= 3 {
                lists[index(from)].push((run.len(), to));
            }
        }
        let order = |mut list: Vec<(usize, u32)>| {
            list.sort_unstable_by_key(|(count, to)| (core::cmp::Reverse(*count), *to));
            list.truncate(index(SUCCESSORS));
            list.into_iter().map(|(_, to)| to).collect()
        };
        lists.into_iter().map(order).collect()
    }

    /// Counts in one of `step` blocks what is written with these costs.
    fn count(&self, cuts: &Cuts, costs: &Costs, dictionary: &Dictionary, step: u8) -> Counts {
        let coder = self.coder(costs, dictionary);
        let blocks = cuts.blocks(step);
        let of_piece = |piece: &[Block<'_>]| {
            let mut counts = Counts::new(dictionary.hot_classes());
            for block in piece {
                for entry in block.entries {
                    counts.length(entry.length, self.unit_bits);
                }
                coder.block(block.guess, block.entries, &mut counts);
            }
            counts
        };
        // Sums are the same however many pieces there are, and each takes megabytes.
        let piece = blocks
            .len()
            .div_ceil(rayon::current_num_threads())
            .max(BLOCKS);
        let counts: Vec<Counts> = blocks.par_chunks(piece).map(of_piece).collect();
        let sum = counts.into_iter().reduce(Counts::add);
        sum.unwrap_or_else(|| Counts::new(dictionary.hot_classes()))
    }

    fn coder<'a>(&self, costs: &'a Costs, dictionary: &'a Dictionary) -> Coder<'a> {
        Coder::new(costs, dictionary, self.headers, self.unit_bits)
    }

    fn write(
        &self,
        cuts: &Cuts,
        codes: &Codes,
        costs: &Costs,
        dictionary: &Dictionary,
        which: u8,
        written: &[u8],
    ) -> Result<Packed, EncodeError> {
        let hot = dictionary.write()?;
        // A table of one block has no pages.
        let has_pages = cuts.regions.iter().any(|region| region.cuts.len() > 1);
        let page_bits = match has_pages {
            true => index(cuts.page_bits),
            false => usize::from(DEFAULT[1]),
        };
        let header = ModelHeader {
            codes: which,
            page_bits: narrow("the bits of a page", page_bits)?,
            unit_bits: narrow("the bits of a unit", index(self.unit_bits))?,
        };
        let mut model = header.as_bytes().to_vec();
        if which == CODES_OWN {
            let own = OwnHeader {
                headers: self.headers.into(),
                hot_pairs: narrow::<u32>("the number of hot pairs", dictionary.pairs.len())?.into(),
                hot_size: narrow::<u32>("the size of the hot pairs", hot.len())?.into(),
            };
            model.extend_from_slice(own.as_bytes());
        } else {
            let bytes = self.headers.to_le_bytes();
            let used = 4 - index(self.headers.leading_zeros() / 8);
            model.extend_from_slice(&bytes[..used]);
        }
        model.extend_from_slice(&hot);
        model.extend_from_slice(written);
        if model == DEFAULT {
            model.clear();
        }
        let writer = BlockWriter::new(codes)?;
        let coder = self.coder(costs, dictionary);
        let new_block = || {
            let (mut writer, coder) = (writer.clone(), &coder);
            move |entries: &[Entry], guess| writer.block(coder, guess, entries)
        };
        let mut tables = Vec::new();
        for ((region, rows), len) in cuts.regions.iter().zip(&self.rows).zip(&self.lens) {
            tables.push((region.write(*len, new_block)?, *rows));
        }
        Ok(Packed { model, tables })
    }
}

/// The unit of lengths: the largest of which nearly all starts are multiples, and not by chance.
fn unit_bits(starts: impl Iterator<Item = u32> + Clone) -> u32 {
    let of = |bits: u32| {
        starts
            .clone()
            .filter(move |start| start.trailing_zeros() >= bits)
    };
    let all = starts.clone().count();
    let nearly_all = all - all / 32;
    (1..=ALIGN_BITS)
        .rev()
        .find(|bits| all >= 64 && of(*bits).count() >= nearly_all)
        .unwrap_or(0)
}
