//! Who may see where the kernel is: `/proc/sys/kernel/kptr_restrict`, as Linux has it.
//!
//! | value | who sees addresses in `/proc/kallsyms` and `/proc/modules`, and asks by address |
//! |---|---|
//! | 0, 1 | who has `CAP_SYSLOG`: here root and the owner of the kernel |
//! | 2 | nobody |
//!
//! Everybody else sees zeros. This is `kallsyms_show_value` of kernel/ksyms_common.c, which
//! `kallsyms_open` of kernel/kallsyms.c and `modules_open` ask when the file is opened, with
//! `perf_event_paranoid` at its default of 2; with 1 and 2 it is what `restricted_pointer` of
//! lib/vsprintf.c does for `%pK`. The range and who may write are those of the sysctl table in
//! kernel/sysctl.c.

use std::sync::atomic::{AtomicU8, Ordering};

use nix::errno::Errno;

use crate::fs::cred::Credentials;
use crate::fs::proc::open_store;
use crate::fs::{Node, namei};

/// At this value nobody sees addresses.
const NOBODY: u8 = 2;

static KPTR_RESTRICT: AtomicU8 = AtomicU8::new(0);

const FILES: &[Node] = &[Node {
    path: "/proc/sys/kernel/kptr_restrict",
    permissions: 0o644,
    driver_decides: false,
    open: |_, _, _| open_store(Some(kptr_restrict_show), kptr_restrict_store),
}];

/// Registers the file.
pub(crate) fn init() {
    namei::register(FILES);
}

/// Whether somebody may see addresses, as of now.
pub(crate) fn may_see_addresses(credentials: Credentials) -> bool {
    KPTR_RESTRICT.load(Ordering::Relaxed) < NOBODY && credentials.privileged()
}

fn kptr_restrict_show() -> String {
    format!("{}\n", KPTR_RESTRICT.load(Ordering::Relaxed))
}

fn kptr_restrict_store(bytes: &[u8]) -> Result<usize, Errno> {
    let value = match bytes.trim_ascii() {
        b"0" => 0,
        b"1" => 1,
        b"2" => NOBODY,
        _ => return Err(Errno::EINVAL),
    };
    KPTR_RESTRICT.store(value, Ordering::Relaxed);
    Ok(bytes.len())
}
