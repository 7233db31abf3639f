//! The last lines of the log: a ring of bytes that is written without a lock, and what saves it
//! when the kernel dies.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::registry::Registry;

/// Size of the ring, in bytes.
pub(crate) const SIZE_BYTES: usize = 64 * 1024;

static RING: [AtomicU8; SIZE_BYTES] = [const { AtomicU8::new(0) }; SIZE_BYTES];
/// How many bytes were ever written.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Saves the log: it must not allocate, and must not take a lock.
pub(crate) type Dumper = fn();

static DUMPERS: Registry<Dumper, 2> = Registry::new();

/// Adds a function that saves the log in each panic and oops.
pub(crate) fn register_dumper(dumper: Dumper) {
    DUMPERS.register(dumper);
}

/// Saves the log; for any context.
pub(crate) fn dump() {
    DUMPERS.iter().for_each(|dump| dump());
}

/// Appends a line, from any context.
///
/// The range is reserved before it is filled: a reader in between may see old bytes there.
pub(crate) fn push(line: &[u8]) {
    let start = WRITTEN.fetch_add(line.len(), Ordering::Relaxed);
    for (at, byte) in (start..).zip(line) {
        RING[at % SIZE_BYTES].store(*byte, Ordering::Relaxed);
    }
}

/// The range of the whole lines that are still in the ring, counted from the first byte ever
/// written; for any context.
pub(crate) fn extent() -> Range<usize> {
    let end = WRITTEN.load(Ordering::Relaxed);
    let start = end.saturating_sub(SIZE_BYTES);
    let cut = if start == 0 {
        0
    } else {
        let line = bytes(start..end).take_while(|byte| *byte != b'\n');
        line.count() + 1
    };
    (start + cut).min(end)..end
}

/// The bytes of a range; for any context.
pub(crate) fn bytes(extent: Range<usize>) -> impl Iterator<Item = u8> {
    extent.map(|at| RING[at % SIZE_BYTES].load(Ordering::Relaxed))
}

/// All whole lines that are still in the ring.
pub(crate) fn lines() -> Vec<u8> {
    bytes(extent()).collect()
}
