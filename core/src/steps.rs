//! Counts the steps of loops, for tests of the bounds that the documentation states (feature
//! `steps`, and this crate's own tests). Without either, counting is no code.

#[cfg(any(test, feature = "steps"))]
std::thread_local! {
    static STEPS: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
}

/// What `run` returns, and the steps of this thread that it took.
#[cfg(any(test, feature = "steps"))]
pub fn measure<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let before = STEPS.get();
    let result = run();
    (result, STEPS.get().wrapping_sub(before))
}

/// Counts one step: a turn of a loop whose number of turns depends on a blob.
#[inline(always)]
pub(crate) fn step() {
    #[cfg(any(test, feature = "steps"))]
    STEPS.set(STEPS.get().wrapping_add(1));
}
