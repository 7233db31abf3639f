//! The tree of names.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::{Node, modules, proc};
use crate::block;
use crate::drivers::{console, kmsg};
use crate::kernel::{lineinfo, pstore};

/// All files there are, directory by directory.
pub(crate) static NODES: &[&[Node]] = &[
    &[console::NODE, kmsg::NODE, lineinfo::file::NODE, block::NODE],
    proc::NODES,
    lineinfo::sysfs::NODES,
    pstore::NODES,
];

/// Directories that are there without files in them.
static DIRECTORIES: &[&str] = &[modules::DIRECTORY];

/// What a path names.
#[derive(Clone, Copy)]
pub(crate) enum Entry {
    /// More names.
    Directory,
    /// A file.
    File(&'static Node),
}

fn nodes() -> impl Iterator<Item = &'static Node> {
    NODES.iter().copied().flatten()
}

/// Finds a file by its absolute path.
pub(crate) fn lookup(path: &str) -> Result<&'static Node, Errno> {
    nodes()
        .find(|node| node.path == path)
        .or_else(|| modules::lookup(path))
        .ok_or(Errno::ENOENT)
}

/// The names in a directory with what each of them is; none where there is no such directory.
///
/// The root is the empty path: paths are joined with a `/` before each name.
pub(crate) fn directory(path: &str) -> BTreeMap<String, Entry> {
    let file = |node: &'static Node| (node.path.to_owned(), Entry::File(node));
    let directories = DIRECTORIES
        .iter()
        .map(|path| ((*path).to_owned(), Entry::Directory));
    let modules = modules::files().map(|(path, node)| (path, Entry::File(node)));
    nodes()
        .map(file)
        .chain(directories)
        .chain(modules)
        .filter_map(|(below, entry)| {
            let rest = below.strip_prefix(path)?.strip_prefix('/')?;
            Some(match rest.split_once('/') {
                Some((name, _)) => (name.to_owned(), Entry::Directory),
                None => (rest.to_owned(), entry),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_have_the_names_below_them() {
        let names = |path| directory(path).into_keys().collect::<Vec<_>>();
        assert_eq!(names(""), ["dev", "proc", "sys"]);
        assert_eq!(names("/dev"), ["console", "kmsg", "lineinfo", "ram0"]);
        assert!(names("/sys").contains(&"module".to_owned()));
        assert!(names("/sys/module").is_empty());
        assert!(names("/de").is_empty());
        assert!(matches!(directory("/sys")["kernel"], Entry::Directory));
        assert!(
            matches!(directory("/proc")["meminfo"], Entry::File(node) if node.path == "/proc/meminfo")
        );
    }
}
