//! A blob at the end of a boot image.

use core::ffi::{c_char, c_int, c_void};
use core::mem::MaybeUninit;

use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::footer::{Ending, Footer, FooterError};
use lineinfo_core::uapi::Errno;

use crate::text::write_text;
use crate::{bytes, bytes_mut, negative, port};

/// Looks for a blob at the end of a boot image of `file_len` bytes.
///
/// `file` goes to `lineinfo_port_read` as it is, which reads into pieces of `buffer`; a page is a
/// good size. Where there is a footer, it says which `payload_size` bytes of the file, from
/// `image_len` on, are to be read and given to `lineinfo_footer_blob`.
///
/// Returns 1 and writes `footer` if there is one, 0 if there is none, and minus an errno with the
/// reason as text: `LINEINFO_ENOEXEC` for a footer that cannot be true, `LINEINFO_ENODATA` if the
/// file cannot be read.
///
/// # Safety
///
/// `buffer` is valid for writes of `buffer_size` bytes, `reason` for writes of `reason_size` bytes; a
/// pointer may be null if its size is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_footer_find(
    file: *mut c_void,
    file_len: u64,
    buffer: *mut u8,
    buffer_size: usize,
    footer: &mut MaybeUninit<Footer>,
    reason: *mut c_char,
    reason_size: usize,
) -> c_int {
    // SAFETY: the caller promises it.
    let buffer = unsafe { bytes_mut(buffer, buffer_size) };
    let ending = Ending::find(file_len, buffer, |at, to| port::read(file, at, to));
    match ending {
        Ok(Ok(ending)) => ending.footer.map_or(0, |found| {
            footer.write(found);
            1
        }),
        // SAFETY: the caller promises it.
        Ok(Err(error)) => unsafe { refused(error, reason, reason_size) },
        Err(()) => {
            let push = |text: &mut StrBuffer<'_>| text.push_str("the file cannot be read");
            // SAFETY: the caller promises it.
            unsafe { write_text(reason, reason_size, push) };
            negative(Errno::ENODATA)
        }
    }
}

/// Checks the payload of a footer, and finds the blob in it.
///
/// `payload` holds the `payload_size` bytes that the footer names. The blob begins `blob_start`
/// bytes into them, ends with them, and is still to be given to `lineinfo_parse`.
///
/// Returns 0 and writes `blob_start`, or minus an errno with the reason as text: `LINEINFO_EBADMSG`
/// for another checksum, `LINEINFO_ENOEXEC` for bytes that hold no blob.
///
/// # Safety
///
/// `payload` is valid for reads of `payload_size` bytes, `reason` for writes of `reason_size` bytes;
/// a pointer may be null if its size is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_footer_blob(
    footer: &Footer,
    payload: *const u8,
    payload_size: usize,
    blob_start: &mut MaybeUninit<usize>,
    reason: *mut c_char,
    reason_size: usize,
) -> c_int {
    // SAFETY: the caller promises it.
    let payload = unsafe { bytes(payload, payload_size) };
    match footer.blob(payload) {
        Ok(blob) => {
            blob_start.write(payload.len().saturating_sub(blob.len()));
            0
        }
        // SAFETY: the caller promises it.
        Err(error) => unsafe { refused(error, reason, reason_size) },
    }
}

/// # Safety
///
/// As [`write_text`].
unsafe fn refused(error: FooterError, reason: *mut c_char, reason_size: usize) -> c_int {
    let push = |text: &mut StrBuffer<'_>| error.push_to(text);
    // SAFETY: the caller promises it.
    unsafe { write_text(reason, reason_size, push) };
    negative(error.errno())
}
