//! A blob at the end of a boot image: `[image][pad][blob][u32 size][u32 crc32]["#LINEINFO\n"]`.
//!
//! The idea of the kernel's bootconfig: what follows the image in its file is not loaded as code,
//! so any image can carry it and stays executable. `size` counts pad and blob in bytes, so what is
//! before them is the image to the byte; `crc32` (IEEE) is over pad and blob. Both are
//! little-endian on every host. The pad, zeros, aligns the blob to [`ALIGN`]. Boot loaders pad
//! files, so zeros may follow the footer, at most [`PADDING_MAX`].

use core::fmt;
use core::ops::Range;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::buffer::{self, StrBuffer};
use crate::error::Error;
use crate::uapi::Errno;
use crate::{index, wide};

/// The last bytes of an image with a blob, apart from padding.
pub const MAGIC: [u8; 10] = *b"#LINEINFO\n";

/// The blob begins at a multiple of this, in bytes from the start of the file.
pub const ALIGN: u32 = 16;

/// How many zeros behind the footer are looked through, in bytes.
pub const PADDING_MAX: usize = 64 * 1024;

/// The size of [`RawFooter`], in bytes.
pub const SIZE: usize = size_of::<RawFooter>();

/// How many bytes at the end of a file [`Footer::find`] needs to see, if there are so many.
pub const TAIL: usize = PADDING_MAX + SIZE;

/// The footer, 18 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawFooter {
    /// Offset 0: size of pad and blob in bytes.
    pub size: U32,
    /// Offset 4: CRC-32 of pad and blob.
    pub crc32: U32,
    /// Offset 8: [`MAGIC`].
    pub magic: [u8; 10],
}

const _: () = assert!(SIZE == 18);

/// A footer that was found in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Length of the image before it, in bytes.
    pub image_len: u64,
    /// Size of pad and blob in bytes; they begin where the image ends.
    pub payload_size: u32,
    /// Where pad and blob end, and the footer begins.
    end: u64,
    crc32: u32,
}

/// What is wrong with a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FooterError {
    /// The blob would begin before the file does.
    Size {
        /// Size of pad and blob, in bytes, as the footer says.
        size: u32,
        /// Bytes in front of the footer.
        room: u64,
    },
    /// The checksum does not match.
    Checksum {
        /// The checksum in the footer.
        expected: u32,
        /// The checksum of pad and blob.
        found: u32,
    },
    /// There is no blob behind the padding.
    Blob(Error),
}

impl FooterError {
    /// The errno with which a device refuses such an image.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Size { .. } => Errno::ENOEXEC,
            Self::Checksum { .. } => Errno::EBADMSG,
            Self::Blob(error) => error.errno(),
        }
    }

    /// Appends the error as text, without `core::fmt`.
    pub fn push_to(self, text: &mut StrBuffer<'_>) {
        match self {
            Self::Size { size, room } => {
                text.push_str("footer names a blob of ");
                text.push_u32(size);
                text.push_str(" bytes, the file has ");
                text.push_u64(room);
                text.push_str(" before it; append it again");
            }
            Self::Checksum { expected, found } => {
                text.push_str("checksum ");
                text.push_hex(&found.to_be_bytes());
                text.push_str(" of the appended blob where the footer says ");
                text.push_hex(&expected.to_be_bytes());
                text.push_str("; append it again");
            }
            Self::Blob(error) => {
                text.push_str("appended blob: ");
                error.push_to(text);
            }
        }
    }
}

impl core::error::Error for FooterError {}

impl fmt::Display for FooterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        buffer::display(f, |text| self.push_to(text))
    }
}

impl Footer {
    /// Looks for a footer in the last [`TAIL`] bytes (or all, if there are fewer) of a file of
    /// `file_len` bytes; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`FooterError::Size`] where there is one that cannot be true.
    pub fn find(tail: &[u8], file_len: u64) -> Result<Option<Self>, FooterError> {
        let end = tail
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last.saturating_add(1));
        let Some(Ok((_, raw))) = tail.get(..end).map(RawFooter::ref_from_suffix) else {
            return Ok(None);
        };
        if raw.magic != MAGIC {
            return Ok(None);
        }
        let padding = tail.len().saturating_sub(end);
        let room = file_len
            .saturating_sub(wide(padding))
            .saturating_sub(wide(SIZE));
        let size = raw.size.get();
        let image_len = room
            .checked_sub(u64::from(size))
            .ok_or(FooterError::Size { size, room })?;
        Ok(Some(Self {
            image_len,
            payload_size: size,
            end: room,
            crc32: raw.crc32.get(),
        }))
    }

    /// Where pad and blob stand in the file, in bytes.
    pub const fn payload(&self) -> Range<u64> {
        self.image_len..self.end
    }

    /// The blob in the bytes at [`Footer::payload`], still to be parsed.
    ///
    /// # Errors
    ///
    /// [`FooterError::Checksum`], or [`FooterError::Blob`] for bytes that cannot hold one.
    pub fn blob<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], FooterError> {
        let found = crc32fast::hash(payload);
        if found != self.crc32 {
            return Err(FooterError::Checksum {
                expected: self.crc32,
                found,
            });
        }
        let pad = payload.iter().take_while(|byte| **byte == 0).count();
        let blob = payload.get(pad..).unwrap_or(&[]);
        crate::blob::Header::peek(blob).map_err(FooterError::Blob)?;
        Ok(blob)
    }
}

/// What to write behind an image of `image_len` bytes, in this order: zeros, the blob, the footer.
///
/// `None` if the blob is larger than the footer's size can say.
pub fn append(image_len: u64, blob: &[u8]) -> Option<(&'static [u8], RawFooter)> {
    static ZEROS: [u8; index(ALIGN)] = [0; index(ALIGN)];

    let pad = u32::try_from(
        image_len
            .checked_next_multiple_of(u64::from(ALIGN))?
            .checked_sub(image_len)?,
    );
    let pad = ZEROS.get(..index(pad.ok()?))?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(pad);
    hasher.update(blob);
    let footer = RawFooter {
        size: u32::try_from(pad.len().checked_add(blob.len())?)
            .ok()?
            .into(),
        crc32: hasher.finalize().into(),
        magic: MAGIC,
    };
    Some((pad, footer))
}
