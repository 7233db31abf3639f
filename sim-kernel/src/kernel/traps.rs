//! Oopses: what the kernel says of a trap in its own code, and what becomes of the task.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::errno::Errno;

use super::printk::Level;
use super::{kdb, nmi, panic, pstore, stacktrace, task};
use crate::machine::signal::Registers;
use crate::machine::trap::{self, Fate};
use crate::machine::{self, atomic};
use crate::printk;

/// Numbers of traps (`arch/x86/include/asm/trapnr.h`).
const X86_TRAP_DE: u64 = 0;
pub(super) const X86_TRAP_UD: u64 = 6;
const X86_TRAP_PF: u64 = 14;

/// Bits of the error code of a page fault (`arch/x86/include/asm/trap_pf.h`).
const X86_PF_PROT: u64 = 1;
const X86_PF_WRITE: u64 = 2;

/// An address below this comes from a null pointer.
const PAGE_SIZE: u64 = 4096;

/// How far below its stack a task that overflows it can reach at once, in bytes.
const GUARD_BYTES: u64 = 64 * 1024;

/// An oops ends the machine: `oops=panic`, `panic_on_oops=1`.
static PANIC_ON_OOPS: AtomicBool = AtomicBool::new(false);
/// Oopses so far.
static DIE_COUNTER: AtomicU32 = AtomicU32::new(0);

/// Takes the traps over.
pub(crate) fn init() -> Result<(), Errno> {
    trap::install(die)
}

/// Sets whether an oops ends the machine.
pub(crate) fn set_panic_on_oops(panic: bool) {
    PANIC_ON_OOPS.store(panic, Ordering::Relaxed);
}

/// Whether there was an oops, so that nothing can be relied upon any more.
pub(crate) fn tainted() -> bool {
    DIE_COUNTER.load(Ordering::Relaxed) > 0
}

fn die(registers: &Registers) -> Fate {
    let _atomic = atomic::enter();
    let number = DIE_COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
    let error = registers.error_code();
    let page_fault = registers.trap() == X86_TRAP_PF;
    match registers.trap() {
        X86_TRAP_PF => {
            explain_page_fault(registers);
            printk!(Emerg, "Oops: {error:04x} [#{number}] SMP");
        }
        X86_TRAP_UD => printk!(Emerg, "Oops: invalid opcode: {error:04x} [#{number}] SMP"),
        X86_TRAP_DE => printk!(Emerg, "Oops: divide error: {error:04x} [#{number}] SMP"),
        _ => printk!(
            Emerg,
            "Oops: general protection fault: {error:04x} [#{number}] SMP"
        ),
    }
    stacktrace::show_regs(registers, &mut |line| {
        super::printk::emit(Level::Emerg, line);
    });
    if page_fault {
        printk!(Emerg, "CR2: {:016x}", registers.cr2());
    }
    printk!(Emerg, "---[ end trace {:016x} ]---", 0);
    pstore::kmsg_dump();
    kdb::on_oops(registers);
    let current = task::current();
    if nmi::in_handler() {
        panic::panic_without_trace(format_args!("Fatal exception in interrupt"));
    }
    if PANIC_ON_OOPS.load(Ordering::Relaxed) {
        panic::panic_without_trace(format_args!("Fatal exception"));
    }
    match current.pid {
        0 => panic::panic_without_trace(format_args!("Attempted to kill the idle task!")),
        1 => {
            panic::panic_without_trace(format_args!("Attempted to kill init! exitcode=0x0000000b"))
        }
        // A CPU is a thread, and its thread would be gone with the task.
        _ if machine::nmi::this_thread() == super::cpu::own_thread(current.cpu) => {
            panic::panic_without_trace(format_args!("Fatal exception on a CPU"));
        }
        pid => {
            printk!(Notice, "note: {}[{pid}] exited", current.comm());
            task::set_dead(pid);
        }
    }
    Fate::Dies
}

fn explain_page_fault(registers: &Registers) {
    let (address, error) = (registers.cr2(), registers.error_code());
    let rsp = registers.rsp();
    if (rsp.saturating_sub(GUARD_BYTES)..rsp.saturating_add(PAGE_SIZE)).contains(&address) {
        printk!(
            Emerg,
            "BUG: stack guard page was hit at {address:016x} (stack pointer {rsp:016x})"
        );
    } else if address < PAGE_SIZE {
        printk!(
            Emerg,
            "BUG: kernel NULL pointer dereference, address: {address:016x}"
        );
    } else {
        printk!(
            Emerg,
            "BUG: unable to handle page fault for address: {address:016x}"
        );
    }
    let access = if error & X86_PF_WRITE != 0 {
        "write"
    } else {
        "read"
    };
    let why = if error & X86_PF_PROT != 0 {
        "permissions violation"
    } else {
        "not-present page"
    };
    printk!(Emerg, "#PF: supervisor {access} access in kernel mode");
    printk!(Emerg, "#PF: error_code({error:#06x}) - {why}");
}
