//! A string in a buffer of fixed size. What does not fit is left out.

use core::fmt;

/// A string that grows in a borrowed buffer up to the buffer's end.
///
/// `snprintf` returns the length that would have been written, and callers continue from there.
/// Here the length is what was written. Nothing here needs `core::fmt` or has a branch that panics.
///
/// ```
/// use lineinfo_core::buffer::StrBuffer;
///
/// let mut buffer = [0; 8];
/// let mut text = StrBuffer::new(&mut buffer);
/// text.push_str("line ");
/// text.push_u32(1234);
/// assert_eq!(text.into_str(), "line 123");
/// ```
#[derive(Debug)]
pub struct StrBuffer<'a> {
    buffer: &'a mut [u8],
    len: usize,
    truncated: bool,
}

impl<'a> StrBuffer<'a> {
    /// An empty string in `buffer`.
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self {
            buffer,
            len: 0,
            truncated: false,
        }
    }

    /// Appends as many whole characters as fit. After something was left out, appends nothing.
    #[inline(never)] // It is called for every piece of every message: a fifth of a kernel's library.
    pub fn push_str(&mut self, text: &str) {
        if self.truncated {
            return;
        }
        let room = self.buffer.len().saturating_sub(self.len);
        let fits = text.get(..text.floor_char_boundary(room)).unwrap_or("");
        let free = self.buffer.iter_mut().skip(self.len);
        // `copy_from_slice` would leave a branch that panics.
        for (to, from) in free.zip(fits.bytes()) {
            *to = from;
        }
        self.len = self.len.saturating_add(fits.len());
        self.truncated = fits.len() < text.len();
    }

    /// Appends a number in decimal.
    pub fn push_u32(&mut self, value: u32) {
        self.push_u64(value.into());
    }

    /// Appends a number in decimal.
    #[inline(never)] // As above.
    pub fn push_u64(&mut self, mut value: u64) {
        let mut digits = [0; 20];
        let mut used = 0_usize;
        for digit in digits.iter_mut().rev() {
            *digit = b'0'.saturating_add(u8::try_from(value % 10).unwrap_or(0));
            used = used.saturating_add(1);
            value /= 10;
            if value == 0 {
                break;
            }
        }
        let start = digits.len().saturating_sub(used);
        let number = digits.get(start..).unwrap_or(&[]);
        self.push_str(core::str::from_utf8(number).unwrap_or(""));
    }

    /// Appends bytes in hexadecimal, two digits each.
    #[inline(never)] // As above.
    pub fn push_hex(&mut self, bytes: &[u8]) {
        const DIGITS: &str = "0123456789abcdef";
        for byte in bytes {
            for digit in [byte >> 4, byte & 15].map(usize::from) {
                self.push_str(DIGITS.get(digit..=digit).unwrap_or(""));
            }
        }
    }

    /// Whether something was left out.
    pub const fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// The string so far.
    pub fn as_str(&self) -> &str {
        let written = self.buffer.get(..self.len).unwrap_or(&[]);
        core::str::from_utf8(written).unwrap_or("")
    }

    /// The string, for as long as the buffer lives.
    pub fn into_str(self) -> &'a str {
        let written = self.buffer.get(..self.len).unwrap_or(&[]);
        core::str::from_utf8(written).unwrap_or("")
    }
}

impl fmt::Write for StrBuffer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

/// Most bytes of a text that [`display`] shows.
const DISPLAY_BYTES: usize = 512;

/// `Display` of something that can append itself to a [`StrBuffer`].
pub(crate) fn display(
    f: &mut fmt::Formatter<'_>,
    push: impl FnOnce(&mut StrBuffer<'_>),
) -> fmt::Result {
    let mut buffer = [0; DISPLAY_BYTES];
    let mut text = StrBuffer::new(&mut buffer);
    push(&mut text);
    f.write_str(text.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_all_their_digits() {
        for value in [0, 7, 10, 681, u32::MAX] {
            let mut buffer = [0; 16];
            let mut text = StrBuffer::new(&mut buffer);
            text.push_u32(value);
            assert_eq!(text.into_str(), std::format!("{value}"));
        }
        let mut buffer = [0; 20];
        let mut text = StrBuffer::new(&mut buffer);
        text.push_u64(u64::MAX);
        assert_eq!(text.into_str(), std::format!("{}", u64::MAX));
    }

    #[test]
    fn bytes_have_two_digits_each() {
        let mut buffer = [0; 8];
        let mut text = StrBuffer::new(&mut buffer);
        text.push_hex(&[0, 0x0a, 0xff]);
        assert_eq!(text.into_str(), "000aff");
    }

    #[test]
    fn numbers_and_bytes_are_written_as_fmt_writes_them() {
        for value in [0, 9, 1 << 32, u64::MAX] {
            let mut buffer = [0; 64];
            let mut text = StrBuffer::new(&mut buffer);
            text.push_u64(value);
            text.push_str(" ");
            text.push_hex(&value.to_be_bytes());
            assert_eq!(text.into_str(), std::format!("{value} {value:016x}"));
        }
    }

    #[test]
    fn a_string_ends_where_something_was_left_out() {
        let mut buffer = [0; 4];
        let mut text = StrBuffer::new(&mut buffer);
        text.push_str("abcä");
        text.push_str("d");
        assert_eq!(text.into_str(), "abc");
    }
}
