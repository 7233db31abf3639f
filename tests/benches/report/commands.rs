//! Runs the commands that build tables and decode logs, in turns, and what else makes such files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lineinfo_core::Table;
use lineinfo_tests::measured;
use object::{Object, ObjectSymbol, SymbolKind};

use crate::peers::{Symcache, gsym_command, gsymutil};
use crate::subject::{Kind, Subject};

const ROUNDS: usize = 3;

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

    /// Runs it once more.
    fn run(&mut self) -> Result<()> {
        let took = measured::run(&self.command, |_| ()).with_context(|| self.name.clone())?;
        self.wall = self.wall.min(took.wall);
        self.cpu = self.cpu.min(took.processor);
        self.peak_kb = self.peak_kb.min(took.peak_kb);
        self.bytes = fs::metadata(&self.output)
            .with_context(|| self.name.clone())?
            .len();
        Ok(())
    }
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
    let build = |name: &str, profile: &str, encoding: &str, inlines: &str| {
        let output = match (encoding, inlines) {
            ("packed", "no") => table_path(directory, profile),
            _ => directory.join(format!("{profile}.{encoding}.{inlines}")),
        };
        let mut command = Command::new(lineinfo);
        command
            .arg("build")
            .arg(&subject.path)
            .arg("-o")
            .arg(&output);
        command.args(["--profile", profile, "--encoding", encoding, "--no-symbols"]);
        command.arg(format!("--inlines={inlines}"));
        Run::new(name, &command, output)
    };
    let mut builds = vec![
        build("lineinfo build --profile full", "full", "packed", "no"),
        build(
            "lineinfo build --profile calls --inlines=no",
            "calls",
            "packed",
            "no",
        ),
        build("lineinfo build --profile calls", "calls", "packed", "yes"),
        build("lineinfo build --encoding delta", "full", "delta", "no"),
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
    let mut functions: Vec<(u64, &str)> = Vec::new();
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
    {
        functions.push((symbol.address(), symbol.name()?));
    }
    functions.sort_unstable();
    let mut names: Vec<&str> = functions.iter().map(|(_, name)| *name).collect();
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
            let after = functions.partition_point(|(start, _)| *start < at);
            let Some((start, name)) = after.checked_sub(1).map(|last| functions[last]) else {
                continue;
            };
            // A kernel takes what is before the next symbol for the size of a function.
            let next = functions[after..].iter().find(|(next, _)| *next > start);
            let size = next.map_or(0, |(next, _)| next - start);
            let first = names.partition_point(|other| *other < name);
            let alone = names.get(first + 1).is_none_or(|next| *next != name);
            if size == 0 || !alone || table.lookup(question.address).is_none() {
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
