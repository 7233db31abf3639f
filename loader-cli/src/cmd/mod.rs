//! The sub-commands, one a module.

mod append;
mod build;
mod decode;
mod dump;
mod load;
mod lookup;
mod sign;
mod status;
mod strip;
mod unload;
mod verify;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Error;
use crate::device::{Access, Device};
use crate::extract::elf::ElfFile;
use crate::extract::paths::{Naming, PathMap, SourceRoot};
use crate::progress::Progress;

/// Build, load and inspect file:line tables for kernel stack traces.
///
/// Exit status: 0 done, 1 failed, 2 usage, 3 some addresses have no line, 4 corrupt, wrong version
/// or wrong build.
#[derive(Debug, Parser)]
#[command(name = "lineinfo", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(build::Args),
    Append(append::Args),
    Strip(strip::Args),
    Sign(sign::Args),
    Load(load::Args),
    Unload(unload::Args),
    Status(status::Args),
    Lookup(lookup::Args),
    Decode(decode::Args),
    Dump(dump::Args),
    Verify(verify::Args),
}

impl Cli {
    /// Does what the arguments say, and gives the exit status.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way; nothing is left half-done.
    pub fn run(self) -> Result<u8, Error> {
        match self.command {
            Command::Build(args) => build::run(&args),
            Command::Append(args) => append::run(&args),
            Command::Strip(args) => strip::run(&args),
            Command::Sign(args) => sign::run(&args),
            Command::Load(args) => load::run(&args),
            Command::Unload(args) => unload::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Lookup(args) => lookup::run(&args),
            Command::Decode(args) => decode::run(&args),
            Command::Dump(args) => dump::run(&args),
            Command::Verify(args) => verify::run(&args),
        }
    }
}

/// Which device to talk to.
#[derive(Debug, clap::Args)]
struct DeviceArg {
    /// The device: the socket of a running kernel.
    #[arg(
        long = "device",
        value_name = "PATH",
        env = "LINEINFO_DEVICE",
        default_value = "/dev/lineinfo"
    )]
    path: PathBuf,
    /// The table of this module, and not that of the kernel itself.
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
}

impl DeviceArg {
    fn open(&self, access: Access) -> Result<Device, Error> {
        let mut device = Device::open(&self.path, access)?;
        if let Some(module) = &self.module {
            device.target(module)?;
        }
        Ok(device)
    }
}

/// How to read an image: where its DWARF is, and how its files are named.
#[derive(Debug, clap::Args)]
struct ImageArgs {
    /// Look for separate debug files below this directory too; may be given several times.
    #[arg(long, value_name = "DIR")]
    debug_dir: Vec<PathBuf>,
    /// The directory to which file names become relative [default: found from the DWARF].
    #[arg(long, value_name = "DIR")]
    source_root: Option<String>,
    /// Replace the beginning of paths, before the source root is taken off; may be given several
    /// times, and the last that fits counts.
    #[arg(long, value_name = "OLD=NEW")]
    path_map: Vec<PathMap>,
    /// Let the image take so many MiB of memory [default: four times its size, and 256].
    #[arg(long, value_name = "MIB")]
    max_memory: Option<u64>,
}

/// Where distributions install debug files.
const DEBUG_DIR: &str = "/usr/lib/debug";

impl ImageArgs {
    /// Opens an image, and its debug file if it has one.
    fn open(&self, path: &Path) -> Result<ElfFile, Error> {
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

/// What a progress bar counts.
#[derive(Clone, Copy, Debug)]
enum Counts {
    Bytes,
    Things,
}

/// A bar on stderr; hidden where stderr is no terminal.
fn progress_bar(what: &'static str, counts: Counts) -> ProgressBar {
    if !io::stderr().is_terminal() {
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
    }

    fn advance(&self, steps: u64) {
        self.inc(steps);
    }
}
