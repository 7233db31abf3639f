//! What a name of a file or a region may be: it is printed into kernel logs, in any context.

/// Longest name of a file or a region, in bytes.
pub const NAME_MAX: usize = 512;

/// What a name is made of, for error reports.
pub(crate) const CHARACTERS: &str =
    "UTF-8 without control, line-separator and bidirectional characters";

/// What a name is not, for error reports.
pub(crate) const LENGTH: &str = "a name of 1 to 512 bytes";

/// Whether a character may be in a name, or in a line of a log as it is: none of C0, DEL, C1, the line
/// separators U+2028 and U+2029, and the controls of bidirectional text.
pub const fn is_printable(character: char) -> bool {
    !matches!(
        character,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// Checks the characters of a name byte by byte.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checker {
    /// The bits of the character at hand so far.
    code: u32,
    /// The smallest character that takes so many bytes.
    least: u32,
    /// Bytes that the character at hand still needs.
    more: u8,
}

impl Checker {
    /// Takes the next byte; `false` where it cannot be there.
    #[inline(always)]
    pub(crate) fn push(&mut self, byte: u8) -> bool {
        if self.more == 0 && matches!(byte, 0x20..0x7f) {
            return true;
        }
        self.push_rare(byte)
    }

    fn push_rare(&mut self, byte: u8) -> bool {
        if self.more > 0 {
            self.code = self.code << 6 | u32::from(byte & 0x3f);
            self.more = self.more.saturating_sub(1);
            return byte & 0xc0 == 0x80
                && (self.more > 0
                    || (self.code >= self.least
                        && char::from_u32(self.code).is_some_and(is_printable)));
        }
        (self.code, self.more, self.least) = match byte {
            0xc0..0xe0 => (u32::from(byte & 0x1f), 1, 0x80),
            0xe0..0xf0 => (u32::from(byte & 0x0f), 2, 0x800),
            0xf0..0xf8 => (u32::from(byte & 0x07), 3, 0x1_0000),
            _ => return false,
        };
        true
    }

    /// Whether the last character is complete.
    pub(crate) const fn is_whole(&self) -> bool {
        self.more == 0
    }
}

/// What breaks a rule for names in `name`, if anything does.
pub(crate) fn fault(name: &[u8]) -> Option<&'static str> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Some(LENGTH);
    }
    let mut checker = Checker::default();
    let sound = name.iter().all(|byte| checker.push(*byte)) && checker.is_whole();
    (!sound).then_some(CHARACTERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn every_character_is_judged_like_its_bytes() {
        for character in '\0'..=char::MAX {
            let name = String::from(character);
            assert_eq!(fault(name.as_bytes()).is_none(), is_printable(character));
        }
    }

    #[test]
    fn only_utf_8_is_accepted() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                for bytes in [
                    &[first, second][..],
                    &[0xe2, first, second],
                    &[0xe0, first, second],
                    &[0xed, first, second],
                    &[0xf0, first, second, 0x80],
                    &[0xf4, first, second, 0x80],
                ] {
                    let expected = core::str::from_utf8(bytes)
                        .is_ok_and(|text| text.chars().all(is_printable));
                    assert_eq!(fault(bytes).is_none(), expected, "{bytes:x?}");
                }
            }
        }
    }
}
