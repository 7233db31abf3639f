//! The CPUs: threads of the host. CPU 0 is the main thread and runs init, the others idle.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::task::Identity;
use crate::drivers::lineinfo::LINEINFO;
use crate::machine::frames::{keep_frame, stack_starts_here};
use crate::machine::{nmi, syscall};

/// Most CPUs there can be.
pub(crate) const CPUS_MAX: usize = 64;

/// How long a CPU idles at most before it looks for work.
const TICK: Duration = Duration::from_millis(250);

/// How long CPUs are waited for when they start.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// The thread of each CPU, 0 where it is not online.
static THREADS: [AtomicI32; CPUS_MAX] = [const { AtomicI32::new(0) }; CPUS_MAX];
static ONLINE: AtomicUsize = AtomicUsize::new(0);

/// The calling thread is a CPU from now on; its traces end in the function that calls this.
#[inline(always)]
pub(crate) fn set_online(identity: Identity) {
    stack_starts_here();
    identity.make_current();
    THREADS[identity.cpu].store(nmi::this_thread(), Ordering::Release);
    ONLINE.fetch_add(1, Ordering::Release);
}

/// Number of CPUs.
pub(crate) fn online() -> usize {
    ONLINE.load(Ordering::Acquire)
}

/// The CPUs and their threads; for any context.
pub(crate) fn threads() -> impl Iterator<Item = (usize, i32)> {
    let thread = |cpu: &AtomicI32| cpu.load(Ordering::Acquire);
    THREADS
        .iter()
        .map(thread)
        .enumerate()
        .filter(|(_, thread)| *thread != 0)
}

/// Starts the CPUs from 1 up to `count`, and waits until they are online.
pub(crate) fn smp_init(count: usize) -> io::Result<()> {
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
    cpu_startup_entry();
    keep_frame(());
}

#[inline(never)]
fn cpu_startup_entry() {
    loop {
        do_idle();
        run_workqueue();
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
    syscall::safe_halt(TICK);
    keep_frame(());
}

/// What a CPU does between two idle times.
#[inline(never)]
fn run_workqueue() {
    LINEINFO.reclaim();
    keep_frame(());
}
