//! Oopses: what the kernel logs about a trap in its own code, and what happens to the task.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::errno::Errno;

use super::panic::{Death, notify_die, panic_without_trace};
use super::printk::{self, Level};
use super::{cpu, kmsg, nmi, reboot, stacktrace, taint, task};
use crate::machine::signal::Registers;
use crate::machine::trap::{self, X86_TRAP_DE, X86_TRAP_PF, X86_TRAP_UD};
use crate::machine::{self, atomic, syscall};
use crate::printk;

/// Bits of the error code of a page fault (`arch/x86/include/asm/trap_pf.h`).
const X86_PF_PROT: u64 = 1;
const X86_PF_WRITE: u64 = 2;

/// A smaller address is that of a null pointer.
const PAGE_SIZE: u64 = 4096;

/// How far below its stack a task that overflows it can reach at once, in bytes.
const GUARD_BYTES: u64 = 64 * 1024;

/// An oops ends the machine: `oops=panic`, `panic_on_oops=1`.
static PANIC_ON_OOPS: AtomicBool = AtomicBool::new(false);
/// Oopses so far.
static DIE_COUNTER: AtomicU32 = AtomicU32::new(0);

/// Installs the handler of the traps; an oops is a panic if `panic_on_oops`.
pub(crate) fn init(panic_on_oops: bool) -> Result<(), Errno> {
    PANIC_ON_OOPS.store(panic_on_oops, Ordering::Relaxed);
    trap::install(die, double_fault)
}

/// A trap in the handler of a trap: nothing can be relied upon any more, a message included.
fn double_fault() -> ! {
    syscall::exit(reboot::EXIT_HALTED)
}

fn die(registers: &Registers) {
    let _atomic = atomic::enter();
    let number = DIE_COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
    taint::set_died();
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
        printk::emit(Level::Emerg, line);
    });
    if page_fault {
        printk!(Emerg, "CR2: {:016x}", registers.cr2());
    }
    printk!(Emerg, "---[ end trace {:016x} ]---", 0);
    kmsg::dump();
    notify_die(&Death::Oops(registers));
    let current = task::current();
    if nmi::in_handler() {
        panic_without_trace(format_args!("Fatal exception in interrupt"));
    }
    if PANIC_ON_OOPS.load(Ordering::Relaxed) {
        panic_without_trace(format_args!("Fatal exception"));
    }
    match current.pid {
        0 => panic_without_trace(format_args!("Attempted to kill the idle task!")),
        1 => panic_without_trace(format_args!("Attempted to kill init! exitcode=0x0000000b")),
        // A CPU is a thread, which would end with the task.
        _ if machine::nmi::this_thread() == cpu::own_thread(current.cpu) => {
            panic_without_trace(format_args!("Fatal exception on a CPU"));
        }
        pid => {
            printk!(Notice, "note: {}[{pid}] exited", current.comm());
            task::set_dead(pid);
        }
    }
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
