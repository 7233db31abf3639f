//! `/dev/kmsg`: reads give the log, and writes add to it.

use nix::errno::Errno;

use crate::fs::snapshot::Snapshot;
use crate::fs::{FileOperations, Node};
use crate::kernel::kmsg;
use crate::machine::frames::keep_frame;
use crate::printk;

/// The device. The log has addresses, so it is for who may see them.
pub(crate) const FILES: &[Node] = &[Node {
    path: "/dev/kmsg",
    permissions: 0o600,
    driver_decides: false,
    open: |_, _, _| Ok(Box::new(Kmsg::default())),
}];

#[derive(Default)]
struct Kmsg {
    text: Snapshot,
}

impl FileOperations for Kmsg {
    #[inline(never)]
    fn read(&mut self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        keep_frame(Ok(self.text.read(kmsg::lines, buffer, at)))
    }

    #[inline(never)]
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        for line in String::from_utf8_lossy(bytes).lines() {
            printk!(Notice, "{line}");
        }
        keep_frame(Ok(bytes.len()))
    }
}
