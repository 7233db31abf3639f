//! What the kernel defines for the device: functions that the library calls, declared in the header.
//!
//! They are symbols and not pointers, for a call through a pointer needs a retpoline. A program that
//! has no device links with `--gc-sections`, and needs none of them.

use core::ffi::{c_char, c_int, c_void};
use core::ptr::{self, NonNull};
use core::slice;

use lineinfo_core::Signed;
use lineinfo_core::device::{
    BuildId, Expected, Level, LoadedTable, Memory, Port, Sealed, TableSlot,
};
use lineinfo_core::slot::Owner;

use crate::device::{
    ExpectedImage, LEVEL_ERROR, LEVEL_INFO, LEVEL_WARNING, MessagePart, PAGE_BYTES, RawSlot,
};
use crate::holder::get;

unsafe extern "C" {
    /// Defined by the kernel: zeroed memory for a blob, that starts at a page, or null. It may sleep.
    ///
    /// `size` is a multiple of `LINEINFO_PAGE_BYTES`.
    fn lineinfo_port_allocate(size: usize) -> *mut c_void;

    /// Defined by the kernel: frees the memory after the first `size` bytes, a multiple of
    /// `LINEINFO_PAGE_BYTES`. Returns where they are now: at `memory`, or elsewhere with the same
    /// contents, and `memory` is free; or null if it cannot, and nothing changed. It may sleep.
    fn lineinfo_port_truncate(memory: *mut c_void, old_size: usize, size: usize) -> *mut c_void;

    /// Defined by the kernel: makes memory read-only. Returns 0, or something else if that failed.
    fn lineinfo_port_seal(memory: *mut c_void, size: usize) -> c_int;

    /// Defined by the kernel: frees memory, sealed or not. It may be called while a table is
    /// replaced or unloaded, never from a look-up.
    fn lineinfo_port_free(memory: *mut c_void, size: usize);

    /// Defined by the kernel: a small object of `size` bytes, at the alignment of a `uint64_t`, or
    /// null. It may sleep.
    fn lineinfo_port_allocate_object(size: usize) -> *mut c_void;

    /// Defined by the kernel: frees a small object.
    fn lineinfo_port_free_object(object: *mut c_void, size: usize);

    /// Defined by the kernel: a clock that never goes back, in milliseconds.
    fn lineinfo_port_now_ms() -> u64;

    /// Defined by the kernel: writes a line of `len` bytes, without a zero at its end, to the log.
    /// `level` is one of `LINEINFO_LEVEL_*`.
    fn lineinfo_port_log(level: u32, line: *const c_char, len: usize);

    /// Defined by the kernel: verifies an Ed25519 signature (RFC 8032) of 64 bytes with a public key
    /// of 32. What was signed is the concatenation of `count` parts. Returns 1 if it is right, else 0,
    /// as a kernel without cryptography does. Asked only with `LINEINFO_TRUST_KEY`.
    fn lineinfo_port_verify(
        key: *const u8,
        signature: *const u8,
        parts: *const MessagePart,
        count: usize,
    ) -> c_int;

    /// Defined by the kernel: sleeps a little while readers of an old table leave. Returns 0 to give
    /// up, after it waited `waited_ms` milliseconds.
    fn lineinfo_port_keep_waiting(waited_ms: u64) -> c_int;

    /// Defined by the kernel: the slot of a module, pinned until `lineinfo_port_slot_put`, or null if
    /// no such module is loaded. An empty name stands for the kernel.
    ///
    /// `name` has `len` bytes, without a zero at its end. What a table must be is written to
    /// `expected`.
    fn lineinfo_port_slot_get(
        name: *const c_char,
        len: usize,
        expected: *mut ExpectedImage,
    ) -> *const RawSlot;

    /// Defined by the kernel: the slot of the module that a run-time address is in, pinned, or that
    /// of the kernel; never null.
    fn lineinfo_port_slot_get_at(address: u64) -> *const RawSlot;

    /// Defined by the kernel: ends the use of a slot.
    fn lineinfo_port_slot_put(slot: *const RawSlot);

    /// Defined by the kernel: reads `size` bytes at an offset of a file, all within it. Returns 0, or
    /// something else if that failed.
    pub(crate) fn lineinfo_port_read(
        file: *mut c_void,
        offset: u64,
        to: *mut c_void,
        size: usize,
    ) -> c_int;
}

/// Reads from a file of the kernel; fills the slice or fails.
pub(crate) fn read(file: *mut c_void, offset: u64, to: &mut [u8]) -> Result<(), ()> {
    // SAFETY: the slice is valid for writes of its length; `file` is what the kernel gave, for this.
    let failed = unsafe { lineinfo_port_read(file, offset, to.as_mut_ptr().cast(), to.len()) };
    if failed == 0 { Ok(()) } else { Err(()) }
}

/// The kernel that links this library.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel;

/// Memory of the kernel for a blob.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the memory belongs to this value alone, and the kernel frees it from any thread.
unsafe impl Send for Pages {}
// SAFETY: a shared reference to it only reads the memory.
unsafe impl Sync for Pages {}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the memory came from `lineinfo_port_allocate` and has this size, and nobody else
        // has it.
        unsafe { lineinfo_port_free(self.start.as_ptr().cast(), self.size) };
    }
}

impl Memory for Pages {
    type Sealed = Self;
    const PAGE_SIZE: usize = PAGE_BYTES;

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes are there, all written (zeroed), and the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.size) }
    }

    fn truncate(&mut self, size: usize) {
        let Some(size) = size.max(1).checked_next_multiple_of(Self::PAGE_SIZE) else {
            return;
        };
        if size < self.size {
            let start = self.start.as_ptr().cast();
            // SAFETY: the memory has `self.size` bytes, and nobody else has it.
            let left = unsafe { lineinfo_port_truncate(start, self.size, size) };
            if let Some(start) = NonNull::new(left.cast()) {
                (self.start, self.size) = (start, size);
            }
        }
    }

    fn seal(self) -> Option<Self> {
        let start = self.start.as_ptr().cast();
        // SAFETY: the memory has this size, and nobody writes to it any more.
        let failed = unsafe { lineinfo_port_seal(start, self.size) };
        if failed == 0 { Some(self) } else { None }
    }
}

impl Sealed for Pages {
    fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes are there, and nobody writes to them while they are shared.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.size) }
    }
}

/// A table in a small object of the kernel.
#[derive(Debug)]
pub(crate) struct Owned(NonNull<LoadedTable<Pages>>);

// SAFETY: the table belongs to this value alone, and can be sent.
unsafe impl Send for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        let table = self.0.as_ptr();
        // SAFETY: `own` put a table there, and nobody reads it any more.
        unsafe { ptr::drop_in_place(table) };
        // SAFETY: `own` allocated it with this size, and it holds nothing any more.
        unsafe { lineinfo_port_free_object(table.cast(), size_of::<LoadedTable<Pages>>()) };
    }
}

// SAFETY: the table stays where it is, unchanged, until the owner is dropped, which `into_raw`
// prevents and `from_raw` makes possible again.
unsafe impl Owner for Owned {
    type Target = LoadedTable<Pages>;

    fn into_raw(self) -> NonNull<LoadedTable<Pages>> {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }

    unsafe fn from_raw(raw: NonNull<LoadedTable<Pages>>) -> Self {
        Self(raw)
    }
}

/// A slot that the kernel has pinned.
struct Pinned(NonNull<RawSlot>);

impl Pinned {
    fn slot(&self) -> &TableSlot<Kernel> {
        // SAFETY: the kernel promises that the slot is there until it is put back.
        get(unsafe { self.0.as_ref() })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: it came from the kernel, and is put back once.
        unsafe { lineinfo_port_slot_put(self.0.as_ptr()) };
    }
}

impl Port for Kernel {
    type Memory = Pages;
    type Owner = Owned;

    fn allocate(&self, size: usize) -> Option<Pages> {
        let size = size.max(1).checked_next_multiple_of(Pages::PAGE_SIZE)?;
        // SAFETY: the kernel can be asked for any multiple of a page.
        let start = NonNull::new(unsafe { lineinfo_port_allocate(size) })?.cast();
        Some(Pages { start, size })
    }

    fn own(&self, table: LoadedTable<Pages>) -> Option<Owned> {
        const { assert!(align_of::<LoadedTable<Pages>>() <= align_of::<u64>()) };
        // SAFETY: the kernel can be asked for any size.
        let object = unsafe { lineinfo_port_allocate_object(size_of::<LoadedTable<Pages>>()) };
        let object = NonNull::new(object)?.cast::<LoadedTable<Pages>>();
        // SAFETY: the object is new, large enough, and aligned like a `u64`.
        unsafe { object.write(table) };
        Some(Owned(object))
    }

    fn now_ms(&self) -> u64 {
        // SAFETY: it takes nothing.
        unsafe { lineinfo_port_now_ms() }
    }

    fn log(&self, level: Level, line: &str) {
        let level = match level {
            Level::Error => LEVEL_ERROR,
            Level::Warning => LEVEL_WARNING,
            Level::Info => LEVEL_INFO,
        };
        // SAFETY: the line is valid for reads of its length during the call.
        unsafe { lineinfo_port_log(level, line.as_ptr().cast(), line.len()) };
    }

    fn verify(&self, signed: &Signed<'_>) -> bool {
        let parts = signed.message.map(|part| MessagePart {
            bytes: part.as_ptr(),
            size: part.len(),
        });
        let (key, signature) = (&signed.signature.key, &signed.signature.signature);
        // SAFETY: all of them are valid for reads of their lengths during the call.
        let right = unsafe {
            lineinfo_port_verify(
                key.as_ptr(),
                signature.as_ptr(),
                parts.as_ptr(),
                parts.len(),
            )
        };
        right == 1
    }

    fn keep_waiting(&self) -> impl FnMut() -> bool {
        let start = self.now_ms();
        move || {
            let waited = Self.now_ms().saturating_sub(start);
            // SAFETY: it takes a number.
            let more = unsafe { lineinfo_port_keep_waiting(waited) };
            more != 0
        }
    }

    fn with_slot<T>(
        &self,
        name: &str,
        act: impl FnOnce(&TableSlot<Self>, &Expected) -> T,
    ) -> Option<T> {
        let mut image = ExpectedImage::default();
        // SAFETY: the name is valid for reads of its length, the image for writes, and any bytes are
        // an image.
        let slot =
            unsafe { lineinfo_port_slot_get(name.as_ptr().cast(), name.len(), &raw mut image) };
        let slot = Pinned(NonNull::new(slot.cast_mut())?);
        let build_id = image.build_id.get(..usize::from(image.build_id_len));
        let expected = Expected {
            build_id: BuildId::new(build_id.unwrap_or(&[])),
            machine: image.machine,
            slide: image.slide,
        };
        Some(act(slot.slot(), &expected))
    }

    fn with_slot_at<T>(&self, address: u64, act: impl FnOnce(&TableSlot<Self>) -> T) -> T {
        // SAFETY: it takes a number, and the slot of the kernel is always there.
        let slot = unsafe { lineinfo_port_slot_get_at(address) };
        // SAFETY: it is not null (above).
        let slot = Pinned(unsafe { NonNull::new_unchecked(slot.cast_mut()) });
        act(slot.slot())
    }
}
