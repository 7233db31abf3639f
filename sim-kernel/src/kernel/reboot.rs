//! The ways in which the machine ends, and the exit status that each gives the process.

use std::ffi::CString;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use crate::machine::syscall;
use crate::printk;

/// Exit status after a poweroff.
pub(crate) const EXIT_POWEROFF: i32 = 0;
/// Exit status after a panic with `panic=0`, the default: the machine halts.
pub(crate) const EXIT_HALTED: i32 = 1;
/// Exit status after a panic with another `panic=`: the machine reboots.
pub(crate) const EXIT_REBOOT: i32 = 3;

/// A file of the host that is removed when the machine ends.
static CLEANUP: OnceLock<CString> = OnceLock::new();
/// Where files are mounted in the host's tree, and what unmounts them if the machine ends in order.
static MOUNT: OnceLock<(CString, fn())> = OnceLock::new();
static MOUNTED: AtomicBool = AtomicBool::new(false);
static POWERING_OFF: AtomicBool = AtomicBool::new(false);

/// Removes this file of the host when the machine ends, however it ends.
pub(crate) fn remove_at_end(path: CString) {
    CLEANUP.get_or_init(|| path);
}

/// Unmounts this directory of the host when the machine ends, however it ends.
///
/// If that is not permitted and the machine ends in order, `in_order` is called instead.
pub(crate) fn unmount_at_end(path: CString, in_order: fn()) {
    MOUNT.get_or_init(|| (path, in_order));
    MOUNTED.store(true, Ordering::Release);
}

/// Notes that it is unmounted already.
pub(crate) fn is_unmounted() {
    MOUNTED.store(false, Ordering::Release);
}

/// Unmounts what is mounted; returns whether nothing is mounted any more.
fn unmount() -> bool {
    let mounted = MOUNT.get().filter(|_| MOUNTED.load(Ordering::Acquire));
    // A process that still has a file open keeps it, and gets errors.
    let detached = |(path, _): &(CString, fn())| umount2(path.as_c_str(), MntFlags::MNT_DETACH);
    let done = mounted.is_none_or(|mounted| detached(mounted).is_ok());
    MOUNTED.fetch_and(!done, Ordering::AcqRel);
    done
}

/// Ends the machine in order; of several callers the first one does it.
pub(crate) fn kernel_power_off() -> ! {
    if POWERING_OFF.swap(true, Ordering::AcqRel) {
        loop {
            syscall::sleep(Duration::MAX);
        }
    }
    printk!(Emerg, "reboot: Power down");
    if !unmount()
        && let Some((_, in_order)) = MOUNT.get()
    {
        in_order();
    }
    end(EXIT_POWEROFF)
}

/// Ends the machine after a panic, for good.
pub(crate) fn machine_halt() -> ! {
    end(EXIT_HALTED)
}

/// Ends the machine after a panic, for a supervisor that starts it again.
pub(crate) fn emergency_restart() -> ! {
    end(EXIT_REBOOT)
}

fn end(status: i32) -> ! {
    if let Some(path) = CLEANUP.get() {
        // There is nowhere to report an error any more.
        let _left_behind = nix::unistd::unlink(path.as_c_str());
    }
    // What only other programs may unmount is left to them.
    let _left_mounted = unmount();
    syscall::exit(status)
}
