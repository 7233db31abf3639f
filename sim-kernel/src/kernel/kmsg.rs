//! The last lines of the log, for `/dev/kmsg`: a ring of bytes that is written without a lock.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// How much of the log is kept, in bytes.
pub(crate) const SIZE_BYTES: usize = 64 * 1024;

static RING: [AtomicU8; SIZE_BYTES] = [const { AtomicU8::new(0) }; SIZE_BYTES];
/// How many bytes were ever written.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Appends a line, from any context.
///
/// The place is taken first and filled then: who reads at that moment may see an old byte there.
pub(crate) fn push(line: &[u8]) {
    let start = WRITTEN.fetch_add(line.len(), Ordering::Relaxed);
    for (at, byte) in (start..).zip(line) {
        RING[at % SIZE_BYTES].store(*byte, Ordering::Relaxed);
    }
}

/// Where the whole lines stand that are still there, counted from the first byte ever written; for
/// any context.
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

/// The bytes there; for any context.
pub(crate) fn bytes(extent: Range<usize>) -> impl Iterator<Item = u8> {
    extent.map(|at| RING[at % SIZE_BYTES].load(Ordering::Relaxed))
}

/// The lines that are still there, whole ones only.
pub(crate) fn text() -> Vec<u8> {
    bytes(extent()).collect()
}
