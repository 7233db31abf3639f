//! Init: the one program of user space. It reads commands and makes system calls.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;

use super::cmdline::CommandLine;
use crate::entry::{Syscall, do_syscall_64};
use crate::fs::cred::Credentials;
use crate::fs::{OpenMode, Task};
use crate::kernel::reboot;
use crate::machine::frames::keep_frame;
use crate::machine::syscall;
use crate::printk;

/// The descriptor of the console, as every program has it.
const STDOUT: usize = 1;

/// Longest line of a script, in bytes.
const LINE_BYTES_MAX: usize = 4096;

/// Longest sleep, in seconds: a year.
const SLEEP_S_MAX: f64 = 365.0 * 24.0 * 3600.0;

const HELP: &str = "sysrq KEY, lkdtm CRASH, insmod PATH, rmmod NAME, lsmod, meminfo, cat PATH, echo TEXT > PATH, sleep SECONDS, poweroff";

/// The source of init's commands.
#[derive(Debug)]
pub(crate) enum Input {
    /// Standard input of the process.
    Stdin,
    /// A file of the host.
    Script(File),
}

/// Runs init, and then ends the machine.
#[inline(never)]
pub(super) fn kernel_init(line: &CommandLine, input: Input, stay: bool) -> ! {
    printk!(Info, "Run init as init process");
    printk!(Debug, "  with arguments: {}", line.init_arguments.join(" "));
    printk!(
        Debug,
        "  with environment: {}",
        line.init_environment.join(" ")
    );
    run_init_process(&input);
    // A kernel with clients waits for their system calls; a script ends the machine when it ends.
    if stay && matches!(input, Input::Stdin) {
        loop {
            syscall::sleep(Duration::MAX);
        }
    }
    reboot::kernel_power_off()
}

#[inline(never)]
fn run_init_process(input: &Input) {
    let mut task = Task::new(Credentials::kernel());
    let console = OpenMode {
        read: true,
        write: true,
    };
    for _stdio in 0..=STDOUT + 1 {
        let path = "/dev/console";
        if let Err(errno) = do_syscall_64(
            &mut task,
            Syscall::Open {
                path,
                mode: console,
            },
        ) {
            printk!(Err, "init: cannot open {path}: {errno}");
        }
    }
    let fd = match input {
        Input::Stdin => std::io::stdin().as_raw_fd(),
        Input::Script(file) => file.as_raw_fd(),
    };
    let mut buffer = [0; LINE_BYTES_MAX];
    loop {
        match syscall::read_line(fd, &mut buffer) {
            Ok(Some(line)) => run_command(&mut task, &String::from_utf8_lossy(line)),
            Ok(None) => break,
            Err(errno) => {
                printk!(Err, "init: cannot read commands: {errno}");
                break;
            }
        }
    }
    keep_frame(());
}

/// Runs one command; its errors are printed on the console.
#[inline(never)]
fn run_command(task: &mut Task, line: &str) {
    let line = line.trim();
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match (command, rest) {
        ("", _) => {}
        (comment, _) if comment.starts_with('#') => {}
        ("sysrq", key) if key.len() == 1 => {
            write_file(task, "/proc/sysrq-trigger", key.as_bytes());
        }
        ("lkdtm", crash) if !crash.is_empty() => lkdtm(task, crash),
        ("insmod", path) if !path.is_empty() => {
            if let Err(errno) = do_syscall_64(task, Syscall::InitModule { path }) {
                complain(task, &format!("insmod: {path}: {errno}"));
            }
        }
        ("rmmod", name) if !name.is_empty() => {
            if let Err(errno) = do_syscall_64(task, Syscall::DeleteModule { name }) {
                complain(task, &format!("rmmod: {name}: {errno}"));
            }
        }
        ("lsmod", "") => cat(task, "/proc/modules"),
        ("meminfo", "") => cat(task, "/proc/meminfo"),
        ("cat", path) if !path.is_empty() => cat(task, path),
        ("echo", rest) => match rest.rsplit_once('>') {
            Some((text, path)) => {
                write_file(task, path.trim(), format!("{}\n", text.trim()).as_bytes());
            }
            None => print(task, format!("{rest}\n").as_bytes()),
        },
        ("sleep", seconds) => match seconds.parse() {
            Ok(seconds) if (0.0..=SLEEP_S_MAX).contains(&seconds) => {
                syscall::sleep(Duration::from_secs_f64(seconds));
            }
            _ => complain(task, &format!("sleep: bad number of seconds '{seconds}'")),
        },
        ("poweroff", "") => reboot::kernel_power_off(),
        _ => complain(
            task,
            &format!("unknown command '{line}'; there are: {HELP}"),
        ),
    }
    keep_frame(());
}

/// A function of its own: a compiler that merges two calls gives them no line at all.
#[inline(never)]
fn lkdtm(task: &mut Task, crash: &str) {
    let path = "/sys/kernel/debug/provoke-crash/DIRECT";
    write_file(task, path, crash.as_bytes());
    keep_frame(());
}

/// Writes a file, in one call if the file takes all at once.
#[inline(never)]
fn write_file(task: &mut Task, path: &str, bytes: &[u8]) {
    let mode = OpenMode::WRITE;
    let fd = match do_syscall_64(task, Syscall::Open { path, mode }) {
        Ok(fd) => fd,
        Err(errno) => return complain(task, &format!("{path}: {errno}")),
    };
    let written = write(task, fd, bytes);
    close(task, fd);
    if let Err(errno) = written {
        complain(task, &format!("{path}: {errno}"));
    }
}

#[inline(never)]
fn write(task: &mut Task, fd: usize, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = do_syscall_64(task, Syscall::Write { fd, bytes })?;
        bytes = bytes.get(written.max(1)..).unwrap_or(&[]);
    }
    Ok(())
}

#[inline(never)]
fn cat(task: &mut Task, path: &str) {
    let mode = OpenMode::READ;
    let fd = match do_syscall_64(task, Syscall::Open { path, mode }) {
        Ok(fd) => fd,
        Err(errno) => return complain(task, &format!("{path}: {errno}")),
    };
    let mut buffer = [0; 4096];
    loop {
        let buffer = &mut buffer[..];
        match do_syscall_64(task, Syscall::Read { fd, buffer }) {
            Ok(0) => break,
            Ok(len) => print(task, &buffer[..len]),
            Err(errno) => {
                complain(task, &format!("{path}: {errno}"));
                break;
            }
        }
    }
    close(task, fd);
}

fn close(task: &mut Task, fd: usize) {
    if let Err(errno) = do_syscall_64(task, Syscall::Close { fd }) {
        complain(task, &format!("close: {errno}"));
    }
}

fn complain(task: &mut Task, text: &str) {
    print(task, format!("init: {text}\n").as_bytes());
}

fn print(task: &mut Task, bytes: &[u8]) {
    if let Err(errno) = write(task, STDOUT, bytes) {
        printk!(Err, "init: cannot write to the console: {errno}");
    }
}
