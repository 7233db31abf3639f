//! The ways in which the machine ends, and the exit status that each gives the process.

use std::ffi::CString;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::machine::syscall;
use crate::printk;

/// Exit status after a poweroff.
pub(crate) const EXIT_POWEROFF: i32 = 0;
/// Exit status after a panic with `panic=0`, the default: the machine halts.
pub(crate) const EXIT_HALTED: i32 = 1;
/// Exit status after a panic with another `panic=`: the machine reboots.
pub(crate) const EXIT_REBOOT: i32 = 3;

/// A file of the host that must not be left behind.
static CLEANUP: OnceLock<CString> = OnceLock::new();
static POWERING_OFF: AtomicBool = AtomicBool::new(false);

/// Removes this file of the host when the machine ends, however it ends.
pub(crate) fn remove_at_end(path: CString) {
    CLEANUP.get_or_init(|| path);
}

/// Ends the machine in order; of several callers the first one does it.
pub(crate) fn kernel_power_off() -> ! {
    if POWERING_OFF.swap(true, Ordering::AcqRel) {
        loop {
            syscall::sleep(Duration::MAX);
        }
    }
    printk!(Emerg, "reboot: Power down");
    end(EXIT_POWEROFF)
}

/// Ends the machine after a panic that nobody waits behind.
pub(crate) fn machine_halt() -> ! {
    end(EXIT_HALTED)
}

/// Ends the machine after a panic, for a supervisor that starts it again.
pub(crate) fn emergency_restart() -> ! {
    end(EXIT_REBOOT)
}

fn end(status: i32) -> ! {
    if let Some(path) = CLEANUP.get() {
        // What cannot be removed any more is of no use to anybody now.
        let _left_behind = nix::unistd::unlink(path.as_c_str());
    }
    syscall::exit(status)
}
