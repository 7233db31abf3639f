//! Tables of the same small kernel on every machine, by every compiler, against the references.
//!
//! The sources and the script that makes them into modules and images are in `fixtures/machines`.
//! What a compiler or a reference is missing for is shown as ignored, with the reason.

mod machines;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed};
use lineinfo_cli::extract::elf::{Elf, ElfFile};
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::extract::{Extracted, extract};
use lineinfo_cli::points::Instructions;
use lineinfo_cli::verify::{Options, Program, verify};
use lineinfo_core::blob::Encoding;
use lineinfo_core::{Address, Offset, Row, Table};
use machines::fixtures;
use object::{Object, ObjectSymbol};

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
    let mut extracted = extract(&elf, &Naming::default(), &())?;
    has_what_it_is_for(&extracted)?;

    let blob = extracted.encode(Encoding::Packed)?;
    let options = Options {
        oracle: oracle.map(str::parse::<Program>).transpose()?,
        random: RANDOM_BYTES,
        show: 10,
        ..Options::default()
    };
    let table = Table::parse(&blob)?;
    let report = verify(path, &table, &elf, &options, &())?;
    if report.differences > 0 || report.checked < 300 {
        return Err(format!("{report:#?}").into());
    }
    if !elf.identity.relocatable {
        keeps_what_stays_on_the_stack(path, &elf, &table)?;
    }
    extracted.add_inlines(&elf, &Naming::default(), &())?;
    let with_chains = extracted.encode(Encoding::Packed)?;
    // Asked for functions of these machines, eu-addr2line answers and then fails.
    let fails = matches!(
        object::elf::Machine(elf.identity.machine),
        object::elf::EM_ARM | object::elf::EM_S390
    );
    let options = Options {
        oracle: options
            .oracle
            .filter(|_| !(fails && oracle == Some("eu-addr2line"))),
        ..options
    };
    let with_chains = verify(path, &Table::parse(&with_chains)?, &elf, &options, &())?;
    if with_chains.differences > 0 || with_chains.inlined.is_none_or(|inlined| inlined < 10) {
        return Err(format!("with inlined functions: {with_chains:#?}").into());
    }
    let decoder = Instructions::of(elf.identity.machine, elf.address_size());
    if decoder.is_some() && report.call_sites.is_none_or(|calls| calls < 10) {
        return Err(format!("few calls: {:?}", report.call_sites).into());
    }
    Ok(())
}

/// That a table without init text still knows the functions below the idle task.
fn keeps_what_stays_on_the_stack(
    path: &Path,
    elf: &Elf<'_>,
    table: &Table<'_>,
) -> Result<(), Failed> {
    let mut small = vec![0; table.size_without_init()];
    table.copy_without_init(&mut small).ok_or("no copy")?;
    let small = Table::parse(&small)?;
    let bytes = std::fs::read(path)?;
    let file = object::File::parse(&*bytes)?;
    let mut expected = vec![("start_kernel", true), ("early", false)];
    if Instructions::of(elf.identity.machine, elf.address_size()).is_some() {
        expected.push(("start_reservations", true));
    }
    for (name, kept) in expected {
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
        let symbol = symbol.ok_or_else(|| format!("no {name}"))?;
        let thumb = elf.identity.machine == object::elf::EM_ARM.0;
        let address = symbol.address() & !u64::from(thumb);
        let offset = Offset(address - elf.identity.text_start);
        let said = |table: &Table<'_>| table.lookup(Address::Exact(offset)).is_some();
        if !said(table) || said(&small) != kept {
            return Err(format!("{name} at {address:#x}: kept {}, not {kept}", !kept).into());
        }
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
