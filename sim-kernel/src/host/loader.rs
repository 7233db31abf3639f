//! Who has the device open for writing, as far as the host knows: whether it has gone.
//!
//! For a process its file is closed when `close` has returned, or when it has ended. The kernel
//! learns of it a moment later, so whoever comes next, perhaps started by the first, could find
//! the device in use by nobody.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a loader that has gone is waited for until its file is closed.
const GONE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to sleep between two looks at it.
const GONE_PAUSE: Duration = Duration::from_micros(100);

/// What can tell whether whoever opened a file is still there.
pub(crate) trait Opener: fmt::Debug + Send + Sync {
    /// It has closed the file, as far as it knows.
    fn has_gone(&self) -> bool;
}

/// The one that has the device open for writing.
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

/// This one has the device open for writing.
pub(crate) fn opened(opener: Arc<dyn Opener>) {
    *loader() = Some(opener);
}

/// This one has it open no more, if it had.
pub(crate) fn closed(opener: &Arc<dyn Opener>) {
    loader().take_if(|loader| Arc::ptr_eq(loader, opener));
}
