//! The C face of `lineinfo-core`: what a kernel written in C links and calls.
//!
//! ```text
//!  core ──(this crate, feature `kernel`)──> liblineinfo_c.a ──┐
//!   │                                                         ├─> a kernel in C
//!   └─ uapi ──(cbindgen)──> include/lineinfo.h ───────────────┘
//! ```
//!
//! ```sh
//! cargo rustc -p lineinfo-c --crate-type staticlib --features kernel --profile freestanding \
//!     --config core/c/linux-x86_64.toml --target x86_64-unknown-linux-gnu
//! ```
//!
//! makes the library with the instructions that Linux allows itself; the flags are in that one
//! file. The header is checked in. It says what each function takes, in which unit, and with which
//! errors; a test makes it again and compares every size, offset and number in it.
//!
//! # Principles
//!
//! - The library calls `memcpy`, `memmove`, `memset`, `memcmp` and `bcmp`, and for the device the
//!   functions `lineinfo_port_*` of the header, which the kernel defines (`port.rs`). It has no
//!   allocator, no `core::fmt`, no indirect call or jump, no vector or floating-point register, and
//!   no data that can be written to.
//! - Nothing panics. A panic would call `lineinfo_panic`, which nobody defines, so the library links
//!   only if no branch that panics is left.
//! - A string goes into a buffer of the caller and ends with a zero. Its length is returned: what was
//!   written, as with Linux's `scnprintf`, not what would have been, as with `snprintf`.
//! - A function that can fail returns 0 or minus an [`Errno`], and says why as text: in a buffer of
//!   the caller, or, from the device, in the log and in the status of the slot.
//! - A reference in a signature is a pointer that the caller promises to be aligned, not null, and
//!   valid for the call. A structure whose contents are not for C has a size in the header, which
//!   does not compile if it is wrong (`holder.rs`). So `unsafe` is left where bytes come as pointer
//!   and length, where such a structure is opened, and where the kernel is called.
//!
//! # The life of one look-up
//!
//! A kernel makes a device and a slot at boot ([`device::lineinfo_device_init`],
//! [`device::lineinfo_slot_init`]) and passes the operations of its `/dev/lineinfo` on, under a lock
//! that may sleep. A table that is published stays in its slot. From then on any context, an NMI
//! handler as well, calls [`device::lineinfo_slot_text`] with a run-time address and a buffer of its
//! stack: at most 1 KiB of stack, no lock, no loop without a bound.
//!
//! Without a device, a kernel calls [`table::lineinfo_parse`] once for a blob and
//! [`table::lineinfo_text`] for an address; table and blob stay where they are, unchanged, until
//! nobody looks any more. Such a program links with `--gc-sections` and needs no `lineinfo_port_*`,
//! as `examples/locate.c` does.
//!
//! The feature `kernel` brings the panic handler. Without it this is an ordinary library, for the tests
//! of the header.

#![no_std]

pub mod device;
pub mod footer;
mod holder;
mod port;
pub mod status;
pub mod table;
mod text;

use core::ffi::c_int;
use core::slice;

use lineinfo_core::uapi::Errno;

#[cfg(feature = "kernel")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        safe fn lineinfo_panic() -> !;
    }
    lineinfo_panic()
}

/// Minus the number of an error, as kernels return it.
const fn negative(errno: Errno) -> c_int {
    errno.number().cast_signed().wrapping_neg()
}

/// Bytes that the caller lends for reading.
///
/// # Safety
///
/// `start` is valid for reads of `size` bytes, which nobody changes, for as long as the result is
/// used; or `size` is 0.
const unsafe fn bytes<'a>(start: *const u8, size: usize) -> &'a [u8] {
    if size == 0 {
        return &[];
    }
    // SAFETY: the caller promises it, and no object is larger than `isize::MAX`.
    unsafe { slice::from_raw_parts(start, size) }
}

/// Bytes that the caller lends for writing.
///
/// # Safety
///
/// `start` is valid for writes of `size` bytes, through this slice alone, for as long as the result
/// is used; or `size` is 0.
const unsafe fn bytes_mut<'a>(start: *mut u8, size: usize) -> &'a mut [u8] {
    if size == 0 {
        return &mut [];
    }
    // SAFETY: the caller promises it, and no object is larger than `isize::MAX`. It is memory of C,
    // so it holds some bytes.
    unsafe { slice::from_raw_parts_mut(start, size) }
}
