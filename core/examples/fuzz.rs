//! Damages blobs, repairs their checksums, and tries what a reader does with them.
//!
//! ```sh
//! cargo run --profile fuzz -p lineinfo-core --features steps --example fuzz -- SECONDS SEED
//! ```
//!
//! A blob is refused, or nothing panics, no step count is above its documented bound, and no text
//! has a character that does not belong into a log. If [`Table::check_rows`] accepts it as well,
//! every look-up gives what the rows say. The first blob of each kind of finding is written to the
//! current directory; the exit status is then 1.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fastrand::Rng;
use lineinfo_core::blob::{Encoding, HEADER_SIZE, Profile};
use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::steps::{craft, measure};
use lineinfo_core::writer::{
    Image, InlineChain, InlineLevel, InlinedFunction, Inlines, Options, Region, Tuning, encode,
    encode_with_inlines, seal,
};
use lineinfo_core::{Address, Location, Offset, Row, Table};

/// Look-ups in each region of a blob.
const LOOK_UPS: usize = 8;

/// How often a long run reports.
const REPORT: Duration = Duration::from_secs(60);

/// Largest crafted blob that is a seed: executions of large ones are slow.
const SEED_BYTES_MAX: usize = 4096;

#[derive(Debug, Default)]
struct Totals {
    executions: u64,
    accepted: u64,
    accepted_with_rows: u64,
    look_ups: u64,
    compared: u64,
    parse_steps_per_byte: u64,
    look_up_steps: u64,
    chains: u64,
    chain_steps: u64,
    frame_steps: u64,
    parse_time: Duration,
    findings: BTreeMap<String, u64>,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} executions, {} accepted, {} with their rows, {} look-ups, {} compared",
            self.executions, self.accepted, self.accepted_with_rows, self.look_ups, self.compared
        )?;
        write!(
            f,
            "{} chains with inlined functions; most steps: {} a byte of {} in parse, {} of {} in a look-up, \
             {} of {} in a chain, {} of {} in a frame; longest parse {:?}",
            self.chains,
            self.parse_steps_per_byte,
            Table::PARSE_STEPS_PER_BYTE,
            self.look_up_steps,
            Table::LOOKUP_STEPS,
            self.chain_steps,
            Table::CHAIN_STEPS,
            self.frame_steps,
            Table::FRAME_STEPS,
            self.parse_time
        )
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seconds, seed] = arguments.as_slice() else {
        return Err("usage: fuzz SECONDS SEED".into());
    };
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let mut rng = Rng::with_seed(seed.parse()?);
    let (seeds, crafted) = (seeds(&mut rng)?, crafted());
    let mut totals = Totals::default();
    std::panic::set_hook(Box::new(|_| {}));
    let mut reported = Instant::now();
    while Instant::now() < end {
        if reported.elapsed() > REPORT {
            reported = Instant::now();
            eprintln!("seed {seed}: {totals}; {} findings", totals.findings.len());
        }
        for _ in 0..1000 {
            // Crafted blobs are slow by intention.
            let list = if rng.u8(..) == 0 { &crafted } else { &seeds };
            let mut blob = list[rng.usize(..list.len())].clone();
            for _ in 0..1 + rng.usize(..5) * rng.usize(..2) {
                mutate(&mut rng, &mut blob);
            }
            if let Some(size) = u32::try_from(blob.len())
                .ok()
                .filter(|_| blob.len() >= HEADER_SIZE)
            {
                put(&mut blob, 12, &size.to_le_bytes());
            }
            seal(&mut blob);
            totals.executions += 1;
            let result = catch_unwind(AssertUnwindSafe(|| run(&mut rng, &blob, &mut totals)));
            let finding = match result {
                Ok(Ok(())) => continue,
                Ok(Err(finding)) => finding,
                Err(panic) => match panic.downcast::<String>() {
                    Ok(message) => format!("panic: {message}"),
                    Err(panic) => format!("panic: {:?}", panic.downcast_ref::<&str>()),
                },
            };
            let count = totals.findings.entry(finding).or_default();
            *count += 1;
            if *count == 1 {
                let number = totals.findings.len();
                std::fs::write(format!("finding-{seed}-{number}.lineinfo"), &blob)?;
            }
        }
    }
    println!("seed {seed}: {totals}");
    for (finding, count) in &totals.findings {
        println!("{count} times: {finding}");
    }
    Ok(match totals.findings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn run(rng: &mut Rng, blob: &[u8], totals: &mut Totals) -> Result<(), String> {
    let start = Instant::now();
    let (parsed, steps) = measure(|| Table::parse(blob));
    totals.parse_time = totals.parse_time.max(start.elapsed());
    let per_byte = steps.div_ceil(blob.len().max(1) as u64);
    totals.parse_steps_per_byte = totals.parse_steps_per_byte.max(per_byte);
    ensure(
        per_byte <= Table::PARSE_STEPS_PER_BYTE as u64,
        "parse is slow",
    )?;
    let Ok(table) = parsed else { return Ok(()) };
    totals.accepted += 1;
    let is_checked = table.check_rows().is_ok();
    totals.accepted_with_rows += u64::from(is_checked);
    let mut number_of_rows = 0;
    for (number, region) in table.regions().enumerate() {
        ensure(is_printable(region.name, 512), "a name of a region")?;
        let rows: Vec<Row> = table.region_rows(number).collect();
        number_of_rows += rows.len();
        if is_checked {
            ensure(rows.len() == region.rows as usize, "a number of rows")?;
        }
        for _ in 0..LOOK_UPS {
            let target = match (rng.u8(..4), rows.len()) {
                (0, _) | (_, 0) => rng.u32(..region.len.max(1)),
                (_, count) => {
                    let start = rows[rng.usize(..count)].start;
                    start.wrapping_add(rng.u32(..3)).wrapping_sub(1)
                }
            };
            let offset = region.start.0 + u64::from(target);
            let found = look_up(&table, offset, totals)?;
            chain(&table, offset, found.as_ref(), is_checked, totals)?;
            if target >= region.len || !is_checked {
                continue;
            }
            totals.compared += 1;
            let after = rows.partition_point(|row| row.start <= target);
            let row = after.checked_sub(1).map(|row| rows[row]);
            let expected = row
                .filter(|row| !row.is_gap())
                .map(|row| (table.file(row.file), row.line));
            let found = found.map(|found| (Some(found.file), found.line));
            ensure(found == expected, "a look-up contradicts the rows")?;
        }
    }
    if is_checked {
        ensure(
            number_of_rows == table.layout().rows() as usize,
            "a number of all rows",
        )?;
    }
    let end = table.layout().text_len();
    for offset in [end, end.saturating_add(rng.u64(..)), u64::MAX] {
        ensure(
            look_up(&table, offset, totals)?.is_none(),
            "an answer after the text",
        )?;
    }
    if rng.u8(..4) > 0 {
        return Ok(());
    }
    let mut copy = vec![0; table.size_without_init()];
    let layout = table.copy_without_init(&mut copy);
    layout.ok_or("a copy without init text")?;
    let copy = Table::parse(&copy);
    let copy = copy.map_err(|error| format!("a copy without init text: {error}"))?;
    ensure(
        !is_checked || copy.check_rows().is_ok(),
        "the rows of a copy without init text",
    )
}

/// Looks up an offset and writes the location.
fn look_up<'a>(
    table: &Table<'a>,
    offset: u64,
    totals: &mut Totals,
) -> Result<Option<Location<'a>>, String> {
    totals.look_ups += 1;
    let mut buffer = [0; 640];
    let ((found, text), steps) = measure(|| {
        let found = table.lookup(Address::Exact(Offset(offset)));
        (found, found.map_or("", |found| found.write(&mut buffer)))
    });
    totals.look_up_steps = totals.look_up_steps.max(steps);
    ensure(steps <= Table::LOOKUP_STEPS as u64, "a look-up is slow")?;
    ensure(
        found.is_none() || is_printable(text, 512 + " (:~4294967295)".len()),
        "a text that is not to be printed",
    )?;
    Ok(found)
}

/// Looks up the functions of an offset and writes them; `found` is what [`look_up`] says.
fn chain(
    table: &Table<'_>,
    offset: u64,
    found: Option<&Location<'_>>,
    is_checked: bool,
    totals: &mut Totals,
) -> Result<(), String> {
    let mut buffer = [0; 1280];
    let address = Address::Trap(Offset(offset));
    let (chain, steps) = measure(|| table.chain(address));
    totals.chain_steps = totals.chain_steps.max(steps);
    ensure(steps <= Table::CHAIN_STEPS as u64, "a chain is slow")?;
    let exact = table.lookup(address).filter(|found| !found.approximate);
    if is_checked && table.layout().has_chains() {
        ensure(chain.is_some() == exact.is_some(), "a chain for every line")?;
    }
    let Some(chain) = chain else { return Ok(()) };
    ensure(exact.is_some(), "a chain without a line")?;
    totals.chains += u64::from(chain.inlined() > 0);
    for (number, frame) in chain.enumerate() {
        if number == 0 {
            let same = found.is_some_and(|found| {
                (found.file, found.line) == (frame.location.file, frame.location.line)
            });
            ensure(same, "an innermost function that is at another line")?;
        }
        let mut text = StrBuffer::new(&mut buffer);
        let ((), steps) = measure(|| frame.push_to(&mut text));
        totals.frame_steps = totals.frame_steps.max(steps);
        ensure(steps <= Table::FRAME_STEPS as u64, "a frame is slow")?;
        ensure(
            is_printable(text.into_str(), 1200),
            "a frame that is not to be printed",
        )?;
    }
    Ok(())
}

fn ensure(condition: bool, finding: &str) -> Result<(), String> {
    match condition {
        true => Ok(()),
        false => Err(finding.to_owned()),
    }
}

/// The rule for names, said in another way than the reader does.
fn is_printable(text: &str, limit: usize) -> bool {
    const DIRECTION: &[char] = &[
        '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}',
        '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
    ];
    const LINES: &[char] = &['\u{2028}', '\u{2029}'];
    let is_bad = |c: char| c.is_control() || DIRECTION.contains(&c) || LINES.contains(&c);
    !text.is_empty() && text.len() <= limit && !text.chars().any(is_bad)
}

fn seeds(rng: &mut Rng) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut seeds = Vec::new();
    for &encoding in Encoding::ALL {
        for &profile in Profile::ALL {
            for (rows, files, regions) in [(3, 2, 1), (40, 5, 2), (100, 20, 3), (300, 30, 1)] {
                // The packed encoding has most to get wrong.
                let times = if encoding == Encoding::Packed { 3 } else { 1 };
                for time in 0..times {
                    let with_chains = time > 0;
                    let size = (rows, files, regions);
                    seeds.push(seed(rng, encoding, profile, size, with_chains)?);
                }
            }
        }
    }
    // Small tables have no codes of their own.
    for with_chains in [false, true] {
        let size = (4500, 30, 1);
        seeds.push(seed(
            rng,
            Encoding::Packed,
            Profile::Full,
            size,
            with_chains,
        )?);
    }
    Ok(seeds)
}

fn crafted() -> Vec<Vec<u8>> {
    let crafted = craft::all().into_iter().map(|hostile| hostile.blob);
    crafted
        .filter(|blob| blob.len() <= SEED_BYTES_MAX)
        .collect()
}

/// A table of rows like those of code: so many in the first region, files, and regions.
fn seed(
    rng: &mut Rng,
    encoding: Encoding,
    profile: Profile,
    (count, files, regions): (u32, u32, usize),
    with_chains: bool,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let name = |n: u32| match n % 5 {
        0 => format!("include/linux/h{n}.h"),
        1 => format!("fs/ext4/super{n}.c"),
        2 => format!("drivers/net/long_{}_{n}.c", "x".repeat(n as usize % 60)),
        3 => format!("arch/x86/é{n}.c"),
        _ => format!("k{n}.S"),
    };
    let names: Vec<String> = (0..files).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut lists = Vec::new();
    for region in 0..regions {
        let count = if region == 0 { count } else { rng.u32(..count) };
        let mut rows = Vec::new();
        let (mut start, mut file, mut line) = (rng.u32(..20), 0, 10_u32);
        for _ in 0..count {
            match rng.u8(..6) {
                0 => (file, line) = (rng.u32(..files), rng.u32(1..3000)),
                1 => line = line.saturating_sub(rng.u32(..9)).max(1),
                2 => {
                    file = rng.u32(..files.min(4));
                    line = 100 + 3 * file;
                }
                _ => line += rng.u32(..4),
            }
            rows.push(match rng.u8(..20) {
                0 => Row {
                    start,
                    file: 0,
                    line: 0,
                },
                _ => Row { start, file, line },
            });
            start += 4 * rng.u32(1..10);
            start += match rng.u8(..60) {
                0 => rng.u32(..3000),
                1..6 => rng.u32(1..4),
                _ => 0,
            };
        }
        lists.push((rows, start + rng.u32(1..100)));
    }
    let mut start = 0;
    let mut views = Vec::new();
    for ((rows, len), name) in lists.iter().zip([".text", ".init.text", ".exit.text"]) {
        views.push(Region {
            name,
            start,
            len: *len,
            init: name == ".init.text",
            rows,
        });
        start += u64::from(*len) + rng.u64(..5000);
    }
    let tuning = [Tuning::SIZE, Tuning::BALANCED, Tuning::SPEED];
    let image = Image {
        machine: 62,
        build_id: &[0xab; 20],
        text_start: 0xffff_ffff_8100_0000,
        profile,
        files: &names,
        exact_files: names.len(),
        regions: &views,
    };
    let tuning = tuning[rng.usize(..tuning.len())];
    let options = Options { encoding, tuning };
    if !with_chains {
        return Ok(encode(&image, options)?);
    }
    let inlines = inlines(rng, files, 2 + count / 10);
    let count = inlines.chains.len() as u32;
    let mut chain = None;
    let chains: Vec<Vec<Option<u32>>> = lists
        .iter()
        .map(|(rows, _)| {
            let mut next = |row: &Row| {
                if rng.u8(..4) == 0 {
                    chain = (rng.u8(..4) > 0).then(|| rng.u32(..count));
                }
                chain.filter(|_| !row.is_gap())
            };
            rows.iter().map(&mut next).collect()
        })
        .collect();
    let chains: Vec<&[Option<u32>]> = chains.iter().map(Vec::as_slice).collect();
    Ok(encode_with_inlines(&image, &inlines, &chains, options)?)
}

/// Functions, and chains of them in which few call each.
fn inlines(rng: &mut Rng, files: u32, count: u32) -> Inlines {
    let function = |n: u32, rng: &mut Rng| InlinedFunction {
        name: format!(
            "{}f{}_{n}",
            "_".repeat(n as usize % 4),
            "x".repeat(n as usize % 70)
        ),
        file: rng.u32(..files),
        line: rng.u32(..40) * 25,
    };
    let functions: Vec<_> = (0..count).map(|n| function(n, rng)).collect();
    let chain = |rng: &mut Rng| {
        let depth = match rng.u8(..10) {
            0 => 18,
            _ => rng.usize(1..5),
        };
        let mut around = rng.u32(..count);
        let mut level = || {
            let line = match rng.u8(..20) {
                0 => rng.u32(..1 << 20),
                _ => functions[around as usize].line + rng.u32(..5),
            };
            around = match rng.u8(..20) {
                0 => rng.u32(..count),
                _ => (around * 7 + rng.u32(..3)) % count,
            };
            InlineLevel {
                function: around,
                line,
            }
        };
        let levels = (0..depth).map(|_| level()).collect();
        InlineChain { file: 0, levels }
    };
    let chains = (0..count * 3).map(|_| chain(rng)).collect();
    Inlines { functions, chains }
}

/// The position of an entry of the section directory, with the offset and the size of its section.
fn section(blob: &[u8], number: usize) -> Option<(usize, usize, usize)> {
    let sections = usize::from(*blob.get(SECTIONS_AT)?);
    let mut offset = HEADER_SIZE + ENTRY_SIZE * sections;
    for entry in 0..=number {
        let at = HEADER_SIZE + ENTRY_SIZE * entry;
        let size = word(blob, at + 1)? as usize;
        let end = offset.checked_add(size)?;
        if entry == number {
            return (end <= blob.len()).then_some((at, offset, size));
        }
        offset = end;
    }
    None
}

/// Where a header has the number of sections.
const SECTIONS_AT: usize = 23;
/// Size of an entry of the section directory.
const ENTRY_SIZE: usize = 5;

fn word(blob: &[u8], at: usize) -> Option<u32> {
    let bytes = blob.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn put(blob: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(slot) = blob
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..bytes.len()))
    {
        slot.copy_from_slice(bytes);
    }
}

/// A number that limits are near to.
fn number(rng: &mut Rng) -> u32 {
    match rng.u8(..8) {
        0 => 0,
        1 => u32::MAX,
        2 => 1 << rng.u32(..32),
        3 => (1 << rng.u32(..32)) - 1,
        4 => rng.u32(..),
        5 => rng.u32(..0x100),
        6 => rng.u32(..0x1_0000),
        _ => rng.u32(..20),
    }
}

fn mutate(rng: &mut Rng, blob: &mut Vec<u8>) {
    let sections = usize::from(blob.get(SECTIONS_AT).copied().unwrap_or(0)).clamp(1, 12);
    let chosen = section(blob, rng.usize(..sections));
    let (from, to) = match (rng.u8(..14), chosen) {
        (0, _) => (20, HEADER_SIZE),
        (1, _) => (HEADER_SIZE, HEADER_SIZE + ENTRY_SIZE * sections),
        (_, Some((_, offset, size))) if size > 0 => match rng.u8(..3) {
            // Heads of sections have the counts.
            0 => (offset, offset + size.min(64)),
            _ => (offset, offset + size),
        },
        _ => (20, blob.len()),
    };
    let to = to.min(blob.len());
    if from >= to {
        return;
    }
    let at = rng.usize(from..to);
    match rng.u8(..12) {
        0..3 => blob[at] ^= 1 << rng.u8(..8),
        3..5 => blob[at] = rng.u8(..),
        5 => put(blob, at, &number(rng).to_le_bytes()),
        6 => put(blob, at, &number(rng).to_le_bytes()[..2]),
        7 => {
            let near = rng.u32(..9).wrapping_sub(4);
            let value = word(blob, at).unwrap_or(0).wrapping_add(near);
            put(blob, at, &value.to_le_bytes());
        }
        8 => {
            let other = rng.usize(from..to);
            let bytes = blob[other..to.min(other + rng.usize(1..12))].to_vec();
            put(blob, at, &bytes);
        }
        9 => blob[at] = blob[at].wrapping_add(1),
        _ => resize(rng, blob, sections),
    }
}

/// Inserts bytes into a section, or removes some, and repairs what counts them.
fn resize(rng: &mut Rng, blob: &mut Vec<u8>, sections: usize) {
    let number = rng.usize(..sections);
    let Some((entry, offset, size)) = section(blob, number) else {
        return;
    };
    let at = offset + rng.usize(..=size);
    let count = rng.usize(1..5);
    let grow = rng.bool() || at + count > offset + size;
    if grow {
        let bytes: Vec<u8> = (0..count).map(|_| rng.u8(..)).collect();
        blob.splice(at..at, bytes);
    } else {
        blob.drain(at..at + count);
    }
    let repair = |blob: &mut [u8], at: usize| {
        let count = count as u32;
        if let Some(value) = word(blob, at) {
            let value = if grow {
                value.wrapping_add(count)
            } else {
                value.wrapping_sub(count)
            };
            put(blob, at, &value.to_le_bytes());
        }
    };
    repair(blob, entry + 1);
    // The table of the last region ends where the rows do.
    if blob.get(entry) == Some(&4)
        && rng.u8(..4) > 0
        && let Some((_, regions, size)) = section(blob, 0)
        && let Some([start_and_len, rows_and_end, name]) =
            blob.get(regions..).and_then(<[u8]>::first_chunk)
    {
        let widths = [
            start_and_len & 15,
            start_and_len >> 4,
            rows_and_end & 15,
            rows_and_end >> 4,
            name & 15,
        ];
        let [start, len, rows, end, name] = widths.map(usize::from);
        if let Some(at) = (regions + size).checked_sub(end + name)
            && start + len + rows > 0
            && end > 0
        {
            let bytes = blob.get(at..at + end.min(4)).unwrap_or(&[]);
            let value = bytes
                .iter()
                .rev()
                .fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
            let count = count as u32;
            let value = if grow {
                value.wrapping_add(count)
            } else {
                value.wrapping_sub(count)
            };
            put(blob, at, &value.to_le_bytes()[..end.min(4)]);
        }
    }
}
