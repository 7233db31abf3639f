//! How long a look-up takes: every encoding and tuning, the addr2line crate, and blazesym on GSYM.
//!
//! ```sh
//! LINEINFO_VMLINUX=$(.ci/vmlinux) cargo bench --bench lookup
//! ```
//!
//! Each look-up is timed by itself, at the same random addresses for all, in rounds in which every
//! variant has its turn, so that the noise of the machine falls on all alike: read the ratios. The
//! time of an empty measurement is printed, and not taken off. "Worst" is the longest of the slowest
//! look-ups when each is repeated and counted at its best. A GSYM file is made where
//! llvm-gsymutil is installed; without `LINEINFO_VMLINUX` the benchmark says that it skips.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use addr2line::Context;
use anyhow::{Context as _, Result};
use blazesym::symbolize::source::{GsymFile, Source};
use blazesym::symbolize::{Input, Symbolizer};
use comfy_table::{Table as TextTable, presets};
use gimli::{DwarfSections, EndianSlice};
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::extract::{Extracted, extract};
use lineinfo_core::blob::Encoding;
use lineinfo_core::writer::{Options, Tuning};
use lineinfo_core::{Address, Offset, Table};

/// Addresses in a round.
const ADDRESSES: usize = 20_000;
const ROUNDS: usize = 10;
/// Look-ups that are looked at again for the worst case.
const SLOW: usize = 2000;

struct Variant<'a> {
    name: String,
    /// Size of what is in memory or on disk for it, in bytes.
    bytes: usize,
    look_up: Box<dyn FnMut(u64) -> bool + 'a>,
    nanoseconds: Vec<u32>,
    /// Look-ups that took long, and how long: candidates for the worst case.
    slow: Vec<(u32, u64)>,
    /// What [`Table::parse`] takes, where there is a table.
    parse: Option<Duration>,
}

impl<'a> Variant<'a> {
    fn new(name: impl Into<String>, bytes: usize, look_up: impl FnMut(u64) -> bool + 'a) -> Self {
        Self {
            name: name.into(),
            bytes,
            look_up: Box::new(look_up),
            nanoseconds: Vec::with_capacity(ADDRESSES * ROUNDS),
            slow: Vec::new(),
            parse: None,
        }
    }

    /// Times one look-up, in nanoseconds.
    fn time(&mut self, address: u64) -> u32 {
        let start = Instant::now();
        black_box((self.look_up)(black_box(address)));
        start.elapsed().as_nanos() as u32
    }

    /// The longest of the slow look-ups, each at its best of ten: that of the machine's noise is
    /// over by then, that of the table is not.
    fn worst(&mut self) -> u32 {
        self.slow.sort_unstable_by(|one, other| other.cmp(one));
        self.slow.truncate(SLOW);
        let slow = std::mem::take(&mut self.slow);
        let mut best = |address| (0..10).map(|_| self.time(address)).min();
        slow.into_iter()
            .filter_map(|(_, address)| best(address))
            .max()
            .unwrap_or(0)
    }

    fn quantile(&self, share: f64) -> u32 {
        self.nanoseconds[((self.nanoseconds.len() - 1) as f64 * share) as usize]
    }
}

fn main() -> Result<()> {
    let Some(vmlinux) = std::env::var_os("LINEINFO_VMLINUX") else {
        println!("skipped: LINEINFO_VMLINUX names no vmlinux");
        return Ok(());
    };
    let vmlinux = Path::new(&vmlinux);
    let file = ElfFile::open(vmlinux)?;
    let elf = file.parse()?;
    let extracted = extract(&elf, &Naming::default(), &())?;
    let text = extracted.regions.first().context("a text section")?;
    let text = text.section.address..text.section.end();
    let text_start = extracted.identity.text_start;

    let mut blobs = encode_all(&extracted, "full")?;
    let mut reduced = extract(&elf, &Naming::default(), &())?;
    reduced.reduce_to_calls(&elf)?;
    blobs.append(&mut encode_all(&reduced, "calls")?);
    let sections = DwarfSections::load(|id| elf.debug_section(id))?;
    let dwarf_bytes = std::fs::metadata(vmlinux)?.len() as usize;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, elf.endian()));
    let context = Context::from_dwarf(dwarf)?;
    let gsym = Gsym::make(vmlinux)?;

    let mut variants = vec![Variant::new("(nothing)", 0, |address| address != 0)];
    for (name, blob) in &blobs {
        let table = Table::parse(blob)?;
        let mut variant = Variant::new(name, blob.len(), move |address| {
            table
                .lookup(Address::Exact(Offset(address - text_start)))
                .is_some()
        });
        let parse = || {
            let start = Instant::now();
            black_box(Table::parse(black_box(blob))).map(|_| start.elapsed())
        };
        variant.parse = (0..5).map_while(|_| parse().ok()).min();
        variants.push(variant);
    }
    variants.push(Variant::new("addr2line, warm", dwarf_bytes, |address| {
        context
            .find_location(address)
            .is_ok_and(|found| found.is_some())
    }));
    if let Some(gsym) = &gsym {
        variants.push(gsym.variant()?);
    }

    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..=ROUNDS {
        let addresses: Vec<u64> = (0..ADDRESSES).map(|_| random.u64(text.clone())).collect();
        for variant in &mut variants {
            for address in &addresses {
                let time = variant.time(*address);
                // The first round warms up, addr2line and blazesym above all.
                if round > 0 {
                    variant.nanoseconds.push(time);
                    variant.slow.push((time, *address));
                }
            }
        }
    }
    print(variants);
    Ok(())
}

fn encode_all(extracted: &Extracted, profile: &str) -> Result<Vec<(String, Vec<u8>)>> {
    options()
        .into_iter()
        .map(|(name, options)| Ok((format!("{profile}, {name}"), extracted.encode(options)?)))
        .collect()
}

fn options() -> Vec<(String, Options)> {
    let packed = |name: &str, tuning| {
        let encoding = Encoding::Packed;
        (format!("packed, {name}"), Options { encoding, tuning })
    };
    vec![
        ("flat".to_owned(), Encoding::Flat.into()),
        ("delta".to_owned(), Encoding::Delta.into()),
        packed("speed", Tuning::SPEED),
        packed("balanced", Tuning::BALANCED),
        packed("size", Tuning::SIZE),
    ]
}

/// A GSYM file of the same kernel, as LLVM makes it.
struct Gsym {
    directory: tempfile::TempDir,
}

impl Gsym {
    /// `None` where no llvm-gsymutil is installed.
    fn make(vmlinux: &Path) -> Result<Option<Self>> {
        let directory = tempfile::tempdir()?;
        for program in ["llvm-gsymutil-22", "llvm-gsymutil-19", "llvm-gsymutil"] {
            let made = Command::new(program)
                .arg(format!("--convert={}", vmlinux.display()))
                .arg(format!(
                    "--out-file={}",
                    directory.path().join("gsym").display()
                ))
                .output();
            if made.is_ok_and(|output| output.status.success()) {
                return Ok(Some(Self { directory }));
            }
        }
        println!("llvm-gsymutil is not installed: no figures for GSYM");
        Ok(None)
    }

    fn variant(&self) -> Result<Variant<'static>> {
        let path = self.directory.path().join("gsym");
        let bytes = std::fs::metadata(&path)?.len() as usize;
        let source = Source::from(GsymFile::new(path));
        let symbolizer = Symbolizer::builder()
            .enable_code_info(true)
            .enable_inlined_fns(false)
            .enable_demangling(false)
            .build();
        Ok(Variant::new("blazesym on GSYM", bytes, move |address| {
            symbolizer
                .symbolize_single(&source, Input::VirtOffset(address))
                .is_ok_and(|found| found.as_sym().is_some())
        }))
    }
}

fn print(mut variants: Vec<Variant<'_>>) {
    for variant in &mut variants {
        variant.nanoseconds.sort_unstable();
    }
    let delta = variants
        .iter()
        .find(|variant| variant.name == "full, delta");
    let delta = f64::from(delta.map_or(1, |delta| delta.quantile(0.5)));
    let mut table = TextTable::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "look-up",
        "bytes",
        "median ns",
        "p99 ns",
        "median / delta",
        "worst ns",
        "parse ms",
    ]);
    for variant in &mut variants {
        let worst = variant.worst();
        let parse = variant.parse;
        let median = variant.quantile(0.5);
        table.add_row([
            variant.name.clone(),
            variant.bytes.to_string(),
            median.to_string(),
            variant.quantile(0.99).to_string(),
            format!("{:.2}", f64::from(median) / delta),
            worst.to_string(),
            parse.map_or(String::new(), |parse| {
                format!("{:.1}", parse.as_secs_f64() * 1e3)
            }),
        ]);
    }
    println!("{table}");
}
