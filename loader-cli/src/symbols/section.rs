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

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use gimli::{EndianSlice, LittleEndian, Reader, leb128};
use lineinfo_core::Error;
use lineinfo_core::blob::SectionKind;

use super::{Function, KSYM_NAME_LEN, hash_of, name_of, push};

/// The largest contents, in bytes: ten times those of a kernel with every driver built in.
pub(super) const CONTENTS_MAX: u32 = 256 << 20;

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
            let expected = "contents of at most 256 MiB, and 1032 times their compressed size";
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
                contents.add([PADDING, name].concat().as_slice())?;
                is_padding = false;
            }
            contents.add(name)?;
        }
        if is_padding {
            return None;
        }
        let mut end = text_start;
        let mut starts = from.clone();
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
        super::sort(&mut contents.functions);
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
