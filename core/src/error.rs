use core::fmt;

use crate::blob::FORMAT_VERSION;
use crate::buffer::{self, StrBuffer};
use crate::uapi::Errno;

/// Why a blob was refused.
///
/// Nothing of a refused blob has been believed but what the variant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// There are fewer bytes than the header says, or not even a header.
    Truncated {
        /// Bytes there should be.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// There are more bytes than the header says.
    Trailing {
        /// Bytes there should be.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// It does not begin with [`crate::blob::MAGIC`].
    Magic {
        /// What it begins with.
        found: [u8; 8],
    },
    /// The checksum does not match the contents.
    Checksum {
        /// The checksum that the header names.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// The format has a version that this reader does not know.
    Version {
        /// The version that the header names.
        found: u16,
    },
    /// The checksum is right, but the contents break a rule of the format.
    Malformed {
        /// The part of the blob.
        part: &'static str,
        /// Where, in bytes from the start of the blob.
        offset: u64,
        /// What should have stood there.
        expected: &'static str,
        /// What stood there.
        found: u64,
    },
}

impl Error {
    /// The errno with which a device refuses such a blob.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Checksum { .. } => Errno::EBADMSG,
            Self::Truncated { .. }
            | Self::Trailing { .. }
            | Self::Magic { .. }
            | Self::Version { .. }
            | Self::Malformed { .. } => Errno::ENOEXEC,
        }
    }

    /// Appends the error as text, without `core::fmt`.
    pub fn push_to(self, text: &mut StrBuffer<'_>) {
        match self {
            Self::Truncated { expected, found } => {
                text.push_str("truncated: ");
                text.push_u64(found);
                text.push_str(" of ");
                text.push_u64(expected);
                text.push_str(" bytes; copy or build it again");
            }
            Self::Trailing { expected, found } => {
                text.push_u64(found);
                text.push_str(" bytes where the header says ");
                text.push_u64(expected);
                text.push_str("; copy or build it again");
            }
            Self::Magic { found } => {
                text.push_str("not a lineinfo blob: it begins with ");
                text.push_hex(&found);
            }
            Self::Checksum { expected, found } => {
                text.push_str("checksum ");
                text.push_hex(&found.to_be_bytes());
                text.push_str(" where the header says ");
                text.push_hex(&expected.to_be_bytes());
                text.push_str(": damaged; copy or build it again");
            }
            Self::Version { found } => {
                text.push_str("format version ");
                text.push_u32(found.into());
                text.push_str(", this reader knows ");
                text.push_u32(FORMAT_VERSION.into());
                text.push_str("; build it again with the tool of this version");
            }
            Self::Malformed {
                part,
                offset,
                expected,
                found,
            } => {
                text.push_str("malformed ");
                text.push_str(part);
                text.push_str(" at byte ");
                text.push_u64(offset);
                text.push_str(": expected ");
                text.push_str(expected);
                text.push_str(", found ");
                text.push_u64(found);
                text.push_str("; build it again");
            }
        }
    }
}

impl core::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        buffer::display(f, |text| self.push_to(text))
    }
}
