//! How fast logs are decoded, and with how much memory: `lineinfo decode` and the programs that people use
//! for it, on the same frames in one run.
//!
//! ```sh
//! cargo run --release --bin decoders -- vmlinux --blazecli blazecli --script decode_stacktrace.sh
//! ```
//!
//! The frames are at random addresses of functions that have a name of their own. A program starts *cold*
//! when the pages of its files were dropped from the page cache, and *warm* otherwise; that is how long
//! it takes for the first [`TRACE`] frames. Then it decodes all frames, or as many as it is good for
//! in the time: frames a second are those of its own processor time, its start included. Memory is the
//! most that it has had.
//!
//! The programs get what they take: a log (`lineinfo`, the script), or addresses (llvm-symbolizer on
//! stdin, blazecli as arguments).

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use comfy_table::{CellAlignment, Table as TextTable, presets};
use lineinfo_tests::measured::Took;
use lineinfo_tests::{Binaries, measured};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use object::{Object, ObjectSymbol};
use tempfile::TempDir;

/// Frames of a trace.
const TRACE: usize = 20;

/// How many addresses a command line takes.
const ARGUMENTS_MAX: usize = 50_000;

/// Frames for the script, which starts a process for each.
const SCRIPT_FRAMES: usize = 40;

/// Compare programs that decode logs.
#[derive(Debug, Parser)]
struct Args {
    /// The kernel: a vmlinux with DWARF and symbols.
    vmlinux: PathBuf,
    /// How many frames.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    frames: usize,
    /// How many of them differ.
    #[arg(long, value_name = "N", default_value_t = 300_000)]
    distinct: usize,
    /// The llvm-symbolizer.
    #[arg(long, value_name = "PROGRAM", default_value = "llvm-symbolizer-22")]
    llvm_symbolizer: PathBuf,
    /// blazecli, which `cargo install blazecli` makes.
    #[arg(long, value_name = "PROGRAM")]
    blazecli: Option<PathBuf>,
    /// scripts/decode_stacktrace.sh of Linux.
    #[arg(long, value_name = "SCRIPT")]
    script: Option<PathBuf>,
    /// Choose other frames.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// A frame, and the address that a program without knowledge of logs is asked for.
#[derive(Clone)]
struct Frame {
    text: String,
    byte: u64,
}

/// How a program is started for some frames.
struct Program {
    name: String,
    /// The files that it reads.
    files: Vec<PathBuf>,
    /// How many frames it is measured with at most.
    frames_max: usize,
    command: Box<ForFrames>,
}

/// The command line of a program for some frames, and what it gets on stdin.
type ForFrames = dyn Fn(&[Frame]) -> (Vec<String>, String);

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(measured::OPTION) {
        measured::main(&arguments.collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let args = Args::parse();
    let frames = frames(&args)?;
    let directory = tempfile::tempdir()?;
    let mut table = TextTable::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "program",
        "cold start",
        "warm start",
        "frames",
        "frames/s",
        "memory",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for program in programs(&args, &directory)? {
        let trace = &frames[..TRACE];
        for file in &program.files {
            drop_pages(file)?;
        }
        let cold = program.run(trace, &directory)?;
        let warm = program.run(trace, &directory)?;
        let all = &frames[..program.frames_max.min(frames.len())];
        let took = program.run(all, &directory)?;
        let rate = all.len() as f64 / took.processor.as_secs_f64();
        table.add_row([
            program.name.clone(),
            format!("{:.2} s", cold.wall.as_secs_f64()),
            format!("{:.2} s", warm.wall.as_secs_f64()),
            all.len().to_string(),
            format!("{rate:.0}"),
            format!("{:.0} MiB", took.peak_kb as f64 / 1024.0),
        ]);
        eprintln!("{}: done", program.name);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// Random frames of functions with a name of their own.
fn frames(args: &Args) -> Result<Vec<Frame>> {
    ensure!(
        args.frames >= TRACE && args.distinct > 0,
        "at least {TRACE} frames"
    );
    let bytes = std::fs::read(&args.vmlinux).context("read the vmlinux")?;
    let file = object::File::parse(&*bytes)?;
    let mut starts: Vec<u64> = file.symbols().map(|symbol| symbol.address()).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut named: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for symbol in file.symbols() {
        let after = starts.partition_point(|start| *start <= symbol.address());
        // The size that a kernel prints is the distance to the next symbol.
        if symbol.kind() == object::SymbolKind::Text
            && let Some(end) = starts.get(after)
        {
            let function = (symbol.address(), end - symbol.address());
            named.entry(symbol.name()?).or_default().push(function);
        }
    }
    let mut functions: Vec<(&str, u64, u64)> = named
        .into_iter()
        .filter_map(|(name, places)| match places[..] {
            [(start, size)] if size > 1 => Some((name, start, size)),
            _ => None,
        })
        .collect();
    functions.sort_unstable();
    ensure!(!functions.is_empty(), "the vmlinux has no functions");
    let mut random = fastrand::Rng::with_seed(args.seed);
    let distinct: Vec<Frame> = (0..args.distinct)
        .map(|_| {
            let (name, start, size) = functions[random.usize(..functions.len())];
            let offset = random.u64(1..size);
            Frame {
                text: format!(" {name}+{offset:#x}/{size:#x}"),
                byte: start + offset - 1,
            }
        })
        .collect();
    Ok(distinct.into_iter().cycle().take(args.frames).collect())
}

fn programs(args: &Args, directory: &TempDir) -> Result<Vec<Program>> {
    let lineinfo = Binaries::build(true)?.lineinfo.display().to_string();
    let vmlinux = args.vmlinux.display().to_string();
    let table = directory
        .path()
        .join("vmlinux.lineinfo")
        .display()
        .to_string();
    let build = Command::new(&lineinfo)
        .args(["build", &vmlinux, "-o", &table])
        .stdout(Stdio::null())
        .status();
    ensure!(
        build.context("start lineinfo")?.success(),
        "build the table"
    );

    let log = |frames: &[Frame]| -> String {
        let lines = frames.iter().enumerate();
        lines
            .map(|(number, frame)| format!("[{:5}.{:06}] {}\n", number / 1000, number, frame.text))
            .collect()
    };
    let decode = |option: &'static str, path: &str| {
        let command = [&*lineinfo, "decode", option, path].map(str::to_owned);
        Box::new(move |frames: &[Frame]| (command.to_vec(), log(frames)))
    };
    let program = |name: &str, files: &[&str], frames_max, command| Program {
        name: name.to_owned(),
        files: files.iter().map(PathBuf::from).collect(),
        frames_max,
        command,
    };
    let mut programs = vec![
        program(
            "lineinfo decode, a table",
            &[&lineinfo, &table],
            usize::MAX,
            decode("--table", &table),
        ),
        program(
            "lineinfo decode, a vmlinux whose table is kept",
            &[&lineinfo, &vmlinux],
            usize::MAX,
            decode("--vmlinux", &vmlinux),
        ),
    ];
    let addresses = |frames: &[Frame]| -> Vec<String> {
        let addresses = frames.iter().map(|frame| format!("{:#x}", frame.byte));
        addresses.collect()
    };
    let symbolizer = args.llvm_symbolizer.display().to_string();
    let of_symbolizer = [symbolizer.clone(), format!("--obj={vmlinux}")];
    programs.push(program(
        "llvm-symbolizer",
        &[&vmlinux],
        usize::MAX,
        Box::new(move |frames| (of_symbolizer.to_vec(), addresses(frames).join("\n") + "\n")),
    ));
    if let Some(blazecli) = &args.blazecli {
        let blazecli = blazecli.display().to_string();
        let start = [&*blazecli, "symbolize", "elf", "--path", &vmlinux].map(str::to_owned);
        programs.push(program(
            "blazecli",
            &[&blazecli, &vmlinux],
            ARGUMENTS_MAX,
            Box::new(move |frames| {
                let all = start.iter().cloned().chain(addresses(frames));
                (all.collect(), String::new())
            }),
        ));
    }
    if let Some(script) = &args.script {
        let command = ["bash", &script.display().to_string(), &vmlinux].map(str::to_owned);
        programs.push(program(
            "decode_stacktrace.sh",
            &[&vmlinux],
            SCRIPT_FRAMES,
            Box::new(move |frames| (command.to_vec(), log(frames))),
        ));
    }
    Ok(programs)
}

impl Program {
    /// Runs it for some frames.
    fn run(&self, frames: &[Frame], directory: &TempDir) -> Result<Took> {
        let (command, stdin) = (self.command)(frames);
        let input = directory.path().join("stdin");
        std::fs::write(&input, stdin)?;
        let input = File::open(&input)?;
        let took = measured::run(&command, |command| {
            command
                .env("XDG_CACHE_HOME", directory.path().join("cache"))
                .env_remove("DEBUGINFOD_URLS")
                .stdin(input);
        });
        took.with_context(|| self.name.clone())
    }
}

/// Drops the pages of a file from the page cache.
fn drop_pages(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}
