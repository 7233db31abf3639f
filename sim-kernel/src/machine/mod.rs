//! The machine that the kernel runs on: all that a compiler cannot prove, and what its proofs need.
//!
//! This is the only module of the package with `unsafe` code. Its interface is safe to use: frames
//! that are checked against the stack before they are read, pages that belong to one owner, signals
//! that play the NMI, the timer and the traps, and system calls of the host. It knows nothing of the
//! kernel, which installs its handlers here.

pub(crate) mod atomic;
pub(crate) mod fault;
pub(crate) mod frames;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod nmi;
pub(crate) mod page_alloc;
pub(crate) mod signal;
pub(crate) mod syscall;
pub(crate) mod tick;
pub(crate) mod trap;

/// The run-time address of the first byte of the loaded image.
pub(crate) fn image_start() -> u64 {
    // SAFETY: the linker defines this symbol at the ELF header of the executable, and only its
    // address is taken.
    unsafe extern "C" {
        safe static __ehdr_start: u8;
    }
    (&raw const __ehdr_start).addr() as u64
}

/// Puts a function into `.init.text`: it runs while the kernel boots, and never again.
macro_rules! init_text {
    ($(#[$attribute:meta])* $visibility:vis fn $($rest:tt)*) => {
        $(#[$attribute])*
        #[expect(unsafe_code, reason = "a section of text like any other, which nothing else names")]
        #[unsafe(link_section = ".init.text")]
        #[inline(never)]
        $visibility fn $($rest)*
    };
}
pub(crate) use init_text;
