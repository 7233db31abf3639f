//! The ELF side of an image: text sections, identity, and DWARF sections with relocations applied.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};

use gimli::SectionId;
use object::read::elf::FileHeader;
use object::read::{
    Object, ObjectKind, ObjectSection, ObjectSymbol, ReadCache, Relocation, RelocationTarget,
    SectionIndex,
};
use object::{RelocationKind, SectionFlags, elf};

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
    /// The address behind its last byte.
    pub fn end(&self) -> u64 {
        self.address + u64::from(self.len)
    }
}

/// In a relocatable file text sections are laid out one after the other with this alignment, and
/// none at 0, where discarded code is.
const RELOCATABLE_ALIGN: u64 = 4096;

/// An ELF file on disk, from which only what is asked for is read.
#[derive(Debug)]
pub struct ElfFile {
    path: PathBuf,
    cache: ReadCache<File>,
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
        })
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
        let identity = identify(&file).map_err(failed)?;
        Ok(Elf {
            path: &self.path,
            file,
            identity,
        })
    }
}

/// A parsed ELF file.
#[derive(Debug)]
pub struct Elf<'a> {
    path: &'a Path,
    file: object::File<'a, &'a ReadCache<File>>,
    /// What a table says of it.
    pub identity: Identity,
}

type Parsed<'a> = object::File<'a, &'a ReadCache<File>>;

fn identify(file: &Parsed<'_>) -> Result<Identity, ElfError> {
    let machine = match file {
        object::File::Elf32(elf) => elf.elf_header().e_machine(elf.endian()),
        object::File::Elf64(elf) => elf.elf_header().e_machine(elf.endian()),
        _ => elf::EM_NONE,
    };
    let relocatable = file.kind() == ObjectKind::Relocatable;
    let mut text = Vec::new();
    let mut size_bytes = 0_u64;
    let mut next = RELOCATABLE_ALIGN;
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            continue;
        };
        if !sh_flags.contains(elf::SHF_ALLOC) || section.size() == 0 {
            continue;
        }
        size_bytes += section.file_range().map_or(0, |(_, size)| size);
        if !sh_flags.contains(elf::SHF_EXECINSTR) {
            continue;
        }
        let name = section.name()?.to_owned();
        let len = u32::try_from(section.size())
            .ok()
            .filter(|len| section.address().checked_add(u64::from(*len)).is_some())
            .ok_or_else(|| ElfError::TextSection {
                name: name.clone(),
                address: section.address(),
                size: section.size(),
            })?;
        let address = if relocatable { next } else { section.address() };
        next = (next + u64::from(len)).next_multiple_of(RELOCATABLE_ALIGN);
        text.push(TextSection {
            init: name.starts_with(".init."),
            name,
            address,
            len,
            index: section.index(),
        });
    }
    text.sort_by_key(|section| section.address);
    let text_start = file
        .symbols()
        .find(|symbol| symbol.name_bytes() == Ok(b"_text"))
        .map(|symbol| symbol.address())
        .or_else(|| text.first().map(|section| section.address))
        .unwrap_or(0);
    Ok(Identity {
        machine: machine.0,
        relocatable,
        build_id: file.build_id()?.unwrap_or_default().to_owned(),
        text_start,
        size_bytes,
        text,
    })
}

impl<'a> Elf<'a> {
    /// The path that was opened.
    pub fn path(&self) -> &'a Path {
        self.path
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
        let read = self.read_section(id.name());
        read.map_err(|source| Error::Elf {
            path: self.path.to_owned(),
            source,
        })
    }

    fn read_section(&self, name: &str) -> Result<Cow<'a, [u8]>, ElfError> {
        let Some(section) = self.file.section_by_name(name) else {
            return Ok(Cow::Borrowed(&[]));
        };
        let mut data = section.uncompressed_data()?;
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
        let size = usize::from(relocation.size() / 8);
        let field = usize::try_from(at)
            .ok()
            .and_then(|at| data.get_mut(at..)?.get_mut(..size));
        let (Some(field), RelocationKind::Absolute, 4 | 8) = (field, relocation.kind(), size)
        else {
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
        // The field as the low bytes of a little-endian number, whatever the file's order.
        let little = self.file.is_little_endian();
        let swap = |bytes: &mut [u8]| {
            if !little {
                bytes.reverse();
            }
        };
        let mut value = symbol.wrapping_add_signed(relocation.addend());
        if relocation.has_implicit_addend() {
            let mut bytes = [0; 8];
            bytes[..size].copy_from_slice(field);
            swap(&mut bytes[..size]);
            value = value.wrapping_add(u64::from_le_bytes(bytes));
        }
        field.copy_from_slice(&value.to_le_bytes()[..size]);
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
