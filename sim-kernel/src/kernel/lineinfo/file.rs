//! `/dev/lineinfo` as a file; what it does is specified in [`lineinfo_core::uapi`].

use lineinfo_core::device::{Caller, File, Refusal};
use nix::errno::Errno;

use super::LINEINFO;
use crate::fs::cred::Credentials;
use crate::fs::snapshot::Snapshot;
use crate::fs::{FileOperations, Node, OpenMode};
use crate::kernel::kptr;
use crate::machine::frames::keep_frame;

/// The device. It has a reason for everybody it turns away, so it decides who may write.
pub(crate) const NODE: Node = Node {
    path: "/dev/lineinfo",
    permissions: 0o644,
    driver_decides: true,
    open: lineinfo_open,
};

fn lineinfo_open(
    _path: &str,
    credentials: Credentials,
    mode: OpenMode,
) -> Result<Box<dyn FileOperations>, Errno> {
    let caller = Caller {
        uid: credentials.uid.as_raw(),
        pid: credentials.host_pid.cast_unsigned(),
        may_load: credentials.privileged(),
        may_see_addresses: kptr::may_see_addresses(credentials),
    };
    let file = LINEINFO.device().open(caller, mode.write).map_err(errno)?;
    let text = Snapshot::default();
    Ok(Box::new(LineinfoFile { file, text }))
}

/// A refusal as a system call returns it.
fn errno(refusal: Refusal) -> Errno {
    Errno::from_raw(refusal.errno().number().cast_signed())
}

struct LineinfoFile {
    file: File,
    text: Snapshot,
}

impl FileOperations for LineinfoFile {
    #[inline(never)]
    fn read(&mut self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        let status = LINEINFO.device().status(&self.file).map_err(errno)?;
        keep_frame(Ok(self.text.read(|| status.to_string(), buffer, at)))
    }

    #[inline(never)]
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let written = LINEINFO.device().write(&mut self.file, bytes);
        keep_frame(written.map(|()| bytes.len()).map_err(errno))
    }

    #[inline(never)]
    fn ioctl(&mut self, request: u32, argument: &mut [u8]) -> Result<usize, Errno> {
        let answered = LINEINFO.device().ioctl(&mut self.file, request, argument);
        keep_frame(answered.map(|()| 0).map_err(errno))
    }

    #[inline(never)]
    fn flush(&mut self) -> Result<(), Errno> {
        keep_frame(LINEINFO.device().flush(&self.file).map_err(errno))
    }
}

impl Drop for LineinfoFile {
    fn drop(&mut self) {
        LINEINFO.device().close(&self.file);
    }
}
