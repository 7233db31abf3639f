//! What went wrong elsewhere: line semantics, relocations and paths, on object files made to order.

mod budgets;
mod inlines;
mod inputs;
mod support;

use std::io::Write;

use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::extract::{Extracted, extract};
use lineinfo_core::blob::Encoding;
use lineinfo_core::{Address, Offset, Table};
use object::{Object, ObjectSection};
use support::{
    ARM_BIG, Extras, I386, Machine, S390X, SequenceSpec, UnitSpec, X86_64, object, object_with,
};

fn extract_from(file: &[u8]) -> Result<Extracted, lineinfo_cli::Error> {
    let mut temporary = tempfile::NamedTempFile::new().expect("a temporary file");
    temporary.write_all(file).expect("room for a small file");
    let file = ElfFile::open(temporary.path())?;
    extract(&file.parse()?, &Naming::default(), &())
}

/// Everything from the object file to the look-up: one answer per byte of the named section.
fn answers(file: &[u8], section: &str) -> Vec<String> {
    let extracted = extract_from(file).expect("an object file with line tables");
    let mut blob = Vec::new();
    for &encoding in Encoding::ALL {
        blob = extracted.encode(encoding).expect("a table");
    }
    let table = Table::parse(&blob).expect("a valid table");
    let region = table.regions().find(|region| region.name == section);
    let region = region.expect("a region for the section");
    (0..u64::from(region.len))
        .map(|at| {
            let found = table.lookup(Address::Exact(Offset(region.start.0 + at)));
            found.map_or("??".to_owned(), |location| location.to_string())
        })
        .collect()
}

const COMP_DIR: &str = "/src/linux";

fn unit<'a>(name: &'a str, sequences: &'a [SequenceSpec<'a>]) -> UnitSpec<'a> {
    UnitSpec {
        version: 5,
        comp_dir: COMP_DIR,
        name,
        sequences,
    }
}

fn text(rows: &[(u64, &str, u64)], len: u64, text_len: u64) -> Vec<String> {
    let sequences = [SequenceSpec {
        section: 0,
        rows,
        len,
    }];
    let file = object(X86_64, &[(".text", text_len)], &[unit("a.c", &sequences)]);
    answers(&file, ".text")
}

#[test]
fn of_several_rows_at_one_address_the_last_counts() {
    let rows = [
        (0, "b.h", 90),
        (0, "a.c", 10),
        (0, "a.c", 11),
        (2, "a.c", 12),
        (2, "a.c", 9),
    ];
    assert_eq!(text(&rows, 3, 3), ["a.c:11", "a.c:11", "a.c:9"]);
}

#[test]
fn end_sequence_begins_a_gap() {
    assert_eq!(text(&[(0, "a.c", 1)], 2, 4), ["a.c:1", "a.c:1", "??", "??"]);
    let first = [(0, "a.c", 1)];
    let second = [(3, "b.c", 2)];
    let sequences = [
        SequenceSpec {
            section: 0,
            rows: &first,
            len: 1,
        },
        SequenceSpec {
            section: 0,
            rows: &second,
            len: 4,
        },
    ];
    let file = object(X86_64, &[(".text", 5)], &[unit("a.c", &sequences)]);
    assert_eq!(
        answers(&file, ".text"),
        ["a.c:1", "??", "??", "b.c:2", "??"]
    );
}

#[test]
fn line_0_means_no_line() {
    let rows = [(0, "a.c", 1), (1, "a.c", 0), (2, "a.c", 2)];
    assert_eq!(text(&rows, 3, 3), ["a.c:1", "??", "a.c:2"]);
}

#[test]
fn a_look_up_does_not_stop_at_a_function_whose_line_is_that_of_the_last() {
    // Two functions, the second at 2, that begin and end on one line: one row, four bytes.
    let rows = [(0, "a.c", 7), (2, "a.c", 7)];
    assert_eq!(text(&rows, 4, 4), ["a.c:7"; 4]);
}

#[test]
fn discarded_code_leaves_no_rows() {
    let kept = [(0, "a.c", 1)];
    let discarded = [(0, "gone.c", 99)];
    let sequences = [
        SequenceSpec {
            section: 0,
            rows: &kept,
            len: 2,
        },
        // Longer than all the text, and at address 0 as linkers leave it.
        SequenceSpec {
            section: usize::MAX,
            rows: &discarded,
            len: 0x10_0000,
        },
    ];
    let file = object(X86_64, &[(".text", 2)], &[unit("a.c", &sequences)]);
    let extracted = extract_from(&file).expect("an object file");
    assert_eq!(extracted.counts.sequences_discarded, 1);
    assert_eq!(answers(&file, ".text"), ["a.c:1", "a.c:1"]);
}

/// Three sections in one file, all of which start at 0.
fn module(machine: Machine, version: u16) -> Vec<u8> {
    let core = [(0, "fs/xfs/xfs_aops.c", 10), (2, "include/linux/fs.h", 20)];
    let init = [(0, "fs/xfs/xfs_super.c", 30)];
    let cold = [(0, "fs/xfs/xfs_aops.c", 40)];
    let sequence = |section, rows| SequenceSpec {
        section,
        rows,
        len: 4,
    };
    let first = [sequence(0, &core[..]), sequence(2, &cold[..])];
    let second = [sequence(1, &init[..])];
    let sections = [(".text", 4), (".init.text", 4), (".text.unlikely", 4)];
    let units = [
        ("fs/xfs/xfs_aops.c", &first[..]),
        ("fs/xfs/xfs_super.c", &second[..]),
    ];
    object(
        machine,
        &sections,
        &units.map(|(name, sequences)| UnitSpec {
            version,
            comp_dir: COMP_DIR,
            name,
            sequences,
        }),
    )
}

#[test]
fn sections_of_a_relocatable_file_do_not_collide_and_relocations_are_applied() {
    for machine in [X86_64, I386, S390X, ARM_BIG] {
        for version in 2..=5 {
            let file = module(machine, version);
            let said = |section| answers(&file, section);
            assert_eq!(
                said(".text"),
                [
                    "fs/xfs/xfs_aops.c:10",
                    "fs/xfs/xfs_aops.c:10",
                    "include/linux/fs.h:20",
                    "include/linux/fs.h:20"
                ],
                "{machine:?}, DWARF {version}"
            );
            assert_eq!(said(".init.text"), ["fs/xfs/xfs_super.c:30"; 4]);
            assert_eq!(said(".text.unlikely"), ["fs/xfs/xfs_aops.c:40"; 4]);
        }
    }
}

/// The offsets in a module's areas, by the rules of Linux's `layout_sections()`.
#[test]
fn a_module_is_laid_out_as_linux_lays_it_out() {
    // Name, length, alignment, and offset in its area.
    let layout = [
        (".text", 0x51, 16, 0),
        (".init.text", 0x21, 16, 0),
        (".text.unlikely", 7, 1, 0x51),
        (".init.text.unlikely", 8, 1, 0x21),
        (".exit.text", 3, 1, 0x58),
        // Without a byte it still aligns what follows.
        (".text.empty", 0, 64, 0x80),
        (".noinstr.text", 0x1000, 1, 0x80),
        (".init.last", 4, 64, 0x40),
        (".static_call.text", 2, 0x800, 0x1800),
    ];
    // A section without rows, .noinstr.text, takes its room as well.
    let with_rows = |name: &str| name != ".noinstr.text" && name != ".text.empty";
    let rows = [(0, "a.c", 1)];
    let sections: Vec<_> = layout
        .iter()
        .map(|section| (section.0, section.1))
        .collect();
    let aligns: Vec<_> = layout.iter().map(|section| section.2).collect();
    let sequence = |(section, (name, len)): (usize, &(&str, u64))| {
        with_rows(name).then_some(SequenceSpec {
            section,
            rows: &rows,
            len: *len,
        })
    };
    let sequences: Vec<_> = sections.iter().enumerate().filter_map(sequence).collect();
    let extras = Extras {
        aligns: &aligns,
        ..Extras::default()
    };
    let file = object_with(X86_64, &sections, &[unit("a.c", &sequences)], extras);
    let extracted = extract_from(&file).expect("a module");
    let blob = extracted.encode(Encoding::Packed).expect("a table");
    let table = Table::parse(&blob).expect("a valid table");

    let areas = table.module_areas().expect("a module");
    assert_eq!((areas.text, areas.init), (0..0x1802, 0x2000..0x2044));
    let mut found: Vec<_> = table
        .regions()
        .map(|region| (region.name, region.start.0))
        .collect();
    let mut expected: Vec<_> = layout
        .iter()
        .filter(|section| with_rows(section.0))
        .map(|(name, _, _, offset)| {
            let area = if name.starts_with(".init") { 0x2000 } else { 0 };
            (*name, area + offset)
        })
        .collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn the_area_of_init_text_begins_with_its_first_section_even_without_rows() {
    let rows = [(0, "a.c", 1)];
    let sequences = [0, 2].map(|section| SequenceSpec {
        section,
        rows: &rows,
        len: 4,
    });
    let sections = [(".text", 4), (".init.stub", 0x3000), (".init.text", 4)];
    let file = object(X86_64, &sections, &[unit("a.c", &sequences)]);
    let extracted = extract_from(&file).expect("a module");
    let blob = extracted.encode(Encoding::Packed).expect("a table");
    let table = Table::parse(&blob).expect("a valid table");
    let areas = table.module_areas().expect("a module");
    assert_eq!(areas.init, 0x1000..0x4004);
    // What a kernel does with an address in the area at this base.
    let offset = areas.offset_of(0xc020_3001, 0xc010_0000, Some(0xc020_0000));
    let location = table.lookup(Address::Exact(offset.expect("in the area")));
    assert_eq!(location.expect("a row").to_string(), "a.c:1");
}

#[test]
fn init_text_is_marked_so_that_it_can_be_freed() {
    let extracted = extract_from(&module(X86_64, 5)).expect("a module");
    let init: Vec<_> = extracted
        .regions
        .iter()
        .filter(|region| region.section.init)
        .map(|region| region.section.name.as_str())
        .collect();
    assert_eq!(init, [".init.text"]);
}

#[test]
fn paths_come_from_dwarf_and_not_from_the_names_of_directories() {
    let named = |comp_dir: &str, name: &str, version| {
        let rows = [(0, name, 1)];
        let sequences = [SequenceSpec {
            section: 0,
            rows: &rows,
            len: 1,
        }];
        let unit = UnitSpec {
            version,
            comp_dir,
            name,
            sequences: &sequences,
        };
        answers(&object(X86_64, &[(".text", 1)], &[unit]), ".text").remove(0)
    };
    for version in 2..=5 {
        for (comp_dir, name, expected) in [
            (
                "/src/linux",
                "arch/parisc/kernel/traps.c",
                "arch/parisc/kernel/traps.c:1",
            ),
            ("/src/linux", "/src/linux/kernel/fork.c", "kernel/fork.c:1"),
            ("/src/linux", "./kernel//fork.c", "kernel/fork.c:1"),
            ("debian/build/build_amd64", "init/main.c", "init/main.c:1"),
            (
                "/src/linux/build",
                "../arch/riscv/kernel/stacktrace.c",
                "arch/riscv/kernel/stacktrace.c:1",
            ),
        ] {
            assert_eq!(named(comp_dir, name, version), expected, "DWARF {version}");
        }
    }
}

#[test]
fn a_name_without_end_is_an_error() {
    let long = "x".repeat(1 << 20);
    let rows = [(0, "a.c", 1)];
    let sequences = [SequenceSpec {
        section: 0,
        rows: &rows,
        len: 1,
    }];
    let unit = UnitSpec {
        version: 5,
        comp_dir: &long,
        name: "a.c",
        sequences: &sequences,
    };
    let error = extract_from(&object(X86_64, &[(".text", 1)], &[unit]));
    let error = error.expect_err("a name of a megabyte").to_string();
    assert!(error.contains("a file name of 1048576 bytes"), "{error}");
}

/// Where the fields of a line program are, in bytes from its start.
struct Fields {
    header_len: usize,
    min_instruction_len: usize,
    max_operations: Option<usize>,
    line_range: usize,
    opcode_base: usize,
}

impl Fields {
    fn of(version: u16) -> Self {
        let header_len = if version == 5 { 8 } else { 6 };
        let min_instruction_len = header_len + 4;
        let more = usize::from(version >= 4);
        Self {
            header_len,
            min_instruction_len,
            max_operations: (version >= 4).then_some(min_instruction_len + 1),
            line_range: min_instruction_len + 3 + more,
            opcode_base: min_instruction_len + 4 + more,
        }
    }
}

/// Every way in which a unit can be bad, as (what, where in the unit, bytes).
fn damages(version: u16, len: usize, is_last: bool) -> Vec<(&'static str, usize, Vec<u8>)> {
    let fields = Fields::of(version);
    let u32 = |value: usize| (value as u32).to_le_bytes().to_vec();
    let mut damages = vec![
        ("a reserved length", 0, u32(0xffff_fff0)),
        ("a length beyond the section", 0, u32(0x7fff_ffff)),
        (
            "a 64-bit length beyond the address space",
            0,
            vec![0xff; 12],
        ),
        ("no length", 0, u32(0)),
        ("a length of 5", 0, u32(5)),
        ("a length within the header", 0, u32(fields.opcode_base)),
        (
            "a length without the end of the sequence",
            0,
            u32(len - 4 - 3),
        ),
        ("version 0", 4, vec![0, 0]),
        ("version 1", 4, vec![1, 0]),
        ("version 6", 4, vec![6, 0]),
        ("a header beyond the unit", fields.header_len, u32(len)),
        ("no header", fields.header_len, u32(0)),
        (
            "instructions of no length",
            fields.min_instruction_len,
            vec![0],
        ),
        ("no line range", fields.line_range, vec![0]),
        ("no opcodes", fields.opcode_base, vec![0]),
        (
            "an extended opcode beyond the unit",
            len - 3,
            vec![0, 0x7f, 2],
        ),
        ("no end of the sequence", len - 3, vec![1, 1, 1]),
        (
            "a LEB128 number beyond the unit",
            len - 3,
            vec![2, 0x80, 0x80],
        ),
    ];
    if let Some(max_operations) = fields.max_operations {
        damages.push(("no operations in an instruction", max_operations, vec![0]));
    }
    if version == 5 {
        damages.push(("addresses of 3 bytes", 6, vec![3]));
        damages.push(("segments", 7, vec![1]));
    }
    if !is_last {
        damages.push(("a length that reaches into the next", 0, u32(len + 8)));
        damages.push(("a length that takes the next", 0, u32(2 * len - 4)));
    }
    damages
}

#[test]
fn a_bad_unit_is_left_out_and_the_others_are_not() {
    let rows = [(0, "a.c", 7)];
    for version in 2..=5 {
        let sequences = [0, 1, 2].map(|section| {
            [SequenceSpec {
                section,
                rows: &rows,
                len: 4,
            }]
        });
        let units = sequences.each_ref().map(|sequences| UnitSpec {
            version,
            comp_dir: COMP_DIR,
            name: "a.c",
            sequences,
        });
        let sections = [(".text", 4), (".text.unlikely", 4), (".noinstr.text", 4)];
        let whole = object(X86_64, &sections, &units);
        let start = debug_line_at(&whole);
        // All units are of one length.
        let word = whole[start..start + 4].try_into().expect("four bytes");
        let len = u32::from_le_bytes(word) as usize + 4;
        for bad in 0..3 {
            for (what, at, bytes) in damages(version, len, bad == 2) {
                let what = format!("DWARF {version}, unit {bad}, {what}");
                let mut file = whole.clone();
                let at = start + bad * len + at;
                file[at..at + bytes.len()].copy_from_slice(&bytes);
                let extracted = extract_from(&file).expect(&what);
                assert_eq!(
                    extracted.bad_units.count, 1,
                    "{what}: {:?}",
                    extracted.bad_units
                );
                let offset = extracted.bad_units.first[0].offset;
                assert_eq!(offset, (bad * len) as u64, "{what}");
                let mut expected: Vec<_> = sections.iter().map(|section| section.0).collect();
                expected.remove(bad);
                let found: Vec<_> = extracted
                    .regions
                    .iter()
                    .map(|region| &region.section.name[..])
                    .collect();
                assert_eq!(found, expected, "{what}");
                assert_eq!(answers(&file, expected[0]), ["a.c:7"; 4], "{what}");
            }
        }
    }
}

/// Where `.debug_line` is in a file.
fn debug_line_at(file: &[u8]) -> usize {
    let elf = object::File::parse(file).expect("an ELF file");
    let section = elf.section_by_name(".debug_line").expect("line tables");
    section.file_range().expect("bytes in the file").0 as usize
}

#[test]
fn a_unit_of_debug_info_that_cannot_be_read_costs_its_line_table_alone() {
    let rows = [(0, "a.c", 7)];
    let sequences = [0, 1].map(|section| {
        [SequenceSpec {
            section,
            rows: &rows,
            len: 4,
        }]
    });
    let units = sequences.each_ref().map(|sequences| UnitSpec {
        version: 4,
        comp_dir: COMP_DIR,
        name: "a.c",
        sequences,
    });
    let whole = object(X86_64, &[(".text", 4), (".text.unlikely", 4)], &units);
    let elf = object::File::parse(&whole[..]).expect("an ELF file");
    let section = elf.section_by_name(".debug_info").expect("units");
    let start = section.file_range().expect("bytes in the file").0 as usize;
    // A version, and the code of an abbreviation.
    for (at, byte) in [(4, 77), (11, 77)] {
        let mut file = whole.clone();
        file[start + at] = byte;
        let extracted = extract_from(&file).expect("the other unit");
        assert_eq!(extracted.bad_units.count, 1);
        assert_eq!(answers(&file, ".text.unlikely"), ["a.c:7"; 4]);
        assert!(
            extracted
                .regions
                .iter()
                .all(|region| region.section.name != ".text")
        );
    }
}

#[test]
fn damaged_line_tables_are_an_error_or_a_table() {
    let file = module(X86_64, 5);
    let mut refused = 0;
    for at in 0..file.len() {
        for value in [0, 0x7f, 0xff] {
            let mut damaged = file.clone();
            damaged[at] = value;
            match extract_from(&damaged) {
                Ok(extracted) => {
                    // Whatever came out must be a table, or be refused as one.
                    let _ = extracted.encode(Encoding::Delta);
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    assert!(refused > 0);
}

/// A table's names are printed into kernel logs.
#[test]
fn a_section_whose_name_moves_the_cursor_is_named() {
    let mut file = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/cmd/lineinfo.in/demo.elf"
    ))
    .expect("the image");
    let name = b".init.text\0";
    let at = file.windows(name.len()).position(|bytes| bytes == name);
    file[at.expect("a section") + 1] = 0x1b;
    let error = extract_from(&file).map(|_| ()).expect_err("a bad name");
    let said = error.to_string();
    assert!(said.contains(r#"".\u{1b}nit.text""#), "{said}");
    assert!(said.contains("objcopy --rename-section"), "{said}");
}
