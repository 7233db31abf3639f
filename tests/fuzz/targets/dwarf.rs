//! Any bytes as `.debug_line` and its strings: an error or a table, and a table that agrees with
//! itself.
//!
//! The input is the length of `.debug_line` (two bytes, little-endian), `.debug_line`, and the rest
//! as `.debug_line_str`. The text is at 0x1000, 4096 bytes of it, and another 4096 at 0x2000. The
//! seed was made from `loader-cli/tests/cmd/lineinfo.in/demo.elf`, whose text is elsewhere:
//!
//! ```text
//! for s in debug_line debug_line_str; do objcopy -O binary -j .$s --set-section-flags .$s=alloc demo.elf $s; done
//! { printf "\\x$(printf %02x $(($(stat -c %s debug_line) & 255)))\\x$(printf %02x $(($(stat -c %s debug_line) >> 8)))"
//!   sed 's/\x00\x10\x40/\x00\x10\x00/; s/\x06\x10\x40/\x00\x20\x00/' debug_line; cat debug_line_str; } > seeds/dwarf/demo
//! ```
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_core::blob::Encoding;
use lineinfo_core::{Address, Offset, Table};
use object::write::Object;
use object::{Architecture, BinaryFormat, Endianness, SectionKind};

fuzz_target!(|input: &[u8]| {
    let Some((len, rest)) = input.split_first_chunk::<2>() else {
        return;
    };
    let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
    let (line, strings) = rest.split_at(len);
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&elf(line, strings)).expect("room for it");

    let file = ElfFile::open(file.path()).expect("it is there");
    let elf = file.parse().expect("an ELF file");
    let Ok(extracted) = extract(&elf, &Naming::default(), &()) else {
        return;
    };
    let mut answers = Vec::new();
    for &encoding in Encoding::ALL {
        let blob = extracted.encode(encoding).expect("rows that make a table");
        let table = Table::parse(&blob).expect("a valid table");
        let said = (0..0x2000).map(|at| {
            table
                .lookup(Address::Exact(Offset(at)))
                .map(|found| found.to_string())
        });
        answers.push(said.collect::<Vec<_>>());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
});

fn elf(line: &[u8], strings: &[u8]) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    for (name, kind, data) in [
        (".text", SectionKind::Text, &[0x90; 4096][..]),
        (".init.text", SectionKind::Text, &[0x90; 4096]),
        (".debug_line", SectionKind::Debug, line),
        (".debug_line_str", SectionKind::Debug, strings),
    ] {
        let section = object.add_section(Vec::new(), name.into(), kind);
        object.set_section_data(section, data.to_vec(), 1);
    }
    object.write().expect("a valid object")
}
