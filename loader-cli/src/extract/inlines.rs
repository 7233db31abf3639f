//! Inlined functions: in which chain of them each byte of text is.
//!
//! ```text
//!   each unit, in parallel                                    one after the other
//!   DIEs depth first ─> ranges painted ─> spans with chains ─> functions and chains of the image
//!                                                                  │
//!                              rows of the lines, split where only the chain changes
//! ```
//!
//! A `DW_TAG_subprogram` that has code is a root, and each `DW_TAG_inlined_subroutine` below it is a
//! level of a chain; what is between them, like lexical blocks, is passed through. A range of an inlined
//! function is painted over what was there before, so the innermost function that has the byte counts.
//!
//! A function is a name and a file. The file is the one in which the next inner function is called, or,
//! for the innermost, the one in which it is declared: these differ where a function is made by
//! `#include` of a part of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use gimli::{
    AttributeValue, DebugInfoOffset, DebuggingInformationEntry, DwarfSections, EndianSlice,
    SectionId, UnitHeader, UnitOffset,
};
use lineinfo_core::Row;
use lineinfo_core::writer::{InlineChain, InlineLevel, InlinedFunction, Inlines};
use rayon::prelude::*;

use super::elf::Elf;
use super::lines::{BadPart, BadUnit, BadUnits, Dwarf, Failure, FileNames, Slice, resolve};
use super::paths::Naming;
use super::{Extracted, FileTable, printable};
use crate::error::{BudgetError, Error};
use crate::progress::Progress;
use crate::raw;

type Unit<'a> = gimli::Unit<Slice<'a>>;
type Die<'a> = DebuggingInformationEntry<Slice<'a>>;

/// References from an inlined function to the one that has its name.
const ORIGINS_MAX: usize = 8;

/// Levels that are told from each other; what is nested deeper counts as its parent. Compilers make 18.
const DEPTH_MAX: usize = 64;

/// What a range, an inlined function with its chain, and a unit may take. Damaged units can name one list
/// of ranges again and again.
const RANGE_BYTES: u64 = 256;
const INLINED_BYTES: u64 = 512;
const UNIT_BYTES: u64 = 1024;

/// Ranges that are charged to the budget at a time.
const RANGES_CHARGED: u64 = 64;

/// What one unit has.
#[derive(Debug, Default)]
struct UnitInlines {
    paths: Vec<String>,
    functions: Vec<Function>,
    chains: Vec<Chain>,
    /// By root, and in each ascending and without overlap.
    spans: Vec<Span>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Function {
    name: String,
    /// Index in [`UnitInlines::paths`].
    path: u32,
    /// The line of its declaration.
    line: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Chain {
    /// The file in which the outermost function is called.
    path: u32,
    /// Function and line of its call, outermost first.
    levels: Vec<(u32, u32)>,
}

/// Addresses that have one chain.
#[derive(Clone, Debug)]
struct Span {
    range: Range<u64>,
    /// Index in [`UnitInlines::chains`].
    chain: u32,
}

/// What all units are read with.
struct Reading<'a> {
    dwarf: &'a Dwarf<'a>,
    /// All units, in the order of their offsets.
    headers: &'a [UnitHeader<Slice<'a>>],
    names: FileNames<'a, 'a>,
}

/// Reads one unit.
struct Walk<'r, 'a> {
    reading: &'r Reading<'a>,
    unit: &'r Unit<'a>,
    /// Other units to which this one refers, by the offset of their header.
    others: HashMap<usize, Unit<'a>>,
    /// Name and declaration, by the offset of the DIE that was asked for.
    origins: HashMap<DebugInfoOffset, Option<Origin>>,
    path_indices: HashMap<(usize, u64), u32>,
    inlined: Vec<Inlined>,
    /// Ranges that were read.
    ranges_read: u64,
    function_indices: HashMap<Function, u32>,
    chain_indices: HashMap<Chain, u32>,
    out: UnitInlines,
}

#[derive(Clone, Debug)]
struct Origin {
    name: String,
    /// Index of the path of its declaration.
    path: Option<u32>,
    line: u32,
}

/// A DIE of an inlined function.
#[derive(Clone, Debug)]
struct Inlined {
    /// Index of the one around it.
    parent: Option<u32>,
    depth: usize,
    origin: Origin,
    call_path: u32,
    call_line: u32,
}

/// Where a DIE is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// In no function that has code.
    Outside,
    /// In a function, and in no inlined one.
    Root,
    /// In the inlined function of this index.
    Inlined(u32),
}

impl Extracted {
    /// Reads the chains of inlined functions, and splits rows where only the chain changes.
    ///
    /// To be called before [`Extracted::reduce_to_calls`]. The steps of its progress are bytes of
    /// `.debug_info`.
    ///
    /// # Errors
    ///
    /// What is wrong with the DWARF.
    pub fn add_inlines(
        &mut self,
        elf: &Elf<'_>,
        naming: &Naming,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let AllInlines { units, bad } = run(elf, naming, progress)?;
        self.bad_inlines = bad;
        let root = self.root.clone();
        let mut files = FileTable::of(&root, 0, std::mem::take(&mut self.files));
        let mut functions = Interner::default();
        let mut chains = Interner::default();
        let mut lines: Vec<u32> = Vec::new();
        let mut spans: Vec<Span> = Vec::new();
        for unit in units {
            let indices: Vec<u32> = unit
                .paths
                .iter()
                .map(|path| files.index_of_path(path))
                .collect();
            let numbers = unit.functions.into_iter().map(|function| {
                let number = functions.index_of((function.name, indices[function.path as usize]));
                match lines.get_mut(number as usize) {
                    Some(line) => *line = function.line.min(*line),
                    None => lines.push(function.line),
                }
                number
            });
            let numbers: Vec<u32> = numbers.collect();
            let unit_chains = unit.chains.into_iter().map(|chain| {
                let levels = chain.levels.into_iter();
                chains.index_of(InlineChain {
                    file: indices[chain.path as usize],
                    levels: levels
                        .map(|(function, line)| InlineLevel {
                            function: numbers[function as usize],
                            line,
                        })
                        .collect(),
                })
            });
            let unit_chains: Vec<u32> = unit_chains.collect();
            spans.extend(unit.spans.into_iter().map(|span| Span {
                chain: unit_chains[span.chain as usize],
                ..span
            }));
        }
        spans.sort_by_key(|span| (span.range.start, span.range.end));
        self.exact_files = files.names.len() as u32;
        self.files = files.names;
        for region in &mut self.regions {
            let section = &region.section;
            let first = spans.partition_point(|span| span.range.end <= section.address);
            let inside = spans[first..]
                .iter()
                .take_while(|span| span.range.start < section.end())
                .map(|span| {
                    let offset = |address: u64| {
                        address.clamp(section.address, section.end()) - section.address
                    };
                    let range = offset(span.range.start) as u32..offset(span.range.end) as u32;
                    (range, span.chain)
                });
            (region.rows, region.chains) = split(&region.rows, section.len, inside);
        }
        let functions = functions.items.into_iter().zip(lines);
        self.inlines = Some(Inlines {
            functions: functions
                .map(|((name, file), line)| InlinedFunction { name, file, line })
                .collect(),
            chains: chains.items,
        });
        Ok(())
    }
}

/// Numbers things by their first occurrence.
struct Interner<T> {
    items: Vec<T>,
    indices: HashMap<T, u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            indices: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Interner<T> {
    fn index_of(&mut self, item: T) -> u32 {
        *self.indices.entry(item).or_insert_with_key(|item| {
            self.items.push(item.clone());
            self.items.len() as u32 - 1
        })
    }
}

/// The rows, split where the chain changes, and the chain of each; a gap has none.
///
/// The last row ends with the section, after `len` bytes. The spans ascend by their starts; where two
/// overlap, the one that starts first counts.
fn split(
    rows: &[Row],
    len: u32,
    spans: impl Iterator<Item = (Range<u32>, u32)>,
) -> (Vec<Row>, Vec<Option<u32>>) {
    // Where the chain changes, and to what.
    let mut changes: Vec<(u32, Option<u32>)> = Vec::new();
    let mut covered = 0;
    for (range, chain) in spans {
        let start = range.start.max(covered);
        if start >= range.end {
            continue;
        }
        changes.pop_if(|(end, _)| *end == start);
        changes.push((start, Some(chain)));
        changes.push((range.end, None));
        covered = range.end;
    }
    let mut changes = changes.into_iter().peekable();
    let mut chain = None;
    let (mut out, mut chains) = (Vec::new(), Vec::new());
    for (position, row) in rows.iter().enumerate() {
        while let Some((_, next)) = changes.next_if(|(start, _)| *start <= row.start) {
            chain = next;
        }
        let mut push = |start, chain: Option<u32>| {
            let chain = chain.filter(|_| !row.is_gap());
            let repeats = start != row.start && chains.last() == Some(&chain);
            if !repeats {
                out.push(Row { start, ..*row });
                chains.push(chain);
            }
        };
        push(row.start, chain);
        let end = rows.get(position + 1).map_or(len, |next| next.start);
        while let Some((start, next)) = changes.next_if(|(start, _)| *start < end) {
            chain = next;
            push(start, chain);
        }
    }
    (out, chains)
}

/// What all units have.
struct AllInlines {
    units: Vec<UnitInlines>,
    bad: BadUnits,
}

/// Reads all units, on all processors. Units are independent of each other: one that is damaged has no
/// inlined functions.
fn run(elf: &Elf<'_>, naming: &Naming, progress: &dyn Progress) -> Result<AllInlines, Error> {
    let path = elf.dwarf_path();
    let failed = |source| Error::Dwarf {
        path: path.to_owned(),
        source,
    };
    let sections = DwarfSections::load(|id| match id {
        SectionId::DebugInfo
        | SectionId::DebugAbbrev
        | SectionId::DebugLine
        | SectionId::DebugLineStr
        | SectionId::DebugStr
        | SectionId::DebugStrOffsets
        | SectionId::DebugAddr
        | SectionId::DebugRanges
        | SectionId::DebugRngLists => elf.debug_section(id),
        _ => Ok(Cow::Borrowed(&[][..])),
    })?;
    let endian = elf.endian();
    let dwarf = sections.borrow(|section| EndianSlice::new(section, endian));
    let supplement = elf.supplement_strings()?;
    let mut headers = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().map_err(failed)? {
        headers.push(header);
    }
    let bytes: usize = headers
        .iter()
        .map(|header| header.length_including_self())
        .sum();
    progress.begin(bytes as u64);
    let reading = Reading {
        dwarf: &dwarf,
        headers: &headers,
        names: FileNames {
            dwarf: &dwarf,
            supplement: Slice::new(&supplement, endian),
            naming,
            budget: elf.budget(),
        },
    };
    let text: Vec<Range<u64>> = elf
        .identity
        .text
        .iter()
        .map(|section| section.address..section.end())
        .collect();
    let read: Vec<Result<UnitInlines, BadUnit>> = headers
        .par_iter()
        .map(|header| {
            let size = header.length_including_self();
            let read = reading.unit(*header, &text);
            progress.advance(size as u64);
            match read {
                Ok(unit) => Ok(Ok(unit)),
                Err(Failure::Budget(source)) => Err(source),
                Err(Failure::Bad(reason)) => Ok(Err(BadUnit {
                    part: BadPart::Inlines,
                    offset: header.offset().0 as u64,
                    name: None,
                    reason,
                })),
            }
        })
        .collect::<Result<_, BudgetError>>()
        .map_err(|source| elf.over_budget(source))?;
    let mut all = AllInlines {
        units: Vec::new(),
        bad: BadUnits {
            of: read.len() as u64,
            ..BadUnits::default()
        },
    };
    for unit in read {
        match unit {
            Ok(unit) => all.units.push(unit),
            Err(bad) => all.bad.add(bad),
        }
    }
    Ok(all)
}

impl<'a> Reading<'a> {
    /// The unit that holds an offset.
    fn unit_of(&self, at: DebugInfoOffset) -> Option<UnitHeader<Slice<'a>>> {
        let after = self
            .headers
            .partition_point(|header| header.offset().0 <= at.0);
        let header = self.headers.get(after.checked_sub(1)?)?;
        at.to_unit_offset(header).is_some().then_some(*header)
    }

    fn unit(
        &self,
        header: UnitHeader<Slice<'a>>,
        text: &[Range<u64>],
    ) -> Result<UnitInlines, Failure> {
        self.names.budget.charge("inlined functions", UNIT_BYTES)?;
        let unit = self.dwarf.unit(header)?;
        let mut walk = Walk {
            reading: self,
            unit: &unit,
            others: HashMap::new(),
            origins: HashMap::new(),
            path_indices: HashMap::new(),
            inlined: Vec::new(),
            ranges_read: 0,
            function_indices: HashMap::new(),
            chain_indices: HashMap::new(),
            out: UnitInlines::default(),
        };
        walk.run(text)?;
        Ok(walk.out)
    }
}

impl<'a> Walk<'_, 'a> {
    fn run(&mut self, text: &[Range<u64>]) -> Result<(), Failure> {
        let unit = self.unit;
        let mut scopes: Vec<(isize, Scope)> = Vec::new();
        let mut canvas = Canvas::default();
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            let depth = entry.depth();
            while scopes.pop_if(|(around, _)| *around >= depth).is_some() {}
            let scope = scopes.last().map_or(Scope::Outside, |(_, scope)| *scope);
            match entry.tag() {
                gimli::DW_TAG_subprogram => {
                    self.finish(&mut canvas);
                    let has_code = !self.ranges(entry, text)?.is_empty();
                    let scope = if has_code {
                        Scope::Root
                    } else {
                        Scope::Outside
                    };
                    scopes.push((depth, scope));
                }
                gimli::DW_TAG_inlined_subroutine if scope != Scope::Outside => {
                    let ranges = self.ranges(entry, text)?;
                    let inner = self.inlined(entry, scope)?;
                    if let Scope::Inlined(die) = inner {
                        ranges
                            .into_iter()
                            .for_each(|range| canvas.paint(range, die));
                    }
                    scopes.push((depth, inner));
                }
                _ => {}
            }
        }
        self.finish(&mut canvas);
        Ok(())
    }

    fn charge(&self, bytes: u64) -> Result<(), BudgetError> {
        self.reading.names.budget.charge("inlined functions", bytes)
    }

    /// The ranges of a DIE that have code.
    fn ranges(&mut self, entry: &Die<'a>, text: &[Range<u64>]) -> Result<Vec<Range<u64>>, Failure> {
        let mut found = Vec::new();
        let mut ranges = self.reading.dwarf.die_ranges(self.unit, entry)?;
        while let Some(range) = ranges.next()? {
            if self.ranges_read.is_multiple_of(RANGES_CHARGED) {
                self.charge(RANGES_CHARGED * RANGE_BYTES)?;
            }
            self.ranges_read += 1;
            let after = text.partition_point(|section| section.end <= range.begin);
            let inside = text.get(after).is_some_and(|section| {
                section.start <= range.begin && range.begin < range.end && range.end <= section.end
            });
            if inside {
                found.push(range.begin..range.end);
            }
        }
        Ok(found)
    }

    /// The scope inside of a DIE of an inlined function.
    fn inlined(&mut self, entry: &Die<'a>, scope: Scope) -> Result<Scope, Failure> {
        let parent = match scope {
            Scope::Inlined(parent) => Some(parent),
            Scope::Outside | Scope::Root => None,
        };
        let depth = parent.map_or(0, |parent| self.inlined[parent as usize].depth + 1);
        let unit = self.unit;
        let Some(origin) = self.origin(unit, entry)?.filter(|_| depth < DEPTH_MAX) else {
            return Ok(scope);
        };
        let call_path = self.path(unit, entry.attr_value(gimli::DW_AT_call_file))?;
        let call_path = match call_path {
            Some(path) => path,
            None => self.path_index_of("<invalid>".to_owned()),
        };
        let call_line = number(entry.attr_value(gimli::DW_AT_call_line));
        self.charge(INLINED_BYTES + origin.name.len() as u64)?;
        self.inlined.push(Inlined {
            parent,
            depth,
            call_path,
            call_line,
            origin,
        });
        Ok(Scope::Inlined(self.inlined.len() as u32 - 1))
    }

    /// Name and declaration of a function: its own or those of the DIE it refers to.
    fn origin(&mut self, unit: &Unit<'a>, entry: &Die<'a>) -> Result<Option<Origin>, Failure> {
        let Some(reference) = reference(unit, entry)? else {
            return self.named(unit, entry);
        };
        if let Some(origin) = self.origins.get(&reference) {
            return Ok(origin.clone());
        }
        let origin = self.follow(reference)?;
        self.origins.insert(reference, origin.clone());
        Ok(origin)
    }

    fn follow(&mut self, mut reference: DebugInfoOffset) -> Result<Option<Origin>, Failure> {
        let mut found: Option<Origin> = None;
        for _ in 0..ORIGINS_MAX {
            let dwarf = self.reading.dwarf;
            let own = reference.to_unit_offset(&self.unit.header);
            // The unit is taken out of the map while it is read, for it is read with `self`.
            let (other, at) = match own {
                Some(at) => (None, Some(at)),
                None => match self.reading.unit_of(reference) {
                    Some(header) => {
                        let key = header.offset().0;
                        let at = reference.to_unit_offset(&header);
                        let other = match self.others.remove(&key) {
                            Some(unit) => unit,
                            None => dwarf.unit(header)?,
                        };
                        (Some((key, other)), at)
                    }
                    None => return Ok(found),
                },
            };
            let Some(at) = at else { return Ok(found) };
            let unit = match &other {
                Some((_, unit)) => unit,
                None => self.unit,
            };
            let entry = unit.entry(at)?;
            let named = self.named(unit, &entry)?;
            let next = self::reference(unit, &entry)?;
            let partial = self.declared(unit, &entry)?;
            if let Some((key, unit)) = other {
                self.others.insert(key, unit);
            }
            found = match (found, named) {
                // The name may be at a declaration, and the place of the definition counts.
                (Some(place), Some(named)) => Some(Origin {
                    name: named.name,
                    ..place
                }),
                (None, named @ Some(_)) => named,
                (found, None) => found.or(partial),
            };
            match next {
                Some(next) if found.as_ref().is_none_or(|found| found.name.is_empty()) => {
                    reference = next;
                }
                _ => break,
            }
        }
        Ok(found.filter(|found| !found.name.is_empty()))
    }

    /// Name and declaration, if the DIE has a name.
    fn named(&mut self, unit: &Unit<'a>, entry: &Die<'a>) -> Result<Option<Origin>, Failure> {
        let Some(name) = entry.attr_value(gimli::DW_AT_name) else {
            return Ok(None);
        };
        let name = match name {
            AttributeValue::DebugStrRefSup(_) => {
                resolve(self.reading.dwarf, self.reading.names.supplement, name)?
            }
            _ => self.reading.dwarf.attr_string(unit, name)?,
        };
        Ok(Some(Origin {
            name: printable(&raw::to_text(name.slice())),
            path: self.path(unit, entry.attr_value(gimli::DW_AT_decl_file))?,
            line: number(entry.attr_value(gimli::DW_AT_decl_line)),
        }))
    }

    /// The declaration of a DIE without a name.
    fn declared(&mut self, unit: &Unit<'a>, entry: &Die<'a>) -> Result<Option<Origin>, Failure> {
        let path = self.path(unit, entry.attr_value(gimli::DW_AT_decl_file))?;
        Ok(path.map(|path| Origin {
            name: String::new(),
            path: Some(path),
            line: number(entry.attr_value(gimli::DW_AT_decl_line)),
        }))
    }

    /// The path of a file that a DIE of `unit` names.
    fn path(
        &mut self,
        unit: &Unit<'a>,
        value: Option<AttributeValue<Slice<'a>>>,
    ) -> Result<Option<u32>, Failure> {
        let file = match value {
            Some(AttributeValue::FileIndex(file)) => file,
            Some(value) => match value.udata_value() {
                Some(file) => file,
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        let key = (unit.header.offset().0, file);
        if let Some(path) = self.path_indices.get(&key) {
            return Ok(Some(*path));
        }
        let Some(program) = &unit.line_program else {
            return Ok(None);
        };
        let path = self.reading.names.file_name(program.header(), file)?;
        let path = self.path_index_of(path);
        self.path_indices.insert(key, path);
        Ok(Some(path))
    }

    fn path_index_of(&mut self, path: String) -> u32 {
        self.out.paths.push(path);
        self.out.paths.len() as u32 - 1
    }

    /// Takes what was painted of a root.
    fn finish(&mut self, canvas: &mut Canvas) {
        for (start, (end, die)) in std::mem::take(&mut canvas.0) {
            let chain = self.chain(die);
            let spans = &mut self.out.spans;
            match spans.last_mut() {
                Some(last) if last.range.end == start && last.chain == chain => {
                    last.range.end = end;
                }
                _ => spans.push(Span {
                    range: start..end,
                    chain,
                }),
            }
        }
        self.inlined.clear();
    }

    /// The chain of an inlined function.
    fn chain(&mut self, die: u32) -> u32 {
        let mut levels = Vec::new();
        let mut next = Some(die);
        // The file in which the next inner function is called.
        let mut inner = None;
        let mut outermost = 0;
        while let Some(die) = next {
            let inlined = &self.inlined[die as usize];
            let function = Function {
                name: inlined.origin.name.clone(),
                path: inner.or(inlined.origin.path).unwrap_or(inlined.call_path),
                line: inlined.origin.line,
            };
            inner = Some(inlined.call_path);
            outermost = inlined.call_path;
            next = inlined.parent;
            let line = inlined.call_line;
            let functions = &mut self.out.functions;
            let index = *self
                .function_indices
                .entry(function)
                .or_insert_with_key(|function| {
                    functions.push(function.clone());
                    functions.len() as u32 - 1
                });
            levels.push((index, line));
        }
        levels.reverse();
        let chain = Chain {
            path: outermost,
            levels,
        };
        let chains = &mut self.out.chains;
        *self.chain_indices.entry(chain).or_insert_with_key(|chain| {
            chains.push(chain.clone());
            chains.len() as u32 - 1
        })
    }
}

/// What was painted over what: by start, the end and the DIE.
#[derive(Debug, Default)]
struct Canvas(BTreeMap<u64, (u64, u32)>);

impl Canvas {
    fn paint(&mut self, range: Range<u64>, die: u32) {
        self.cut(range.start);
        self.cut(range.end);
        while let Some((&start, _)) = self.0.range(range.clone()).next() {
            self.0.remove(&start);
        }
        self.0.insert(range.start, (range.end, die));
    }

    /// Makes two of what is painted across an address.
    fn cut(&mut self, at: u64) {
        if let Some((_, (end, die))) = self.0.range_mut(..at).next_back()
            && *end > at
        {
            let rest = (*end, *die);
            *end = at;
            self.0.insert(at, rest);
        }
    }
}

/// The DIE to which one refers for its name.
fn reference(unit: &Unit<'_>, entry: &Die<'_>) -> Result<Option<DebugInfoOffset>, Failure> {
    let value = entry
        .attr_value(gimli::DW_AT_abstract_origin)
        .or_else(|| entry.attr_value(gimli::DW_AT_specification));
    match value {
        Some(AttributeValue::UnitRef(offset)) => Ok(Some(absolute(unit, offset))),
        Some(AttributeValue::DebugInfoRef(offset)) => Ok(Some(offset)),
        // Without this function the chain would be another one.
        Some(AttributeValue::DebugInfoRefSup(_)) => Err(Failure::Bad(
            "its inlined functions are in the supplementary file".to_owned(),
        )),
        _ => Ok(None),
    }
}

fn absolute(unit: &Unit<'_>, offset: UnitOffset) -> DebugInfoOffset {
    DebugInfoOffset(unit.header.offset().0.saturating_add(offset.0))
}

/// A line; 0 where there is none.
fn number(value: Option<AttributeValue<Slice<'_>>>) -> u32 {
    let value = value.and_then(|value| value.udata_value());
    value.and_then(|line| u32::try_from(line).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_function_that_has_a_byte_counts() {
        let mut canvas = Canvas::default();
        canvas.paint(10..50, 0);
        canvas.paint(20..30, 1);
        canvas.paint(25..27, 2);
        canvas.paint(45..60, 3);
        let painted: Vec<_> = canvas.0.into_iter().collect();
        let expected = [
            (10, (20, 0)),
            (20, (25, 1)),
            (25, (27, 2)),
            (27, (30, 1)),
            (30, (45, 0)),
            (45, (60, 3)),
        ];
        assert_eq!(painted, expected);
    }

    #[test]
    fn rows_are_split_where_only_the_chain_changes() {
        let row = |start, line| Row {
            start,
            file: 0,
            line,
        };
        let rows = [row(0, 1), row(10, 2), row(20, 0), row(30, 3)];
        let spans = [(4..12, 7), (12..14, 8), (22..40, 9), (38..50, 6)];
        // A chain that ends with the section has no row after it.
        let (whole, _) = split(&rows, 50, spans.clone().into_iter());
        assert_eq!(whole.last(), Some(&row(40, 3)));
        let (rows, chains) = split(&rows, 60, spans.into_iter());
        let expected = [
            (row(0, 1), None),
            (row(4, 1), Some(7)),
            (row(10, 2), Some(7)),
            (row(12, 2), Some(8)),
            (row(14, 2), None),
            (row(20, 0), None),
            (row(30, 3), Some(9)),
            (row(40, 3), Some(6)),
            (row(50, 3), None),
        ];
        assert_eq!(rows.into_iter().zip(chains).collect::<Vec<_>>(), expected);
    }
}
