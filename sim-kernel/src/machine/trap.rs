//! Traps: what a CPU does when an instruction cannot be executed. They are signals of the host,
//! taken on a stack of their own, for the stack itself may be what is wrong.

use std::arch::asm;
use std::cell::Cell;
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::signal::{self, Registers};
use super::syscall;

/// Room for a handler that formats lines, and for an NMI on top of it, in bytes.
const STACK_BYTES: usize = 256 * 1024;

static HANDLER: OnceLock<fn(&Registers) -> Fate> = OnceLock::new();

thread_local! {
    /// This thread is in a trap.
    static TRAPPED: Cell<bool> = const { Cell::new(false) };
}

/// What becomes of a thread that trapped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It ends here, with all that it holds.
    Dies,
}

/// Makes `handler` the handler of all traps; the first one stays.
///
/// It must not allocate, and must not take a lock: the thread may hold any.
pub(crate) fn install(handler: fn(&Registers) -> Fate) -> Result<(), Errno> {
    HANDLER.get_or_init(|| handler);
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE]
        .into_iter()
        // A trap in the handler comes in, too: it ends the process.
        .try_for_each(|trap| signal::install(trap, entry, libc::SA_ONSTACK | libc::SA_NODEFER))
}

extern "C" fn entry(_signal: i32, _info: *const libc::siginfo_t, context: *const c_void) {
    if TRAPPED.replace(true) {
        // There is nothing left to be trusted, a message included.
        syscall::exit(crate::kernel::reboot::EXIT_HALTED);
    }
    // SAFETY: `context` is what the host passed, and this has not returned.
    let registers = unsafe { Registers::of(context) };
    if let Some(handler) = HANDLER.get() {
        let Fate::Dies = handler(&registers);
    }
    syscall::exit_thread();
}

/// A stack on which traps of this thread are taken; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct TrapStack {
    start: NonNull<c_void>,
}

impl TrapStack {
    /// One for this thread, which must drop it before it ends.
    pub(crate) fn install() -> Result<Self, Errno> {
        let size = const { NonZeroUsize::new(STACK_BYTES).unwrap() };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping, where the host has room for it.
        let start = unsafe { mmap_anonymous(None, size, protection, flags) }?;
        let stack = Self { start };
        stack.set(0)?;
        Ok(stack)
    }

    fn set(&self, flags: i32) -> Result<(), Errno> {
        let stack = libc::stack_t {
            ss_sp: self.start.as_ptr(),
            ss_flags: flags,
            ss_size: STACK_BYTES,
        };
        // SAFETY: the memory is mapped and nobody else's, until `drop` has taken it from the host.
        let result = unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
        Errno::result(result).map(drop)
    }
}

impl Drop for TrapStack {
    fn drop(&mut self) {
        // Where the host keeps it, it stays mapped.
        if self.set(libc::SS_DISABLE).is_ok() {
            // SAFETY: the mapping of `install`, which the host uses no more.
            let _still_there = unsafe { munmap(self.start, STACK_BYTES) };
        }
    }
}

/// Reads the byte at address 0.
#[inline(never)]
pub(crate) fn dereference_null() {
    // SAFETY: nothing is mapped at address 0, so this never goes on: the trap ends the thread.
    unsafe { asm!("mov {0:e}, dword ptr [{0}]", inout(reg) 0_u64 => _, options(nostack)) };
}

/// Executes an instruction that is none.
#[inline(never)]
pub(crate) fn bug() {
    // SAFETY: this never goes on: the trap ends the thread.
    unsafe { asm!("ud2", options(nostack)) };
}
