//! The CPUs: threads of the host. CPU 0 is the main thread and runs init.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::task::Current;
use crate::machine::frames::stack_starts_here;
use crate::machine::nmi;
use crate::machine::trap::TrapStack;
use crate::printk;

/// Most CPUs there can be.
pub(crate) const CPUS_MAX: usize = 64;

/// The thread of each CPU, 0 where it is not online.
static THREADS: [AtomicI32; CPUS_MAX] = [const { AtomicI32::new(0) }; CPUS_MAX];
/// The thread that an interrupt of each CPU reaches: its own, or one that makes a system call there.
static RUNNING: [AtomicI32; CPUS_MAX] = [const { AtomicI32::new(0) }; CPUS_MAX];
static ONLINE: AtomicUsize = AtomicUsize::new(0);

/// Makes the calling thread a CPU; its traces end in the function that calls this.
#[inline(always)]
pub(crate) fn set_online(task: Current) {
    stack_starts_here();
    task.make_current();
    come_up(task.cpu);
}

fn come_up(cpu: usize) {
    match TrapStack::install() {
        // A CPU stays one for ever.
        Ok(stack) => std::mem::forget(stack),
        Err(errno) => printk!(Warning, "smp: cpu {cpu} has no stack for traps: {errno}"),
    }
    let thread = nmi::this_thread();
    THREADS[cpu].store(thread, Ordering::Release);
    RUNNING[cpu].store(thread, Ordering::Release);
    ONLINE.fetch_add(1, Ordering::Release);
}

/// Number of CPUs.
pub(crate) fn online() -> usize {
    ONLINE.load(Ordering::Acquire)
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

/// The thread that runs on a CPU; for any context.
pub(crate) fn running(cpu: usize) -> i32 {
    RUNNING[cpu].load(Ordering::Acquire)
}

/// All threads that CPUs run, their own and those in system calls, each once; for any context.
pub(crate) fn all_threads() -> impl Iterator<Item = i32> {
    let own = |cpu: usize| Some(own_thread(cpu)).filter(|thread| *thread != 0);
    let borrowed = move |(cpu, thread)| (own(cpu) != Some(thread)).then_some(thread);
    threads()
        .filter_map(borrowed)
        .chain((0..CPUS_MAX).filter_map(own))
}

/// The thread of a CPU itself, whichever other thread runs on it.
pub(crate) fn own_thread(cpu: usize) -> i32 {
    THREADS[cpu].load(Ordering::Acquire)
}

/// A thread that makes a system call on a CPU: interrupts of the CPU reach it until this is dropped.
#[derive(Debug)]
pub(crate) struct OnCpu {
    cpu: usize,
}

/// Lets the calling thread run on a CPU, unless another thread borrows that CPU already; the CPU's
/// own thread goes on.
pub(crate) fn run_on(cpu: usize) -> Option<OnCpu> {
    let (own, borrower) = (own_thread(cpu), nmi::this_thread());
    RUNNING[cpu]
        .compare_exchange(own, borrower, Ordering::AcqRel, Ordering::Acquire)
        .ok()
        .map(|_| OnCpu { cpu })
}

impl Drop for OnCpu {
    fn drop(&mut self) {
        RUNNING[self.cpu].store(own_thread(self.cpu), Ordering::Release);
    }
}
