//! Bytes that are not UTF-8, in names that are.
//!
//! A table's names are UTF-8, for a kernel log takes nothing else. A file name in DWARF may have any
//! bytes. A byte that is no part of a UTF-8 character becomes the character U+EF00 plus its value
//! (U+EF80 to U+EFFF), which Unicode leaves to private use and MirBSD's OPTU encodings use for the
//! same purpose. The bytes of these characters themselves are replaced in the same way. So what is
//! written out is what DWARF has, to the byte.

use std::borrow::Cow;

/// What is added to a byte to get its character.
const BASE: u32 = 0xef00;

/// The byte that a character stands for.
fn byte_of(character: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(character).checked_sub(BASE)?).ok()?;
    (byte >= 0x80).then_some(byte)
}

/// The text that stands for some bytes.
pub(crate) fn to_text(bytes: &[u8]) -> Cow<'_, str> {
    let is_plain = |text: &str| text.chars().all(|character| byte_of(character).is_none());
    if let Ok(text) = std::str::from_utf8(bytes)
        && is_plain(text)
    {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    let push_bytes = |text: &mut String, bytes: &[u8]| {
        let characters = bytes.iter().map(|byte| BASE + u32::from(*byte));
        text.extend(characters.filter_map(char::from_u32));
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match byte_of(character) {
                Some(_) => push_bytes(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes()),
                None => text.push(character),
            }
        }
        push_bytes(&mut text, chunk.invalid());
    }
    text.into()
}

/// The bytes that a text stands for.
pub(crate) fn to_bytes(text: &str) -> Cow<'_, [u8]> {
    if text.chars().all(|character| byte_of(character).is_none()) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_have_characters_of_their_own() {
        assert_eq!(to_text(b"caf\xe9.c"), "caf\u{efe9}.c");
        assert_eq!(to_text("caf\u{e9}.c".as_bytes()), "caf\u{e9}.c");
        let own = "\u{efe9}";
        assert_eq!(to_text(own.as_bytes()), "\u{efee}\u{efbf}\u{efa9}");
        assert_eq!(*to_bytes(&to_text(own.as_bytes())), *own.as_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = to_text(&bytes);
            prop_assert_eq!(&*to_bytes(&text), &bytes[..]);
        }

        #[test]
        fn any_characters_come_back(text in "\\PC{0,20}[\u{ef7f}-\u{f000}]{0,3}") {
            let name = to_text(text.as_bytes());
            prop_assert_eq!(&*to_bytes(&name), text.as_bytes());
        }
    }
}
