//! The tree of names.

use nix::errno::Errno;

use super::{Node, proc};
use crate::block;
use crate::drivers::{console, kmsg, lineinfo};

/// All files there are, directory by directory.
pub(crate) static NODES: &[&[Node]] = &[
    &[console::NODE, kmsg::NODE, lineinfo::file::NODE, block::NODE],
    proc::NODES,
];

/// Finds a file by its absolute path.
pub(crate) fn lookup(path: &str) -> Result<&'static Node, Errno> {
    NODES
        .iter()
        .copied()
        .flatten()
        .find(|node| node.path == path)
        .ok_or(Errno::ENOENT)
}
