use core::fmt;

use crate::blob::BUILD_ID_MAX;
use crate::buffer::{self, StrBuffer};
use crate::error::Error;
use crate::footer::FooterError;
use crate::signature::KeyId;
use crate::uapi::Errno;

use super::Caller;

/// Why the device does not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are no blob.
    Blob(Error),
    /// The footer of the boot image is wrong.
    Footer(FooterError),
    /// The blob was made from the image of another machine.
    Machine {
        /// ELF machine number of the blob.
        found: u16,
        /// That of the image that runs.
        expected: u16,
    },
    /// The blob was made from another image.
    OtherImage {
        /// Build-id of the blob.
        found: BuildId,
        /// That of the image that runs.
        expected: BuildId,
    },
    /// Signatures are demanded, and there is no key to verify them with.
    NoKey,
    /// The blob has no signature.
    Unsigned {
        /// The key that it must be signed by.
        expected: KeyId,
    },
    /// The blob was signed by another key.
    OtherKey {
        /// That key.
        found: KeyId,
        /// The key that it must be signed by.
        expected: KeyId,
    },
    /// The signature does not match the blob.
    Signature {
        /// Whose signature it says it is.
        key: KeyId,
    },
    /// The blob is larger than it may be.
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// There is no memory for it.
    NoMemory {
        /// Bytes asked for.
        size: u64,
    },
    /// This kernel takes no tables.
    Never,
    /// The caller may not load.
    NotPermitted {
        /// Its user.
        uid: u32,
    },
    /// The caller may not see addresses.
    AddressesHidden {
        /// Its user.
        uid: u32,
    },
    /// Another file is open for writing.
    Writing {
        /// Who has it open.
        by: Caller,
    },
    /// Another file took the device over from this one.
    TakenOver {
        /// Milliseconds without a request after which that may happen.
        idle_ms: u64,
    },
    /// The file is not open for writing.
    NotWriter,
    /// More bytes came after the end of a table that is published.
    PastEnd {
        /// How many.
        found: u64,
    },
    /// Another target was named in the middle of a load.
    TargetLate,
    /// Somebody is still reading the old table.
    Readers,
    /// The module is not loaded.
    NoModule,
    /// There is no table.
    Empty,
    /// The device has no such ioctl.
    NoSuchIoctl {
        /// Its number.
        code: u32,
    },
    /// The argument of an ioctl has not the size, or not the values, that it must have.
    Argument,
}

impl Refusal {
    /// The errno that goes with it.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Blob(error) => error.errno(),
            Self::Footer(error) => error.errno(),
            Self::Machine { .. } => Errno::ENOEXEC,
            Self::OtherImage { .. } => Errno::ESTALE,
            Self::NoKey
            | Self::Unsigned { .. }
            | Self::OtherKey { .. }
            | Self::Signature { .. } => Errno::EKEYREJECTED,
            Self::TooLarge { .. } => Errno::EFBIG,
            Self::NoMemory { .. } => Errno::ENOMEM,
            Self::Never | Self::NotPermitted { .. } | Self::AddressesHidden { .. } => Errno::EPERM,
            Self::Writing { .. } | Self::Readers => Errno::EBUSY,
            Self::TakenOver { .. } => Errno::ETIMEDOUT,
            Self::NotWriter => Errno::EBADF,
            Self::PastEnd { .. } | Self::TargetLate | Self::Argument => Errno::EINVAL,
            Self::NoModule => Errno::ENOENT,
            Self::Empty => Errno::ENODATA,
            Self::NoSuchIoctl { .. } => Errno::ENOTTY,
        }
    }

    /// Appends the reason as text, without `core::fmt`.
    pub fn push_to(self, text: &mut StrBuffer<'_>) {
        match self {
            Self::Blob(error) => error.push_to(text),
            Self::Footer(error) => error.push_to(text),
            Self::Machine { found, expected } => {
                text.push_str("made for ELF machine ");
                text.push_u32(found.into());
                text.push_str(", this kernel is ");
                text.push_u32(expected.into());
                text.push_str("; build it from this image");
            }
            Self::OtherImage { found, expected } => {
                text.push_str("made for build-id ");
                found.push_to(text);
                text.push_str(", this kernel has ");
                expected.push_to(text);
                text.push_str("; build it from this image");
            }
            Self::NoKey => {
                text.push_str("this kernel demands signatures and has no key to verify them; boot with lineinfo.key=, or without lockdown=");
            }
            Self::Unsigned { expected } => {
                text.push_str("it is not signed, this kernel takes tables signed by key ");
                expected.push_to(text);
                text.push_str("; sign it with `lineinfo sign`");
            }
            Self::OtherKey { found, expected } => {
                text.push_str("signed by key ");
                found.push_to(text);
                text.push_str(", this kernel takes tables signed by key ");
                expected.push_to(text);
                text.push_str("; sign it with that key");
            }
            Self::Signature { key } => {
                text.push_str("the signature of key ");
                key.push_to(text);
                text.push_str(
                    " does not match: changed after it was signed; copy or sign it again",
                );
            }
            Self::TooLarge { size, max } => {
                text.push_u64(size);
                text.push_str(" bytes, lineinfo.max=");
                text.push_u64(max);
                text.push_str(" allows less; boot with a larger one");
            }
            Self::NoMemory { size } => {
                text.push_str("no memory for ");
                text.push_u64(size);
                text.push_str(" bytes; unload a table, or boot with a larger mem=");
            }
            Self::Never => {
                text.push_str("booted with lineinfo=never; boot with lineinfo=off or on");
            }
            Self::NotPermitted { uid } => {
                text.push_str("user ");
                text.push_u32(uid);
                text.push_str(" is neither root nor the owner of this kernel; ask one of them");
            }
            Self::AddressesHidden { uid } => {
                text.push_str("user ");
                text.push_u32(uid);
                text.push_str(" may not see addresses; look them up as root");
            }
            Self::Writing { by } => {
                text.push_str("somebody else has the device open for writing (");
                by.push_to(text);
                text.push_str("); try again");
            }
            Self::TakenOver { idle_ms } => {
                text.push_str("no request for more than ");
                text.push_u64(idle_ms / 1000);
                text.push_str(" s, so another process took the device over; open it again");
            }
            Self::NotWriter => text.push_str("the device is not open for writing"),
            Self::PastEnd { found } => {
                text.push_u64(found);
                text.push_str(
                    " bytes after the end of the table, which is loaded; open the device again",
                );
            }
            Self::TargetLate => {
                text.push_str("the target comes before the table; open the device again");
            }
            Self::Readers => text.push_str("the old table is still being read; try again"),
            Self::NoModule => text.push_str("no such module is loaded; see /proc/modules"),
            Self::Empty => text.push_str("nothing is loaded"),
            Self::NoSuchIoctl { code } => {
                text.push_str("no ioctl has the number 0x");
                text.push_hex(&code.to_be_bytes());
            }
            Self::Argument => text.push_str("not an argument of that ioctl"),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Blob(error)
    }
}

impl From<FooterError> for Refusal {
    fn from(error: FooterError) -> Self {
        Self::Footer(error)
    }
}

impl core::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        buffer::display(f, |text| self.push_to(text))
    }
}

/// A build-id, shown in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildId {
    bytes: [u8; BUILD_ID_MAX],
    len: u8,
}

impl BuildId {
    /// A build-id; of a longer one only as much as a blob can hold.
    pub fn new(id: &[u8]) -> Self {
        let mut bytes = [0; BUILD_ID_MAX];
        let mut len = 0_u8;
        for (to, from) in bytes.iter_mut().zip(id) {
            *to = *from;
            len = len.saturating_add(1);
        }
        Self { bytes, len }
    }

    /// Its bytes; none where an image has no build-id.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    fn push_to(&self, text: &mut StrBuffer<'_>) {
        match self.bytes() {
            [] => text.push_str("(none)"),
            bytes => text.push_hex(bytes),
        }
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        buffer::display(f, |text| self.push_to(text))
    }
}
