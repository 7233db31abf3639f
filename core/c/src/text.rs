use core::ffi::c_char;

use lineinfo_core::buffer::StrBuffer;

use crate::bytes_mut;

/// Lets `push` write a text into a buffer of the caller, and ends it with a zero.
///
/// Returns the length of what was written in bytes, without the zero.
///
/// # Safety
///
/// `text` is valid for writes of `text_size` bytes, and nobody else uses them meanwhile; or
/// `text_size` is 0.
pub(crate) unsafe fn write_text(
    text: *mut c_char,
    text_size: usize,
    push: impl FnOnce(&mut StrBuffer<'_>),
) -> usize {
    // SAFETY: the caller promises it.
    let buffer = unsafe { bytes_mut(text.cast(), text_size) };
    let Some((_zero, room)) = buffer.split_last_mut() else {
        return 0;
    };
    let mut text = StrBuffer::new(room);
    push(&mut text);
    let len = text.as_str().len();
    if let Some(zero) = buffer.get_mut(len) {
        *zero = 0;
    }
    len
}
