//! The device as a file: a character device, or a kernel's mounted `dev/lineinfo`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use lineinfo_core::uapi::{
    Errno, IOCTL_TYPE, Lookup, NR_COMMIT, NR_LOOKUP, NR_STATUS, NR_TARGET, NR_UNLOAD, Status,
    Target,
};
use zerocopy::FromZeros;

use super::{Refusal, Transport};

/// The requests of `lineinfo_core::uapi`, as nix makes functions of them.
mod request {
    use super::{
        IOCTL_TYPE, Lookup, NR_COMMIT, NR_LOOKUP, NR_STATUS, NR_TARGET, NR_UNLOAD, Status, Target,
    };

    nix::ioctl_read!(status, IOCTL_TYPE, NR_STATUS, Status);
    nix::ioctl_none!(commit, IOCTL_TYPE, NR_COMMIT);
    nix::ioctl_none!(unload, IOCTL_TYPE, NR_UNLOAD);
    nix::ioctl_readwrite!(lookup, IOCTL_TYPE, NR_LOOKUP, Lookup);
    nix::ioctl_readwrite!(target, IOCTL_TYPE, NR_TARGET, Target);
}

/// An errno of the device is its answer; any other says that there is none.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let number = error
            .raw_os_error()
            .and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| Errno::from_number(*number).is_some()) {
            Some(errno) => Self::Errno(errno),
            None => Self::Io(error),
        }
    }
}

impl From<nix::errno::Errno> for Refusal {
    fn from(errno: nix::errno::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl Transport for File {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        loop {
            match Write::write(self, bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return Ok(written?),
            }
        }
    }

    fn commit(&mut self) -> Result<(), Refusal> {
        // SAFETY: passes a descriptor that `self` keeps open, and no pointer.
        unsafe { request::commit(self.as_raw_fd()) }?;
        Ok(())
    }

    fn unload(&mut self) -> Result<(), Refusal> {
        // SAFETY: passes a descriptor that `self` keeps open, and no pointer.
        unsafe { request::unload(self.as_raw_fd()) }?;
        Ok(())
    }

    fn target(&mut self, mut target: Target) -> Result<(), Refusal> {
        // SAFETY: the number of the request says that the size of a `Target` is read and written,
        // it has no padding (`IntoBytes`), any bytes are one (`FromBytes`), and the reference is
        // exclusive and valid during the call.
        unsafe { request::target(self.as_raw_fd(), &raw mut target) }?;
        Ok(())
    }

    fn status(&mut self) -> Result<Status, Refusal> {
        let mut status = Status::new_zeroed();
        // SAFETY: the number of the request says that the size of a `Status` is written, any bytes
        // are one (`FromBytes`), and the reference is exclusive and valid during the call.
        unsafe { request::status(self.as_raw_fd(), &raw mut status) }?;
        Ok(status)
    }

    fn lookup(&mut self, mut question: Lookup) -> Result<Lookup, Refusal> {
        // SAFETY: the number of the request says that the size of a `Lookup` is read and written,
        // it has no padding (`IntoBytes`), any bytes are one (`FromBytes`), and the reference is
        // exclusive and valid during the call.
        unsafe { request::lookup(self.as_raw_fd(), &raw mut question) }?;
        Ok(question)
    }
}
