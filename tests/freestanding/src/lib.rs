//! What a kernel written in C links: look-ups without std, without an allocator, without a panic.
//!
//! ```sh
//! cargo build -p lineinfo-freestanding --features kernel --profile freestanding
//! ```
//!
//! makes a static library that needs nothing but `memcpy` and its like. A panic would call
//! `lineinfo_panic`, which nobody defines, so it links only if no branch that panics is left.
//! Without the feature it is an ordinary library, so that the workspace builds as a whole.

#![cfg_attr(feature = "kernel", no_std)]

mod device;

use core::ffi::c_char;
use core::slice;

use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::{Address, Offset, Table};

#[cfg(feature = "kernel")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        safe fn lineinfo_panic() -> !;
    }
    lineinfo_panic()
}

/// Bytes that `lineinfo_parse` needs for a table.
const TABLE_BYTES: usize = 256;
const _: () = assert!(size_of::<Table<'_>>() <= TABLE_BYTES && align_of::<Table<'_>>() <= 16);

/// Validates a blob and makes a table of it, for `lineinfo_lookup`.
///
/// Returns 0, or minus an errno.
///
/// # Safety
///
/// `blob` must be valid for reads of `blob_size` bytes as long as the table is used, `table` for
/// writes of 256, aligned to 16.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_parse(
    blob: *const u8,
    blob_size: usize,
    table: *mut Table<'static>,
) -> isize {
    // SAFETY: the caller promises it.
    let blob = unsafe { slice::from_raw_parts(blob, blob_size) };
    match Table::parse(blob) {
        Ok(parsed) => {
            // SAFETY: the caller promises room and alignment, asserted above to be enough.
            unsafe { table.write(parsed) };
            0
        }
        Err(error) => -(error.errno().number() as isize),
    }
}

/// Writes ` (file:line)` of the call that returns to `offset` into `text`, after a line for each function
/// that was inlined there.
///
/// `offset` is in bytes from `_text`. Returns the length of what was written in bytes, 0 for a
/// miss.
///
/// # Safety
///
/// `table` must be one that `lineinfo_parse` made, its blob still there, and `text` valid for
/// writes of `text_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_lookup(
    table: *const Table<'static>,
    offset: u64,
    text: *mut c_char,
    text_size: usize,
) -> usize {
    // SAFETY: the caller promises it.
    let table = unsafe { &*table };
    // SAFETY: the caller promises it.
    let text = unsafe { slice::from_raw_parts_mut(text.cast::<u8>(), text_size) };
    let mut text = StrBuffer::new(text);
    let address = Address::Return(Offset(offset));
    if !push_chain(table, address, &mut text)
        && let Some(location) = table.lookup(address)
    {
        location.push_to(&mut text);
    }
    text.as_str().len()
}

/// Writes all functions at an address; `false` if the table does not know them.
///
/// Not inlined: a look-up of the line alone must not pay for its stack.
#[inline(never)]
fn push_chain(table: &Table<'static>, address: Address, text: &mut StrBuffer<'_>) -> bool {
    let mut chain = table.chain(address);
    let found = chain.is_some();
    for frame in chain.iter_mut().flatten() {
        frame.push_to(text);
        if frame.function.is_some() {
            text.push_str("\n");
        }
    }
    found
}
