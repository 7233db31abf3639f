//! Who answers: tables, the addr2line crate, blazesym on GSYM, symbolic's symcache.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use addr2line::Context as Dwarf;
use anyhow::{Context, Result, bail, ensure};
use blazesym::symbolize::source::{GsymFile, Source};
use blazesym::symbolize::{Input, Symbolizer};
use gimli::{EndianSlice, RunTimeEndian};
use lineinfo_core::Table;
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::writer::{Options, Tuning};

use crate::TARGET;
use crate::subject::{Question, Subject};

/// What a look-up took, and the line it gave (0: none).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) nanoseconds: u32,
    pub(crate) line: u32,
}

/// Answers questions, one after the other, and times each by itself.
type Ask<'a> = Box<dyn FnMut(&[Question]) -> Result<Vec<Answer>> + 'a>;

/// One of those that are compared.
pub(crate) struct Peer<'a> {
    pub(crate) name: String,
    /// Size of what is in memory or on disk for it, in bytes.
    pub(crate) bytes: Option<u64>,
    /// Rows, where it is a table.
    pub(crate) rows: Option<u32>,
    /// How long it takes until the first question can be asked, and how long to check all rows.
    pub(crate) load: Option<Duration>,
    pub(crate) check: Option<Duration>,
    /// It is exact at every byte, and not at points only.
    pub(crate) everywhere: bool,
    pub(crate) ask: Ask<'a>,
}

/// Times look-ups in this process.
fn timed<'a>(mut look_up: impl FnMut(&Question) -> u32 + 'a) -> Ask<'a> {
    let mut one = move |question: &Question| {
        let start = Instant::now();
        let line = black_box(look_up(black_box(question)));
        let nanoseconds = start.elapsed().as_nanos() as u32;
        Answer { nanoseconds, line }
    };
    Box::new(move |questions| Ok(questions.iter().map(&mut one).collect()))
}

/// The best of several measurements.
fn best<T>(mut act: impl FnMut() -> T) -> Duration {
    let time = |_| {
        let start = Instant::now();
        black_box(act());
        start.elapsed()
    };
    (0..20).map(time).min().unwrap_or_default()
}

/// What a look-up takes that does nothing.
pub(crate) fn nothing() -> Peer<'static> {
    Peer {
        name: "(nothing)".to_owned(),
        bytes: None,
        rows: None,
        load: None,
        check: None,
        everywhere: true,
        ask: timed(|question| question.byte as u32),
    }
}

/// The name of the table with which all are compared.
pub(crate) const REFERENCE: &str = "full, delta";

/// The blobs that are compared, and their names.
pub(crate) fn blobs(subject: &Subject) -> Result<Vec<(String, Vec<u8>)>> {
    let packed = |tuning| Options {
        encoding: Encoding::Packed,
        tuning,
    };
    let options = [
        ("flat", Encoding::Flat.into()),
        ("delta", Encoding::Delta.into()),
        ("packed, speed", packed(Tuning::SPEED)),
        ("packed, balanced", packed(Tuning::BALANCED)),
        ("packed, size", packed(Tuning::SIZE)),
    ];
    let mut blobs = Vec::new();
    for (profile, extracted) in [("full", &subject.full), ("calls", &subject.calls)] {
        for (name, options) in options {
            blobs.push((format!("{profile}, {name}"), extracted.encode(options)?));
        }
    }
    Ok(blobs)
}

/// A table, without the name of the file; `named` with it, as a kernel prints it.
pub(crate) fn table<'a>(name: &str, blob: &'a [u8], named: bool) -> Result<Peer<'a>> {
    let table = Table::parse(blob)?;
    let line =
        move |question: &Question| table.lookup(question.address).map_or(0, |found| found.line);
    let print = move |question: &Question| {
        let mut buffer = [0; 600];
        let mut text = StrBuffer::new(&mut buffer);
        let found = table.lookup(question.address);
        let line = found.map_or(0, |found| {
            found.push_to(&mut text);
            found.line
        });
        black_box(text.into_str());
        line
    };
    Ok(Peer {
        name: if named {
            format!("{name}, printed")
        } else {
            name.to_owned()
        },
        bytes: Some(blob.len() as u64),
        rows: Some(table.layout().rows()),
        load: Some(best(|| Table::parse(black_box(blob)).is_ok())),
        check: Some(best(|| black_box(&table).check_rows().is_ok())),
        everywhere: table.layout().profile() == Profile::Full,
        ask: if named { timed(print) } else { timed(line) },
    })
}

/// The addr2line crate, which reads a unit when it is first asked for.
pub(crate) fn addr2line<'a>(
    dwarf: &'a Dwarf<EndianSlice<'a, RunTimeEndian>>,
    load: Duration,
    file_bytes: u64,
) -> Peer<'a> {
    Peer {
        name: "addr2line crate, warm".to_owned(),
        bytes: Some(file_bytes),
        rows: None,
        load: Some(load),
        check: None,
        everywhere: true,
        ask: timed(|question| {
            let found = dwarf.find_location(question.byte).ok().flatten();
            found.and_then(|found| found.line).unwrap_or(0)
        }),
    }
}

/// A GSYM file of the image, as LLVM makes it; `None` where no llvm-gsymutil is installed.
pub(crate) fn gsym(image: &Path, directory: &Path) -> Result<Option<Peer<'static>>> {
    let path = directory.join("gsym");
    let Some(program) = gsymutil() else {
        return Ok(None);
    };
    let made = gsym_command(program, image, &path).output()?;
    ensure!(
        made.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let bytes = path.metadata()?.len();
    let source = Source::from(GsymFile::new(path));
    let symbolizer = || {
        Symbolizer::builder()
            .enable_code_info(true)
            .enable_inlined_fns(false)
            .enable_demangling(false)
            .build()
    };
    let symbolizer = symbolizer();
    Ok(Some(Peer {
        name: "blazesym on GSYM".to_owned(),
        bytes: Some(bytes),
        rows: None,
        load: None,
        check: None,
        everywhere: true,
        ask: timed(move |question| {
            let found = symbolizer.symbolize_single(&source, Input::VirtOffset(question.byte));
            let line = found.ok().and_then(|found| {
                let code = found.into_sym()?.code_info?;
                code.line
            });
            line.unwrap_or(0)
        }),
    }))
}

/// llvm-gsymutil under the name it has here.
pub(crate) fn gsymutil() -> Option<&'static str> {
    ["llvm-gsymutil-22", "llvm-gsymutil-19", "llvm-gsymutil"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_ok())
}

pub(crate) fn gsym_command(program: &str, image: &Path, output: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg(format!("--convert={}", image.display()))
        .arg(format!("--out-file={}", output.display()))
        .arg("--num-threads=2");
    command
}

/// The program that times look-ups in symbolic's symcache, as a process that waits while others
/// are asked.
pub(crate) struct Symcache {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    bytes: u64,
}

impl Symcache {
    /// Builds the program, which is outside the workspace.
    pub(crate) fn build() -> Result<PathBuf> {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/symcache/Cargo.toml");
        let target = Path::new(TARGET).join("symcache");
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--release",
                "--locked",
                "--quiet",
                "--manifest-path",
                manifest,
            ])
            .arg("--target-dir")
            .arg(&target)
            .output()
            .context("cargo")?;
        ensure!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        Ok(target.join("release/lineinfo-symcache"))
    }

    /// Makes a symcache of the image and waits for questions.
    pub(crate) fn start(program: &Path, image: &Path, directory: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(image)
            .arg(directory.join("symcache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let questions = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut made = String::new();
        answers.read_line(&mut made)?;
        let bytes = made
            .trim()
            .parse()
            .with_context(|| format!("its size, not {made:?}"))?;
        Ok(Self {
            child,
            questions,
            answers,
            bytes,
        })
    }

    pub(crate) fn peer(&mut self) -> Peer<'_> {
        Peer {
            name: "symbolic's symcache".to_owned(),
            bytes: Some(self.bytes),
            rows: None,
            load: None,
            check: None,
            everywhere: true,
            ask: Box::new(|questions| self.ask(questions)),
        }
    }

    fn ask(&mut self, questions: &[Question]) -> Result<Vec<Answer>> {
        let mut text = String::new();
        for question in questions {
            write!(text, "{:x} ", question.byte)?;
        }
        text.push('\n');
        let Some(pipe) = &mut self.questions else {
            bail!("the symcache is closed");
        };
        pipe.write_all(text.as_bytes())?;
        pipe.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer = |answer: &str| {
            let (nanoseconds, line) = answer.split_once(':')?;
            Some(Answer {
                nanoseconds: nanoseconds.parse().ok()?,
                line: line.parse().ok()?,
            })
        };
        let answers: Option<Vec<Answer>> = line.split_ascii_whitespace().map(answer).collect();
        let answers = answers.filter(|answers| answers.len() == questions.len());
        answers.context("as many answers of the symcache as questions")
    }
}

impl Drop for Symcache {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.questions.take());
        let _status = self.child.wait();
    }
}
