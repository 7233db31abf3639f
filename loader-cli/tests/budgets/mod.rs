//! Files made to exhaust memory: an error that names the limit, or a table, and never more memory than
//! four times the file and 256 MiB.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{X86_64, compress};
use nix::sys::resource::{UsageWho, getrusage};
use object::write::Object;
use object::{
    Architecture, BinaryFormat, Endianness, SectionFlags, SectionKind, elf, elf::CompressionType,
};

/// The most memory for a small file, in kB.
const MEMORY_MAX_KB: u64 = 256 << 10;

/// The most time on a processor for all of them, with a debug build.
const SECONDS_MAX: i64 = 120;

/// Where text begins in a relocatable file.
const TEXT: u64 = 0x1000;

#[test]
fn no_file_takes_more_than_its_budget() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("bomb.ko");
    for (what, file, expected) in bombs() {
        fs::write(&path, &file).expect("room for it");
        for arguments in [&["--profile", "full"], &["--profile", "calls"]] {
            let output = lineinfo("build", &path, arguments);
            check(&output, expected, what, file.len());
        }
    }
    let seconds = getrusage(UsageWho::RUSAGE_CHILDREN)
        .expect("usage")
        .user_time();
    assert!(seconds.tv_sec() < SECONDS_MAX, "{seconds:?}");
}

#[test]
fn what_the_addr2line_crate_would_keep_is_bounded() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("bomb.ko");
    // Units that share one line program and one table of abbreviations, of which each has a copy.
    let root = b"\x01\x11\x00\x10\x17\x00\x00";
    let others: Vec<u8> = (2..60_000_u32)
        .flat_map(|code| {
            let low = |shift: u32| (code >> shift) as u8 & 0x7f;
            [low(0) | 0x80, low(7) | 0x80, low(14), 0x34, 0, 0, 0]
        })
        .collect();
    let abbreviations = [root, &others[..], b"\0"].concat();
    let unit = b"\x0c\0\0\0\x04\0\0\0\0\0\x08\x01\0\0\0\0";
    let file = object(
        &program(&[set_address(), ROW.to_vec(), END.to_vec()].concat(), b""),
        None,
        &[
            (".debug_info", &unit.repeat(20_000)),
            (".debug_abbrev", &abbreviations),
        ],
    );
    fs::write(&path, &file).expect("room for it");
    let table = directory.path().join("bomb.lineinfo");
    let output = lineinfo("build", &path, &[]);
    check(&output, None, "units that share abbreviations", file.len());
    let table = table.display().to_string();
    let output = lineinfo(
        "verify",
        Path::new(&table),
        &["--against", &path.display().to_string()],
    );
    check(
        &output,
        Some("units for the addr2line crate"),
        "units that share abbreviations",
        file.len(),
    );
}

#[test]
fn sections_that_overlap_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("bomb.ko");
    let mut file = object(
        &program(&[set_address(), ROW.to_vec(), END.to_vec()].concat(), b""),
        None,
        &[],
    );
    // The size of the second section is that of the file.
    let headers = u64::from_le_bytes(file[0x28..0x30].try_into().expect("8 bytes")) as usize;
    let size = (file.len() as u64 - 64).to_le_bytes();
    file[headers + 2 * 64 + 24..][..8].copy_from_slice(&64_u64.to_le_bytes());
    file[headers + 2 * 64 + 32..][..8].copy_from_slice(&size);
    fs::write(&path, &file).expect("room for it");
    let output = lineinfo("build", &path, &[]);
    check(
        &output,
        Some("they overlap; copy it again"),
        "overlap",
        file.len(),
    );
}

#[test]
fn a_damaged_unit_is_named_and_refused_if_strict() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("x.ko");
    let unit = program(&[set_address(), ROW.to_vec(), END.to_vec()].concat(), b"");
    let mut damaged = unit.clone();
    damaged[4] = 1;
    let file = object(&[unit, damaged].concat(), None, &[]);
    fs::write(&path, &file).expect("room for it");

    let output = lineinfo("build", &path, &["--strict"]);
    check(
        &output,
        Some("1 of 2 units are damaged: line table at 0x"),
        "strict",
        file.len(),
    );
    assert!(!path.with_extension("lineinfo").exists());

    let output = lineinfo("build", &path, &[]);
    check(&output, None, "not strict", file.len());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("unknown DWARF version: 1"), "{said}");
    assert!(
        said.contains("1 of 2 units are damaged, and the table has no rows of them"),
        "{said}"
    );
}

fn lineinfo(command: &str, path: &Path, arguments: &[&str]) -> Output {
    let mut lineinfo = Command::new(env!("CARGO_BIN_EXE_lineinfo"));
    lineinfo.arg(command).arg(path).args(arguments);
    if command == "build" {
        lineinfo.arg("-o").arg(path.with_extension("lineinfo"));
    }
    lineinfo.output().expect("it runs")
}

/// That a command has failed with a message, or, without one, has not, and that no command until now
/// took too much memory.
fn check(output: &Output, expected: Option<&str>, what: &str, file_len: usize) {
    let said = String::from_utf8_lossy(&output.stderr);
    match expected {
        Some(expected) => {
            assert_eq!(output.status.code(), Some(1), "{what}: {said}");
            assert!(said.contains(expected), "{what}: {said}");
        }
        None => assert!(output.status.success(), "{what}: {said}"),
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    let limit_kb = MEMORY_MAX_KB + 4 * file_len as u64 / 1024;
    let peak_kb = usage.max_rss() as u64;
    assert!(
        peak_kb <= limit_kb,
        "{what}: {peak_kb} kB, and the limit is {limit_kb} kB"
    );
}

/// What the bomb is, the file, and what is said of it.
fn bombs() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    const MIB: usize = 1 << 20;
    // A byte each: one address and one to five lines further.
    let opcodes = b"\x21\x22\x23\x21\x24\x22\x25\x23";
    let rows = |count: usize| [&set_address()[..], &opcodes.repeat(count / 8), END].concat();
    let sequence = [&set_address()[..], ROW, END].concat();
    let zlib = Some(elf::ELFCOMPRESS_ZLIB);
    let zstd = Some(elf::ELFCOMPRESS_ZSTD);
    let file = |line: &[u8], compression| object(line, compression, &[]);
    let unit = program(&sequence, b"");
    let file_table = program(&sequence, &b"a\0\0\0\0".repeat(MIB / 2));
    let damaged = [&unit[..], &b"\x02\0\0\0\x09\0".repeat(MIB)].concat();
    // Its size stands after the kind of compression.
    let mut claim = compress(X86_64, elf::ELFCOMPRESS_ZLIB, &unit);
    claim[8..16].copy_from_slice(&(257 * MIB as u64).to_le_bytes());
    vec![
        (
            "rows",
            file(&program(&rows(4 * MIB), b""), zlib),
            Some("rows: "),
        ),
        (
            "rows, zstd",
            file(&program(&rows(4 * MIB), b""), zstd),
            Some("rows: "),
        ),
        (
            "rows that fit",
            file(&program(&rows(MIB / 8), b""), zlib),
            None,
        ),
        (
            "sequences",
            file(&program(&sequence.repeat(MIB), b""), zlib),
            Some("--max-memory"),
        ),
        (
            "a file table",
            file(&file_table, zlib),
            Some("the file table of a unit"),
        ),
        (
            "units",
            file(&unit.repeat(MIB / 4), zlib),
            Some("--max-memory"),
        ),
        (
            "a section",
            object_with(&claim, true, &[]),
            Some("a compressed section: 269484032 bytes"),
        ),
        ("damaged units", file(&damaged, zlib), None),
    ]
}

const ROW: &[u8] = b"\x01\x02\x01";
const END: &[u8] = b"\x00\x01\x01";

fn set_address() -> Vec<u8> {
    [&b"\x00\x09\x02"[..], &TEXT.to_le_bytes()].concat()
}

/// A line program of DWARF 4 with `a.c` and more files.
fn program(instructions: &[u8], more_files: &[u8]) -> Vec<u8> {
    let start = b"\x01\x01\x01\xfb\x0e\x0d\0\x01\x01\x01\x01\0\0\0\x01\0\0\x01\0";
    let header = [&start[..], b"a.c\0\0\0\0", more_files, b"\0"].concat();
    let header_len = (header.len() as u32).to_le_bytes();
    let body = [b"\x04\0", &header_len[..], &header, instructions].concat();
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// As [`object_with`], with line tables that are to be compressed, or not.
fn object(
    line: &[u8],
    compression: Option<CompressionType>,
    sections: &[(&str, &[u8])],
) -> Vec<u8> {
    match compression {
        Some(compression) => object_with(&compress(X86_64, compression, line), true, sections),
        None => object_with(line, false, sections),
    }
}

/// A relocatable file with a gigabyte of text, of which it has no byte.
fn object_with(line: &[u8], compressed: bool, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text = object.add_section(
        Vec::new(),
        b".text".to_vec(),
        SectionKind::UninitializedData,
    );
    object.append_section_bss(text, 1 << 30, 16);
    object.section_mut(text).flags = SectionFlags::Elf {
        sh_type: elf::SHT_NOBITS,
        sh_flags: elf::SHF_ALLOC | elf::SHF_EXECINSTR,
    };
    for (name, data) in [&[(".debug_line", line)], sections].concat() {
        let section = object.add_section(Vec::new(), name.into(), SectionKind::Debug);
        object.set_section_data(section, data.to_vec(), 1);
        if compressed && name == ".debug_line" {
            object.section_mut(section).flags = SectionFlags::Elf {
                sh_type: elf::SHT_PROGBITS,
                sh_flags: elf::SHF_COMPRESSED,
            };
        }
    }
    object.write().expect("the object is valid")
}
