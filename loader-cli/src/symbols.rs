//! Where functions are: the symbols of an ELF file, of a table, or a list like `/proc/kallsyms`.
//!
//! A frame names a symbol and its size, and that size is the kernel's: the distance to the next
//! symbol of its list (kernel/kallsyms.c, kernel/module/kallsyms.c), not the one in the ELF symbol.
//! A name alone says little; a name and a size that agree say that the symbols are of the kernel that
//! wrote the log.

mod section;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bstr::ByteSlice;
use lineinfo_core::Table;
use lineinfo_core::blob::{self, HEADER_SIZE, Header, SectionEntry, SectionKind};
use memchr::memmem::Finder;
use object::read::{Object, ObjectKind, ObjectSection, ObjectSymbol, SectionIndex, SymbolSection};
use object::{SectionFlags, SymbolKind, elf};
use smallvec::SmallVec;
use zerocopy::FromBytes;

use crate::compressed::Compression;
use crate::error::{ElfError, Error};
use crate::extract::elf::{ElfFile, Identity, Parsed};
use crate::files;
use crate::kind::{Foreign, Kind, Wanted};
use crate::log::Facts;

use self::section::Contents;

/// The functions of a kernel or a module.
#[derive(Debug)]
pub struct Symbols {
    path: PathBuf,
    /// Functions by ascending address, and whose they are.
    contents: Contents,
    names: NameIndex,
    /// Demangled names of Rust, sorted, and the functions that bear them.
    demangled: OnceCell<Vec<(String, u32)>>,
    /// The build-id of the image, empty if it has none; a list does not say it.
    build_id: Option<Vec<u8>>,
    /// Address of `_text`.
    text_start: u64,
}

/// What a table says that it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The module; `None` for a kernel.
    pub module: Option<String>,
    /// The release of the kernel.
    pub release: String,
    /// The build-id.
    pub build_id: Vec<u8>,
}

/// A symbol in executable text.
#[derive(Clone, Debug)]
struct Function {
    hash: u64,
    name: Range<u32>,
    address: u64,
    /// Bytes to the next symbol; and to the next one that is no label inside the function, for a
    /// kernel whose list lacks these. 0 is unknown.
    sizes: [u64; 2],
}

/// Finds functions by a hash: a search of a hundred thousand would miss the cache at nearly every
/// step.
#[derive(Debug)]
struct NameIndex {
    /// By the low bits of a hash, the first function, or [`NameIndex::NONE`].
    first: Vec<u32>,
    /// The next function of the same bits.
    next: Vec<u32>,
}

impl NameIndex {
    const NONE: u32 = u32::MAX;

    fn new(functions: &[Function]) -> Self {
        let mut first = vec![Self::NONE; functions.len().next_power_of_two()];
        let mut next = vec![Self::NONE; functions.len()];
        // From the last on, so that the lists ascend.
        for (position, function) in functions.iter().enumerate().rev() {
            let bits = function.hash as usize & (first.len() - 1);
            let head = &mut first[bits];
            next[position] = std::mem::replace(head, position as u32);
        }
        Self { first, next }
    }

    /// The positions of functions whose hashes have the same low bits.
    fn of(&self, hash: u64) -> impl Iterator<Item = usize> {
        let head = self.first[hash as usize & (self.first.len() - 1)];
        let following = |position: &usize| self.next.get(*position).map(|next| *next as usize);
        std::iter::successors(Some(head as usize), following)
            .take_while(|position| *position < self.next.len())
    }
}

/// Addresses of functions of one name; nearly always one.
pub type Addresses = SmallVec<[u64; 2]>;

/// What bears a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Functions of this name and size, by address.
    Functions(Addresses),
    /// Functions of this name, and none of this size.
    OtherSize,
    /// Nothing.
    Nothing,
}

/// Why a file gives no symbols.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolsError {
    /// An ELF file without a symbol table.
    #[error(
        "it has no symbols: it was stripped; name the vmlinux of the -dbg package, or a copy of its kernel's /proc/kallsyms"
    )]
    Stripped,
    /// A list in which all addresses of the kernel are 0.
    #[error(
        "every address of the kernel in it is 0, as kernel.kptr_restrict hides them; copy it as root after sysctl kernel.kptr_restrict=1, or name a vmlinux"
    )]
    Hidden,
    /// More than a table can hold.
    #[error("its symbols take more than 64 MiB; leave them out with --no-symbols")]
    TooMany,
    /// A list without `_text`.
    #[error(
        "it has no symbol _text, so the KASLR slide is unknown; copy the whole of /proc/kallsyms, or name a vmlinux"
    )]
    NoText,
}

/// The largest list that is decompressed, in bytes: ten times that of a distribution's kernel.
const LIST_MAX: u64 = 256 << 20;

/// A symbol before sizes are known.
#[derive(Debug)]
struct Raw {
    name: Range<u32>,
    address: u64,
    /// Which of the separate memories of a module it is in.
    memory: u8,
    /// The size in the ELF symbol.
    len: u64,
    is_code: bool,
}

/// A text section of a module, laid out as the kernel does it.
#[derive(Debug)]
struct ModuleText {
    index: SectionIndex,
    address: u64,
    memory: u8,
}

/// The core memory of a module and the one that is freed after its init.
const MEMORIES: usize = 2;
const CORE: u8 = 0;
const INIT: u8 = 1;

/// Module text was padded to whole pages once.
const PAGE: u64 = 4096;

impl Symbols {
    /// Reads the symbols of an ELF file or of a list.
    ///
    /// # Errors
    ///
    /// [`Error::Symbols`] if there are none, [`Error::Foreign`], [`Error::Elf`] or [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        const MAGIC: &[u8] = b"\x7fELF";

        let file = files::open_regular(path)?;
        let mut head = Vec::new();
        match Compression::of(&file) {
            Ok(Some(compression)) => {
                let mut reader = compression.reader(&file).map_err(Error::io(path))?;
                let mut start = reader.by_ref().take(MAGIC.len() as u64);
                start.read_to_end(&mut head).map_err(Error::io(path))?;
                if head == MAGIC {
                    return Self::of_elf(&ElfFile::open(path)?);
                }
                reader
                    .take(LIST_MAX)
                    .read_to_end(&mut head)
                    .map_err(Error::io(path))?;
                Self::of_list(path, &head)
            }
            _ => {
                let mut magic = [0; MAGIC.len()];
                match file.read_exact_at(&mut magic, 0).is_ok() && magic == *MAGIC {
                    true => Self::of_elf(&ElfFile::open(path)?),
                    false => Self::of_list(path, &files::read(path)?),
                }
            }
        }
    }

    /// Reads the symbols of an image, or, if it was stripped of them, of its debug file.
    ///
    /// # Errors
    ///
    /// Those of [`Symbols::open`].
    pub fn of_image(image: &ElfFile) -> Result<Self, Error> {
        match (Self::of_elf(image), image.debug()) {
            (
                Err(Error::Symbols {
                    source: SymbolsError::Stripped,
                    ..
                }),
                Some(debug),
            ) => Self::of_elf(debug),
            (symbols, _) => symbols,
        }
    }

    /// Reads the symbols of a table; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`Error::Blob`] if they are damaged.
    pub fn of_table(path: &Path, table: &Table<'_>) -> Result<Option<Self>, Error> {
        let Some(section) = table.symbols() else {
            return Ok(None);
        };
        let mut sections = table.sections();
        let offset = sections
            .find_map(|(kind, offset, _)| (kind == Some(SectionKind::Symbols)).then_some(offset));
        let layout = table.layout();
        let offset = offset.unwrap_or_default();
        let contents = Contents::read(section, offset, layout.text_start());
        let contents = contents.map_err(|source| Error::Blob {
            path: path.to_owned(),
            source,
        })?;
        let build_id = Some(layout.build_id().to_owned());
        Ok(Some(Self::new(
            path,
            contents,
            build_id,
            layout.text_start(),
        )))
    }

    /// What a table says that it is of, from its first bytes and those of its symbols; `None` if that
    /// cannot be read, or it has no symbols. Nothing of it is checked.
    pub fn claim(path: &Path) -> Option<Claim> {
        /// What is read of the symbols, in bytes: in it are the codes of DEFLATE, at most 320 bytes, and
        /// two words of at most 64 bytes.
        const START: usize = 1024;

        let file = files::open_regular(path).ok()?;
        let mut head = [0; HEADER_SIZE];
        file.read_exact_at(&mut head, 0).ok()?;
        let header = Header::read_from_bytes(&head).ok()?;
        if header.magic != blob::MAGIC || header.format_version.get() != blob::FORMAT_VERSION {
            return None;
        }
        let mut directory = vec![0; usize::from(header.sections) * size_of::<SectionEntry>()];
        file.read_exact_at(&mut directory, HEADER_SIZE as u64)
            .ok()?;
        let entries = <[SectionEntry]>::ref_from_bytes(&directory).ok()?;
        let index = entries.iter().position(|entry| {
            SectionKind::from_number(entry.kind.into()) == Some(SectionKind::Symbols)
        })?;
        let size = |entry: &SectionEntry| u64::from(entry.size.get());
        let before: u64 = entries[..index].iter().map(size).sum();
        let at = (HEADER_SIZE + directory.len()) as u64 + before;
        let mut start = [0; START];
        let len = START.min(entries[index].size.get() as usize);
        file.read_exact_at(&mut start[..len], at).ok()?;
        let (module, release) = section::claim(&start[..len])?;
        let build_id = header.build_id.get(..usize::from(header.build_id_len))?;
        Some(Claim {
            module,
            release: release?,
            build_id: build_id.to_owned(),
        })
    }

    fn new(path: &Path, contents: Contents, build_id: Option<Vec<u8>>, text_start: u64) -> Self {
        Self {
            path: path.to_owned(),
            names: NameIndex::new(&contents.functions),
            contents,
            demangled: OnceCell::new(),
            build_id,
            text_start,
        }
    }

    /// The section of a table with these symbols; `text_start` is what the table's addresses are
    /// relative to.
    ///
    /// # Errors
    ///
    /// [`SymbolsError::TooMany`].
    pub fn to_section(&self, text_start: u64) -> Result<Vec<u8>, Error> {
        let section = self.contents.write(text_start);
        section.ok_or_else(|| symbols_error(&self.path, SymbolsError::TooMany))
    }

    fn of_elf(opened: &ElfFile) -> Result<Self, Error> {
        let path = opened.path();
        let failed = |source| Error::Elf {
            path: path.to_owned(),
            source: ElfError::Structure(source),
        };
        let identity = opened.parse()?.identity;
        let file = opened.object()?;
        let is_module = file.kind() == ObjectKind::Relocatable;
        let (texts, ends) = match is_module {
            true => module_texts(&file, &identity),
            false => (Vec::new(), [0; MEMORIES]),
        };
        let executable: Vec<SectionIndex> = match is_module {
            true => texts.iter().map(|text| text.index).collect(),
            false => file
                .sections()
                .filter(is_executable)
                .map(|section| section.index())
                .collect(),
        };

        let mut names = Vec::new();
        let mut raw = Vec::new();
        for symbol in file.symbols() {
            let name = symbol.name_bytes().map_err(failed)?;
            let is_local_absolute =
                symbol.section() == SymbolSection::Absolute && symbol.is_local();
            if symbol.is_undefined()
                || is_local_absolute
                || matches!(symbol.kind(), SymbolKind::Section | SymbolKind::File)
                || is_ignored(name)
            {
                continue;
            }
            let section = symbol.section_index();
            let is_code = section.is_some_and(|section| executable.contains(&section));
            let mut address = symbol.address();
            // Bit 0 says that the code is Thumb.
            if identity.machine == elf::EM_ARM.0 && symbol.kind() == SymbolKind::Text {
                address &= !1;
            }
            let text = texts.iter().find(|text| Some(text.index) == section);
            let (base, memory) = match text {
                Some(text) => (text.address, text.memory),
                None if is_module => continue,
                None => (0, CORE),
            };
            raw.push(Raw {
                name: push(&mut names, name),
                address: base.wrapping_add(address),
                memory,
                len: symbol.size(),
                is_code,
            });
        }
        // A module may have data alone.
        let has_code = !is_module || !executable.is_empty();
        if has_code && !raw.iter().any(|symbol| symbol.is_code) {
            return Err(symbols_error(path, SymbolsError::Stripped));
        }
        let ends = match is_module {
            true => ends,
            false => [identity.text.last().map_or(0, |text| text.end()), 0],
        };
        let contents = Contents {
            functions: functions(raw, ends, &names),
            names,
            module: is_module.then(|| module_name(path, &file)),
            release: match is_module {
                // `6.12.0 SMP preempt mod_unload `
                true => module_info(&file, b"vermagic")
                    .and_then(|magic| magic.split(' ').next())
                    .map(str::to_owned),
                false => release_of_kernel(&file),
            },
        };
        let build_id = Some(identity.build_id);
        Ok(Self::new(path, contents, build_id, identity.text_start))
    }

    fn of_list(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let mut names = Vec::new();
        let mut raw = Vec::new();
        let mut text_start = None;
        // Of the symbols of the kernel, which are hidden though those of modules are not.
        let mut is_hidden = None;
        for line in bytes.lines() {
            let Some((address, kind, name)) = list_line(line) else {
                continue;
            };
            let (name, of_module) = match name.split_once_str("\t") {
                Some((name, _)) => (name, true),
                None => (name, false),
            };
            if name == b"_text" && !of_module {
                text_start = Some(address);
            }
            if !of_module {
                is_hidden = Some(address == 0 && is_hidden != Some(false));
            }
            raw.push(Raw {
                name: push(&mut names, name),
                address,
                memory: CORE,
                len: 0,
                is_code: !of_module && matches!(kind, b't' | b'T' | b'w' | b'W'),
            });
        }
        let kind = Kind::of_head(bytes);
        let may_be_list = matches!(kind, Kind::SymbolList | Kind::Text | Kind::Other);
        if raw.is_empty() || !may_be_list {
            return Err(Foreign::error(path, kind, Wanted::Symbols));
        }
        if is_hidden == Some(true) {
            return Err(symbols_error(path, SymbolsError::Hidden));
        }
        let text_start = text_start.ok_or_else(|| symbols_error(path, SymbolsError::NoText))?;
        let contents = Contents {
            functions: functions(raw, [0; MEMORIES], &names),
            names,
            ..Contents::default()
        };
        Ok(Self::new(path, contents, None, text_start))
    }

    /// The file they were read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The build-id of the image, empty if it has none; `None` for a list, which does not say it.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// The module they are of; `None` for a kernel.
    pub fn module(&self) -> Option<&str> {
        self.contents.module.as_deref()
    }

    /// The release of the kernel they are of, where the file says it.
    pub fn release(&self) -> Option<&str> {
        self.contents.release.as_deref()
    }

    /// Address of `_text`: in a list that of the running kernel, KASLR slide included.
    pub const fn text_start(&self) -> u64 {
        self.text_start
    }

    /// The functions of a name and size.
    ///
    /// The name may lack the `.llvm.NNN` of a symbol, as the kernels 5.13 to 6.10 print it, and a name
    /// of Rust may be demangled. Addresses are those of the file.
    pub fn find(&self, name: &[u8], size: u64) -> Found {
        let of_size = |functions: &mut dyn Iterator<Item = &Function>| {
            let mut known = false;
            let mut addresses: Addresses = functions
                .inspect(|_| known = true)
                .filter(|function| size != 0 && function.sizes.contains(&size))
                .map(|function| function.address)
                .collect();
            addresses.sort_unstable();
            addresses.dedup();
            match (addresses.is_empty(), known) {
                (false, _) => Found::Functions(addresses),
                (true, true) => Found::OtherSize,
                (true, false) => Found::Nothing,
            }
        };
        // A list of a kernel that leaves the suffix out has no name with it.
        let is_list = self.build_id.is_none();
        let mut named = self.of_base(name).filter(|function| {
            let found = self.name_of(function);
            found == name || base_of(found) == name || is_list && found == base_of(name)
        });
        let found = of_size(&mut named);
        if found != Found::Nothing {
            return found;
        }
        match name.to_str() {
            Ok(name) if name.contains("::") => of_size(&mut self.demangled(name)),
            _ => found,
        }
    }

    /// The function that a byte is in, by its name, start and size. Of several names of one function it is
    /// the one with the fewest underscores before it, and of these the first.
    pub fn at(&self, address: u64) -> Option<(&[u8], u64, u64)> {
        let functions = &self.contents.functions;
        let after = functions.partition_point(|function| function.address <= address);
        let start = functions[..after].last()?.address;
        let same = functions[..after].iter().rev();
        let same = same.take_while(|function| function.address == start);
        let holds = |function: &&Function| address - start < function.sizes[0];
        let named = same.filter(holds).map(|function| {
            let name = self.name_of(function);
            let underscores = name.iter().take_while(|byte| **byte == b'_').count();
            (underscores, name, function.sizes[0])
        });
        let (_, name, size) = named.min()?;
        Some((name, start, size))
    }

    /// The functions of a name, and of a size if there is one, that have a byte at an offset.
    pub fn all_of(&self, name: &[u8], size: Option<u64>, offset: u64) -> Addresses {
        match size {
            Some(size) => match self.find(name, size) {
                Found::Functions(addresses) if offset < size => addresses,
                Found::Functions(_) | Found::OtherSize | Found::Nothing => Addresses::new(),
            },
            None => self.containing(name, offset),
        }
    }

    /// The functions of a name, of whatever size, that have a byte at an offset.
    pub fn containing(&self, name: &[u8], offset: u64) -> Addresses {
        self.of_base(name)
            .filter(|function| self.name_of(function) == name)
            .filter(|function| offset < function.sizes[0])
            .map(|function| function.address)
            .collect()
    }

    /// The functions whose names are, without `.llvm.NNN`, that of `name` without it; and a few
    /// others.
    fn of_base(&self, name: &[u8]) -> impl Iterator<Item = &Function> {
        let hash = hash_of(name);
        let functions = self.names.of(hash);
        functions
            .map(|position| &self.contents.functions[position])
            .filter(move |function| function.hash == hash)
    }

    fn demangled<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Function> {
        let all = self.demangled.get_or_init(|| {
            let mut all: Vec<(String, u32)> = Vec::new();
            for (position, function) in self.contents.functions.iter().enumerate() {
                let mangled = self.name_of(function).to_str();
                if let Some(Ok(name)) = mangled.ok().map(rustc_demangle::try_demangle) {
                    let position = position as u32;
                    all.push((format!("{name:#}"), position));
                    let hashed = name.to_string();
                    if all.last().is_some_and(|(plain, _)| *plain != hashed) {
                        all.push((hashed, position));
                    }
                }
            }
            all.sort_unstable();
            all
        });
        let start = all.partition_point(|(found, _)| found.as_str() < name);
        all[start..]
            .iter()
            .take_while(move |(found, _)| found == name)
            .map(|(_, position)| &self.contents.functions[*position as usize])
    }

    fn name_of(&self, function: &Function) -> &[u8] {
        name_of(&self.contents.names, &function.name)
    }

    /// How these symbols, of a table, differ from those of its image, and how many functions were
    /// compared.
    pub fn compare(&self, image: &Self) -> (usize, Vec<String>) {
        let functions = |symbols: &'_ Self| -> BTreeSet<(u64, Vec<u8>, [u64; 2])> {
            let functions = symbols.contents.in_reach(symbols.text_start);
            let relative = |function: &Function| {
                let name = symbols.name_of(function).to_owned();
                (function.address - symbols.text_start, name, function.sizes)
            };
            functions.map(relative).collect()
        };
        let (own, of_image) = (functions(self), functions(image));
        let mut differences = Vec::new();
        for (what, own, of_image) in [
            ("module", self.module(), image.module()),
            ("release", self.release(), image.release()),
        ] {
            if own != of_image {
                differences.push(format!("{what}: table {own:?}, image {of_image:?}"));
            }
        }
        let show = |(offset, name, [size, _]): &(u64, Vec<u8>, [u64; 2]), where_is| {
            let address = self.text_start.wrapping_add(*offset);
            let name = name.escape_ascii();
            format!("{address:#x} ({name}/{size:#x}): only in the {where_is}")
        };
        differences.extend(own.difference(&of_image).map(|one| show(one, "table")));
        differences.extend(of_image.difference(&own).map(|one| show(one, "image")));
        (own.union(&of_image).count(), differences)
    }
}

/// The release that a vmlinux says it is of, in `linux_banner`.
fn release_of_kernel(file: &Parsed<'_>) -> Option<String> {
    let banner = file
        .symbols()
        .find(|symbol| symbol.name_bytes() == Ok(b"linux_banner"))?;
    let section = file.section_by_index(banner.section_index()?).ok()?;
    // It may be the last in its section.
    let section_end = section.address().checked_add(section.size())?;
    let len = section_end.checked_sub(banner.address())?.min(BANNER_MAX);
    let text = section.data_range(banner.address(), len).ok()??;
    let text = text.split(|byte| *byte == 0).next()?;
    Facts::of_line(text).release
}

/// What is read of a banner at most, in bytes: `Linux version `, a release of 64 bytes and what ends it fit.
const BANNER_MAX: u64 = 80;

fn symbols_error(path: &Path, source: SymbolsError) -> Error {
    Error::Symbols {
        path: path.to_owned(),
        source,
    }
}

fn push(names: &mut Vec<u8>, name: &[u8]) -> Range<u32> {
    let start = names.len() as u32;
    names.extend_from_slice(name);
    start..names.len() as u32
}

fn name_of<'a>(names: &'a [u8], name: &Range<u32>) -> &'a [u8] {
    &names[name.start as usize..name.end as usize]
}

/// A name without the `.llvm.NNN` of ThinLTO.
fn base_of(name: &[u8]) -> &[u8] {
    static SUFFIX: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(".llvm."));
    SUFFIX.find(name).map_or(name, |at| &name[..at])
}

fn hash_of(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(base_of(name));
    hasher.finish()
}

/// The size of a buffer for a name of a symbol (include/linux/kallsyms.h).
const KSYM_NAME_LEN: usize = 512;

/// Whether kallsyms leaves a symbol out (scripts/mksysmap, scripts/kallsyms.c, `is_mapping_symbol`):
/// labels of the compiler and the assembler, what the linker puts between functions, and names for which
/// there is no room.
fn is_ignored(name: &[u8]) -> bool {
    const THUNKS: [&[u8]; 5] = [
        b"__AArch64ADRPThunk_",
        b"__ARMV5PILongThunk_",
        b"__ARMV7PILongThunk_",
        b"__ThumbV7PILongThunk_",
        b"__LA25Thunk_",
    ];
    const VENEERS: [&[u8]; 3] = [b"_from_arm", b"_from_thumb", b"_veneer"];
    let local = [&b"__pi_"[..], b"__kvm_nvhe_"]
        .iter()
        .find_map(|prefix| name.strip_prefix(*prefix))
        .unwrap_or(name);
    name.is_empty()
        || name.len() >= KSYM_NAME_LEN
        || local.starts_with(b"$")
        || local.starts_with(b".L")
        || name.starts_with(b"L0")
        || name.starts_with(b"__efistub_")
        || name.starts_with(b"__kcfi_typeid_")
        || name.starts_with(b"__crc_")
        || THUNKS.iter().any(|thunk| name.starts_with(thunk))
        || VENEERS.iter().any(|veneer| name.ends_with(veneer))
}

/// `ffffffff81000000 T _text`: address, kind, name and what follows.
pub(crate) fn list_line(line: &[u8]) -> Option<(u64, u8, &[u8])> {
    let (address, rest) = line.split_once_str(" ")?;
    let (kind, name) = rest.split_once_str(" ")?;
    let is_address = !address.is_empty() && address.iter().all(u8::is_ascii_hexdigit);
    let address = u64::from_str_radix(address.to_str().ok()?, 16).ok()?;
    match kind {
        [kind] if is_address && !name.is_empty() => Some((address, *kind, name)),
        _ => None,
    }
}

/// Gives symbols their sizes, and keeps those of code. `ends` is where each memory ends.
fn functions(mut raw: Vec<Raw>, ends: [u64; MEMORIES], names: &[u8]) -> Vec<Function> {
    raw.sort_unstable_by_key(|symbol| (symbol.memory, symbol.address));
    let places: Vec<(u8, u64)> = raw
        .iter()
        .map(|symbol| (symbol.memory, symbol.address))
        .collect();
    // Bytes to the next symbol that is at or after `limit`.
    let size_to = |symbol: &Raw, limit: u64| {
        let next = places.partition_point(|place| *place < (symbol.memory, limit));
        let end = match places.get(next) {
            Some((memory, address)) if *memory == symbol.memory => *address,
            _ => ends[usize::from(symbol.memory)],
        };
        end.saturating_sub(symbol.address)
    };
    let mut functions: Vec<Function> = raw
        .iter()
        .filter(|symbol| symbol.is_code)
        .map(|symbol| {
            let after = symbol.address.saturating_add(1);
            let behind = symbol.address.saturating_add(symbol.len).max(after);
            let [first, mut second] = [after, behind].map(|limit| size_to(symbol, limit));
            let end = symbol.address.saturating_add(first);
            if end == ends[usize::from(symbol.memory)] {
                second = end.next_multiple_of(PAGE) - symbol.address;
            }
            Function {
                hash: hash_of(name_of(names, &symbol.name)),
                name: symbol.name.clone(),
                address: symbol.address,
                sizes: [first, second],
            }
        })
        .collect();
    functions.sort_by_key(|function| function.address);
    functions
}

fn is_executable<'a>(section: &impl ObjectSection<'a>) -> bool {
    let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
        return false;
    };
    sh_flags.contains(elf::SHF_ALLOC) && sh_flags.contains(elf::SHF_EXECINSTR) && section.size() > 0
}

/// The text sections of a module, and where each memory ends.
fn module_texts<'a>(file: &Parsed<'a>, identity: &Identity) -> (Vec<ModuleText>, [u64; MEMORIES]) {
    // In each memory sections are in the order of the file.
    let in_memory = |init: bool| identity.text.iter().filter(move |text| text.init == init);
    let (mut core, mut init) = (in_memory(false), in_memory(true));
    let mut ends = [0_u64; MEMORIES];
    let mut texts = Vec::new();
    for section in file.sections().filter(is_executable) {
        let is_init = section.name().is_ok_and(|name| name.starts_with(".init"));
        let (memory, next) = match is_init {
            true => (INIT, init.next()),
            false => (CORE, core.next()),
        };
        if let Some(text) = next {
            ends[usize::from(memory)] = text.end();
            texts.push(ModuleText {
                index: section.index(),
                address: text.address,
                memory,
            });
        }
    }
    (texts, ends)
}

/// What a module says of itself in `.modinfo`.
fn module_info<'a>(file: &Parsed<'a>, key: &[u8]) -> Option<&'a str> {
    let info = file.section_by_name(".modinfo")?.data().ok()?;
    let value = info
        .split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(key)?.strip_prefix(b"="))?;
    value.to_str().ok()
}

/// The name of a module: its own word for it, or that of the file. The kernel writes no hyphens.
fn module_name(path: &Path, file: &Parsed<'_>) -> String {
    let own = module_info(file, b"name").map(str::to_owned);
    let name = own.unwrap_or_else(|| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.split(".ko").next().unwrap_or_default().to_owned()
    });
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use object::write::{self, Object as Written};
    use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolScope};

    use super::*;

    /// A kernel with a function, and with a section of constants that ends with its banner.
    fn kernel(banner: &[u8]) -> Vec<u8> {
        let mut object = Written::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        for (section, kind, name, bytes) in [
            (".text", SectionKind::Text, "_text", &[0xc3; 16][..]),
            (".rodata", SectionKind::ReadOnlyData, "linux_banner", banner),
        ] {
            let section = object.add_section(Vec::new(), section.into(), kind);
            object.append_section_data(section, b"before", 1);
            let value = object.append_section_data(section, bytes, 1);
            object.add_symbol(write::Symbol {
                name: name.into(),
                value,
                size: bytes.len() as u64,
                kind: match kind {
                    SectionKind::Text => SymbolKind::Text,
                    _ => SymbolKind::Data,
                },
                scope: SymbolScope::Linkage,
                weak: false,
                section: write::SymbolSection::Section(section),
                flags: SymbolFlags::None,
            });
        }
        let mut bytes = object.write().expect("a kernel");
        // It is no module.
        bytes[16..18].copy_from_slice(&elf::ET_EXEC.0.to_le_bytes());
        bytes
    }

    #[test]
    fn a_module_of_data_was_not_stripped() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data.ko");
        for (text, expected) in [(&b""[..], true), (b"\xc3", false)] {
            let mut object =
                Written::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
            let section = object.add_section(Vec::new(), b".text".into(), SectionKind::Text);
            object.append_section_data(section, text, 1);
            std::fs::write(&path, object.write().expect("a module")).expect("room");
            let symbols = Symbols::open(&path);
            assert_eq!(symbols.is_ok(), expected, "{symbols:?}");
            if let Ok(symbols) = symbols {
                let written = symbols.to_section(0).expect("a section");
                let read = Contents::read(&written, 0, 0).expect("symbols");
                assert_eq!(read.module.as_deref(), Some("data"));
                assert!(read.functions.is_empty());
            }
        }
    }

    #[test]
    fn the_release_is_found_however_long_the_banner_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vmlinux");
        let longest = format!("6.{}", "1".repeat(62));
        for (banner, release) in [
            ("Linux version 6.1.0\0".to_owned(), Some("6.1.0")),
            ("Linux version 6.1.0".to_owned(), Some("6.1.0")),
            (
                "Linux version 6.1.0 (me@here) #1 SMP\n\0".to_owned(),
                Some("6.1.0"),
            ),
            (
                format!("Linux version {longest} ({})\n\0", "x".repeat(200)),
                Some(longest.as_str()),
            ),
            ("Linux version".to_owned(), None),
            (String::new(), None),
        ] {
            std::fs::write(&path, kernel(banner.as_bytes())).expect("room");
            let symbols = Symbols::open(&path).expect("symbols");
            assert_eq!(symbols.release(), release, "{banner:?}");
        }
    }
}
