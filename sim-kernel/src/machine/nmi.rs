//! The non-maskable interrupt: a real-time signal to the thread of a CPU.

use std::ffi::c_void;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{getpid, gettid};

/// The registers of an interrupted thread, as far as a trace needs them.
///
/// Only the interrupt itself makes them, so they are true.
#[derive(Debug)]
pub(crate) struct Registers {
    rip: usize,
    rsp: usize,
    rbp: usize,
}

impl Registers {
    /// The instruction that was interrupted.
    pub(crate) const fn rip(&self) -> u64 {
        self.rip as u64
    }

    pub(super) const fn rsp(&self) -> usize {
        self.rsp
    }

    pub(super) const fn rbp(&self) -> usize {
        self.rbp
    }
}

static HANDLER: OnceLock<fn(&Registers)> = OnceLock::new();

/// Makes `handler` the handler of the interrupt, for all CPUs; the first one stays.
///
/// It runs between any two instructions: it must not allocate, and must not take a lock.
pub(crate) fn install(handler: fn(&Registers)) -> Result<(), Errno> {
    HANDLER.get_or_init(|| handler);
    // SAFETY: zeros are a `sigaction`: an empty mask, no flags, the default action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = entry as *const () as usize;
    // On the interrupted stack, so that its frames can be walked; system calls go on after it.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: `action` is valid, and its handler has the signature that SA_SIGINFO asks for.
    let result = unsafe { libc::sigaction(signal(), &action, std::ptr::null_mut()) };
    Errno::result(result).map(drop)
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
    let result = unsafe { libc::syscall(libc::SYS_tgkill, getpid().as_raw(), thread, signal()) };
    Errno::result(result).map(drop)
}

/// The first real-time signal that libc leaves to programs.
fn signal() -> i32 {
    libc::SIGRTMIN()
}

extern "C" fn entry(_signal: i32, _info: *const libc::siginfo_t, context: *const c_void) {
    // SAFETY: the host passes a `ucontext_t` to a handler with SA_SIGINFO, valid until it returns.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let register = |number: i32| context.uc_mcontext.gregs[number as usize] as usize;
    let registers = Registers {
        rip: register(libc::REG_RIP),
        rsp: register(libc::REG_RSP),
        rbp: register(libc::REG_RBP),
    };
    if let Some(handler) = HANDLER.get() {
        handler(&registers);
    }
}
