//! `/proc/fail-nth`: write N, and the Nth memory operation from now on fails, once. Read, it is what
//! is left of N: 0 once the operation has failed.
//!
//! Linux has such a file for each task; here it is one for the machine, because the memory is that of
//! one device.

use nix::errno::Errno;

use crate::fs::proc::open_store;
use crate::fs::{Node, namei};
use crate::machine::fault;
use crate::printk;

const FILES: &[Node] = &[Node {
    path: "/proc/fail-nth",
    permissions: 0o600,
    driver_decides: false,
    open: |_, _, _| open_store(Some(show), store),
}];

/// Sets which memory operation fails, 0 for none, and registers the file.
pub(crate) fn init(nth: u64) {
    fault::init(|operation| printk!(Notice, "FAULT_INJECTION: forcing a failure: {operation}"));
    fault::set_nth(nth);
    namei::register(FILES);
}

fn show() -> String {
    format!("{}\n", fault::nth())
}

fn store(bytes: &[u8]) -> Result<usize, Errno> {
    let text = str::from_utf8(bytes.trim_ascii()).map_err(|_| Errno::EINVAL)?;
    fault::set_nth(text.parse().map_err(|_| Errno::EINVAL)?);
    Ok(bytes.len())
}
