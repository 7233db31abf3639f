//! Fault injection: makes one memory operation fail, so that a test can try each of them in turn.
//!
//! Linux has this as `fail-nth` (`Documentation/fault-injection/fault-injection.rst`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reports which operation fails.
type Report = fn(&str);

static REPORT: OnceLock<Report> = OnceLock::new();

/// How many operations there are up to the one that fails; 0 if none is to fail.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// Sets what reports a failure; the first call counts.
pub(crate) fn init(report: Report) {
    REPORT.get_or_init(|| report);
}

/// Makes the `nth` memory operation from now on fail, once; 0 for none.
pub(crate) fn set_nth(nth: u64) {
    LEFT.store(nth, Ordering::Relaxed);
}

/// How many operations there are up to the one that fails; 0 if it has failed, or none is to fail.
pub(crate) fn nth() -> u64 {
    LEFT.load(Ordering::Relaxed)
}

/// Whether this memory operation is to fail. Whoever calls it holds no lock that the log needs.
pub(crate) fn should_fail(operation: &str) -> bool {
    let next = |left: u64| left.checked_sub(1);
    let fails = LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) == Ok(1);
    if fails && let Some(report) = REPORT.get() {
        report(operation);
    }
    fails
}
