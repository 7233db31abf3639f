//! Reading and writing files.

use nix::errno::Errno;

use super::{File, Task, file};
use crate::machine::frames::keep_frame;

/// Reads from where the last read ended.
#[inline(never)]
pub(crate) fn ksys_read(task: &mut Task, fd: usize, buffer: &mut [u8]) -> Result<usize, Errno> {
    let file = file(task, fd)?;
    let read = vfs_read(file, buffer, file.position)?;
    file.position += read as u64;
    keep_frame(Ok(read))
}

/// Reads from a position.
#[inline(never)]
pub(crate) fn ksys_pread64(
    task: &mut Task,
    fd: usize,
    buffer: &mut [u8],
    at: u64,
) -> Result<usize, Errno> {
    keep_frame(vfs_read(file(task, fd)?, buffer, at))
}

#[inline(never)]
fn vfs_read(file: &mut File, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
    if !file.mode.read {
        return Err(Errno::EBADF);
    }
    keep_frame(file.operations.read(buffer, at))
}

/// Writes at the end of what was written.
#[inline(never)]
pub(crate) fn ksys_write(task: &mut Task, fd: usize, bytes: &[u8]) -> Result<usize, Errno> {
    keep_frame(vfs_write(file(task, fd)?, bytes))
}

#[inline(never)]
fn vfs_write(file: &mut File, bytes: &[u8]) -> Result<usize, Errno> {
    if !file.mode.write {
        return Err(Errno::EBADF);
    }
    keep_frame(file.operations.write(bytes))
}
