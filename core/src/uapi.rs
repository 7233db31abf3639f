//! The ABI of the device `/dev/lineinfo`, shared by the kernel and its loader.
//!
//! The device has the semantics of a file. `open` for writing is exclusive. `write` streams a blob
//! in pieces of any size; the table goes live with the last byte of a valid one, and the `write`
//! that brought it fails with an [`Errno`] if it is refused. `close` before that discards what was
//! written. `read` gives the status as text. The ioctls have fixed-size arguments without pointers
//! (what FUSE demands), in the byte order of the host.
//!
//! | number | argument | meaning |
//! |---|---|---|
//! | [`NR_STATUS`] | [`Status`], read | what the slot holds |
//! | [`NR_COMMIT`] | none | success once the blob written here is live; else why it is not |
//! | [`NR_UNLOAD`] | none | empty the slot, give the memory back |
//! | [`NR_LOOKUP`] | [`Lookup`], read and written | file and line of a run-time address |
//! | [`NR_TARGET`] | [`Target`], read and written | whose table this open file is about: that of the kernel, or of a module |
//!
//! Where there is no character device, a Unix stream socket carries the same operations:
//! [`socket`].

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Address;
use crate::blob::{BUILD_ID_MAX, Encoding, Profile, numbered};
use crate::buffer::StrBuffer;

numbered! {
    /// The error numbers of the device, those of Linux (`include/uapi/asm-generic/errno*.h`).
    Errno: u32 {
        /// Not privileged, or late loading is refused (`lineinfo=never`).
        EPERM = 1, "EPERM";
        /// No such module.
        ENOENT = 2, "ENOENT";
        /// Not a lineinfo blob, of another version, or malformed.
        ENOEXEC = 8, "ENOEXEC";
        /// The descriptor was not opened for this.
        EBADF = 9, "EBADF";
        /// No memory for the table.
        ENOMEM = 12, "ENOMEM";
        /// Somebody else is loading, or the old table is still being read.
        EBUSY = 16, "EBUSY";
        /// Not a request of this device, or out of turn.
        EINVAL = 22, "EINVAL";
        /// No such ioctl.
        ENOTTY = 25, "ENOTTY";
        /// The blob is larger than `lineinfo.max=` allows.
        EFBIG = 27, "EFBIG";
        /// Nothing is loaded.
        ENODATA = 61, "ENODATA";
        /// The checksum does not match.
        EBADMSG = 74, "EBADMSG";
        /// The blob was built for another kernel.
        ESTALE = 116, "ESTALE";
    }
}

/// The type byte of the ioctl numbers; free in Linux's `ioctl-number.rst` as of 6.12.
pub const IOCTL_TYPE: u8 = 0xf7;
/// `_IOR(IOCTL_TYPE, 0, Status)`.
pub const NR_STATUS: u8 = 0;
/// `_IO(IOCTL_TYPE, 1)`.
pub const NR_COMMIT: u8 = 1;
/// `_IO(IOCTL_TYPE, 2)`.
pub const NR_UNLOAD: u8 = 2;
/// `_IOWR(IOCTL_TYPE, 3, Lookup)`.
pub const NR_LOOKUP: u8 = 3;
/// `_IOWR(IOCTL_TYPE, 4, Target)`; the argument comes back as it was.
pub const NR_TARGET: u8 = 4;

/// Longest name of a module, in bytes (`MODULE_NAME_LEN` of 64-bit Linux, without the zero).
pub const MODULE_NAME_MAX: usize = 55;

/// The argument of [`NR_TARGET`], 56 bytes.
///
/// A file that was just opened is about the kernel. What was written before is discarded with the
/// file, so the target comes first.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Target {
    /// The name of a module, zeros behind it; none for the kernel.
    pub name: [u8; MODULE_NAME_MAX + 1],
}

const _: () = assert!(size_of::<Target>() == 56);

impl Target {
    /// A module, unless its name is too long for one.
    pub fn module(name: &str) -> Option<Self> {
        (name.len() <= MODULE_NAME_MAX).then(|| Self {
            name: nul_padded(name),
        })
    }

    /// The name of the module, empty for the kernel.
    pub fn name(&self) -> &str {
        until_nul(&self.name)
    }
}

/// The kernel.
impl Default for Target {
    fn default() -> Self {
        Self {
            name: [0; MODULE_NAME_MAX + 1],
        }
    }
}

numbered! {
    /// What a slot is doing.
    State: u32 {
        /// It holds no table.
        Empty = 0, "empty";
        /// It holds a table.
        Loaded = 1, "loaded";
        /// It holds no table and takes none (`lineinfo=never`).
        Never = 2, "never";
    }
}

/// The argument of [`NR_STATUS`], 232 bytes; the numbers are zero where nothing is loaded.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Status {
    /// A [`State`].
    pub state: u32,
    /// Number of rows.
    pub rows: u32,
    /// Number of files.
    pub files: u32,
    /// [`Errno`] of the last load that was refused, 0 if none was.
    pub last_errno: u32,
    /// Size of the blob in bytes.
    pub bytes: u64,
    /// Memory taken for it in bytes, whole pages.
    pub memory: u64,
    /// [`Encoding`].
    pub encoding: u8,
    /// [`Profile`].
    pub profile: u8,
    /// Length of the build-id in bytes.
    pub build_id_len: u8,
    /// Zero.
    pub reserved: u8,
    /// Build-id of the table, or, where nothing is loaded, of the kernel, which a table must have.
    pub build_id: [u8; BUILD_ID_MAX],
    /// Why the last load was refused: UTF-8, zeros behind it; cut to what fits.
    pub last_reason: [u8; 176],
}

const _: () = assert!(size_of::<Status>() == 232);

impl Status {
    /// The build-id.
    pub fn build_id(&self) -> &[u8] {
        self.build_id
            .get(..usize::from(self.build_id_len))
            .unwrap_or(&self.build_id)
    }

    /// Why the last load was refused, empty if none was.
    pub fn last_reason(&self) -> &str {
        until_nul(&self.last_reason)
    }

    /// Sets the error of the last load.
    pub fn set_last_error(&mut self, errno: Errno, reason: &str) {
        self.last_errno = errno.number();
        self.last_reason = nul_padded(reason);
    }
}

/// The text that `read` gives: one `name: value` a line.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |known: Option<&'static str>| known.unwrap_or("unknown");
        let state = State::from_number(self.state);
        writeln!(f, "state: {}", name(state.map(State::name)))?;
        write!(f, "build_id: ")?;
        for byte in self.build_id() {
            write!(f, "{byte:02x}")?;
        }
        writeln!(f)?;
        if state == Some(State::Loaded) {
            let encoding = Encoding::from_number(self.encoding).map(Encoding::name);
            let profile = Profile::from_number(self.profile).map(Profile::name);
            writeln!(f, "encoding: {}", name(encoding))?;
            writeln!(f, "profile: {}", name(profile))?;
            writeln!(f, "entries: {}", self.rows)?;
            writeln!(f, "files: {}", self.files)?;
            writeln!(f, "bytes: {}", self.bytes)?;
            writeln!(f, "memory: {}", self.memory)?;
        }
        if self.last_errno != 0 {
            let errno = Errno::from_number(self.last_errno).map(Errno::name);
            writeln!(f, "last_error: {}: {}", name(errno), self.last_reason())?;
        }
        Ok(())
    }
}

numbered! {
    /// The kinds of [`crate::Address`] that a [`Lookup`] asks for.
    AddressKind: u32 {
        /// [`crate::Address::Exact`].
        Exact = 0, "exact";
        /// [`crate::Address::Return`].
        Return = 1, "return";
        /// [`crate::Address::Trap`].
        Trap = 2, "trap";
    }
}

/// [`Lookup`] found a location.
pub const LOOKUP_FOUND: u32 = 1;
/// The location found is approximate.
pub const LOOKUP_APPROXIMATE: u32 = 2;

/// The argument of [`NR_LOOKUP`], 280 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Lookup {
    /// In: a run-time address.
    pub address: u64,
    /// In: an [`AddressKind`].
    pub kind: u32,
    /// Out: 0 for a miss, or [`LOOKUP_FOUND`], with or without [`LOOKUP_APPROXIMATE`].
    pub result: u32,
    /// Out: the line, from 1.
    pub line: u32,
    /// Zero.
    pub reserved: u32,
    /// Out: the file, UTF-8, zeros behind it; cut to what fits.
    pub file: [u8; 256],
}

const _: () = assert!(size_of::<Lookup>() == 280);

impl Lookup {
    /// A question.
    pub const fn new(address: Address<u64>) -> Self {
        let kind = match address {
            Address::Return(_) => AddressKind::Return,
            Address::Exact(_) => AddressKind::Exact,
            Address::Trap(_) => AddressKind::Trap,
        };
        Self {
            address: address.value(),
            kind: kind.number(),
            result: 0,
            line: 0,
            reserved: 0,
            file: [0; 256],
        }
    }

    /// The address that is asked for; `None` for a kind that this version does not know.
    pub const fn address(&self) -> Option<Address<u64>> {
        match AddressKind::from_number(self.kind) {
            Some(AddressKind::Return) => Some(Address::Return(self.address)),
            Some(AddressKind::Exact) => Some(Address::Exact(self.address)),
            Some(AddressKind::Trap) => Some(Address::Trap(self.address)),
            None => None,
        }
    }

    /// Fills in the answer.
    pub fn answer(&mut self, location: Option<crate::Location<'_>>) {
        *self = Self {
            result: 0,
            line: 0,
            reserved: 0,
            file: [0; 256],
            ..*self
        };
        if let Some(location) = location {
            let approximate = if location.approximate {
                LOOKUP_APPROXIMATE
            } else {
                0
            };
            self.result = LOOKUP_FOUND | approximate;
            self.line = location.line;
            location.file.push_to(&mut StrBuffer::new(&mut self.file));
        }
    }

    /// The file, empty in a miss.
    pub fn file(&self) -> &str {
        until_nul(&self.file)
    }
}

fn until_nul(bytes: &[u8]) -> &str {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or(&[]);
    core::str::from_utf8(text).unwrap_or("")
}

fn nul_padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    StrBuffer::new(&mut bytes).push_str(text);
    bytes
}

/// The same operations over a Unix stream socket, for a kernel without character devices.
///
/// A connection is an open file: the first request is [`socket::Op::Open`], closing the connection closes
/// the file. Each request is a [`socket::Request`] and `len` bytes; each is answered by a
/// [`socket::Reply`] and `len` bytes. The kernel takes the peer's credentials from the socket.
pub mod socket {
    use super::{FromBytes, Immutable, IntoBytes, KnownLayout, numbered};

    numbered! {
        /// What a request asks for.
        Op: u32 {
            /// Open; `arg` is [`OPEN_READ`] or [`OPEN_WRITE`], or both.
            Open = 1, "open";
            /// Write the payload; the reply's `value` is how many bytes were taken.
            Write = 2, "write";
            /// Read the status as text, from byte `arg` on; the payload of the reply.
            Read = 3, "read";
            /// The ioctl with number `arg`; its argument is the payload, there and back.
            Ioctl = 4, "ioctl";
        }
    }

    /// Open for status and look-ups.
    pub const OPEN_READ: u32 = 1;
    /// Open for load and unload: exclusive and privileged.
    pub const OPEN_WRITE: u32 = 2;

    /// Largest payload of a request or reply, in bytes.
    pub const PAYLOAD_MAX: u32 = 64 * 1024;

    /// The head of a request, 12 bytes.
    #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
    #[repr(C)]
    pub struct Request {
        /// An [`Op`].
        pub op: u32,
        /// See [`Op`].
        pub arg: u32,
        /// Length of the payload in bytes, at most [`PAYLOAD_MAX`].
        pub len: u32,
    }

    /// The head of a reply, 12 bytes.
    #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
    #[repr(C)]
    pub struct Reply {
        /// 0, or an [`super::Errno`].
        pub errno: u32,
        /// See [`Op`].
        pub value: u32,
        /// Length of the payload in bytes, at most [`PAYLOAD_MAX`].
        pub len: u32,
    }
}
