//! Runs the commands that build tables and decode logs, in turns, and what else makes such files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lineinfo_core::Table;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use object::{Object, ObjectSymbol, SymbolKind};

use crate::peers::{Symcache, gsym_command, gsymutil};
use crate::subject::{Kind, Subject};

/// The option with which this executable runs a command and prints what it took.
pub(crate) const MEASURE: &str = "--measure";

const ROUNDS: usize = 5;

/// Frames in the long log, and in one trace.
const FRAMES: usize = 100_000;
const TRACE: usize = 30;

/// What commands took.
pub(crate) struct Commands {
    pub(crate) builds: Vec<Run>,
    pub(crate) decodes: Vec<Run>,
}

/// A command and what it took, at its best.
pub(crate) struct Run {
    pub(crate) name: String,
    command: Vec<String>,
    /// The file that it makes.
    output: PathBuf,
    pub(crate) wall: Duration,
    /// Of all processors.
    pub(crate) cpu: Duration,
    pub(crate) peak_kb: u64,
    /// Size of what it made.
    pub(crate) bytes: u64,
}

impl Run {
    fn new(name: &str, command: &Command, output: PathBuf) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        Self {
            name: name.to_owned(),
            command: words
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            output,
            wall: Duration::MAX,
            cpu: Duration::MAX,
            peak_kb: u64::MAX,
            bytes: 0,
        }
    }

    /// Runs it in a process of its own, which has no other child: so its peak is known.
    fn run(&mut self) -> Result<()> {
        let ran = Command::new(std::env::current_exe()?)
            .arg(MEASURE)
            .args(&self.command)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&ran.stdout);
        let said = said.lines().last().unwrap_or_default();
        let numbers: Vec<u64> = said
            .split(' ')
            .map_while(|word| word.parse().ok())
            .collect();
        let [wall, cpu, peak_kb] = numbers[..] else {
            anyhow::bail!("{}: {}", self.name, String::from_utf8_lossy(&ran.stderr));
        };
        self.wall = self.wall.min(Duration::from_micros(wall));
        self.cpu = self.cpu.min(Duration::from_micros(cpu));
        self.peak_kb = self.peak_kb.min(peak_kb);
        self.bytes = fs::metadata(&self.output)
            .with_context(|| self.name.clone())?
            .len();
        Ok(())
    }
}

/// Runs a command to its end and prints microseconds, those of all processors, and its peak of
/// memory in kB.
pub(crate) fn measure(command: &[String]) -> Result<()> {
    let [program, arguments @ ..] = command else {
        anyhow::bail!("{MEASURE} wants a command");
    };
    let start = Instant::now();
    let output = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .output();
    let output = output.with_context(|| program.clone())?;
    let wall = start.elapsed();
    ensure!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = usage.user_time() + usage.system_time();
    println!(
        "{} {} {}",
        wall.as_micros(),
        cpu.num_microseconds(),
        usage.max_rss()
    );
    Ok(())
}

pub(crate) fn run(subject: &Subject, lineinfo: &Path, directory: &Path) -> Result<Commands> {
    let mut builds = builds(subject, lineinfo, directory);
    in_turns(&mut builds)?;
    let mut decodes = decodes(subject, lineinfo, directory)?;
    in_turns(&mut decodes)?;
    Ok(Commands { builds, decodes })
}

fn in_turns(runs: &mut [Run]) -> Result<()> {
    for _ in 0..ROUNDS {
        for run in &mut *runs {
            run.run()?;
        }
    }
    Ok(())
}

fn table_path(directory: &Path, profile: &str) -> PathBuf {
    directory.join(format!("{profile}.lineinfo"))
}

fn builds(subject: &Subject, lineinfo: &Path, directory: &Path) -> Vec<Run> {
    let build = |name: &str, profile: &str, encoding: &str| {
        let output = match encoding {
            "packed" => table_path(directory, profile),
            _ => directory.join(format!("{profile}.{encoding}")),
        };
        let mut command = Command::new(lineinfo);
        command
            .arg("build")
            .arg(&subject.path)
            .arg("-o")
            .arg(&output);
        command.args(["--profile", profile, "--encoding", encoding, "--no-symbols"]);
        Run::new(name, &command, output)
    };
    let mut builds = vec![
        build("lineinfo build --profile full", "full", "packed"),
        build("lineinfo build --profile calls", "calls", "packed"),
        build("lineinfo build --encoding delta", "full", "delta"),
    ];
    if let Some(program) = gsymutil() {
        let output = directory.join("made.gsym");
        let command = gsym_command(program, &subject.path, &output);
        builds.push(Run::new(
            &format!("{program} --num-threads=2"),
            &command,
            output,
        ));
    }
    if let Ok(program) = Symcache::build() {
        let output = directory.join("made.symcache");
        let mut command = Command::new(program);
        command.arg(&subject.path).arg(&output);
        builds.push(Run::new("symbolic-symcache", &command, output));
    }
    builds
}

fn decodes(subject: &Subject, lineinfo: &Path, directory: &Path) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for (name, frames) in [("a trace", TRACE), ("a long log", FRAMES)] {
        let path = directory.join(format!("{frames}.log"));
        fs::write(&path, log(subject, frames)?)?;
        for profile in ["full", "calls"] {
            // With the symbols of the image, as `build` makes it by default.
            let table = directory.join(format!("{profile}.symbols"));
            let mut build = Command::new(lineinfo);
            build
                .arg("build")
                .arg(&subject.path)
                .args(["--profile", profile, "-o"])
                .arg(&table);
            let built = build.output()?;
            ensure!(
                built.status.success(),
                "{}",
                String::from_utf8_lossy(&built.stderr)
            );
            let mut command = Command::new(lineinfo);
            command.arg("decode").arg("--table").arg(&table).arg(&path);
            let decoded = command.output()?;
            let locations = decoded.stdout.iter().filter(|byte| **byte == b'(').count();
            ensure!(
                locations * 10 >= frames * 8,
                "decode: {locations} locations of {frames} frames"
            );
            let name = format!("{name}, {frames} frames, {profile}");
            runs.push(Run::new(&name, &command, path.clone()));
        }
    }
    Ok(runs)
}

/// A log with frames at return addresses of functions whose name is theirs alone.
fn log(subject: &Subject, frames: usize) -> Result<String> {
    let bytes = fs::read(&subject.path)?;
    let file = object::File::parse(&*bytes)?;
    let mut functions: Vec<(u64, u64, &str)> = Vec::new();
    for symbol in file.symbols() {
        if symbol.kind() == SymbolKind::Text && symbol.size() > 0 {
            functions.push((symbol.address(), symbol.size(), symbol.name()?));
        }
    }
    functions.sort_unstable();
    let mut names: Vec<&str> = functions.iter().map(|(_, _, name)| *name).collect();
    names.sort_unstable();
    let text_start = subject.full.identity.text_start;
    let blob = subject.calls.encode(lineinfo_core::blob::Encoding::Flat)?;
    let table = Table::parse(&blob)?;
    let mut random = fastrand::Rng::with_seed(2);
    let mut log = String::new();
    let mut written = 0;
    while written < frames {
        for question in subject.questions(Kind::Points, frames, &mut random) {
            let at = text_start + question.address.value().0;
            let after = functions.partition_point(|(start, ..)| *start < at);
            let Some((start, size, name)) = after.checked_sub(1).map(|last| functions[last]) else {
                continue;
            };
            let first = names.partition_point(|other| *other < name);
            let alone = names.get(first + 1).is_none_or(|next| *next != name);
            if at > start + size || !alone || table.lookup(question.address).is_none() {
                continue;
            }
            if written % TRACE == 0 {
                writeln!(log, "[{:12.6}] Call Trace:\n[{:12.6}]  <TASK>", 1.0, 1.0)?;
            }
            writeln!(log, "[{:12.6}]  {name}+{:#x}/{size:#x}", 1.0, at - start)?;
            written += 1;
            if written == frames {
                break;
            }
        }
    }
    Ok(log)
}
