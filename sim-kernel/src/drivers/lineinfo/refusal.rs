use std::fmt;

use lineinfo_core::blob::BUILD_ID_MAX;
use lineinfo_core::footer::FooterError;
use lineinfo_core::uapi::Errno;
use nix::unistd::Uid;

/// Why something that was asked of the device is not done.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The bytes are no blob.
    #[error(transparent)]
    Blob(#[from] lineinfo_core::Error),
    /// The footer of the image is wrong.
    #[error(transparent)]
    Footer(#[from] FooterError),
    /// The blob was made from another machine's image.
    #[error("made for ELF machine {found}, this kernel is {kernel}; build it from this image")]
    Machine { found: u16, kernel: u16 },
    /// The blob was made from another image.
    #[error("made for build-id {found}, this kernel has {kernel}; build it from this image")]
    OtherKernel { found: BuildId, kernel: BuildId },
    /// The blob is larger than it may be.
    #[error("{size_bytes} bytes, lineinfo.max={max_bytes} allows less; boot with a larger one")]
    TooLarge { size_bytes: u64, max_bytes: u64 },
    /// There is no room for it.
    #[error("no memory for {size_bytes} bytes ({errno}); boot with a larger mem=")]
    NoMemory {
        size_bytes: u64,
        errno: nix::errno::Errno,
    },
    /// Nothing is loaded into this kernel.
    #[error("booted with lineinfo=never; boot with lineinfo=off or on")]
    Never,
    /// This user may not.
    #[error("user {uid} is neither root nor the owner of this kernel; ask one of them")]
    NotPermitted { uid: Uid },
    /// One at a time.
    #[error("somebody else has the device open for writing; try again")]
    Writing,
    /// Writing goes on behind the end.
    #[error("{found} bytes behind the end of the table, which is live; open the device again")]
    BehindEnd { found: usize },
    /// Somebody is still looking into the old table.
    #[error("the old table is still being read; try again")]
    Readers,
    /// The module is not there.
    #[error("no such module is loaded; see /proc/modules")]
    NoModule,
    /// There is no table.
    #[error("nothing is loaded")]
    Empty,
}

impl Refusal {
    /// The errno that goes with it.
    pub(crate) const fn errno(self) -> Errno {
        match self {
            Self::Blob(error) | Self::Footer(FooterError::Blob(error)) => error.errno(),
            Self::Footer(FooterError::Checksum { .. }) => Errno::EBADMSG,
            Self::Footer(_) | Self::Machine { .. } => Errno::ENOEXEC,
            Self::OtherKernel { .. } => Errno::ESTALE,
            Self::TooLarge { .. } => Errno::EFBIG,
            Self::NoMemory { .. } => Errno::ENOMEM,
            Self::Never | Self::NotPermitted { .. } => Errno::EPERM,
            Self::Writing | Self::Readers => Errno::EBUSY,
            Self::BehindEnd { .. } => Errno::EINVAL,
            Self::NoModule => Errno::ENOENT,
            Self::Empty => Errno::ENODATA,
        }
    }
}

/// As a system call returns it.
impl From<Refusal> for nix::errno::Errno {
    fn from(refusal: Refusal) -> Self {
        i32::try_from(refusal.errno().number()).map_or(Self::EINVAL, Self::from_raw)
    }
}

/// A build-id, shown in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BuildId {
    bytes: [u8; BUILD_ID_MAX],
    len: usize,
}

impl BuildId {
    /// A build-id; of a longer one only as much as a blob can hold.
    pub(crate) fn new(id: &[u8]) -> Self {
        let len = id.len().min(BUILD_ID_MAX);
        let mut bytes = [0; BUILD_ID_MAX];
        bytes[..len].copy_from_slice(&id[..len]);
        Self { bytes, len }
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == 0 {
            return f.write_str("(none)");
        }
        self.bytes[..self.len]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
