//! Names of source files: from what DWARF says to a path relative to the root of the sources.
//!
//! Everything here is lexical: no file is looked for, and no directory is known by its name. The
//! root is found from the compilation directories and the primary files of the units
//! ([`SourceRoot::find`]).

use std::collections::HashMap;

/// Joins and normalizes: `.` and doubled slashes go, `..` takes back the directory before it.
///
/// A later absolute part replaces what was before it. A relative result may begin with `..`.
///
/// ```
/// use lineinfo_cli::extract::paths::join;
///
/// assert_eq!(join(["/b/linux/build", "../arch/riscv", "kernel/stacktrace.c"]),
///            "/b/linux/arch/riscv/kernel/stacktrace.c");
/// assert_eq!(join(["build", "../../x.c"]), "../x.c");
/// assert_eq!(join(["/a", "/usr//include", "./stdio.h"]), "/usr/include/stdio.h");
/// ```
pub fn join<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut absolute = false;
    let mut components: Vec<&str> = Vec::new();
    for part in parts {
        if part.starts_with('/') {
            absolute = true;
            components.clear();
        }
        for component in part.split('/') {
            match component {
                "" | "." => {}
                ".." if components.last().is_some_and(|last| *last != "..") => {
                    components.pop();
                }
                // The parent of the root is the root.
                ".." if absolute => {}
                _ => components.push(component),
            }
        }
    }
    let path = components.join("/");
    if absolute { format!("/{path}") } else { path }
}

/// What is needed of a unit to find the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPaths {
    /// Its compilation directory, normalized.
    pub comp_dir: String,
    /// Its primary source file, joined and normalized.
    pub primary: String,
}

/// The directory to which the names in a table are relative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRoot(String);

impl SourceRoot {
    /// A root that was given, normalized.
    pub fn new(root: &str) -> Self {
        Self(join([root]))
    }

    /// Finds the root from the units of an image.
    ///
    /// The units of the project itself are those with the most frequent compilation directory
    /// (others come from libraries). If most of their primary files lie below it, it is the root.
    /// Else the build directory is apart from the sources (`O=`), and the root is the deepest
    /// directory that holds both it and the primary files that lie outside it, or, where the two
    /// have nothing in common, the deepest one that holds those primary files.
    pub fn find(units: &[UnitPaths]) -> Self {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for unit in units {
            *counts.entry(&unit.comp_dir).or_default() += 1;
        }
        // The longer name decides a tie, so that the result does not depend on the map's order.
        let Some((comp_dir, _)) = counts
            .into_iter()
            .max_by_key(|(dir, count)| (*count, dir.len(), *dir))
        else {
            return Self::default();
        };
        let comp_dir = Self(comp_dir.to_owned());
        let own: Vec<&str> = units
            .iter()
            .filter(|unit| unit.comp_dir == comp_dir.0)
            .map(|unit| unit.primary.as_str())
            .collect();
        let outside: Vec<&str> = own
            .iter()
            .copied()
            .filter(|primary| comp_dir.strip(primary).is_none())
            .collect();
        if outside.len() * 2 <= own.len() {
            return comp_dir;
        }
        let sources = outside
            .iter()
            .map(|primary| parent(primary))
            .reduce(common)
            .unwrap_or_default();
        match common(&comp_dir.0, sources) {
            "" | "/" => Self(sources.to_owned()),
            both => Self(both.to_owned()),
        }
    }

    /// The path below the root; `None` outside it.
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.0.is_empty() {
            return (!path.starts_with('/') && !path.starts_with("../")).then_some(path);
        }
        let rest = path.strip_prefix(&self.0)?;
        if self.0.ends_with('/') {
            Some(rest)
        } else {
            rest.strip_prefix('/')
        }
    }

    /// The name that goes into a table: relative to the root, or, outside it, the whole path.
    pub fn relative<'a>(&self, path: &'a str) -> &'a str {
        self.strip(path).unwrap_or(path)
    }

    /// The directory.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(end) => &path[..end],
        None => "",
    }
}

/// The deepest directory that holds both.
fn common<'a>(one: &'a str, other: &str) -> &'a str {
    let mut dir = one;
    while !dir.is_empty() && dir != "/" {
        let holds = other
            .strip_prefix(dir)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if holds {
            return dir;
        }
        dir = parent(dir);
    }
    if other.starts_with('/') { dir } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(of: &[(&str, &str)]) -> Vec<UnitPaths> {
        of.iter()
            .map(|&(comp_dir, name)| UnitPaths {
                comp_dir: join([comp_dir]),
                primary: join([comp_dir, name]),
            })
            .collect()
    }

    #[test]
    fn in_tree_build() {
        let units = units(&[
            ("/src/linux", "init/main.c"),
            ("/src/linux", "fs/read_write.c"),
        ]);
        let root = SourceRoot::find(&units);
        assert_eq!(root.relative(&units[1].primary), "fs/read_write.c");
    }

    #[test]
    fn a_module_alone_is_relative_to_the_tree_and_not_to_its_directory() {
        let units = units(&[
            ("/src/linux", "fs/xfs/xfs_aops.c"),
            ("/src/linux", "fs/xfs/xfs_bit.c"),
        ]);
        assert_eq!(SourceRoot::find(&units).as_str(), "/src/linux");
    }

    #[test]
    fn debians_compilation_directory_is_relative() {
        let units = units(&[("debian/build/build_amd64", "init/main.c")]);
        let root = SourceRoot::find(&units);
        assert_eq!(root.relative(&units[0].primary), "init/main.c");
    }

    #[test]
    fn o_build_inside_the_tree() {
        let units = units(&[
            ("/src/linux/build", "../arch/riscv/kernel/stacktrace.c"),
            ("/src/linux/build", "../kernel/fork.c"),
            ("/src/linux/build", "init/version.c"),
        ]);
        let root = SourceRoot::find(&units);
        assert_eq!(
            root.relative(&units[0].primary),
            "arch/riscv/kernel/stacktrace.c"
        );
        assert_eq!(root.relative(&units[2].primary), "build/init/version.c");
    }

    #[test]
    fn o_build_elsewhere() {
        let units = units(&[
            ("/tmp/build", "/src/linux/arch/parisc/kernel/traps.c"),
            ("/tmp/build", "/src/linux/kernel/fork.c"),
        ]);
        let root = SourceRoot::find(&units);
        assert_eq!(
            root.relative(&units[0].primary),
            "arch/parisc/kernel/traps.c"
        );
    }

    #[test]
    fn libraries_do_not_move_the_root_and_keep_their_path() {
        let units = units(&[
            ("/work/main", "sim-kernel/src/main.rs"),
            ("/work/main", "core/src/lib.rs"),
            ("/home/me/.cargo/registry/src/x/object-1.0", "src/lib.rs"),
        ]);
        let root = SourceRoot::find(&units);
        assert_eq!(root.relative(&units[0].primary), "sim-kernel/src/main.rs");
        assert_eq!(
            root.relative(&units[2].primary),
            "/home/me/.cargo/registry/src/x/object-1.0/src/lib.rs"
        );
    }

    #[test]
    fn a_directory_that_begins_with_the_same_letters_is_another() {
        assert_eq!(
            SourceRoot::new("/src/linux").strip("/src/linux-6/a.c"),
            None
        );
        assert_eq!(common("/src/linux", "/src/linux-6"), "/src");
    }

    #[test]
    fn no_units_no_root() {
        assert_eq!(SourceRoot::find(&[]).relative("a/b.c"), "a/b.c");
    }
}
