//! kdb: the debugger on the console, for a machine that has stopped.
//!
//! ```text
//!   sysrq g, panic, oops ─> the other CPUs are held, with their traces ─> [0]kdb> bt
//!                                                                        go ─> they go on
//! ```
//!
//! A CPU is held in the middle of whatever it was doing, with all its locks: nothing here allocates
//! or takes a lock, the line editor included.

pub(crate) mod command;
mod input;
mod output;

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use lineinfo_core::buffer::StrBuffer;

use command::Command;
use input::CommandReader;
use output::{LINE_BYTES, Lines, print, say};

use super::image::image;
use super::nmi::{self, Held};
use super::panic::{self, Death};
use super::stacktrace::{self, Symbolized};
use super::sysrq::{self, Key};
use super::{cmdline, cpu, kmsg, printk, reboot, task};
use crate::machine::atomic;
use crate::machine::frames::keep_frame;
use crate::machine::signal::Registers;

/// Size of the history of commands, in bytes.
const HISTORY_BYTES: usize = 1024;

/// The commands that need no other part of the kernel than this one, and those that end kdb.
const HELP_BEFORE: &str = "\
bt             trace of the task that entered kdb
btc            trace of each CPU
bta            trace of each task on a CPU that is not idle
id ADDR|NAME   function, file and line at an address (no instructions)
dmesg          the log
summary        the machine";
const HELP_AFTER: &str = "\
go             leave kdb
reboot         restart the machine
help           this text";

/// A CPU is in kdb.
static ACTIVE: AtomicBool = AtomicBool::new(false);

static DEBUG: Key = Key {
    key: b'g',
    help: "debug(g)",
    action: "DEBUG",
    handler: sysrq_handle_dbg,
};

/// Registers the key; panics and oopses enter kdb if `at_death`.
pub(crate) fn init(at_death: bool) {
    input::init();
    sysrq::register_key(&DEBUG);
    if at_death {
        panic::register_die_notifier(kdb_die_notify);
    }
}

#[inline(never)]
fn sysrq_handle_dbg() {
    enter("Keyboard Entry", None);
    keep_frame(());
}

#[inline(never)]
fn kdb_die_notify(death: &Death<'_>) {
    match death {
        Death::Panic => enter("Panic", None),
        Death::Oops(registers) => enter("Oops", Some(registers)),
    }
    keep_frame(());
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
            "kdb: another CPU is collecting traces; try again"
        )),
    }
    ACTIVE.store(false, Ordering::Release);
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
        let task::Current { cpu, pid, .. } = task::current();
        say(format_args!(
            "\nEntering kdb (pid {pid}) on processor {cpu} due to {why}"
        ));
        let mut line = [0; LINE_BYTES];
        let mut history = [0; HISTORY_BYTES];
        let mut input = CommandReader::new(&mut line, &mut history);
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
            // The idle task of a CPU is number 0.
            ("bta", "") => self.each_cpu(|header| !header.contains(" PID: 0 ")),
            ("id", what) if !what.is_empty() => id(what),
            ("dmesg", "") => dmesg(),
            ("summary", "") => summary(),
            ("go", "") => return Next::Go,
            ("reboot", "") => reboot::emergency_restart(),
            ("help" | "?", "") => help(),
            (name, "") if let Some(command) = command::all().find(|known| known.name == name) => {
                // They take everything.
                let _always_taken = (command.run)(&mut Lines::new());
            }
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

    /// Prints the traces whose first line is wanted.
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

/// Prints what is at an address, or where a function is.
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

fn help() {
    say(format_args!("{HELP_BEFORE}"));
    for Command { name, help, .. } in command::all() {
        say(format_args!("{name:<15}{help}"));
    }
    say(format_args!("{HELP_AFTER}"));
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
    say(format_args!("cmdline    {}", cmdline::saved()));
    say(format_args!("uptime     {:.2} s", uptime.as_secs_f64()));
    say(format_args!("cpus       {}", cpu::online()));
    say(format_args!(
        "functions  {}",
        image().map_or(0, |image| image.symbols.len())
    ));
}
