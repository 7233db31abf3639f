//! The non-maskable interrupt: a real-time signal to the thread of a CPU.

use std::ffi::c_void;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{getpid, gettid};

use super::signal::{self, Registers};

static HANDLER: OnceLock<fn(&Registers)> = OnceLock::new();

/// Makes `handler` the handler of the interrupt, for all CPUs; the first one stays.
///
/// It runs between any two instructions: it must not allocate, and must not take a lock.
pub(crate) fn install(handler: fn(&Registers)) -> Result<(), Errno> {
    HANDLER.get_or_init(|| handler);
    // On the interrupted stack, so that its frames can be walked; system calls go on after it.
    signal::install(number(), entry, libc::SA_RESTART)
}

/// The thread that is running, as a target of [`send`].
pub(crate) fn this_thread() -> i32 {
    gettid().as_raw()
}

/// Interrupts a thread of this process.
pub(crate) fn send(thread: i32) -> Result<(), Errno> {
    debug_assert!(HANDLER.get().is_some(), "the signal would end the process");
    // SAFETY: passes integers; the signal has a handler (`install` comes first at boot), and a
    // thread that is gone is an error.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, getpid().as_raw(), thread, number()) };
    Errno::result(result).map(drop)
}

/// The first real-time signal that libc leaves to programs.
fn number() -> i32 {
    libc::SIGRTMIN()
}

extern "C" fn entry(_signal: i32, _info: *const libc::siginfo_t, context: *const c_void) {
    // SAFETY: `context` is what the host passed, and this has not returned.
    let registers = unsafe { Registers::of(context) };
    if let Some(handler) = HANDLER.get() {
        handler(&registers);
    }
}
