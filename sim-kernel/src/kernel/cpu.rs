//! The CPUs: threads of the host. CPU 0 is the main thread and runs init, the others idle, or run
//! a load.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::lineinfo::LINEINFO;
use super::load::{self, Load};
use super::task::Identity;
use super::{lkdtm, module, timer};
use crate::machine::frames::{keep_frame, stack_starts_here};
use crate::machine::tick::Clock;
use crate::machine::trap::TrapStack;
use crate::machine::{nmi, syscall};
use crate::printk;

/// Most CPUs there can be.
pub(crate) const CPUS_MAX: usize = 64;

/// How long a CPU idles at most before it looks for work.
const IDLE: Duration = Duration::from_millis(250);

/// How long CPUs are waited for when they start.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// The thread of each CPU, 0 where it is not online.
static THREADS: [AtomicI32; CPUS_MAX] = [const { AtomicI32::new(0) }; CPUS_MAX];
/// The thread that an interrupt of each CPU reaches: its own, or one that makes a system call on it.
static RUNNING: [AtomicI32; CPUS_MAX] = [const { AtomicI32::new(0) }; CPUS_MAX];
static ONLINE: AtomicUsize = AtomicUsize::new(0);
/// The CPUs have clocks.
static TICKING: AtomicBool = AtomicBool::new(false);

/// The calling thread is a CPU from now on; its traces end in the function that calls this.
#[inline(always)]
pub(crate) fn set_online(identity: Identity) {
    stack_starts_here();
    identity.make_current();
    come_up(identity.cpu);
}

fn come_up(cpu: usize) {
    match TrapStack::install() {
        // A CPU is one for ever.
        Ok(stack) => std::mem::forget(stack),
        Err(errno) => printk!(Warning, "smp: cpu {cpu} has no stack for traps: {errno}"),
    }
    let thread = nmi::this_thread();
    THREADS[cpu].store(thread, Ordering::Release);
    RUNNING[cpu].store(thread, Ordering::Release);
    ONLINE.fetch_add(1, Ordering::Release);
}

/// Gives this CPU its clock.
pub(crate) fn start_clock(cpu: usize) {
    match Clock::start(timer::TICK) {
        Ok(clock) => std::mem::forget(clock),
        Err(errno) => {
            TICKING.store(false, Ordering::Relaxed);
            printk!(Warning, "smp: cpu {cpu} has no clock: {errno}; no watchdog");
        }
    }
}

/// Number of CPUs.
pub(crate) fn online() -> usize {
    ONLINE.load(Ordering::Acquire)
}

/// Whether all CPUs have clocks, so that one that does not tick hangs.
pub(crate) fn ticking() -> bool {
    TICKING.load(Ordering::Relaxed)
}

/// The CPUs and the threads that run on them; for any context.
pub(crate) fn threads() -> impl Iterator<Item = (usize, i32)> {
    let thread = |cpu: &AtomicI32| cpu.load(Ordering::Acquire);
    RUNNING
        .iter()
        .map(thread)
        .enumerate()
        .filter(|(_, thread)| *thread != 0)
}

/// All threads that CPUs run, their own and those in system calls, each once; for any context.
pub(crate) fn all_threads() -> impl Iterator<Item = i32> {
    let own = |cpu: usize| Some(own_thread(cpu)).filter(|thread| *thread != 0);
    let borrowed = move |(cpu, thread)| (own(cpu) != Some(thread)).then_some(thread);
    threads()
        .filter_map(borrowed)
        .chain((0..CPUS_MAX).filter_map(own))
}

/// The thread of a CPU itself, whoever else runs on it.
pub(crate) fn own_thread(cpu: usize) -> i32 {
    THREADS[cpu].load(Ordering::Acquire)
}

/// A thread that makes a system call on a CPU: interrupts of the CPU reach its thread until this is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    cpu: usize,
}

/// Lets the calling thread run on a CPU, if no other thread borrows that; the CPU's own thread goes on.
pub(crate) fn visit(cpu: usize) -> Option<Visit> {
    let (own, borrower) = (own_thread(cpu), nmi::this_thread());
    RUNNING[cpu]
        .compare_exchange(own, borrower, Ordering::AcqRel, Ordering::Acquire)
        .ok()
        .map(|_| Visit { cpu })
}

impl Drop for Visit {
    fn drop(&mut self) {
        RUNNING[self.cpu].store(own_thread(self.cpu), Ordering::Release);
    }
}

/// Starts the CPUs from 1 up to `count`, and waits until they are online.
pub(crate) fn smp_init(count: usize) -> io::Result<()> {
    TICKING.store(true, Ordering::Relaxed);
    start_clock(0);
    for cpu in 1..count {
        thread::Builder::new()
            .name(format!("swapper/{cpu}"))
            .spawn(move || start_secondary(cpu))?;
    }
    let start = Instant::now();
    while online() < count {
        if start.elapsed() > START_TIMEOUT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::yield_now();
    }
    Ok(())
}

#[inline(never)]
fn start_secondary(cpu: usize) {
    set_online(Identity::new(cpu, 0, &format!("swapper/{cpu}")));
    start_clock(cpu);
    cpu_startup_entry(cpu);
    keep_frame(());
}

#[inline(never)]
fn cpu_startup_entry(cpu: usize) {
    let mut task = None;
    loop {
        if load::is_on() {
            task.get_or_insert_with(|| Load::new(cpu)).run();
        } else {
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

/// What a CPU does between two idle times.
#[inline(never)]
fn run_workqueue(cpu: usize) {
    LINEINFO.reclaim();
    module::reclaim();
    lkdtm::run_on_this(cpu);
    keep_frame(());
}
