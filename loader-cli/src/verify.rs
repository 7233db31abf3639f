//! A table against an independent decoder of the same DWARF.
//!
//! The decoder is the addr2line crate, or a [`Program`]. Addresses are the first and the last byte
//! of every row, every call and trap ([`crate::points`]), and as many random bytes of text as asked for.
//!
//! # Where the references differ among themselves
//!
//! Measured on all row ends, all calls and traps and random bytes of Debian's 6.12 kernel and modules.
//!
//! | where | addr2line crate | llvm-symbolizer | eu-addr2line | the table |
//! |---|---|---|---|---|
//! | padding between units, claimed by none of them | `??` | `??` | often the last line of the unit before | `??`, for the sequence has ended; not compared where no unit claims the address |
//! | `.debug_aranges` | not read | LLVM 22 knows nothing of padding between functions and of assembly if the section is there (LLVM 14, 16 and 19 do, LLVM 22 does without it) | knows nothing of units that are not in it, as all are that clang makes | not read |
//! | `.debug_aranges` of a relocatable file | not read | read without its relocations: the first unit that is long enough answers for all | relocated | not read |
//! | addresses in a relocatable file | those given by us | those of the first text section that holds it | those of its own layout | one region per section |
//!
//! So llvm-symbolizer gets a copy of the file in which `.debug_aranges` is empty and the section
//! headers of a relocatable file have the addresses that the table has
//! ([`Elf::copy_for_symbolizer`]), and eu-addr2line is asked for offsets in each section.

mod program;

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use addr2line::Context;
use gimli::{DwarfSections, EndianSlice, RunTimeEndian};
use lineinfo_core::blob::Profile;
use lineinfo_core::{Address, Offset, Table};
use rayon::prelude::*;

pub use self::program::Program;
use crate::error::Error;
use crate::extract::elf::{Elf, Identity, TextSection};
use crate::extract::paths::{Naming, SourceRoot};
use crate::extract::{crate_bytes, hold_points, printable, source_root};
use crate::hex;
use crate::points::Instructions;
use crate::progress::Progress;
use crate::raw;

/// Addresses that the crate is asked for at a time.
const CHUNK: usize = 16 * 1024;

/// Addresses that one process is asked for at most, which bounds what it remembers.
const PROCESS_CHUNK: usize = 256 * 1024;

/// What the two ends of a row may take, in lists that grow to twice their length.
const OFFSET_BYTES: u64 = 2 * 2 * size_of::<Offset>() as u64;

/// With whom, and at how many random addresses, a table is compared.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The names in the table, as they were given to [`crate::extract::extract`].
    pub naming: Naming,
    /// The program to ask; absent, the addr2line crate.
    pub oracle: Option<Program>,
    /// Random bytes of text, besides rows and call sites.
    pub random: u64,
    /// Which random bytes.
    pub seed: u64,
    /// How many differences the report keeps.
    pub show: usize,
}

/// What a decoder says of an address, innermost function first; nothing if it knows nothing.
pub type Answer = Vec<AnswerFrame>;

/// One function at an address, as a decoder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerFrame {
    /// Its name; empty if it was not asked for.
    pub function: String,
    /// The file, as the decoder writes it.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// First and last bytes of rows.
    pub row_ends: u64,
    /// Calls and traps; absent where there is no decoder for the machine.
    pub call_sites: Option<u64>,
    /// Random bytes of text.
    pub random: u64,
    /// Addresses at which there are inlined functions, if the table has them.
    pub inlined: Option<u64>,
    /// Addresses at which table and decoder were compared, each once.
    pub checked: u64,
    /// Addresses that no unit claims and for which the decoder has nothing, or something else: there
    /// it has no say.
    pub unclaimed: u64,
    /// Addresses at which they differ.
    pub differences: u64,
    /// The first [`Options::show`] of them, by address.
    pub first: Vec<Difference>,
}

/// One address at which table and decoder differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The link-time address; in a relocatable file the one that the table has made up.
    pub address: u64,
    /// Text section and bytes from its start: `.text+0x10`.
    pub place: String,
    /// What the table says: `file:line`, and before that inlined functions, innermost first.
    pub table: Option<String>,
    /// What the decoder says.
    pub decoder: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_miss = |said: &Option<String>| said.clone().unwrap_or_else(|| "??".to_owned());
        write!(
            f,
            "{:#x} ({}): table {}, decoder {}",
            self.address,
            self.place,
            or_miss(&self.table),
            or_miss(&self.decoder)
        )
    }
}

impl Report {
    fn merge(mut self, other: Self, show: usize) -> Self {
        self.checked += other.checked;
        self.inlined = self
            .inlined
            .max(other.inlined)
            .map(|_| self.inlined.unwrap_or(0) + other.inlined.unwrap_or(0));
        self.unclaimed += other.unclaimed;
        self.differences += other.differences;
        self.first.extend(other.first);
        self.first.sort_by_key(|difference| difference.address);
        self.first.truncate(show);
        self
    }
}

/// Compares; the steps of its progress are addresses.
///
/// # Errors
///
/// [`Error::OtherBuild`] if the table was not built from this image; else what is wrong with the
/// image or its DWARF, or with the program.
pub fn verify(
    blob_path: &Path,
    table: &Table<'_>,
    elf: &Elf<'_>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    let identity = &elf.identity;
    if table.layout().build_id() != identity.build_id {
        return Err(Error::OtherBuild {
            blob_path: blob_path.to_owned(),
            blob: hex(table.layout().build_id()),
            image_path: elf.path().to_owned(),
            image: hex(&identity.build_id),
        });
    }
    let (offsets, counted) = offsets(table, elf, options)?;
    progress.begin(offsets.len() as u64);

    let root = source_root(elf, &options.naming)?;
    let sections = DwarfSections::load(|id| elf.debug_section(id))?;
    let contexts_max = contexts_max(elf)?;
    let (mut copy, mut by_section) = (None, false);
    match &options.oracle {
        Some(program) if program.takes_sections() => by_section = identity.relocatable,
        Some(_) => copy = Some(elf.copy_for_symbolizer()?),
        None => {}
    }
    let asked = copy.as_ref().map_or(elf.dwarf_path(), |copy| copy.path());
    let batch_len = match options.oracle {
        Some(_) => offsets
            .len()
            .div_ceil(rayon::current_num_threads())
            .clamp(1, PROCESS_CHUNK),
        None => CHUNK,
    };
    let sections_asked = if by_section { &identity.text[..] } else { &[] };
    let batches = batches(&offsets, sections_asked, identity.text_start, batch_len);
    let (dwarf_path, endian) = (elf.dwarf_path(), elf.endian());
    let failed = |source| Error::Dwarf {
        path: dwarf_path.to_owned(),
        source,
    };
    let frames = table.layout().has_chains();
    let judge = Judge {
        table,
        identity,
        naming: &options.naming,
        root: &root,
        show: options.show,
    };
    let contexts = Mutex::new(Vec::new());
    let new_context =
        || Context::from_dwarf(sections.borrow(|section| EndianSlice::new(section, endian)));
    // A piece of work for each context, or, where every thread has one, as many as rayon likes.
    let min_len = if contexts_max < rayon::current_num_threads() {
        batches.len().div_ceil(contexts_max)
    } else {
        1
    };
    let found = batches
        .par_iter()
        .with_min_len(min_len)
        .map(|batch| {
            let taken = lock(&contexts).pop();
            let context = taken.map_or_else(new_context, Ok).map_err(failed)?;
            let base = identity.text_start;
            let addresses = batch
                .offsets
                .iter()
                .map(|offset| base.wrapping_add(offset.0));
            let answers = match (&options.oracle, batch.section) {
                (Some(program), None) => {
                    let addresses: Vec<_> = addresses.collect();
                    program.ask(asked, None, frames, &addresses, progress)?
                }
                (Some(program), Some(section)) => {
                    let offsets: Vec<_> = addresses
                        .map(|address| address.wrapping_sub(section.address))
                        .collect();
                    program.ask(asked, Some(&section.name), frames, &offsets, progress)?
                }
                (None, _) => {
                    let answers = addresses
                        .map(|address| ask_crate(&context, address, frames))
                        .collect();
                    progress.advance(batch.offsets.len() as u64);
                    answers
                }
            };
            let report = judge.compare(&context, batch.offsets, answers);
            lock(&contexts).push(context);
            Ok(report)
        })
        .try_reduce(Report::default, |one, other| {
            Ok(one.merge(other, options.show))
        })?;
    Ok(Report {
        inlined: frames.then(|| found.inlined.unwrap_or(0)),
        checked: found.checked,
        unclaimed: found.unclaimed,
        differences: found.differences,
        first: found.first,
        ..counted
    })
}

/// How many contexts of the crate there may be at a time: each keeps all units, in the worst case, so
/// there are as many as the budget of the image has memory for, and one for each thread at most.
fn contexts_max(elf: &Elf<'_>) -> Result<usize, Error> {
    let bytes = crate_bytes(elf)?.max(1);
    let budget = elf.budget();
    let threads = rayon::current_num_threads() as u64;
    let contexts = (budget.rest() / bytes).clamp(1, threads);
    budget
        .charge("units for the addr2line crate", contexts * bytes)
        .map_err(|source| elf.over_budget(source))?;
    Ok(contexts as usize)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Addresses that are asked for together.
struct Batch<'a> {
    /// All of them lie in this section; absent where that does not matter.
    section: Option<&'a TextSection>,
    offsets: &'a [Offset],
}

/// Cuts the offsets into batches of at most `len`, and at the start of each of the sections.
fn batches<'a>(
    offsets: &'a [Offset],
    sections: &'a [TextSection],
    text_start: u64,
    len: usize,
) -> Vec<Batch<'a>> {
    let mut batches = Vec::new();
    let mut cut = |section, offsets: &'a [Offset]| {
        let chunks = offsets.chunks(len);
        batches.extend(chunks.map(|offsets| Batch { section, offsets }));
    };
    let mut rest = offsets;
    for section in sections {
        let end = rest.partition_point(|offset| text_start.wrapping_add(offset.0) < section.end());
        let (inside, after) = rest.split_at(end);
        cut(Some(section), inside);
        rest = after;
    }
    cut(None, rest);
    batches
}

/// Where to compare, ascending and each once, and how many of each kind there were.
fn offsets(
    table: &Table<'_>,
    elf: &Elf<'_>,
    options: &Options,
) -> Result<(Vec<Offset>, Report), Error> {
    let identity = &elf.identity;
    // A table of the profile `calls` promises nothing elsewhere.
    let full = table.layout().profile() == Profile::Full;
    let rows = u64::from(table.layout().rows());
    elf.budget()
        .charge(
            "addresses to compare",
            rows.saturating_add(options.random)
                .saturating_mul(OFFSET_BYTES),
        )
        .map_err(|source| elf.over_budget(source))?;
    let mut offsets = if full { row_ends(table) } else { Vec::new() };
    let mut counted = Report {
        row_ends: offsets.len() as u64,
        random: if full { options.random } else { 0 },
        ..Report::default()
    };
    let texts = || {
        let text = identity.text.iter();
        text.filter(|text| text.address >= identity.text_start)
    };
    if let Some(instructions) = Instructions::of(identity.machine, elf.address_size()) {
        let before = offsets.len();
        for text in texts() {
            let start = text.address - identity.text_start;
            let code = elf.code(text)?;
            let _held = hold_points(elf, code)?;
            let points = instructions.points(code);
            let bytes = points.into_iter().filter_map(Address::<u64>::byte);
            offsets.extend(bytes.map(|byte| Offset(start + byte)));
        }
        counted.call_sites = Some((offsets.len() - before) as u64);
    }
    let text_bytes: u64 = texts().map(|text| u64::from(text.len)).sum();
    let mut random = fastrand::Rng::with_seed(options.seed);
    if text_bytes == 0 {
        counted.random = 0;
    }
    for _ in 0..counted.random {
        let mut byte = random.u64(..text_bytes);
        for text in texts() {
            match byte.checked_sub(text.len.into()) {
                Some(rest) => byte = rest,
                None => {
                    offsets.push(Offset(text.address - identity.text_start + byte));
                    break;
                }
            }
        }
    }
    offsets.sort_unstable();
    offsets.dedup();
    Ok((offsets, counted))
}

/// Offsets of the first and the last byte of every row.
fn row_ends(table: &Table<'_>) -> Vec<Offset> {
    let mut ends = Vec::new();
    for (position, region) in table.regions().enumerate() {
        let starts = table
            .region_rows(position)
            .map(|row| region.start.0 + u64::from(row.start));
        for start in starts {
            // The last byte of the row before.
            if let Some(last) = start.checked_sub(1).filter(|last| *last >= region.start.0) {
                ends.push(Offset(last));
            }
            ends.push(Offset(start));
        }
        if let Some(last) = region.len.checked_sub(1) {
            ends.push(Offset(region.start.0 + u64::from(last)));
        }
    }
    ends.sort_unstable();
    ends.dedup();
    ends
}

type Dwarf<'a> = Context<EndianSlice<'a, RunTimeEndian>>;

/// What the crate says of an address: nothing also where the unit is damaged.
fn ask_crate(context: &Dwarf<'_>, address: u64, frames: bool) -> Answer {
    // Line 0 means that there is no line.
    let known = |location: Option<addr2line::Location<'_>>| {
        let location = location?;
        let line = location.line.filter(|line| *line != 0)?;
        Some((location.file?.to_owned(), line))
    };
    let frame = |function, (file, line)| AnswerFrame {
        function,
        file,
        line,
    };
    if !frames {
        let location = context.find_location(address).ok().and_then(known);
        let location = location.map(|place| frame(String::new(), place));
        return location.into_iter().collect();
    }
    let mut answer = Answer::new();
    let Ok(mut found) = context.find_frames(address).skip_all_loads() else {
        return answer;
    };
    while let Ok(Some(one)) = found.next() {
        let name = one
            .function
            .as_ref()
            .and_then(|function| function.raw_name().ok());
        match known(one.location) {
            Some(place) => answer.push(frame(name.unwrap_or_default().into_owned(), place)),
            None if answer.is_empty() => return answer,
            None => {}
        }
    }
    answer
}

/// What is needed to compare.
struct Judge<'a> {
    table: &'a Table<'a>,
    identity: &'a Identity,
    naming: &'a Naming,
    root: &'a SourceRoot,
    show: usize,
}

impl Judge<'_> {
    fn compare(&self, context: &Dwarf<'_>, offsets: &[Offset], answers: Vec<Answer>) -> Report {
        let mut report = Report::default();
        for (offset, answer) in offsets.iter().zip(answers) {
            // A table of the same build-id may be of another layout all the same.
            let address = self.identity.text_start.wrapping_add(offset.0);
            // Exact at every address of a full table, and at the points of one for calls.
            let ours = self.table_says(Address::Trap(*offset));
            // The names of the references are text, too.
            let text = |found: String| String::from_utf8_lossy(&raw::to_bytes(&found)).into_owned();
            let ours = ours.map(text);
            let theirs = self.decoder_says(answer);
            if let Some(inlined) = self.inlined(Address::Trap(*offset)) {
                report.inlined = Some(report.inlined.unwrap_or(0) + u64::from(inlined));
            }
            if (theirs.is_none() || ours != theirs) && !is_claimed(context, address) {
                report.unclaimed += 1;
                continue;
            }
            report.checked += 1;
            if ours != theirs {
                report.differences += 1;
                if report.first.len() < self.show {
                    report.first.push(Difference {
                        address,
                        place: self.place(address),
                        table: ours,
                        decoder: theirs,
                    });
                }
            }
        }
        report
    }

    /// Whether there is an inlined function, if the table knows.
    fn inlined(&self, address: Address) -> Option<bool> {
        let chain = self.table.chain(address)?;
        Some(chain.inlined() > 0)
    }

    /// `list_add (include/linux/list.h:12) < kernel/fork.c:7`, or the place alone.
    fn table_says(&self, address: Address) -> Option<String> {
        let Some(chain) = self.table.chain(address) else {
            return self.table.lookup(address).map(|found| found.to_string());
        };
        let frames = chain.map(|frame| match frame.function {
            Some(function) => format!("{function} ({})", frame.location),
            None => frame.location.to_string(),
        });
        Some(frames.collect::<Vec<_>>().join(" < "))
    }

    /// The same of a decoder. The name of the outermost function is not compared: in a kernel it is that of the
    /// symbol.
    fn decoder_says(&self, mut answer: Answer) -> Option<String> {
        let outermost = answer.pop()?;
        let place = |frame: &AnswerFrame| {
            let file = self.naming.path([frame.file.as_str()]);
            format!("{}:{}", printable(self.root.relative(&file)), frame.line)
        };
        let inlined = answer.iter();
        let mut said: Vec<String> = inlined
            .map(|frame| format!("{} ({})", frame.function, place(frame)))
            .collect();
        said.push(place(&outermost));
        Some(said.join(" < "))
    }

    fn place(&self, address: u64) -> String {
        let text = self.identity.text.iter();
        text.rev()
            .find(|text| text.address <= address)
            .map_or(String::new(), |text| {
                format!("{}+{:#x}", text.name, address - text.address)
            })
    }
}

/// Whether the ranges of any unit hold the address.
fn is_claimed(context: &Dwarf<'_>, address: u64) -> bool {
    context
        .find_dwarf_and_unit(address)
        .skip_all_loads()
        .is_some()
}
