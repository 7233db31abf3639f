//! Whether something went wrong since boot after which the kernel cannot be relied upon.

use std::sync::atomic::{AtomicBool, Ordering};

static DIED: AtomicBool = AtomicBool::new(false);

/// Taints the kernel after an oops, for good (`TAINT_DIE`).
pub(crate) fn set_died() {
    DIED.store(true, Ordering::Relaxed);
}

/// The taint as the first line of a trace shows it (`print_tainted`); for any context.
pub(crate) fn text() -> &'static str {
    if DIED.load(Ordering::Relaxed) {
        "Tainted: G      D"
    } else {
        "Not tainted"
    }
}
