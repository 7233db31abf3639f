//! kdb: the debugger on the console, for a machine that has stopped.
//!
//! ```text
//!   sysrq g, panic, oops ─> the other CPUs are held, with their traces ─> [0]kdb> bt
//!                                                                        go ─> they go on
//! ```
//!
//! Whatever a held CPU was doing it is still in the middle of, with the locks it has: nothing here
//! allocates or takes a lock, the line editor included.

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use embedded_io::ErrorType;
use lineinfo_core::buffer::StrBuffer;
use nix::errno::Errno;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use noline::builder::EditorBuilder;
use noline::history::SliceHistory;
use noline::line_buffer::SliceBuffer;
use noline::sync_editor::Editor;

use super::image::image;
use super::lineinfo::LINEINFO;
use super::nmi::{self, Held};
use super::stacktrace::{self, Symbolized};
use super::{cpu, kmsg, module, printk, reboot, task};
use crate::drivers::console;
use crate::init;
use crate::machine::signal::Registers;
use crate::machine::{atomic, syscall};

/// Longest command and longest line of output, in bytes.
const LINE_BYTES: usize = 1024;
/// What is remembered of earlier commands, in bytes.
const HISTORY_BYTES: usize = 1024;

const HELP: &str = "\
bt             trace of the task that entered kdb
btc            trace of each CPU
bta            trace of each task on a CPU that is not idle
id ADDR|NAME   function, file and line at an address (no instructions)
lsmod          loaded modules
dmesg          the log
summary        the machine
lineinfo       the slot
go             leave kdb
reboot         restart the machine
help           this text";

/// Panics and oopses enter it: `--kdb`.
static ENABLED: AtomicBool = AtomicBool::new(false);
/// Its input is a terminal on which lines can be edited.
static EDITING: AtomicBool = AtomicBool::new(false);
/// Somebody is in it.
static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Sets whether panics and oopses enter it.
pub(crate) fn init(enabled: bool) {
    ENABLED.store(enabled, Ordering::Relaxed);
    // The editor asks the terminal where its cursor is; a dumb one would not answer.
    let answers = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    // What is asked here for the first time allocates, which is too late later.
    EDITING.store(io::stdin().is_terminal() && answers, Ordering::Relaxed);
}

/// `sysrq g` enters it.
#[inline(never)]
pub(crate) fn on_keyboard_entry() {
    enter("Keyboard Entry", None);
}

/// A panic does, behind its trace.
#[inline(never)]
pub(crate) fn on_panic() {
    if ENABLED.load(Ordering::Relaxed) {
        enter("Panic", None);
    }
}

/// An oops does, with the registers of the trap.
pub(crate) fn on_oops(registers: &Registers) {
    if ENABLED.load(Ordering::Relaxed) {
        enter("Oops", Some(registers));
    }
}

#[inline(never)]
fn enter(why: &str, registers: Option<&Registers>) {
    let _atomic = atomic::enter();
    if ACTIVE.swap(true, Ordering::AcqRel) {
        return say(format_args!(
            "kdb: {why} while kdb is active: not entered again"
        ));
    }
    match nmi::roundup_cpus() {
        Some(held) => Kdb { held, registers }.run(why),
        None => say(format_args!(
            "kdb: somebody else is collecting traces; try again"
        )),
    }
    ACTIVE.store(false, Ordering::Release);
}

/// Writes a line to the console, and not to the log.
fn say(line: fmt::Arguments<'_>) {
    let mut buffer = [0; LINE_BYTES];
    let mut text = StrBuffer::new(&mut buffer);
    // A `StrBuffer` takes everything.
    let _always_taken = writeln!(text, "{line}");
    print(text.into_str().as_bytes());
}

fn print(bytes: &[u8]) {
    // A console that is gone cannot be told about.
    let _gone = syscall::write_all(syscall::CONSOLE, bytes);
}

/// Says each line of a text that formats itself.
struct Lines {
    line: [u8; LINE_BYTES],
    len: usize,
}

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(free) = self.line.get_mut(self.len) {
                *free = byte;
                self.len += 1;
            }
            if byte == b'\n' {
                print(&self.line[..self.len]);
                self.len = 0;
            }
        }
        Ok(())
    }
}

/// Whether kdb goes on after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Prompt,
    Go,
}

struct Kdb<'a> {
    held: Held,
    registers: Option<&'a Registers>,
}

impl Kdb<'_> {
    fn run(&self, why: &str) {
        let task::Identity { cpu, pid, .. } = task::current();
        say(format_args!(
            "\nEntering kdb (pid {pid}) on processor {cpu} due to {why}"
        ));
        let mut line = [0; LINE_BYTES];
        let mut history = [0; HISTORY_BYTES];
        let mut input = Input::new(&mut line, &mut history);
        let mut text = [0; LINE_BYTES];
        loop {
            let mut prompt = [0; 32];
            let mut prompt = StrBuffer::new(&mut prompt);
            // A number fits.
            let _always_taken = write!(prompt, "[{cpu}]kdb> ");
            let command = input.read(prompt.into_str(), &mut text);
            let next = command.map_or(Next::Go, |command| self.command(command.trim()));
            if next == Next::Go {
                break;
            }
        }
    }

    fn command(&self, line: &str) -> Next {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (command, rest.trim()) {
            ("", _) => {}
            ("bt", "") => self.bt(),
            ("btc", "") => self.each_cpu(|_| true),
            // A CPU that idles has no task but number 0.
            ("bta", "") => self.each_cpu(|header| !header.contains(" PID: 0 ")),
            ("id", what) if !what.is_empty() => id(what),
            ("lsmod", "") => lsmod(),
            ("dmesg", "") => dmesg(),
            ("summary", "") => summary(),
            ("lineinfo", "") => lineinfo(),
            ("go", "") => return Next::Go,
            ("reboot", "") => reboot::emergency_restart(),
            ("help" | "?", "") => say(format_args!("{HELP}")),
            _ => say(format_args!("unknown kdb command: '{line}'; try help")),
        }
        Next::Prompt
    }

    fn bt(&self) {
        match self.registers {
            Some(registers) => stacktrace::show_interrupted(registers, &mut say),
            None => stacktrace::show_current(&mut say),
        }
    }

    /// Shows the traces whose first line is wanted.
    fn each_cpu(&self, wanted: impl Fn(&str) -> bool) {
        let this = task::current();
        for (cpu, _) in cpu::threads() {
            let mut shown = None;
            let here = cpu == this.cpu;
            let answered = !here
                && self.held.trace(cpu, |line| {
                    if *shown.get_or_insert_with(|| wanted(line)) {
                        say(format_args!("{line}"));
                    }
                });
            match (here, answered) {
                (true, _) => self.bt(),
                (false, true) => {}
                (false, false) => say(format_args!("cpu {cpu} did not answer")),
            }
        }
    }
}

/// What is at an address, or where a function is.
fn id(what: &str) {
    let digits = what.trim_start_matches("0x");
    let named = |name: &str| {
        let symbols = image().map(|image| &image.symbols)?;
        let last = |full: &str| full.rsplit("::").next() == Some(name);
        let found = symbols
            .iter()
            .find(|symbol| symbol.name == name || last(symbol.name));
        found.map(|symbol| symbol.start)
    };
    let address = named(what).or_else(|| u64::from_str_radix(digits, 16).ok());
    let inside = |address| image().and_then(|image| image.symbols.lookup(address));
    match address {
        Some(address) if inside(address).is_some() => say(format_args!(
            "{address:#018x} {}",
            Symbolized::exact(address)
        )),
        Some(address) => say(format_args!("{address:#018x} is in no function")),
        None => say(format_args!(
            "'{what}' is neither a function nor an address in hexadecimal"
        )),
    }
}

/// Lines as `/proc/modules` has them.
fn lsmod() {
    let mut count = 0;
    module::for_each(|module| {
        say(format_args!("{module}"));
        count += 1;
    });
    if count == 0 {
        say(format_args!("no modules are loaded"));
    }
}

fn dmesg() {
    let mut piece = [0; LINE_BYTES];
    let mut bytes = kmsg::bytes(kmsg::extent());
    loop {
        let mut len = 0;
        for (free, byte) in piece.iter_mut().zip(&mut bytes) {
            *free = byte;
            len += 1;
        }
        if len == 0 {
            break;
        }
        print(&piece[..len]);
    }
}

fn summary() {
    let uptime = printk::uptime();
    say(format_args!("sysname    sim-kernel"));
    say(format_args!("version    {}", env!("CARGO_PKG_VERSION")));
    say(format_args!("machine    x86_64"));
    say(format_args!("cmdline    {}", init::saved_command_line()));
    say(format_args!("uptime     {:.2} s", uptime.as_secs_f64()));
    say(format_args!("cpus       {}", cpu::online()));
    say(format_args!(
        "functions  {}",
        image().map_or(0, |image| image.symbols.len())
    ));
}

fn lineinfo() {
    let mut lines = Lines {
        line: [0; LINE_BYTES],
        len: 0,
    };
    // They take everything.
    let _always_taken = write!(lines, "{}", LINEINFO.status());
}

/// Where commands come from: edited lines of a terminal, or lines as they are.
enum Input<'a> {
    Terminal(Editor<SliceBuffer<'a>, SliceHistory<'a>>),
    Plain,
}

impl<'a> Input<'a> {
    fn new(line: &'a mut [u8], history: &'a mut [u8]) -> Self {
        let editor = EditorBuilder::from_slice(line)
            .with_slice_history(history)
            .build_sync(&mut Terminal);
        match editor {
            Ok(editor) if EDITING.load(Ordering::Relaxed) => Self::Terminal(editor),
            _ => Self::Plain,
        }
    }

    /// The next command; `None` at the end of the input.
    fn read<'b>(&mut self, prompt: &str, text: &'b mut [u8]) -> Option<&'b str> {
        let text = match self {
            Self::Terminal(editor) => {
                let raw = raw()?;
                let line = editor.readline(prompt, &mut Terminal);
                raw.restore();
                let mut buffer = StrBuffer::new(text);
                buffer.push_str(line.ok()?);
                return Some(buffer.into_str());
            }
            Self::Plain => {
                print(prompt.as_bytes());
                let line = console::read_line(io::stdin().as_raw_fd(), text);
                line.ok().flatten().unwrap_or(b"go")
            }
        };
        let line = std::str::from_utf8(text).unwrap_or("?");
        // What was not typed is shown, so that a transcript can be read.
        if !io::stdin().is_terminal() {
            say(format_args!("{line}"));
        }
        Some(line)
    }
}

/// A terminal that gives each byte as it is typed.
struct Raw {
    before: Termios,
}

fn raw() -> Option<Raw> {
    let before = tcgetattr(io::stdin().as_fd()).ok()?;
    let mut after = before.clone();
    cfmakeraw(&mut after);
    tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &after).ok()?;
    Some(Raw { before })
}

impl Raw {
    fn restore(self) {
        // A terminal that is gone stays as it was.
        let _gone = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

/// Bytes to and from the terminal.
struct Terminal;

#[derive(Debug)]
struct TerminalError(#[expect(dead_code, reason = "shown in a debugger")] Errno);

impl embedded_io::Error for TerminalError {
    fn kind(&self) -> embedded_io::ErrorKind {
        embedded_io::ErrorKind::Other
    }
}

impl ErrorType for Terminal {
    type Error = TerminalError;
}

impl embedded_io::Read for Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TerminalError> {
        loop {
            match syscall::read(io::stdin().as_raw_fd(), buffer) {
                Err(Errno::EINTR) => {}
                read => return read.map_err(TerminalError),
            }
        }
    }
}

impl embedded_io::Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, TerminalError> {
        syscall::write_all(syscall::CONSOLE, bytes).map_err(TerminalError)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), TerminalError> {
        Ok(())
    }
}
