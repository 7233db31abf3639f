//! How far a long task is: the library reports it, the caller shows it.

/// Receives the progress of a task, from all of its threads.
pub trait Progress: Sync {
    /// The task begins, and has `total` steps.
    fn begin(&self, total: u64);

    /// `steps` more are done.
    fn advance(&self, steps: u64);
}

/// Shows nothing.
impl Progress for () {
    fn begin(&self, _total: u64) {}

    fn advance(&self, _steps: u64) {}
}
