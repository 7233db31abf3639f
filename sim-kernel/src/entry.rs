//! The system calls.

use nix::errno::Errno;

use crate::fs::{OpenMode, Task};
use crate::fs::{ioctl, open, read_write};
use crate::kernel::module;
use crate::machine::frames::keep_frame;

/// A system call.
#[derive(Debug)]
pub(crate) enum Syscall<'a> {
    /// Opens a file; returns its descriptor.
    Open {
        /// An absolute path.
        path: &'a str,
        /// The access.
        mode: OpenMode,
    },
    /// Reads from where the last read ended; returns the number of bytes, 0 at the end.
    Read {
        /// A descriptor.
        fd: usize,
        /// Where to put the bytes.
        buffer: &'a mut [u8],
    },
    /// Reads from a position of the file, in bytes.
    Pread {
        /// A descriptor.
        fd: usize,
        /// Where to put the bytes.
        buffer: &'a mut [u8],
        /// Position, in bytes.
        at: u64,
    },
    /// Writes; returns the number of bytes taken.
    Write {
        /// A descriptor.
        fd: usize,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Makes a request of a device.
    Ioctl {
        /// A descriptor.
        fd: usize,
        /// The number of the request, which has its direction and size.
        request: u32,
        /// Its argument, of that size.
        argument: &'a mut [u8],
    },
    /// Closes a descriptor of a file that has others.
    Flush {
        /// A descriptor.
        fd: usize,
    },
    /// Closes a file.
    Close {
        /// A descriptor.
        fd: usize,
    },
    /// Loads a module.
    InitModule {
        /// A path of the host.
        path: &'a str,
    },
    /// Unloads a module.
    DeleteModule {
        /// Its name.
        name: &'a str,
    },
}

/// Executes a system call of a task.
#[inline(never)]
pub(crate) fn do_syscall_64(task: &mut Task, call: Syscall<'_>) -> Result<usize, Errno> {
    keep_frame(match call {
        Syscall::Open { path, mode } => open::ksys_open(task, path, mode),
        Syscall::Read { fd, buffer } => read_write::ksys_read(task, fd, buffer),
        Syscall::Pread { fd, buffer, at } => read_write::ksys_pread64(task, fd, buffer, at),
        Syscall::Write { fd, bytes } => read_write::ksys_write(task, fd, bytes),
        Syscall::Ioctl {
            fd,
            request,
            argument,
        } => ioctl::ksys_ioctl(task, fd, request, argument),
        Syscall::Flush { fd } => open::ksys_flush(task, fd),
        Syscall::Close { fd } => open::ksys_close(task, fd),
        Syscall::InitModule { .. } | Syscall::DeleteModule { .. }
            if !task.credentials.privileged() =>
        {
            Err(Errno::EPERM)
        }
        Syscall::InitModule { path } => module::init_module(path),
        Syscall::DeleteModule { name } => module::delete_module(name),
    })
}
