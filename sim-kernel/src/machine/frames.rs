//! Frame pointers of the running thread.
//!
//! ```text
//!   higher addresses        top: where the thread's kernel stack starts
//!   | return address |
//!   | caller's rbp   | <- rbp of a function
//!   | its locals     |
//!   | ...            | <- rsp
//! ```

use std::arch::asm;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;

use super::nmi::Registers;

thread_local! {
    /// Frames lie below this address, on this thread's stack; 0 where nobody has set it.
    static TOP: Cell<usize> = const { Cell::new(0) };
}

/// Traces of this thread end in the function that calls this.
#[inline(always)]
pub(crate) fn stack_starts_here() {
    TOP.set(stack_pointer());
}

/// Keeps the frame of the function that calls this, after the call that made `value`.
///
/// A call in tail position may become a jump, and the caller is missing from traces. Behind an
/// instruction that the compiler must not remove no call is in tail position.
#[inline(always)]
pub(crate) fn keep_frame<T>(value: T) -> T {
    // SAFETY: no instruction; memory, stack and flags are as they were.
    unsafe { asm!("", options(nomem, nostack, preserves_flags)) };
    value
}

/// The return addresses on a stack, from the innermost call outwards.
///
/// Not `Send`: the frames are those of the thread that made it.
#[derive(Debug)]
pub(crate) struct Frames {
    frame: usize,
    lowest: usize,
    top: usize,
    of_this_thread: PhantomData<*const ()>,
}

impl Frames {
    /// Of the calling function: the first return address lies in its caller.
    #[inline(always)]
    pub(crate) fn here() -> Self {
        let (frame, lowest) = (frame_pointer(), stack_pointer());
        Self::new(frame, lowest)
    }

    /// Of what was interrupted with these registers, on this thread.
    pub(crate) fn interrupted(registers: &Registers) -> Self {
        Self::new(registers.rbp(), registers.rsp())
    }

    fn new(frame: usize, lowest: usize) -> Self {
        Self {
            frame,
            lowest,
            top: TOP.get(),
            of_this_thread: PhantomData,
        }
    }
}

impl Iterator for Frames {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        const SIZE: usize = size_of::<[usize; 2]>();

        let end = self.frame.checked_add(SIZE)?;
        let inside = self.lowest <= self.frame && end <= self.top;
        if !inside || !self.frame.is_multiple_of(align_of::<usize>()) {
            return None;
        }
        // SAFETY: `lowest` is at least the stack pointer of this thread (`new` is given it, and it
        // only grows) and `top` was its stack pointer in an outer function, so all between them is
        // stack of this thread, mapped and initialized as far as bytes go; `frame` is aligned
        // (checked above). Volatile, because the compiler knows nothing of these objects.
        let [caller, return_address] =
            unsafe { ptr::with_exposed_provenance::<[usize; 2]>(self.frame).read_volatile() };
        // Frames lie higher and higher; anything else would be a loop.
        self.lowest = end;
        self.frame = caller;
        Some(return_address as u64)
    }
}

#[inline(always)]
fn frame_pointer() -> usize {
    let rbp;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    rbp
}

#[inline(always)]
fn stack_pointer() -> usize {
    let rsp;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    rsp
}
