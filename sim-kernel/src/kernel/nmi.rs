//! Traces of other CPUs: they are interrupted, write their own trace into a buffer, and whoever
//! asked prints it, one CPU after the other.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::cpu::{self, CPUS_MAX};
use super::printk::Level;
use super::{stacktrace, task, watchdog};
use crate::machine::frames::keep_frame;
use crate::machine::signal::Registers;
use crate::machine::{atomic, nmi, syscall};
use crate::printk;

/// How long the CPUs are waited for.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long to sleep between two looks.
const PAUSE: Duration = Duration::from_micros(50);

/// Room for the trace of one CPU, in bytes.
const TEXT_BYTES: usize = 16 * 1024;

/// The answer of one CPU.
struct Answer {
    /// A thread is writing it.
    writing: AtomicBool,
    /// The request it was last for.
    request: AtomicU32,
    len: AtomicUsize,
    text: [AtomicU8; TEXT_BYTES],
}

static ANSWERS: [Answer; CPUS_MAX] = [const {
    Answer {
        writing: AtomicBool::new(false),
        request: AtomicU32::new(0),
        len: AtomicUsize::new(0),
        text: [const { AtomicU8::new(0) }; TEXT_BYTES],
    }
}; CPUS_MAX];

/// The request that handlers answer, counted up; 0 is none.
static REQUEST: AtomicU32 = AtomicU32::new(0);
/// Somebody is collecting traces.
static COLLECTING: AtomicBool = AtomicBool::new(false);
/// CPUs stop for good.
static STOPPING: AtomicBool = AtomicBool::new(false);
/// CPUs that the watchdog wants a report from.
pub(super) static REPORT_LOCKUP: [AtomicBool; CPUS_MAX] =
    [const { AtomicBool::new(false) }; CPUS_MAX];
/// CPUs that have stopped.
static STOPPED: AtomicUsize = AtomicUsize::new(0);

/// Takes the interrupt over.
pub(crate) fn init() -> Result<(), Errno> {
    nmi::install(handler)
}

thread_local! {
    /// This thread is in the handler.
    static IN_HANDLER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in the handler of the interrupt.
pub(crate) fn in_handler() -> bool {
    IN_HANDLER.get()
}

fn handler(registers: &Registers) {
    let _atomic = atomic::enter();
    let nested = IN_HANDLER.replace(true);
    handle(registers);
    IN_HANDLER.set(nested);
}

fn handle(registers: &Registers) {
    if STOPPING.load(Ordering::Acquire) {
        STOPPED.fetch_add(1, Ordering::AcqRel);
        loop {
            syscall::sleep(Duration::MAX);
        }
    }
    let cpu = task::current().cpu;
    if REPORT_LOCKUP[cpu].swap(false, Ordering::Acquire) {
        report_lockup(cpu, registers);
        return;
    }
    let request = REQUEST.load(Ordering::Acquire);
    let answer = &ANSWERS[cpu];
    // A thread that was too late for an earlier request may be writing, or may have answered this
    // one; the collector must not see two answers in one.
    if answer.request.load(Ordering::Acquire) == request
        || answer.writing.swap(true, Ordering::Acquire)
    {
        return;
    }
    let mut text = AnswerText { answer, len: 0 };
    stacktrace::show_interrupted(registers, &mut |line| {
        let _always_taken = text.write_fmt(format_args!("{line}\n"));
    });
    answer.len.store(text.len, Ordering::Relaxed);
    answer.request.store(request, Ordering::Release);
    answer.writing.store(false, Ordering::Release);
}

fn report_lockup(cpu: usize, registers: &Registers) {
    printk!(
        Emerg,
        "watchdog: Watchdog detected hard LOCKUP on cpu {cpu}"
    );
    stacktrace::show_interrupted(registers, &mut |line| {
        super::printk::emit(Level::Emerg, line);
    });
    watchdog::reported();
}

/// Writes into an [`Answer`], as far as there is room.
struct AnswerText {
    answer: &'static Answer,
    len: usize,
}

impl Write for AnswerText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (free, byte) in self.answer.text[self.len..].iter().zip(text.bytes()) {
            free.store(byte, Ordering::Relaxed);
            self.len += 1;
        }
        Ok(())
    }
}

/// Logs a trace of every CPU, in their order; that of the calling one by itself.
#[inline(never)]
pub(crate) fn trigger_all_cpu_backtrace(level: Level) {
    if COLLECTING.swap(true, Ordering::Acquire) {
        printk!(
            Warning,
            "NMI backtrace: somebody else is collecting traces; try again"
        );
        return;
    }
    let _atomic = atomic::enter();
    let this = nmi::this_thread();
    let request = REQUEST.load(Ordering::Relaxed).wrapping_add(1).max(1);
    REQUEST.store(request, Ordering::Release);
    for (cpu, thread) in cpu::threads().filter(|(_, thread)| *thread != this) {
        if let Err(errno) = nmi::send(thread) {
            printk!(
                Warning,
                "NMI backtrace: cannot interrupt cpu {cpu}: {errno}"
            );
        }
    }
    let start = Instant::now();
    for (cpu, thread) in cpu::threads() {
        if thread == this {
            stacktrace::dump_stack(level);
        } else {
            print_answer(cpu, request, start, level);
        }
    }
    COLLECTING.store(false, Ordering::Release);
    keep_frame(());
}

fn print_answer(cpu: usize, request: u32, start: Instant, level: Level) {
    let answer = &ANSWERS[cpu];
    while answer.request.load(Ordering::Acquire) != request {
        if start.elapsed() > TIMEOUT {
            printk!(Warning, "NMI backtrace: cpu {cpu} does not answer");
            return;
        }
        syscall::safe_halt(PAUSE);
    }
    super::printk::emit(level, format_args!("NMI backtrace for cpu {cpu}"));
    let len = answer.len.load(Ordering::Relaxed);
    let mut line = [0; 1024];
    let mut used = 0;
    for byte in answer.text[..len]
        .iter()
        .map(|byte| byte.load(Ordering::Relaxed))
    {
        if byte == b'\n' {
            let text = std::str::from_utf8(&line[..used]).unwrap_or("?");
            super::printk::emit(level, format_args!("{text}"));
            used = 0;
        } else if let Some(free) = line.get_mut(used) {
            *free = byte;
            used += 1;
        }
    }
}

/// Stops all CPUs but the calling one for good, as far as they answer.
pub(crate) fn smp_send_stop() {
    STOPPING.store(true, Ordering::Release);
    let this = nmi::this_thread();
    let others = cpu::threads().filter(|(_, thread)| *thread != this);
    let sent = others
        .filter(|(_, thread)| nmi::send(*thread).is_ok())
        .count();
    let start = Instant::now();
    while STOPPED.load(Ordering::Acquire) < sent && start.elapsed() < TIMEOUT {
        syscall::safe_halt(PAUSE);
    }
}
