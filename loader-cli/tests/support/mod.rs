//! Relocatable ELF files with line tables made to order.

use gimli::write::{
    Address, AttributeValue, Dwarf, EndianVec, LineProgram, LineString, RelocateWriter, Relocation,
    RelocationTarget, Sections, Unit, Writer,
};
use gimli::{Encoding, Format, LineEncoding, RunTimeEndian, SectionId};
use std::io::Write;

use object::pod::bytes_of;
use object::write::{Object, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationEncoding, RelocationFlags, RelocationKind,
    SectionFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope, U32, U64, elf,
};

/// A machine, by what matters for reading: width, byte order, kind of relocations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) architecture: Architecture,
    pub(crate) endian: RunTimeEndian,
    pub(crate) address_size: u8,
}

pub(crate) const X86_64: Machine = Machine {
    architecture: Architecture::X86_64,
    endian: RunTimeEndian::Little,
    address_size: 8,
};

/// Relocations with the addend in the section (REL).
pub(crate) const I386: Machine = Machine {
    architecture: Architecture::I386,
    endian: RunTimeEndian::Little,
    address_size: 4,
};

pub(crate) const S390X: Machine = Machine {
    architecture: Architecture::S390x,
    endian: RunTimeEndian::Big,
    address_size: 8,
};

/// REL and big endian.
pub(crate) const ARM_BIG: Machine = Machine {
    architecture: Architecture::Arm,
    endian: RunTimeEndian::Big,
    address_size: 4,
};

/// A unit: where it was compiled, what it is, and its code.
pub(crate) struct UnitSpec<'a> {
    pub(crate) version: u16,
    pub(crate) comp_dir: &'a str,
    pub(crate) name: &'a str,
    pub(crate) sequences: &'a [SequenceSpec<'a>],
}

/// A sequence: its section, rows of (bytes from the start, file, line), and its length in bytes.
///
/// The section is an index into the text sections; an index beyond them is a tombstone at 0 of
/// nowhere.
pub(crate) struct SequenceSpec<'a> {
    pub(crate) section: usize,
    pub(crate) rows: &'a [(u64, &'a str, u64)],
    pub(crate) len: u64,
}

#[derive(Clone)]
struct SectionWriter {
    data: EndianVec<RunTimeEndian>,
    relocations: Vec<Relocation>,
}

impl RelocateWriter for SectionWriter {
    type Writer = EndianVec<RunTimeEndian>;

    fn writer(&self) -> &Self::Writer {
        &self.data
    }

    fn writer_mut(&mut self) -> &mut Self::Writer {
        &mut self.data
    }

    fn relocate(&mut self, relocation: Relocation) {
        self.relocations.push(relocation);
    }
}

const COMPRESSED: SectionFlags = SectionFlags::Elf {
    sh_type: elf::SHT_PROGBITS,
    sh_flags: elf::SHF_COMPRESSED,
};

/// How an object file differs from a plain one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras<'a> {
    /// Of debug sections.
    pub(crate) compression: Option<elf::CompressionType>,
    /// Alignment of each text section; 16 for those that have none here.
    pub(crate) aligns: &'a [u64],
    /// More sections; debug sections among them are taken to be compressed.
    pub(crate) sections: &'a [(&'a str, SectionKind, &'a [u8])],
}

/// An object file with text sections of these names and lengths, and the units' line tables.
pub(crate) fn object(machine: Machine, text: &[(&str, u64)], units: &[UnitSpec<'_>]) -> Vec<u8> {
    object_with(machine, text, units, Extras::default())
}

/// As [`object`], with extras.
pub(crate) fn object_with(
    machine: Machine,
    text: &[(&str, u64)],
    units: &[UnitSpec<'_>],
    extras: Extras<'_>,
) -> Vec<u8> {
    object_with_dies(machine, text, units, extras, |_| {})
}

/// As [`object_with`], with whatever is added to the units.
pub(crate) fn object_with_dies(
    machine: Machine,
    text: &[(&str, u64)],
    units: &[UnitSpec<'_>],
    extras: Extras<'_>,
    add: impl FnOnce(&mut Dwarf),
) -> Vec<u8> {
    let mut dwarf = Dwarf::new();
    for unit in units {
        add_unit(&mut dwarf, machine, unit, text.len());
    }
    add(&mut dwarf);
    let mut sections = Sections::new(SectionWriter {
        data: EndianVec::new(machine.endian),
        relocations: Vec::new(),
    });
    dwarf.write(&mut sections).expect("the DWARF is valid");

    let endian = match machine.endian {
        RunTimeEndian::Little => Endianness::Little,
        RunTimeEndian::Big => Endianness::Big,
    };
    let mut object = Object::new(BinaryFormat::Elf, machine.architecture, endian);
    let text_symbols: Vec<_> = text
        .iter()
        .enumerate()
        .map(|(at, (name, len))| {
            let section = object.add_section(Vec::new(), (*name).into(), SectionKind::Text);
            let align = extras.aligns.get(at).copied().unwrap_or(16);
            object.append_section_data(section, &vec![0x90; *len as usize], align);
            object.section_symbol(section)
        })
        .collect();
    let absolute = object.add_symbol(object::write::Symbol {
        name: b"discarded".to_vec(),
        value: 0,
        size: 0,
        kind: SymbolKind::Data,
        scope: SymbolScope::Compilation,
        weak: false,
        section: SymbolSection::Absolute,
        flags: SymbolFlags::None,
    });
    let mut ids = Vec::new();
    let mut added: Result<(), ()> = sections.for_each_mut(|id, section| {
        if section.data.len() > 0 {
            let added = object.add_section(Vec::new(), id.name().into(), SectionKind::Debug);
            let mut data = section.data.take();
            if let Some(compression) = extras.compression {
                data = compress(machine, compression, &data);
                object.section_mut(added).flags = COMPRESSED;
            }
            object.set_section_data(added, data, 1);
            ids.push((id, added));
        }
        Ok(())
    });
    let section_of = |wanted: SectionId| {
        let found = ids.iter().find(|(id, _)| *id == wanted);
        found.expect("the section was added").1
    };
    added = added.and(sections.for_each(|id, section| {
        for relocation in &section.relocations {
            let symbol = match relocation.target {
                RelocationTarget::Symbol(text) => *text_symbols.get(text).unwrap_or(&absolute),
                RelocationTarget::Section(target) => object.section_symbol(section_of(target)),
            };
            object
                .add_relocation(
                    section_of(id),
                    object::write::Relocation {
                        offset: relocation.offset as u64,
                        symbol,
                        addend: relocation.addend,
                        flags: RelocationFlags::Generic {
                            kind: RelocationKind::Absolute,
                            encoding: RelocationEncoding::Generic,
                            size: relocation.size * 8,
                        },
                    },
                )
                .expect("absolute relocations exist on every machine");
        }
        Ok(())
    }));
    added.expect("every section was added");
    for (name, kind, data) in extras.sections {
        let section = object.add_section(Vec::new(), (*name).into(), *kind);
        object.set_section_data(section, data.to_vec(), 4);
        if *kind == SectionKind::Debug {
            object.section_mut(section).flags = COMPRESSED;
        }
    }
    object.write().expect("the object is valid")
}

/// A compressed section, its header included, of a 64-bit machine.
pub(crate) fn compress(
    machine: Machine,
    compression: elf::CompressionType,
    data: &[u8],
) -> Vec<u8> {
    assert_eq!(machine.address_size, 8, "the header is that of ELF64");
    let endian = match machine.endian {
        RunTimeEndian::Little => Endianness::Little,
        RunTimeEndian::Big => Endianness::Big,
    };
    let header = elf::CompressionHeader64 {
        ch_type: U32::new(endian, compression),
        ch_reserved: U32::new(endian, 0),
        ch_size: U64::new(endian, data.len() as u64),
        ch_addralign: U64::new(endian, 1),
    };
    let mut section = bytes_of(&header).to_vec();
    if compression == elf::ELFCOMPRESS_ZSTD {
        section.extend(ruzstd::encoding::compress_to_vec(
            data,
            ruzstd::encoding::CompressionLevel::Fastest,
        ));
    } else {
        let mut encoder =
            flate2::write::ZlibEncoder::new(&mut section, flate2::Compression::default());
        encoder
            .write_all(data)
            .and_then(|()| encoder.try_finish())
            .expect("memory");
    }
    section
}

fn add_unit(dwarf: &mut Dwarf, machine: Machine, spec: &UnitSpec<'_>, texts: usize) {
    let encoding = Encoding {
        format: Format::Dwarf32,
        version: spec.version,
        address_size: machine.address_size,
    };
    let mut string = |text: &str| LineString::new(text, encoding, &mut dwarf.line_strings);
    let mut program = LineProgram::new(
        encoding,
        LineEncoding::default(),
        string(spec.comp_dir),
        None,
        string(spec.name),
        None,
    );
    for sequence in spec.sequences {
        program.begin_sequence(Some(Address::Symbol {
            symbol: sequence.section.min(texts),
            addend: 0,
        }));
        for (offset, file, line) in sequence.rows {
            let (directory, name) = match file.rsplit_once('/') {
                Some((directory, name)) => (program.add_directory(string(directory)), name),
                None => (program.default_directory(), *file),
            };
            let file = program.add_file(string(name), directory, None);
            let row = program.row();
            row.address_offset = *offset;
            row.file = file;
            row.line = *line;
            program.generate_row();
        }
        program.end_sequence(sequence.len);
    }
    let unit = dwarf.units.add(Unit::new(encoding, program));
    let unit = dwarf.units.get_mut(unit);
    let root = unit.get_mut(unit.root());
    for (name, value) in [
        (gimli::DW_AT_name, spec.name),
        (gimli::DW_AT_comp_dir, spec.comp_dir),
    ] {
        root.set(name, AttributeValue::String(value.into()));
    }
}
