//! The NMI: it makes other CPUs write their trace into a buffer, stop, or wait, and calls the
//! handlers that were registered for it.
//!
//! Each CPU writes its own trace; the CPU that asked for them prints one after the other.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::cpu::{self, CPUS_MAX};
use super::printk::{self, Level};
use super::sysrq::{self, Key};
use super::{stacktrace, task};
use crate::machine::frames::keep_frame;
use crate::machine::signal::Registers;
use crate::machine::{atomic, nmi, syscall};
use crate::printk;
use crate::registry::Registry;

/// How long to wait for the CPUs.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long to sleep between two checks.
const PAUSE: Duration = Duration::from_micros(50);

/// Room for the trace of one CPU, in bytes.
const TEXT_BYTES: usize = 16 * 1024;

/// The answer of one CPU.
struct Answer {
    /// A thread writes it at this moment.
    writing: AtomicBool,
    /// The last request that it answers.
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
/// A CPU is collecting traces.
static COLLECTING: AtomicBool = AtomicBool::new(false);
/// CPUs that get an NMI stop for good.
static STOPPING: AtomicBool = AtomicBool::new(false);
/// CPUs that have stopped.
static STOPPED: AtomicUsize = AtomicUsize::new(0);

/// CPUs wait in the handler until this is false again.
static HOLDING: AtomicBool = AtomicBool::new(false);
/// Threads that wait there.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Handles an NMI on a CPU; `false` if the NMI was not for this handler. It must not allocate, and
/// must not take a lock.
pub(crate) type NmiHandler = fn(cpu: usize, registers: &Registers) -> bool;

static HANDLERS: Registry<NmiHandler, 4> = Registry::new();

/// Adds a handler, which is called before a CPU writes its trace.
pub(crate) fn register_nmi_handler(handler: NmiHandler) {
    HANDLERS.register(handler);
}

static SHOW_CPUS: Key = Key {
    key: b'l',
    help: "show-backtrace-all-active-cpus(l)",
    action: "Show backtrace of all active CPUs",
    handler: sysrq_handle_show_cpus,
};
static SHOW_TASKS: Key = Key {
    key: b't',
    help: "show-task-states(t)",
    action: "Show State",
    handler: sysrq_handle_show_cpus,
};
static SHOW_BLOCKED: Key = Key {
    key: b'w',
    help: "show-blocked-tasks(w)",
    action: "Show Blocked State",
    handler: sysrq_handle_show_cpus,
};

/// Installs the handler of the interrupt, and registers the keys.
pub(crate) fn init() -> Result<(), Errno> {
    for key in [&SHOW_CPUS, &SHOW_TASKS, &SHOW_BLOCKED] {
        sysrq::register_key(key);
    }
    nmi::install(handler)
}

/// Every task runs on a CPU or is the idle task of one, so the traces of all CPUs are those of all
/// tasks.
#[inline(never)]
fn sysrq_handle_show_cpus() {
    trigger_all_cpu_backtrace(Level::Info);
    keep_frame(());
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
    let cpu = task::current().cpu;
    if STOPPING.load(Ordering::Acquire) {
        answer(cpu, registers);
        STOPPED.fetch_add(1, Ordering::AcqRel);
        loop {
            syscall::sleep(Duration::MAX);
        }
    }
    if HANDLERS.iter().any(|handle| handle(cpu, registers)) {
        return;
    }
    answer(cpu, registers);
    if HOLDING.load(Ordering::Acquire) {
        HELD.fetch_add(1, Ordering::AcqRel);
        while HOLDING.load(Ordering::Acquire) {
            syscall::safe_halt(PAUSE);
        }
        HELD.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(cpu: usize, registers: &Registers) {
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

/// Logs a trace of every CPU, in the order of their numbers.
#[inline(never)]
fn trigger_all_cpu_backtrace(level: Level) {
    if COLLECTING.swap(true, Ordering::Acquire) {
        printk!(
            Warning,
            "NMI backtrace: another CPU is collecting traces; try again"
        );
        return;
    }
    let _atomic = atomic::enter();
    let this = nmi::this_thread();
    let request = next_request();
    let mut interrupted = [0; CPUS_MAX];
    for (cpu, thread) in cpu::threads().filter(|(_, thread)| *thread != this) {
        interrupted[cpu] = interrupt(cpu, thread);
    }
    let start = Instant::now();
    for (cpu, _) in cpu::threads() {
        print_answer(cpu, interrupted[cpu], request, start, level);
    }
    COLLECTING.store(false, Ordering::Release);
    keep_frame(());
}

fn next_request() -> u32 {
    let request = REQUEST.load(Ordering::Relaxed).wrapping_add(1).max(1);
    REQUEST.store(request, Ordering::Release);
    request
}

/// Sends the interrupt to the thread that a CPU runs; gives that thread.
fn interrupt(cpu: usize, thread: i32) -> i32 {
    match nmi::send(thread) {
        // A task whose thread has ended has left its CPU.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => printk!(
            Warning,
            "NMI backtrace: cannot interrupt cpu {cpu}: {errno}"
        ),
    }
    thread
}

/// Prints the trace of a CPU: that of this thread if it is what runs there, or the answer of the one
/// that does. A task may leave its CPU before the interrupt reaches it; then whatever runs there now
/// is interrupted.
fn print_answer(cpu: usize, mut interrupted: i32, request: u32, start: Instant, level: Level) {
    let answer = &ANSWERS[cpu];
    while answer.request.load(Ordering::Acquire) != request {
        let running = cpu::running(cpu);
        if running == nmi::this_thread() {
            stacktrace::dump_stack(level);
            return;
        }
        if running != interrupted {
            interrupted = interrupt(cpu, running);
        }
        if start.elapsed() > TIMEOUT {
            printk!(Warning, "NMI backtrace: cpu {cpu} does not answer");
            return;
        }
        syscall::safe_halt(PAUSE);
    }
    printk::emit(level, format_args!("NMI backtrace for cpu {cpu}"));
    answer.lines(|line| printk::emit(level, format_args!("{line}")));
}

impl Answer {
    /// The lines of an answer that is complete.
    fn lines(&self, mut show: impl FnMut(&str)) {
        let len = self.len.load(Ordering::Relaxed);
        let mut line = [0; 1024];
        let mut used = 0;
        let bytes = self.text[..len].iter();
        for byte in bytes.map(|byte| byte.load(Ordering::Relaxed)) {
            if byte == b'\n' {
                show(std::str::from_utf8(&line[..used]).unwrap_or("?"));
                used = 0;
            } else if let Some(free) = line.get_mut(used) {
                *free = byte;
                used += 1;
            }
        }
    }
}

/// All other CPUs, held where they are until this is dropped, or for ever after a panic.
#[derive(Debug)]
pub(crate) struct Held {
    request: u32,
    /// Whether this is what holds them, and not a panic that has stopped them.
    holding: bool,
}

/// Holds all other CPUs, with their traces; `None` if another CPU is collecting traces.
pub(crate) fn roundup_cpus() -> Option<Held> {
    if STOPPING.load(Ordering::Acquire) {
        let request = REQUEST.load(Ordering::Acquire);
        return Some(Held {
            request,
            holding: false,
        });
    }
    if COLLECTING.swap(true, Ordering::Acquire) {
        return None;
    }
    let request = next_request();
    HOLDING.store(true, Ordering::Release);
    let sent = send_to_others();
    wait_for(&HELD, sent);
    Some(Held {
        request,
        holding: true,
    })
}

/// Whether CPUs are held, so that they do not tick.
pub(crate) fn are_held() -> bool {
    HOLDING.load(Ordering::Acquire)
}

impl Held {
    /// The lines of a CPU's trace; `false` where it did not answer.
    pub(crate) fn trace(&self, cpu: usize, show: impl FnMut(&str)) -> bool {
        let answer = &ANSWERS[cpu];
        let answered = answer.request.load(Ordering::Acquire) == self.request;
        if answered {
            answer.lines(show);
        }
        answered
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.holding {
            HOLDING.store(false, Ordering::Release);
            COLLECTING.store(false, Ordering::Release);
        }
    }
}

/// Interrupts all threads of CPUs except the calling one; returns how many.
fn send_to_others() -> usize {
    let this = nmi::this_thread();
    let others = cpu::all_threads().filter(|thread| *thread != this);
    others.filter(|thread| nmi::send(*thread).is_ok()).count()
}

fn wait_for(count: &AtomicUsize, expected: usize) {
    let start = Instant::now();
    while count.load(Ordering::Acquire) < expected && start.elapsed() < TIMEOUT {
        syscall::safe_halt(PAUSE);
    }
}

/// Stops all CPUs except the calling one for good, as far as they answer.
pub(crate) fn smp_send_stop() {
    next_request();
    STOPPING.store(true, Ordering::Release);
    let sent = send_to_others();
    wait_for(&STOPPED, sent);
}
