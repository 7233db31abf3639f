//! Any bytes as an ELF file: an error or a table.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_core::Table;
use lineinfo_core::blob::Encoding;
use lineinfo_core::writer::EncodeError;

fuzz_target!(|input: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(input).expect("room for it");
    let Ok(file) = ElfFile::open(file.path()) else {
        return;
    };
    let Ok(elf) = file.parse() else {
        return;
    };
    let Ok(mut extracted) = extract(&elf, &Naming::default(), &()) else {
        return;
    };
    check(extracted.encode(Encoding::Packed));
    if extracted.reduce_to_calls(&elf).is_ok() {
        check(extracted.encode(Encoding::Packed));
    }
});

fn check(encoded: Result<Vec<u8>, EncodeError>) {
    match encoded {
        Ok(blob) => {
            let table = Table::parse(&blob).expect("a valid table");
            table.check_rows().expect("valid rows");
        }
        // The name of a section that a log cannot show.
        Err(EncodeError::Name { what: "region", .. }) => {}
        Err(error) => panic!("rows that make no table: {error}"),
    }
}
