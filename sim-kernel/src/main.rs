//! `sim-kernel`: a simulated kernel with an empty lineinfo slot, to try tables in.
//!
//! The executable is the kernel image; its arguments are the kernel command line. The addresses in
//! a trace are real return addresses of real calls, which the kernel finds by walking the frame
//! pointers of its own threads; the address space randomization of the host is its KASLR.
//!
//! ```text
//!      init (process.rs)         system calls (host/socket.rs)       mounted files (host/mount.rs)
//!   script: "sysrq c", "cat …"   Unix socket: open, write      FUSE: cat x > DIR/dev/lineinfo
//!             └──────────────────┬─────────────┴───────────────────────┘
//!                                v
//!     entry.rs   do_syscall_64 ── fs/ ksys_write ── vfs_write ── FileOperations
//!                      ┌─────────────────┬───────────────────────────┤
//!                      v                 v                           v
//!              kernel/sysrq.rs    drivers/console.rs     kernel/lineinfo/file.rs
//!           /proc/sysrq-trigger                           pages of mm/ ── Table::parse
//!                      v                                             v
//!               panic, traces ── look-up ──────────────> the slot (kernel/lineinfo)
//!                      v                                             ^
//!     machine/   frames, NMI (a signal), pages, system calls      load_from_image: boot image
//! ```
//!
//! # Layers
//!
//! ```text
//!   init     the boot: it initializes the parts; init's commands, the load of the CPUs
//!   host     options, socket, mounted files, signals of the host
//!   entry    system calls        drivers, block    devices
//!   kernel   log, symbols, CPUs, traces, traps, sysrq, panic
//!   mm       memory
//!   fs       files               registry          what parts register with each other
//!   machine  all that is unsafe
//! ```
//!
//! A layer knows only those below it. The owner of a file, a sysrq key, a kdb command, an NMI handler
//! or deferred work registers it with the part that calls it.
//!
//! # The life of one request
//!
//! Init reads `sysrq c` and writes `c` to `/proc/sysrq-trigger`. The write goes through [`entry`],
//! [`fs::read_write`] and [`fs::proc`] to [`kernel::sysrq`], which calls the handler that
//! [`kernel::panic`] registered. That stops the other CPUs, walks the frames of all those calls
//! ([`machine::frames`]), looks up the function of each in [`kernel::kallsyms`] and its file and line
//! in the slot ([`kernel::lineinfo`]), writes them to standard output, and ends the process with the
//! exit status for `panic=` ([`kernel::reboot`]).
//!
//! A table is loaded from the end of the image at boot (`lineinfo=on`,
//! [`kernel::lineinfo`]), or through `/dev/lineinfo` later ([`kernel::lineinfo::file`]).
//! It has pages of its own ([`mm`]), which are mapped when it is loaded and unmapped when it is
//! freed, so `/proc/meminfo` here and the resident set on the host agree to the page.
//!
//! After a panic the log is in a file of the host ([`kernel::pstore`]), and the console may be in
//! the debugger ([`kernel::kdb`]).
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
    reason = "frames, pages, signals and system calls; no other module has such code"
)]
mod machine;
mod mm;
mod registry;

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

/// Exit status if the machine could not be started.
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

/// Opens the file for crash records, which is created if there is none.
fn open_pstore(path: &Path) -> io::Result<File> {
    // The records of earlier boots stay.
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    // Only its owner may read a log.
    options.mode(0o600);
    options.custom_flags(libc::O_NONBLOCK).open(path)
}

/// Does all that can fail before there is a kernel.
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
    machine::signal::stay_in_background();
    power::install_button().context("cannot wait for signals")?;
    let listener = options.socket.as_deref().map(Listener::bind).transpose()?;
    let mount = options.mount.as_deref().map(Mount::check).transpose()?;
    Ok(Boot {
        command_line,
        other_kernel: options.other_kernel,
        input,
        listener,
        mount,
        kdb: options.kdb,
        pstore: options.pstore.as_deref().map(open_pstore),
    })
}
