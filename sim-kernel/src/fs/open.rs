//! Opening and closing files.

use nix::errno::Errno;

use super::cred::Credentials;
use super::{File, Node, OpenMode, Task, file, namei};
use crate::machine::frames::keep_frame;

/// Opens a file for a task; returns the lowest free descriptor.
#[inline(never)]
pub(crate) fn ksys_open(task: &mut Task, path: &str, mode: OpenMode) -> Result<usize, Errno> {
    let file = vfs_open(namei::lookup(path)?, path, task.credentials, mode)?;
    let free = task.files.iter().position(Option::is_none);
    let fd = free.unwrap_or(task.files.len());
    if fd == task.files.len() {
        task.files.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        task.files.push(None);
    }
    task.files[fd] = Some(file);
    keep_frame(Ok(fd))
}

#[inline(never)]
fn vfs_open(
    node: &Node,
    path: &str,
    credentials: Credentials,
    mode: OpenMode,
) -> Result<File, Errno> {
    if !permitted(node, credentials, mode) {
        return Err(Errno::EACCES);
    }
    let operations = (node.open)(path, credentials, mode)?;
    keep_frame(Ok(File {
        operations,
        mode,
        position: 0,
    }))
}

/// Root may do everything (`CAP_DAC_OVERRIDE`); every other user is "others".
fn permitted(node: &Node, credentials: Credentials, mode: OpenMode) -> bool {
    let others = |bit: u16| node.permissions & bit != 0;
    let may_write = node.driver_decides || others(0o2);
    credentials.privileged() || ((!mode.read || others(0o4)) && (!mode.write || may_write))
}

/// Closes a file of a task; the error is that of what was written.
#[inline(never)]
pub(crate) fn ksys_close(task: &mut Task, fd: usize) -> Result<usize, Errno> {
    let file = task.files.get_mut(fd).and_then(Option::take);
    let flushed = filp_flush(&mut file.ok_or(Errno::EBADF)?);
    keep_frame(flushed)
}

/// Closes a descriptor that may not be the last one of its file.
#[inline(never)]
pub(crate) fn ksys_flush(task: &mut Task, fd: usize) -> Result<usize, Errno> {
    keep_frame(filp_flush(file(task, fd)?))
}

#[inline(never)]
fn filp_flush(file: &mut File) -> Result<usize, Errno> {
    keep_frame(file.operations.flush().map(|()| 0))
}
