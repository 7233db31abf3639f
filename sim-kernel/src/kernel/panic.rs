//! The end of a kernel that cannot go on.

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::time::Duration;

use super::image::image;
use super::printk::{self, Level};
use super::sysrq::{self, Key};
use super::{kmsg, nmi, reboot, stacktrace};
use crate::fs::proc::{open_text, text_file};
use crate::fs::{Node, namei};
use crate::machine::signal::Registers;
use crate::machine::{self, atomic, syscall};
use crate::printk;
use crate::registry::Registry;

/// What a die notifier is called for.
pub(crate) enum Death<'a> {
    /// A panic.
    Panic,
    /// An oops, with the registers of the trap.
    Oops(&'a Registers),
}

/// Called in a panic or an oops: it must not allocate, and must not take a lock.
pub(crate) type DieNotifier = fn(&Death<'_>);

static DIE_NOTIFIERS: Registry<DieNotifier, 4> = Registry::new();

/// The value of `panic=`: 0 halts, a positive number reboots after so many seconds, a negative one
/// at once.
static TIMEOUT_S: AtomicI64 = AtomicI64::new(0);

/// The thread that panics, 0 if none does.
static PANICKING: AtomicI32 = AtomicI32::new(0);

const FILES: &[Node] = &[text_file(
    "/proc/sys/kernel/atomic_allocations",
    |_, _, _| open_text(atomic_allocations_show),
)];

static CRASH: Key = Key {
    key: b'c',
    help: "crash(c)",
    action: "Trigger a crash",
    handler: sysrq_handle_crash,
};

/// Sets what happens after a panic, makes a bug of the kernel itself a panic, and registers the
/// file and the key.
pub(crate) fn init(timeout_s: i64) {
    TIMEOUT_S.store(timeout_s, Ordering::Relaxed);
    std::panic::set_hook(Box::new(|bug| {
        panic(format_args!("BUG: {bug}"));
    }));
    namei::register(FILES);
    sysrq::register_key(&CRASH);
}

/// Adds a function that is called in each panic and oops.
pub(crate) fn register_die_notifier(notifier: DieNotifier) {
    DIE_NOTIFIERS.register(notifier);
}

/// Calls the functions that were registered for panics and oopses.
pub(crate) fn notify_die(death: &Death<'_>) {
    DIE_NOTIFIERS.iter().for_each(|notify| notify(death));
}

/// Logs the reason and the trace, and ends as `panic=` says; allocates nothing and takes no lock.
#[inline(never)]
pub(crate) fn panic(message: fmt::Arguments<'_>) -> ! {
    end(message, true)
}

/// The same after an oops, which has logged the trace already.
pub(crate) fn panic_without_trace(message: fmt::Arguments<'_>) -> ! {
    end(message, false)
}

#[inline(always)]
fn end(message: fmt::Arguments<'_>, trace: bool) -> ! {
    let _atomic = atomic::enter();
    let this = machine::nmi::this_thread();
    match PANICKING.compare_exchange(0, this, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        // A panic in the panic: nothing can be relied upon any more.
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
    kmsg::dump();
    // An oops has called them already.
    if trace {
        notify_die(&Death::Panic);
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

#[inline(never)]
fn sysrq_handle_crash() {
    panic(format_args!("sysrq triggered crash"))
}

/// How often something allocated in an interrupt, a trace or a panic; the right value is 0.
fn atomic_allocations_show() -> String {
    format!("{}\n", atomic::violations())
}
