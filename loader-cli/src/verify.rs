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
//! So llvm-symbolizer gets a copy of the file in which `.debug_aranges` is empty, units have no entries
//! but the root entry, and the section headers of a relocatable file have the addresses that the table
//! has ([`Elf::copy_for_symbolizer`]), and eu-addr2line is asked for offsets in each section.
//!
//! # Inlined functions
//!
//! If the table has them, all functions at an address are compared: how many they are, their names, files
//! and lines. The crate is asked for frames, llvm-symbolizer with `--inlines --functions=linkage`,
//! eu-addr2line with `-i -f`. With Debian's kernels:
//!
//! | table | reference | addresses | in inlined functions | differences |
//! |---|---|---|---|---|
//! | full, all 1,138 modules of 6.12, amd64 | crate | 4,417,992 | 1,998,804 | 0 |
//! | the same | llvm-symbolizer 22 | 4,417,992 | 1,998,804 | 0 |
//! | calls, vmlinux 6.12, amd64 | llvm-symbolizer 22 | 271,984 | 120,563 | 0 |
//! | calls, vmlinux 6.1, amd64 | llvm-symbolizer 22 | 238,891 | 105,735 | 0 |
//! | calls, vmlinux 6.12, arm64 | llvm-symbolizer 22 | 237,648 | 111,017 | 0 |
//! | calls, vmlinux 6.12, amd64, two samples of 3,000 | eu-addr2line 0.188 | 5,829 | | 1 |
//! | full, 39 modules of 6.12, amd64, no random bytes | eu-addr2line 0.188 | 64,755 | 28,622 | 87 |
//!
//! eu-addr2line is slow with `-i`, 13 ms for an address of a kernel, so it is asked at a sample
//! ([`Options::sample`]). Where it differs, the crate and llvm-symbolizer say what the table does. The kinds:
//!
//! | kind | in the kernel | in the modules |
//! |---|---|---|
//! | at a byte that no function has, padding after a function or rows outside of all, it goes on with a function that does not have the byte, after the name of a symbol or `??`; no call is at such a byte | | 74 |
//! | the location of an outer level is that of another call than the one it names itself after `inlined at` | 1 | 6 |
//! | a level is missing | | 5 |
//! | there are more levels, of functions that do not have the byte | | 2 |
//!
//! The name of the outermost function is not compared. A table has none: it is that of the symbol, and the symbols of a table
//! are compared with those of the image by themselves ([`Symbols::compare`](crate::symbols::Symbols::compare)). Nor are the references at one about it:
//! llvm-symbolizer takes the symbol if there is one, the others the entry of the DWARF. At 251,610 starts of rows of
//! the calls of 6.12 these are equal at 228,786, and where they are not, it is for one of these reasons:
//!
//! | symbol and DWARF | starts of rows |
//! |---|---|
//! | assembly has no function in the DWARF | 14,567 |
//! | the symbol has a suffix: `.constprop.0`, `.isra.0`, `.part.0`, or several | 7,199 |
//! | no unit claims the address | 949 |
//! | one function has several names: `__x64_sys_getpid` and `__do_sys_getpid`, a label in assembly, equal functions that were made one | 109 |

mod claims;
mod program;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use addr2line::Context;
use gimli::{DwarfSections, EndianSlice, RunTimeEndian, SectionId};
use lineinfo_core::blob::Profile;
use lineinfo_core::{Address, Chain, Location, Offset, Table};
use rayon::prelude::*;
use serde::{Serialize, Serializer};

use self::claims::Claims;
pub use self::program::Program;
use crate::error::Error;
use crate::extract::elf::{Elf, Identity, TextSection};
use crate::extract::paths::{Naming, SourceRoot};
use crate::extract::{hold_points, measure, printable, source_root};
use crate::hex;
use crate::points::Instructions;
use crate::progress::Progress;
use crate::raw;

/// The sections that tell lines and which units have code.
const SECTIONS: [SectionId; 9] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// Batches of each thread. A context and a process keep what they have read of the units of a batch; but
/// each of them looks at all units before its first answer.
const BATCHES: usize = 4;

/// Addresses in a batch at most.
const BATCH_MAX: usize = 1 << 20;

/// Addresses between two reports of progress.
const STEPS: u64 = 1024;

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
    /// At how many of all these addresses, chosen at random; absent, at all of them.
    pub sample: Option<u64>,
    /// Which random bytes, and which sample.
    pub seed: u64,
    /// How many differences the report keeps.
    pub show: usize,
}

/// One function at an address, as a decoder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerFrame<'a> {
    /// Its name; empty if it was not asked for.
    pub function: &'a str,
    /// The file, as the decoder writes it.
    pub file: &'a str,
    /// The line.
    pub line: u32,
}

/// What a comparison found; the field names are a promise of `verify --json`.
#[derive(Clone, Debug, Default, Serialize)]
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

/// One address at which table and decoder differ; the field names are a promise of `verify --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The link-time address; in a relocatable file the one that the table has made up.
    #[serde(serialize_with = "hexadecimal")]
    pub address: u64,
    /// Text section and bytes from its start: `.text+0x10`.
    pub place: String,
    /// What the table says: `file:line`, and before that inlined functions, innermost first.
    pub table: Option<String>,
    /// What the decoder says.
    pub decoder: Option<String>,
}

fn hexadecimal<S: Serializer>(address: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{address:#x}"))
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
    /// The report of both, with the first `show` differences.
    #[must_use]
    pub fn merge(mut self, other: Self, show: usize) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| {
            one.max(other)
                .map(|_| one.unwrap_or(0) + other.unwrap_or(0))
        };
        self.row_ends += other.row_ends;
        self.call_sites = sum(self.call_sites, other.call_sites);
        self.random += other.random;
        self.checked += other.checked;
        self.inlined = sum(self.inlined, other.inlined);
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
    let measured = measure(elf)?;
    let (offsets, counted) = offsets(table, elf, options)?;
    progress.begin(offsets.len() as u64);

    let root = source_root(elf, &options.naming)?;
    let sections = DwarfSections::load(|id| match SECTIONS.contains(&id) {
        true => elf.debug_section(id),
        false => Ok(Cow::Borrowed(&[][..])),
    })?;
    let contexts_max = contexts_max(elf, measured.crate_bytes)?;
    let endian = elf.endian();
    let dwarf = || sections.borrow(|section| EndianSlice::new(section, endian));
    let judge = Judge {
        table,
        names: table.files().map(|name| text(&name.to_string())).collect(),
        claims: Claims::of(&dwarf(), measured.claimed),
        identity,
        naming: &options.naming,
        root: &root,
        show: options.show,
    };
    let frames = table.layout().has_chains();
    let (mut copy, mut by_section) = (None, false);
    match &options.oracle {
        Some(program) if program.takes_sections() => by_section = identity.relocatable,
        Some(_) => copy = Some(elf.copy_for_symbolizer(frames)?),
        None => {}
    }
    let asked = copy.as_ref().map_or(elf.dwarf_path(), |copy| copy.path());
    let threads = rayon::current_num_threads();
    let at_a_time = match options.oracle {
        Some(_) => threads,
        None => contexts_max,
    };
    let sections_asked = if by_section { &identity.text[..] } else { &[] };
    let batch_len = offsets
        .len()
        .div_ceil(threads * BATCHES)
        .clamp(1, BATCH_MAX);
    let batches = batches(&offsets, sections_asked, identity.text_start, batch_len);
    let dwarf_path = elf.dwarf_path();
    let failed = |source| Error::Dwarf {
        path: dwarf_path.to_owned(),
        source,
    };
    // A piece of work for each context, or, where every thread has one, as many as rayon likes.
    let min_len = match at_a_time < threads {
        true => batches.len().div_ceil(at_a_time),
        false => 1,
    };
    let found = batches
        .par_iter()
        .with_min_len(min_len)
        .map(|batch| {
            let base = identity.text_start;
            let offsets = batch.offsets.iter();
            let addresses = offsets.map(|offset| base.wrapping_add(offset.0));
            let mut comparison = Comparison::new(&judge, batch.offsets, progress);
            match (&options.oracle, batch.section) {
                (Some(program), None) => {
                    program.ask(asked, None, frames, addresses, |answer| {
                        comparison.next(answer);
                    })?;
                }
                (Some(program), Some(section)) => {
                    let addresses = addresses.map(|address| address.wrapping_sub(section.address));
                    let name = Some(section.name.as_str());
                    program.ask(asked, name, frames, addresses, |answer| {
                        comparison.next(answer);
                    })?;
                }
                (None, _) => {
                    let context = Context::from_dwarf(dwarf()).map_err(failed)?;
                    for address in addresses {
                        ask_crate(&context, address, frames, |answer| comparison.next(answer));
                    }
                }
            }
            Ok(comparison.finish())
        })
        .try_reduce(Report::default, |one, other| {
            Ok(one.merge(other, options.show))
        })?;
    Ok(Report {
        inlined: frames.then(|| found.inlined.unwrap_or(0)),
        ..counted.merge(found, options.show)
    })
}

/// How many contexts of the crate there may be at a time: each keeps all units, in the worst case, so
/// there are as many as the budget of the image has memory for, and one for each thread at most.
fn contexts_max(elf: &Elf<'_>, crate_bytes: u64) -> Result<usize, Error> {
    let bytes = crate_bytes.max(1);
    let budget = elf.budget();
    let threads = rayon::current_num_threads() as u64;
    let contexts = (budget.rest() / bytes).clamp(1, threads);
    budget
        .charge("units for the addr2line crate", contexts * bytes)
        .map_err(|source| elf.over_budget(source))?;
    Ok(contexts as usize)
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
    let sample = options
        .sample
        .and_then(|sample| usize::try_from(sample).ok());
    if let Some(sample) = sample.filter(|sample| *sample < offsets.len()) {
        random.shuffle(&mut offsets);
        offsets.truncate(sample);
        offsets.sort_unstable();
    }
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

/// What the crate says of an address, and if `frames` of all functions there: nothing also where the
/// unit is damaged.
fn ask_crate(
    context: &Dwarf<'_>,
    address: u64,
    frames: bool,
    mut answer: impl FnMut(&[AnswerFrame<'_>]),
) {
    /// Line 0 means that there is no line.
    fn known(location: Option<addr2line::Location<'_>>) -> Option<(&str, u32)> {
        let location = location?;
        Some((location.file?, location.line.filter(|line| *line != 0)?))
    }
    if !frames {
        let location = known(context.find_location(address).ok().flatten());
        let frame = location.map(|(file, line)| AnswerFrame {
            function: "",
            file,
            line,
        });
        return answer(frame.as_slice());
    }
    let mut found = Vec::new();
    if let Ok(mut frames) = context.find_frames(address).skip_all_loads() {
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref();
            let name = name.and_then(|function| function.raw_name().ok());
            match known(frame.location) {
                Some((file, line)) => {
                    found.push((name.unwrap_or_default().into_owned(), file, line));
                }
                None if found.is_empty() => break,
                None => {}
            }
        }
    }
    let frames = found.iter().map(|(function, file, line)| AnswerFrame {
        function,
        file,
        line: *line,
    });
    answer(&frames.collect::<Vec<_>>());
}

/// A name of a table as text; the names of the references are text, too.
fn text(name: &str) -> String {
    String::from_utf8_lossy(&raw::to_bytes(name)).into_owned()
}

/// What is needed to compare.
struct Judge<'a> {
    table: &'a Table<'a>,
    /// The names of its files.
    names: Vec<String>,
    claims: Claims,
    identity: &'a Identity,
    naming: &'a Naming,
    root: &'a SourceRoot,
    show: usize,
}

impl Judge<'_> {
    /// The name that a table has for a file of the decoder.
    fn named(&self, file: &str) -> String {
        let file = self.naming.path([file]);
        printable(self.root.relative(&file))
    }

    /// `list_add (include/linux/list.h:12) < kernel/fork.c:7`, or the location alone.
    fn table_says(&self, address: Address) -> Option<String> {
        let Some(chain) = self.table.chain(address) else {
            let location = self.table.lookup(address)?;
            return Some(text(&location.to_string()));
        };
        let frames = chain.map(|frame| match frame.function {
            Some(function) => format!("{function} ({})", frame.location),
            None => frame.location.to_string(),
        });
        Some(text(&frames.collect::<Vec<_>>().join(" < ")))
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

/// Compares the answers for some addresses, one after the other.
struct Comparison<'a> {
    judge: &'a Judge<'a>,
    offsets: std::slice::Iter<'a, Offset>,
    /// The files of the decoder, and the names that the table has for them.
    names: HashMap<String, String>,
    report: Report,
    progress: &'a dyn Progress,
    /// Addresses that are not reported yet.
    steps: u64,
}

impl<'a> Comparison<'a> {
    fn new(judge: &'a Judge<'a>, offsets: &'a [Offset], progress: &'a dyn Progress) -> Self {
        Self {
            judge,
            offsets: offsets.iter(),
            names: HashMap::new(),
            report: Report::default(),
            progress,
            steps: 0,
        }
    }

    /// Compares the answer for the next address: its functions, innermost first.
    fn next(&mut self, answer: &[AnswerFrame<'_>]) {
        let Some(offset) = self.offsets.next() else {
            return;
        };
        self.steps += 1;
        if self.steps == STEPS {
            self.progress.advance(std::mem::take(&mut self.steps));
        }
        let judge = self.judge;
        // A table of the same build-id may be of another layout all the same.
        let address = judge.identity.text_start.wrapping_add(offset.0);
        // Exact at every address of a full table, and at the points of one for calls.
        let point = Address::Trap(*offset);
        for frame in answer {
            if !self.names.contains_key(frame.file) {
                let name = judge.named(frame.file);
                self.names.insert(frame.file.to_owned(), name);
            }
        }
        let ours = judge.table.lookup(point);
        let chain = judge.table.chain(point);
        if let Some(chain) = &chain {
            let count = self.report.inlined.get_or_insert(0);
            *count += u64::from(chain.inlined() > 0);
        }
        let agree = match (&ours, chain) {
            (None, _) => answer.is_empty(),
            (Some(ours), None) => match answer {
                [answer] => self.agree(ours, answer),
                _ => false,
            },
            (Some(_), Some(chain)) => self.chains_agree(chain, answer),
        };
        // Where the table has a line there must be rows, claimed or not.
        let may_differ =
            !judge.claims.hold(address) && (ours.is_none() || judge.claims.have_rows(address));
        if (answer.is_empty() || !agree) && may_differ {
            self.report.unclaimed += 1;
            return;
        }
        self.report.checked += 1;
        if !agree {
            self.report.differences += 1;
            if self.report.first.len() < judge.show {
                self.report.first.push(Difference {
                    address,
                    place: judge.place(address),
                    table: judge.table_says(point),
                    decoder: self.decoder_says(answer),
                });
            }
        }
    }
    fn agree(&self, ours: &Location<'_>, theirs: &AnswerFrame<'_>) -> bool {
        let name = self.judge.names.get(ours.file.index() as usize);
        !ours.approximate && ours.line == theirs.line && name == self.names.get(theirs.file)
    }

    /// The name of the outermost function is not compared: in a kernel it is that of the symbol.
    fn chains_agree(&self, ours: Chain<'_>, answer: &[AnswerFrame<'_>]) -> bool {
        let mut theirs = answer.iter();
        for frame in ours {
            let Some(answer) = theirs.next() else {
                return false;
            };
            let same = frame
                .function
                .is_none_or(|function| text(&function.to_string()) == answer.function);
            if !same || !self.agree(&frame.location, answer) {
                return false;
            }
        }
        theirs.next().is_none()
    }

    /// What a decoder says, as [`Judge::table_says`].
    fn decoder_says(&self, answer: &[AnswerFrame<'_>]) -> Option<String> {
        let (outermost, inlined) = answer.split_last()?;
        let location = |frame: &AnswerFrame<'_>| {
            let file = self.names.get(frame.file);
            format!("{}:{}", file.map_or(frame.file, String::as_str), frame.line)
        };
        let inlined = inlined.iter();
        let inlined = inlined.map(|frame| format!("{} ({})", frame.function, location(frame)));
        let said: Vec<String> = inlined.chain([location(outermost)]).collect();
        Some(said.join(" < "))
    }

    fn finish(self) -> Report {
        self.progress.advance(self.steps);
        self.report
    }
}
