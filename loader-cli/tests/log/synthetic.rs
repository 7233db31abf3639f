//! A kernel and modules that were never compiled: a line for each byte.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lineinfo_cli::symbols::Symbols;
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::writer::{Image, Region, encode, with_symbols};
use lineinfo_core::{Row, Table};
use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope, elf,
};
use tempfile::TempDir;

/// Where the kernel was linked.
pub(crate) const TEXT: u64 = 0xffff_ffff_8100_0000;

/// How far it was moved when it booted.
pub(crate) const SLIDE: u64 = 0x1a00_0000;

/// Build-id of the kernel.
pub(crate) const BUILD_ID: [u8; 20] = [0xab; 20];

/// Build-id of all modules.
const MODULE_BUILD_ID: [u8; 20] = [
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    0x00, 0x11, 0x22, 0x33,
];

/// A function, by what a frame says of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Function {
    pub(crate) module: Option<String>,
    pub(crate) name: String,
    pub(crate) size: u64,
}

impl Function {
    /// One of the kernel.
    pub(crate) fn new(name: &str, size: u64) -> Self {
        Self {
            module: None,
            name: name.to_owned(),
            size,
        }
    }
}

/// The functions, in a table and a list of symbols, and modules beside them; and all that in tables
/// with symbols, below `alone`.
pub(crate) struct Synthetic {
    directory: TempDir,
    /// By the file that stands for them.
    files: Vec<Function>,
}

impl Synthetic {
    pub(crate) fn new(functions: BTreeSet<Function>) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let files: Vec<Function> = functions.into_iter().collect();
        let mut images: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
        for (file, function) in files.iter().enumerate() {
            images
                .entry(function.module.as_deref())
                .or_default()
                .push(file);
        }
        for (module, image) in images {
            let functions: Vec<&Function> = image.iter().map(|file| &files[*file]).collect();
            let names: Vec<String> = image.iter().map(|file| format!("s{file}.c")).collect();
            match module {
                None => {
                    let table = table(&names, &functions, &BUILD_ID, TEXT, Profile::Full);
                    write(&directory.path().join("vmlinux.lineinfo"), &table);
                    let list = list(&functions, TEXT + SLIDE);
                    let list_path = directory.path().join("kallsyms");
                    write(&list_path, list.as_bytes());
                    let whole = with_symbols_of(&list_path, &table);
                    write(&directory.path().join("alone/vmlinux.lineinfo"), &whole);
                }
                Some(module) => {
                    let table = table(&names, &functions, &MODULE_BUILD_ID, 0, Profile::Full);
                    let modules = directory.path().join("modules/kernel");
                    // Files may have hyphens where the kernel writes underscores.
                    let name = module.replace('_', "-");
                    write(&modules.join(format!("{name}.lineinfo")), &table);
                    let ko_path = modules.join(format!("{name}.ko"));
                    write(&ko_path, &ko(module, &functions));
                    let whole = with_symbols_of(&ko_path, &table);
                    let alone = directory.path().join("alone/modules/kernel");
                    write(&alone.join(format!("{name}.lineinfo")), &whole);
                }
            }
        }
        Self { directory, files }
    }

    /// What to give to `lineinfo decode`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let path = |name| self.path(name).display().to_string();
        vec![
            "--table".to_owned(),
            path("vmlinux.lineinfo"),
            "--against".to_owned(),
            path("kallsyms"),
            "--modules".to_owned(),
            path("modules"),
        ]
    }

    /// The same from tables with symbols, and nothing else.
    pub(crate) fn arguments_alone(&self) -> Vec<String> {
        let path = |name| self.path(name).display().to_string();
        vec![
            "--table".to_owned(),
            path("alone/vmlinux.lineinfo"),
            "--modules".to_owned(),
            path("alone/modules"),
        ]
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// File and line of a byte of a function.
    pub(crate) fn location(&self, function: &Function, byte: u64, mark: &str) -> String {
        let file = self.files.iter().position(|known| known == function);
        let file = file.unwrap_or_else(|| panic!("{function:?}"));
        format!("s{file}.c:{mark}{}", byte + 1)
    }
}

/// A list like `/proc/kallsyms`.
pub(crate) fn list(functions: &[&Function], text: u64) -> String {
    let mut list = format!("{text:016x} T _text\n");
    let mut address = text;
    for function in functions {
        list += &format!("{address:016x} t {}\n", function.name);
        address += function.size;
    }
    list + &format!("{address:016x} T _etext\n")
}

/// A table with a line for each byte.
pub(crate) fn table(
    files: &[String],
    functions: &[&Function],
    build_id: &[u8],
    text_start: u64,
    profile: Profile,
) -> Vec<u8> {
    let mut rows = Vec::new();
    for (file, function) in functions.iter().enumerate() {
        rows.extend((1..=function.size as u32).map(|line| (file as u32, line)));
    }
    let rows: Vec<Row> = rows
        .into_iter()
        .enumerate()
        .map(|(start, (file, line))| Row {
            start: start as u32,
            file,
            line,
        })
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let region = Region {
        name: ".text",
        start: 0,
        len: rows.len() as u32,
        init: false,
        rows: &rows,
    };
    let image = Image {
        machine: elf::EM_X86_64.0,
        build_id,
        text_start,
        profile,
        files: &files,
        exact_files: files.len(),
        regions: &[region],
    };
    encode(&image, Encoding::Delta).expect("a table")
}

/// A table with the symbols of a file.
pub(crate) fn with_symbols_of(path: &Path, table: &[u8]) -> Vec<u8> {
    let symbols = Symbols::open(path).expect("symbols");
    let section = symbols.to_section(symbols.text_start()).expect("a section");
    let table = Table::parse(table).expect("a table");
    with_symbols(&table, &section).expect("a table")
}

/// A module with these functions one after the other.
fn ko(name: &str, functions: &[&Function]) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text = object.add_section(Vec::new(), b".text".to_vec(), SectionKind::Text);
    for function in functions {
        let value = object.append_section_data(text, &vec![0x90; function.size as usize], 1);
        object.add_symbol(Symbol {
            name: function.name.as_bytes().to_vec(),
            value,
            // The padding behind a function is a part of it for the kernel, and not for ELF.
            size: function.size / 2,
            kind: SymbolKind::Text,
            scope: SymbolScope::Compilation,
            weak: false,
            section: SymbolSection::Section(text),
            flags: SymbolFlags::None,
        });
    }
    let info = object.add_section(Vec::new(), b".modinfo".to_vec(), SectionKind::ReadOnlyData);
    object.set_section_data(info, format!("license=GPL\0name={name}\0").into_bytes(), 1);
    let note = object.add_section(
        Vec::new(),
        b".note.gnu.build-id".to_vec(),
        SectionKind::Note,
    );
    let header = [4_u32, 20, elf::NT_GNU_BUILD_ID.0].map(u32::to_le_bytes);
    let data = [&header.concat()[..], b"GNU\0", &MODULE_BUILD_ID].concat();
    object.set_section_data(note, data, 4);
    object.write().expect("a module")
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    std::fs::write(path, bytes).expect("room for a file");
}

/// `lineinfo` without anything of the machine that runs it.
pub(crate) fn lineinfo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lineinfo"));
    command.env_remove("LINEINFO_DEVICE");
    command.env_remove("LINEINFO_PATH");
    command.env_remove("DEBUGINFOD_URLS");
    command
}

/// Decodes a log from stdin.
pub(crate) fn decode(arguments: &[String], log: &[u8]) -> Output {
    let mut child = lineinfo()
        .arg("decode")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        // A refusal comes before the end of the log.
        scope.spawn(move || drop(stdin.write_all(log)));
        child.wait_with_output().expect("an end")
    })
}
