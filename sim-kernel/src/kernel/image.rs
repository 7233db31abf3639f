//! The kernel image: what the executable of this process states about itself.

use std::fs::File;
use std::ops::Range;
use std::sync::OnceLock;

use object::read::ReadCache;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSegment, SectionKind};

use super::kallsyms::Kallsyms;

/// The path of the host at which the image of the running kernel can be read.
pub(crate) const PATH: &str = "/proc/self/exe";

/// The ELF machine number of the only machine that this package is built for.
pub(crate) const MACHINE: u16 = object::elf::EM_X86_64.0;

/// An image in memory: that of the kernel, or of a module.
#[derive(Debug)]
pub(crate) struct Image {
    /// Its build-id; empty if it was linked without.
    pub(crate) build_id: Vec<u8>,
    /// What was added to link-time addresses when it was loaded, in bytes.
    pub(crate) slide: u64,
    /// Run-time addresses of its text.
    pub(crate) text: Range<u64>,
    /// Its ELF machine number.
    pub(crate) machine: u16,
    /// Its symbols.
    pub(crate) symbols: Kallsyms,
}

static IMAGE: OnceLock<Image> = OnceLock::new();
static OTHER: OnceLock<Image> = OnceLock::new();

/// The image that tables are about: the running one, or that of another kernel (`--as`).
pub(crate) fn of_tables() -> Option<&'static Image> {
    OTHER.get().or_else(image)
}

/// Makes tables about the image of another kernel; the first call counts.
pub(crate) fn set_of_tables(other: Image) -> &'static Image {
    OTHER.get_or_init(|| other)
}

/// Whether tables are about another kernel.
pub(crate) fn is_another() -> bool {
    OTHER.get().is_some()
}

/// The image of the running kernel, once the boot has read it; for any context.
pub(crate) fn image() -> Option<&'static Image> {
    IMAGE.get()
}

/// Sets the [`image`]; the first call counts.
pub(crate) fn init(image: Image) -> &'static Image {
    IMAGE.get_or_init(|| image)
}

impl Image {
    /// Reads it from its file; its first byte is at `start`, a run-time address.
    pub(crate) fn read(file: File, start: u64) -> Result<Self, object::Error> {
        Self::read_at(file, |first| start.wrapping_sub(first))
    }

    /// Reads it from its file, with the addresses that it was linked for.
    pub(crate) fn read_as_linked(file: File) -> Result<Self, object::Error> {
        Self::read_at(file, |_first| 0)
    }

    /// `slide_of` returns the slide, given the lowest link-time address.
    fn read_at(file: File, slide_of: impl FnOnce(u64) -> u64) -> Result<Self, object::Error> {
        let cache = ReadCache::new(file);
        let elf = ElfFile64::<object::Endianness, _>::parse(&cache)?;
        let first = elf.segments().map(|segment| segment.address()).min();
        let slide = slide_of(first.unwrap_or(0));
        let text = elf
            .sections()
            .filter(|section| section.kind() == SectionKind::Text)
            .map(|section| section.address()..section.address() + section.size())
            .reduce(|all, one| all.start.min(one.start)..all.end.max(one.end))
            .unwrap_or(0..0);
        Ok(Self {
            build_id: elf.build_id()?.unwrap_or(&[]).to_vec(),
            slide,
            machine: elf.elf_header().e_machine.get(elf.endian()).0,
            text: text.start.wrapping_add(slide)..text.end.wrapping_add(slide),
            symbols: Kallsyms::read(&elf, slide),
        })
    }
}
