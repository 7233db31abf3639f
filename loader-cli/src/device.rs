//! A kernel's lineinfo device, reached through its Unix socket.
//!
//! ```text
//!   load: open for writing ─ write, write, … ─ commit ─ status
//!                                   │             │
//!                              the kernel refuses with an errno, and says why in its status
//! ```

use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use lineinfo_core::uapi::door::{OPEN_READ, OPEN_WRITE, Op, PAYLOAD_MAX, Reply, Request};
use lineinfo_core::uapi::{
    Lookup, NR_COMMIT, NR_LOOKUP, NR_STATUS, NR_TARGET, NR_UNLOAD, Status, Target,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::error::Error;

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Status and look-ups; for anybody.
    Read,
    /// Load and unload; exclusive, and for root or the owner of the kernel.
    Write,
}

/// An open device; dropping it closes it, and discards a blob that was not written to its end.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    stream: UnixStream,
}

/// Why a request was not answered with success.
enum Refusal {
    Errno(u32),
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Device {
    /// Opens a device.
    ///
    /// # Errors
    ///
    /// [`Error::NotADevice`] if there is no device at that path, [`Error::Device`] if it refuses:
    /// `EBUSY` while somebody else loads, `EPERM` without the right to.
    pub fn open(path: &Path, access: Access) -> Result<Self, Error> {
        let kind = path.metadata().map_err(Error::io(path))?.file_type();
        if !kind.is_socket() {
            return Err(Error::NotADevice {
                path: path.to_owned(),
                found: "it is no socket; name the socket of a running kernel (sim-kernel --socket PATH)"
                    .to_owned(),
            });
        }
        let stream = UnixStream::connect(path).map_err(Error::io(path))?;
        let mut device = Self {
            path: path.to_owned(),
            stream,
        };
        let flags = match access {
            Access::Read => OPEN_READ,
            Access::Write => OPEN_READ | OPEN_WRITE,
        };
        let opened = device.request(Op::Open, flags, &[], &mut []);
        device.explain("open", opened)?;
        Ok(device)
    }

    /// What follows is about the table of this module.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], with `ENOENT` where no such module is loaded.
    pub fn target(&mut self, module: &str) -> Result<(), Error> {
        let target = Target::module(module)
            .ok_or_else(|| Error::Usage(format!("{module:?} is too long for a module's name")))?;
        let mut back = target;
        let done = self.request(
            Op::Ioctl,
            NR_TARGET.into(),
            target.as_bytes(),
            back.as_mut_bytes(),
        );
        self.explain("module", done)?;
        Ok(())
    }

    /// Loads a blob: streams it and asks whether it is live.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] with the kernel's errno and reason; the table that was loaded before is
    /// untouched.
    pub fn load(&mut self, blob: &[u8], mut written: impl FnMut(u64)) -> Result<(), Error> {
        let mut rest = blob;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(PAYLOAD_MAX as usize)];
            let taken = self.request(Op::Write, 0, piece, &mut []);
            let taken = self.explain("load", taken)? as usize;
            rest = rest
                .get(taken..)
                .filter(|_| taken > 0)
                .ok_or_else(|| self.broken(format!("it took {taken} of {} bytes", piece.len())))?;
            written((blob.len() - rest.len()) as u64);
        }
        let live = self.request(Op::Ioctl, NR_COMMIT.into(), &[], &mut []);
        self.explain("load", live)?;
        Ok(())
    }

    /// Empties the slot.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], with `ENODATA` where nothing is loaded.
    pub fn unload(&mut self) -> Result<(), Error> {
        let done = self.request(Op::Ioctl, NR_UNLOAD.into(), &[], &mut []);
        self.explain("unload", done)?;
        Ok(())
    }

    /// What the slot holds.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::NotADevice`] for a device that does not answer.
    pub fn status(&mut self) -> Result<Status, Error> {
        let mut status = Status::new_zeroed();
        let done = self.request(Op::Ioctl, NR_STATUS.into(), &[], status.as_mut_bytes());
        self.explain("status", done)?;
        Ok(status)
    }

    /// File and line of a run-time address.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], with `ENODATA` where nothing is loaded.
    pub fn lookup(&mut self, address: u64, flags: u32) -> Result<Lookup, Error> {
        let question = Lookup::new(address, flags);
        let mut answer = question;
        let done = self.request(
            Op::Ioctl,
            NR_LOOKUP.into(),
            question.as_bytes(),
            answer.as_mut_bytes(),
        );
        self.explain("lookup", done)?;
        Ok(answer)
    }

    /// Sends a request, and reads the reply with the payload that it should have.
    fn request(
        &mut self,
        op: Op,
        arg: u32,
        payload: &[u8],
        answer: &mut [u8],
    ) -> Result<u32, Refusal> {
        let request = Request {
            op: op.number(),
            arg,
            len: payload.len() as u32,
        };
        self.stream.write_all(request.as_bytes())?;
        self.stream.write_all(payload)?;
        let mut reply = [0; size_of::<Reply>()];
        self.stream.read_exact(&mut reply)?;
        let reply = Reply::read_from_bytes(&reply)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if reply.errno != 0 && reply.len == 0 {
            return Err(Refusal::Errno(reply.errno));
        }
        if reply.errno != 0 || reply.len as usize != answer.len() {
            return Err(Refusal::Io(io::ErrorKind::InvalidData.into()));
        }
        self.stream.read_exact(answer)?;
        Ok(reply.value)
    }

    /// Turns a refusal into an error; for an errno the kernel's reason is in its status.
    fn explain<T>(
        &mut self,
        operation: &'static str,
        outcome: Result<T, Refusal>,
    ) -> Result<T, Error> {
        match outcome {
            Ok(value) => Ok(value),
            Err(Refusal::Errno(errno)) => {
                let mut status = Status::new_zeroed();
                let reason = match operation {
                    "load" => self
                        .request(Op::Ioctl, NR_STATUS.into(), &[], status.as_mut_bytes())
                        .map_or("", |_| status.last_reason()),
                    _ => "",
                };
                Err(Error::Device {
                    path: self.path.clone(),
                    operation,
                    errno,
                    reason: reason.to_owned(),
                })
            }
            Err(Refusal::Io(error)) => Err(self.broken(error.to_string())),
        }
    }

    fn broken(&self, found: String) -> Error {
        Error::NotADevice {
            path: self.path.clone(),
            found,
        }
    }
}
