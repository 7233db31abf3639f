//! The device as a file: a character device, or a kernel's mounted `dev/lineinfo`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use lineinfo_core::uapi::{Errno, Ioctl};
use nix::libc;

use super::{Refusal, Transport};

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

impl Transport for File {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        loop {
            match Write::write(self, bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return Ok(written?),
            }
        }
    }

    fn ioctl(&mut self, request: Ioctl, argument: &mut [u8]) -> Result<(), Refusal> {
        assert_eq!(argument.len(), request.size(), "the size is in the number");
        let code = request.code() as libc::Ioctl;
        // SAFETY: `self` keeps the descriptor open. A device that knows the number reads and writes
        // at most as many bytes at the pointer as the number says, which is the length of the slice
        // (asserted above); any bytes may be in it, and the borrow is exclusive during the call.
        let done = unsafe { libc::ioctl(self.as_raw_fd(), code, argument.as_mut_ptr()) };
        if done < 0 {
            return Err(io::Error::last_os_error().into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lineinfo_core::uapi::{Direction, IOCTL_TYPE, Ioctl};

    #[test]
    fn the_numbers_are_those_of_this_machine() {
        for request in Ioctl::ALL {
            let (number, size) = (request.number(), request.size());
            let expected = match request.direction() {
                Direction::None => nix::request_code_none!(IOCTL_TYPE, number),
                Direction::Read => nix::request_code_read!(IOCTL_TYPE, number, size),
                Direction::ReadWrite => nix::request_code_readwrite!(IOCTL_TYPE, number, size),
            };
            assert_eq!(u64::from(request.code()), expected, "{request}");
        }
    }
}
