//! The writer of the sections of chains (feature `write`).
//!
//! It comes after the rows: it reads the blocks that were written and gives each of their entries an op.
//! What the ops need decides which edges are in the lists; then all numbers are counted, the codes
//! fitted to them, and everything is written and read back.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Range;

use zerocopy::IntoBytes;

use super::codes::write::{Code, histogram, symbol};
use super::codes::{Form, Kind, NUMBER_MAX, OP_CONTEXTS, SIZE_CONTEXTS};
use super::codes::{SPECIAL_125, SPECIAL_126, SPECIAL_127, SYMBOLS};
use super::functions::{
    ENTRIES_MAX, GROUP, Group, Header, LINE_MAX, LONG, LONG_BITS, NO_DEFAULT, Place, width,
    write_declaration,
};
use super::names;
use super::{
    ANCHOR, Cursor, Functions, LEVELS_MAX, Levels, Line, SITE_EDGES, SITES, SIZE_BITS_MAX,
};
use crate::encoding::packed::bits::BitVec;
use crate::encoding::packed::tokens::write::fold;
use crate::encoding::packed::write::cluster::cluster;
use crate::encoding::packed::{Chunk, Visitor, visit};
use crate::encoding::{RegionTable, Row};
use crate::index;
use crate::writer::{EncodeError, narrow};

/// What a code costs in its section, in bits.
const CODE_PRICE: f32 = 400.0;
/// Most codes, besides those of sizes.
const CODES_MAX: usize = 240;
/// An op context has a default op if of so many hundredths of its entries that is the op.
const DEFAULT_PERCENT: u64 = 75;
/// Of a chain that is too deep so many of the outermost levels are kept.
const OUTER_LEVELS: usize = LEVELS_MAX / 2;

/// A function that is inlined somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlinedFunction {
    /// Its name.
    pub name: String,
    /// The file in which its code is, an index in [`crate::writer::Image::files`].
    pub file: u32,
    /// The line of its declaration, 0 if that is not known.
    pub line: u32,
}

impl InlinedFunction {
    /// A function of this name that is declared at a line of a file.
    pub fn new(name: &str, file: u32, line: u32) -> Self {
        Self {
            name: String::from(name),
            file,
            line,
        }
    }
}

/// An inlined function in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InlineLevel {
    /// The function, an index in [`Inlines::functions`].
    pub function: u32,
    /// The line of its call, in the file of the function around it.
    pub line: u32,
}

/// Functions that are inlined into each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InlineChain {
    /// The file in which the outermost of them is called.
    pub file: u32,
    /// The functions, outermost first. Of more than 16, those in the middle are left out.
    pub levels: Vec<InlineLevel>,
}

impl InlineChain {
    /// Functions and the lines of their calls, outermost first.
    pub fn new(file: u32, levels: &[(u32, u32)]) -> Self {
        let level = |&(function, line): &(u32, u32)| InlineLevel { function, line };
        Self {
            file,
            levels: levels.iter().map(level).collect(),
        }
    }
}

/// All inlined functions of an image, and the chains in which they occur.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inlines {
    /// The functions, each once by name and file.
    pub functions: Vec<InlinedFunction>,
    /// The chains.
    pub chains: Vec<InlineChain>,
}

/// The sections.
pub(crate) struct Written {
    pub(crate) functions: Vec<u8>,
    pub(crate) names: Vec<u8>,
    pub(crate) chains: Vec<u8>,
}

/// A region whose rows were written.
pub(crate) struct Source<'a> {
    pub(crate) table: RegionTable<'a>,
    /// The rows that were asked for, and the chain of each.
    pub(crate) rows: &'a [Row],
    pub(crate) chains: &'a [Option<u32>],
}

/// Encodes the chains of regions; `new_of_old` has the number in the blob of each file. `None` if nothing is inlined.
pub(crate) fn encode(
    inlines: &Inlines,
    sources: &[Source<'_>],
    new_of_old: &[u32],
    header_files: u32,
) -> Result<Option<Written>, EncodeError> {
    let mut job = Job::new(inlines, sources, new_of_old, header_files)?;
    if job.places.is_empty() {
        return Ok(None);
    }
    job.choose_edges();
    let full = job.write(Form::Full)?;
    let small = job.write(Form::Small)?;
    let (functions, chains) = if small.size() < full.size() {
        (small.functions, small.chains)
    } else {
        (full.functions, full.chains)
    };
    job.read_back(&functions, &chains, sources)?;
    let names: Vec<&str> = job.names.iter().map(String::as_str).collect();
    Ok(Some(Written {
        functions,
        names: names::write::encode(&names)?,
        chains,
    }))
}

/// The two sections that depend on the form.
struct Sections {
    functions: Vec<u8>,
    chains: Vec<u8>,
}

impl Sections {
    fn size(&self) -> usize {
        self.functions.len() + self.chains.len()
    }
}

type Level = (u32, u32);

/// A chain with functions and files as in the blob.
#[derive(Clone, Debug, Default)]
struct Chain {
    file: u32,
    levels: Vec<Level>,
}

/// An entry that is no gap.
#[derive(Clone, Copy, Debug)]
struct Step {
    place: Place,
    kind: usize,
    in_header: bool,
    /// Index in [`Job::chains`].
    chain: usize,
}

/// A chunk of a block.
struct Part {
    block: u32,
    /// Which of the chunks of the block it is.
    number: u32,
    /// Where the physical function is expected.
    expected: Place,
    steps: Vec<Step>,
}

/// An entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Choice {
    Stop,
    Escape,
    Edge { caller: u32, line: u32 },
}

/// How often something is used.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    count: u32,
    /// Those for which ESC does not give the caller.
    not_expected: u32,
}

struct Job {
    names: Vec<String>,
    places: Vec<Place>,
    in_headers: u32,
    /// The first one is empty.
    chains: Vec<Chain>,
    /// The chunks of each region.
    regions: Vec<Vec<Part>>,
    /// For each function the entries of its list; without any, STOP alone.
    lists: Vec<Vec<Choice>>,
}

/// Takes numbers and bits.
trait Sink {
    fn number(&mut self, kind: Kind, context: usize, number: u32);
    fn raw(&mut self, value: u32, bits: u32);
    fn append(&mut self, bits: &BitVec<true>);
}

/// The ops of a chunk; `None` if all its chains are empty.
type Ops = Option<BitVec<true>>;

/// Collects the entries of the blocks of a region.
struct Collect<'a> {
    source: &'a Source<'a>,
    /// For each chain of the input one of the output.
    numbers: &'a [usize],
    parts: Vec<Part>,
}

impl Visitor for Collect<'_> {
    fn chunk(&mut self, chunk: &Chunk) -> Option<()> {
        let mut steps = Vec::new();
        for (entry, start) in chunk.entries().zip(chunk.starts()) {
            if entry.line == 0 {
                continue;
            }
            let rows = self.source.rows;
            let after = rows.partition_point(|row| row.start <= start);
            let chain = match self.source.chains[after.checked_sub(1)?] {
                Some(chain) => self.numbers[index(chain)],
                None => 0,
            };
            steps.push(Step {
                place: Place {
                    file: entry.file,
                    line: entry.line,
                },
                kind: entry.kind.into(),
                in_header: entry.in_header,
                chain,
            });
        }
        let (file, line) = chunk.expected();
        self.parts.push(Part {
            block: chunk.block().number,
            number: chunk.number,
            expected: Place { file, line },
            steps,
        });
        Some(())
    }
}

impl Job {
    fn new(
        inlines: &Inlines,
        sources: &[Source<'_>],
        new_of_old: &[u32],
        header_files: u32,
    ) -> Result<Self, EncodeError> {
        let unknown = || EncodeError::TooLarge {
            what: "the index of a file, a function or a chain",
            size: u64::from(u32::MAX),
        };
        let file = |old: u32| new_of_old.get(index(old)).copied().ok_or_else(unknown);
        let mut used = vec![false; inlines.chains.len()];
        for chain in sources.iter().flat_map(|source| source.chains).flatten() {
            *used.get_mut(index(*chain)).ok_or_else(unknown)? = true;
        }
        let mut lines: Vec<Option<u32>> = vec![None; inlines.functions.len()];
        let mut chains = vec![Chain::default()];
        let mut numbers = vec![0; inlines.chains.len()];
        for (number, chain) in inlines.chains.iter().enumerate().filter(|(n, _)| used[*n]) {
            let levels = shorten(&chain.levels);
            for (position, level) in levels.iter().enumerate() {
                if level.line > LINE_MAX {
                    return Err(EncodeError::TooLarge {
                        what: "the line of a call",
                        size: level.line.into(),
                    });
                }
                let function = inlines.functions.get(index(level.function));
                let declared = function.ok_or_else(unknown)?.line;
                // A function without a line is at that of its first call.
                let declared = match declared {
                    0 => LINE_MAX,
                    declared => declared.min(LINE_MAX),
                };
                let line = lines[index(level.function)].get_or_insert(declared);
                if let Some(inner) = levels.get(position + 1) {
                    *line = inner.line.min(*line);
                }
            }
            if !levels.is_empty() {
                numbers[number] = chains.len();
                chains.push(Chain {
                    file: file(chain.file)?,
                    levels: levels
                        .iter()
                        .map(|level| (level.function, level.line))
                        .collect(),
                });
            }
        }
        let mut order = Vec::new();
        for (old, (function, line)) in (0_u32..).zip(inlines.functions.iter().zip(&lines)) {
            if let Some(line) = *line {
                let place = Place {
                    file: file(function.file)?,
                    line,
                };
                order.push((place, &function.name, old));
            }
        }
        order.sort_unstable();
        narrow::<u16>("the number of inlined functions", order.len())?;
        let mut new = vec![0; inlines.functions.len()];
        for (number, (_, _, old)) in (0_u32..).zip(&order) {
            new[index(*old)] = number;
        }
        for level in chains.iter_mut().flat_map(|chain| &mut chain.levels) {
            level.0 = new[index(level.0)];
        }
        let mut regions = Vec::new();
        for source in sources {
            let mut collect = Collect {
                source,
                numbers: &numbers,
                parts: Vec::new(),
            };
            visit(&source.table, &mut collect)
                .map_err(|_| EncodeError::Invariant("rows that cannot be read"))?;
            regions.push(collect.parts);
        }
        let in_headers = order.iter().filter(|(place, ..)| place.file < header_files);
        Ok(Self {
            in_headers: narrow("the number of functions", in_headers.count())?,
            places: order.iter().map(|(place, ..)| *place).collect(),
            lists: vec![Vec::new(); order.len()],
            names: order.into_iter().map(|(_, name, _)| name.clone()).collect(),
            chains,
            regions,
        })
    }

    fn before(&self, place: Place) -> Option<u32> {
        let after = self.places.partition_point(|other| *other <= place);
        let found = after.checked_sub(1)?;
        (self.places[found].file == place.file).then(|| u32::try_from(found).ok())?
    }

    /// Which edges are in the lists: those that are used more than once, and those that ESC cannot
    /// express.
    fn choose_edges(&mut self) {
        let mut edges: BTreeMap<(u32, Choice), Uses> = BTreeMap::new();
        for part in self.regions.iter().flatten() {
            let mut state = State::new(self, part.expected);
            for step in &part.steps {
                let change = state.change(step);
                let chain = &self.chains[step.chain];
                if change.pushes {
                    let new = &chain.levels[change.kept..];
                    for pair in new.windows(2) {
                        let [(caller, _), (function, line)] = *pair else {
                            continue;
                        };
                        let place = Place {
                            file: state.expected.file,
                            line,
                        };
                        let edge = Choice::Edge { caller, line };
                        let uses = edges.entry((function, edge)).or_default();
                        uses.count += 1;
                        uses.not_expected += u32::from(self.before(place) != Some(caller));
                    }
                    let (outermost, line) = new[0];
                    edges.entry((outermost, Choice::Stop)).or_default().count += 1;
                    if let Some(around) = change.kept.checked_sub(1) {
                        let caller = chain.levels[around].0;
                        let edge = Choice::Edge { caller, line };
                        edges.entry((outermost, edge)).or_default().count += 1;
                    }
                }
                state.go(step);
            }
        }
        let edges: Vec<_> = edges.into_iter().collect();
        for of_one in edges.chunk_by(|a, b| a.0.0 == b.0.0) {
            let function = index(of_one[0].0.0);
            let mut choices: Vec<(u32, Choice)> = Vec::new();
            let mut escapes = 0;
            let mut listed: Vec<(u32, Choice)> = Vec::new();
            for ((_, choice), uses) in of_one {
                match choice {
                    Choice::Stop | Choice::Escape => choices.push((uses.count, *choice)),
                    Choice::Edge { .. } if uses.not_expected == 0 && uses.count <= 1 => {
                        escapes += uses.count;
                    }
                    Choice::Edge { .. } => listed.push((uses.count, *choice)),
                }
            }
            listed.sort_by_key(|(count, choice)| (Reverse(*count), *choice));
            let most = index(ENTRIES_MAX) - 2;
            let rare = listed.split_off(listed.len().min(most));
            escapes += rare.iter().map(|(count, _)| count).sum::<u32>();
            choices.extend(listed);
            if escapes > 0 {
                choices.push((escapes, Choice::Escape));
            }
            choices.sort_by_key(|(count, choice)| (Reverse(*count), *choice));
            let choices: Vec<Choice> = choices.into_iter().map(|(_, choice)| choice).collect();
            if choices != [Choice::Stop] {
                self.lists[function] = choices;
            }
        }
    }

    fn write(&self, form: Form) -> Result<Sections, EncodeError> {
        let defaults = match form {
            Form::Full => self.defaults(),
            Form::Small => Vec::new(),
        };
        let mut counts = Counts::new(form);
        for function in 0..self.lists.len() {
            if !self.lists[function].is_empty() {
                self.list(function, &mut counts)?;
            }
        }
        for part in self.regions.iter().flatten() {
            if part.steps.iter().any(|step| step.chain != 0) {
                self.part(part, &defaults, &mut counts)?;
            }
        }
        let (mut map, mut codes) = counts.codes()?;
        let mut writer = Writer::new(form, &map, &codes);
        let regions = self.regions.iter().map(|parts| {
            let blocks = parts.chunk_by(|one, next| one.block == next.block);
            let blocks = blocks.map(|parts| self.block(parts, &defaults, &mut writer));
            blocks.collect::<Result<Vec<_>, _>>()
        });
        let regions: Vec<Vec<Vec<Ops>>> = regions.collect::<Result<_, _>>()?;
        // Sizes are known when all other codes are, so theirs come last.
        let mut counts = Counts::new(form);
        for block in regions.iter().flatten() {
            block_stream(block, &mut counts)?;
        }
        let (size_map, size_codes) = counts.codes()?;
        for (code, of_size) in map.iter_mut().zip(&size_map).skip(form.size()) {
            *code = narrow("the number of codes", codes.len() + usize::from(*of_size))?;
        }
        codes.extend(size_codes);
        let mut writer = Writer::new(form, &map, &codes);
        Ok(Sections {
            chains: chain_section(&regions, &mut writer)?,
            functions: self.function_section(writer, &defaults)?,
        })
    }

    /// The ops of the chunks of a block; `None` where all chains are empty.
    fn block(
        &self,
        parts: &[Part],
        defaults: &[u8],
        writer: &mut Writer<'_>,
    ) -> Result<Vec<Ops>, EncodeError> {
        let ops = parts.iter().map(|part| {
            if part.steps.iter().all(|step| step.chain == 0) {
                return Ok(None);
            }
            self.part(part, defaults, writer)?;
            Ok(Some(core::mem::take(&mut writer.bits)))
        });
        ops.collect()
    }

    fn function_section(
        &self,
        mut writer: Writer<'_>,
        defaults: &[u8],
    ) -> Result<Vec<u8>, EncodeError> {
        let mut begins = vec![0_u16];
        let mut codes = Vec::new();
        for code in writer.codes {
            codes.extend(code.write()?);
            begins.push(narrow("the size of the codes", codes.len())?);
        }
        let header = Header {
            functions: narrow::<u16>("the number of functions", self.places.len())?.into(),
            in_headers: narrow::<u16>("the number of functions", index(self.in_headers))?.into(),
            form: writer.form.number(),
            codes: narrow("the number of codes", writer.codes.len())?,
        };
        let mut groups = Vec::new();
        let mut data: Vec<u8> = Vec::new();
        let size = index(GROUP);
        for first in (0..self.places.len()).step_by(size) {
            let group = first..(first + size).min(self.places.len());
            // The data are read from their end.
            let mut declared = Vec::new();
            for pair in self.places[group.clone()].windows(2) {
                write_declaration(pair[0], pair[1], &mut declared);
            }
            let declarations = narrow("the size of declarations", declared.len())?;
            let mut stream = BitVec::<true>::default();
            let mut sizes = Vec::new();
            let mut lists = 0_u16;
            for function in group {
                if !self.lists[function].is_empty() {
                    lists |= 1 << (function - first);
                    self.list(function, &mut writer)?;
                    let list = core::mem::take(&mut writer.bits);
                    let size = u8::try_from(list.len()).unwrap_or(LONG);
                    sizes.push(size);
                    if size == LONG {
                        let long = list.len() + index(LONG_BITS);
                        if long >> LONG_BITS > 0 {
                            return Err(EncodeError::TooLarge {
                                what: "the size of a list of callers",
                                size: crate::wide(long),
                            });
                        }
                        stream.push(crate::wide(long), LONG_BITS);
                    }
                    stream.append(&list);
                }
            }
            data.extend(BitVec::<false>::default().join(&stream));
            data.extend(sizes);
            data.extend(declared);
            let end = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let bytes = |number: u32, what| match number.to_le_bytes() {
                [a, b, c, 0] => Ok([a, b, c]),
                _ => Err(EncodeError::TooLarge {
                    what,
                    size: number.into(),
                }),
            };
            let place = self.places[first];
            groups.push(Group {
                line: bytes(place.line, "the line of a function")?,
                file: narrow::<u16>("the number of files", index(place.file))?.into(),
                end: bytes(end, "the size of the lists of callers")?,
                declarations,
                lists: lists.into(),
            });
        }
        let begins: Vec<u8> = begins
            .iter()
            .flat_map(|begin| begin.to_le_bytes())
            .collect();
        let parts: [&[u8]; 7] = [
            header.as_bytes(),
            writer.map,
            defaults,
            &begins,
            &codes,
            groups.as_bytes(),
            &data,
        ];
        Ok(parts.concat())
    }

    /// The ops that most of the entries of a context have.
    fn defaults(&self) -> Vec<u8> {
        let mut counts = vec![[0_u64; 48]; OP_CONTEXTS];
        for part in self.regions.iter().flatten() {
            let mut state = State::new(self, part.expected);
            for step in &part.steps {
                let change = state.change(step);
                counts[change.context][index(change.op)] += 1;
                state.go(step);
            }
        }
        let default = |counts: &[u64; 48]| {
            let total: u64 = counts.iter().sum();
            let best = (0_u8..).zip(counts).max_by_key(|(_, count)| **count);
            let best = best.filter(|(_, count)| **count * 100 >= total * DEFAULT_PERCENT);
            best.filter(|_| total > 0).map_or(NO_DEFAULT, |(op, _)| op)
        };
        counts.iter().map(default).collect()
    }

    /// Writes the list of a function.
    fn list(&self, function: usize, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let list = &self.lists[function];
        match list[..] {
            [Choice::Escape] => {
                sink.number(Kind::Options, 0, 1);
                return Ok(());
            }
            [Choice::Edge { .. }] => {
                sink.number(Kind::Options, 0, 2);
                self.edges(function, sink)?;
                return Ok(());
            }
            _ => {}
        }
        let entries: u32 = narrow("a list of callers", list.len())?;
        sink.number(Kind::Options, 0, entries + 1);
        for (choice, contexts) in [(Choice::Stop, 0), (Choice::Escape, 8)] {
            let position = list.iter().position(|other| *other == choice);
            let position = match position {
                Some(position) => narrow::<u32>("a list of callers", position)? + 1,
                None => 0,
            };
            sink.number(Kind::Position, contexts + list.len().min(7), position);
        }
        self.edges(function, sink)
    }

    fn edges(&self, function: usize, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let own: u32 = narrow("the number of functions", function)?;
        let in_header = own < self.in_headers;
        let mut last: Option<(u32, u32)> = None;
        for choice in &self.lists[function] {
            let Choice::Edge { caller, line } = *choice else {
                continue;
            };
            let context = usize::from(last.is_some()) + if in_header { 2 } else { 0 };
            if let Some((same, before)) = last.filter(|(same, _)| *same == caller) {
                sink.number(Kind::Caller, context, SPECIAL_126);
                sink.number(
                    Kind::CallLine,
                    1,
                    fold(line.wrapping_sub(before).cast_signed()),
                );
                last = Some((same, line));
                continue;
            }
            let distance = caller.wrapping_sub(own).cast_signed();
            // What an index costs, or nearly.
            if fold(distance) < 1 << 9 {
                sink.number(Kind::Caller, context, fold(distance));
            } else if caller < self.in_headers {
                sink.number(Kind::Caller, context, SPECIAL_127);
                sink.raw(caller, width(self.in_headers));
            } else {
                sink.number(Kind::Caller, context, SPECIAL_125);
                sink.raw(caller, width(self.functions()));
            }
            let declared = self.places[index(caller)].line;
            let lines = line.checked_sub(declared);
            let lines = lines.ok_or(EncodeError::Invariant("a call before its function"))?;
            sink.number(Kind::CallLine, 0, lines);
            last = Some((caller, line));
        }
        Ok(())
    }

    fn functions(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// Writes the ops of a chunk.
    fn part(&self, part: &Part, defaults: &[u8], sink: &mut impl Sink) -> Result<(), EncodeError> {
        let mut state = State::new(self, part.expected);
        let mut changes = Vec::with_capacity(part.steps.len());
        for step in &part.steps {
            let change = state.change(step);
            changes.push((change, state.expected, state.was_empty));
            state.go(step);
        }
        let default = |change: &Change| {
            let default = defaults.get(change.context).copied();
            default
                .filter(|default| *default != NO_DEFAULT)
                .map(u32::from)
        };
        // How many default ops follow before one that is an exception.
        let run = |rest: &[(Change, Place, bool)]| {
            let mut quiet = rest.iter().map(|(change, ..)| (default(change), change.op));
            let mut run = 0_u32;
            loop {
                match quiet.next() {
                    None => return SPECIAL_126,
                    Some((Some(default), op)) if op != default => return run,
                    Some((Some(_), _)) => run += 1,
                    Some((None, _)) => {}
                }
            }
        };
        if !defaults.is_empty() {
            sink.number(Kind::Run, 0, run(&changes));
        }
        for (position, (change, expected, was_empty)) in changes.iter().enumerate() {
            match default(change) {
                None => sink.number(Kind::Op, change.context, change.op),
                Some(default) if default == change.op => {}
                Some(_) => {
                    sink.number(Kind::Exception, change.position, change.op);
                    sink.number(Kind::Run, 0, run(&changes[position + 1..]));
                }
            }
            if change.pushes {
                let step = &part.steps[position];
                self.push(step, change, *expected, *was_empty, sink)?;
            }
        }
        Ok(())
    }

    fn push(
        &self,
        step: &Step,
        change: &Change,
        expected: Place,
        was_empty: bool,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        let chain = &self.chains[step.chain];
        let levels = &chain.levels;
        let innermost = levels[levels.len() - 1].0;
        if change.near != Some(innermost) {
            let distance = innermost.wrapping_sub(change.near.unwrap_or(0));
            sink.number(Kind::Edge, 2, fold(distance.cast_signed()));
        }
        for level in (change.kept + 1..levels.len()).rev() {
            let (function, line) = levels[level];
            let caller = levels[level - 1].0;
            if self.choose(function, Choice::Edge { caller, line }, sink)? {
                continue;
            }
            self.choose(function, Choice::Escape, sink)?;
            let place = Place {
                file: expected.file,
                line,
            };
            if self.before(place) == Some(caller) {
                let lines = expected.line.wrapping_sub(line).cast_signed();
                sink.number(Kind::Edge, 0, fold(lines));
            } else {
                sink.number(Kind::Edge, 0, SPECIAL_126);
                sink.raw(caller, width(self.functions()));
                sink.raw(line, 24);
            }
        }
        let (function, line) = levels[change.kept];
        self.choose(function, Choice::Stop, sink)?;
        match change.kept.checked_sub(1) {
            Some(around) => {
                let around = levels[around].0;
                let edges = self.lists[index(function)]
                    .iter()
                    .filter_map(|choice| match choice {
                        Choice::Edge { caller, line } => Some((*caller, *line)),
                        Choice::Stop | Choice::Escape => None,
                    });
                let calls = edges
                    .take(index(SITE_EDGES))
                    .filter(|(caller, _)| *caller == around);
                let calls: Vec<u32> = calls.map(|(_, line)| line).take(SITES).collect();
                let which = calls.iter().position(|call| *call == line);
                if !calls.is_empty() {
                    let which = match which {
                        Some(which) => narrow("a list of callers", which)?,
                        None => SPECIAL_126,
                    };
                    sink.number(Kind::Site, calls.len(), which);
                }
                if which.is_none() {
                    let declared = self.places[index(around)].line;
                    let lines = line.wrapping_sub(declared).cast_signed();
                    sink.number(Kind::CallLine, 2, fold(lines));
                }
            }
            None => {
                let context = step.kind * 2 + usize::from(was_empty);
                if chain.file == expected.file {
                    let lines = line.wrapping_sub(expected.line).cast_signed();
                    sink.number(Kind::Line, context, fold(lines));
                } else {
                    sink.number(Kind::Line, context, SPECIAL_126);
                    let files = chain.file.wrapping_sub(expected.file).cast_signed();
                    sink.number(Kind::Edge, 1, fold(files));
                    sink.number(Kind::CallLine, 3, line);
                }
            }
        }
        Ok(())
    }

    /// Writes which entry of a list is taken; `false` if it has no such entry.
    fn choose(
        &self,
        function: u32,
        choice: Choice,
        sink: &mut impl Sink,
    ) -> Result<bool, EncodeError> {
        let list = &self.lists[index(function)];
        let at = |choice: Choice| list.iter().position(|other| *other == choice);
        if list.is_empty() {
            return Ok(choice == Choice::Stop);
        }
        let Some(entry) = at(choice) else {
            return match choice {
                Choice::Edge { .. } => Ok(false),
                Choice::Stop | Choice::Escape => Err(EncodeError::Invariant(
                    "a list without an entry that is used",
                )),
            };
        };
        if list.len() > 1 {
            let position = |choice: Choice| at(choice).map_or(4, |position| position.min(3));
            let context =
                (10 * position(Choice::Stop) + list.len().min(9)) * 5 + position(Choice::Escape);
            sink.number(Kind::Option, context, narrow("a list of callers", entry)?);
        }
        Ok(true)
    }

    /// Reads everything that was written, and compares.
    fn read_back(
        &self,
        functions: &[u8],
        chains: &[u8],
        sources: &[Source<'_>],
    ) -> Result<(), EncodeError> {
        let functions = Functions::new(functions)
            .ok_or(EncodeError::Invariant("functions that cannot be read"))?;
        let sections = super::Sections {
            functions: &[],
            function_names: &[],
            chains,
            file_names: &[],
            files: 0,
            regions: narrow("the number of regions", sources.len())?,
        };
        for (region, source) in sources.iter().enumerate() {
            let table = sections.region(region);
            let table = table.ok_or(EncodeError::Invariant("a region without chains"))?;
            let mut levels = Levels::EMPTY;
            let mut check = ReadBack {
                cursor: Cursor::new(&functions, &mut levels),
                chains,
                table,
                job: self,
                parts: self.regions[region].iter(),
            };
            visit(&source.table, &mut check)
                .map_err(|_| EncodeError::Invariant("chains that are read as others"))?;
        }
        Ok(())
    }
}

/// Compares what is read with what should be there.
struct ReadBack<'a, I> {
    cursor: Cursor<'a, 'a>,
    chains: &'a [u8],
    table: Range<usize>,
    job: &'a Job,
    parts: I,
}

impl<'a, I: Iterator<Item = &'a Part>> Visitor for ReadBack<'a, I> {
    fn chunk(&mut self, chunk: &Chunk) -> Option<()> {
        let functions = self.cursor.functions;
        let ops = super::Ops::find(functions, self.chains, self.table.clone(), chunk)?;
        self.cursor.begin(self.chains, ops, chunk)?;
        let part = self.parts.next()?;
        if (part.block, part.number) != (chunk.block().number, chunk.number) {
            return None;
        }
        let mut steps = part.steps.iter();
        for entry in chunk.entries() {
            self.cursor.entry(&entry)?;
            if entry.line != 0 && !self.is_read(steps.next()?) {
                return None;
            }
        }
        Some(())
    }
}

impl<I> ReadBack<'_, I> {
    fn is_read(&self, step: &Step) -> bool {
        let expected = &self.job.chains[step.chain];
        let levels = &self.cursor.levels;
        expected.levels.len() == levels.depth()
            && expected
                .levels
                .iter()
                .enumerate()
                .all(|(level, (function, line))| {
                    let declared = |(around, _): &Level| self.job.places[index(*around)].line;
                    let around = level.checked_sub(1).map(|around| &expected.levels[around]);
                    let found = match levels.line(level) {
                        Some(Line::At(found)) => Some(found),
                        Some(Line::FromDeclaration(lines)) => {
                            around.map(|around| declared(around).wrapping_add(lines) & LINE_MAX)
                        }
                        None => None,
                    };
                    levels.function(level) == Some(*function) && found == Some(*line)
                })
            && (levels.depth == 0 || self.cursor.expected.file == expected.file)
    }
}

/// The levels of a chain, at most as many as there may be.
///
/// Where levels are left out, the next inner one has the line of the first of them, so that the
/// function around them is still where it was.
fn shorten(levels: &[InlineLevel]) -> Vec<InlineLevel> {
    if levels.len() <= LEVELS_MAX {
        return levels.to_vec();
    }
    let (outer, rest) = levels.split_at(OUTER_LEVELS);
    let inner = &rest[rest.len() - (LEVELS_MAX - OUTER_LEVELS)..];
    let mut short = [outer, inner].concat();
    short[OUTER_LEVELS].line = rest[0].line;
    short
}

/// The section of chains, of the ops of all chunks of all blocks of all regions.
fn chain_section(
    regions: &[Vec<Vec<Ops>>],
    writer: &mut Writer<'_>,
) -> Result<Vec<u8>, EncodeError> {
    let mut ends = Vec::new();
    let mut tables: Vec<u8> = Vec::new();
    for blocks in regions {
        let mut streams = Vec::new();
        for block in blocks {
            block_stream(block, writer)?;
            let mut stream = core::mem::take(&mut writer.bits);
            // Ops may take no bit, but a stream without a byte says that there are none.
            if block.iter().any(Option::is_some) && stream.len() == 0 {
                stream.push(0, 1);
            }
            streams.push(BitVec::<false>::default().join(&stream));
        }
        tables.extend(region_table(&streams)?);
        let end: u32 = narrow("the size of the chains", tables.len())?;
        ends.extend(end.to_le_bytes());
    }
    Ok([ends, tables].concat())
}

/// Writes the sizes of the ops of the chunks of a block, each before its ops.
fn block_stream(block: &[Ops], sink: &mut impl Sink) -> Result<(), EncodeError> {
    let Some(last) = block.iter().rposition(Option::is_some) else {
        return Ok(());
    };
    for (number, ops) in block.iter().take(last + 1).enumerate() {
        let size = match ops {
            _ if number == last => SPECIAL_126,
            None => 0,
            Some(ops) => narrow::<u32>("the size of a chunk", ops.len())? + 1,
        };
        sink.number(Kind::Size, number.min(SIZE_CONTEXTS - 1), size);
        if let Some(ops) = ops {
            sink.append(ops);
        }
    }
    Ok(())
}

/// The table of a region: where the stream of each block is, and the streams.
fn region_table(streams: &[Vec<u8>]) -> Result<Vec<u8>, EncodeError> {
    let largest = streams.iter().map(Vec::len).max().unwrap_or(0);
    if largest == 0 {
        return Ok(Vec::new());
    }
    let size_bits = usize::BITS - largest.leading_zeros();
    if size_bits > SIZE_BITS_MAX {
        return Err(EncodeError::TooLarge {
            what: "the size of the chains of a block",
            size: crate::wide(largest),
        });
    }
    let mut table = vec![narrow::<u8>("the bits of a size", index(size_bits))?];
    let mut position = 0;
    for streams in streams.chunks(index(ANCHOR)) {
        table.extend(narrow::<u32>("the size of the chains", position)?.to_le_bytes());
        position += streams.iter().map(Vec::len).sum::<usize>();
    }
    let mut sizes = BitVec::<false>::default();
    for stream in streams {
        sizes.push(crate::wide(stream.len()), size_bits);
    }
    table.extend(sizes.bytes());
    table.extend(streams.iter().flatten());
    Ok(table)
}

/// What changes from one entry to the next.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// The function that the location suggests.
    near: Option<u32>,
    /// Where that is in the chain: `pc` of the specification.
    position: usize,
    context: usize,
    op: u32,
    /// Levels that stay.
    kept: usize,
    pushes: bool,
}

/// What the decoder knows, between entries.
struct State<'a> {
    job: &'a Job,
    chain: &'a Chain,
    expected: Place,
    was_empty: bool,
}

impl<'a> State<'a> {
    fn new(job: &'a Job, expected: Place) -> Self {
        Self {
            job,
            chain: &job.chains[0],
            expected,
            was_empty: true,
        }
    }

    fn change(&self, step: &Step) -> Change {
        let (old, new) = (self.chain, &self.job.chains[step.chain]);
        let depth = old.levels.len();
        let near = self.job.before(step.place);
        let position = match near {
            None => 5,
            Some(_) if depth == 0 => 4,
            Some(near) => {
                let mut levels = old.levels.iter().rev();
                let found = levels.position(|(function, _)| *function == near);
                found.map_or(3, |position| position.min(2))
            }
        };
        let context =
            ((12 * position + step.kind) * 4 + depth.min(3)) * 2 + usize::from(!step.in_header);
        let pairs = old.levels.iter().zip(&new.levels);
        let mut kept = match old.file == new.file {
            true => pairs.take_while(|(old, new)| old == new).count(),
            false => 0,
        };
        if depth - kept >= 15 {
            kept = 0;
        }
        let pops = match depth - kept {
            pops if pops == depth && depth >= 3 => 15,
            pops => u32::try_from(pops).unwrap_or(15),
        };
        let pushes = new.levels.len() > kept;
        let push = match new.levels.last() {
            _ if !pushes => 0,
            Some((innermost, _)) if near == Some(*innermost) => 1,
            _ => 2,
        };
        Change {
            near,
            position,
            context,
            op: 3 * pops + push,
            kept,
            pushes,
        }
    }

    fn go(&mut self, step: &Step) {
        self.chain = &self.job.chains[step.chain];
        match self.chain.levels.first() {
            None => {
                self.expected = step.place;
                self.was_empty = true;
            }
            Some((_, line)) => {
                self.expected = Place {
                    file: self.chain.file,
                    line: *line,
                };
                self.was_empty = false;
            }
        }
    }
}

/// Counts symbols.
struct Counts {
    form: Form,
    counts: Vec<Vec<u32>>,
    largest: u32,
}

impl Counts {
    fn new(form: Form) -> Self {
        Self {
            form,
            counts: vec![vec![0; index(SYMBOLS)]; form.contexts()],
            largest: 0,
        }
    }

    /// Codes that fit what was counted, and which of them each context has.
    fn codes(&self) -> Result<(Vec<u8>, Vec<Code>), EncodeError> {
        if self.largest > NUMBER_MAX {
            return Err(EncodeError::TooLarge {
                what: "a number of a chain",
                size: self.largest.into(),
            });
        }
        let histograms = self.counts.iter().map(|counts| histogram(counts));
        let histograms: Vec<_> = histograms.collect();
        let (map, count) = cluster(&histograms, CODES_MAX, CODE_PRICE)?;
        let mut sums = vec![vec![0_u64; index(SYMBOLS)]; count];
        for (code, counts) in map.iter().zip(&self.counts) {
            for (sum, count) in sums[usize::from(*code)].iter_mut().zip(counts) {
                *sum += u64::from(*count);
            }
        }
        let codes = sums.iter().map(|sum| Code::fit(sum));
        Ok((map, codes.collect::<Result<_, _>>()?))
    }
}

impl Sink for Counts {
    fn number(&mut self, kind: Kind, context: usize, number: u32) {
        if number < SPECIAL_125 {
            self.largest = self.largest.max(number);
        }
        if self.largest <= NUMBER_MAX {
            let (symbol, _, _) = symbol(number);
            self.counts[kind.context(self.form, context)][usize::from(symbol)] += 1;
        }
    }

    fn raw(&mut self, _: u32, _: u32) {}

    fn append(&mut self, _: &BitVec<true>) {}
}

/// Writes a stream.
struct Writer<'a> {
    form: Form,
    map: &'a [u8],
    codes: &'a [Code],
    bits: BitVec<true>,
}

impl<'a> Writer<'a> {
    fn new(form: Form, map: &'a [u8], codes: &'a [Code]) -> Self {
        Writer {
            form,
            map,
            codes,
            bits: BitVec::default(),
        }
    }
}

impl Sink for Writer<'_> {
    fn number(&mut self, kind: Kind, context: usize, number: u32) {
        let (symbol, raw, raw_bits) = symbol(number);
        let code = self.map[kind.context(self.form, context)];
        let (code, length) = self.codes[usize::from(code)].of(symbol);
        self.raw(code.into(), length.into());
        self.raw(raw, raw_bits);
    }

    fn raw(&mut self, value: u32, bits: u32) {
        self.bits.push(value.into(), bits);
    }

    fn append(&mut self, bits: &BitVec<true>) {
        self.bits.append(bits);
    }
}
