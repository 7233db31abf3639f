//! Damaged DWARF of every machine: an error or a table, never a panic, never much memory.
//!
//! Bytes of the debug sections, of their relocations and of the headers of the fixtures are
//! overwritten as a fuzzer would. `LINEINFO_DAMAGE_CASES` is how often a fixture is damaged; the
//! number of a case is its seed.

mod machines;

use std::fs;
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;

use fastrand::Rng;
use libtest_mimic::{Arguments, Failed};
use lineinfo_cli::Error;
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_core::blob::Encoding;
use machines::fixtures;
use object::{Object, ObjectSection};

/// How often a fixture is damaged if `LINEINFO_DAMAGE_CASES` does not say.
const CASES: u64 = 50;

/// The most memory that the process may ever have had.
const MEMORY_MAX_KB: u64 = 2 << 20;

fn main() -> ExitCode {
    let cases = std::env::var("LINEINFO_DAMAGE_CASES").ok();
    let cases = cases.map_or(CASES, |cases| cases.parse().expect("a number of cases"));
    let trials = fixtures()
        .iter()
        .map(|fixture| fixture.trial("is damaged", None, move |path| damage_all(path, cases)))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn damage_all(path: &Path, cases: u64) -> Result<(), Failed> {
    let whole = fs::read(path)?;
    let ranges = ranges(&whole)?;
    let mut refused = 0;
    for case in 0..cases {
        let damaged = damage(&whole, &ranges, &mut Rng::with_seed(case));
        fs::write(path, damaged)?;
        match catch_unwind(|| build(path)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) if !error.to_string().is_empty() => refused += 1,
            Ok(Err(_)) => return Err(format!("case {case}: an error that says nothing").into()),
            Err(_) => return Err(format!("case {case}: a panic").into()),
        }
    }
    let peak_kb = peak_kb()?;
    if peak_kb > MEMORY_MAX_KB {
        return Err(format!("{peak_kb} kB of memory").into());
    }
    if refused == 0 || refused == cases {
        return Err(format!("{refused} of {cases} refused: the damage is pointless").into());
    }
    Ok(())
}

/// What `lineinfo build` does, but for writing the file.
fn build(path: &Path) -> Result<(), Error> {
    let file = ElfFile::open(path)?;
    let elf = file.parse()?;
    let extracted = extract(&elf, &Naming::default(), &())?;
    // Rows that make no table are an error too.
    let _ = extracted.encode(Encoding::Packed);
    Ok(())
}

/// Where a file can be damaged: its debug sections, their relocations, and its headers.
fn ranges(file: &[u8]) -> Result<Vec<Range<usize>>, Failed> {
    let elf = object::File::parse(file)?;
    let mut ranges = vec![
        0..64.min(file.len()),
        file.len().saturating_sub(2048)..file.len(),
    ];
    for section in elf.sections() {
        let Some((start, len)) = section.file_range().filter(|(_, len)| *len > 0) else {
            continue;
        };
        let range = start as usize..(start + len) as usize;
        if section.name()?.contains("debug_line") {
            // As often as all the others together: nothing else becomes rows.
            ranges.extend(std::iter::repeat_n(range, 8));
        } else if section.name()?.contains("debug_") {
            ranges.push(range);
        }
    }
    Ok(ranges)
}

fn damage(whole: &[u8], ranges: &[Range<usize>], random: &mut Rng) -> Vec<u8> {
    let mut file = whole.to_vec();
    for _ in 0..random.usize(1..8) {
        let range = ranges[random.usize(..ranges.len())].clone();
        let field = &mut file[range];
        let at = random.usize(..field.len());
        let len = random.usize(1..16).min(field.len() - at);
        match random.u8(..5) {
            0 => field[at] = random.u8(..),
            1 => field[at] ^= 1 << random.u8(..8),
            // A large number, in LEB128 and in any other form, or a small one.
            2 => field[at..at + len].fill([0, 0x7f, 0x80, 0xff][random.usize(..4)]),
            3 => random.fill(&mut field[at..at + len]),
            _ => {
                let from = random.usize(..=field.len() - len);
                field.copy_within(from..from + len, at);
            }
        }
    }
    if random.u8(..16) == 0 {
        file.truncate(random.usize(1..file.len()));
    }
    file
}

/// The most memory that this process has had resident.
fn peak_kb() -> Result<u64, Failed> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
        .ok_or("no VmHWM in /proc/self/status")?;
    Ok(peak.parse()?)
}
