//! The life of the CPUs from 1: they start, then run what was registered for them, or idle.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::task::Current;
use super::{cpu, timer};
use crate::machine::frames::keep_frame;
use crate::machine::syscall;
use crate::registry::Registry;

/// How long a CPU idles at most before it looks for work.
const IDLE: Duration = Duration::from_millis(250);

/// How long the boot waits for CPUs to start.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a task of a CPU for a moment; `false` if it has none that wants to run.
pub(crate) type Runnable = fn(cpu: usize) -> bool;

/// Deferred work: each CPU does it again and again, after each run or idle time.
pub(crate) type Work = fn(cpu: usize);

static RUNNABLES: Registry<Runnable, 2> = Registry::new();
static WORK: Registry<Work, 8> = Registry::new();

/// Adds a task for each CPU.
pub(crate) fn register_runnable(runnable: Runnable) {
    RUNNABLES.register(runnable);
}

/// Adds deferred work.
pub(crate) fn register_work(work: Work) {
    WORK.register(work);
}

/// Starts the CPUs from 1 up to `count`, and waits until they are online.
pub(crate) fn init(count: usize) -> io::Result<()> {
    timer::start_clock(0);
    for cpu in 1..count {
        thread::Builder::new()
            .name(format!("swapper/{cpu}"))
            .spawn(move || start_secondary(cpu))?;
    }
    let start = Instant::now();
    while cpu::online() < count {
        if start.elapsed() > START_TIMEOUT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::yield_now();
    }
    Ok(())
}

#[inline(never)]
fn start_secondary(cpu: usize) {
    cpu::set_online(Current::new(cpu, 0, &format!("swapper/{cpu}")));
    timer::start_clock(cpu);
    cpu_startup_entry(cpu);
    keep_frame(());
}

#[inline(never)]
fn cpu_startup_entry(cpu: usize) {
    loop {
        if !RUNNABLES.iter().any(|run| run(cpu)) {
            do_idle();
        }
        run_workqueue(cpu);
    }
}

#[inline(never)]
fn do_idle() {
    cpuidle_idle_call();
    keep_frame(());
}

#[inline(never)]
fn cpuidle_idle_call() {
    default_idle();
    keep_frame(());
}

#[inline(never)]
fn default_idle() {
    syscall::safe_halt(IDLE);
    keep_frame(());
}

#[inline(never)]
fn run_workqueue(cpu: usize) {
    WORK.iter().for_each(|work| work(cpu));
    keep_frame(());
}
