//! Tables of the same small kernel on every machine, by every compiler, against the references.
//!
//! The sources and the script that makes them into modules and images are in `fixtures/machines`.
//! What a compiler or a reference is missing for is shown as ignored, with the reason.

mod machines;

use std::path::Path;
use std::process::ExitCode;

use indicatif::ProgressBar;
use libtest_mimic::{Arguments, Failed};
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::extract::{Extracted, extract};
use lineinfo_cli::points::Instructions;
use lineinfo_cli::verify::{Options, Program, verify};
use lineinfo_core::blob::Encoding;
use lineinfo_core::{Row, Table};
use machines::fixtures;

/// All bytes of these small texts, with near certainty.
const RANDOM_BYTES: u64 = 20_000;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for fixture in fixtures() {
        let mut compare = |oracle: Option<&'static str>| {
            let what = format!("equals {}", oracle.unwrap_or("the addr2line crate"));
            trials.push(fixture.trial(&what, oracle, move |path| check(path, oracle)));
        };
        compare(None);
        compare(Some("llvm-symbolizer"));
        // Without .debug_aranges, which clang does not make, it knows nothing.
        if fixture.compiler[0] != "clang" {
            compare(Some("eu-addr2line"));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn check(path: &Path, oracle: Option<&str>) -> Result<(), Failed> {
    let file = ElfFile::open(path)?;
    let elf = file.parse()?;
    let extracted = extract(&elf, &Naming::default(), &ProgressBar::hidden())?;
    has_what_it_is_for(&extracted)?;

    let blob = extracted.encode(Encoding::Packed)?;
    let options = Options {
        oracle: oracle.map(str::parse::<Program>).transpose()?,
        random: RANDOM_BYTES,
        show: 10,
        ..Options::default()
    };
    let table = Table::parse(&blob)?;
    let report = verify(path, &table, &elf, &options, &ProgressBar::hidden())?;
    if report.differences > 0 || report.checked < 300 {
        return Err(format!("{report:#?}").into());
    }
    let decoder = Instructions::of(elf.identity.machine, elf.address_size());
    if decoder.is_some() && report.call_sites.is_none_or(|calls| calls < 10) {
        return Err(format!("few calls: {:?}", report.call_sites).into());
    }
    Ok(())
}

/// That no compiler has made the fixture pointless.
fn has_what_it_is_for(extracted: &Extracted) -> Result<(), Failed> {
    for expected in [
        "kernel.c",
        "kernel.h",
        "entry.S",
        "generated/lines.c",
        "/elsewhere/lib/outside.c",
    ] {
        if !extracted.files.iter().any(|file| file == expected) {
            return Err(format!("no {expected} among {:?}", extracted.files).into());
        }
    }
    let regions = &extracted.regions;
    let names: Vec<_> = regions
        .iter()
        .map(|region| &region.section.name[..])
        .collect();
    for expected in [
        ".text",
        ".noinstr.text",
        ".init.text",
        ".exit.text",
        ".entry.text",
    ] {
        if !names.contains(&expected) {
            return Err(format!("no {expected} among {names:?}").into());
        }
    }
    if !regions
        .iter()
        .any(|region| region.rows.iter().any(Row::is_gap))
    {
        return Err("no gap for the assembly without rows".into());
    }
    Ok(())
}
