//! The sub-commands, one a module.

mod append;
mod build;
mod decode;
mod dump;
mod examples;
mod footer;
mod load;
mod lookup;
mod sign;
mod status;
mod strip;
mod unload;
mod verify;

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anstream::ColorChoice;
use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use lineinfo_core::blob::FORMAT_VERSION;
use lineinfo_core::uapi::Status;

use crate::device::{Access, Device};
use crate::error::exit;
use crate::extract::elf::ElfFile;
use crate::extract::paths::{Naming, PathMap, SourceRoot};
use crate::message::{self, Verbosity};
use crate::progress::Progress;
use crate::running::{self, Running};
use crate::{Error, hex};

/// The version of the package, the commit that it was built from where that is known, and the version of
/// the format of tables.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let package = env!("CARGO_PKG_VERSION");
    match option_env!("LINEINFO_COMMIT") {
        Some(commit) => format!("{package} ({commit}, table format {FORMAT_VERSION})"),
        None => format!("{package} (table format {FORMAT_VERSION})"),
    }
});

/// Build, load and inspect file:line tables for kernel stack traces.
///
/// Exit status: 0 done, 1 failed, 2 usage, 3 some addresses have no line, 4 corrupt, wrong version
/// or wrong build.
#[derive(Debug, Parser)]
#[command(
    name = "lineinfo",
    version = VERSION.as_str(),
    max_term_width = 100,
    after_long_help = examples::ALL
)]
pub struct Cli {
    #[command(flatten)]
    output: OutputArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(after_long_help = examples::BUILD)]
    Build(build::Args),
    #[command(after_long_help = examples::VERIFY)]
    Verify(verify::Args),
    #[command(after_long_help = examples::DUMP)]
    Dump(dump::Args),
    #[command(after_long_help = examples::LOOKUP)]
    Lookup(lookup::Args),
    #[command(after_long_help = examples::DECODE)]
    Decode(decode::Args),
    #[command(after_long_help = examples::LOAD)]
    Load(load::Args),
    #[command(after_long_help = examples::UNLOAD)]
    Unload(unload::Args),
    #[command(after_long_help = examples::STATUS)]
    Status(status::Args),
    #[command(after_long_help = examples::APPEND)]
    Append(append::Args),
    #[command(after_long_help = examples::STRIP)]
    Strip(strip::Args),
    #[command(after_long_help = examples::FOOTER)]
    Footer(footer::Args),
    #[command(after_long_help = examples::SIGN)]
    Sign(sign::Args),
}

impl Cli {
    /// Takes the arguments of the process; prints what is wrong with them, or the help, and ends it.
    pub fn from_args() -> Self {
        // Help and errors of usage are printed before there are any arguments to ask.
        if let Some(colour) = Colour::among(std::env::args_os()) {
            colour.choose();
        }
        Self::try_parse().unwrap_or_else(|error| match error.print() {
            // Help is a result; what is wrong has its exit status, whether or not it is read.
            Err(source) if !error.use_stderr() => {
                let error = Error::Stdout(source);
                if error.is_closed_stdout() {
                    std::process::exit(exit::DONE.into());
                }
                message::error(&error);
                std::process::exit(error.exit_code().into())
            }
            _ => std::process::exit(error.exit_code()),
        })
    }

    /// Does what the arguments say, and gives the exit status.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way; nothing is left half-done.
    pub fn run(self) -> Result<u8, Error> {
        self.output.apply();
        match self.command {
            Command::Build(args) => build::run(&args),
            Command::Verify(args) => verify::run(&args),
            Command::Dump(args) => dump::run(&args),
            Command::Lookup(args) => lookup::run(&args),
            Command::Decode(args) => decode::run(&args),
            Command::Load(args) => load::run(&args),
            Command::Unload(args) => unload::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Append(args) => append::run(&args),
            Command::Strip(args) => strip::run(&args),
            Command::Footer(args) => footer::run(&args),
            Command::Sign(args) => sign::run(&args),
        }
    }
}

/// The options that say what a command prints.
const OUTPUT: &str = "Output";

/// How much is printed besides results, and how it looks; for every command.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct OutputArgs {
    /// Print results and errors alone: no progress, no summary, no warnings.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say which files were looked for and used, and with what result.
    #[arg(short, long, global = true)]
    verbose: bool,
    /// When to use colours: auto, on a terminal unless NO_COLOR is set.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto"
    )]
    color: Colour,
}

impl OutputArgs {
    fn apply(self) {
        self.color.choose();
        message::set_verbosity(match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

impl Colour {
    /// What the last `--color WHEN` or `--color=WHEN` says; whether it may stand there is not known yet.
    fn among(arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let words = arguments.map(|word| word.into_string().unwrap_or_default());
        let words: Vec<String> = words.take_while(|word| word != "--").collect();
        let apart = words.windows(2).filter(|pair| pair[0] == "--color");
        let values = apart.map(|pair| pair[1].as_str());
        let values = values.chain(
            words
                .iter()
                .filter_map(|word| word.strip_prefix("--color=")),
        );
        values
            .filter_map(|value| Self::from_str(value, false).ok())
            .next_back()
    }

    /// Makes it the choice of the process, for stdout and stderr.
    fn choose(self) {
        match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::AlwaysAnsi,
            Self::Never => ColorChoice::Never,
        }
        .write_global();
    }
}

/// The options that say which kernel, and where its files are.
const KERNEL: &str = "Kernel";

/// Which device to talk to.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = KERNEL)]
struct DeviceArg {
    /// The device of the running kernel, or the socket of a simulated one.
    #[arg(
        long = "device",
        value_name = "PATH",
        env = "LINEINFO_DEVICE",
        hide_env_values = true,
        default_value = "/dev/lineinfo",
        value_hint = ValueHint::FilePath
    )]
    path: PathBuf,
    /// The table of this module, and not that of the kernel itself.
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
}

impl DeviceArg {
    fn open(&self, access: Access) -> Result<Device, Error> {
        self.open_for(self.module.as_deref(), access)
    }

    /// Opens it for the table of this module, or of the kernel.
    fn open_for(&self, module: Option<&str>, access: Access) -> Result<Device, Error> {
        let mut device = Device::open(&self.path, access)?;
        if let Some(module) = module {
            device.target(module)?;
        }
        Ok(device)
    }
}

/// Where the modules of the running kernel are listed, for what is done to all of them.
#[derive(Debug, clap::Args)]
struct RootArg {
    /// The directory in which sys and proc of the running kernel are.
    #[arg(
        long = "root",
        id = "root",
        value_name = "DIR",
        value_hint = ValueHint::DirPath,
        requires = "auto",
        default_value = running::ROOT,
        help_heading = KERNEL
    )]
    path: PathBuf,
}

impl RootArg {
    /// The running kernel as its files describe it, and the status of its own table; fails if the device is
    /// that of another kernel.
    fn read(&self, device: &DeviceArg) -> Result<(Running, Status), Error> {
        let running = Running::read(&self.path)?;
        let status = device.open(Access::Read)?.status()?;
        match &running.build_id {
            Some(build_id) if build_id != status.build_id() => Err(Error::OtherRoot {
                device: device.path.clone(),
                device_build: hex(status.build_id()),
                root: self.path.clone(),
                root_build: hex(build_id),
            }),
            _ => Ok((running, status)),
        }
    }
}

/// A release, which is the name of directories.
fn parse_release(text: &str) -> Result<String, String> {
    match text {
        "" | "." | ".." => Err(()),
        _ if text.contains(['/', '\0']) => Err(()),
        _ => Ok(text.to_owned()),
    }
    .map_err(|()| "give it as `uname -r` prints it, like 6.12.0-1-amd64".to_owned())
}

/// The options that say how an image is read.
const IMAGE: &str = "Image";

/// How to read an image: where its DWARF is, and how its files are named.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = IMAGE)]
struct ImageArgs {
    /// Look for separate debug files below this directory too; may be given several times.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    debug_dir: Vec<PathBuf>,
    /// The directory to which file names become relative [default: found from the DWARF].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    source_root: Option<String>,
    /// Replace the beginning of paths, before the source root is taken off; may be given several
    /// times, and the last that fits counts.
    #[arg(long, value_name = "OLD=NEW")]
    path_map: Vec<PathMap>,
    /// Let the image take so many MiB of memory [default: four times its size, and 256].
    #[arg(long, value_name = "MIB")]
    max_memory: Option<u64>,
}

/// Refuses directories of an option that do not exist: nothing is ever found there.
fn check_directories(option: &'static str, directories: &[PathBuf]) -> Result<(), Error> {
    match directories.iter().find(|directory| !directory.is_dir()) {
        Some(missing) => Err(Error::NoDirectory {
            option,
            path: missing.clone(),
        }),
        None => Ok(()),
    }
}

/// Where distributions install debug files.
const DEBUG_DIR: &str = "/usr/lib/debug";

impl ImageArgs {
    /// Opens an image, and its debug file if it has one.
    fn open(&self, path: &Path) -> Result<ElfFile, Error> {
        check_directories("--debug-dir", &self.debug_dir)?;
        let mut debug_dirs = self.debug_dir.clone();
        debug_dirs.push(PathBuf::from(DEBUG_DIR));
        let max_memory = self.max_memory.map(|mib| mib.saturating_mul(1 << 20));
        ElfFile::open_within(path, max_memory)?.with_debug(&debug_dirs)
    }

    fn naming(&self) -> Naming {
        Naming {
            root: self.source_root.as_deref().map(SourceRoot::new),
            maps: self.path_map.clone(),
        }
    }
}

/// Prints to stdout.
fn print(
    what: impl FnOnce(&mut BufWriter<io::StdoutLock<'_>>) -> io::Result<()>,
) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    what(&mut out)
        .and_then(|()| out.flush())
        .map_err(Error::Stdout)
}

/// Prints what was done, unless it is to be quiet: on stdout, or on stderr where the result itself is on
/// stdout.
fn summarize(
    is_result_on_stdout: bool,
    what: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    match is_result_on_stdout {
        _ if !message::says(Verbosity::Normal) => Ok(()),
        true => {
            // Where stderr is closed, nobody is there to be told.
            let _ = what(&mut io::stderr());
            Ok(())
        }
        false => print(|out| what(out)),
    }
}

/// What a progress bar counts.
#[derive(Clone, Copy, Debug)]
enum Counts {
    Bytes,
    Things,
}

/// A bar on stderr; hidden where stderr is no terminal, and where it is to be quiet.
fn progress_bar(what: &'static str, counts: Counts) -> ProgressBar {
    if !io::stderr().is_terminal() || !message::says(Verbosity::Normal) {
        return ProgressBar::hidden();
    }
    let template = match counts {
        Counts::Bytes => "{msg:>9} [{bar:40}] {bytes}/{total_bytes} {eta}",
        Counts::Things => "{msg:>9} [{bar:40}] {human_pos}/{human_len} {eta}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    ProgressBar::new(0).with_style(style).with_message(what)
}

impl Progress for ProgressBar {
    fn begin(&self, total: u64) {
        self.set_length(total);
        self.set_position(0);
    }

    fn advance(&self, steps: u64) {
        self.inc(steps);
    }
}
