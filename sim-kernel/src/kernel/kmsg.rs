//! The last lines of the log, for `/dev/kmsg`: a ring of bytes that is written without a lock.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const SIZE_BYTES: usize = 64 * 1024;

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

/// The lines that are still there, whole ones only.
pub(crate) fn text() -> Vec<u8> {
    let end = WRITTEN.load(Ordering::Relaxed);
    let start = end.saturating_sub(SIZE_BYTES);
    let bytes = (start..end).map(|at| RING[at % SIZE_BYTES].load(Ordering::Relaxed));
    let cut = start > 0;
    bytes
        .skip_while(|byte| cut && *byte != b'\n')
        .skip(usize::from(cut))
        .collect()
}
