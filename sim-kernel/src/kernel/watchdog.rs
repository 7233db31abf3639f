//! The watchdog: finds a CPU whose clock does not interrupt it any more.
//!
//! It is no thread of the kernel but stands for the counter of a CPU that raises an NMI by itself.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::cpu::{self, CPUS_MAX};
use super::nmi::{REPORT_LOCKUP, are_held};
use super::{panic, timer};
use crate::machine::nmi;
use crate::printk;

/// A CPU that hangs is looked at so often before it is reported.
const LOOKS: u32 = 5;

/// A CPU that hangs ends the machine: `nmi_watchdog=panic`.
static PANIC: AtomicBool = AtomicBool::new(false);

/// Watches all CPUs for one that has not ticked for `threshold`.
pub(crate) fn init(threshold: Duration, panic: bool) -> io::Result<()> {
    PANIC.store(panic, Ordering::Relaxed);
    if threshold.is_zero() || !cpu::ticking() {
        return Ok(());
    }
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
        thread::sleep(threshold / LOOKS);
        for cpu in 0..cpu::online() {
            let (ticks, since, reported) = &mut seen[cpu];
            let now = timer::ticks(cpu);
            if now != *ticks || are_held() {
                (*ticks, *since, *reported) = (now, Instant::now(), false);
            } else if since.elapsed() >= threshold && !*reported {
                *reported = true;
                REPORT_LOCKUP[cpu].store(true, Ordering::Release);
                if let Err(errno) = nmi::send(cpu::own_thread(cpu)) {
                    printk!(Err, "watchdog: cannot interrupt cpu {cpu}: {errno}");
                }
            }
        }
    }
}

/// What follows a report; for the interrupt.
pub(super) fn reported() {
    if PANIC.load(Ordering::Relaxed) {
        panic::panic(format_args!("Hard LOCKUP"));
    }
}
