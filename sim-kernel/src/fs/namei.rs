//! The tree of names, made of the files that their owners have registered.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::Node;
use crate::registry::Registry;

/// Most tables of files, and most directories of variable names.
const TABLES_MAX: usize = 24;
const DIRECTORIES_MAX: usize = 4;

static TREE: Tree = Tree::new();

/// A directory whose subdirectories change, each with the same files.
pub(crate) struct Directory {
    /// Its absolute path.
    pub(crate) path: &'static str,
    /// The names of the subdirectories.
    pub(crate) names: fn() -> Vec<String>,
    /// The files of each subdirectory; in their paths `*` stands for its name.
    pub(crate) files: &'static [Node],
}

/// What a name in a directory is.
#[derive(Clone, Copy)]
pub(crate) enum DirectoryEntry {
    /// A directory.
    Directory,
    /// A file.
    File(&'static Node),
}

/// Adds files to the tree.
pub(crate) fn register(files: &'static [Node]) {
    TREE.files.register(files);
}

/// Adds a directory whose subdirectories change.
pub(crate) fn register_directory(directory: &'static Directory) {
    TREE.directories.register(directory);
}

/// Finds a file by its absolute path.
pub(crate) fn lookup(path: &str) -> Result<&'static Node, Errno> {
    TREE.lookup(path).ok_or(Errno::ENOENT)
}

/// The names in a directory and what each of them is; empty if there is no such directory.
///
/// The root is the empty path: paths are joined with a `/` before each name.
pub(crate) fn directory(path: &str) -> BTreeMap<String, DirectoryEntry> {
    TREE.directory(path)
}

struct Tree {
    files: Registry<&'static [Node], TABLES_MAX>,
    directories: Registry<&'static Directory, DIRECTORIES_MAX>,
}

impl Tree {
    const fn new() -> Self {
        Self {
            files: Registry::new(),
            directories: Registry::new(),
        }
    }

    fn lookup(&self, path: &str) -> Option<&'static Node> {
        let mut files = self.files.iter().flatten();
        files.find(|node| node.path == path).or_else(|| {
            self.directories
                .iter()
                .find_map(|directory| directory.lookup(path))
        })
    }

    fn directory(&self, path: &str) -> BTreeMap<String, DirectoryEntry> {
        let files = self.files.iter().flatten();
        let files = files.map(|node| (node.path.to_owned(), DirectoryEntry::File(node)));
        let directories = self.directories.iter().flat_map(|directory| {
            let itself = (directory.path.to_owned(), DirectoryEntry::Directory);
            let files = directory.all_files();
            std::iter::once(itself)
                .chain(files.map(|(path, node)| (path, DirectoryEntry::File(node))))
        });
        files
            .chain(directories)
            .filter_map(|(below, entry)| {
                let rest = below.strip_prefix(path)?.strip_prefix('/')?;
                Some(match rest.split_once('/') {
                    Some((name, _)) => (name.to_owned(), DirectoryEntry::Directory),
                    None => (rest.to_owned(), entry),
                })
            })
            .collect()
    }
}

impl Directory {
    /// The subdirectory that a path goes through.
    pub(crate) fn name_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.path)?.strip_prefix('/')?;
        rest.split('/').next()
    }

    fn lookup(&self, path: &str) -> Option<&'static Node> {
        let name = self.name_in(path)?;
        let known = (self.names)().iter().any(|known| known == name);
        let is = |node: &&Node| node.path.replace('*', name) == path;
        known.then(|| self.files.iter().find(is))?
    }

    /// The files of all subdirectories, with their paths.
    fn all_files(&self) -> impl Iterator<Item = (String, &'static Node)> {
        let files = self.files;
        (self.names)().into_iter().flat_map(move |name| {
            files
                .iter()
                .map(move |node| (node.path.replace('*', &name), node))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::proc::{open_text, text_file};

    const FILES: &[Node] = &[
        text_file("/proc/a", |_, _, _| open_text(String::new)),
        text_file("/sys/kernel/b", |_, _, _| open_text(String::new)),
    ];

    static DEVICES: Directory = Directory {
        path: "/sys/devices",
        names: || vec!["x".to_owned(), "y".to_owned()],
        files: &[text_file("/sys/devices/*/size", |_, _, _| {
            open_text(String::new)
        })],
    };

    static NONE: Directory = Directory {
        path: "/sys/none",
        names: Vec::new,
        files: &[],
    };

    fn tree() -> Tree {
        let tree = Tree::new();
        tree.files.register(FILES);
        tree.directories.register(&DEVICES);
        tree.directories.register(&NONE);
        tree
    }

    #[test]
    fn directories_have_the_names_below_them() {
        let tree = tree();
        let names = |path| tree.directory(path).into_keys().collect::<Vec<_>>();
        assert_eq!(names(""), ["proc", "sys"]);
        assert_eq!(names("/sys"), ["devices", "kernel", "none"]);
        assert_eq!(names("/sys/devices"), ["x", "y"]);
        assert_eq!(names("/sys/devices/y"), ["size"]);
        assert!(names("/sys/none").is_empty());
        assert!(names("/pro").is_empty());
        let of = |path: &str, name: &str| tree.directory(path)[name];
        assert!(matches!(of("/sys", "none"), DirectoryEntry::Directory));
        assert!(matches!(of("/proc", "a"), DirectoryEntry::File(node) if node.path == "/proc/a"));
    }

    #[test]
    fn a_path_is_a_file_or_nothing() {
        let tree = tree();
        let found = |path| tree.lookup(path).map(|node| node.path);
        assert_eq!(found("/sys/kernel/b"), Some("/sys/kernel/b"));
        assert_eq!(found("/sys/devices/x/size"), Some("/sys/devices/*/size"));
        for path in [
            "",
            "/proc",
            "/sys/devices/x",
            "/sys/devices/z/size",
            "/sys/devices/*/size",
            "/sys/devices/x/size/",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
