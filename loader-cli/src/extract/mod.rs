//! From an ELF file with DWARF to the rows of a table.
//!
//! ```text
//!   ElfFile::open, with_debug ─> parse ─> Elf: identity, text sections
//!                        │
//!                        ├─ debug sections, relocated ─> lines::run ─> sequences of rows
//!                        │                                                  │
//!                        └────────── text sections ──────────> Extracted <──┘
//! ```
//!
//! The rules of the rows: of several at one address the last counts; a sequence's end begins a gap;
//! line 0 is a gap; what lies outside the text sections belongs to discarded code; neighbours that
//! say the same are one row, across functions and sequences.

pub(crate) mod budget;
pub mod elf;
mod inlines;
mod kept;
mod lines;
pub mod paths;
mod relocate;
mod separate;
mod symbols;
mod units;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use lineinfo_core::blob::Profile;
use lineinfo_core::calls;
use lineinfo_core::writer::{self, EncodeError, Inlines, Options};
use lineinfo_core::{Address, NAME_MAX, Row, is_printable};

use self::budget::Held;
use self::elf::{Elf, Identity, TextSection};
pub use self::lines::{BadPart, BadUnit, BadUnits};
use self::lines::{Lines, Program};
use self::paths::{Naming, SourceRoot, UnitPaths};
use crate::error::Error;
use crate::points::Instructions;
use crate::progress::Progress;

/// All that a table is made from.
#[derive(Debug)]
pub struct Extracted {
    /// What the table says of its image.
    pub identity: Identity,
    /// The root to which file names are relative.
    pub root: SourceRoot,
    /// Names of files, each once, in the order in which the rows name them.
    pub files: Vec<String>,
    /// How many of the files have rows that are exact at calls and traps; the others are names of the
    /// same files for rows that are exact nowhere (see [`calls::reduce`]).
    pub exact_files: u32,
    /// The text sections that have rows, by ascending address; in a module the first section of init
    /// text as well, where the area of init text begins.
    pub regions: Vec<Region>,
    /// What was met on the way.
    pub counts: Counts,
    /// Units that were left out.
    pub bad_units: BadUnits,
    /// Units whose inlined functions were left out.
    pub bad_inlines: BadUnits,
    /// What the rows are exact for.
    pub profile: Profile,
    /// The chains of inlined functions ([`Extracted::add_inlines`]).
    pub inlines: Option<Inlines>,
}

/// The rows of one text section.
#[derive(Debug)]
pub struct Region {
    /// The section.
    pub section: TextSection,
    /// Its rows, by strictly ascending start.
    pub rows: Vec<Row>,
    /// The chain of each row, an index in [`Inlines::chains`]; empty unless chains were asked for.
    pub chains: Vec<Option<u32>>,
    /// Where it was made from assembly, in bytes from its start, ascending.
    pub assembly: Vec<Range<u32>>,
    /// Parts of a section of init text whose rows the kernel keeps after boot, in bytes from its start,
    /// ascending: functions that never return and their callers.
    pub kept: Vec<Range<u32>>,
}

/// How much there was to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Line programs.
    pub programs: u64,
    /// Rows that they made.
    pub rows_read: u64,
    /// Sequences outside every text section: discarded code.
    pub sequences_discarded: u64,
}

/// Reads the rows of an image; the steps of its progress are bytes of `.debug_line`.
///
/// # Errors
///
/// [`Error::NoDebugInformation`], [`Error::SourceRoot`], or what is wrong with the file or its DWARF.
pub fn extract(
    elf: &Elf<'_>,
    naming: &Naming,
    progress: &dyn Progress,
) -> Result<Extracted, Error> {
    let Lines {
        programs,
        units,
        bad,
        ..
    } = lines::run(elf, naming, progress)?;
    if bad.count == bad.of {
        return Err(Error::BadUnits {
            path: elf.dwarf_path().to_owned(),
            bad,
        });
    }
    let root = root_of(naming, &units);
    let own_root = naming.root.as_ref().map(|_| SourceRoot::find(&units));
    drop(units);
    let identity = elf.identity.clone();
    let counts = Counts {
        programs: programs.len() as u64,
        rows_read: programs.iter().map(|program| program.rows_read).sum(),
        sequences_discarded: programs
            .iter()
            .map(|program| program.sequences_discarded)
            .sum(),
    };
    let mut sequences: Vec<Vec<SequenceOf<'_>>> = vec![Vec::new(); identity.text.len()];
    for (position, program) in programs.iter().enumerate() {
        for sequence in &program.sequences {
            sequences[sequence.section].push(SequenceOf {
                position,
                program,
                sequence,
            });
        }
    }

    let kept = kept::kept(elf)?;
    let mut files = FileTable::new(&root, programs.len());
    let mut regions: Vec<Region> = Vec::new();
    for (section, mut sequences) in identity.text.iter().zip(sequences) {
        sequences.sort_by_key(|of| of.sequence.start);
        let rows = rows_of(section, &sequences, &mut files);
        let begins_init = identity.relocatable
            && section.init
            && !regions.iter().any(|region| region.section.init);
        if begins_init || rows.iter().any(|row| !row.is_gap()) {
            regions.push(Region {
                section: section.clone(),
                rows,
                chains: Vec::new(),
                assembly: assembly_of(section, &sequences),
                kept: within(section, &kept),
            });
        }
    }
    if let (Some(found), false) = (own_root, files.is_root_used) {
        return Err(Error::SourceRoot {
            path: elf.dwarf_path().to_owned(),
            root: root.as_str().to_owned(),
            found: found.as_str().to_owned(),
        });
    }
    Ok(Extracted {
        exact_files: files.names.len() as u32,
        files: files.names,
        identity,
        root,
        regions,
        counts,
        bad_units: bad,
        bad_inlines: BadUnits::default(),
        profile: Profile::Full,
        inlines: None,
    })
}

/// The root of the sources of an image: that to which [`extract`] makes names relative.
///
/// # Errors
///
/// Those of [`extract`].
pub fn source_root(elf: &Elf<'_>, naming: &Naming) -> Result<SourceRoot, Error> {
    match &naming.root {
        Some(root) => Ok(root.clone()),
        None => {
            let _scope = elf.budget().scope();
            Ok(root_of(naming, &lines::unit_paths(elf, naming)?))
        }
    }
}

/// What a reference has of an image.
pub(crate) struct Measured {
    /// What the addr2line crate may take for all units, in bytes.
    pub(crate) crate_bytes: u64,
    /// The addresses of all sequences of rows, in any order.
    pub(crate) claimed: Vec<Range<u64>>,
}

/// Measures the line programs of an image.
pub(crate) fn measure(elf: &Elf<'_>) -> Result<Measured, Error> {
    let _scope = elf.budget().scope();
    let Lines {
        crate_bytes,
        claimed,
        ..
    } = lines::measure(elf)?;
    Ok(Measured {
        crate_bytes,
        claimed,
    })
}

/// The root that was given, or see [`SourceRoot::find`].
fn root_of(naming: &Naming, units: &[UnitPaths]) -> SourceRoot {
    let found = || SourceRoot::find(units);
    naming.root.clone().unwrap_or_else(found)
}

#[derive(Clone, Copy, Debug)]
struct SequenceOf<'a> {
    /// Which of the programs it is.
    position: usize,
    program: &'a Program,
    sequence: &'a lines::Sequence,
}

/// The files of a table, numbered as the rows come to them.
struct FileTable<'a> {
    root: &'a SourceRoot,
    names: Vec<String>,
    indices: HashMap<String, u32>,
    /// The indices of each program's files, once they are known.
    by_program: Vec<Vec<Option<u32>>>,
    /// Some file is below the root.
    is_root_used: bool,
}

impl<'a> FileTable<'a> {
    fn new(root: &'a SourceRoot, programs: usize) -> Self {
        Self::of(root, programs, Vec::new())
    }

    /// A table that has names already.
    fn of(root: &'a SourceRoot, programs: usize, names: Vec<String>) -> Self {
        Self {
            root,
            by_program: vec![Vec::new(); programs],
            indices: names.iter().cloned().zip(0..).collect(),
            names,
            is_root_used: false,
        }
    }

    /// The index of a file of a program.
    fn index_of(&mut self, of: &SequenceOf<'_>, file: u32) -> u32 {
        let known = &mut self.by_program[of.position];
        known.resize(of.program.files.len(), None);
        if let Some(index) = known[file as usize] {
            return index;
        }
        let index = self.index_of_path(&of.program.files[file as usize]);
        self.by_program[of.position][file as usize] = Some(index);
        index
    }

    /// The index of a path.
    fn index_of_path(&mut self, path: &str) -> u32 {
        self.is_root_used |= self.root.strip(path).is_some();
        let name = printable(self.root.relative(path));
        *self.indices.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            self.names.len() as u32 - 1
        })
    }
}

/// A name that a kernel log can take: without characters that move or hide others, and with only its
/// end if it is very long.
pub(crate) fn printable(path: &str) -> String {
    const OMITTED: &str = "...";
    let name = match path {
        "" => "<unnamed>".to_owned(),
        _ => path.replace(|c| !is_printable(c), "\u{fffd}"),
    };
    if name.len() <= NAME_MAX {
        return name;
    }
    let mut start = name.len() - (NAME_MAX - OMITTED.len());
    while !name.is_char_boundary(start) {
        start += 1;
    }
    format!("{OMITTED}{}", &name[start..])
}

/// The parts of a section that units of assembly have, in bytes from its start.
fn assembly_of(section: &TextSection, sequences: &[SequenceOf<'_>]) -> Vec<Range<u32>> {
    let mut assembly: Vec<Range<u32>> = Vec::new();
    for of in sequences.iter().filter(|of| of.program.assembly) {
        let sequence = of.sequence;
        let start = (sequence.start - section.address) as u32;
        let start = start.max(assembly.last().map_or(0, |last| last.end));
        let end = (sequence.end.min(section.end()) - section.address) as u32;
        if start < end {
            assembly.push(start..end);
        }
    }
    assembly
}

/// The ranges that lie in a section, in bytes from its start.
fn within(section: &TextSection, ranges: &[Range<u64>]) -> Vec<Range<u32>> {
    let inside = ranges
        .iter()
        .filter(|range| section.address <= range.start && range.end <= section.end());
    let offset = |address: u64| (address - section.address) as u32;
    inside
        .map(|range| offset(range.start)..offset(range.end))
        .collect()
}

/// The rows of a section; where two sequences have rows for a byte, the one that starts first counts.
fn rows_of(
    section: &TextSection,
    sequences: &[SequenceOf<'_>],
    files: &mut FileTable<'_>,
) -> Vec<Row> {
    let mut rows = Rows::default();
    let mut covered = section.address;
    for of in sequences {
        let sequence = of.sequence;
        let end = sequence.end.min(section.end());
        if end <= covered {
            continue;
        }
        let offset = |address: u64| (address - section.address) as u32;
        rows.gap(offset(covered));
        for (position, row) in sequence.rows.iter().enumerate() {
            let next = sequence.rows.get(position + 1);
            // Rows of damaged tables may lie beyond the end of the address space.
            let address = |row: &lines::LineRow| sequence.start.saturating_add(row.start.into());
            let ends = next.map_or(end, address);
            let start = address(row).max(covered);
            // Wholly inside an earlier sequence, or after the end of the section.
            if ends <= start || start >= end {
                continue;
            }
            if row.line == 0 {
                rows.gap(offset(start));
                continue;
            }
            rows.push(Row {
                start: offset(start),
                file: files.index_of(of, row.file),
                line: row.line,
            });
        }
        covered = end;
    }
    if covered < section.end() {
        rows.gap((covered - section.address) as u32);
    }
    rows.0
}

/// Rows in which neighbours differ.
#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn gap(&mut self, start: u32) {
        self.push(Row {
            start,
            file: 0,
            line: 0,
        });
    }

    fn push(&mut self, row: Row) {
        // A row of no length gives way to what comes at its address.
        self.0.pop_if(|last| last.start == row.start);
        let same = match self.0.last() {
            Some(last) => (last.file, last.line) == (row.file, row.line),
            // Before the first row there is a gap anyway.
            None => row.is_gap(),
        };
        if !same {
            self.0.push(row);
        }
    }
}

impl Extracted {
    /// Keeps what stack traces look up, calls and traps, and makes this a table of the profile
    /// `calls`.
    ///
    /// # Errors
    ///
    /// [`Error::NoDecoder`] for a machine whose instructions cannot be decoded, or what is wrong with
    /// the file.
    pub fn reduce_to_calls(&mut self, elf: &Elf<'_>) -> Result<(), Error> {
        let machine = self.identity.machine;
        let instructions = Instructions::of(machine, elf.address_size());
        let instructions = instructions.ok_or_else(|| Error::NoDecoder {
            path: elf.path().to_owned(),
            machine,
        })?;
        let files = self.files.len() as u32;
        for region in &mut self.regions {
            // To the reduction a file and a chain are one thing.
            let mut pairs = Pairs::default();
            let rows = pairs.number(&region.rows, &region.chains);
            let code = elf.code(&region.section)?;
            let _held = hold_points(elf, code)?;
            let points = instructions.points(code);
            let bytes = points.into_iter().filter_map(Address::<u64>::byte);
            let points: Vec<u32> = bytes.map(|byte| byte as u32).collect();
            let code = calls::Code {
                len: region.section.len,
                points: &points,
                assembly: &region.assembly,
            };
            let rows = calls::reduce(&rows, &code, pairs.pairs.len() as u32);
            (region.rows, region.chains) = pairs.resolve(rows, files, !region.chains.is_empty());
        }
        self.files.extend_from_within(..);
        self.keep_named_files();
        self.profile = Profile::Calls;
        Ok(())
    }

    /// Drops files that no row names any more.
    fn keep_named_files(&mut self) {
        let mut named = vec![false; self.files.len()];
        let rows = self.regions.iter().flat_map(|region| &region.rows);
        for row in rows.filter(|row| !row.is_gap()) {
            named[row.file as usize] = true;
        }
        self.keep_used_inlines();
        if let Some(inlines) = &self.inlines {
            let chains = inlines.chains.iter().map(|chain| chain.file);
            let functions = inlines.functions.iter().map(|function| function.file);
            chains
                .chain(functions)
                .for_each(|file| named[file as usize] = true);
        }
        let exact = self.exact_files as usize;
        self.exact_files = named.iter().take(exact).filter(|named| **named).count() as u32;
        let mut kept = 0;
        let new_indices: Vec<u32> = named
            .iter()
            .map(|named| {
                let index = kept;
                kept += u32::from(*named);
                index
            })
            .collect();
        let rows = self.regions.iter_mut().flat_map(|region| &mut region.rows);
        for row in rows.filter(|row| !row.is_gap()) {
            row.file = new_indices[row.file as usize];
        }
        if let Some(inlines) = &mut self.inlines {
            let chains = inlines.chains.iter_mut().map(|chain| &mut chain.file);
            let functions = inlines
                .functions
                .iter_mut()
                .map(|function| &mut function.file);
            chains
                .chain(functions)
                .for_each(|file| *file = new_indices[*file as usize]);
        }
        let mut named = named.into_iter();
        self.files.retain(|_| named.next().unwrap_or(false));
    }

    /// Drops chains that no row has any more, and functions that are in none of them.
    fn keep_used_inlines(&mut self) {
        let Some(inlines) = &mut self.inlines else {
            return;
        };
        let chains = || {
            self.regions
                .iter()
                .flat_map(|region| &region.chains)
                .flatten()
        };
        let mut kept = vec![false; inlines.chains.len()];
        chains().for_each(|chain| kept[*chain as usize] = true);
        let new_indices = retain(&mut inlines.chains, &kept);
        let chains = self
            .regions
            .iter_mut()
            .flat_map(|region| &mut region.chains);
        chains
            .flatten()
            .for_each(|chain| *chain = new_indices[*chain as usize]);

        let levels = inlines.chains.iter().flat_map(|chain| &chain.levels);
        let mut kept = vec![false; inlines.functions.len()];
        levels.for_each(|level| kept[level.function as usize] = true);
        let new_indices = retain(&mut inlines.functions, &kept);
        let levels = inlines
            .chains
            .iter_mut()
            .flat_map(|chain| &mut chain.levels);
        levels.for_each(|level| level.function = new_indices[level.function as usize]);
    }

    /// Writes the blob.
    ///
    /// # Errors
    ///
    /// See [`writer::encode`].
    pub fn encode(&self, options: impl Into<Options>) -> Result<Vec<u8>, EncodeError> {
        let names: Vec<&str> = self.files.iter().map(String::as_str).collect();
        let parts: Vec<_> = self.regions.iter().flat_map(Region::parts).collect();
        let regions: Vec<_> = parts
            .iter()
            .map(|part| writer::Region {
                name: &part.section.name,
                start: part.section.address - self.identity.text_start
                    + u64::from(part.range.start),
                len: part.range.end - part.range.start,
                init: part.init,
                rows: &part.rows,
            })
            .collect();
        let image = writer::Image {
            machine: self.identity.machine,
            build_id: &self.identity.build_id,
            text_start: if self.identity.relocatable {
                0
            } else {
                self.identity.text_start
            },
            profile: self.profile,
            files: &names,
            exact_files: self.exact_files as usize,
            regions: &regions,
        };
        let Some(inlines) = &self.inlines else {
            return writer::encode(&image, options);
        };
        let chains: Vec<&[Option<u32>]> = parts.iter().map(|part| &*part.chains).collect();
        writer::encode_with_inlines(&image, inlines, &chains, options)
    }
}

/// Keeps some items; gives the new index of each.
fn retain<T>(items: &mut Vec<T>, kept: &[bool]) -> Vec<u32> {
    let mut next = 0;
    let new_indices = kept.iter().map(|kept| {
        let index = next;
        next += u32::from(*kept);
        index
    });
    let new_indices = new_indices.collect();
    let mut kept = kept.iter();
    items.retain(|_| kept.next() == Some(&true));
    new_indices
}

/// Numbers for the pairs of a file and a chain.
#[derive(Default)]
struct Pairs {
    pairs: Vec<(u32, Option<u32>)>,
    numbers: HashMap<(u32, Option<u32>), u32>,
}

impl Pairs {
    /// The rows with a number in place of each file; without chains a row has none.
    fn number(&mut self, rows: &[Row], chains: &[Option<u32>]) -> Vec<Row> {
        let chains = chains.iter().copied().chain(std::iter::repeat(None));
        let number = |(row, chain): (&Row, Option<u32>)| {
            let pair = (row.file, chain);
            let file = *self.numbers.entry(pair).or_insert_with(|| {
                self.pairs.push(pair);
                self.pairs.len() as u32 - 1
            });
            Row { file, ..*row }
        };
        rows.iter().zip(chains).map(number).collect()
    }

    /// The rows with files and chains again. What is exact nowhere has no chain.
    fn resolve(
        &self,
        mut rows: Vec<Row>,
        files: u32,
        has_chains: bool,
    ) -> (Vec<Row>, Vec<Option<u32>>) {
        let mut chains = Vec::new();
        let count = self.pairs.len() as u32;
        for row in &mut rows {
            if row.is_gap() {
                chains.extend(has_chains.then_some(None));
                continue;
            }
            let approximate = row.file >= count;
            let (file, chain) = self.pairs[(row.file % count) as usize];
            row.file = if approximate { file + files } else { file };
            if has_chains {
                chains.push(chain.filter(|_| !approximate));
            }
        }
        (rows, chains)
    }
}

/// Holds memory for the points of a section ([`Instructions::points`]).
pub(crate) fn hold_points<'a>(elf: &Elf<'a>, code: &[u8]) -> Result<Held<'a>, Error> {
    /// An instruction of two bytes may be a point of 16, in a list that grows to twice its length.
    const PER_BYTE: u64 = 16;
    elf.budget()
        .hold("calls and traps", code.len() as u64 * PER_BYTE)
        .map_err(|source| elf.over_budget(source))
}

/// A part of a text section that is a region of the table.
struct Part<'a> {
    section: &'a TextSection,
    /// In bytes from the start of the section.
    range: Range<u32>,
    /// It is freed after boot.
    init: bool,
    rows: Cow<'a, [Row]>,
    /// As those of the section.
    chains: Cow<'a, [Option<u32>]>,
}

impl Region {
    /// The section as a whole, or, where some of it is kept after boot, what is freed and what is kept
    /// by turns.
    fn parts(&self) -> Vec<Part<'_>> {
        let section = &self.section;
        if self.kept.is_empty() {
            return vec![Part {
                section,
                range: 0..section.len,
                init: section.init,
                rows: Cow::Borrowed(&self.rows),
                chains: Cow::Borrowed(&self.chains),
            }];
        }
        let mut parts = Vec::new();
        let mut push = |range: Range<u32>, init| {
            if !range.is_empty() {
                let (rows, chains) = self.within(&range);
                parts.push(Part {
                    section,
                    rows: Cow::Owned(rows),
                    chains: Cow::Borrowed(chains),
                    range,
                    init,
                });
            }
        };
        let mut end = 0;
        for kept in &self.kept {
            push(end..kept.start, true);
            push(kept.clone(), false);
            end = kept.end;
        }
        push(end..section.len, true);
        parts
    }

    /// The rows of a part, from its start, and their chains.
    fn within(&self, range: &Range<u32>) -> (Vec<Row>, &[Option<u32>]) {
        let after = |end: u32| self.rows.partition_point(|row| row.start < end);
        // The row that the part begins in.
        let first = self.rows.partition_point(|row| row.start <= range.start);
        let inside = first.saturating_sub(1)..after(range.end);
        let chains = self.chains.get(inside.clone()).unwrap_or(&[]);
        let rows = &self.rows[inside];
        let moved = rows.iter().map(|row| Row {
            start: row.start.saturating_sub(range.start),
            ..*row
        });
        (moved.collect(), chains)
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn names_that_a_log_can_take() {
        assert_eq!(printable("fs/é\n\u{202e}x.c"), "fs/é\u{fffd}\u{fffd}x.c");
        assert_eq!(printable(""), "<unnamed>");
        let long = format!("{}/x.c", "ä".repeat(300));
        let short = printable(&long);
        assert!(short.len() <= 512 && short.starts_with("...ä") && short.ends_with("/x.c"));
        assert_eq!(printable(&long[..512]), &long[..512]);
    }
}
