//! A real kernel's table: Debian's vmlinux, against addr2line and llvm-symbolizer, and in a
//! simulated kernel that takes its identity (`--as`).
//!
//! `LINEINFO_VMLINUX` names a vmlinux with DWARF (`.ci/vmlinux` fetches one); without it, or
//! without llvm-symbolizer, the tests are shown as ignored.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use iced_x86::{Decoder, DecoderOptions, Instruction};
use indicatif::ProgressBar;
use libtest_mimic::{Arguments, Failed, Trial};
use lineinfo_cli::error::exit;
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::paths::{Naming, join};
use lineinfo_cli::extract::{Extracted, extract};
use lineinfo_cli::verify::{Options, verify};
use lineinfo_core::blob::Encoding;
use lineinfo_core::{Offset, Table};
use lineinfo_tests::{Binaries, Kernel, stdout_of};
use object::{Object, ObjectSection, ObjectSymbol};

/// How many call sites are compared with llvm-symbolizer.
const CALL_SITES: usize = 20_000;

/// How many of them are looked up through the device of a kernel.
const LOOKUPS: usize = 200;

fn main() -> ExitCode {
    let vmlinux = std::env::var_os("LINEINFO_VMLINUX").map(PathBuf::from);
    let symbolizer = [
        "llvm-symbolizer-22",
        "llvm-symbolizer-19",
        "llvm-symbolizer",
    ]
    .into_iter()
    .find(|name| Command::new(name).arg("--version").output().is_ok());
    let no_vmlinux = "LINEINFO_VMLINUX names no vmlinux";
    let mut trials = Vec::new();
    for &encoding in Encoding::ALL {
        let name = format!("{encoding} table equals addr2line at every row's first and last byte");
        trials.push(trial(
            name,
            vmlinux.clone().ok_or(no_vmlinux),
            move |path| equals_addr2line(path, encoding),
        ));
    }
    trials.push(trial(
        format!("a kernel in its place answers as the table does, at {LOOKUPS} addresses"),
        vmlinux.clone().ok_or(no_vmlinux),
        |path| taken_as_its_own(path),
    ));
    let needs = vmlinux
        .ok_or(no_vmlinux)
        .and_then(|path| Ok((path, symbolizer.ok_or("llvm-symbolizer is not installed")?)));
    let name = format!("table equals llvm-symbolizer at {CALL_SITES} call sites");
    trials.push(trial(name, needs, |(path, symbolizer)| {
        equals_symbolizer(path, symbolizer)
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

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

fn read_rows(vmlinux: &Path) -> Result<Extracted, Failed> {
    let file = ElfFile::open(vmlinux)?;
    Ok(extract(
        &file.parse()?,
        &Naming::default(),
        &ProgressBar::hidden(),
    )?)
}

fn equals_addr2line(vmlinux: &Path, encoding: Encoding) -> Result<(), Failed> {
    let extracted = read_rows(vmlinux)?;
    let blob = extracted.encode(encoding)?;
    let file = ElfFile::open(vmlinux)?;
    let options = Options {
        naming: Naming {
            root: Some(extracted.root),
            ..Naming::default()
        },
        show: 10,
        ..Options::default()
    };
    let report = verify(
        Path::new("the table"),
        &Table::parse(&blob)?,
        &file.parse()?,
        &options,
        &ProgressBar::hidden(),
    )?;
    eprintln!(
        "{} addresses, {} of no unit",
        report.checked, report.unclaimed
    );
    if report.differences > 0 || report.checked < 2_000_000 {
        return Err(format!("{report:?}").into());
    }
    Ok(())
}

fn equals_symbolizer(vmlinux: &Path, symbolizer: &str) -> Result<(), Failed> {
    let extracted = read_rows(vmlinux)?;
    let blob = extracted.encode(Encoding::Delta)?;
    let table = Table::parse(&blob)?;
    let calls = call_sites(vmlinux)?;
    let step = calls.len() / CALL_SITES;
    let sample: Vec<u64> = calls
        .iter()
        .copied()
        .step_by(step.max(1))
        .take(CALL_SITES)
        .collect();
    eprintln!("{} of {} call sites", sample.len(), calls.len());
    let theirs = symbolize(vmlinux, symbolizer, &sample)?;
    let mut differences = BTreeMap::new();
    for (address, theirs) in sample.iter().zip(theirs) {
        let offset = Offset(address - extracted.identity.text_start);
        let ours = table.lookup(offset).map(|found| found.to_string());
        let theirs = theirs.map(|(file, line)| {
            let file = join([file.as_str()]);
            format!("{}:{line}", extracted.root.relative(&file))
        });
        if ours != theirs {
            differences.insert(address, (ours, theirs));
        }
    }
    if differences.is_empty() && sample.len() == CALL_SITES {
        return Ok(());
    }
    Err(format!(
        "{} of {} differ: {:#x?}",
        differences.len(),
        sample.len(),
        differences.iter().take(10).collect::<Vec<_>>()
    )
    .into())
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

    let mut command = Command::new(&binaries.sim_kernel);
    command.args(["--as", &image, "--socket", &socket, "--", "lineinfo=off"]);
    let _kernel = Kernel::start(&mut command, Path::new(&socket))?;
    lineinfo(&["load", &table, "--device", &socket])?;

    let calls = call_sites(vmlinux)?;
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
    for source in [["--device", &socket], ["--table", &table]] {
        let args = [&["decode", &log, "--against", &image], &source[..]].concat();
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

/// The last byte of every call in the text of an x86-64 image.
fn call_sites(vmlinux: &Path) -> Result<Vec<u64>, Failed> {
    let bytes = std::fs::read(vmlinux)?;
    let file = object::File::parse(&*bytes)?;
    let mut calls = Vec::new();
    for name in [".text", ".init.text", ".exit.text"] {
        let Some(section) = file.section_by_name(name) else {
            continue;
        };
        let mut decoder =
            Decoder::with_ip(64, section.data()?, section.address(), DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if instruction.is_call_near() || instruction.is_call_near_indirect() {
                calls.push(instruction.next_ip() - 1);
            }
        }
    }
    Ok(calls)
}

type Line = Option<(String, u64)>;

/// File and line of each address, as llvm-symbolizer has them.
fn symbolize(vmlinux: &Path, symbolizer: &str, addresses: &[u64]) -> Result<Vec<Line>, Failed> {
    let mut child = Command::new(symbolizer)
        .arg(format!("--obj={}", vmlinux.display()))
        .args(["--no-inlines", "--output-style=JSON"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("stdin is piped")?;
    let stdout = child.stdout.take().ok_or("stdout is piped")?;
    let lines = std::thread::scope(|scope| {
        // Both ends are served, so that neither pipe fills up and stops the other.
        let writer = scope.spawn(move || {
            let mut write = |address: &u64| writeln!(stdin, "{address:#x}");
            addresses.iter().try_for_each(&mut write)
        });
        let lines: Result<Vec<Line>, Failed> = BufReader::new(stdout)
            .lines()
            .map(|line| parse_answer(&line?))
            .collect();
        writer.join().map_err(|_| "the writer panicked")??;
        lines
    })?;
    child.wait()?;
    if lines.len() != addresses.len() {
        return Err(format!("{} answers to {} addresses", lines.len(), addresses.len()).into());
    }
    Ok(lines)
}

fn parse_answer(line: &str) -> Result<Line, Failed> {
    let answer: serde_json::Value = serde_json::from_str(line)?;
    let symbol = &answer["Symbol"][0];
    let file = symbol["FileName"].as_str().unwrap_or("");
    let line = symbol["Line"].as_u64().unwrap_or(0);
    Ok((!file.is_empty() && line != 0).then(|| (file.to_owned(), line)))
}
