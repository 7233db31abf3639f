//! Requests that are neither reading nor writing.

use nix::errno::Errno;

use super::{File, Task, file};
use crate::machine::frames::keep_frame;

/// Passes a request to a file's driver.
#[inline(never)]
pub(crate) fn ksys_ioctl(
    task: &mut Task,
    fd: usize,
    request: u32,
    argument: &mut [u8],
) -> Result<usize, Errno> {
    keep_frame(vfs_ioctl(file(task, fd)?, request, argument))
}

#[inline(never)]
fn vfs_ioctl(file: &mut File, request: u32, argument: &mut [u8]) -> Result<usize, Errno> {
    keep_frame(file.operations.ioctl(request, argument))
}
