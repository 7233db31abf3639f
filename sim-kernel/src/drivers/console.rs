//! `/dev/console`: standard output of the process, and lines of its input.

use nix::errno::Errno;

use crate::fs::{FileOperations, Node};
use crate::machine::frames::keep_frame;
use crate::machine::syscall;

/// The device.
pub(crate) const NODE: Node = Node {
    path: "/dev/console",
    permissions: 0o600,
    driver_decides: false,
    open: |_, _, _| Ok(Box::new(Console)),
};

struct Console;

impl FileOperations for Console {
    #[inline(never)]
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        syscall::write_all(syscall::CONSOLE, bytes)?;
        keep_frame(Ok(bytes.len()))
    }
}

/// Reads one line from a descriptor of the host, without its end; `None` at the end of the input.
///
/// A line that is too long comes in pieces. Nothing is read ahead: the next line may be for kdb.
#[inline(never)]
pub(crate) fn read_line(fd: i32, buffer: &mut [u8]) -> Result<Option<&[u8]>, Errno> {
    let mut len = 0;
    let mut ended = false;
    while let Some(free) = buffer.get_mut(len..len + 1) {
        match syscall::read(fd, free) {
            Ok(0) if len == 0 => return keep_frame(Ok(None)),
            Ok(_) if free[0] == b'\n' => ended = true,
            Ok(0) => ended = true,
            Ok(_) => len += 1,
            Err(Errno::EINTR) => {}
            Err(errno) => return keep_frame(Err(errno)),
        }
        if ended {
            break;
        }
    }
    keep_frame(Ok(Some(&buffer[..len])))
}
