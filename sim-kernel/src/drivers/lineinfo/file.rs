//! `/dev/lineinfo` as a file; what it does is specified in [`lineinfo_core::uapi`].

use std::sync::atomic::Ordering;

use lineinfo_core::blob::{HEADER_SIZE, Header};
use lineinfo_core::uapi::{Lookup, NR_COMMIT, NR_LOOKUP, NR_STATUS, NR_TARGET, NR_UNLOAD, Target};
use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::{LINEINFO, LoadedTable, Policy, Refusal};
use crate::fs::cred::Credentials;
use crate::fs::snapshot::Snapshot;
use crate::fs::{FileOperations, Node, OpenMode};
use crate::machine::frames::keep_frame;
use crate::machine::memory::Pages;
use crate::mm::vmalloc::vmalloc;
use crate::printk;

/// The device. Its driver has a reason for everybody it turns away, and [`Credentials`] to decide.
pub(crate) const NODE: Node = Node {
    path: "/dev/lineinfo",
    permissions: 0o644,
    driver_decides: true,
    open: lineinfo_open,
};

fn lineinfo_open(
    _path: &str,
    credentials: Credentials,
    mode: OpenMode,
) -> Result<Box<dyn FileOperations>, Errno> {
    let writer = if mode.write {
        let writer = Writer::new(credentials);
        Some(writer.map_err(|refusal| LINEINFO.refuse("open", refusal))?)
    } else {
        None
    };
    Ok(Box::new(LineinfoFile {
        text: Snapshot::default(),
        target: Target::default(),
        writer,
    }))
}

struct LineinfoFile {
    text: Snapshot,
    /// Whose table it is about.
    target: Target,
    /// There if it is open for writing.
    writer: Option<Writer>,
}

impl FileOperations for LineinfoFile {
    #[inline(never)]
    fn read(&mut self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        let status = LINEINFO.status_of(&self.target)?;
        let text = || status.to_string();
        keep_frame(Ok(self.text.read(text, buffer, at)))
    }

    #[inline(never)]
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let writer = self.writer.as_mut().ok_or(Errno::EBADF)?;
        writer.write(bytes, &self.target)?;
        keep_frame(Ok(bytes.len()))
    }

    #[inline(never)]
    fn ioctl(&mut self, request: u32, argument: &mut [u8]) -> Result<usize, Errno> {
        let writer = self.writer.as_mut().ok_or(Errno::EBADF);
        match u8::try_from(request).map_err(|_| Errno::ENOTTY)? {
            NR_STATUS => {
                let status = LINEINFO.status_of(&self.target)?;
                let whole = status.write_to(argument);
                whole.map_err(|_| Errno::EINVAL)?;
            }
            NR_LOOKUP => answer(argument)?,
            NR_COMMIT if argument.is_empty() => writer?.commit()?,
            NR_UNLOAD if argument.is_empty() => {
                writer?;
                let unloaded = LINEINFO.with(&self.target, |slot, _| slot.unload());
                unloaded.map_err(|refusal| LINEINFO.refuse("unload", refusal))?;
            }
            NR_TARGET => {
                let target = Target::read_from_bytes(argument).map_err(|_| Errno::EINVAL)?;
                // What was written is for another target.
                if writer.is_ok_and(|writer| writer.has_begun()) {
                    return Err(Errno::EINVAL);
                }
                LINEINFO.with(&target, |_, _| Ok(()))?;
                self.target = target;
            }
            NR_COMMIT | NR_UNLOAD => return Err(Errno::EINVAL),
            _ => return Err(Errno::ENOTTY),
        }
        keep_frame(Ok(0))
    }

    /// A table that is not complete is an error; more of it may come through other descriptors.
    #[inline(never)]
    fn flush(&mut self) -> Result<(), Errno> {
        let writer = self.writer.as_ref().filter(|writer| writer.written() > 0);
        let error = writer.and_then(|writer| writer.load.incomplete());
        keep_frame(error.map_or(Ok(()), |error| Err(Refusal::Blob(error).into())))
    }
}

fn answer(argument: &mut [u8]) -> Result<(), Errno> {
    let mut question = Lookup::read_from_bytes(argument).map_err(|_| Errno::EINVAL)?;
    let address = question.address().ok_or(Errno::EINVAL)?;
    LINEINFO.answer(&mut question, address)?;
    question.write_to(argument).map_err(|_| Errno::EINVAL)
}

/// The one who may load and unload.
struct Writer {
    load: Load,
    credentials: Credentials,
}

/// How far a load has come.
enum Load {
    /// The header is not complete.
    Header {
        bytes: [u8; HEADER_SIZE],
        len: usize,
    },
    /// The pages are filling up.
    Body {
        pages: Pages,
        size: usize,
        len: usize,
    },
    /// The table is live.
    Live,
    /// It was refused, and so is everything that follows.
    Refused(Refusal),
}

impl Load {
    /// What is missing, where more should have come.
    fn incomplete(&self) -> Option<lineinfo_core::Error> {
        match self {
            Self::Live | Self::Refused(_) => None,
            Self::Header { bytes, len } => Header::peek(&bytes[..*len]).err(),
            Self::Body { size, len, .. } => Some(lineinfo_core::Error::Truncated {
                expected: *size as u64,
                found: *len as u64,
            }),
        }
    }
}

impl Writer {
    fn new(credentials: Credentials) -> Result<Self, Refusal> {
        if LINEINFO.config()?.policy == Policy::Never {
            return Err(Refusal::Never);
        }
        if !credentials.privileged() {
            return Err(Refusal::NotPermitted {
                uid: credentials.uid,
            });
        }
        if LINEINFO.writing.swap(true, Ordering::Acquire) {
            return Err(Refusal::Writing);
        }
        Ok(Self {
            load: Load::Header {
                bytes: [0; HEADER_SIZE],
                len: 0,
            },
            credentials,
        })
    }

    /// Whether a load is under way.
    const fn has_begun(&self) -> bool {
        match &self.load {
            Load::Header { len, .. } => *len > 0,
            Load::Body { .. } => true,
            Load::Live | Load::Refused(_) => false,
        }
    }

    fn write(&mut self, bytes: &[u8], target: &Target) -> Result<(), Refusal> {
        match &self.load {
            Load::Refused(refusal) => return Err(*refusal),
            Load::Live if bytes.is_empty() => return Ok(()),
            Load::Live => {
                let refusal = Refusal::BehindEnd { found: bytes.len() };
                return Err(LINEINFO.refuse("write", refusal));
            }
            Load::Header { .. } | Load::Body { .. } => {}
        }
        self.take(bytes, target)
            .map_err(|refusal| self.refuse(refusal))
    }

    /// Takes the bytes in; with the last one the table goes live.
    fn take(&mut self, mut bytes: &[u8], target: &Target) -> Result<(), Refusal> {
        if let Load::Header { bytes: header, len } = &mut self.load {
            let free = &mut header[*len..];
            let (now, later) = bytes.split_at(bytes.len().min(free.len()));
            free[..now.len()].copy_from_slice(now);
            *len += now.len();
            if *len < HEADER_SIZE {
                return Ok(());
            }
            self.load = begin(header)?;
            bytes = later;
        }
        let Load::Body { pages, size, len } = &mut self.load else {
            return Ok(());
        };
        let Some(free) = pages.bytes_mut()[..*size].get_mut(*len..*len + bytes.len()) else {
            return Err(Refusal::Blob(lineinfo_core::Error::Trailing {
                expected: *size as u64,
                found: (*len + bytes.len()) as u64,
            }));
        };
        free.copy_from_slice(bytes);
        *len += bytes.len();
        if len == size {
            self.finish(target)?;
        }
        Ok(())
    }

    fn finish(&mut self, target: &Target) -> Result<(), Refusal> {
        let Load::Body { pages, size, .. } = std::mem::replace(&mut self.load, Load::Live) else {
            return Ok(());
        };
        let sealed = pages.seal().map_err(|errno| no_memory(size, errno))?;
        LINEINFO.with(target, |slot, identity| {
            let table = LoadedTable::check(sealed, 0..size, identity)?;
            slot.publish(LINEINFO.without_freed(table, target, identity)?)
        })
    }

    /// Says whether what was written is live; if it is not complete, it never will be.
    fn commit(&mut self) -> Result<(), Refusal> {
        if let Load::Refused(refusal) = &self.load {
            return Err(*refusal);
        }
        match self.load.incomplete() {
            Some(error) => Err(self.refuse(error.into())),
            None => Ok(()),
        }
    }

    /// The bytes of a load that has not come to its end.
    fn written(&self) -> usize {
        match &self.load {
            Load::Header { len, .. } | Load::Body { len, .. } => *len,
            Load::Live | Load::Refused(_) => 0,
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.load = Load::Refused(refusal);
        LINEINFO.refuse("load", refusal)
    }
}

/// Makes room for the blob that this header announces.
fn begin(header: &[u8; HEADER_SIZE]) -> Result<Load, Refusal> {
    let size_bytes = Header::peek(header)?.total_size.get();
    let max_bytes = LINEINFO.config()?.max_bytes;
    if u64::from(size_bytes) > max_bytes {
        return Err(Refusal::TooLarge {
            size_bytes: size_bytes.into(),
            max_bytes,
        });
    }
    let size = size_bytes as usize;
    let mut pages = vmalloc(size).map_err(|errno| no_memory(size, errno))?;
    pages.bytes_mut()[..HEADER_SIZE].copy_from_slice(header);
    Ok(Load::Body {
        pages,
        size,
        len: HEADER_SIZE,
    })
}

pub(super) fn no_memory(size: usize, errno: Errno) -> Refusal {
    Refusal::NoMemory {
        size_bytes: size as u64,
        errno,
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Credentials { uid, host_pid } = self.credentials;
        let written = self.written();
        // The pages go back before the next writer can come.
        self.load = Load::Live;
        if written > 0 {
            printk!(
                Warning,
                "lineinfo: load by process {host_pid} of user {uid} closed after {written} bytes, before the end: discarded"
            );
        }
        LINEINFO.writing.store(false, Ordering::Release);
    }
}
