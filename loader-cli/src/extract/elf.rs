//! The ELF side of an image: text sections, identity, and DWARF sections with relocations applied.

use std::borrow::Cow;
use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gimli::SectionId;
use object::read::elf::FileHeader;
use object::read::{
    CompressionFormat, Object, ObjectKind, ObjectSection, ObjectSymbol, ReadCache, Relocation,
    RelocationTarget, SectionIndex,
};
use object::{Endianness, RelocationFlags, RelocationKind, SectionFlags, elf};
use tempfile::NamedTempFile;

use super::separate::{self, DebugLink};
use super::symbols::{self, Symbol};
use crate::error::{ElfError, Error};
use crate::files;

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
    /// All executable sections, by ascending address.
    pub text: Vec<TextSection>,
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

    /// The address behind its last byte.
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

/// Debug sections shrink to a fifth, in odd cases to a thirtieth of their size. Who claims more
/// wants memory.
const COMPRESSION_MAX: u64 = 256;

/// An ELF file on disk, from which only what is asked for is read.
#[derive(Debug)]
pub struct ElfFile {
    path: PathBuf,
    cache: ReadCache<File>,
    debug: Option<Box<Self>>,
}

impl ElfFile {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened, or is not a regular file with something in it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            cache: ReadCache::new(files::open_image(path)?),
            debug: None,
        })
    }

    /// With the debug file in which its DWARF is, if that is not in the file itself.
    ///
    /// Looked for by build-id in each of the directories, and by `.gnu_debuglink` beside the file,
    /// in `.debug` beside it, and below each of the directories. None is found: the file as it is.
    ///
    /// # Errors
    ///
    /// Those of [`ElfFile::parse`], and [`Error::DebugFile`] if what is there belongs to another
    /// image.
    pub fn with_debug(mut self, debug_dirs: &[PathBuf]) -> Result<Self, Error> {
        let elf = self.parse()?;
        if !elf.has_lines() {
            let debug = separate::find(&elf, debug_dirs)?;
            drop(elf);
            self.debug = debug.map(Box::new);
        }
        Ok(self)
    }

    /// Where its debug file is, if that is another one.
    pub fn debug_path(&self) -> Option<&Path> {
        self.debug.as_deref().map(|debug| debug.path.as_path())
    }

    /// Reads the headers.
    ///
    /// # Errors
    ///
    /// [`Error::Elf`] if it is not an ELF file, or a damaged one.
    pub fn parse(&self) -> Result<Elf<'_>, Error> {
        let failed = |source| Error::Elf {
            path: self.path.clone(),
            source,
        };
        let file =
            object::File::parse(&self.cache).map_err(|source| failed(ElfError::from(source)))?;
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
        Ok(Elf {
            path: &self.path,
            file,
            identity,
            debug,
        })
    }
}

/// A parsed ELF file.
#[derive(Debug)]
pub struct Elf<'a> {
    path: &'a Path,
    file: Parsed<'a>,
    /// What a table says of it.
    pub identity: Identity,
    /// The file that has the DWARF, if it is another.
    debug: Option<Box<Self>>,
}

pub(super) type Parsed<'a> = object::File<'a, &'a ReadCache<File>>;

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
    text.sort_by_key(|section| section.address);
    Ok(Identity {
        machine: machine.0,
        relocatable,
        build_id: file.build_id()?.unwrap_or_default().to_owned(),
        text_start: text_start
            .or_else(|| text.first().map(|section| section.address))
            .unwrap_or(0),
        size_bytes,
        text,
    })
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

/// Where things stand in the section headers of a file, in bytes.
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
    /// units can do without, and, if it is relocatable, the addresses of [`Identity::text`] in its
    /// section headers.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn copy_for_symbolizer(&self) -> Result<NamedTempFile, Error> {
        let dwarf = self.dwarf();
        let copy = NamedTempFile::new().map_err(Error::io(std::env::temp_dir()))?;
        std::fs::copy(dwarf.path, copy.path()).map_err(Error::io(copy.path()))?;
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
        let ranges = dwarf.file.section_by_name(SectionId::DebugAranges.name());
        patches.extend(ranges.map(|ranges| (ranges.index(), fields.size, 0, fields.width)));
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
        let (size, stored) = (compressed.uncompressed_size, compressed.data.len() as u64);
        if compressed.format != CompressionFormat::None && size > stored * COMPRESSION_MAX {
            return Err(ElfError::Compression {
                section: name.to_owned(),
                stored,
                size,
            });
        }
        let mut data = compressed.decompress()?;
        if self.file.kind() == ObjectKind::Relocatable {
            for (at, relocation) in section.relocations() {
                if !self.relocate(data.to_mut(), at, &relocation)? {
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

    /// Applies one relocation in the file's own byte order; `false` if it is of a kind that does
    /// not occur in debug information, or lies outside the section.
    fn relocate(
        &self,
        data: &mut [u8],
        at: u64,
        relocation: &Relocation,
    ) -> Result<bool, ElfError> {
        if relocation.kind() == RelocationKind::None {
            return Ok(true);
        }
        let RelocationFlags::Elf { r_type } = relocation.flags() else {
            return Ok(false);
        };
        let riscv = self.identity.machine == elf::EM_RISCV.0;
        let difference = riscv.then(|| Difference::of(r_type)).flatten();
        let size = match difference {
            Some(difference) => difference.size(data, at),
            None if relocation.kind() != RelocationKind::Absolute => return Ok(false),
            None => usize::from(relocation.size() / 8),
        };
        let field = usize::try_from(at)
            .ok()
            .and_then(|at| data.get_mut(at..)?.get_mut(..size));
        let (Some(field), 1..=8) = (field, size) else {
            return Ok(false);
        };
        let symbol = match relocation.target() {
            RelocationTarget::Symbol(index) => {
                let symbol = self.file.symbol_by_index(index)?;
                let base = self.base_of(symbol.section_index());
                symbol.address().wrapping_add(base)
            }
            RelocationTarget::Section(index) => self.base_of(Some(index)),
            _ => 0,
        };
        let value = symbol.wrapping_add_signed(relocation.addend());
        if let Some(difference) = difference {
            difference.apply(field, value);
            return Ok(true);
        }
        // The field as the low bytes of a little-endian number, whatever the file's order.
        let little = self.file.is_little_endian();
        let swap = |bytes: &mut [u8]| {
            if !little {
                bytes.reverse();
            }
        };
        swap(field);
        let addend = if relocation.has_implicit_addend() {
            low_bytes(field)
        } else {
            0
        };
        field.copy_from_slice(&value.wrapping_add(addend).to_le_bytes()[..size]);
        swap(field);
        Ok(true)
    }

    /// What the layout of text sections adds to addresses in a section of a relocatable file.
    fn base_of(&self, section: Option<SectionIndex>) -> u64 {
        self.identity
            .text
            .iter()
            .find(|text| Some(text.index) == section)
            .map_or(0, |text| text.address)
    }
}

/// A little-endian number of at most 8 bytes.
fn low_bytes(field: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..field.len()].copy_from_slice(field);
    u64::from_le_bytes(bytes)
}

/// A half of a difference of two symbols, which RISC-V leaves to relocations because its linker may
/// shorten the code between them: one relocation sets or adds, another one at the same place
/// subtracts (RISC-V ELF psABI, "Relocations"; little-endian always).
#[derive(Clone, Copy, Debug)]
struct Difference {
    step: Step,
    field: Field,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Set,
    Add,
    Sub,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    /// The low six bits of a byte, as `DW_CFA_advance_loc` has them.
    SixBits,
    Bytes(usize),
    /// Of the length that the assembler left.
    Uleb128,
}

impl Difference {
    fn of(r_type: elf::RelocationType) -> Option<Self> {
        let (step, field) = match r_type {
            elf::R_RISCV_ADD8 => (Step::Add, Field::Bytes(1)),
            elf::R_RISCV_ADD16 => (Step::Add, Field::Bytes(2)),
            elf::R_RISCV_ADD32 => (Step::Add, Field::Bytes(4)),
            elf::R_RISCV_ADD64 => (Step::Add, Field::Bytes(8)),
            elf::R_RISCV_SUB6 => (Step::Sub, Field::SixBits),
            elf::R_RISCV_SUB8 => (Step::Sub, Field::Bytes(1)),
            elf::R_RISCV_SUB16 => (Step::Sub, Field::Bytes(2)),
            elf::R_RISCV_SUB32 => (Step::Sub, Field::Bytes(4)),
            elf::R_RISCV_SUB64 => (Step::Sub, Field::Bytes(8)),
            elf::R_RISCV_SUB_ULEB128 => (Step::Sub, Field::Uleb128),
            elf::R_RISCV_SET6 => (Step::Set, Field::SixBits),
            elf::R_RISCV_SET8 => (Step::Set, Field::Bytes(1)),
            elf::R_RISCV_SET16 => (Step::Set, Field::Bytes(2)),
            elf::R_RISCV_SET32 => (Step::Set, Field::Bytes(4)),
            elf::R_RISCV_SET_ULEB128 => (Step::Set, Field::Uleb128),
            _ => return None,
        };
        Some(Self { step, field })
    }

    /// Size of the field at `at`, in bytes; 0 where there is none.
    fn size(self, data: &[u8], at: u64) -> usize {
        match self.field {
            Field::SixBits => 1,
            Field::Bytes(size) => size,
            Field::Uleb128 => {
                let rest = usize::try_from(at).ok().and_then(|at| data.get(at..));
                let last = rest.and_then(|rest| rest.iter().position(|byte| byte & 0x80 == 0));
                last.map_or(0, |last| last + 1)
            }
        }
    }

    fn apply(self, field: &mut [u8], value: u64) {
        let stepped = |old: u64| match self.step {
            Step::Set => value,
            Step::Add => old.wrapping_add(value),
            Step::Sub => old.wrapping_sub(value),
        };
        match self.field {
            Field::SixBits => {
                let kept = field[0] & 0xc0;
                field[0] = kept | (stepped(field[0].into()) as u8 & 0x3f);
            }
            Field::Bytes(size) => {
                let new = stepped(low_bytes(field)).to_le_bytes();
                field.copy_from_slice(&new[..size]);
            }
            Field::Uleb128 => {
                let bits = |at: usize| 7 * at as u32;
                let old = field.iter().enumerate().fold(0, |old, (at, byte)| {
                    old | u64::from(byte & 0x7f) << bits(at)
                });
                let new = stepped(old);
                for (at, byte) in field.iter_mut().enumerate() {
                    *byte = *byte & 0x80 | (new >> bits(at)) as u8 & 0x7f;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(r_type: elf::RelocationType, data: &mut [u8], value: u64) {
        let difference = Difference::of(r_type).expect("half of a difference");
        let size = difference.size(data, 0);
        difference.apply(&mut data[..size], value);
    }

    #[test]
    fn differences_of_risc_v() {
        let mut word = 10_u32.to_le_bytes();
        apply(elf::R_RISCV_ADD32, &mut word, 0x1_0000_2000);
        apply(elf::R_RISCV_SUB32, &mut word, 0x1_0000_1000);
        assert_eq!(u32::from_le_bytes(word), 0x100a);

        // `DW_CFA_advance_loc` in the two high bits.
        let mut byte = [0x40];
        apply(elf::R_RISCV_SET6, &mut byte, 0x1004);
        apply(elf::R_RISCV_SUB6, &mut byte, 0x1000);
        assert_eq!(byte, [0x44]);

        // 0 in two bytes, and 1 that is no part of it.
        let mut uleb128 = [0x80, 0x00, 0x01];
        apply(elf::R_RISCV_SET_ULEB128, &mut uleb128, 0x1090);
        apply(elf::R_RISCV_SUB_ULEB128, &mut uleb128, 0x1000);
        assert_eq!(uleb128, [0x90, 0x01, 0x01]);

        let endless = [0x80; 2];
        let difference = Difference::of(elf::R_RISCV_SUB_ULEB128).expect("one");
        assert_eq!(difference.size(&endless, 0), 0);
        assert_eq!(difference.size(&endless, 7), 0);
    }
}
