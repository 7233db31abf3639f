//! Atomic context, in which nothing may be allocated. The allocator of the kernel counts the calls
//! that do.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// How many [`Atomic`] this thread has.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Calls of the allocator in atomic context, since boot.
static VIOLATIONS: AtomicU64 = AtomicU64::new(0);

/// This thread is in atomic context while it has one.
#[derive(Debug)]
pub(crate) struct Atomic {
    of_this_thread: PhantomData<*const ()>,
}

/// Enters atomic context; for any context.
pub(crate) fn enter() -> Atomic {
    DEPTH.set(DEPTH.get().wrapping_add(1));
    Atomic {
        of_this_thread: PhantomData,
    }
}

impl Drop for Atomic {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().wrapping_sub(1));
    }
}

/// How often the allocator was called in atomic context: 0, if the kernel is right.
pub(crate) fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}

/// The allocator of the standard library, with [`violations`] counted.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    if DEPTH.get() > 0 {
        VIOLATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to `System`, which keeps the promises of an allocator; counting allocates
// nothing and cannot unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise for this call is what `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise for this call is what `System` asks for, and `address`
        // came from it.
        unsafe { System.dealloc(address, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise for this call is what `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise for this call is what `System` asks for, and `address`
        // came from it.
        unsafe { System.realloc(address, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn an_allocation_in_atomic_context_is_counted_and_no_other() {
        let before = violations();
        drop(black_box(Box::new(1)));
        assert_eq!(violations(), before);
        let atomic = enter();
        drop(black_box(Box::new(1)));
        drop(atomic);
        assert_eq!(violations(), before + 2, "one to allocate, one to free");
        drop(black_box(Box::new(1)));
        assert_eq!(violations(), before + 2);
    }
}
