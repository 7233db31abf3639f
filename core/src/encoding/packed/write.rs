//! The writer of the packed encoding (feature `write`).
//!
//! What can be chosen is chosen by what it costs: first with a guess of the costs, and then in
//! rounds with the codes that the round before gave.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

mod blocks;
mod cluster;
pub(crate) use self::cluster::log2;
mod coder;
mod huffman;

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::U16;

use self::blocks::Cut;
use self::cluster::Histogram;
use self::coder::{COLD, Coder, Costs, Dictionary, Entry, Sink};
use self::coder::{ESCAPE, NUMBER_SYMBOLS, escape, number_head, number_symbol};
use super::bits::BitVec;
use super::codes::{NUMBER_BITS, POOL_UNIT, ROOT_SIZE, TOKEN_BITS};
use super::directory::{
    ALIGN_BITS, DirectoryHeader, MANY_BLOCKS, ONE_BLOCK, PAGE_BLOCKS_MAX, Page, record_bits,
};
use super::hot::Widths;
use super::model::{
    BUILT_IN, CODES_BUILT_IN, CODES_OWN, CodesHeader, LENGTH, ModelHeader, NUMBERS, PAGE_BITS_MAX,
    PAGE_BITS_MIN,
};
use super::recent::{self, Place, SUCCESSORS, SYMBOLS};
use crate::encoding::Row;
use crate::index;

/// Most entries a block may be asked to have; a block has up to 1.3 times as many, and some more
/// where no multiple of 16 bytes is near.
pub(crate) const BLOCK_MAX: u32 = 96;
/// Rounds in which codes and choices are fitted to each other.
const ROUNDS: usize = 4;
/// Bits of code for a place from which on it counts towards the hot pairs.
const HOT_COST: f32 = 8.0;
/// How often a place must have been that dear to become a hot pair.
const HOT_THRESHOLD: u32 = 12;
/// Most token codes of a model.
const CODES_MAX: usize = 64;
/// What a token code costs in the model, in bits: its root table and some sub-tables.
const CODE_PRICE: f32 = 8000.0;
/// Most classes of hot pairs.
const HOT_CLASSES_MAX: usize = 32;
/// What a class costs, in bits: its contexts, and its share in other codes.
const HOT_CLASS_PRICE: f32 = 1000.0;
/// What one of the built-in token codes is worth: they are in every kernel, needed or not.
const BUILT_IN_PRICE: f32 = 25_000.0;
/// Entries below which codes of its own cannot pay for a table.
const SMALL: usize = 4_000;

/// The rows of one region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) rows: &'a [Row],
    /// Length of the region, in bytes of text.
    pub(crate) len: u32,
}

/// What the writer made.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// The model section.
    pub(crate) model: Vec<u8>,
    /// The table of every region, and how many rows it gives back.
    pub(crate) tables: Vec<(Vec<u8>, u32)>,
}

impl Packed {
    fn size(&self) -> usize {
        self.model.len()
            + self
                .tables
                .iter()
                .map(|(table, _)| table.len())
                .sum::<usize>()
    }
}

/// The rows without what says nothing: a gap before the first, and rows like the one before.
pub(crate) fn canonical(rows: &[Row]) -> Vec<Row> {
    let mut out: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        let goes_on = match out.last() {
            Some(last) if row.is_gap() => last.is_gap(),
            Some(last) => (last.file, last.line) == (row.file, row.line),
            None => row.is_gap(),
        };
        if !goes_on {
            let file = if row.is_gap() { 0 } else { row.file };
            out.push(Row { file, ..*row });
        }
    }
    out
}

/// Encodes regions whose rows are in order, inside their region, and number files so that those
/// below `headers` are headers. `None` if a limit of the format is passed.
pub(crate) fn encode(sources: &[Source<'_>], headers: u32, block: u32) -> Option<Packed> {
    let job = Job::new(sources, headers, block.clamp(1, BLOCK_MAX))?;
    let built_in = job.with_built_in_codes();
    if job.entries() < SMALL {
        return built_in;
    }
    match (job.with_own_codes(), built_in) {
        (Some(own), Some(built_in)) if built_in.size() < own.size() => Some(built_in),
        (own, built_in) => own.or(built_in),
    }
}

/// The codes that fit these regions, without hot pairs, in the form of the built-in ones.
pub(crate) fn built_in_codes(sources: &[Source<'_>], headers: u32, block: u32) -> Option<Vec<u8>> {
    let job = Job::new(sources, headers, block.clamp(1, BLOCK_MAX))?;
    let mut costs = Costs::guess();
    let dictionary = Dictionary::default();
    let regions = job.cut(&job.regions, &job.first_costs(&costs))?;
    let mut codes = None;
    for _ in 0..ROUNDS {
        let counts = job.count(&regions, &costs, &dictionary);
        let fitted = Codes::fit(&counts, BUILT_IN_PRICE);
        costs = fitted.costs(false);
        codes = Some(fitted);
    }
    codes?.write()
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

/// A region that has been cut.
struct Region {
    entries: Vec<Entry>,
    cuts: Vec<Cut>,
    /// What to expect in every page.
    guesses: Vec<Place>,
    page_bits: u32,
}

impl Region {
    /// Whether no page has more blocks than the format allows.
    fn fits_its_pages(&self) -> bool {
        let page = |cut: &Cut| cut.start >> self.page_bits;
        let mut pages = self.cuts.chunk_by(|a, b| page(a) == page(b));
        pages.all(|cuts| cuts.len() <= index(PAGE_BLOCKS_MAX))
    }

    fn guess(&self, cut: &Cut) -> Place {
        let page = index(cut.start >> self.page_bits);
        self.guesses.get(page).copied().unwrap_or_default()
    }
}

impl Job {
    fn new(sources: &[Source<'_>], headers: u32, block: u32) -> Option<Self> {
        let rows: Vec<Vec<Row>> = sources.iter().map(|s| canonical(s.rows)).collect();
        let unit_bits = unit_bits(rows.iter().flatten().map(|row| row.start));
        let mut regions = Vec::new();
        for (source, rows) in sources.iter().zip(&rows) {
            let mut entries = Vec::with_capacity(rows.len() + 1);
            let end = source.len.checked_next_multiple_of(1 << unit_bits)?;
            let ends = rows.iter().skip(1).map(|row| row.start).chain([end]);
            let push = |entries: &mut Vec<Entry>, length: u32, place| {
                entries.push(Entry {
                    length,
                    place,
                    hot: COLD,
                });
            };
            if let Some(first) = rows.first().filter(|first| first.start > 0) {
                push(&mut entries, first.start, Place::default());
            }
            for (row, end) in rows.iter().zip(ends) {
                let place = Place {
                    file: row.file,
                    line: row.line,
                };
                push(&mut entries, end.checked_sub(row.start)?, place);
            }
            regions.push(entries);
        }
        let text: u64 = sources.iter().map(|source| u64::from(source.len)).sum();
        let entries = regions.iter().map(Vec::len).sum::<usize>().max(1);
        // About 24 blocks to a page: a compromise between the sizes of the two directories, and the
        // records that a look-up reads.
        let page = text / crate::wide(entries) * u64::from(block) * 32;
        Some(Self {
            lens: sources.iter().map(|source| source.len).collect(),
            rows: rows
                .iter()
                .map(|rows| u32::try_from(rows.len()).ok())
                .collect::<Option<_>>()?,
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

    /// What every place costs with no cut and no dictionary.
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
        let coder = Coder {
            costs,
            dictionary: &Dictionary::default(),
            headers: self.headers,
            unit_bits: self.unit_bits,
        };
        let region = |entries: &Vec<Entry>| {
            let mut collect = Collect(vec![0.0; entries.len()]);
            coder.block(Place::default(), entries, &mut collect);
            collect.0
        };
        self.regions.iter().map(region).collect()
    }

    /// Cuts regions into blocks, in pages of at most `page_bits` that have room for them.
    fn cut(&self, regions: &[Vec<Entry>], costs: &[Vec<f32>]) -> Option<Vec<Region>> {
        let mut page_bits = self.page_bits;
        loop {
            let cut = self.cut_in_pages(regions, costs, page_bits)?;
            if page_bits == PAGE_BITS_MIN || cut.iter().all(Region::fits_its_pages) {
                return Some(cut);
            }
            page_bits -= 1;
        }
    }

    fn cut_in_pages(
        &self,
        regions: &[Vec<Entry>],
        costs: &[Vec<f32>],
        page_bits: u32,
    ) -> Option<Vec<Region>> {
        let cut = |(entries, costs): (&Vec<Entry>, &Vec<f32>)| {
            let score = |(entry, cost): (&Entry, &f32)| {
                if entry.place.line == 0 || entry.place.file < self.headers {
                    cost * 0.5
                } else {
                    *cost
                }
            };
            let scores: Vec<f32> = entries.iter().zip(costs).map(score).collect();
            let (entries, cuts) = blocks::cut(entries, &scores, self.block, page_bits)?;
            let guesses = guesses(&entries, &cuts, page_bits);
            Some(Region {
                entries,
                cuts,
                guesses,
                page_bits,
            })
        };
        regions.iter().zip(costs).map(cut).collect()
    }

    fn with_own_codes(&self) -> Option<Packed> {
        let guess = Costs::guess();
        let first_costs = self.first_costs(&guess);
        let mut dictionary = self.hot_pairs(&first_costs);
        let mut regions = self.regions.clone();
        number_hot_pairs(&dictionary, &mut regions);
        let regions = self.cut(&regions, &first_costs)?;
        let mut codes = Codes::fit(&self.count(&regions, &guess, &dictionary), CODE_PRICE);
        let costs = codes.costs(false);
        dictionary.successors = self.successors(&regions, &costs, &dictionary);
        let counts = self.count(&regions, &costs, &dictionary);
        dictionary.classes = hot_classes(&counts.behind, dictionary.pairs.len());
        let costs = Costs {
            cluster_of: classless(&codes.cluster_of, dictionary.hot_classes()),
            ..costs
        };
        codes = Codes::fit(&self.count(&regions, &costs, &dictionary), CODE_PRICE);
        for _ in 1..ROUNDS {
            let counts = self.count(&regions, &codes.costs(false), &dictionary);
            codes = Codes::fit(&counts, CODE_PRICE);
        }
        let costs = codes.costs(true);
        let written = codes.write()?;
        self.write(&regions, &codes, &costs, &dictionary, CODES_OWN, &written)
    }

    fn with_built_in_codes(&self) -> Option<Packed> {
        let codes = Codes::read(BUILT_IN)?;
        let costs = codes.costs(true);
        let dictionary = Dictionary::default();
        let regions = self.cut(&self.regions, &self.first_costs(&costs))?;
        self.write(&regions, &codes, &costs, &dictionary, CODES_BUILT_IN, &[])
    }

    /// Places that were dear often enough, by falling frequency.
    fn hot_pairs(&self, costs: &[Vec<f32>]) -> Dictionary {
        let mut dear: Vec<Place> = Vec::new();
        for (entries, costs) in self.regions.iter().zip(costs) {
            let entries = entries.iter().zip(costs);
            let entries = entries.filter(|(e, cost)| **cost >= HOT_COST && e.place.line != 0);
            dear.extend(entries.map(|(entry, _)| entry.place));
        }
        dear.sort_unstable();
        let mut counted: Vec<(u32, Place)> = Vec::new();
        for run in dear.chunk_by(|a, b| a == b) {
            let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
            // The record of a pair holds 57 bits.
            let fits = run[0].file < 1 << 20 && run[0].line < 1 << 20;
            if count >= HOT_THRESHOLD && fits {
                counted.push((count, run[0]));
            }
        }
        counted.sort_unstable_by_key(|(count, place)| (core::cmp::Reverse(*count), *place));
        counted.truncate(1 << 16);
        Dictionary {
            pairs: counted.into_iter().map(|(_, place)| place).collect(),
            ..Dictionary::default()
        }
    }

    /// For every hot pair the hot pairs that follow it most often, where that was dear.
    fn successors(
        &self,
        regions: &[Region],
        costs: &Costs,
        dictionary: &Dictionary,
    ) -> Vec<Vec<u32>> {
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
        let coder = Coder {
            costs,
            dictionary,
            headers: self.headers,
            unit_bits: self.unit_bits,
        };
        let mut seen = Vec::new();
        for region in regions {
            for cut in &region.cuts {
                let entries = &region.entries[cut.entries.clone()];
                let mut follow = Follow { entries, seen };
                coder.block(region.guess(cut), entries, &mut follow);
                seen = follow.seen;
            }
        }
        seen.sort_unstable();
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

    fn count(&self, regions: &[Region], costs: &Costs, dictionary: &Dictionary) -> Counts {
        let mut counts = Counts::new(dictionary.hot_classes());
        let coder = Coder {
            costs,
            dictionary,
            headers: self.headers,
            unit_bits: self.unit_bits,
        };
        for region in regions {
            for cut in &region.cuts {
                let entries = &region.entries[cut.entries.clone()];
                for entry in entries {
                    counts.length(entry.length, self.unit_bits);
                }
                coder.block(region.guess(cut), entries, &mut counts);
            }
        }
        counts
    }

    fn write(
        &self,
        regions: &[Region],
        codes: &Codes,
        costs: &Costs,
        dictionary: &Dictionary,
        which: u8,
        written: &[u8],
    ) -> Option<Packed> {
        let hot = write_dictionary(dictionary)?;
        let page_bits = regions
            .first()
            .map_or(self.page_bits, |region| region.page_bits);
        let header = ModelHeader {
            codes: which,
            page_bits: u8::try_from(page_bits).ok()?,
            unit_bits: u8::try_from(self.unit_bits).ok()?,
            reserved: 0,
            headers: self.headers.into(),
            hot_pairs: u32::try_from(dictionary.pairs.len()).ok()?.into(),
            hot_size: u32::try_from(hot.len()).ok()?.into(),
        };
        let mut model = header.as_bytes().to_vec();
        model.extend_from_slice(&hot);
        model.extend_from_slice(written);
        let mut writer = BlockWriter::new(codes);
        let coder = Coder {
            costs,
            dictionary,
            headers: self.headers,
            unit_bits: self.unit_bits,
        };
        let mut tables = Vec::new();
        for ((region, rows), len) in regions.iter().zip(&self.rows).zip(&self.lens) {
            tables.push((write_region(region, &coder, &mut writer, *len)?, *rows));
        }
        Some(Packed { model, tables })
    }
}

/// The class of every hot pair, given all pairs and the symbols that came behind them.
fn hot_classes(behind: &[(u32, u16)], pairs: usize) -> Vec<u8> {
    let mut behind = behind.to_vec();
    behind.sort_unstable();
    let mut histograms: Vec<Histogram> = vec![Vec::new(); pairs];
    for run in behind.chunk_by(|a, b| a == b) {
        let (pair, symbol) = run[0];
        let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
        histograms[index(pair)].push((symbol, count));
    }
    cluster::cluster(&histograms, HOT_CLASSES_MAX, HOT_CLASS_PRICE).0
}

/// The clusters of all contexts when all hot pairs are treated as those of class 0.
fn classless(cluster_of: &[u8], hot_classes: u8) -> Vec<u8> {
    let fixed = recent::contexts(0);
    let (fixed, hot) = cluster_of.split_at(fixed);
    let hot = &hot[..recent::CONTEXTS_OF_CLASS];
    let hot = core::iter::repeat_n(hot, hot_classes.into()).flatten();
    fixed.iter().chain(hot).copied().collect()
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

fn number_hot_pairs(dictionary: &Dictionary, regions: &mut [Vec<Entry>]) {
    let mut sorted: Vec<(Place, u32)> = dictionary.pairs.iter().copied().zip(0..).collect();
    sorted.sort_unstable();
    for entry in regions.iter_mut().flatten() {
        if let Ok(at) = sorted.binary_search_by_key(&entry.place, |(place, _)| *place) {
            entry.hot = sorted[at].1;
        }
    }
}

/// The file that most blocks of a page begin with, and the median of their lines.
fn guesses(entries: &[Entry], cuts: &[Cut], page_bits: u32) -> Vec<Place> {
    let mut guesses = Vec::new();
    for blocks in cuts.chunk_by(|a, b| a.start >> page_bits == b.start >> page_bits) {
        let firsts = blocks.iter().map(|cut| entries[cut.entries.start].place);
        let mut firsts: Vec<Place> = firsts.filter(|place| place.line != 0).collect();
        firsts.sort_unstable();
        let of_a_file = firsts.chunk_by(|a, b| a.file == b.file);
        let most = of_a_file.max_by_key(|places| places.len());
        let guess = most.map_or(Place::default(), |places| places[places.len() / 2]);
        let page = index(blocks[0].start >> page_bits);
        let narrow = |value: u32| value.min(u16::MAX.into());
        guesses.resize(page + 1, Place::default());
        guesses[page] = Place {
            file: narrow(guess.file),
            line: narrow(guess.line),
        };
    }
    guesses
}

fn write_dictionary(dictionary: &Dictionary) -> Option<Vec<u8>> {
    if dictionary.pairs.is_empty() {
        return Some(Vec::new());
    }
    let width = |most: u32| u8::try_from(u32::BITS - most.leading_zeros()).unwrap_or(0);
    let lists: usize = dictionary.successors.iter().map(Vec::len).sum();
    let pairs = &dictionary.pairs;
    let widths = Widths {
        file: width(pairs.iter().map(|place| place.file).max()?),
        line: width(pairs.iter().map(|place| place.line).max()?),
        class: width((dictionary.hot_classes() - 1).into()),
        begin: width(u32::try_from(lists).ok()?),
        index: width(u32::try_from(pairs.len()).ok()?),
    };
    let mut records = BitVec::<false>::default();
    let mut list = BitVec::<false>::default();
    let mut begin = 0_u64;
    let rest = dictionary.classes.iter().zip(&dictionary.successors);
    for (pair, (class, successors)) in pairs.iter().zip(rest) {
        records.push(pair.file.into(), widths.file.into());
        records.push(pair.line.into(), widths.line.into());
        records.push((*class).into(), widths.class.into());
        records.push(begin, widths.begin.into());
        begin += crate::wide(successors.len());
        for successor in successors {
            list.push((*successor).into(), widths.index.into());
        }
    }
    let before = [widths.file, widths.line, widths.class];
    records.push(0, before.iter().copied().map(u32::from).sum());
    records.push(begin, widths.begin.into());
    Some([widths.as_bytes(), records.bytes(), list.bytes()].concat())
}

fn write_region(
    region: &Region,
    coder: &Coder<'_>,
    writer: &mut BlockWriter<'_>,
    len: u32,
) -> Option<Vec<u8>> {
    let mut block = |cut: &Cut, guess: Place| {
        let entries = &region.entries[cut.entries.clone()];
        writer.block(coder, guess, entries)
    };
    match region.cuts.as_slice() {
        [] => return Some(Vec::new()),
        [only] => {
            let mut table = vec![ONE_BLOCK];
            table.append(&mut block(only, Place::default()));
            return Some(table);
        }
        _ => {}
    }
    let blocks = region.cuts.iter().map(|cut| block(cut, region.guess(cut)));
    let blocks: Vec<Vec<u8>> = blocks.collect();
    let count = u32::try_from(blocks.len()).ok().filter(|n| n >> 24 == 0)?;
    let smallest = blocks.iter().map(Vec::len).min()?;
    let largest = blocks.iter().map(Vec::len).max()?;
    let size_bits = usize::BITS - (largest - smallest).leading_zeros();
    let header = DirectoryHeader {
        form: MANY_BLOCKS,
        size_bits: u8::try_from(size_bits).ok().filter(|bits| *bits <= 24)?,
        size_min: u16::try_from(smallest).ok()?.into(),
        blocks: count.into(),
    };
    let mut table = header.as_bytes().to_vec();

    let page_bits = region.page_bits;
    let pages = (len.wrapping_sub(1) >> page_bits) + 1;
    let mut block = 0_usize;
    let mut data = 0_usize;
    for number in 0..pages {
        while region
            .cuts
            .get(block)
            .is_some_and(|cut| cut.start >> page_bits < number)
        {
            data += blocks[block].len();
            block += 1;
        }
        let home = block
            .checked_sub(1)
            .map_or(0, |before| region.cuts[before].start >> page_bits);
        let guess = region
            .guesses
            .get(index(number))
            .copied()
            .unwrap_or_default();
        let page = Page {
            data: u32::try_from(data).ok()?.into(),
            block_and_back: (u32::try_from(block).ok()?
                | u32::from(u8::try_from(number - home).ok()?) << 24)
                .into(),
            file: u16::try_from(guess.file).ok()?.into(),
            line: u16::try_from(guess.line).ok()?.into(),
        };
        table.extend_from_slice(page.as_bytes());
    }

    let mut records = BitVec::<false>::default();
    let start_bits = record_bits(page_bits, 0);
    let mut before = smallest;
    let starts = region.cuts.iter().map(|cut| cut.start).chain([0]);
    for (start, size) in starts.zip(blocks.iter().map(Vec::len).chain([smallest])) {
        let in_page = (start & ((1 << page_bits) - 1)) >> ALIGN_BITS;
        records.push(in_page.into(), start_bits);
        records.push(crate::wide(before - smallest), size_bits);
        before = size;
    }
    table.extend_from_slice(records.bytes());
    for block in &blocks {
        table.extend_from_slice(block);
    }
    Some(table)
}

/// How often every symbol was used.
struct Counts {
    /// The context and the symbol of every token, `context << 11 | symbol`.
    tokens: Vec<u32>,
    hot_classes: u8,
    /// Hot pairs, and the symbols behind those that named them.
    behind: Vec<(u32, u16)>,
    numbers: Vec<Vec<u64>>,
}

impl Counts {
    fn new(hot_classes: u8) -> Self {
        Self {
            tokens: Vec::new(),
            hot_classes,
            behind: Vec::new(),
            numbers: vec![vec![0; NUMBER_SYMBOLS]; NUMBERS],
        }
    }
}

impl Counts {
    fn length(&mut self, length: u32, unit_bits: u32) {
        if length.trailing_zeros() >= unit_bits {
            self.number(LENGTH, length >> unit_bits);
        } else {
            self.numbers[LENGTH][escape(length)] += 1;
        }
    }
}

impl Sink for Counts {
    fn token(&mut self, context: usize, symbol: u16, behind: u32) {
        if behind != COLD {
            self.behind.push((behind, symbol));
        }
        let context = u32::try_from(context).unwrap_or(0);
        self.tokens.push(context << 11 | u32::from(symbol));
    }

    fn number(&mut self, kind: usize, value: u32) {
        let (symbol, _, _) = number_symbol(value);
        self.numbers[kind][symbol] += 1;
    }

    fn bit(&mut self, _: bool) {}
}

/// The lengths of all codes.
#[derive(Clone, Debug)]
struct Codes {
    hot_classes: u8,
    cluster_of: Vec<u8>,
    /// By cluster and symbol.
    tokens: Vec<Vec<u8>>,
    /// By kind and symbol.
    numbers: Vec<Vec<u8>>,
}

impl Codes {
    fn fit(counts: &Counts, price: f32) -> Self {
        let mut tokens = counts.tokens.clone();
        tokens.sort_unstable();
        let mut histograms = vec![Histogram::new(); recent::contexts(counts.hot_classes)];
        for run in tokens.chunk_by(|a, b| a == b) {
            let symbol = u16::try_from(run[0] & 0x7ff).unwrap_or(0);
            let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
            histograms[index(run[0] >> 11)].push((symbol, count));
        }
        let (clusters, count) = cluster::cluster(&histograms, CODES_MAX, price);
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
            // With these two anything can be said, with the others more cheaply.
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
            huffman::lengths(&counts, limit)
        };
        Self {
            hot_classes: counts.hot_classes,
            cluster_of: clusters,
            tokens: sums
                .iter()
                .map(|sum| huffman::lengths(sum, TOKEN_BITS))
                .collect(),
            numbers: counts.numbers.iter().enumerate().map(number).collect(),
        }
    }

    /// What the codes cost; symbols without a code are dear, and in the end impossible.
    fn costs(&self, last: bool) -> Costs {
        let cost = |length: u8, least: f32| match length {
            0 if last => f32::INFINITY,
            0 => least,
            length => f32::from(length),
        };
        let tokens = self.tokens.iter();
        let number = |lengths: &Vec<u8>| {
            let lengths = lengths.iter().enumerate();
            let costs = lengths.map(|(symbol, length)| {
                cost(*length, 11.0) + f32::from(number_head(symbol) >> 4 & 31)
            });
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

    /// The codes as they stand in a model section.
    fn write(&self) -> Option<Vec<u8>> {
        let mut bits = [0; NUMBERS];
        let mut tables = Vec::new();
        for (kind, lengths) in self.numbers.iter().enumerate() {
            bits[kind] = lengths.iter().copied().max()?;
            let heads: Vec<u16> = (0..NUMBER_SYMBOLS).map(number_head).collect();
            let forward = kind == LENGTH;
            tables.extend(huffman::number_table(lengths, &heads, bits[kind], forward));
        }
        let mut pool = Vec::new();
        let mut roots = Vec::new();
        for lengths in &self.tokens {
            let root: [u16; ROOT_SIZE] = huffman::token_table(lengths, &mut pool)?;
            roots.extend(root);
        }
        let header = CodesHeader {
            clusters: u8::try_from(self.tokens.len()).ok()?,
            bits,
            hot_classes: self.hot_classes,
            pool: u16::try_from(pool.len() / POOL_UNIT).ok()?.into(),
        };
        let entries = [tables, roots, pool].concat();
        let entries: Vec<U16> = entries.into_iter().map(U16::new).collect();
        Some([header.as_bytes(), &self.cluster_of, entries.as_bytes()].concat())
    }

    /// The lengths of codes that were written.
    fn read(bytes: &[u8]) -> Option<Self> {
        let codes = super::model::Codes::new(bytes)?;
        let mut numbers = Vec::new();
        for code in (0..NUMBERS).map(|kind| codes.number(kind)) {
            let mut lengths = vec![0; NUMBER_SYMBOLS];
            for entry in code.entries() {
                let symbol = (0..NUMBER_SYMBOLS).find(|s| number_head(*s) == entry & !15)?;
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

/// Writes blocks, one after the other.
struct BlockWriter<'a> {
    codes: &'a Codes,
    /// The canonical codes that belong to the lengths.
    tokens: Vec<Vec<u16>>,
    numbers: Vec<Vec<u16>>,
    forward: BitVec<false>,
    backward: BitVec<true>,
}

impl<'a> BlockWriter<'a> {
    fn new(codes: &'a Codes) -> Self {
        let number = |(kind, lengths): (usize, &Vec<u8>)| match kind {
            LENGTH => huffman::forward_codes(lengths),
            _ => huffman::codes(lengths),
        };
        Self {
            tokens: codes
                .tokens
                .iter()
                .map(|lengths| huffman::codes(lengths))
                .collect(),
            numbers: codes.numbers.iter().enumerate().map(number).collect(),
            codes,
            forward: BitVec::default(),
            backward: BitVec::default(),
        }
    }

    fn block(&mut self, coder: &Coder<'_>, guess: Place, entries: &[Entry]) -> Vec<u8> {
        self.forward.clear();
        self.backward.clear();
        for entry in entries {
            let bits = self.length_bits(entry.length, coder.unit_bits);
            bits.iter()
                .for_each(|(value, count)| self.forward.push(*value, *count));
        }
        coder.block(guess, entries, self);
        self.forward.join(&self.backward)
    }

    /// The code of a length: in units, or by an escape in bytes.
    fn length_bits(&self, length: u32, unit_bits: u32) -> [(u64, u32); 2] {
        let (symbol, _, _) = number_symbol(length >> unit_bits);
        if length.trailing_zeros() >= unit_bits && self.codes.numbers[LENGTH][symbol] > 0 {
            self.number_bits(LENGTH, length >> unit_bits)
        } else {
            self.escape_bits(LENGTH, length)
        }
    }

    fn escape_bits(&self, kind: usize, value: u32) -> [(u64, u32); 2] {
        let escape = escape(value);
        let code = self.numbers[kind][escape].into();
        let length = self.codes.numbers[kind][escape].into();
        [(code, length), (u64::from(value & 0x7fff_ffff), 31)]
    }

    /// The code of a number and its raw bits.
    fn number_bits(&self, kind: usize, value: u32) -> [(u64, u32); 2] {
        let (symbol, raw, raw_bits) = number_symbol(value);
        let lengths = &self.codes.numbers[kind];
        if lengths[symbol] == 0 {
            return self.escape_bits(kind, value);
        }
        let code = (self.numbers[kind][symbol].into(), lengths[symbol].into());
        [code, (raw.into(), raw_bits)]
    }
}

impl Sink for BlockWriter<'_> {
    fn token(&mut self, context: usize, symbol: u16, _: u32) {
        let cluster = usize::from(self.codes.cluster_of[context]);
        let symbol = usize::from(symbol);
        let length = self.codes.tokens[cluster][symbol];
        self.backward
            .push(self.tokens[cluster][symbol].into(), length.into());
    }

    fn number(&mut self, kind: usize, value: u32) {
        let bits = self.number_bits(kind, value);
        bits.iter()
            .for_each(|(value, count)| self.backward.push(*value, *count));
    }

    fn bit(&mut self, bit: bool) {
        self.backward.push(bit.into(), 1);
    }
}
