//! Line programs: the sequences of rows that DWARF has for an image.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use gimli::{
    DebugLineOffset, DwarfSections, EndianSlice, FileEntry, LineProgramHeader, Reader,
    RunTimeEndian, SectionId,
};
use rayon::prelude::*;

use super::elf::Elf;
use super::paths::{Naming, UnitPaths, join};
use crate::error::Error;
use crate::progress::Progress;

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;
type Dwarf<'a> = gimli::Dwarf<Slice<'a>>;

/// One line program, with its files named and its rows reduced.
#[derive(Debug)]
pub(super) struct Program {
    /// Absent where the program names no file.
    pub(super) unit: Option<UnitPaths>,
    /// Joined and normalized names, referred to by [`LineRow::file`].
    pub(super) files: Vec<String>,
    pub(super) sequences: Vec<Sequence>,
    /// Rows that the program made.
    pub(super) rows_read: u64,
}

/// A run of contiguous code, by ascending address.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Addresses strictly ascend; of several rows at one address the last is here.
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

/// Runs all line programs of an image, on all processors.
///
/// The steps of its progress are bytes of `.debug_line`.
pub(super) fn run(
    elf: &Elf<'_>,
    naming: &Naming,
    progress: &dyn Progress,
) -> Result<Vec<Program>, Error> {
    let names = Names::new(naming);
    // The file itself is not shared with the threads.
    let (path, endian, address_size) = (elf.dwarf_path(), elf.endian(), elf.address_size());
    let failed = |source| Error::Dwarf {
        path: path.to_owned(),
        source,
    };
    let line = elf.debug_section(SectionId::DebugLine)?;
    if line.is_empty() {
        return Err(Error::NoDebugInformation {
            path: path.to_owned(),
        });
    }
    progress.begin(line.len() as u64);
    let offsets = program_offsets(Slice::new(&line, endian)).map_err(failed)?;
    // `.debug_info` is by far the largest section, and only programs before DWARF 5 need it.
    let needs_units = offsets.iter().any(|program| program.version < 5);
    let sections = DwarfSections::load(|id| match id {
        SectionId::DebugLine => Ok(Cow::Borrowed(line.as_ref())),
        SectionId::DebugLineStr | SectionId::DebugStr => elf.debug_section(id),
        SectionId::DebugInfo | SectionId::DebugAbbrev if needs_units => elf.debug_section(id),
        _ => Ok(Cow::Borrowed(&[][..])),
    })?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, endian));
    let directories = unit_directories(&dwarf).map_err(failed)?;

    let programs = offsets
        .par_iter()
        .map(|program| {
            let (comp_dir, name) = directories.get(&program.offset).copied().unzip();
            let read = dwarf
                .debug_line
                .program(
                    DebugLineOffset(program.offset),
                    address_size,
                    comp_dir,
                    name,
                )
                .and_then(|program| Program::read(&dwarf, &names, program));
            progress.advance(program.size as u64);
            read.map_err(failed)
        })
        .collect::<Result<_, _>>()?;
    names.check(path)?;
    Ok(programs)
}

/// What the names of a large kernel's files take, a hundred times over: each unit names all of its
/// headers. Damaged tables can name one string of megabytes thousands of times.
const NAMES_MAX_BYTES: u64 = 1 << 29;

/// Makes names, as long as there is room for them.
pub(super) struct Names<'a> {
    naming: &'a Naming,
    /// Of all names that were asked for.
    bytes: AtomicU64,
}

impl<'n> Names<'n> {
    pub(super) const fn new(naming: &'n Naming) -> Self {
        Self {
            naming,
            bytes: AtomicU64::new(0),
        }
    }

    /// Whether there was room for all names; `path` is that of the file which has them.
    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        match self.bytes.load(Ordering::Relaxed) {
            bytes if bytes > NAMES_MAX_BYTES => Err(Error::Names {
                path: path.to_owned(),
                bytes,
            }),
            _ => Ok(()),
        }
    }

    fn path<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> String {
        let path = self.naming.path(parts);
        let len = path.len() as u64;
        if self.bytes.fetch_add(len, Ordering::Relaxed) + len > NAMES_MAX_BYTES {
            return String::new();
        }
        path
    }
}

struct ProgramOffset {
    offset: usize,
    size: usize,
    version: u16,
}

/// The programs stand one after the other.
fn program_offsets(line: Slice<'_>) -> gimli::Result<Vec<ProgramOffset>> {
    let mut rest = line;
    let mut programs = Vec::new();
    while !rest.is_empty() {
        let offset = rest.offset_from(line);
        let (length, _) = rest.read_initial_length()?;
        let mut body = rest.split(length)?;
        programs.push(ProgramOffset {
            offset,
            size: rest.offset_from(line) - offset,
            version: body.read_u16()?,
        });
    }
    Ok(programs)
}

/// Compilation directory and name of the units, by the offset of their line program.
///
/// Empty where `.debug_info` is not needed and was not loaded.
fn unit_directories<'a>(
    dwarf: &Dwarf<'a>,
) -> gimli::Result<HashMap<usize, (Slice<'a>, Slice<'a>)>> {
    let mut directories = HashMap::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let abbreviations = dwarf.abbreviations(&header)?;
        let mut entries = header.entries(&abbreviations);
        let Some(root) = entries.next_dfs()? else {
            continue;
        };
        let Some(gimli::AttributeValue::DebugLineRef(offset)) =
            root.attr_value(gimli::DW_AT_stmt_list)
        else {
            continue;
        };
        let string = |name| match root.attr_value(name) {
            Some(value) => resolve(dwarf, value),
            None => Ok(Slice::default()),
        };
        let comp_dir = string(gimli::DW_AT_comp_dir)?;
        let name = string(gimli::DW_AT_name)?;
        directories.insert(offset.0, (comp_dir, name));
    }
    Ok(directories)
}

impl Program {
    /// Whether the unit is one of assembly.
    pub(super) fn is_assembly(&self) -> bool {
        let primary = self.unit.as_ref().map(|unit| Path::new(&unit.primary));
        let extension = primary.and_then(Path::extension);
        extension.is_some_and(|extension| extension == "S" || extension == "s")
    }

    fn read<'a>(
        dwarf: &Dwarf<'a>,
        names: &Names<'_>,
        program: gimli::IncompleteLineProgram<Slice<'a>>,
    ) -> gimli::Result<Self> {
        let mut read = Self {
            unit: unit_paths(dwarf, names, program.header())?,
            files: Vec::new(),
            sequences: Vec::new(),
            rows_read: 0,
        };
        let mut file_indices = HashMap::new();
        let mut sequence = Sequence::empty();
        let mut rows = program.rows();
        while let Some((header, row)) = rows.next_row()? {
            read.rows_read += 1;
            if row.end_sequence() {
                sequence.end = row.address();
                let finished = std::mem::replace(&mut sequence, Sequence::empty());
                if finished.end > finished.start && !finished.rows.is_empty() {
                    read.sequences.push(finished);
                }
                continue;
            }
            let line = row
                .line()
                .map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
            let file = match file_indices.get(&row.file_index()) {
                Some(file) => *file,
                None => {
                    let file = read.files.len() as u32;
                    read.files
                        .push(file_name(dwarf, names, header, row.file_index())?);
                    file_indices.insert(row.file_index(), file);
                    file
                }
            };
            sequence.push(row.address(), file, line);
        }
        Ok(read)
    }
}

impl Sequence {
    const fn empty() -> Self {
        Self {
            start: 0,
            end: 0,
            rows: Vec::new(),
        }
    }

    fn push(&mut self, address: u64, file: u32, line: u32) {
        if self.rows.is_empty() {
            self.start = address;
        }
        // A sequence of 4 GiB lies in no text section; its rows may be anything.
        let start = u32::try_from(address.wrapping_sub(self.start)).unwrap_or(u32::MAX);
        let row = LineRow { start, file, line };
        match self.rows.last_mut() {
            Some(last) if last.start == start => *last = row,
            _ => self.rows.push(row),
        }
    }
}

/// Compilation directory, primary file and directories, as the header has them.
fn unit_paths<'a>(
    dwarf: &Dwarf<'a>,
    names: &Names<'_>,
    header: &LineProgramHeader<Slice<'a>>,
) -> gimli::Result<Option<UnitPaths>> {
    let comp_dir = text(dwarf, header.directory(0))?;
    // Before DWARF 5 file 0 is the name of the unit, which is relative to its directory as well.
    let Some(primary) = header.file(0) else {
        return Ok(None);
    };
    let (directory, name) = file_parts(dwarf, header, primary)?;
    let directories = header
        .include_directories()
        .iter()
        .map(|directory| {
            let directory = text(dwarf, Some(*directory))?;
            Ok(names.path([comp_dir.as_ref(), directory.as_ref()]))
        })
        .collect::<gimli::Result<_>>()?;
    Ok(Some(UnitPaths {
        primary: file_name(dwarf, names, header, 0)?,
        spelled: join([directory.as_ref(), name.as_ref()]),
        comp_dir: names.path([comp_dir.as_ref()]),
        directories,
    }))
}

/// A file of the program's table: compilation directory, directory and name joined.
pub(super) fn file_name<'a>(
    dwarf: &Dwarf<'a>,
    names: &Names<'_>,
    header: &LineProgramHeader<Slice<'a>>,
    file: u64,
) -> gimli::Result<String> {
    let Some(entry) = header.file(file) else {
        // llvm-symbolizer prints the same for a row whose file is not in the table.
        return Ok("<invalid>".to_owned());
    };
    let comp_dir = text(dwarf, header.directory(0))?;
    let (directory, name) = file_parts(dwarf, header, entry)?;
    Ok(names.path([comp_dir.as_ref(), directory.as_ref(), name.as_ref()]))
}

/// Directory and name of a file.
fn file_parts<'a>(
    dwarf: &Dwarf<'a>,
    header: &LineProgramHeader<Slice<'a>>,
    file: &FileEntry<Slice<'a>>,
) -> gimli::Result<(Cow<'a, str>, Cow<'a, str>)> {
    // Directory 0 is the compilation directory itself, and is not below itself.
    let directory = match file.directory_index() {
        0 => Cow::Borrowed(""),
        _ => text(dwarf, file.directory(header))?,
    };
    Ok((directory, text(dwarf, Some(file.path_name()))?))
}

/// A string that may stand in the section of strings of its kind.
fn resolve<'a>(
    dwarf: &Dwarf<'a>,
    value: gimli::AttributeValue<Slice<'a>>,
) -> gimli::Result<Slice<'a>> {
    match value {
        gimli::AttributeValue::String(string) => Ok(string),
        gimli::AttributeValue::DebugStrRef(offset) => dwarf.string(offset),
        gimli::AttributeValue::DebugLineStrRef(offset) => dwarf.line_string(offset),
        _ => Err(gimli::Error::ExpectedStringAttributeValue),
    }
}

fn text<'a>(
    dwarf: &Dwarf<'a>,
    value: Option<gimli::AttributeValue<Slice<'a>>>,
) -> gimli::Result<Cow<'a, str>> {
    match value {
        Some(value) => Ok(String::from_utf8_lossy(resolve(dwarf, value)?.slice())),
        None => Ok(Cow::Borrowed("")),
    }
}
