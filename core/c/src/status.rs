//! The status of a device as text.

use core::ffi::c_char;

use lineinfo_core::uapi::Status;

use crate::text::write_text;

/// Writes a status as text, one `name: value` a line: what reading the device gives.
///
/// Returns the length of what was written in bytes, without the zero that ends it: at most
/// `LINEINFO_STATUS_TEXT_MAX`.
///
/// # Safety
///
/// `text` is valid for writes of `text_size` bytes, or `text_size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_status_text(
    status: &Status,
    text: *mut c_char,
    text_size: usize,
) -> usize {
    // SAFETY: the caller promises it.
    unsafe { write_text(text, text_size, |text| status.push_to(text)) }
}
