//! The watchdog: finds a CPU whose clock does not interrupt it any more.
//!
//! Its thread is not a task of the kernel: it plays the counter of a CPU that raises an NMI by
//! itself.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::cpu::{self, CPUS_MAX};
use super::nmi::{are_held, register_nmi_handler};
use super::printk::{self, Level};
use super::{panic, stacktrace, timer};
use crate::machine::nmi;
use crate::machine::signal::Registers;
use crate::printk;

/// How often a CPU that hangs is checked before it is reported.
const CHECKS: u32 = 5;

/// A CPU that hangs ends the machine: `nmi_watchdog=panic`.
static PANIC: AtomicBool = AtomicBool::new(false);

/// CPUs that are to report that they hang.
static REPORT: [AtomicBool; CPUS_MAX] = [const { AtomicBool::new(false) }; CPUS_MAX];

/// Watches all CPUs, and reports one that has not ticked for `threshold`.
pub(crate) fn init(threshold: Duration, panic: bool) -> io::Result<()> {
    PANIC.store(panic, Ordering::Relaxed);
    if threshold.is_zero() || !timer::ticking() {
        return Ok(());
    }
    register_nmi_handler(report);
    thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || watch(threshold))?;
    printk!(
        Info,
        "watchdog: hard lockups are found after {} s",
        threshold.as_secs()
    );
    Ok(())
}

fn watch(threshold: Duration) {
    let mut seen = [(0, Instant::now(), false); CPUS_MAX];
    loop {
        thread::sleep(threshold / CHECKS);
        for cpu in 0..cpu::online() {
            let (ticks, since, reported) = &mut seen[cpu];
            let now = timer::ticks(cpu);
            if now != *ticks || are_held() {
                (*ticks, *since, *reported) = (now, Instant::now(), false);
            } else if since.elapsed() >= threshold && !*reported {
                *reported = true;
                REPORT[cpu].store(true, Ordering::Release);
                if let Err(errno) = nmi::send(cpu::own_thread(cpu)) {
                    printk!(Err, "watchdog: cannot interrupt cpu {cpu}: {errno}");
                }
            }
        }
    }
}

/// The report of a CPU that hangs, by that CPU.
fn report(cpu: usize, registers: &Registers) -> bool {
    if !REPORT[cpu].swap(false, Ordering::Acquire) {
        return false;
    }
    printk!(
        Emerg,
        "watchdog: Watchdog detected hard LOCKUP on cpu {cpu}"
    );
    stacktrace::show_interrupted(registers, &mut |line| {
        printk::emit(Level::Emerg, line);
    });
    if PANIC.load(Ordering::Relaxed) {
        panic::panic(format_args!("Hard LOCKUP"));
    }
    true
}
