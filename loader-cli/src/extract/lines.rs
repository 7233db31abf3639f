//! Line programs: the sequences of rows that DWARF has for an image.
//!
//! Units are independent of each other: one that is damaged is left out, and counted. Where a line
//! program's length cannot be believed, the next begins where a unit of `.debug_info` says.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use gimli::{
    AttributeValue, DebugLineOffset, EndianSlice, FileEntry, LineProgramHeader, Reader,
    RunTimeEndian, SectionId,
};
use rayon::prelude::*;

use super::budget::{Budget, Held};
use super::elf::{Elf, TextSection};
use super::paths::{Naming, UnitPaths, join};
use super::units::Units;
use crate::error::{BudgetError, Error};
use crate::progress::Progress;
use crate::raw;

pub(super) type Slice<'a> = EndianSlice<'a, RunTimeEndian>;
pub(super) type Dwarf<'a> = gimli::Dwarf<Slice<'a>>;

/// What all line programs of an image say.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) programs: Vec<Program>,
    /// Of the units that have code, for [`super::paths::SourceRoot::find`].
    pub(super) units: Vec<UnitPaths>,
    pub(super) bad: BadUnits,
    /// What the addr2line crate may keep of them, in bytes, where that was asked for.
    pub(super) crate_bytes: u64,
    /// The addresses of all sequences, inside text sections or not, where that was asked for.
    pub(super) claimed: Vec<Range<u64>>,
}

/// One line program, with its files named and its rows reduced.
#[derive(Debug)]
pub(super) struct Program {
    /// It was made from assembly.
    pub(super) assembly: bool,
    /// Joined and normalized names, referred to by [`LineRow::file`].
    pub(super) files: Vec<String>,
    /// Those inside text sections.
    pub(super) sequences: Vec<Sequence>,
    /// Rows that the program made.
    pub(super) rows_read: u64,
    /// Sequences outside every text section.
    pub(super) sequences_discarded: u64,
}

/// A run of contiguous code, by ascending address.
#[derive(Debug)]
pub(super) struct Sequence {
    /// Index of the text section in which it starts.
    pub(super) section: usize,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Addresses strictly ascend; of several rows at one address the last is here, and of several that
    /// say the same the first.
    pub(super) rows: Vec<LineRow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineRow {
    /// Bytes from the start of the sequence.
    pub(super) start: u32,
    /// Index in [`Program::files`].
    pub(super) file: u32,
    /// 0 where there is no line.
    pub(super) line: u32,
}

impl LineRow {
    fn says_the_same(&self, other: &Self) -> bool {
        self.line == other.line && (self.file == other.file || self.line == 0)
    }
}

/// Units that were left out because their line table is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadUnits {
    /// All units, good and bad.
    pub of: u64,
    /// How many are bad.
    pub count: u64,
    /// The first of them, by their offset.
    pub first: Vec<BadUnit>,
}

/// A damaged unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUnit {
    /// What is damaged.
    pub part: BadPart,
    /// Where that begins in its section.
    pub offset: u64,
    /// Its source file, if that much can be read.
    pub name: Option<String>,
    /// What is wrong.
    pub reason: String,
}

/// A part of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPart {
    /// Its line program in `.debug_line`.
    Lines,
    /// Its entries in `.debug_info`, from which the inlined functions are read.
    Inlines,
}

/// Bad units that are named.
const BAD_UNITS_NAMED: usize = 10;

impl fmt::Display for BadUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, section) = match self.part {
            BadPart::Lines => ("line table", ".debug_line"),
            BadPart::Inlines => ("unit", ".debug_info"),
        };
        write!(f, "{part} at {:#x} of {section}", self.offset)?;
        if let Some(name) = &self.name {
            write!(f, ", {}", super::printable(name))?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl BadUnits {
    pub(super) fn add(&mut self, bad: BadUnit) {
        self.count += 1;
        if self.first.len() < BAD_UNITS_NAMED {
            self.first.push(bad);
        }
    }
}

/// What each entry of a file table may take while its program is read.
const ENTRY_BYTES: u64 =
    (size_of::<FileEntry<Slice<'static>>>() + size_of::<AttributeValue<Slice<'static>>>()) as u64;

/// Headers larger than this are read one at a time: an entry may be a single byte.
const LARGE_HEADER: u64 = 64 << 10;

/// What a row that is kept may take until the table is written: as a row of its program, as one of its region, and
/// in the encoder.
const ROW_BYTES: u64 = 128;

/// What a unit and a sequence may take, besides their rows and names.
const UNIT_BYTES: u64 = 1024;
const SEQUENCE_BYTES: u64 = 128;

/// What a row and a byte of abbreviations may take in the addr2line crate.
const CRATE_ROW_BYTES: u64 = 48;
const ABBREVIATION_BYTES: u64 = 32;

/// A name is kept with its program or unit, and twice in the table.
const NAME_COPIES: u64 = 3;
/// What a name may take besides its bytes.
const NAME_BYTES: u64 = 128;

/// Rows that are charged to the budget at a time.
const ROWS_CHARGED: u64 = 4096;

/// Longest name, with its directories before they are joined: no compiler opened a file of a longer
/// one (twice `PATH_MAX`).
const NAME_MAX: usize = 8192;

/// Runs all line programs of an image, on all processors.
///
/// The steps of its progress are bytes of `.debug_line`.
pub(super) fn run(elf: &Elf<'_>, naming: &Naming, progress: &dyn Progress) -> Result<Lines, Error> {
    read(elf, naming, Work::Rows, progress)
}

/// The paths of the units that have code, for which no line program is run.
pub(super) fn unit_paths(elf: &Elf<'_>, naming: &Naming) -> Result<Vec<UnitPaths>, Error> {
    Ok(read(elf, naming, Work::Paths, &())?.units)
}

/// What there is for a reference: which addresses have sequences, and what the addr2line crate may keep.
pub(super) fn measure(elf: &Elf<'_>) -> Result<Lines, Error> {
    read(elf, &Naming::default(), Work::Measure, &())
}

/// What is wanted of the line programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// All that they say.
    Rows,
    /// The names in their headers.
    Paths,
    /// How many rows there are, and at which addresses.
    Measure,
}

fn read(
    elf: &Elf<'_>,
    naming: &Naming,
    work: Work,
    progress: &dyn Progress,
) -> Result<Lines, Error> {
    // The file itself is not shared with the threads.
    let (path, endian) = (elf.dwarf_path(), elf.endian());
    let line = elf.debug_section(SectionId::DebugLine)?;
    if line.is_empty() {
        return Err(Error::NoDebugInformation {
            path: path.to_owned(),
        });
    }
    progress.begin(line.len() as u64);
    let line_slice = Slice::new(&line, endian);
    let strings = [SectionId::DebugLineStr, SectionId::DebugStr].map(|id| elf.debug_section(id));
    let [line_str, str] = strings;
    let (line_str, str) = (line_str?, str?);
    let supplement = elf.supplement_strings()?;
    let read = |units: bool| -> Result<Lines, Error> {
        let section = |id| {
            if units {
                elf.debug_section(id)
            } else {
                Ok(Cow::Borrowed(&[][..]))
            }
        };
        let (info, abbrev) = (
            section(SectionId::DebugInfo)?,
            section(SectionId::DebugAbbrev)?,
        );
        let slice = |section| Slice::new(section, endian);
        let dwarf = Dwarf {
            debug_line: gimli::DebugLine::from(line_slice),
            debug_line_str: slice(&line_str).into(),
            debug_str: slice(&str).into(),
            debug_info: slice(&info).into(),
            ..Dwarf::default()
        };
        let units = Units::read(
            &dwarf,
            slice(&info),
            slice(&abbrev),
            slice(&supplement),
            work == Work::Measure,
            elf.budget(),
        );
        let units = units.map_err(|source| elf.over_budget(source))?;
        let reader = ProgramReader {
            frames: Frames::of(line_slice, &units.programs),
            units,
            dwarf,
            naming,
            budget: elf.budget(),
            text: &elf.identity.text,
            text_start: elf.identity.text_start,
            address_size: elf.address_size(),
            work,
            large: Mutex::new(()),
        };
        let lines = reader.read_all(progress);
        lines.map_err(|source| elf.over_budget(source))
    };
    // `.debug_info` is by far the largest section, and only programs before DWARF 5 need it, and
    // damaged ones.
    let frames = Frames::of(line_slice, &BTreeSet::new());
    if work != Work::Measure && frames.are_new_and_whole() {
        let scope = elf.budget().scope();
        let lines = read(false)?;
        if lines.bad.count == 0 {
            scope.keep();
            return Ok(lines);
        }
    }
    read(true)
}

/// Where the line programs are.
#[derive(Debug, Default)]
struct Frames {
    frames: Vec<Frame>,
    bad: Vec<BadUnit>,
}

/// One line program.
#[derive(Clone, Copy, Debug)]
struct Frame {
    offset: usize,
    size: usize,
    version: u16,
    /// What it says of the length of its header, at most its size.
    header_len: usize,
}

impl Frames {
    /// The programs follow each other; where one is damaged the next is looked for among the
    /// starts that are known otherwise.
    fn of(line: Slice<'_>, starts: &BTreeSet<usize>) -> Self {
        let mut found = Self::default();
        let mut offset = 0;
        while offset < line.len() {
            let next_start = starts.range(offset + 1..).next().copied();
            let frame = Frame::read(line, offset);
            let end = match &frame {
                Ok(frame) if frame.is_known_version() => offset + frame.size,
                Ok(frame) => next_start.unwrap_or(offset + frame.size),
                Err(_) => next_start.unwrap_or(line.len()),
            };
            let bad = match frame {
                Err(source) => Some(source.to_string()),
                Ok(_) if next_start.is_some_and(|start| start < end) => {
                    Some("it reaches into the next".to_owned())
                }
                Ok(frame) => {
                    found.frames.push(frame);
                    None
                }
            };
            found.bad.extend(bad.map(|reason| BadUnit {
                part: BadPart::Lines,
                offset: offset as u64,
                name: None,
                reason,
            }));
            offset = next_start.map_or(end, |start| start.min(end));
        }
        found
    }

    /// Whether all are of DWARF 5, which does not need `.debug_info`.
    fn are_new_and_whole(&self) -> bool {
        self.bad.is_empty() && self.frames.iter().all(|frame| frame.version == 5)
    }
}

impl Frame {
    fn read(line: Slice<'_>, offset: usize) -> gimli::Result<Self> {
        let mut rest = line;
        rest.skip(offset)?;
        let whole = rest.len();
        let (length, format) = rest.read_initial_length()?;
        let mut body = rest.split(length)?;
        let size = whole - rest.len();
        let version = body.read_u16()?;
        if version == 5 {
            // Sizes of an address and of a segment selector.
            body.skip(2)?;
        }
        let header_len = body.read_length(format)?;
        Ok(Self {
            offset,
            size,
            version,
            header_len: header_len.min(body.len()),
        })
    }

    fn is_known_version(&self) -> bool {
        (2..=5).contains(&self.version)
    }
}

/// Reads line programs, by all threads.
struct ProgramReader<'a> {
    dwarf: Dwarf<'a>,
    units: Units<'a>,
    frames: Frames,
    naming: &'a Naming,
    budget: &'a Budget,
    text: &'a [TextSection],
    text_start: u64,
    address_size: u8,
    work: Work,
    /// Held while a large header is read.
    large: Mutex<()>,
}

/// Why a program or a unit cannot be read.
pub(super) enum Failure {
    Bad(String),
    Budget(BudgetError),
}

impl From<gimli::Error> for Failure {
    fn from(source: gimli::Error) -> Self {
        Self::Bad(source.to_string())
    }
}

impl From<BudgetError> for Failure {
    fn from(source: BudgetError) -> Self {
        Self::Budget(source)
    }
}

/// What could be read of one unit.
#[derive(Debug, Default)]
struct Unit {
    name: Option<String>,
    /// Absent where it has no code.
    paths: Option<UnitPaths>,
    program: Option<Program>,
    /// Length of its header in bytes.
    header_len: u64,
    /// How many rows it has, and the addresses of its sequences, where nothing else is wanted of them.
    rows: u64,
    claimed: Vec<Range<u64>>,
    bad: Option<String>,
}

impl From<BadUnit> for Unit {
    fn from(bad: BadUnit) -> Self {
        Self {
            bad: Some(bad.reason),
            ..Self::default()
        }
    }
}

impl<'a> ProgramReader<'a> {
    const fn names(&self) -> FileNames<'_, 'a> {
        FileNames {
            dwarf: &self.dwarf,
            supplement: self.units.supplement,
            naming: self.naming,
            budget: self.budget,
        }
    }

    fn read_all(&self, progress: &dyn Progress) -> Result<Lines, BudgetError> {
        let frames = self.frames.frames.par_iter();
        let read: Vec<(u64, Unit)> = frames
            .map(|frame| {
                let unit = self.unit(frame)?;
                progress.advance(frame.size as u64);
                Ok((frame.offset as u64, unit))
            })
            .collect::<Result<_, _>>()?;
        let framed = self.frames.bad.iter().cloned();
        let mut units: Vec<(u64, Unit)> = framed.map(|bad| (bad.offset, bad.into())).collect();
        units.extend(read);
        units.sort_by_key(|(offset, _)| *offset);
        let starts = &self.units.programs;
        let mut lines = Lines {
            crate_bytes: self.units.abbreviations * ABBREVIATION_BYTES,
            ..Lines::default()
        };
        let mut last_is_bad = false;
        for (offset, unit) in units {
            // Each unit that has the program keeps all of it.
            let users = self
                .units
                .users
                .get(&(offset as usize))
                .copied()
                .unwrap_or(0);
            let bytes = UNIT_BYTES + unit.rows * CRATE_ROW_BYTES + unit.header_len * ENTRY_BYTES;
            lines.crate_bytes = lines
                .crate_bytes
                .saturating_add(users.saturating_mul(bytes));
            lines.claimed.extend(unit.claimed);
            lines.programs.extend(unit.program);
            lines.units.extend(unit.paths);
            let is_bad = unit.bad.is_some();
            // What no unit calls its line table, after a bad one, is a part of that.
            let is_part = is_bad && last_is_bad && !starts.is_empty();
            if !is_part || starts.contains(&(offset as usize)) {
                lines.bad.of += 1;
                if let Some(reason) = unit.bad {
                    lines.bad.add(BadUnit {
                        part: BadPart::Lines,
                        offset,
                        name: unit.name,
                        reason,
                    });
                }
            }
            last_is_bad = is_bad;
        }
        Ok(lines)
    }

    fn unit(&self, frame: &Frame) -> Result<Unit, BudgetError> {
        self.budget.charge("units", UNIT_BYTES)?;
        let mut unit = Unit {
            header_len: frame.header_len as u64,
            ..Unit::default()
        };
        match self.read(frame, &mut unit) {
            Ok(()) => {}
            Err(Failure::Bad(reason)) => unit.bad = Some(reason),
            Err(Failure::Budget(source)) => return Err(source),
        }
        Ok(unit)
    }

    fn read(&self, frame: &Frame, unit: &mut Unit) -> Result<(), Failure> {
        let of_unit = self.units.by_program.get(&frame.offset);
        if frame.version < 5 && of_unit.is_none() && self.units.lost {
            let reason = "no unit that can be read in .debug_info has this line table";
            return Err(Failure::Bad(reason.to_owned()));
        }
        let header_len = frame.header_len as u64;
        let _alone = (header_len > LARGE_HEADER).then(|| self.large.lock());
        let _held: Held<'_> = self
            .budget
            .hold("the file table of a unit", header_len * ENTRY_BYTES)?;
        let (comp_dir, name) = of_unit.copied().unzip();
        let offset = DebugLineOffset(frame.offset);
        let program = self
            .dwarf
            .debug_line
            .program(offset, self.address_size, comp_dir, name)?;
        if self.work == Work::Measure {
            let mut rows = program.rows();
            let mut start = None;
            while let Ok(Some((_, row))) = rows.next_row() {
                unit.rows += 1;
                let first = *start.get_or_insert(row.address());
                if row.end_sequence() {
                    self.budget.charge("sequences of rows", SEQUENCE_BYTES)?;
                    unit.claimed.push(first..row.address());
                    start = None;
                }
            }
            return Ok(());
        }
        let header = program.header();
        let has_code = !header.raw_program_buf().is_empty();
        let paths = self.names().unit_paths(header)?;
        unit.name = paths.as_ref().map(|paths| paths.primary.clone());
        unit.paths = paths.filter(|_| has_code);
        if self.work == Work::Rows {
            let assembly = unit.name.as_deref().is_some_and(is_assembly);
            let (program, whole) = self.run(program, assembly)?;
            unit.program = Some(program);
            unit.bad = (!whole).then(|| "its last sequence has no end".to_owned());
        }
        Ok(())
    }

    /// Runs a program; whether its last sequence has an end.
    fn run(
        &self,
        program: gimli::IncompleteLineProgram<Slice<'a>>,
        assembly: bool,
    ) -> Result<(Program, bool), Failure> {
        let mut read = Program {
            assembly,
            files: Vec::new(),
            sequences: Vec::new(),
            rows_read: 0,
            sequences_discarded: 0,
        };
        let mut file_indices = HashMap::new();
        let mut last_file = None;
        let mut sequence: Option<Sequence> = None;
        let mut kept = 0;
        let mut rows = program.rows();
        while let Some((header, row)) = rows.next_row()? {
            read.rows_read += 1;
            if row.end_sequence() {
                let Some(mut finished) = sequence.take() else {
                    continue;
                };
                finished.end = row.address();
                if finished.end <= finished.start {
                    continue;
                }
                if finished.section == NOWHERE {
                    read.sequences_discarded += 1;
                    continue;
                }
                finished.rows.shrink_to_fit();
                self.budget.charge("sequences of rows", SEQUENCE_BYTES)?;
                read.sequences.push(finished);
                continue;
            }
            let sequence = sequence.get_or_insert_with(|| Sequence {
                section: self.section_of(row.address()),
                start: row.address(),
                end: 0,
                rows: Vec::new(),
            });
            if sequence.section == NOWHERE {
                continue;
            }
            let line = row
                .line()
                .map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
            let index = row.file_index();
            // Mostly it is that of the row before.
            let file = match last_file {
                Some((last, file)) if last == index => file,
                _ => match file_indices.get(&index) {
                    Some(file) => *file,
                    None => {
                        let file = read.files.len() as u32;
                        read.files.push(self.names().file_name(header, index)?);
                        file_indices.insert(index, file);
                        file
                    }
                },
            };
            last_file = Some((index, file));
            if sequence.push(row.address(), file, line) {
                kept += 1;
                if kept % ROWS_CHARGED == 0 {
                    self.budget.charge("rows", ROWS_CHARGED * ROW_BYTES)?;
                }
            }
        }
        Ok((read, sequence.is_none()))
    }

    /// Index of the text section that has an address; none has what is below `_text`, for which
    /// there are no offsets in a table.
    fn section_of(&self, address: u64) -> usize {
        let after = self.text.partition_point(|text| text.address <= address);
        let text = after.checked_sub(1).map(|last| (last, &self.text[last]));
        text.filter(|(_, text)| address < text.end() && text.address >= self.text_start)
            .map_or(NOWHERE, |(last, _)| last)
    }
}

/// Makes names of the files in a line program's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileNames<'n, 'a> {
    pub(super) dwarf: &'n Dwarf<'a>,
    /// The strings of the supplementary file.
    pub(super) supplement: Slice<'a>,
    pub(super) naming: &'n Naming,
    pub(super) budget: &'n Budget,
}

impl<'a> FileNames<'_, 'a> {
    /// Compilation directory, primary file and directories, as the header has them.
    fn unit_paths(
        &self,
        header: &LineProgramHeader<Slice<'a>>,
    ) -> Result<Option<UnitPaths>, Failure> {
        let comp_dir = self.text(header.directory(0))?;
        // Before DWARF 5 file 0 is the name of the unit, which is relative to its directory as well.
        let Some(primary) = header.file(0) else {
            return Ok(None);
        };
        let (directory, name) = self.file_parts(header, primary)?;
        let directories = header
            .include_directories()
            .iter()
            .map(|directory| {
                let directory = self.text(Some(*directory))?;
                self.path([comp_dir.as_ref(), directory.as_ref()])
            })
            .collect::<Result<_, _>>()?;
        let primary = self.file_name(header, 0)?;
        Ok(Some(UnitPaths {
            primary,
            spelled: join([directory.as_ref(), name.as_ref()]),
            comp_dir: self.path([comp_dir.as_ref()])?,
            directories,
        }))
    }

    /// A file of the program's table: compilation directory, directory and name joined.
    pub(super) fn file_name(
        &self,
        header: &LineProgramHeader<Slice<'a>>,
        file: u64,
    ) -> Result<String, Failure> {
        let Some(entry) = header.file(file) else {
            // llvm-symbolizer prints the same for a row whose file is not in the table.
            return Ok("<invalid>".to_owned());
        };
        let comp_dir = self.text(header.directory(0))?;
        let (directory, name) = self.file_parts(header, entry)?;
        self.path([comp_dir.as_ref(), directory.as_ref(), name.as_ref()])
    }

    /// Directory and name of a file.
    fn file_parts(
        &self,
        header: &LineProgramHeader<Slice<'a>>,
        file: &FileEntry<Slice<'a>>,
    ) -> Result<(Cow<'a, str>, Cow<'a, str>), Failure> {
        // Directory 0 is the compilation directory itself, and is not below itself.
        let directory = match file.directory_index() {
            0 => Cow::Borrowed(""),
            _ => self.text(file.directory(header))?,
        };
        Ok((directory, self.text(Some(file.path_name()))?))
    }

    fn text(&self, value: Option<AttributeValue<Slice<'a>>>) -> Result<Cow<'a, str>, Failure> {
        let Some(value) = value else {
            return Ok(Cow::Borrowed(""));
        };
        let string = resolve(self.dwarf, self.supplement, value)?.slice();
        if string.len() > NAME_MAX {
            return Err(too_long(string.len()));
        }
        Ok(raw::to_text(string))
    }

    fn path<'b>(
        &self,
        parts: impl IntoIterator<Item = &'b str> + Clone,
    ) -> Result<String, Failure> {
        let bytes: usize = parts.clone().into_iter().map(str::len).sum();
        if bytes > NAME_MAX {
            return Err(too_long(bytes));
        }
        self.budget
            .charge("names of files", bytes as u64 * NAME_COPIES + NAME_BYTES)?;
        Ok(self.naming.path(parts))
    }
}

fn too_long(bytes: usize) -> Failure {
    Failure::Bad(format!("a file name of {bytes} bytes"))
}

/// The section of a sequence outside every text section.
const NOWHERE: usize = usize::MAX;

fn is_assembly(name: &str) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|extension| extension == "S" || extension == "s")
}

impl Sequence {
    /// Whether there is one more row.
    fn push(&mut self, address: u64, file: u32, line: u32) -> bool {
        // A sequence of 4 GiB lies in no text section; its rows may be anything.
        let start = u32::try_from(address.wrapping_sub(self.start)).unwrap_or(u32::MAX);
        let row = LineRow { start, file, line };
        match self.rows.last_mut() {
            Some(last) if last.start == start => {
                *last = row;
                false
            }
            // Not needed: the last goes on.
            Some(last) if last.says_the_same(&row) => false,
            _ => {
                self.rows.push(row);
                true
            }
        }
    }
}

/// A string, which may be in the section of strings of its kind or in the supplementary file; empty
/// if that file is missing.
pub(super) fn resolve<'a>(
    dwarf: &Dwarf<'a>,
    supplement: Slice<'a>,
    value: AttributeValue<Slice<'a>>,
) -> gimli::Result<Slice<'a>> {
    match value {
        AttributeValue::String(string) => Ok(string),
        AttributeValue::DebugStrRef(offset) => dwarf.string(offset),
        AttributeValue::DebugLineStrRef(offset) => dwarf.line_string(offset),
        AttributeValue::DebugStrRefSup(_) if supplement.is_empty() => Ok(Slice::default()),
        AttributeValue::DebugStrRefSup(offset) => gimli::DebugStr::from(supplement).get_str(offset),
        _ => Err(gimli::Error::ExpectedStringAttributeValue),
    }
}
