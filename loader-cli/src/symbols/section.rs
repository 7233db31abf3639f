//! The symbols of an image in its table, the section [`SectionKind::Symbols`].
//!
//! Only the log reader on a host reads it, so it is compressed as a whole.
//!
//! | bytes | contents |
//! |---|---|
//! | 4 | `u32`, little-endian: the size of the contents in bytes, at most [`CONTENTS_MAX`] |
//! | | the contents, as one DEFLATE stream (RFC 1951) |
//!
//! In the contents, numbers are LEB128, unsigned unless it says otherwise, and strings end with a zero:
//!
//! | number of them | contents |
//! |---|---|
//! | 1 | string: the name of the module, empty for a kernel |
//! | 1 | string: the release of the kernel, empty if it is not known |
//! | 1 | number of functions, `n` |
//! | n | string: the name, by ascending address; empty for `__pfx_` and the name that follows |
//! | n | signed number: bytes from the end of the function before, or from `_text`, to the start |
//! | n | number: the size, which is the distance to the next symbol |
//! | n | number: the size for a kernel whose symbols lack labels inside functions, exclusive or the size |
//!
//! Nearly every function follows the end of another, and half of all names are those of the padding
//! before functions that CONFIG_CALL_PADDING makes: `__pfx_` and the name of the function.

use std::io::{Read, Write};

use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Decompress, FlushDecompress};
use gimli::{EndianSlice, LittleEndian, Reader, leb128};
use lineinfo_core::Error;
use lineinfo_core::blob::SectionKind;

use super::{Function, KSYM_NAME_LEN, hash_of, name_of, push};

/// The largest contents, in bytes: forty times those of a distribution's kernel.
pub(super) const CONTENTS_MAX: u32 = 64 << 20;

/// What DEFLATE makes of a byte at most.
const EXPANSION_MAX: usize = 1032;

/// Bytes from `_text` in which functions are, so that the distance of two is a signed number.
const REACH: u64 = 1 << 62;

/// The longest name of a module or a release, in bytes: `__NEW_UTS_LEN`, MODULE_NAME_LEN.
const WORD_MAX: usize = 64;

/// The name of the padding before a function.
const PADDING: &[u8] = b"__pfx_";

/// What a section says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) names: Vec<u8>,
    pub(super) functions: Vec<Function>,
    pub(super) module: Option<String>,
    pub(super) release: Option<String>,
}

impl Contents {
    /// Reads a section that is at `offset` of a blob.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] with that offset.
    pub(super) fn read(section: &[u8], offset: u32, text_start: u64) -> Result<Self, Error> {
        let fault = |expected, found| malformed(offset, expected, found);
        let (head, compressed) = section
            .split_first_chunk()
            .ok_or_else(|| fault("the size of its contents", section.len() as u64))?;
        let size = u32::from_le_bytes(*head);
        if size > CONTENTS_MAX || size as usize / EXPANSION_MAX > compressed.len() {
            let expected = "contents of at most 64 MiB, and 1032 times their compressed size";
            return Err(fault(expected, size.into()));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        // A byte more than there may be, so that one shows.
        let mut stream = DeflateDecoder::new(compressed).take(u64::from(size) + 1);
        let read = stream.read_to_end(&mut bytes);
        let found = bytes.len() as u64;
        if read.is_err() || found != u64::from(size) {
            return Err(fault("a DEFLATE stream of the size that it says", found));
        }
        let rest = stream.get_ref().total_in();
        if rest != compressed.len() as u64 {
            return Err(fault("the end of the section after the stream", rest));
        }
        let mut at = EndianSlice::new(&bytes, LittleEndian);
        let contents = Self::parse(&mut at, text_start);
        let consumed = (bytes.len() - at.len()) as u64;
        match contents {
            Some(contents) if at.is_empty() => Ok(contents),
            Some(_) => Err(fault("the end of its contents after the sizes", consumed)),
            None => Err(fault("functions that can be, in its contents", consumed)),
        }
    }

    fn parse(from: &mut EndianSlice<'_, LittleEndian>, text_start: u64) -> Option<Self> {
        let mut contents = Self {
            module: word(from)?,
            release: word(from)?,
            ..Self::default()
        };
        // Each takes a byte of each column.
        let count = usize::try_from(from.read_uleb128().ok()?).ok()?;
        if count > from.len() / 4 {
            return None;
        }
        contents.names.reserve(from.len());
        contents.functions.reserve(count);
        let mut is_padding = false;
        for _ in 0..count {
            let name = from.read_null_terminated_slice().ok()?.slice();
            if name.is_empty() {
                if is_padding {
                    return None;
                }
                is_padding = true;
                continue;
            }
            if name.len() >= KSYM_NAME_LEN {
                return None;
            }
            if is_padding {
                contents.add(&[PADDING, name].concat())?;
                is_padding = false;
            }
            contents.add(name)?;
        }
        if is_padding {
            return None;
        }
        let mut end = text_start;
        let mut starts = *from;
        for _ in 0..count {
            from.read_sleb128().ok()?;
        }
        let mut before = 0;
        for function in &mut contents.functions {
            let gap = starts.read_sleb128().ok()?;
            let size = from.read_uleb128().ok()?;
            function.address = end.checked_add_signed(gap)?;
            end = function.address.checked_add(size)?;
            function.sizes = [size, size];
            if function.address < before {
                return None;
            }
            before = function.address;
        }
        for function in &mut contents.functions {
            function.sizes[1] ^= from.read_uleb128().ok()?;
        }
        Some(contents)
    }

    /// Adds a function whose address and sizes follow.
    fn add(&mut self, name: &[u8]) -> Option<()> {
        if self.names.len() + name.len() > CONTENTS_MAX as usize {
            return None;
        }
        self.functions.push(Function {
            hash: hash_of(name),
            name: push(&mut self.names, name),
            address: 0,
            sizes: [0; 2],
        });
        Some(())
    }

    /// The functions that a section can have: a table does not answer below `_text`, nor so far above.
    pub(super) fn in_reach(&self, text_start: u64) -> impl Iterator<Item = &Function> {
        let functions = self.functions.iter();
        functions.filter(move |function| {
            let offset = function.address.checked_sub(text_start);
            offset.is_some_and(|offset| offset < REACH)
        })
    }

    /// The section with these contents; `None` if they are too large.
    pub(super) fn write(&self, text_start: u64) -> Option<Vec<u8>> {
        let name_of = |function: &Function| name_of(&self.names, &function.name);
        let mut functions: Vec<&Function> = self.in_reach(text_start).collect();
        functions.sort_unstable_by_key(|function| (function.address, name_of(function)));

        let mut bytes = Vec::new();
        for word in [&self.module, &self.release] {
            let word = word.as_deref().filter(|word| is_word(word));
            bytes.extend(word.unwrap_or_default().bytes());
            bytes.push(0);
        }
        unsigned(&mut bytes, functions.len() as u64);
        let mut is_padding = false;
        for (position, function) in functions.iter().enumerate() {
            let name = name_of(function);
            let after = functions.get(position + 1).map(|after| {
                let of_padding = name.strip_prefix(PADDING);
                of_padding == Some(name_of(after))
            });
            is_padding = after == Some(true) && !is_padding;
            if !is_padding {
                bytes.extend(name);
            }
            bytes.push(0);
        }
        let mut end = text_start;
        for function in &functions {
            let gap = function.address.wrapping_sub(end).cast_signed();
            leb128::write::signed(&mut bytes, gap).expect("a Vec takes all");
            end = function.address.wrapping_add(function.sizes[0]);
        }
        for function in &functions {
            unsigned(&mut bytes, function.sizes[0]);
        }
        for function in &functions {
            unsigned(&mut bytes, function.sizes[0] ^ function.sizes[1]);
        }

        let size = u32::try_from(bytes.len()).ok()?;
        if size > CONTENTS_MAX {
            return None;
        }
        let section = size.to_le_bytes().to_vec();
        let mut compressed = DeflateEncoder::new(section, Compression::best());
        compressed.write_all(&bytes).ok()?;
        compressed.finish().ok()
    }
}

fn unsigned(to: &mut Vec<u8>, value: u64) {
    leb128::write::unsigned(to, value).expect("a Vec takes all");
}

/// The module and the release that a section says, of which only the first bytes are needed.
pub(super) fn claim(start: &[u8]) -> Option<(Option<String>, Option<String>)> {
    let compressed = start.get(size_of::<u32>()..)?;
    let mut bytes = Vec::with_capacity(2 * (WORD_MAX + 1));
    let mut stream = Decompress::new(false);
    // The stream goes on after what is here.
    let status = stream.decompress_vec(compressed, &mut bytes, FlushDecompress::None);
    status.ok()?;
    let mut at = EndianSlice::new(&bytes, LittleEndian);
    Some((word(&mut at)?, word(&mut at)?))
}

/// A name or a release, which is printed; `None` inside if it is empty.
fn word(from: &mut EndianSlice<'_, LittleEndian>) -> Option<Option<String>> {
    let word = from.read_null_terminated_slice().ok()?.slice();
    let text = String::from_utf8(word.to_vec()).ok()?;
    is_word(&text).then(|| (!text.is_empty()).then_some(text))
}

fn is_word(text: &str) -> bool {
    text.len() <= WORD_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn malformed(offset: u32, expected: &'static str, found: u64) -> Error {
    Error::Malformed {
        part: SectionKind::Symbols.name(),
        offset: offset.into(),
        expected,
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u64 = 0xffff_ffff_8100_0000;

    fn contents(functions: &[(&str, u64, [u64; 2])]) -> Contents {
        let mut contents = Contents {
            module: Some("xfs".to_owned()),
            release: Some("6.12.0-1-amd64".to_owned()),
            ..Contents::default()
        };
        for (name, start, sizes) in functions {
            contents.add(name.as_bytes()).expect("room");
            let function = contents.functions.last_mut().expect("one");
            (function.address, function.sizes) = (TEXT + start, *sizes);
        }
        contents.functions.sort_by_key(|function| function.address);
        contents
    }

    fn small() -> Contents {
        contents(&[
            ("_text", 0, [0, 0]),
            ("__pfx_f", 0, [16, 16]),
            ("f", 16, [48, 80]),
            ("alias_of_f", 16, [48, 80]),
            ("label_in_f", 64, [32, 32]),
            // Not before what its name says.
            ("__pfx_nothing", 0x200, [16, 16]),
            ("__pfx___pfx_g", 0x300, [16, 16]),
            ("__pfx_g", 0x310, [16, 16]),
            ("g", 0x320, [0x1234, 0x2000]),
        ])
    }

    fn as_read(contents: &Contents) -> Vec<(Vec<u8>, u64, [u64; 2])> {
        let functions = contents.functions.iter();
        let one = |function: &Function| {
            let name = name_of(&contents.names, &function.name).to_vec();
            (name, function.address, function.sizes)
        };
        let mut functions: Vec<_> = functions.map(one).collect();
        functions.sort();
        functions
    }

    /// A section with these bytes as contents.
    fn packed(bytes: &[u8]) -> Vec<u8> {
        let head = (bytes.len() as u32).to_le_bytes().to_vec();
        let mut section = DeflateEncoder::new(head, Compression::best());
        section.write_all(bytes).expect("room");
        section.finish().expect("room")
    }

    fn unpacked(section: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = DeflateDecoder::new(&section[4..]).read_to_end(&mut bytes);
        read.expect("a stream");
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let before = small();
        let section = before.write(TEXT).expect("a section");
        // Relative to `_text`, wherever that is.
        for text in [TEXT, TEXT - 0x1000_0000, 0] {
            let after = Contents::read(&section, 0, text).expect("the contents");
            let mut expected = as_read(&before);
            for (_, address, _) in &mut expected {
                *address = *address - TEXT + text;
            }
            assert_eq!(as_read(&after), expected);
            assert_eq!(
                (after.module, after.release),
                (before.module.clone(), before.release.clone())
            );
        }
        assert_eq!(
            unpacked(&section)
                .iter()
                .filter(|byte| **byte == b'p')
                .count(),
            4
        );
    }

    #[test]
    fn what_no_table_answers_for_is_left_out() {
        let all = contents(&[("below", 0, [16; 2]), ("f", 32, [16; 2])]);
        let section = all.write(TEXT + 16).expect("a section");
        let after = Contents::read(&section, 0, TEXT + 16).expect("the contents");
        assert_eq!(as_read(&after), as_read(&contents(&[("f", 32, [16; 2])])));
    }

    #[test]
    fn damage_is_refused() {
        let good = small().write(TEXT).expect("a section");
        let inside = unpacked(&good);
        let long = [&[b'x'; KSYM_NAME_LEN][..], b"\0\0\0\0"].concat();
        let with_head = |size: u32| [&size.to_le_bytes()[..], &good[4..]].concat();
        let size = inside.len() as u32;
        for (what, section) in [
            ("nothing", Vec::new()),
            ("no stream", good[..4].to_vec()),
            ("half a stream", good[..good.len() / 2].to_vec()),
            ("more behind the stream", [&good[..], b"x"].concat()),
            ("a size that is too small", with_head(size - 1)),
            ("a size that is too large", with_head(size + 1)),
            ("a size above the limit", with_head(CONTENTS_MAX + 1)),
            ("more than DEFLATE can make", with_head(CONTENTS_MAX)),
            (
                "contents that end early",
                packed(&inside[..inside.len() - 1]),
            ),
            ("contents that go on", packed(&[&inside[..], &[0]].concat())),
            (
                "more functions than bytes",
                packed(b"\0\0\xff\xff\xff\xff\x0f"),
            ),
            ("padding before nothing", packed(b"\0\0\x01\0\0\0\0")),
            (
                "padding before padding",
                packed(b"\0\0\x03\0\0f\0\0\0\0\0\0\0\0\0\0"),
            ),
            ("a name without end", packed(b"\0\0\x01ffff")),
            (
                "a name that is too long",
                packed(&[&b"\0\0\x01"[..], &long].concat()),
            ),
            ("a module that moves the cursor", packed(b"\x1b[A\0\0\x00")),
            ("a release with a space", packed(b"\x006.1 x\0\x00")),
            (
                "functions that descend",
                packed(b"\0\0\x02f\0g\0\x10\x7f\0\0\0\0"),
            ),
            (
                "a function beyond the end",
                packed(b"\0\0\x01f\0\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0"),
            ),
        ] {
            let error = Contents::read(&section, 77, TEXT).map(|_| what);
            let error = error.expect_err("it is damaged").to_string();
            assert!(
                error.contains("malformed symbols at byte 77"),
                "{what}: {error}"
            );
        }
        assert!(Contents::read(&packed(b"\0\0\x02f\0g\0\x10\0\0\0\0\0"), 0, TEXT).is_ok());
    }

    #[test]
    fn any_damage_ends_in_an_error_or_in_functions() {
        let good = unpacked(&small().write(TEXT).expect("a section"));
        let mut random = fastrand::Rng::with_seed(1);
        let (mut refused, mut taken) = (0, 0);
        for _ in 0..4_000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(
                random
                    .usize(bytes.len() / 2..=bytes.len() * 4)
                    .min(bytes.len()),
            );
            match Contents::read(&packed(&bytes), 0, TEXT) {
                Ok(contents) => {
                    taken += 1;
                    assert!(contents.functions.len() <= bytes.len());
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 200 && taken > 200, "{refused} and {taken}");
    }
}
