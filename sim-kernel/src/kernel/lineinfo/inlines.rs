//! Whether traces have lines for inlined functions: `lineinfo.inlines=` and
//! `/sys/kernel/lineinfo/inlines`.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use crate::fs::Node;
use crate::fs::proc::open_store;

static SHOWN: AtomicBool = AtomicBool::new(true);

/// The file: `on` or `off`.
pub(crate) const NODE: Node = Node {
    path: "/sys/kernel/lineinfo/inlines",
    permissions: 0o644,
    driver_decides: false,
    open: |_, _, _| open_store(Some(show), store),
};

/// Whether they have; for any context.
pub(crate) fn are_shown() -> bool {
    SHOWN.load(Ordering::Relaxed)
}

/// Sets it.
pub(crate) fn set(shown: bool) {
    SHOWN.store(shown, Ordering::Relaxed);
}

fn show() -> String {
    if are_shown() { "on\n" } else { "off\n" }.to_owned()
}

fn store(bytes: &[u8]) -> Result<usize, Errno> {
    match bytes.trim_ascii_end() {
        b"on" => set(true),
        b"off" => set(false),
        _ => return Err(Errno::EINVAL),
    }
    Ok(bytes.len())
}
