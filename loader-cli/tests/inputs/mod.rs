//! Where DWARF may be: compressed, or in a separate debug file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Extras, S390X, SequenceSpec, UnitSpec, X86_64, compress, object_with};
use lineinfo_cli::Error;
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_core::blob::Encoding;
use lineinfo_core::{Address, Offset, Table};
use object::{SectionKind, elf};
use tempfile::TempDir;

const TEXT: [(&str, u64); 2] = [(".text", 4), (".init.text", 2)];
const BUILD_ID: [u8; 4] = [0xab, 0xcd, 0xef, 0x01];

/// A note section that has the build-id.
fn build_id_note(build_id: &[u8; 4]) -> Vec<u8> {
    let words = [4_u32, 4, elf::NT_GNU_BUILD_ID.0].map(u32::to_le_bytes);
    [&words.concat()[..], b"GNU\0", build_id].concat()
}

/// Name and CRC of a debug file, as objcopy writes them.
fn debug_link(name: &str, debug: &[u8]) -> Vec<u8> {
    let mut link = name.as_bytes().to_vec();
    link.resize((link.len() + 1).next_multiple_of(4), 0);
    link.extend(crc32fast::hash(debug).to_le_bytes());
    link
}

fn with_dwarf(extras: Extras<'_>) -> Vec<u8> {
    let core = [(0, "a.c", 10), (2, "b.h", 20)];
    let init = [(0, "a.c", 30)];
    let sequences = [
        SequenceSpec {
            section: 0,
            rows: &core,
            len: 4,
        },
        SequenceSpec {
            section: 1,
            rows: &init,
            len: 2,
        },
    ];
    let unit = UnitSpec {
        version: 4,
        comp_dir: "/src/linux",
        name: "fs/a.c",
        sequences: &sequences,
    };
    object_with(X86_64, &TEXT, &[unit], extras)
}

/// What a table of the file says at every byte of its text.
fn answers(path: &Path, debug_dirs: &[PathBuf]) -> Result<Vec<String>, Error> {
    let file = ElfFile::open(path)?.with_debug(debug_dirs)?;
    let extracted = extract(&file.parse()?, &Naming::default(), &())?;
    let blob = extracted.encode(Encoding::Flat).expect("a table");
    let table = Table::parse(&blob).expect("a valid table");
    let regions = table.regions();
    let offsets = regions.flat_map(|region| (0..region.len).map(move |at| (region.start.0, at)));
    Ok(offsets
        .filter_map(|(start, at)| table.lookup(Address::Exact(Offset(start + u64::from(at)))))
        .map(|location| location.to_string())
        .collect())
}

const EXPECTED: [&str; 6] = ["a.c:10", "a.c:10", "b.h:20", "b.h:20", "a.c:30", "a.c:30"];

/// A directory with a stripped `x.ko`, whose build-id and debug link name `debug`.
fn stripped(debug: &[u8]) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    let image = object_with(
        X86_64,
        &TEXT,
        &[],
        Extras {
            sections: &[
                (
                    ".note.gnu.build-id",
                    SectionKind::Note,
                    &build_id_note(&BUILD_ID),
                ),
                (
                    ".gnu_debuglink",
                    SectionKind::Other,
                    &debug_link("x.ko.debug", debug),
                ),
            ],
            ..Extras::default()
        },
    );
    write(&directory.path().join("x.ko"), &image);
    directory
}

fn debug_file(build_id: &[u8; 4]) -> Vec<u8> {
    let note = build_id_note(build_id);
    with_dwarf(Extras {
        sections: &[(".note.gnu.build-id", SectionKind::Note, &note)],
        ..Extras::default()
    })
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(path, bytes).expect("room for a small file");
}

#[test]
fn debug_sections_compressed_by_zlib_and_zstd() {
    for compression in [elf::ELFCOMPRESS_ZLIB, elf::ELFCOMPRESS_ZSTD] {
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().join("x.ko");
        let file = with_dwarf(Extras {
            compression: Some(compression),
            ..Extras::default()
        });
        write(&path, &file);
        assert_eq!(answers(&path, &[]).expect("a table"), EXPECTED);
    }
}

#[test]
fn a_compressed_section_that_claims_too_much_is_refused_and_not_given_memory() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("x.ko");
    let bomb = compress(X86_64, elf::ELFCOMPRESS_ZLIB, &vec![0; 257 << 20]);
    let file = with_dwarf(Extras {
        sections: &[(".debug_line_str", SectionKind::Debug, &bomb)],
        ..Extras::default()
    });
    write(&path, &file);
    let error = answers(&path, &[]).expect_err("more than the limit");
    assert!(
        error
            .to_string()
            .contains("a compressed section: 269484032 bytes of memory"),
        "{error}"
    );
}

#[test]
fn debug_files_are_found_by_build_id_and_by_name() {
    let debug = debug_file(&BUILD_ID);
    for place in [
        "x.ko.debug",
        ".debug/x.ko.debug",
        "store/.build-id/ab/cdef01.debug",
        "store/{directory}/x.ko.debug",
    ] {
        let directory = stripped(&debug);
        let path = directory.path().join("x.ko");
        let real = directory.path().canonicalize().expect("it is there");
        let place = place.replace("{directory}", &real.display().to_string());
        let store = [
            directory.path().join("nothing"),
            directory.path().join("store"),
        ];
        assert!(matches!(
            answers(&path, &store),
            Err(Error::NoDebugInformation { .. })
        ));
        write(&directory.path().join(&place), &debug);
        assert_eq!(answers(&path, &store).expect(&place), EXPECTED, "{place}");
    }
}

#[test]
fn a_debug_file_of_another_build_is_an_error_unless_there_is_a_right_one() {
    let debug = debug_file(&BUILD_ID);
    let directory = stripped(&debug);
    let path = directory.path().join("x.ko");
    let store = [directory.path().join("store")];
    let mut damaged = debug.clone();
    damaged.push(0);
    write(&directory.path().join("x.ko.debug"), &damaged);
    let error = answers(&path, &store).expect_err("another CRC").to_string();
    assert!(error.contains(".gnu_debuglink says"), "{error}");

    let by_id = store[0].join(".build-id/ab/cdef01.debug");
    write(&by_id, &debug_file(&[1; 4]));
    let error = answers(&path, &store)
        .expect_err("another build-id")
        .to_string();
    assert!(
        error.contains(r#"build-id is "01010101", the image's "abcdef01""#),
        "{error}"
    );

    write(&by_id, &debug);
    assert_eq!(answers(&path, &store).expect("the right one"), EXPECTED);
}

#[test]
fn a_debug_file_with_other_sections_is_refused() {
    let note = build_id_note(&BUILD_ID);
    let extras = Extras {
        sections: &[(".note.gnu.build-id", SectionKind::Note, &note)],
        ..Extras::default()
    };
    let rows = [(0, "a.c", 10)];
    let sequences = [SequenceSpec {
        section: 0,
        rows: &rows,
        len: 2,
    }];
    let unit = UnitSpec {
        version: 5,
        comp_dir: "/src/linux",
        name: "fs/a.c",
        sequences: &sequences,
    };
    let debug = object_with(X86_64, &[(".text", 2)], &[unit], extras);
    let directory = stripped(&debug);
    write(&directory.path().join("x.ko.debug"), &debug);
    let error = answers(&directory.path().join("x.ko"), &[]).expect_err("other sections");
    assert!(
        error
            .to_string()
            .contains("no such executable section .text"),
        "{error}"
    );
}

#[test]
fn a_compressed_section_of_a_big_endian_file() {
    let rows = [(0, "a.c", 10)];
    let sequences = [SequenceSpec {
        section: 0,
        rows: &rows,
        len: 2,
    }];
    let unit = UnitSpec {
        version: 5,
        comp_dir: "/src/linux",
        name: "fs/a.c",
        sequences: &sequences,
    };
    let extras = Extras {
        compression: Some(elf::ELFCOMPRESS_ZSTD),
        ..Extras::default()
    };
    let file = object_with(S390X, &[(".text", 2)], &[unit], extras);
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("x.ko");
    write(&path, &file);
    assert_eq!(answers(&path, &[]).expect("a table"), ["a.c:10", "a.c:10"]);
}
