//! Signals of the host, which play the interrupts and traps of a CPU.

use std::ffi::c_void;

use nix::errno::Errno;
use nix::libc;

/// A signal handler as the host calls it with `SA_SIGINFO`.
pub(super) type SignalHandler = extern "C" fn(i32, *const libc::siginfo_t, *const c_void);

/// Lets the machine go on when a shell puts it in the background: what it writes is shown, and
/// what it reads waits ([`super::syscall::read`]), instead of stopping the whole process.
pub(crate) fn stay_in_background() {
    for signal in [libc::SIGTTIN, libc::SIGTTOU] {
        // It cannot fail: both can be ignored.
        // SAFETY: no handler is installed.
        let _before = unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The registers of an interrupted thread.
///
/// Only an interrupt makes a value of this type, so it has the registers of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    all: [i64; 23],
}

const _: () = assert!(size_of::<libc::mcontext_t>() >= size_of::<Registers>());

impl Registers {
    /// Those in the context that the host gives to a handler.
    ///
    /// # Safety
    ///
    /// `context` is what the host passed to a [`SignalHandler`] that has not returned yet.
    pub(super) unsafe fn of(context: *const c_void) -> Self {
        // SAFETY: the host passes a `ucontext_t` to a handler with SA_SIGINFO, valid until it
        // returns (the caller).
        let context = unsafe { &*context.cast::<libc::ucontext_t>() };
        Self {
            all: context.uc_mcontext.gregs,
        }
    }

    const fn get(&self, number: i32) -> u64 {
        self.all[number as usize].cast_unsigned()
    }

    /// The instruction that was interrupted.
    pub(crate) const fn rip(&self) -> u64 {
        self.get(libc::REG_RIP)
    }

    /// The stack pointer.
    pub(crate) const fn rsp(&self) -> u64 {
        self.get(libc::REG_RSP)
    }

    /// The frame pointer.
    pub(crate) const fn rbp(&self) -> u64 {
        self.get(libc::REG_RBP)
    }

    /// The flags.
    pub(crate) const fn eflags(&self) -> u64 {
        self.get(libc::REG_EFL)
    }

    /// The number of the trap, if it was one.
    pub(crate) const fn trap(&self) -> u64 {
        self.get(libc::REG_TRAPNO)
    }

    /// The error code of the trap.
    pub(crate) const fn error_code(&self) -> u64 {
        self.get(libc::REG_ERR)
    }

    /// The address that could not be accessed, in a page fault.
    pub(crate) const fn cr2(&self) -> u64 {
        self.get(libc::REG_CR2)
    }

    /// The general registers with their names, in the order of an oops.
    pub(crate) fn general(&self) -> [(&'static str, u64); 15] {
        [
            ("RAX", libc::REG_RAX),
            ("RBX", libc::REG_RBX),
            ("RCX", libc::REG_RCX),
            ("RDX", libc::REG_RDX),
            ("RSI", libc::REG_RSI),
            ("RDI", libc::REG_RDI),
            ("RBP", libc::REG_RBP),
            ("R08", libc::REG_R8),
            ("R09", libc::REG_R9),
            ("R10", libc::REG_R10),
            ("R11", libc::REG_R11),
            ("R12", libc::REG_R12),
            ("R13", libc::REG_R13),
            ("R14", libc::REG_R14),
            ("R15", libc::REG_R15),
        ]
        .map(|(name, number)| (name, self.get(number)))
    }
}

/// Makes `entry` the handler of a signal, with these flags besides `SA_SIGINFO`.
pub(super) fn install(signal: i32, entry: SignalHandler, flags: i32) -> Result<(), Errno> {
    // SAFETY: zeros are a `sigaction`: an empty mask, no flags, the default action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = entry as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | flags;
    // SAFETY: `action` is valid, and its handler has the signature that SA_SIGINFO asks for.
    let result = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    Errno::result(result).map(drop)
}
