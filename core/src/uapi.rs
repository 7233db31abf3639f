//! The ABI of the device `/dev/lineinfo`, shared by the kernel and its loader.
//!
//! The device has the semantics of a file. `open` for writing is exclusive. `write` streams a blob
//! in pieces of any size; the table is published with the last byte of a valid one, and the `write`
//! that brought it fails with an [`Errno`] if the device refuses it. `close` before that discards
//! what was written. `read` gives the status as text. A file that is open for writing and makes no
//! request for some time (30 seconds by default) can lose the device to the next opener; its own
//! requests then fail with [`Errno::ETIMEDOUT`].
//!
//! The ioctls are those of the enumeration [`Ioctl`], the one table from which the kernel and the
//! loader make their dispatch. Their arguments have a fixed size and no pointers (what FUSE demands),
//! in the byte order of the host.
//!
//! Where there is no character device, a Unix stream socket carries the same operations:
//! [`socket`].

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::blob::{BUILD_ID_MAX, Encoding, Profile, numbered};
use crate::buffer::{self, StrBuffer};
use crate::name::NAME_MAX;
use crate::{Address, Frame};

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
        /// The user has as many files or connections of the device open as one user may.
        EMFILE = 24, "EMFILE";
        /// No such ioctl of this device.
        ENOTTY = 25, "ENOTTY";
        /// The blob is larger than `lineinfo.max=` allows.
        EFBIG = 27, "EFBIG";
        /// Nothing is loaded.
        ENODATA = 61, "ENODATA";
        /// The checksum does not match.
        EBADMSG = 74, "EBADMSG";
        /// This file made no request for so long that another one has taken the device over.
        ETIMEDOUT = 110, "ETIMEDOUT";
        /// The blob was built for another kernel.
        ESTALE = 116, "ESTALE";
        /// The blob has no signature of the key that this kernel demands.
        EKEYREJECTED = 129, "EKEYREJECTED";
    }
}

/// The type byte of the ioctl numbers; free in Linux's `ioctl-number.rst` as of 6.12.
pub const IOCTL_TYPE: u8 = 0xf7;

/// Where the argument of an [`Ioctl`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// There is none (`_IO`).
    None,
    /// From the device to its user (`_IOR`).
    Read,
    /// To the device and back (`_IOWR`).
    ReadWrite,
}

/// Who may make a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever has the device open.
    Anybody,
    /// Who has it open for writing.
    Writer,
}

/// Defines the requests of the device: number, name, direction, argument, and who may make it.
macro_rules! ioctls {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal, $text:literal, $direction:ident, $argument:ty, $who:ident;)*) => {
        numbered! {
            /// The requests of the device.
            Ioctl: u8 { $($(#[doc = $doc])* $variant = $number, $text;)* }
        }

        impl Ioctl {
            /// Where the argument goes.
            pub const fn direction(self) -> Direction {
                match self { $(Self::$variant => Direction::$direction),* }
            }

            /// Size of the argument in bytes.
            pub const fn size(self) -> usize {
                match self { $(Self::$variant => size_of::<$argument>()),* }
            }

            /// The name of the argument's type, for a header in another language.
            pub const fn argument(self) -> &'static str {
                match self { $(Self::$variant => stringify!($argument)),* }
            }

            /// Who may make it.
            pub const fn who(self) -> Who {
                match self { $(Self::$variant => Who::$who),* }
            }
        }
    };
}

ioctls! {
    /// What the slot holds.
    Status = 0, "status", Read, Status, Anybody;
    /// Succeeds once the blob that was written to this file is published; otherwise says why it is
    /// not.
    Commit = 1, "commit", None, (), Writer;
    /// Empties the slot and frees its memory.
    Unload = 2, "unload", None, (), Writer;
    /// File and line of an address, and the functions that are inlined there: by run-time address for
    /// who may see those, by offset from `_text` for anybody.
    Lookup = 3, "lookup", ReadWrite, Lookup, Anybody;
    /// Whose table this open file is about: that of the kernel, or of a module. The argument comes
    /// back as it was.
    Target = 4, "target", ReadWrite, Target, Anybody;
    /// Discards what was written to this file, refused or not, so that another blob can follow. A
    /// table that was published stays.
    Abort = 5, "abort", None, (), Writer;
}

impl Ioctl {
    /// The number that a program passes to `ioctl`.
    pub const fn code(self) -> u32 {
        let (read, write) = match self.direction() {
            Direction::None => (false, false),
            Direction::Read => (true, false),
            Direction::ReadWrite => (true, true),
        };
        ioctl_code(read, write, IOCTL_TYPE, self.number(), self.size())
    }

    /// The request with such a number, if it is one of this device.
    pub fn from_code(code: u32) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|request| request.code() == code)
    }
}

/// The number of an ioctl: `_IOC` of Linux's `include/uapi/asm-generic/ioctl.h`, and of
/// `arch/{mips,powerpc,sparc}/include/uapi/asm/ioctl.h`.
///
/// The direction is the user's: `read` if the device writes the argument.
#[expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "computed at compile time, where an overflow does not build"
)]
pub const fn ioctl_code(read: bool, write: bool, kind: u8, number: u8, size: usize) -> u32 {
    const OTHER: bool = cfg!(any(
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "powerpc",
        target_arch = "powerpc64",
        target_arch = "sparc",
        target_arch = "sparc64"
    ));
    let (size_bits, none, read_bit, write_bit) = if OTHER { (13, 1, 2, 4) } else { (14, 0, 2, 1) };
    let mut direction = 0;
    if read {
        direction |= read_bit;
    }
    if write {
        direction |= write_bit;
    }
    if !read && !write {
        direction = none;
    }
    let size = size as u32 & ((1 << size_bits) - 1);
    direction << (16 + size_bits) | size << 16 | (kind as u32) << 8 | number as u32
}

/// Longest name of a module, in bytes (`MODULE_NAME_LEN` of 64-bit Linux, without the zero).
pub const MODULE_NAME_MAX: usize = 55;
/// Room for the name of a module and a zero after it, in bytes.
pub const MODULE_NAME_SIZE: usize = 56;
const _: () = assert!(MODULE_NAME_SIZE == MODULE_NAME_MAX + 1);

/// The argument of [`Ioctl::Target`], 56 bytes.
///
/// A file that was just opened is about the kernel. What was written before is discarded with the
/// file, so the target comes first.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Target {
    /// The name of a module, zeros after it; none for the kernel.
    pub name: [u8; MODULE_NAME_SIZE],
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
            name: [0; MODULE_NAME_SIZE],
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

/// Room for the reason of a refusal in a [`Status`], in bytes.
pub const REASON_BYTES: usize = 176;

/// The argument of [`Ioctl::Status`], 232 bytes; the numbers are zero where nothing is loaded.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Status {
    /// A [`State`].
    pub state: u32,
    /// Number of rows.
    pub rows: u32,
    /// Number of files.
    pub files: u32,
    /// [`Errno`] of what was last refused to this slot, 0 if nothing was.
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
    /// Why it was refused: UTF-8, zeros after it; cut to what fits.
    pub last_reason: [u8; REASON_BYTES],
}

const _: () = assert!(size_of::<Status>() == 232);

/// Longest text of a [`Status`], in bytes.
pub const STATUS_TEXT_MAX: usize = 400;

impl Status {
    /// The build-id.
    pub fn build_id(&self) -> &[u8] {
        self.build_id
            .get(..usize::from(self.build_id_len))
            .unwrap_or(&self.build_id)
    }

    /// Why something was last refused, empty if nothing was.
    pub fn last_reason(&self) -> &str {
        until_nul(&self.last_reason)
    }

    /// Sets the build-id; of a longer one only as much as there is room for.
    pub fn set_build_id(&mut self, id: &[u8]) {
        self.build_id = [0; BUILD_ID_MAX];
        self.build_id_len = 0;
        for (to, from) in self.build_id.iter_mut().zip(id) {
            *to = *from;
            self.build_id_len = self.build_id_len.saturating_add(1);
        }
    }

    /// Appends the text that `read` gives, one `name: value` a line, without `core::fmt`.
    pub fn push_to(&self, text: &mut StrBuffer<'_>) {
        let name = |known: Option<&'static str>| known.unwrap_or("unknown");
        let state = State::from_number(self.state);
        push_line(text, "state", name(state.map(State::name)));
        text.push_str("build_id: ");
        text.push_hex(self.build_id());
        text.push_str("\n");
        if state == Some(State::Loaded) {
            let encoding = Encoding::from_number(self.encoding).map(Encoding::name);
            let profile = Profile::from_number(self.profile).map(Profile::name);
            push_line(text, "encoding", name(encoding));
            push_line(text, "profile", name(profile));
            for (name, value) in [
                ("entries", self.rows.into()),
                ("files", self.files.into()),
                ("bytes", self.bytes),
                ("memory", self.memory),
            ] {
                text.push_str(name);
                text.push_str(": ");
                text.push_u64(value);
                text.push_str("\n");
            }
        }
        if self.last_errno != 0 {
            let errno = Errno::from_number(self.last_errno).map(Errno::name);
            text.push_str("last_error: ");
            text.push_str(name(errno));
            push_line(text, "", self.last_reason());
        }
    }
}

fn push_line(text: &mut StrBuffer<'_>, name: &str, value: &str) {
    text.push_str(name);
    text.push_str(": ");
    text.push_str(value);
    text.push_str("\n");
}

/// [`Status::push_to`].
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        buffer::display(f, |text| self.push_to(text))
    }
}

numbered! {
    /// The kinds of [`crate::Address`] that a [`Lookup`] asks for.
    AddressKind: u32 {
        /// The instruction itself ([`crate::Address::Exact`]).
        Exact = 0, "exact";
        /// A call returns to it ([`crate::Address::Return`]).
        Return = 1, "return";
        /// An instruction that traps by design ([`crate::Address::Trap`]).
        Trap = 2, "trap";
    }
}

impl AddressKind {
    /// An address of this kind.
    pub const fn address(self, value: u64) -> Address<u64> {
        match self {
            Self::Return => Address::Return(value),
            Self::Exact => Address::Exact(value),
            Self::Trap => Address::Trap(value),
        }
    }
}

numbered! {
    /// What the address of a [`Lookup`] is counted from.
    AddressBase: u32 {
        /// From 0: a run-time address, of the kernel or of a module. The answer tells where they
        /// are, so it is for who may see addresses.
        RunTime = 0, "runtime";
        /// From `_text` of the file's [`Target`], for anybody: the answer is the same wherever the
        /// kernel is.
        Text = 1, "text";
    }
}

/// [`Lookup`] found a location.
pub const LOOKUP_FOUND: u32 = 1;
/// The location found is approximate.
pub const LOOKUP_APPROXIMATE: u32 = 2;

/// Room for the name of a function in a [`Lookup`], in bytes: no name is longer.
pub const FUNCTION_BYTES: usize = 512;
const _: () = assert!(FUNCTION_BYTES == NAME_MAX);

/// The argument of [`Ioctl::Lookup`], 800 bytes.
///
/// It is about one of the functions at an address. The one of level 0 is the innermost, whose location is
/// that of the address. After its answer, who wants the others asks for each level below `levels`. If another
/// table was published between two requests, `checksum` differs, and the answers do not belong together.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Lookup {
    /// In: an address, in bytes from the [`AddressBase`].
    pub address: u64,
    /// In: an [`AddressKind`].
    pub kind: u32,
    /// In: an [`AddressBase`].
    pub base: u32,
    /// In: which function, from 0 on, the innermost.
    pub level: u16,
    /// Out: how many functions there are, inlined ones and last the physical function; 0 if the table
    /// does not know them there.
    pub levels: u16,
    /// Out: the checksum of the table that answered ([`crate::blob::Header::crc32`]).
    pub checksum: u32,
    /// Out: 0 for a miss, or [`LOOKUP_FOUND`], with or without [`LOOKUP_APPROXIMATE`].
    pub result: u32,
    /// Out: the line, from 1.
    pub line: u32,
    /// Out: the file, UTF-8, padded with zeros; cut to what fits.
    pub file: [u8; 256],
    /// Out: the name of an inlined function, UTF-8, padded with zeros; empty for the physical function,
    /// whose name is that of the symbol.
    pub function: [u8; FUNCTION_BYTES],
}

const _: () = assert!(size_of::<Lookup>() == 800);

impl Lookup {
    /// Asks for a run-time address.
    pub const fn new(address: Address<u64>) -> Self {
        Self::from_base(address, AddressBase::RunTime)
    }

    /// Asks for an address, counted from a base, and the innermost function there.
    pub const fn from_base(address: Address<u64>, base: AddressBase) -> Self {
        let kind = match address {
            Address::Return(_) => AddressKind::Return,
            Address::Exact(_) => AddressKind::Exact,
            Address::Trap(_) => AddressKind::Trap,
        };
        Self {
            address: address.value(),
            kind: kind.number(),
            base: base.number(),
            level: 0,
            levels: 0,
            checksum: 0,
            result: 0,
            line: 0,
            file: [0; 256],
            function: [0; FUNCTION_BYTES],
        }
    }

    /// The address that is asked for; `None` for a kind that this version does not know.
    pub const fn address(&self) -> Option<Address<u64>> {
        match AddressKind::from_number(self.kind) {
            Some(kind) => Some(kind.address(self.address)),
            None => None,
        }
    }

    /// What the address is counted from; `None` for a base that this version does not know.
    pub const fn base(&self) -> Option<AddressBase> {
        AddressBase::from_number(self.base)
    }

    /// Fills in the answer of a table with this checksum, which has so many levels there, and this frame
    /// at the level that was asked for.
    pub fn answer(&mut self, checksum: u32, levels: u16, frame: Option<Frame<'_>>) {
        *self = Self {
            levels,
            checksum,
            result: 0,
            line: 0,
            file: [0; 256],
            function: [0; FUNCTION_BYTES],
            ..*self
        };
        let Some(Frame { function, location }) = frame else {
            return;
        };
        let approximate = match location.approximate {
            true => LOOKUP_APPROXIMATE,
            false => 0,
        };
        self.result = LOOKUP_FOUND | approximate;
        self.line = location.line;
        location.file.push_to(&mut StrBuffer::new(&mut self.file));
        if let Some(function) = function {
            function.push_to(&mut StrBuffer::new(&mut self.function));
        }
    }

    /// The file, empty in a miss.
    pub fn file(&self) -> &str {
        until_nul(&self.file)
    }

    /// The name of the function, if it is an inlined one.
    pub fn function(&self) -> Option<&str> {
        Some(until_nul(&self.function)).filter(|name| !name.is_empty())
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
            /// The ioctl with number `arg` ([`super::Ioctl::code`]); its argument is the payload, in the
            /// directions that the number says. One that is only read need not be sent.
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
        pub error: u32,
        /// See [`Op`].
        pub value: u32,
        /// Length of the payload in bytes, at most [`PAYLOAD_MAX`].
        pub len: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_a_c_header_gives() {
        // _IOR(0xf7, 0, struct of 232 bytes), _IO(0xf7, 1), _IOWR(0xf7, 3, struct of 800 bytes).
        assert_eq!(Ioctl::Status.code(), 0x80e8_f700);
        assert_eq!(Ioctl::Commit.code(), 0x0000_f701);
        assert_eq!(Ioctl::Lookup.code(), 0xc320_f703);
        for request in Ioctl::ALL {
            assert_eq!(Ioctl::from_code(request.code()), Some(*request));
            assert_eq!(
                Ioctl::from_code(request.code() ^ 1 << 16),
                None,
                "another size"
            );
        }
        assert_eq!(
            Ioctl::from_code(0x5401),
            None,
            "TCGETS, which `isatty` asks for"
        );
    }

    #[test]
    fn the_longest_status_has_all_its_lines() {
        let status = Status {
            state: State::Loaded.number(),
            rows: u32::MAX,
            files: u32::MAX,
            last_errno: Errno::ETIMEDOUT.number(),
            bytes: u64::MAX,
            memory: u64::MAX,
            encoding: Encoding::Packed.number(),
            profile: Profile::Calls.number(),
            build_id_len: 20,
            reserved: 0,
            build_id: [0xab; BUILD_ID_MAX],
            last_reason: [b'x'; REASON_BYTES],
        };
        let mut buffer = [0; STATUS_TEXT_MAX];
        let mut text = StrBuffer::new(&mut buffer);
        status.push_to(&mut text);
        assert!(text.as_str().ends_with("xxx\n"));
        assert_eq!(std::format!("{status}"), text.as_str());
    }
}
