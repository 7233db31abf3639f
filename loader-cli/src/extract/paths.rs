//! Names of source files: from what DWARF says to a path relative to the root of the sources.
//!
//! Everything here is lexical: no file is looked for, and no directory is known by its name. The
//! root is found from the compilation directories, the primary files and the file tables of the
//! units ([`SourceRoot::find`]).

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::str::FromStr;

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

/// A beginning of paths and what to write instead: `OLD=NEW`.
///
/// ```
/// use lineinfo_cli::extract::paths::PathMap;
///
/// let map: PathMap = "/build/linux-6.12=/src/linux".parse()?;
/// assert_eq!(map.apply("/build/linux-6.12/fs/open.c").as_deref(), Some("/src/linux/fs/open.c"));
/// assert_eq!(map.apply("/build/linux-6.12.1/fs/open.c"), None);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMap {
    old: SourceRoot,
    new: String,
}

impl FromStr for PathMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((old, new)) if !old.is_empty() => Ok(Self {
                old: SourceRoot::new(old),
                new: new.to_owned(),
            }),
            _ => Err("write OLD=NEW, the beginning of a path and its replacement".to_owned()),
        }
    }
}

impl PathMap {
    /// The path with its beginning replaced, normalized; `None` if it begins otherwise.
    pub fn apply(&self, path: &str) -> Option<String> {
        let rest = if path == self.old.0 {
            ""
        } else {
            self.old.strip(path)?
        };
        Some(join([self.new.as_str(), rest]))
    }
}

/// What the user says of the names in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// The root of the sources; found from the DWARF if absent.
    pub root: Option<SourceRoot>,
    /// Applied to joined paths, before the root is looked for or taken off. As in compilers the
    /// last that fits a path counts.
    pub maps: Vec<PathMap>,
}

impl Naming {
    /// [`join`], and then the path maps.
    pub fn path<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> String {
        let path = join(parts);
        let mapped = self.maps.iter().rev().find_map(|map| map.apply(&path));
        mapped.unwrap_or(path)
    }
}

/// What is needed of a unit to find the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPaths {
    /// Its compilation directory, normalized.
    pub comp_dir: String,
    /// Its primary source file as the compiler was given it, normalized but not joined.
    pub spelled: String,
    /// Its primary source file, joined and normalized.
    pub primary: String,
    /// The directories of its files, joined and normalized.
    pub directories: Vec<String>,
}

/// How a unit names its primary source file, which tells where its compiler was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Spelling {
    /// `traps.c`: in the directory of the file.
    Bare,
    /// An absolute path outside the compilation directory: in a build directory elsewhere.
    Elsewhere,
    /// `../kernel/fork.c`: in a build directory so many levels below the root.
    Up(usize),
    /// `kernel/fork.c`: in the root.
    Here,
}

impl UnitPaths {
    fn spelling(&self) -> Spelling {
        let comp_dir = SourceRoot(self.comp_dir.clone());
        let ups = self
            .spelled
            .split('/')
            .take_while(|part| *part == "..")
            .count();
        let below = if self.spelled.starts_with('/') {
            comp_dir.strip(&self.primary)
        } else {
            Some(self.spelled.as_str())
        };
        match below {
            _ if ups > 0 => Spelling::Up(ups),
            None => Spelling::Elsewhere,
            Some(below) if below.contains('/') => Spelling::Here,
            Some(_) => Spelling::Bare,
        }
    }
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
    /// (others come from libraries), and how most of them spell their primary file decides:
    ///
    /// | primary file | the root is |
    /// |---|---|
    /// | `kernel/fork.c` | the compilation directory |
    /// | `../kernel/fork.c` | so many levels above it: `O=` inside the tree |
    /// | `/src/linux/kernel/fork.c`, outside it | found by climbing from there: `O=` elsewhere |
    /// | `fork.c` | found by climbing from the compilation directory, a subdirectory |
    ///
    /// Climbing goes up as long as that brings in many more directories of the units' files: the
    /// headers that a single module includes lie all over its tree.
    pub fn find(units: &[UnitPaths]) -> Self {
        let all = units.iter().map(|unit| unit.comp_dir.as_str());
        // The longer name decides a tie, so that the result does not depend on the map's order.
        let Some(comp_dir) = most_frequent(all, |dir| (dir.len(), *dir)) else {
            return Self::default();
        };
        let own = || units.iter().filter(|unit| unit.comp_dir == comp_dir);
        let spelling = most_frequent(own().map(UnitPaths::spelling), |spelling| *spelling);
        let start = match spelling {
            None | Some(Spelling::Here) => return Self(comp_dir.to_owned()),
            Some(Spelling::Up(levels)) => {
                let ups = std::iter::repeat_n("..", levels);
                return Self(join(std::iter::once(comp_dir).chain(ups)));
            }
            Some(Spelling::Elsewhere) => own()
                .filter(|unit| unit.spelling() == Spelling::Elsewhere)
                .map(|unit| parent(&unit.primary))
                .reduce(common)
                .unwrap_or_default(),
            Some(Spelling::Bare) => comp_dir,
        };
        let included = own().flat_map(|unit| &unit.directories);
        let directories: HashSet<&str> = units
            .iter()
            .map(|unit| &unit.comp_dir)
            .chain(included)
            .map(String::as_str)
            .collect();
        Self(climb(start, &directories).to_owned())
    }

    /// The path below the root; `None` outside it.
    ///
    /// A relative root is taken off as often as it is there: compilers that shorten paths to
    /// relative ones shorten those of headers as well, and joining doubles them.
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.0.is_empty() {
            return (!path.starts_with('/') && !path.starts_with("../")).then_some(path);
        }
        let below = |path: &'a str| {
            let rest = path.strip_prefix(&self.0)?;
            if self.0.ends_with('/') {
                Some(rest)
            } else {
                rest.strip_prefix('/')
            }
        };
        let mut stripped = below(path)?;
        while let Some(doubled) = below(stripped) {
            stripped = doubled;
        }
        Some(stripped)
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

fn most_frequent<T: Copy + Eq + Hash, K: Ord>(
    items: impl Iterator<Item = T>,
    tie: impl Fn(&T) -> K,
) -> Option<T> {
    let mut counts: HashMap<T, usize> = HashMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|(item, count)| (*count, tie(item)));
    most.map(|(item, _)| item)
}

/// The deepest directory from `start` upwards that holds nine of ten of those that the topmost one
/// holds; the rest are the compiler's own.
fn climb<'a>(start: &'a str, directories: &HashSet<&str>) -> &'a str {
    // Length of the deepest directory above `start`, itself included, that holds each of them.
    let mut depths: Vec<usize> = directories
        .iter()
        .map(|held| common(start, held).len())
        .collect();
    depths.sort_unstable();
    let held_by = |dir: &str| depths.len() - depths.partition_point(|depth| *depth < dir.len());
    let climbed = std::iter::successors(Some(start), |dir| Some(parent(dir)))
        // The root of the file system holds everything.
        .take_while(|dir| !dir.is_empty() && *dir != "/")
        .map(|dir| (dir, held_by(dir)));
    let climbed: Vec<_> = climbed.collect();
    let most = climbed.last().map_or(0, |(_, held)| *held);
    let deepest = climbed.iter().find(|(_, held)| held * 10 >= most * 9);
    deepest.map_or(start, |(dir, _)| dir)
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
    let (mut ones, mut others) = (one.split('/'), other.split('/'));
    // Bytes in common, with the slash after the last component.
    let mut len = 0;
    while let (Some(component), Some(same)) = (ones.next(), others.next())
        && component == same
    {
        len += component.len() + 1;
    }
    match len {
        0 => "",
        // Only the empty component before the root.
        1 => "/",
        _ => &one[..len - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(of: &[(&str, &str)]) -> Vec<UnitPaths> {
        including(&[], of)
    }

    /// Units that all include from the same directories.
    fn including(directories: &[&str], of: &[(&str, &str)]) -> Vec<UnitPaths> {
        of.iter()
            .map(|&(comp_dir, name)| UnitPaths {
                comp_dir: join([comp_dir]),
                spelled: join([name]),
                primary: join([comp_dir, name]),
                directories: directories
                    .iter()
                    .map(|dir| join([comp_dir, dir]))
                    .collect(),
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
            ("/src/lineinfo", "sim-kernel/src/main.rs"),
            ("/src/lineinfo", "core/src/lib.rs"),
            ("/home/me/.cargo/registry/src/x/object-1.0", "src/lib.rs"),
        ]);
        let root = SourceRoot::find(&units);
        assert_eq!(root.relative(&units[0].primary), "sim-kernel/src/main.rs");
        assert_eq!(
            root.relative(&units[2].primary),
            "/home/me/.cargo/registry/src/x/object-1.0/src/lib.rs"
        );
    }

    /// What the units of one module of a tree include, besides a header of the compiler's own.
    const INCLUDED: [&str; 12] = [
        "/src/linux/drivers/net/foo",
        "/src/linux/include/linux",
        "/src/linux/include/linux/sched",
        "/src/linux/include/uapi/linux",
        "/src/linux/include/asm-generic",
        "/src/linux/include/net",
        "/src/linux/include/vdso",
        "/src/linux/arch/x86/include/asm",
        "/src/linux/arch/x86/include/uapi/asm",
        "/src/linux/include/linux/atomic",
        "/src/linux/include/trace",
        "/usr/lib/gcc/x86_64-linux-gnu/12/include",
    ];

    #[test]
    fn one_module_of_an_o_build_elsewhere() {
        for build in ["/tmp/build", "/src/build", "/src/linux/build"] {
            let units = including(&INCLUDED, &[(build, "/src/linux/drivers/net/foo/foo.c")]);
            assert_eq!(SourceRoot::find(&units).as_str(), "/src/linux", "{build}");
        }
    }

    #[test]
    fn compilation_directory_in_a_subdirectory() {
        let units = including(&INCLUDED, &[("/src/linux/drivers/net/foo", "foo.c")]);
        let root = SourceRoot::find(&units);
        assert_eq!(root.relative(&units[0].primary), "drivers/net/foo/foo.c");

        let units = self::units(&[
            ("/src/linux/arch/parisc/kernel", "traps.c"),
            ("/src/linux/kernel", "fork.c"),
        ]);
        let root = SourceRoot::find(&units);
        assert_eq!(
            root.relative(&units[0].primary),
            "arch/parisc/kernel/traps.c"
        );
    }

    #[test]
    fn a_module_out_of_tree_is_relative_to_itself() {
        let headers = "/usr/src/linux-headers-6.12/include/linux";
        let own = "/var/lib/dkms/foo/build/core";
        let units = including(
            &[headers, own],
            &[
                (
                    "/usr/src/linux-headers-6.12",
                    "/var/lib/dkms/foo/build/foo.c",
                ),
                (
                    "/usr/src/linux-headers-6.12",
                    "/var/lib/dkms/foo/build/core/bar.c",
                ),
            ],
        );
        let root = SourceRoot::find(&units);
        assert_eq!(root.as_str(), "/var/lib/dkms/foo/build");
        assert_eq!(root.relative(headers), headers);
    }

    #[test]
    fn doubled_paths_of_a_relative_compilation_directory() {
        let units = units(&[
            ("debian/build/x", "init/main.c"),
            ("debian/build/x", "debian/build/x/include/linux/fs.h"),
        ]);
        let root = SourceRoot::find(&units);
        assert_eq!(root.relative(&units[1].primary), "include/linux/fs.h");
    }

    #[test]
    fn outside_the_tree_the_whole_path_stays() {
        let root = SourceRoot::new("debian/build/x");
        assert_eq!(root.relative("../include/a.h"), "../include/a.h");
        assert_eq!(root.relative("debian/build/y/a.c"), "debian/build/y/a.c");
        assert_eq!(root.relative("/usr/include/a.h"), "/usr/include/a.h");
    }

    #[test]
    fn of_path_maps_the_last_that_fits_counts() {
        let map = |text: &str| text.parse().expect("OLD=NEW");
        let naming = Naming {
            root: None,
            maps: vec![
                map("/build=/src"),
                map("/build/linux/=../x"),
                map("/y=/src"),
            ],
        };
        assert_eq!(naming.path(["/build/linux", "./a.c"]), "../x/a.c");
        assert_eq!(naming.path(["/build/mm", "../a.c"]), "/src/a.c");
        assert_eq!(naming.path(["/build"]), "/src");
        assert_eq!(naming.path(["/builds/a.c"]), "/builds/a.c");
        assert!("/build".parse::<PathMap>().is_err());
        assert!("=/build".parse::<PathMap>().is_err());
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
