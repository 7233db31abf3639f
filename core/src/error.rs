use core::fmt;

use crate::blob::FORMAT_VERSION;
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
}

impl core::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { expected, found } => {
                write!(
                    f,
                    "truncated: {found} of {expected} bytes; copy or build it again"
                )
            }
            Self::Trailing { expected, found } => {
                write!(
                    f,
                    "{found} bytes where the header says {expected}; copy or build it again"
                )
            }
            Self::Magic { found } => {
                write!(f, "not a lineinfo blob: it begins with ")?;
                for byte in found {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
            Self::Checksum { expected, found } => write!(
                f,
                "checksum {found:08x} where the header says {expected:08x}: damaged; copy or build it again"
            ),
            Self::Version { found } => write!(
                f,
                "format version {found}, this reader knows {FORMAT_VERSION}; build it again with the tool of this version"
            ),
            Self::Malformed {
                part,
                offset,
                expected,
                found,
            } => write!(
                f,
                "malformed {part} at byte {offset}: expected {expected}, found {found}; build it again"
            ),
        }
    }
}
