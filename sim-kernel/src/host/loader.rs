//! The process that has the device open for writing, and whether the host knows that it has gone.
//!
//! For a process its file is closed when `close` has returned, or when the process has ended. The
//! kernel learns of that a moment later, so the next process, perhaps started by the first, could
//! find the device busy although no process has it open.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait until the file of a loader that has gone is closed.
const GONE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to sleep between two checks of that.
const GONE_PAUSE: Duration = Duration::from_micros(100);

/// Knows whether the process that opened a file has gone.
pub(crate) trait Opener: fmt::Debug + Send + Sync {
    /// Whether the process has closed the file, as it sees that.
    fn has_gone(&self) -> bool;
}

/// The process that has the device open for writing.
static LOADER: Mutex<Option<Arc<dyn Opener>>> = Mutex::new(None);

fn loader() -> MutexGuard<'static, Option<Arc<dyn Opener>>> {
    LOADER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits, for a bounded time, until the file of a loader that has gone is closed.
pub(crate) fn wait_until_closed() {
    let start = Instant::now();
    while loader().as_ref().is_some_and(|loader| loader.has_gone())
        && start.elapsed() < GONE_TIMEOUT
    {
        thread::sleep(GONE_PAUSE);
    }
}

/// Notes that this process has the device open for writing.
pub(crate) fn opened(opener: Arc<dyn Opener>) {
    *loader() = Some(opener);
}

/// Notes that this process does not have it open any more, if it had.
pub(crate) fn closed(opener: &Arc<dyn Opener>) {
    loader().take_if(|loader| Arc::ptr_eq(loader, opener));
}
