//! The sub-commands, one a module.

mod append;
mod build;
mod decode;
mod dump;
mod load;
mod lookup;
mod status;
mod strip;
mod unload;
mod verify;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Error;
use crate::device::{Access, Device};

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

/// Prints to stdout.
fn print(
    what: impl FnOnce(&mut BufWriter<io::StdoutLock<'_>>) -> io::Result<()>,
) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    what(&mut out)
        .and_then(|()| out.flush())
        .map_err(Error::Stdout)
}

/// A bar on stderr that counts bytes; hidden where stderr is no terminal.
fn progress_bar(what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:>9} [{bar:40}] {bytes}/{total_bytes} {eta}")
        .expect("the template is a constant");
    ProgressBar::new(0).with_style(style).with_message(what)
}
