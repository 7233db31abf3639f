//! The virtual file system: files are named in one tree, and each has its operations.
//!
//! Whoever opens a file, a script, a peer behind the socket or a process in the mounted tree, gets
//! the same operations.

use std::fmt;

use nix::errno::Errno;

use crate::kernel::task::{Credentials, Task};

pub(crate) mod ioctl;
mod modules;
pub(crate) mod namei;
pub(crate) mod open;
pub(crate) mod proc;
pub(crate) mod read_write;
pub(crate) mod snapshot;

/// What an open file does; dropping it closes the file.
pub(crate) trait FileOperations: Send {
    /// Reads from a position, in bytes; 0 bytes are the end.
    fn read(&mut self, _buffer: &mut [u8], _at: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes what comes next; gives the number of bytes taken.
    fn write(&mut self, _bytes: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Anything else; the argument has the size that the number of the request says.
    fn ioctl(&mut self, _request: u32, _argument: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::ENOTTY)
    }

    /// A descriptor of the file is being closed, perhaps the last one: what is wrong with what was
    /// written so far is the error of that `close`.
    fn flush(&mut self) -> Result<(), Errno> {
        Ok(())
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenMode {
    /// Reading.
    pub(crate) read: bool,
    /// Writing.
    pub(crate) write: bool,
}

impl OpenMode {
    /// Only reading.
    pub(crate) const READ: Self = Self {
        read: true,
        write: false,
    };
    /// Only writing.
    pub(crate) const WRITE: Self = Self {
        read: false,
        write: true,
    };
}

/// Makes an open file of a path.
pub(crate) type Open = fn(&str, Credentials, OpenMode) -> Result<Box<dyn FileOperations>, Errno>;

/// A name in the tree.
pub(crate) struct Node {
    /// Its absolute path; a directory `*` is there once for each loaded module.
    pub(crate) path: &'static str,
    /// Who may do what, as `chmod` has it; it belongs to root.
    pub(crate) permissions: u16,
    /// Its driver decides who may write, and says why not; the permissions are what others see.
    pub(crate) driver_decides: bool,
    /// Makes an open file.
    pub(crate) open: Open,
}

/// An open file.
pub(crate) struct File {
    operations: Box<dyn FileOperations>,
    mode: OpenMode,
    position: u64,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("mode", &self.mode)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

fn file(task: &mut Task, fd: usize) -> Result<&mut File, Errno> {
    task.files
        .get_mut(fd)
        .and_then(Option::as_mut)
        .ok_or(Errno::EBADF)
}
