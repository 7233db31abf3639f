use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use clap::ValueHint;

use super::{DEBUG_DIR, KERNEL, OUTPUT, check_directories, parse_release};
use crate::Error;
use crate::error::exit;
use crate::fleet::Fleet;
use crate::images::search::Search;
use crate::images::{Images, Options};
use crate::log::input::Input;
use crate::log::{
    Annotator, Answers, Facts, Machine, Style, Summary, slide_of_line, slide_of_text,
};
use crate::{files, message};

/// The options that say what the log is.
const LOG: &str = "Log";

/// Annotate the frames of a kernel log with file and line.
///
/// The log says which kernel wrote it, by its release or build-id; its table or vmlinux and those of its
/// modules are found where distributions put them, in a store that `build --store` made, or named by
/// options. A table that has symbols needs nothing else.
///
/// `vfs_write+0xf8/0x450` becomes `vfs_write+0xf8/0x450 (fs/read_write.c:681)`; all else stays as it
/// is, to the byte. A frame that cannot be answered rightly is left: its symbol has another size
/// here, or several functions of that name and size have different lines. `~` before a line says that
/// the log or the table is not exact there.
///
/// If the table has inlined functions, each of them has a line of its own before that of the frame,
/// innermost first: ` refcount_inc (include/linux/refcount.h:364) [inline]`.
///
/// Exit status: 3 if frames were left that a table is there for, 4 if the log was written by another
/// kernel; then nothing is printed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The log, as it is or compressed (.gz, .xz, .zst); - is stdin [default: stdin].
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    log: Option<PathBuf>,
    #[command(flatten)]
    kernel: KernelArgs,
    /// Directory with modules (.ko, .ko.debug), and tables of them; may be given several times.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = KERNEL)]
    modules: Vec<PathBuf>,
    /// The release of the kernel that wrote the log [default: what the log says].
    #[arg(long, value_name = "RELEASE", value_parser = parse_release, help_heading = KERNEL)]
    release: Option<String>,
    /// Go on where builds or releases differ; lines may be wrong then.
    #[arg(long, help_heading = KERNEL)]
    force: bool,
    /// How far the kernel was moved from where it was linked (KASLR) [default: the `Kernel Offset:` of
    /// the log]. With it, addresses that have no symbol get function and line, too: `[<ffffffff81234567>]`
    /// of a kernel without kallsyms, and what perf script and bt of crash print.
    #[arg(long, value_name = "OFFSET", value_parser = parse_slide, help_heading = LOG)]
    slide: Option<u64>,
    /// Disassemble the `Code:` lines of x86.
    #[arg(long, help_heading = OUTPUT)]
    code: bool,
    /// The log is a stream from many machines, as a collector of syslog, of netconsole or of journals
    /// (journalctl -o export) has it: each has a kernel and a state of its own.
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with_all = ["slide", "release"], help_heading = LOG)]
    key: Option<Key>,
    /// Print a JSON object for each frame, and one for the summary, instead of the log.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
    /// Leave out the lines of inlined functions: each frame has the line of the innermost one.
    #[arg(long, help_heading = OUTPUT)]
    no_inlines: bool,
    /// Go on at the end of FILE, as it may grow.
    #[arg(short, long, requires = "log", help_heading = LOG)]
    follow: bool,
}

/// Where the functions and lines of a kernel come from.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = KERNEL)]
pub(super) struct KernelArgs {
    /// Table of the kernel, or of a module; may be given several times.
    #[arg(long, value_name = "X", value_hint = ValueHint::FilePath)]
    pub(super) table: Vec<PathBuf>,
    /// Where functions are: a vmlinux, a .ko, or a copy of the kernel's /proc/kallsyms; may be given
    /// several times. A vmlinux or .ko without a table gets one, which is kept in
    /// $XDG_CACHE_HOME/lineinfo/tables, up to 1 GiB.
    #[arg(long, visible_alias = "against", value_name = "VMLINUX|KALLSYMS", value_hint = ValueHint::FilePath)]
    pub(super) vmlinux: Vec<PathBuf>,
    /// Ask a running kernel, where no table is given.
    #[arg(long, value_name = "PATH", env = "LINEINFO_DEVICE", hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub(super) device: Option<PathBuf>,
    /// Look for the kernel and its modules in this directory, too; may be given several times. Then
    /// come those of $LINEINFO_PATH, /usr/lib/lineinfo, /usr/lib/debug and /lib/modules.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Vec<PathBuf>,
    /// Look for separate debug files below this directory too; may be given several times.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    debug_dir: Vec<PathBuf>,
}

impl KernelArgs {
    pub(super) fn options(&self) -> Result<Options, Error> {
        check_directories("--dir", &self.dir)?;
        check_directories("--debug-dir", &self.debug_dir)?;
        let mut debug_dirs = self.debug_dir.clone();
        debug_dirs.push(PathBuf::from(DEBUG_DIR));
        Ok(Options {
            tables: self.table.clone(),
            device: self.device.clone(),
            symbols: self.vmlinux.clone(),
            debug_dirs,
            search: Search::new(&self.dir),
            ..Options::default()
        })
    }
}

/// What tells the logs in a stream apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Key {
    /// The machine that wrote a line.
    Host,
}

/// How much of a log is read before its kernel is looked for, in bytes.
const HEAD_BYTES: usize = 1 << 20;

/// How long a log is silent until what it said is printed, though more might decide it.
const PAUSE: Duration = Duration::from_millis(200);

/// How much is held back until a frame agrees with the symbols, in bytes.
const HELD_MAX: usize = 64 << 20;

/// How much is printed at once, in bytes.
const WRITE_BYTES: usize = 64 << 10;

/// How many functions must have another size, and none the same, to say that it is another kernel.
const OTHER_SIZES: usize = 2;

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    if args.follow && args.log.as_deref().is_some_and(files::is_stdin) {
        return Err(Error::Usage(
            "--follow is for a file that grows, and stdin ends by itself; leave it out".to_owned(),
        ));
    }
    let mut input = Input::open(args.log.as_deref())?;
    let options = Options {
        modules: args.modules.clone(),
        force: args.force,
        ..args.kernel.options()?
    };
    let annotator = Annotator::new(args.style(), !args.no_inlines);
    if args.key == Some(Key::Host) {
        let mut fleet = Fleet::new(options, annotator, args.code);
        read_all(&mut input, &mut fleet, false, args.follow)?;
        let status = end_of_fleet(fleet, args.json)?;
        return input.take_damage().map_or(Ok(status), Err);
    }
    let ended = read_head(&mut input)?;
    let mut facts = Facts {
        release: args.release.clone(),
        build_id: None,
    };
    facts.read(input.peek());
    let images = Images::open(options, &facts)?;
    let mut decoder = Decoder {
        annotator,
        machine: Machine::default(),
        answers: Answers::new(images),
        facts,
        slide: None,
        is_slide_given: args.slide.is_some(),
        code: args.code,
        held: !args.force,
    };
    decoder.set_slide(args.slide.or_else(|| slide_of_text(input.peek())));
    read_all(&mut input, &mut decoder, ended, args.follow)?;
    if decoder.annotator.summary().frames == 0
        && let Some(doubt) = input.doubt()
    {
        message::note(doubt);
    }
    let status = decoder.end(args.json)?;
    input.take_damage().map_or(Ok(status), Err)
}

/// What lines go through.
trait Stream {
    /// Takes a line; `rest` is what was read after it.
    fn line(&mut self, line: &[u8], rest: &[u8]) -> Result<(), Error>;

    /// Prints what is ready, if it is much.
    fn print_if_many(&mut self) -> Result<(), Error>;

    /// The stream is silent: prints all that is known.
    fn pause(&mut self) -> Result<(), Error>;

    /// Whether there is anything that a later line decides.
    fn is_undecided(&mut self) -> bool;
}

/// Reads a stream to its end; it was read so far that it `ended`, or not.
fn read_all(
    input: &mut Input,
    stream: &mut impl Stream,
    mut ended: bool,
    follow: bool,
) -> Result<(), Error> {
    loop {
        while let Some((line, rest)) = input.line() {
            stream.line(line, rest)?;
        }
        stream.print_if_many()?;
        if ended {
            if !follow {
                break;
            }
            stream.pause()?;
            input.wait();
        } else if !input.is_ready(Some(Duration::ZERO))? {
            // What is printed waits a little for what decides it.
            if !stream.is_undecided() || !input.is_ready(Some(PAUSE))? {
                stream.pause()?;
            }
        }
        ended = !input.read()?;
    }
    input.end();
    while let Some((line, rest)) = input.line() {
        stream.line(line, rest)?;
    }
    Ok(())
}

/// Prints notes, and what an annotator has.
fn print(notes: Vec<String>, annotator: &mut Annotator) -> Result<(), Error> {
    for note in notes {
        message::note(note);
    }
    let mut out = io::stdout().lock();
    out.write_all(annotator.ready())
        .and_then(|()| out.flush())
        .map_err(Error::Stdout)?;
    annotator.taken();
    Ok(())
}

impl Stream for Fleet {
    fn line(&mut self, line: &[u8], rest: &[u8]) -> Result<(), Error> {
        self.line(line, rest)
    }

    fn print_if_many(&mut self) -> Result<(), Error> {
        match self.annotator().ready().len() {
            WRITE_BYTES.. => print(self.take_notes(), self.annotator()),
            _ => Ok(()),
        }
    }

    fn pause(&mut self) -> Result<(), Error> {
        self.annotator().settle();
        print(self.take_notes(), self.annotator())
    }

    fn is_undecided(&mut self) -> bool {
        self.annotator().is_undecided()
    }
}

fn end_of_fleet(mut fleet: Fleet, is_json: bool) -> Result<u8, Error> {
    fleet.end();
    fleet.annotator().settle();
    fleet.annotator().summarize();
    print(fleet.take_notes(), fleet.annotator())?;
    let summary = fleet.annotator().summary();
    if !is_json {
        message::note(words(summary));
    }
    let left = summary.left() + summary.no_kernel;
    Ok(match left {
        _ if fleet.has_other_build() => {
            message::error(
                "functions have other sizes than here, and none the same: machines have another build of a kernel than the one that was found; name the directory of theirs with --dir",
            );
            exit::CORRUPT
        }
        0 => exit::DONE,
        _ => exit::UNRESOLVED,
    })
}

/// A distance in hexadecimal.
fn parse_slide(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let slide = u64::from_str_radix(digits, 16);
    slide.map_err(|_| {
        "give it in hexadecimal, like 0x1a000000; 0 if the kernel was not moved".to_owned()
    })
}

impl Args {
    fn style(&self) -> Style {
        let is_colour = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        match (self.json, is_colour) {
            (true, _) => Style::Json,
            (false, true) => Style::Colour,
            (false, false) => Style::Plain,
        }
    }
}

/// Reads the start of a log, until it pauses; `true` if that is all.
fn read_head(input: &mut Input) -> Result<bool, Error> {
    while input.peek().len() < HEAD_BYTES {
        if !input.peek().is_empty() && !input.is_ready(Some(PAUSE))? {
            break;
        }
        if !input.read()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A log on its way through.
#[derive(Debug)]
struct Decoder {
    annotator: Annotator,
    machine: Machine,
    answers: Answers<Images>,
    facts: Facts,
    /// How far the kernel was moved, which the log may say.
    slide: Option<u64>,
    is_slide_given: bool,
    /// `Code:` lines are disassembled.
    code: bool,
    /// Nothing is printed, as no frame agreed with the symbols yet.
    held: bool,
}

impl Decoder {
    fn set_slide(&mut self, slide: Option<u64>) {
        self.annotator.take_addresses(slide.is_some());
        self.answers.resolver().set_slide(slide);
        self.answers.clear();
        self.slide = slide;
    }

    /// Fails if the symbols are of another kernel than the log.
    fn check_sizes(&mut self) -> Result<(), Error> {
        match self.answers.sizes() {
            (other, 0) if self.held && other >= OTHER_SIZES => {
                Err(self.answers.resolver().other_sizes(other))
            }
            _ => Ok(()),
        }
    }

    /// The error for a log that another kernel goes on with: it was booted, or came from kexec.
    fn of_several(&self, error: Error, facts: &Facts) -> Error {
        match error {
            Error::OtherKernel {
                log, path, kernel, ..
            } if self.facts.release.is_some() && self.facts.release != facts.release => {
                Error::OtherKernel {
                    log,
                    path,
                    kernel,
                    remedy: "read a log of several kernels with --key host, which finds each of them, in --dir, too",
                }
            }
            error => error,
        }
    }

    fn print(&mut self) -> Result<(), Error> {
        print(self.answers.resolver().take_notes(), &mut self.annotator)
    }

    fn end(mut self, is_json: bool) -> Result<u8, Error> {
        self.check_sizes()?;
        self.annotator.settle();
        self.annotator.summarize();
        self.print()?;
        if !is_json {
            message::note(words(self.annotator.summary()));
        }
        match self.annotator.addresses_left() {
            0 => {}
            left => message::note(format_args!(
                "addresses without a symbol: {left} were left, as the log does not say how far its kernel was moved (KASLR); name that with --slide, 0 if it was not"
            )),
        }
        let left = self.annotator.summary().left();
        let disagreeing = self.answers.resolver().disagreeing();
        if !disagreeing.is_empty() {
            message::error(format_args!(
                "the log was written with other builds of the modules that were named: {}; their lines may be wrong",
                disagreeing.join(", ")
            ));
            return Ok(exit::CORRUPT);
        }
        Ok(match left {
            0 => exit::DONE,
            _ => exit::UNRESOLVED,
        })
    }
}

impl Stream for Decoder {
    fn line(&mut self, line: &[u8], rest: &[u8]) -> Result<(), Error> {
        if let Some(slide) = slide_of_line(line).filter(|_| !self.is_slide_given) {
            // A panic says it after its trace.
            let slide = slide.or_else(|| slide_of_text(rest));
            if slide != self.slide {
                self.set_slide(slide);
            }
        }
        let facts = Facts::of_line(line);
        if facts != Facts::default() && facts != self.facts {
            let checked = self.answers.resolver().check(&facts);
            checked.map_err(|error| self.of_several(error, &facts))?;
            self.facts = facts;
        }
        self.annotator
            .line(line, &mut self.machine, &mut self.answers)?;
        if self.code
            && let Some(bits) = self.answers.resolver().x86_bits()
        {
            self.annotator.code(line, bits);
        }
        if self.held {
            self.held = self.answers.sizes().1 == 0;
        }
        Ok(())
    }

    fn print_if_many(&mut self) -> Result<(), Error> {
        let len = self.annotator.ready().len();
        if len >= WRITE_BYTES && (!self.held || len >= HELD_MAX) {
            self.print()?;
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), Error> {
        self.check_sizes()?;
        self.annotator.settle();
        self.print()
    }

    fn is_undecided(&mut self) -> bool {
        self.annotator.is_undecided()
    }
}

/// A summary in words: `4 frames, 2 annotated, 1 unknown symbol, 1 ambiguous`.
fn words(summary: &Summary) -> String {
    let frames = if summary.frames == 1 {
        "frame"
    } else {
        "frames"
    };
    let mut words = format!(
        "{} {frames}, {} annotated",
        summary.frames, summary.annotated
    );
    for (count, what) in [
        (summary.unknown, "of unknown symbols"),
        (summary.other_size, "of symbols with another size here"),
        (summary.ambiguous, "ambiguous"),
        (summary.no_line, "without a line"),
        (summary.no_kernel, "of kernels without a table"),
        (summary.no_module, "of modules without a table"),
    ] {
        if count > 0 {
            words += &format!(", {count} {what}");
        }
    }
    if !summary.modules.is_empty() {
        let names: Vec<&str> = summary.modules.iter().map(String::as_str).collect();
        words += &format!(" ({})", names.join(", "));
    }
    words
}
