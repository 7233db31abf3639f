//! `sim-kernel`: a simulated kernel with an empty lineinfo slot, to try the tables on.
//!
//! The executable is the kernel image; its arguments are the kernel command line. What it prints
//! in a trace are real return addresses of real calls, found by walking the frame pointers of its
//! own threads, slid by the address space randomization of the host.
//!
//! ```text
//!      init (process.rs)         system calls (host/socket.rs)       the host's tree (host/mount.rs)
//!   script: "sysrq c", "cat …"   Unix socket: open, write      FUSE: cat x > DIR/dev/lineinfo
//!             └──────────────────┬─────────────┴───────────────────────┘
//!                                v
//!     entry.rs   do_syscall_64 ── fs/ ksys_write ── vfs_write ── FileOperations
//!                      ┌─────────────────┬───────────────────────────┤
//!                      v                 v                           v
//!                fs/proc.rs         drivers/console.rs     kernel/lineinfo/file.rs
//!              /proc/sysrq-trigger                          pages of mm/ ── Table::parse
//!                      v                                             v
//!           kernel/sysrq.rs ── panic, traces ── look-up ──> the slot (kernel/lineinfo)
//!                      v                                             ^
//!     machine/   frames, NMI (a signal), pages, system calls      load_from_image: boot image
//! ```
//!
//! The life of one request: init reads `sysrq c` and writes `c` to `/proc/sysrq-trigger`. The
//! write goes through [`entry`], [`fs::read_write`] and [`fs::proc`] to [`kernel::sysrq`], whose
//! handler calls [`kernel::panic`]. That stops the other CPUs, walks the frames of all those calls
//! ([`machine::frames`]), asks [`kernel::kallsyms`] for the function and the slot
//! ([`kernel::lineinfo`]) for file and line of each, writes them to standard output, and ends the
//! process with the status that `panic=` names ([`kernel::reboot`]).
//!
//! A table comes by one of two ways: from the end of the image at boot (`lineinfo=on`,
//! [`kernel::lineinfo`]), or through `/dev/lineinfo` later ([`kernel::lineinfo::file`]).
//! It lies in pages of its own ([`mm`]), which are mapped when it comes and unmapped when it goes,
//! so that `/proc/meminfo` here and the resident set on the host agree to the page.
//!
//! What is left of a machine that has stopped: its log in a file of the host ([`kernel::pstore`]),
//! and whoever is at its console ([`kernel::kdb`]).
#![deny(unsafe_code)]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!(
    "sim-kernel walks x86-64 frames and is a Linux process: build it for x86_64-unknown-linux-gnu, or leave it out with --exclude sim-kernel"
);

mod block;
mod drivers;
mod entry;
mod fs;
mod host;
mod init;
mod kernel;
#[expect(
    unsafe_code,
    reason = "frames, pages, signals and system calls; the only module with such code"
)]
mod machine;
mod mm;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use host::mount::Mount;
use host::options::{self, Options};
use host::socket::Listener;
use host::{kaslr, power};
use init::cmdline::CommandLine;
use init::{Boot, Input};
use nix::libc;

/// Exit status where the machine could not be started.
const EXIT_FAILED: u8 = 1;

fn main() -> ExitCode {
    match prepare() {
        Ok(boot) => init::start_kernel(boot),
        Err(error) => {
            eprintln!("sim-kernel: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// The file for crash records, made if there is none.
fn open_pstore(path: &Path) -> io::Result<File> {
    // What an old kernel left is what a new one wants to see.
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.custom_flags(libc::O_NONBLOCK).open(path)
}

/// All that can fail before there is a kernel.
fn prepare() -> anyhow::Result<Boot> {
    let (host, kernel) = options::split(std::env::args_os().skip(1).collect());
    let name = OsString::from("sim-kernel");
    let options = Options::parse_from(std::iter::once(name).chain(host));
    let kernel: Vec<String> = kernel
        .iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let mut command_line = CommandLine::from_arguments(&kernel);
    if command_line.parameters.nokaslr
        && let Err(error) = kaslr::disable(std::env::args_os())
    {
        command_line.parameters.nokaslr = false;
        let complaint = format!("nokaslr: the host keeps its randomization: {error}");
        command_line.complaints.push(complaint);
    }

    let input = match &options.script {
        Some(path) => Input::Script(
            File::open(path).with_context(|| format!("cannot read script {}", path.display()))?,
        ),
        None => Input::Stdin,
    };
    power::install_button().context("cannot wait for signals")?;
    let listener = options.socket.as_deref().map(Listener::bind).transpose()?;
    let mount = options.mount.as_deref().map(Mount::check).transpose()?;
    Ok(Boot {
        command_line,
        identity: options.identity,
        input,
        listener,
        mount,
        kdb: options.kdb,
        pstore: options.pstore.as_deref().map(open_pstore),
    })
}
