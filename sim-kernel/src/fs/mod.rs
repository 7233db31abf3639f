//! The virtual file system: one tree of names, and the operations of each file.
//!
//! Owners of files register them ([`namei::register`]). A script, a client of the socket and a
//! process in the mounted tree use the same operations.

use std::fmt;

use nix::errno::Errno;

use cred::Credentials;

pub(crate) mod cred;
pub(crate) mod ioctl;
pub(crate) mod namei;
pub(crate) mod open;
pub(crate) mod proc;
pub(crate) mod read_write;
pub(crate) mod snapshot;

/// The operations of an open file; dropping it closes the file.
pub(crate) trait FileOperations: Send {
    /// Reads from a position, in bytes; 0 bytes are the end.
    fn read(&mut self, _buffer: &mut [u8], _at: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes at the end of what was written; returns the number of bytes taken.
    fn write(&mut self, _bytes: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Makes any other request; the argument has the size that is in the number of the request.
    fn ioctl(&mut self, _request: u32, _argument: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::ENOTTY)
    }

    /// A descriptor of the file is being closed, perhaps not the last one: an error in what was
    /// written so far is the error of that `close`.
    fn flush(&mut self) -> Result<(), Errno> {
        Ok(())
    }
}

/// The access that a file is opened for.
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

/// Opens the file at a path.
pub(crate) type Open = fn(&str, Credentials, OpenMode) -> Result<Box<dyn FileOperations>, Errno>;

/// A file in the tree.
pub(crate) struct Node {
    /// Its absolute path.
    pub(crate) path: &'static str,
    /// Its permissions in the form of `chmod`; the owner is root.
    pub(crate) permissions: u16,
    /// The driver decides who may write, and logs why not; the permissions are what `stat` shows.
    pub(crate) driver_decides: bool,
    /// Opens it.
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

/// A task as system calls see it.
#[derive(Debug)]
pub(crate) struct Task {
    /// Its rights.
    pub(crate) credentials: Credentials,
    /// Its open files; the index is the descriptor.
    files: Vec<Option<File>>,
}

impl Task {
    /// A task without files.
    pub(crate) const fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            files: Vec::new(),
        }
    }
}

fn file(task: &mut Task, fd: usize) -> Result<&mut File, Errno> {
    task.files
        .get_mut(fd)
        .and_then(Option::as_mut)
        .ok_or(Errno::EBADF)
}
