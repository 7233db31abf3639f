//! Opening and closing files.

use nix::errno::Errno;

use super::{File, Node, OpenMode, namei};
use crate::kernel::task::{Credentials, Task};
use crate::machine::frames::keep_frame;

/// Opens a file for a task; gives the lowest free descriptor.
#[inline(never)]
pub(crate) fn ksys_open(task: &mut Task, path: &str, mode: OpenMode) -> Result<usize, Errno> {
    let file = vfs_open(namei::lookup(path)?, task.credentials, mode)?;
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
fn vfs_open(node: &Node, credentials: Credentials, mode: OpenMode) -> Result<File, Errno> {
    if !permitted(node, credentials, mode) {
        return Err(Errno::EACCES);
    }
    let operations = (node.open)(credentials, mode)?;
    keep_frame(Ok(File {
        operations,
        mode,
        position: 0,
    }))
}

/// Root may do all, as `CAP_DAC_OVERRIDE` has it; everybody else is "others".
fn permitted(node: &Node, credentials: Credentials, mode: OpenMode) -> bool {
    let others = |bit: u16| node.permissions & bit != 0;
    credentials.privileged() || ((!mode.read || others(0o4)) && (!mode.write || others(0o2)))
}

/// Closes a file of a task.
#[inline(never)]
pub(crate) fn ksys_close(task: &mut Task, fd: usize) -> Result<usize, Errno> {
    let file = task.files.get_mut(fd).and_then(Option::take);
    drop(file.ok_or(Errno::EBADF)?);
    keep_frame(Ok(0))
}
