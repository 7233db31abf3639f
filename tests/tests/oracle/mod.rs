//! What the addr2line crate says of the kernel: the truth that traces are compared with.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::{Naming, SourceRoot, join};
use lineinfo_tests::Frame;
use object::{Object, ObjectSymbol};

type Reader = gimli::EndianSlice<'static, gimli::RunTimeEndian>;

/// An executable with its symbols and its debug information.
pub(crate) struct Oracle {
    context: addr2line::Context<Reader>,
    root: SourceRoot,
    /// Where functions begin, by demangled name; several where instances share one.
    pub(crate) functions: HashMap<String, Vec<u64>>,
    /// What was asked before.
    answers: HashMap<(Frame, bool), Vec<String>>,
}

impl Oracle {
    /// Reads an executable; what it reads stays in memory to the end of the process.
    pub(crate) fn of(path: &Path) -> Self {
        let file = Box::leak(Box::new(ElfFile::open(path).expect("the executable")));
        let elf = Box::leak(Box::new(file.parse().expect("an ELF file")));
        let root = extract(elf, &Naming::default(), &()).expect("rows").root;
        let sections = gimli::DwarfSections::load(|id| elf.debug_section(id)).expect("DWARF");
        let sections = Box::leak(Box::new(sections));
        let endian = elf.endian();
        let dwarf = sections.borrow(|section| gimli::EndianSlice::new(section, endian));
        Self {
            context: addr2line::Context::from_dwarf(dwarf).expect("units"),
            root,
            functions: functions(path),
            answers: HashMap::new(),
        }
    }

    /// `file:line` of a frame, once for each function that has its name; empty where it has none.
    ///
    /// A frame of a trace is where a call returns to; that behind `RIP:` is the instruction itself.
    pub(crate) fn locations(&mut self, frame: &Frame, is_return_address: bool) -> &[String] {
        let key = (frame.clone(), is_return_address);
        let Self {
            context,
            root,
            functions,
            answers,
        } = self;
        answers.entry(key).or_insert_with(|| {
            let (name, extent) = frame.symbol.rsplit_once("+0x").expect("an offset");
            let offset = extent.split('/').next().expect("an offset");
            let offset = u64::from_str_radix(offset, 16).expect("hexadecimal");
            let starts = functions.get(name).map_or(&[][..], Vec::as_slice);
            starts
                .iter()
                .filter_map(|start| {
                    let address = start + offset - u64::from(is_return_address);
                    let location = context.find_location(address).expect("units")?;
                    let path = join([location.file?]);
                    // Line 0 is none.
                    let line = location.line.filter(|line| *line != 0)?;
                    Some(format!("{}:{line}", root.relative(&path)))
                })
                .collect()
        })
    }
}

fn functions(path: &Path) -> HashMap<String, Vec<u64>> {
    let bytes = fs::read(path).expect("the executable");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let mut functions: HashMap<String, Vec<u64>> = HashMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
        let name = symbol.name().expect("a name");
        let name = format!("{:#}", rustc_demangle::demangle(name));
        functions.entry(name).or_default().push(symbol.address());
    }
    functions
}
