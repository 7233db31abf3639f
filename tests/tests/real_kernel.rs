//! A real kernel's tables: Debian's vmlinux, against the addr2line crate and the programs, and in a
//! simulated kernel that takes its identity (`--as`).
//!
//! `LINEINFO_VMLINUX` names a vmlinux with DWARF (`.ci/vmlinux` fetches one); without it, or
//! without the program that is asked, the tests are shown as ignored.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use lineinfo_cli::error::exit;
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::points::Instructions;
use lineinfo_cli::verify::{Options, Program, Report, verify};
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::{Address, Offset, Table};
use lineinfo_tests::{Binaries, Kernel, stdout_of};
use object::{Object, ObjectSymbol};

/// How many calls and traps are looked up through the device of a kernel.
const LOOKUPS: usize = 200;

/// Addresses that a comparison must at least have had, so that it means something.
const CHECKED_MIN: u64 = 200_000;

fn main() -> ExitCode {
    let vmlinux = std::env::var_os("LINEINFO_VMLINUX").map(PathBuf::from);
    let vmlinux = vmlinux.ok_or("LINEINFO_VMLINUX names no vmlinux");
    let mut trials = Vec::new();
    for &encoding in Encoding::ALL {
        for &profile in Profile::ALL {
            let name = format!("{encoding} table, profile {profile}, equals the addr2line crate");
            trials.push(trial(name, vmlinux.clone(), move |path| {
                compare(path, encoding, profile, None)
            }));
        }
    }
    for &profile in Profile::ALL {
        let name = format!("the inlined functions of profile {profile} equal the addr2line crate");
        trials.push(trial(name, vmlinux.clone(), move |path| {
            compare_inlines(path, profile, None)
        }));
    }
    trials.push(trial(
        format!("a kernel in its place answers as the table does, at {LOOKUPS} addresses"),
        vmlinux.clone(),
        |path| taken_as_its_own(path),
    ));
    trials.push(trial(
        "a table of calls marks what it does not know of assembly".to_owned(),
        vmlinux.clone(),
        |path| assembly(path),
    ));
    trials.push(trial(
        "a table without init text knows start_kernel and its callers".to_owned(),
        vmlinux.clone(),
        |path| without_init(path),
    ));
    for names in [
        &[
            "llvm-symbolizer-22",
            "llvm-symbolizer-19",
            "llvm-symbolizer",
        ][..],
        &["eu-addr2line"],
    ] {
        let installed = names
            .iter()
            .find(|name| Command::new(name).arg("--version").output().is_ok());
        let needs = vmlinux.clone().and_then(|path| {
            let program = installed.ok_or("it is not installed")?;
            Ok((path, *program))
        });
        let name = format!("packed table equals {} at all calls and traps", names[0]);
        trials.push(trial(name, needs.clone(), |(path, program)| {
            let program: Program = program.parse()?;
            compare(path, Encoding::Packed, Profile::Calls, Some(program))
        }));
        // eu-addr2line takes an hour for all of them.
        let sample = (names[0] == "eu-addr2line").then_some(EU_SAMPLE);
        let which = sample.map_or("all".to_owned(), |sample| sample.to_string());
        let name = format!(
            "inlined functions equal {} at {which} calls and traps",
            names[0]
        );
        trials.push(trial(name, needs, move |(path, program)| {
            let program: Program = program.parse()?;
            match sample {
                None => compare_inlines(path, Profile::Calls, Some(program)),
                Some(sample) => compare_sample(path, program, sample),
            }
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// At how many calls and traps eu-addr2line is asked for inlined functions, and at how many of them it may be
/// wrong, which it is at one of 3,600 ([`lineinfo_cli::verify`]).
const EU_SAMPLE: u64 = 2000;
const EU_WRONG_MAX: u64 = 3;

/// A test that is ignored, with the reason in its name, where what it needs is not there.
fn trial<N: Send + 'static>(
    name: String,
    needs: Result<N, &'static str>,
    test: impl Fn(&N) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    match needs {
        Ok(needs) => Trial::test(name, move || test(&needs)),
        Err(reason) => {
            Trial::test(format!("{name} (skipped: {reason})"), || Ok(())).with_ignored_flag(true)
        }
    }
}

/// Most bytes of a table of calls with the inlined functions.
const CALLS_BYTES_MAX: usize = 900_000;

fn compare(
    vmlinux: &Path,
    encoding: Encoding,
    profile: Profile,
    oracle: Option<Program>,
) -> Result<(), Failed> {
    let (blob, report) = report(vmlinux, encoding, profile, false, oracle, None)?;
    if report.differences > 0 || report.checked < CHECKED_MIN || blob.is_empty() {
        return Err(format!("{report:#?}").into());
    }
    Ok(())
}

fn compare_inlines(
    vmlinux: &Path,
    profile: Profile,
    oracle: Option<Program>,
) -> Result<(), Failed> {
    let (blob, report) = report(vmlinux, Encoding::Packed, profile, true, oracle, None)?;
    let inlined = report.inlined.unwrap_or(0);
    if report.differences > 0 || inlined < CHECKED_MIN / 4 {
        return Err(format!("{report:#?}").into());
    }
    if profile == Profile::Calls && blob.len() > CALLS_BYTES_MAX {
        return Err(format!("{} bytes are too many", blob.len()).into());
    }
    Ok(())
}

/// The same at a sample of the calls, with a program that is wrong at a few of them.
fn compare_sample(vmlinux: &Path, program: Program, sample: u64) -> Result<(), Failed> {
    let (_, report) = report(
        vmlinux,
        Encoding::Packed,
        Profile::Calls,
        true,
        Some(program),
        Some(sample),
    )?;
    let inlined = report.inlined.unwrap_or(0);
    if report.differences > EU_WRONG_MAX || report.checked < sample * 9 / 10 || inlined < sample / 4
    {
        return Err(format!("{report:#?}").into());
    }
    Ok(())
}

/// Builds a table, and compares it.
fn report(
    vmlinux: &Path,
    encoding: Encoding,
    profile: Profile,
    with_inlines: bool,
    oracle: Option<Program>,
    sample: Option<u64>,
) -> Result<(Vec<u8>, Report), Failed> {
    let file = ElfFile::open(vmlinux)?;
    let elf = file.parse()?;
    let mut extracted = extract(&elf, &Naming::default(), &())?;
    if with_inlines {
        extracted.add_inlines(&elf, &Naming::default(), &())?;
    }
    if profile == Profile::Calls {
        extracted.reduce_to_calls(&elf)?;
    }
    let blob = extracted.encode(encoding)?;
    let options = Options {
        naming: Naming {
            root: Some(extracted.root),
            ..Naming::default()
        },
        oracle,
        sample,
        random: 100_000,
        show: 10,
        ..Options::default()
    };
    let report = verify(
        Path::new("the table"),
        &Table::parse(&blob)?,
        &elf,
        &options,
        &(),
    )?;
    Ok((blob, report))
}

/// Return addresses at the starts of rows in assembly, most of which no call precedes: a table of
/// calls answers as a full one does, or marks its answer.
fn assembly(vmlinux: &Path) -> Result<(), Failed> {
    let file = ElfFile::open(vmlinux)?;
    let elf = file.parse()?;
    let mut extracted = extract(&elf, &Naming::default(), &())?;
    let full = extracted.encode(Encoding::Delta)?;
    let full = Table::parse(&full)?;
    extracted.reduce_to_calls(&elf)?;
    let calls = extracted.encode(Encoding::Packed)?;
    let calls = Table::parse(&calls)?;

    let (mut exact, mut marked) = (0, 0);
    for (number, region) in full.regions().enumerate() {
        // A region is a section, or a part of one.
        let start = elf.identity.text_start + region.start.0;
        let mut sections = extracted.regions.iter();
        let section = sections
            .find(|region| (region.section.address..region.section.end()).contains(&start))
            .ok_or("a region of no section")?;
        let base = (start - section.section.address) as u32;
        // What returns to the first byte was called before the assembly.
        let inside = |start: u32| {
            let start = base + start;
            let mut ranges = section.assembly.iter();
            ranges.any(|range| range.start < start && start < range.end)
        };
        for row in full.region_rows(number).filter(|row| inside(row.start)) {
            let address = Address::Return(Offset(region.start.0 + u64::from(row.start)));
            let Some(answer) = calls.lookup(address) else {
                continue;
            };
            if answer.approximate {
                marked += 1;
                continue;
            }
            exact += 1;
            let expected = full.lookup(address).map(|found| found.to_string());
            if expected != Some(answer.to_string()) {
                return Err(format!("{address:?}: {answer}, not {expected:?}").into());
            }
        }
    }
    if exact < 20 || marked < 1000 {
        return Err(format!("{exact} exact and {marked} marked answers prove nothing").into());
    }
    Ok(())
}

/// The functions below the idle task of the first CPU keep their rows, and other init text does not.
fn without_init(vmlinux: &Path) -> Result<(), Failed> {
    let file = ElfFile::open(vmlinux)?;
    let elf = file.parse()?;
    let blob = extract(&elf, &Naming::default(), &())?.encode(Encoding::Packed)?;
    let table = Table::parse(&blob)?;
    let mut small = vec![0; table.size_without_init()];
    table.copy_without_init(&mut small).ok_or("no copy")?;
    let small = Table::parse(&small)?;
    let callers = match object::elf::Machine(elf.identity.machine) {
        object::elf::EM_X86_64 => &["x86_64_start_reservations", "x86_64_start_kernel"][..],
        object::elf::EM_AARCH64 => &["__primary_switched"],
        _ => &[],
    };
    let kept = [&["start_kernel", "rest_init"][..], callers].concat();
    for name in kept {
        let said = |table: &Table<'_>, offset| {
            let found = table.lookup(Address::Exact(offset));
            found.map(|found| found.to_string())
        };
        let (start, size) = function_of(vmlinux, name)?;
        for address in start..start + size {
            let offset = Offset(address - elf.identity.text_start);
            if said(&small, offset) != said(&table, offset) {
                return Err(format!("{name}: no row at {address:#x}").into());
            }
        }
    }
    let (start, _) = function_of(vmlinux, "proc_root_init")?;
    let offset = Offset(start - elf.identity.text_start);
    if small.lookup(Address::Exact(offset)).is_some() {
        return Err("other init text has rows as well".into());
    }
    Ok(())
}

/// Start and size of a function.
fn function_of(vmlinux: &Path, name: &str) -> Result<(u64, u64), Failed> {
    let bytes = std::fs::read(vmlinux)?;
    let file = object::File::parse(&*bytes)?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
    let symbol = symbol.ok_or_else(|| format!("no function {name}"))?;
    Ok((symbol.address(), symbol.size()))
}

/// Boots a kernel `--as` this one, loads its table, and asks it what the loader can ask a table.
fn taken_as_its_own(vmlinux: &Path) -> Result<(), Failed> {
    let binaries = Binaries::build(!cfg!(debug_assertions))?;
    let directory = tempfile::tempdir()?;
    let in_directory = |name: &str| directory.path().join(name).display().to_string();
    let (table, socket, log) = (
        in_directory("x.lineinfo"),
        in_directory("sock"),
        in_directory("oops"),
    );
    let image = vmlinux.display().to_string();
    let lineinfo = |args: &[&str]| stdout_of(binaries.lineinfo(args)?);
    lineinfo(&["build", &image, "-o", &table])?;
    let said = lineinfo(&["verify", &table, "--against", &image])?;
    if !said.contains(" symbols checked, 0 differences") {
        return Err(said.into());
    }

    let mut command = Command::new(&binaries.sim_kernel);
    command.args(["--as", &image, "--socket", &socket, "--", "lineinfo=off"]);
    let _kernel = Kernel::start(&mut command, Path::new(&socket))?;
    lineinfo(&["load", &table, "--device", &socket])?;

    let calls = points(vmlinux)?;
    let sample: Vec<String> = calls
        .iter()
        .step_by(calls.len() / LOOKUPS)
        .take(LOOKUPS)
        .map(|address| format!("{address:#x}"))
        .collect();
    let ask = |source: &[&str]| -> Result<String, Failed> {
        let addresses = sample.iter().map(String::as_str);
        let args: Vec<&str> = ["lookup"]
            .into_iter()
            .chain(source.iter().copied())
            .chain(addresses)
            .collect();
        let output = binaries.lineinfo(&args)?;
        // Assembly without lines is there as well.
        match output.status.code().map(u8::try_from) {
            Some(Ok(exit::DONE | exit::UNRESOLVED)) => Ok(String::from_utf8(output.stdout)?),
            _ => Ok(stdout_of(output)?),
        }
    };
    let (kernel, file) = (ask(&["--device", &socket])?, ask(&[&table])?);
    let found = file.lines().filter(|line| !line.ends_with(" ??")).count();
    if kernel != file || found < LOOKUPS * 9 / 10 {
        return Err(format!("the device says\n{kernel}\nand the table\n{file}").into());
    }

    let oops = oops(vmlinux, &calls)?;
    let text: String = oops.iter().map(|line| line.text.clone() + "\n").collect();
    std::fs::write(&log, text)?;
    let mut expected = String::new();
    for line in &oops {
        let place = line.address.as_ref().map(|(address, flags)| {
            let args = [&["lookup", &table, address], *flags].concat();
            let answer = lineinfo(&args)?;
            let (_, place) = answer.trim_end().split_once(' ').ok_or("no answer")?;
            Ok::<_, Failed>(format!(" ({place})"))
        });
        expected += &format!("{}{}\n", line.text, place.transpose()?.unwrap_or_default());
    }
    for source in [
        &["--device", &socket, "--against", &image][..],
        &["--table", &table, "--against", &image],
        &["--table", &table],
    ] {
        let args = [&["decode", &log], source].concat();
        let decoded = lineinfo(&args)?;
        if decoded != expected || decoded.contains("(??)") {
            return Err(format!("{source:?}:\n{decoded}\nand not\n{expected}").into());
        }
    }
    Ok(())
}

/// A line of a log.
struct LogLine {
    text: String,
    /// What it is about, with the flags of `lineinfo lookup` for that.
    address: Option<(String, &'static [&'static str])>,
}

/// An oops as this kernel would print it: functions with the return address of their first call.
fn oops(vmlinux: &Path, calls: &[u64]) -> Result<Vec<LogLine>, Failed> {
    let bytes = std::fs::read(vmlinux)?;
    let file = object::File::parse(&*bytes)?;
    let function = |name: &str| {
        let symbol = file
            .symbols()
            .find(|symbol| symbol.name() == Ok(name))
            .ok_or_else(|| format!("no function {name}"))?;
        // In a kernel the padding behind a function is a part of it.
        Ok::<_, Failed>((symbol.address(), symbol.size().next_multiple_of(16)))
    };
    let bare = |text: &str| LogLine {
        text: text.to_owned(),
        address: None,
    };
    let (start, size) = function("vfs_write")?;
    let mut lines = vec![
        bare("[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000"),
        LogLine {
            text: format!("[    1.000001] RIP: 0010:vfs_write+0x0/{size:#x}"),
            address: Some((format!("{start:#x}"), &[])),
        },
        bare("[    1.000002] Call Trace:"),
        bare("[    1.000003]  xfs_file_write_iter+0xd4/0x130 [xfs]"),
    ];
    for name in ["vfs_write", "ksys_write", "do_syscall_64"] {
        let (start, size) = function(name)?;
        let call = calls
            .iter()
            .find(|call| (start..start + size).contains(call));
        let back = call.ok_or_else(|| format!("{name} calls nothing"))? + 1;
        lines.push(LogLine {
            text: format!("[    1.000004]  {name}+{:#x}/{size:#x}", back - start),
            address: Some((format!("{back:#x}"), &["--return-addresses"])),
        });
    }
    lines.push(bare("[    1.000005] RIP: 0033:0x7f0000000000"));
    Ok(lines)
}

/// Addresses that stack traces look up.
fn points(vmlinux: &Path) -> Result<Vec<u64>, Failed> {
    let file = ElfFile::open(vmlinux)?;
    let elf = file.parse()?;
    let instructions = Instructions::of(elf.identity.machine, elf.address_size());
    let instructions = instructions.ok_or("no decoder for the machine of this kernel")?;
    let mut points = Vec::new();
    for text in &elf.identity.text {
        let offsets = instructions.points(elf.code(text)?);
        let bytes = offsets.into_iter().filter_map(Address::<u64>::byte);
        points.extend(bytes.map(|byte| text.address + byte));
    }
    Ok(points)
}
