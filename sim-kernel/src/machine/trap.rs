//! Traps: what a CPU does when an instruction cannot be executed. They are signals of the host,
//! taken on a stack of their own, for the stack of the thread may have overflowed.

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

/// Numbers of traps (`arch/x86/include/asm/trapnr.h`).
pub(crate) const X86_TRAP_DE: u64 = 0;
pub(crate) const X86_TRAP_UD: u64 = 6;
pub(crate) const X86_TRAP_PF: u64 = 14;

/// The handler of traps, and that of a trap in it.
type Handlers = (fn(&Registers), fn() -> !);

static HANDLERS: OnceLock<Handlers> = OnceLock::new();

thread_local! {
    /// This thread is in a trap.
    static TRAPPED: Cell<bool> = const { Cell::new(false) };
}

/// Makes `die` the handler of all traps, and `double_fault` that of a trap in it; the first call
/// counts. A thread whose trap was handled ends, with all that it holds.
///
/// They must not allocate, and must not take a lock: the thread may hold any.
pub(crate) fn install(die: fn(&Registers), double_fault: fn() -> !) -> Result<(), Errno> {
    HANDLERS.get_or_init(|| (die, double_fault));
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE]
        .into_iter()
        // A trap in the handler is delivered, too.
        .try_for_each(|trap| signal::install(trap, entry, libc::SA_ONSTACK | libc::SA_NODEFER))
}

extern "C" fn entry(_signal: i32, _info: *const libc::siginfo_t, context: *const c_void) {
    // SAFETY: `context` is what the host passed, and this has not returned.
    let registers = unsafe { Registers::of(context) };
    if let Some((die, double_fault)) = HANDLERS.get() {
        if TRAPPED.replace(true) {
            double_fault();
        }
        die(&registers);
    }
    syscall::exit_thread();
}

/// A stack on which traps of this thread are taken; dropping it frees it.
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
        // SAFETY: the memory is mapped and has no other owner, until `drop` has taken it from the host.
        let result = unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
        Errno::result(result).map(drop)
    }
}

impl Drop for TrapStack {
    fn drop(&mut self) {
        // If the host keeps using it, it stays mapped.
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
