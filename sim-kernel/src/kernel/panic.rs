//! The end of a kernel that cannot go on.

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::time::Duration;

use super::image::image;
use super::printk::{self, Level};
use super::{kdb, nmi, pstore, reboot, stacktrace};
use crate::machine::{self, atomic, syscall};
use crate::printk;

/// What `panic=` says: 0 halts, a positive number reboots after so many seconds, a negative one at
/// once.
static TIMEOUT_S: AtomicI64 = AtomicI64::new(0);

/// The thread that panics, 0 if none does.
static PANICKING: AtomicI32 = AtomicI32::new(0);

/// Sets what happens after a panic.
pub(crate) fn set_timeout(seconds: i64) {
    TIMEOUT_S.store(seconds, Ordering::Relaxed);
}

/// Says why, shows the trace, and ends as `panic=` says; allocates nothing and takes no lock.
#[inline(never)]
pub(crate) fn panic(message: fmt::Arguments<'_>) -> ! {
    end(message, true)
}

/// The same behind an oops, which has shown the trace already.
pub(crate) fn panic_without_trace(message: fmt::Arguments<'_>) -> ! {
    end(message, false)
}

#[inline(always)]
fn end(message: fmt::Arguments<'_>, trace: bool) -> ! {
    let _atomic = atomic::enter();
    let this = machine::nmi::this_thread();
    match PANICKING.compare_exchange(0, this, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        // A panic in the panic: there is nothing left to be trusted.
        Err(other) if other == this => reboot::machine_halt(),
        Err(_) => loop {
            syscall::sleep(Duration::MAX);
        },
    }
    printk::console_verbose();
    nmi::smp_send_stop();
    printk!(Emerg, "Kernel panic - not syncing: {message}");
    if trace {
        stacktrace::dump_stack(Level::Emerg);
    }
    if let Some(image) = image() {
        printk!(Emerg, "Kernel Offset: {:#x}", image.slide);
    }
    match atomic::violations() {
        0 => {}
        count => printk!(Emerg, "BUG: {count} allocations in atomic context"),
    }
    pstore::kmsg_dump();
    // Behind an oops kdb has been offered already.
    if trace {
        kdb::on_panic();
    }
    match TIMEOUT_S.load(Ordering::Relaxed) {
        0 => {
            printk!(Emerg, "---[ end Kernel panic - not syncing: {message} ]---");
            reboot::machine_halt()
        }
        seconds => {
            if let Ok(seconds @ 1..) = u64::try_from(seconds) {
                printk!(Emerg, "Rebooting in {seconds} seconds..");
                syscall::sleep(Duration::from_secs(seconds));
            }
            reboot::emergency_restart()
        }
    }
}

/// A bug of the kernel itself is a panic of the kernel.
pub(crate) fn catch_bugs() {
    std::panic::set_hook(Box::new(|bug| {
        panic(format_args!("BUG: {bug}"));
    }));
}
