//! What llvm-symbolizer says of the frames of a kernel and its modules.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::paths::{Naming, SourceRoot, join};
use lineinfo_cli::extract::source_root;
use lineinfo_cli::verify::{AnswerFrame, Program};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use tempfile::NamedTempFile;

use crate::console::{Frame, Kind};

/// The names it is installed by.
const SYMBOLIZERS: [&str; 3] = [
    "llvm-symbolizer-22",
    "llvm-symbolizer-19",
    "llvm-symbolizer",
];

/// The program, if it is installed.
pub(crate) fn symbolizer() -> Option<&'static str> {
    let installed = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    SYMBOLIZERS.iter().find(installed).copied()
}

/// The kernel or a module, as llvm-symbolizer sees it.
struct Image {
    /// The file that it is asked about, whose sections have addresses.
    file: NamedTempFile,
    root: SourceRoot,
    /// Address and size of each symbol of code of a name.
    symbols: HashMap<String, Vec<(u64, u64)>>,
    /// Where the init text of a module is.
    init: Vec<Range<u64>>,
}

impl Image {
    fn open(path: &Path) -> Result<Self> {
        let file = ElfFile::open(path)?;
        let elf = file.parse()?;
        let root = source_root(&elf, &Naming::default())?;
        let copy = elf.copy_for_symbolizer(true)?;
        let bytes = std::fs::read(copy.path())?;
        let object = object::File::parse(&*bytes)?;
        let relocatable = object.kind() == object::ObjectKind::Relocatable;
        let mut symbols: HashMap<String, Vec<(u64, u64)>> = HashMap::new();
        for symbol in object.symbols() {
            let Some(index) = symbol.section_index() else {
                continue;
            };
            let section = object.section_by_index(index)?;
            // What is behind the text, and in no function, is named by a symbol of data.
            if section.kind() != SectionKind::Text {
                continue;
            }
            let base = if relocatable { section.address() } else { 0 };
            let at = (base + symbol.address(), symbol.size());
            symbols
                .entry(symbol.name()?.to_owned())
                .or_default()
                .push(at);
        }
        let sections = object.sections().filter(|section| {
            let name = section.name();
            relocatable && name.is_ok_and(|name| name.starts_with(".init"))
        });
        let init = sections.map(|section| section.address()..section.address() + section.size());
        Ok(Self {
            file: copy,
            root,
            symbols,
            init: init.collect(),
        })
    }

    /// The addresses that a frame may be: of several symbols of its name where it has no size that
    /// tells them apart.
    fn addresses(&self, frame: &Frame) -> Vec<u64> {
        let byte = match frame.kind {
            Kind::Instruction | Kind::FirstOops => 0,
            Kind::Return | Kind::LinkRegister | Kind::Unreliable => 1,
        };
        // A function that starts there is not what was called from before it.
        let byte = if frame.offset == 0 { 0 } else { byte };
        let symbols = self
            .symbols
            .get(&frame.symbol)
            .map_or(&[][..], Vec::as_slice);
        // To the kernel, a symbol ends where the next begins, which may be a label of assembly in it.
        let fits = |(_, size): &&(u64, u64)| *size <= frame.size;
        let any_fits = symbols.iter().any(|symbol| fits(&symbol));
        symbols
            .iter()
            .filter(|symbol| fits(symbol) || !any_fits)
            .map(|(start, _)| start + frame.offset - byte)
            .collect()
    }

    /// What the program said of an address.
    fn answer(&self, address: u64, functions: &[AnswerFrame<'_>]) -> Option<Answer> {
        let location = |function: &AnswerFrame<'_>| {
            let file = join([function.file]);
            format!("{}:{}", self.root.relative(&file), function.line)
        };
        let (physical, inlined) = functions.split_last()?;
        Some(Answer {
            innermost: location(functions.first()?),
            physical: location(physical),
            inlined: (inlined.iter())
                .map(|function| format!("{} ({})", function.function, location(function)))
                .collect(),
            init: self.init.iter().any(|text| text.contains(&address)),
        })
    }
}

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `file:line` of the innermost function.
    pub(crate) innermost: String,
    /// `file:line` of the function of the symbol.
    pub(crate) physical: String,
    /// `name (file:line)` of the functions that are inlined there, innermost first.
    pub(crate) inlined: Vec<String>,
    /// It is init text of a module.
    pub(crate) init: bool,
}

/// Answers for the frames of one kernel.
pub(crate) struct Oracle {
    program: Program,
    paths: HashMap<String, PathBuf>,
    /// The images that were asked for, with what is known of their addresses.
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    image: Image,
    answers: HashMap<u64, Option<Answer>>,
}

impl Oracle {
    /// `paths` are the files with debug information of modules, and of the kernel by the empty name.
    pub(crate) fn new(program: &str, paths: HashMap<String, PathBuf>) -> Result<Self> {
        Ok(Self {
            program: program.parse().map_err(anyhow::Error::msg)?,
            paths,
            known: Mutex::default(),
        })
    }

    /// What each frame may be: one answer for each symbol that it may be, `None` where that has none.
    pub(crate) fn answers(&self, frames: &[Frame]) -> Result<Vec<Vec<Option<Answer>>>> {
        let mut by_module: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, frame) in frames.iter().enumerate() {
            by_module.entry(&frame.module).or_default().push(number);
        }
        let mut all = vec![Vec::new(); frames.len()];
        // A test that failed has left what it learned as it was.
        let mut all_known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (module, numbers) in by_module {
            // A module without debug information has no lines.
            let Some(path) = self.paths.get(module) else {
                continue;
            };

            let known = match all_known.entry(module.to_owned()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(Known {
                    image: Image::open(path).with_context(|| path.display().to_string())?,
                    answers: HashMap::new(),
                }),
            };
            let addresses = numbers
                .iter()
                .map(|number| known.image.addresses(&frames[*number]));
            let addresses: Vec<Vec<u64>> = addresses.collect();
            known.ask(&self.program, addresses.concat())?;
            for (number, addresses) in numbers.iter().zip(addresses) {
                let answers = addresses
                    .iter()
                    .filter_map(|address| known.answers.get(address));
                all[*number] = answers.cloned().collect();
            }
        }
        Ok(all)
    }
}

impl Known {
    /// Asks the program about addresses that are not known yet.
    fn ask(&mut self, program: &Program, mut addresses: Vec<u64>) -> Result<()> {
        addresses.retain(|address| !self.answers.contains_key(address));
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Ok(());
        }
        let mut asked = addresses.iter();
        let path = self.image.file.path();
        program.ask(path, None, true, addresses.iter().copied(), |answer| {
            if let Some(address) = asked.next() {
                self.answers
                    .insert(*address, self.image.answer(*address, answer));
            }
        })?;
        Ok(())
    }
}
