//! Chains of inlined functions from DWARF made to order.

use crate::support::{Extras, Machine, S390X, SequenceSpec, UnitSpec, X86_64, object_with_dies};
use gimli::write::{
    Address, AttributeValue, DebugInfoRef, Dwarf, LineString, Range, RangeList, UnitEntryId, UnitId,
};
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_core::blob::Encoding;
use lineinfo_core::{Address as CodeAddress, Offset, Table};

const TEXT_LEN: u64 = 64;

/// Makes DIEs of one unit.
struct Dies<'a> {
    dwarf: &'a mut Dwarf,
    unit: UnitId,
}

impl Dies<'_> {
    fn add(&mut self, parent: Option<UnitEntryId>, tag: gimli::DwTag) -> UnitEntryId {
        let unit = self.dwarf.units.get_mut(self.unit);
        let root = unit.root();
        unit.add(parent.unwrap_or(root), tag)
    }

    fn set(&mut self, die: UnitEntryId, name: gimli::DwAt, value: AttributeValue) {
        let unit = self.dwarf.units.get_mut(self.unit);
        unit.get_mut(die).set(name, value);
    }

    /// A file and a line, as those of a declaration or a call.
    fn place(&mut self, die: UnitEntryId, is_call: bool, file: &str, line: u64) {
        let unit = self.dwarf.units.get_mut(self.unit);
        let encoding = unit.encoding();
        let name = LineString::new(file, encoding, &mut self.dwarf.line_strings);
        let program = &mut unit.line_program;
        let file = program.add_file(name, program.default_directory(), None);
        let (file_name, line_name) = match is_call {
            true => (gimli::DW_AT_call_file, gimli::DW_AT_call_line),
            false => (gimli::DW_AT_decl_file, gimli::DW_AT_decl_line),
        };
        self.set(die, file_name, AttributeValue::FileIndex(Some(file)));
        self.set(die, line_name, AttributeValue::Udata(line));
    }

    fn ranges(&mut self, die: UnitEntryId, ranges: &[(u64, u64)]) {
        let begin = |start: u64| Address::Symbol {
            symbol: 0,
            addend: start as i64,
        };
        if let [(start, end)] = ranges {
            let address = AttributeValue::Address(begin(*start));
            self.set(die, gimli::DW_AT_low_pc, address);
            self.set(
                die,
                gimli::DW_AT_high_pc,
                AttributeValue::Udata(end - start),
            );
            return;
        }
        let list = ranges.iter().map(|(start, end)| Range::StartLength {
            begin: begin(*start),
            length: end - start,
        });
        let list = RangeList(list.collect());
        let unit = self.dwarf.units.get_mut(self.unit);
        let list = unit.ranges.add(list);
        self.set(die, gimli::DW_AT_ranges, AttributeValue::RangeListRef(list));
    }

    /// A function that is inlined somewhere.
    fn function(&mut self, name: &str, file: &str, line: u64) -> UnitEntryId {
        let die = self.add(None, gimli::DW_TAG_subprogram);
        self.set(die, gimli::DW_AT_name, AttributeValue::String(name.into()));
        self.place(die, false, file, line);
        die
    }

    fn inlined(
        &mut self,
        parent: UnitEntryId,
        origin: AttributeValue,
        call: (&str, u64),
        ranges: &[(u64, u64)],
    ) -> UnitEntryId {
        let die = self.add(Some(parent), gimli::DW_TAG_inlined_subroutine);
        self.set(die, gimli::DW_AT_abstract_origin, origin);
        self.place(die, true, call.0, call.1);
        self.ranges(die, ranges);
        die
    }
}

/// A function in whose text others are inlined: nested, with holes, from another unit, below one that
/// has no code of its own, and one that has no name.
fn add(dwarf: &mut Dwarf) {
    let (first, second) = (dwarf.units.id(0), dwarf.units.id(1));
    let mut other = Dies {
        dwarf,
        unit: second,
    };
    let foreign = other.function("foreign", "c.h", 7);
    // The definition refers to the declaration for its name.
    let definition = other.add(None, gimli::DW_TAG_subprogram);
    let declared = AttributeValue::UnitRef(foreign);
    other.set(definition, gimli::DW_AT_specification, declared);
    let foreign = AttributeValue::DebugInfoRef(DebugInfoRef::Entry(second, definition));

    let mut dies = Dies { dwarf, unit: first };
    let inner = AttributeValue::UnitRef(dies.function("inner", "b.h", 5));
    let outer = AttributeValue::UnitRef(dies.function("outer", "a.c", 3));
    let [one, two] = [(); 2].map(|()| dies.add(None, gimli::DW_TAG_subprogram));
    for (one, two) in [(one, two), (two, one)] {
        dies.set(
            one,
            gimli::DW_AT_abstract_origin,
            AttributeValue::UnitRef(two),
        );
    }

    let physical = dies.function("physical", "a.c", 90);
    dies.ranges(physical, &[(0, TEXT_LEN)]);
    let around = dies.inlined(physical, outer, ("a.c", 100), &[(8, 24), (32, 40)]);
    let block = dies.add(Some(around), gimli::DW_TAG_lexical_block);
    dies.inlined(block, inner.clone(), ("a.c", 4), &[(12, 16)]);
    dies.inlined(around, foreign.clone(), ("a.c", 6), &[(34, 36)]);
    let empty = dies.inlined(physical, inner.clone(), ("a.c", 110), &[(48, 48)]);
    dies.inlined(empty, foreign, ("b.h", 9), &[(48, 50)]);
    let nameless = AttributeValue::UnitRef(one);
    let nameless = dies.inlined(physical, nameless, ("a.c", 120), &[(52, 60)]);
    dies.inlined(nameless, inner, ("a.c", 121), &[(56, 58)]);
}

fn object(machine: Machine, version: u16) -> Vec<u8> {
    let rows = [(0, "a.c", 95), (34, "c.h", 8), (36, "a.c", 96)];
    let sequences = [SequenceSpec {
        section: 0,
        rows: &rows,
        len: TEXT_LEN,
    }];
    let unit = |name, sequences| UnitSpec {
        version,
        comp_dir: "/src/linux",
        name,
        sequences,
    };
    let units = [unit("fs/a.c", &sequences[..]), unit("fs/z.c", &[])];
    let text = [(".text", TEXT_LEN)];
    object_with_dies(machine, &text, &units, Extras::default(), add)
}

#[test]
fn chains_are_those_of_the_ranges() {
    for (machine, version) in [(X86_64, 4), (X86_64, 5), (S390X, 4), (S390X, 5)] {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), object(machine, version)).expect("room for a small file");
        let file = ElfFile::open(file.path()).expect("a file");
        let elf = file.parse().expect("an ELF file");
        let naming = Naming::default();
        let mut extracted = extract(&elf, &naming, &()).expect("rows");
        extracted.add_inlines(&elf, &naming, &()).expect("chains");
        let blob = extracted.encode(Encoding::Packed).expect("a table");
        let table = Table::parse(&blob).expect("a valid table");
        let said = |at: u64| {
            let chain = table
                .chain(CodeAddress::Exact(Offset(at)))
                .expect("a chain");
            let frames = chain.map(|frame| match frame.function {
                Some(function) => format!("{function} ({})", frame.location),
                None => frame.location.to_string(),
            });
            frames.collect::<Vec<_>>().join(" < ")
        };
        for at in 0..TEXT_LEN {
            let expected = match at {
                12..16 => "inner (a.c:95) < outer (a.c:4) < a.c:100",
                34..36 => "foreign (c.h:8) < outer (a.c:6) < a.c:100",
                8..24 => "outer (a.c:95) < a.c:100",
                32..34 => "outer (a.c:95) < a.c:100",
                36..40 => "outer (a.c:96) < a.c:100",
                48..50 => "foreign (a.c:96) < inner (b.h:9) < a.c:110",
                // The function around it has no name, and so is not there.
                56..58 => "inner (a.c:96) < a.c:121",
                0..32 => "a.c:95",
                _ => "a.c:96",
            };
            assert_eq!(said(at), expected, "at {at}, DWARF {version}");
        }
        assert_eq!(table.inlined_functions(), Some(3));
    }
}
