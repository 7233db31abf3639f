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

use nix::libc;

use super::signal::Registers;

thread_local! {
    /// Frames lie below this address, on this thread's stack; 0 until it is set.
    static TOP: Cell<usize> = const { Cell::new(0) };
    /// The lowest address of the stack that this thread was started with.
    static BOTTOM: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Traces of this thread end in the function that calls this.
#[inline(always)]
pub(crate) fn stack_starts_here() {
    BOTTOM.set(stack_bottom());
    TOP.set(stack_pointer());
}

/// The lowest address of this thread's stack, or the highest address there is if the host does not know it.
fn stack_bottom() -> usize {
    // SAFETY: zeros are a `pthread_attr_t` for the call that fills it.
    let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    // SAFETY: always the running thread.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: `this` is a thread that runs, and `attributes` is writable.
    if unsafe { libc::pthread_getattr_np(this, &mut attributes) } != 0 {
        return usize::MAX;
    }
    let (mut address, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the attributes were filled above, and both variables are writable.
    let got = unsafe { libc::pthread_attr_getstack(&attributes, &mut address, &mut size) };
    // SAFETY: the attributes were filled above, and are not used any more.
    let _freed = unsafe { libc::pthread_attr_destroy(&mut attributes) };
    if got == 0 { address.addr() } else { usize::MAX }
}

/// Keeps the frame of the function that calls this, after the call that made `value`.
///
/// A call in tail position may become a jump, and then the caller is missing from traces. No call is
/// in tail position before an instruction that the compiler must not remove.
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
        Self::new(registers.rbp() as usize, registers.rsp() as usize)
    }

    /// None at all where `frame` is on another stack, that of a trap; a stack pointer may be below
    /// its stack, which is then full.
    fn new(frame: usize, lowest: usize) -> Self {
        Self {
            frame,
            lowest: lowest.max(BOTTOM.get()),
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
        // SAFETY: `lowest` is at least the lowest address of this thread's stack (`new` sees to it,
        // and it only grows), and `top` was its stack pointer in an outer function, so all between
        // them is stack of this thread: mapped, or mapped by the host when it is touched, and
        // initialized as far as bytes go; `frame` is aligned (checked above). Volatile, because the compiler knows nothing of these objects.
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
    // A function may make its frame as late as on the path that first needs one, and before that the
    // register is its caller's. It needs one for a register that it must save, such as r12.
    // SAFETY: copies a register.
    unsafe { asm!("mov r12, rbp", out("r12") rbp, options(nomem, nostack, preserves_flags)) };
    rbp
}

#[inline(always)]
fn stack_pointer() -> usize {
    let rsp;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    rsp
}
