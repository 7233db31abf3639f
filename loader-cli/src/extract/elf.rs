//! The ELF side of an image: text sections, identity, and DWARF sections with relocations applied.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::offset_of;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gimli::SectionId;
use lineinfo_core::{NAME_MAX, is_printable};
use object::read::elf::FileHeader;
use object::read::{
    CompressionFormat, Object, ObjectKind, ObjectSection, ReadCache, ReadRef, SectionIndex,
};
use object::{Endianness, SectionFlags, elf};
use tempfile::NamedTempFile;

use super::budget::Budget;
use super::lines::Slice;
use super::relocate::Relocator;
use super::separate::{self, DebugLink, SupplementLink};
use super::symbols::{self, Symbol};
use super::units;
use crate::compressed::Compression;
use crate::error::{BudgetError, ElfError, Error};
use crate::files;
use crate::kind::{Foreign, HEAD_BYTES, Kind, Wanted};
use crate::message;

/// What a table says of the image it was built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// ELF machine number (`e_machine`).
    pub machine: u16,
    /// Build-id, empty if there is none.
    pub build_id: Vec<u8>,
    /// The file is relocatable, a module: its addresses are made up.
    pub relocatable: bool,
    /// Address of `_text`, or of the lowest text section where there is no such symbol.
    pub text_start: u64,
    /// Bytes that the image takes in memory: what is loaded from the file, without `.bss`.
    pub size_bytes: u64,
    /// The executable sections, by ascending address; no two of them share addresses.
    pub text: Vec<TextSection>,
    /// Those that share addresses with another, of which the running code says nothing: such as the
    /// kinds of vectors of a 32-bit ARM kernel, which chooses one when it boots.
    pub overlapping: Vec<TextSection>,
}

/// One executable section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextSection {
    /// Its name.
    pub name: String,
    /// The address of its code; in a relocatable file, where all sections start at 0, one that is
    /// made up so that sections do not collide.
    pub address: u64,
    /// Its length in bytes.
    pub len: u32,
    /// It is freed after boot.
    pub init: bool,
    index: SectionIndex,
}

impl TextSection {
    /// Whether it is the same section in another file, like an image's in its debug file.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.name, self.address, self.len) == (&other.name, other.address, other.len)
    }

    /// Its index in the section headers.
    pub(super) fn index(&self) -> SectionIndex {
        self.index
    }

    /// The address after its last byte.
    pub fn end(&self) -> u64 {
        self.address + u64::from(self.len)
    }
}

/// In a relocatable file, where each section starts at 0, text is laid out from this address: not
/// from 0, where discarded code is.
const RELOCATABLE_BASE: u64 = PAGE_SIZE;

const PAGE_SIZE: u64 = 4096;

/// Most bytes of text in an area of a module.
const AREA_MAX: u64 = 1 << 32;

/// An ELF file on disk, from which only what is asked for is read.
#[derive(Debug)]
pub struct ElfFile {
    path: PathBuf,
    cache: ReadCache<File>,
    len: u64,
    budget: Arc<Budget>,
    debug: Option<Box<Self>>,
    supplement: Supplement,
}

/// The supplementary file of a debug file, which has the strings that dwz has taken from several.
#[derive(Debug)]
enum Supplement {
    None,
    Missing(PathBuf),
    Found(Box<ElfFile>),
}

impl ElfFile {
    /// Opens a file; `-` is stdin.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened, or is not a regular file with something in it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_within(path, None)
    }

    /// Opens a file that may take so many bytes of memory; by default four times the size of the
    /// file and its debug files, and 256 MiB.
    ///
    /// # Errors
    ///
    /// Those of [`ElfFile::open`].
    pub fn open_within(path: &Path, max_memory: Option<u64>) -> Result<Self, Error> {
        Self::open_with(path, Arc::new(Budget::new(max_memory)))
    }

    /// Opens a file as it is, compressed or not: what is appended to it comes after these bytes.
    ///
    /// # Errors
    ///
    /// Those of [`ElfFile::open`].
    pub fn open_as_is(path: &Path) -> Result<Self, Error> {
        let file = files::open_image(path)?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        let budget = Arc::new(Budget::new(None));
        budget.add_file(len);
        Ok(Self::new(path, file, len, budget))
    }

    fn open_with(path: &Path, budget: Arc<Budget>) -> Result<Self, Error> {
        let file = files::open_image(path)?;
        let path = match files::is_stdin(path) {
            true => Path::new("stdin"),
            false => path,
        };
        let len = file.metadata().map_err(Error::io(path))?.len();
        budget.add_file(len);
        let (file, len) = match Compression::of(&file).map_err(Error::io(path))? {
            None => (file, len),
            Some(compression) => decompress(path, &file, compression, &budget)?,
        };
        Ok(Self::new(path, file, len, budget))
    }

    fn new(path: &Path, file: File, len: u64, budget: Arc<Budget>) -> Self {
        Self {
            path: path.to_owned(),
            cache: ReadCache::new(file),
            len,
            budget,
            debug: None,
            supplement: Supplement::None,
        }
    }

    /// Opens a file that belongs to this one, and shares its budget.
    pub(super) fn open_beside(&self, path: &Path) -> Result<Self, Error> {
        Self::open_with(path, Arc::clone(&self.budget))
    }

    /// With the debug file in which its DWARF is, if that is not in the file itself.
    ///
    /// Looked for by build-id in each of the directories, and by `.gnu_debuglink` beside the file,
    /// in `.debug` beside it, and below each of the directories. None is found: the file as it is. The
    /// supplementary file that it may have (`.gnu_debugaltlink`) is looked for in the same places.
    ///
    /// # Errors
    ///
    /// Those of [`ElfFile::parse`], and [`Error::DebugFile`] if what is there belongs to another
    /// image.
    pub fn with_debug(mut self, debug_dirs: &[PathBuf]) -> Result<Self, Error> {
        let elf = self.parse()?;
        if elf.has_lines() {
            message::detail(format_args!(
                "{}: has debug information itself",
                self.path.display()
            ));
        } else {
            let debug = separate::find(&self, &elf, debug_dirs)?;
            drop(elf);
            self.debug = debug.map(Box::new);
        }
        let file = self.debug.as_deref().unwrap_or(&self);
        let elf = file.parse()?;
        let supplement = match elf.supplement_link()? {
            None => Supplement::None,
            Some(link) => match separate::find_supplement(file, &elf, &link, debug_dirs)? {
                Some(found) => Supplement::Found(Box::new(found)),
                None => Supplement::Missing(link.path()),
            },
        };
        drop(elf);
        match &mut self.debug {
            Some(debug) => debug.supplement = supplement,
            None => self.supplement = supplement,
        }
        Ok(self)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much memory it and its debug files may take, in bytes.
    pub fn memory_limit(&self) -> u64 {
        self.budget.limit()
    }

    /// Its debug file, if that is another one.
    pub(crate) fn debug(&self) -> Option<&Self> {
        self.debug.as_deref()
    }

    /// Where its debug file is, if that is another one.
    pub fn debug_path(&self) -> Option<&Path> {
        self.debug.as_deref().map(|debug| debug.path.as_path())
    }

    /// The file as its own format has it.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if it is not an ELF file, [`Error::Elf`] if it is a damaged one.
    pub(crate) fn object(&self) -> Result<Parsed<'_>, Error> {
        let head = (&self.cache).read_bytes_at(0, self.len.min(HEAD_BYTES as u64));
        match head.map(Kind::of_head) {
            Ok(Kind::Elf) | Err(()) => {}
            Ok(found) => return Err(Foreign::error(&self.path, found, Wanted::Image)),
        }
        object::File::parse(&self.cache).map_err(|source| Error::Elf {
            path: self.path.clone(),
            source: ElfError::from(source),
        })
    }

    /// Reads the headers.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if it is not an ELF file, [`Error::Elf`] if it is a damaged one.
    pub fn parse(&self) -> Result<Elf<'_>, Error> {
        let failed = |source| Error::Elf {
            path: self.path.clone(),
            source,
        };
        let file = self.object()?;
        check_overlap(&file, self.len).map_err(failed)?;
        let mut identity = identify(&file).map_err(failed)?;
        let debug = match &self.debug {
            Some(debug) => Some(Box::new(debug.parse()?)),
            None => None,
        };
        // The symbols of a stripped image are where its DWARF is.
        if let Some(debug) = &debug
            && !identity.relocatable
            && symbols::text_start(&file).map_err(failed)?.is_none()
            && let Some(address) = symbols::text_start(&debug.file).map_err(failed)?
        {
            identity.text_start = address;
        }
        let (supplement, missing_supplement) = match &self.supplement {
            Supplement::None => (None, None),
            Supplement::Missing(path) => (None, Some(path.as_path())),
            Supplement::Found(file) => (Some(Box::new(file.parse()?)), None),
        };
        Ok(Elf {
            path: &self.path,
            file,
            identity,
            budget: &self.budget,
            debug,
            supplement,
            missing_supplement,
        })
    }
}

/// What a compressed file has, and its length; it counts as memory, all of which may be read.
fn decompress(
    path: &Path,
    file: &File,
    compression: Compression,
    budget: &Budget,
) -> Result<(File, u64), Error> {
    /// Why it stopped.
    enum Stop {
        Budget(BudgetError),
        Io(io::Error),
    }
    impl From<io::Error> for Stop {
        fn from(error: io::Error) -> Self {
            Self::Io(error)
        }
    }
    let mut len = 0;
    let charge = |bytes| {
        len += bytes;
        let charged = budget.charge("the decompressed file", bytes);
        charged.map_err(Stop::Budget)
    };
    match compression.decompress(file, charge) {
        Ok(file) => Ok((file, len)),
        Err(Stop::Io(source)) => Err(Error::io(path)(source)),
        Err(Stop::Budget(source)) => Err(Error::Budget {
            path: path.to_owned(),
            source,
        }),
    }
}

/// A parsed ELF file.
#[derive(Debug)]
pub struct Elf<'a> {
    path: &'a Path,
    file: Parsed<'a>,
    /// What a table says of it.
    pub identity: Identity,
    budget: &'a Budget,
    /// The file that has the DWARF, if it is another.
    debug: Option<Box<Self>>,
    /// The file that has strings of the DWARF of this file.
    supplement: Option<Box<Self>>,
    missing_supplement: Option<&'a Path>,
}

pub(crate) type Parsed<'a> = object::File<'a, &'a ReadCache<File>>;

/// Refuses a file whose sections share bytes: reading them all would take more memory than its size.
fn check_overlap(file: &Parsed<'_>, len: u64) -> Result<(), ElfError> {
    let sizes = file.sections().filter_map(|section| section.file_range());
    let sections = sizes.fold(0_u64, |sum, (_, size)| sum.saturating_add(size));
    if sections > len {
        return Err(ElfError::Overlap {
            sections,
            file: len,
        });
    }
    Ok(())
}

fn identify(file: &Parsed<'_>) -> Result<Identity, ElfError> {
    let machine = match file {
        object::File::Elf32(elf) => elf.elf_header().e_machine(elf.endian()),
        object::File::Elf64(elf) => elf.elf_header().e_machine(elf.endian()),
        _ => elf::EM_NONE,
    };
    let relocatable = file.kind() == ObjectKind::Relocatable;
    let mut text = Vec::new();
    let mut size_bytes = 0_u64;
    let mut areas = ModuleAreas::default();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            continue;
        };
        if !sh_flags.contains(elf::SHF_ALLOC) {
            continue;
        }
        let in_file = section.file_range().map_or(0, |(_, size)| size);
        size_bytes = size_bytes.saturating_add(in_file);
        if !sh_flags.contains(elf::SHF_EXECINSTR) {
            continue;
        }
        let name = section.name()?;
        let is_printable = !name.is_empty() && name.chars().all(is_printable);
        if !is_printable || name.len() > NAME_MAX {
            return Err(ElfError::SectionName {
                name: name.to_owned(),
            });
        }
        // Linux takes all of `.init*` of a module; an executable has a `.init` that is not freed.
        let init = name.starts_with(if relocatable { ".init" } else { ".init." });
        let size = section.size();
        let address = if relocatable {
            areas.place(init, section.align(), size)
        } else {
            Some(section.address())
        };
        let placed = address.zip(u32::try_from(size).ok());
        let placed = placed.filter(|(address, len)| address.checked_add((*len).into()).is_some());
        let (address, len) = placed.ok_or_else(|| ElfError::TextSection {
            name: name.to_owned(),
            address: section.address(),
            size,
        })?;
        if len > 0 {
            text.push(TextSection {
                name: name.to_owned(),
                address,
                len,
                init,
                index: section.index(),
            });
        }
    }
    let text_start = if relocatable {
        areas.lay_out(&mut text);
        Some(RELOCATABLE_BASE)
    } else {
        symbols::text_start(file)?
    };
    let (text, overlapping) = split_overlapping(text);
    Ok(Identity {
        machine: machine.0,
        relocatable,
        build_id: file.build_id()?.unwrap_or_default().to_owned(),
        text_start: text_start
            .or_else(|| text.first().map(|section| section.address))
            .unwrap_or(0),
        size_bytes,
        text,
        overlapping,
    })
}

/// The sections that share no address with another, and the others; each by ascending address.
fn split_overlapping(mut sections: Vec<TextSection>) -> (Vec<TextSection>, Vec<TextSection>) {
    sections.sort_by_key(|section| section.address);
    let mut end = 0;
    let begins = sections.iter().map(|section| {
        let begins = section.address >= end;
        end = end.max(section.end());
        begins
    });
    // Whether a section begins after all before it have ended; after the last nothing follows.
    let begins: Vec<bool> = begins.chain([true]).collect();
    let mut alone = begins.windows(2).map(|pair| pair[0] && pair[1]);
    sections
        .into_iter()
        .partition(|_| alone.next().unwrap_or(false))
}

/// The sizes of the two areas of a module's text, as Linux lays them out
/// ([`lineinfo_core::Table::module_areas`] has the rules).
#[derive(Debug, Default)]
struct ModuleAreas {
    text: u64,
    init: u64,
}

impl ModuleAreas {
    /// Adds a section to its area; gives its offset there, if there is room for it.
    fn place(&mut self, init: bool, align: u64, size: u64) -> Option<u64> {
        let area = if init { &mut self.init } else { &mut self.text };
        let start = area.checked_next_multiple_of(align.max(1))?;
        let end = start.checked_add(size).filter(|end| *end <= AREA_MAX)?;
        *area = end;
        Some(start)
    }

    /// Makes the sections' offsets in their areas addresses.
    fn lay_out(&self, text: &mut [TextSection]) {
        let init = self.text.next_multiple_of(PAGE_SIZE);
        for section in text {
            let area = if section.init { init } else { 0 };
            section.address += RELOCATABLE_BASE + area;
        }
    }
}

/// Copies a file without some of its bytes, ascending and within it, which are zero in the copy.
fn copy_without(from: &Path, mut to: &File, without: &[Range<u64>]) -> io::Result<()> {
    let from = File::open(from)?;
    let len = from.metadata()?.len();
    to.set_len(len)?;
    let starts = without.iter().map(|range| range.end);
    let ends = without.iter().map(|range| range.start);
    for (start, end) in [0].into_iter().chain(starts).zip(ends.chain([len])) {
        (&from).seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        io::copy(&mut (&from).take(end - start), &mut to)?;
    }
    Ok(())
}

/// Positions of fields in the section headers of a file, in bytes.
struct HeaderFields {
    /// Start of the headers in the file.
    headers: u64,
    header_size: usize,
    /// From the start of a header.
    kind: usize,
    /// From the start of a header.
    address: usize,
    /// From the start of a header.
    size: usize,
    /// Length of address and size.
    width: usize,
}

impl<'a> Elf<'a> {
    /// The path that was opened.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// The path of the file that has the DWARF: a separate debug file, or the one opened.
    pub fn dwarf_path(&self) -> &'a Path {
        self.dwarf().path
    }

    fn dwarf(&self) -> &Self {
        self.debug.as_deref().unwrap_or(self)
    }

    /// What the image and its debug files may take.
    pub(crate) fn budget(&self) -> &'a Budget {
        self.budget
    }

    /// That they would take more.
    pub(crate) fn over_budget(&self, source: BudgetError) -> Error {
        Error::Budget {
            path: self.dwarf().path.to_owned(),
            source,
        }
    }

    /// What the file with the DWARF calls its supplementary file, if that is missing: then directories
    /// of source files are not known.
    pub fn missing_supplement(&self) -> Option<&'a Path> {
        self.dwarf().missing_supplement
    }

    /// The strings of the supplementary file; empty if there is none.
    pub(super) fn supplement_strings(&self) -> Result<Cow<'a, [u8]>, Error> {
        match &self.dwarf().supplement {
            Some(supplement) => supplement.debug_section(SectionId::DebugStr),
            None => Ok(Cow::Borrowed(&[])),
        }
    }

    /// What the file says of its supplementary file, if it does.
    pub(super) fn supplement_link(&self) -> Result<Option<SupplementLink>, Error> {
        let link = self
            .file
            .gnu_debugaltlink()
            .map_err(|source| self.failed(source))?;
        Ok(link.map(|(name, build_id)| SupplementLink {
            name: name.to_owned(),
            build_id: build_id.to_owned(),
        }))
    }

    /// Whether there are line tables in this file itself.
    pub(super) fn has_lines(&self) -> bool {
        self.file
            .section_by_name(SectionId::DebugLine.name())
            .is_some()
    }

    /// What the file says of its separate debug file, if it does.
    pub(super) fn debug_link(&self) -> Result<Option<DebugLink>, Error> {
        let link = self
            .file
            .gnu_debuglink()
            .map_err(|source| self.failed(source))?;
        Ok(link.map(|(name, crc32)| DebugLink {
            name: name.to_owned(),
            crc32,
        }))
    }

    /// The symbols of functions; those of a stripped image are in its debug file.
    pub(super) fn functions(&self) -> Result<Vec<Symbol<'a>>, Error> {
        let own = symbols::functions(&self.file).map_err(|source| self.failed(source))?;
        match &self.debug {
            Some(debug) if own.is_empty() => debug.functions(),
            _ => Ok(own),
        }
    }

    /// The instructions of a section; empty if they are not in the file.
    ///
    /// # Errors
    ///
    /// [`Error::Elf`] if they cannot be read.
    pub fn code(&self, section: &TextSection) -> Result<&'a [u8], Error> {
        self.file
            .section_by_index(section.index)
            .and_then(|section| section.data())
            .map_err(|source| self.failed(source))
    }

    /// A copy of the file with the DWARF, for llvm-symbolizer: with an empty `.debug_aranges`, which
    /// units can do without; without `functions`, with nothing after the root entries of units and no
    /// symbols, for it reads all of them and keeps several times their size, though there are no lines
    /// in them; and, if it is relocatable, with its symbols, which relocations need, and with the
    /// addresses of [`Identity::text`] in its section headers.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn copy_for_symbolizer(&self, functions: bool) -> Result<NamedTempFile, Error> {
        let dwarf = self.dwarf();
        let copy = NamedTempFile::new().map_err(Error::io(std::env::temp_dir()))?;
        // Zeros, which are not on disk, are entries that end a list of children.
        let left_out = match functions {
            true => Vec::new(),
            false => dwarf.children_of_roots()?,
        };
        copy_without(dwarf.path, copy.as_file(), &left_out).map_err(Error::io(copy.path()))?;
        let fields = dwarf.header_fields();
        let mut patches = Vec::new();
        if dwarf.identity.relocatable {
            for text in &dwarf.identity.text {
                patches.push((text.index, fields.address, text.address, fields.width));
                // Text that a debug file has left out would not be taken for text.
                let kind = elf::SHT_PROGBITS.0.into();
                patches.push((text.index, fields.kind, kind, size_of::<u32>()));
            }
        }
        let ranges = Some(SectionId::DebugAranges.name());
        let symbols = (!functions && !dwarf.identity.relocatable).then_some(".symtab");
        for name in ranges.into_iter().chain(symbols) {
            let emptied = dwarf.file.section_by_name(name);
            patches.extend(emptied.map(|section| (section.index(), fields.size, 0, fields.width)));
        }
        for (section, field, value, width) in patches {
            let mut bytes = value.to_le_bytes();
            let bytes = &mut bytes[..width];
            if !dwarf.file.is_little_endian() {
                bytes.reverse();
            }
            let at = fields.headers + (section.0 * fields.header_size + field) as u64;
            copy.as_file()
                .write_all_at(bytes, at)
                .map_err(Error::io(copy.path()))?;
        }
        Ok(copy)
    }

    /// Where in this file the children of the root entries of units are; nowhere, if `.debug_info` is
    /// compressed.
    fn children_of_roots(&self) -> Result<Vec<Range<u64>>, Error> {
        let info = self.file.section_by_name(SectionId::DebugInfo.name());
        let range = info.map(|info| info.compressed_file_range()).transpose();
        let range = range.map_err(|source| self.failed(source))?;
        let Some(section) = range.filter(|range| range.format == CompressionFormat::None) else {
            return Ok(Vec::new());
        };
        let (info, abbrev) = (
            self.debug_section(SectionId::DebugInfo)?,
            self.debug_section(SectionId::DebugAbbrev)?,
        );
        let slice = |section| Slice::new(section, self.endian());
        let in_file = |at: usize| section.offset + at as u64;
        let children = units::children(slice(&info), slice(&abbrev)).into_iter();
        Ok(children
            .map(|children| in_file(children.start)..in_file(children.end))
            .collect())
    }

    fn header_fields(&self) -> HeaderFields {
        type Header32 = elf::SectionHeader32<Endianness>;
        type Header64 = elf::SectionHeader64<Endianness>;
        match &self.file {
            object::File::Elf32(file) => HeaderFields {
                headers: file.elf_header().e_shoff(file.endian()).into(),
                header_size: size_of::<Header32>(),
                kind: offset_of!(Header32, sh_type),
                address: offset_of!(Header32, sh_addr),
                size: offset_of!(Header32, sh_size),
                width: 4,
            },
            object::File::Elf64(file) => HeaderFields {
                headers: file.elf_header().e_shoff(file.endian()),
                header_size: size_of::<Header64>(),
                kind: offset_of!(Header64, sh_type),
                address: offset_of!(Header64, sh_addr),
                size: offset_of!(Header64, sh_size),
                width: 8,
            },
            _ => unreachable!("only ELF files are parsed"),
        }
    }

    fn failed(&self, source: impl Into<ElfError>) -> Error {
        Error::Elf {
            path: self.path.to_owned(),
            source: source.into(),
        }
    }

    /// The byte order of the file.
    pub fn endian(&self) -> gimli::RunTimeEndian {
        if self.file.is_little_endian() {
            gimli::RunTimeEndian::Little
        } else {
            gimli::RunTimeEndian::Big
        }
    }

    /// Size of an address in the file, in bytes.
    pub fn address_size(&self) -> u8 {
        if self.file.is_64() { 8 } else { 4 }
    }

    /// A section of debug information, decompressed and relocated; empty if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Elf`] if it cannot be read.
    pub fn debug_section(&self, id: SectionId) -> Result<Cow<'a, [u8]>, Error> {
        let dwarf = self.dwarf();
        let read = dwarf.read_section(id.name());
        read.map_err(|source| dwarf.failed(source))
    }

    fn read_section(&self, name: &str) -> Result<Cow<'a, [u8]>, ElfError> {
        let Some(section) = self.file.section_by_name(name) else {
            return Ok(Cow::Borrowed(&[]));
        };
        let compressed = section.compressed_data()?;
        if compressed.format != CompressionFormat::None {
            let size = compressed.uncompressed_size;
            self.budget.charge("a compressed section", size)?;
        }
        let mut data = compressed.decompress()?;
        if self.file.kind() == ObjectKind::Relocatable {
            if matches!(data, Cow::Borrowed(_)) {
                self.budget
                    .charge("relocated sections", data.len() as u64)?;
            }
            let relocator = Relocator::new(&self.file, &self.identity);
            for (at, relocation) in section.relocations() {
                if !relocator.apply(data.to_mut(), at, &relocation)? {
                    return Err(ElfError::Relocation {
                        section: name.to_owned(),
                        at,
                        relocation: format!("{:?}", relocation.flags()),
                    });
                }
            }
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_shares_addresses_is_set_apart() {
        let sections = [
            (30, 10),
            (0, 10),
            (10, 5),
            (12, 2),
            (14, 6),
            (20, 10),
            (35, 1),
        ];
        let sections = sections.map(|(address, len)| TextSection {
            name: String::new(),
            address,
            len,
            init: false,
            index: SectionIndex(0),
        });
        let (alone, overlapping) = split_overlapping(sections.to_vec());
        let addresses = |sections: Vec<TextSection>| {
            let addresses = sections.into_iter().map(|section| section.address);
            addresses.collect::<Vec<u64>>()
        };
        assert_eq!(addresses(alone), [0, 20]);
        assert_eq!(addresses(overlapping), [10, 12, 14, 30, 35]);
    }
}
