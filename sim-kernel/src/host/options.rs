//! The command line of the process: options for the host, then the kernel command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

const KERNEL_HELP: &str = "\
Kernel parameters (the kernel command line; by Linux's rules):
  lineinfo=on|off|never  load the table from the image; only later (default); never
  lineinfo.max=SIZE      largest table that is accepted [default: 16M]
  lineinfo.inlines=on|off
                         whether traces have a line for each inlined function before that of
                         its frame [default: on] (also /sys/kernel/lineinfo/inlines)
  lineinfo.key=HEX|FILE  take only tables signed by this Ed25519 public key: 64 hexadecimal
                         digits, or a file with it (PEM, or 32 bytes)
  lockdown=integrity|confidentiality
                         take only signed tables; without lineinfo.key=, none
  lineinfo.timeout=SECONDS
                         a loader without a request for so long can lose the device to the
                         next one [default: 30]
  mem=SIZE               memory of the machine [default: 64M]
  maxcpus=N              number of CPUs, 1 to 64 [default: 2]
  nokaslr                do not randomize the address of the image
  loglevel=N             show lines of a level below N [default: 7]
  panic=SECONDS          after a panic: 0 halts (exit status 1, default), N reboots after N
                         seconds, -N at once (exit status 3)
  fail_nth=N             make the Nth memory operation fail, once (also /proc/fail-nth)

If the first argument begins with `-`, the arguments before `--` are options, and those after it are
the kernel command line; otherwise all arguments are the kernel command line.

Init reads commands, one a line: sysrq KEY, lkdtm CRASH, insmod PATH, rmmod NAME, lsmod, meminfo,
cat PATH, echo TEXT > PATH, sleep SECONDS, poweroff; `#` begins a comment.

Exit status: 0 power off, 1 halted after a panic or could not start, 2 usage, 3 rebooted.";

/// A simulated kernel: its executable is the image, and its arguments are the command line.
#[derive(Debug, Parser)]
#[command(
    version,
    override_usage = "sim-kernel [KERNEL PARAMETER]...\n       sim-kernel [OPTIONS] -- [KERNEL PARAMETER]...",
    after_help = KERNEL_HELP
)]
pub(crate) struct Options {
    /// Unix socket through which /dev/lineinfo can be used
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Directory to mount the kernel's files on
    #[arg(long, value_name = "DIR")]
    pub(crate) mount: Option<PathBuf>,
    /// File to which a panic writes the log; the next boot shows it
    #[arg(long, value_name = "FILE")]
    pub(crate) pstore: Option<PathBuf>,
    /// Enter the kernel debugger on the console at a panic or oops (`sysrq g` always does)
    #[arg(long)]
    pub(crate) kdb: bool,
    /// Use the build-id and symbols of this vmlinux, so you can load its table and decode its logs
    #[arg(long = "as", value_name = "VMLINUX")]
    pub(crate) other_kernel: Option<PathBuf>,
    /// File with commands for init, instead of standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
}

/// Splits the arguments of the process, without its name, into options and kernel command line.
pub(crate) fn split(mut arguments: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let options = |first: &OsString| first.as_encoded_bytes().starts_with(b"-");
    if !arguments.first().is_some_and(options) {
        return (Vec::new(), arguments);
    }
    match arguments.iter().position(|argument| argument == "--") {
        Some(at) => {
            let kernel = arguments.split_off(at + 1);
            arguments.truncate(at);
            (arguments, kernel)
        }
        None => (arguments, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_before_two_dashes() {
        let cases: [(&[&str], &[&str], &[&str]); 6] = [
            (&[], &[], &[]),
            (&["ro", "--", "x"], &[], &["ro", "--", "x"]),
            (&["--socket", "s"], &["--socket", "s"], &[]),
            (&["--socket", "s", "--"], &["--socket", "s"], &[]),
            (&["--", "-x", "--", "y"], &[], &["-x", "--", "y"]),
            (&["--script", "f", "--", "ro"], &["--script", "f"], &["ro"]),
        ];
        for (arguments, options, kernel) in cases {
            let arguments = arguments.iter().map(OsString::from).collect();
            let (found_options, found_kernel) = split(arguments);
            assert_eq!(
                (found_options, found_kernel),
                (
                    options.iter().map(OsString::from).collect::<Vec<_>>(),
                    kernel.iter().map(OsString::from).collect::<Vec<_>>(),
                )
            );
        }
    }

    #[test]
    fn the_options_are_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
