//! Where the files of a kernel may be that only its release and build-ids are known of.
//!
//! Of each directory that is named (`--dir`, `$LINEINFO_PATH`), and of those of the distribution, the
//! files that [`Search::kernels`] and [`Search::lists`] list are tried in turn. Whoever opens one
//! checks that it is of the right build.

use std::path::{Path, PathBuf};

use super::debuginfod;
use crate::compressed;
use crate::files::{self, TABLE_EXTENSION};
use crate::log::Facts;
use crate::message;

/// Where distributions put tables, by release.
const TABLES: &str = "/usr/lib/lineinfo";

/// Where distributions put debug files.
const DEBUG: &str = "/usr/lib/debug";

/// More directories to look in, separated by colons.
const PATH_VARIABLE: &str = "LINEINFO_PATH";

/// Where to look for a kernel and its modules.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Directories that are named, in order.
    pub dirs: Vec<PathBuf>,
    /// The directories of the distribution count, too.
    pub system: bool,
    /// Debuginfod servers, which are asked for what is in no directory.
    pub servers: Vec<String>,
}

impl Search {
    /// The directories that are named, those of `$LINEINFO_PATH`, those of the distribution, and the
    /// servers of `$DEBUGINFOD_URLS`.
    pub fn new(dirs: &[PathBuf]) -> Self {
        let mut dirs = dirs.to_vec();
        let more = std::env::var_os(PATH_VARIABLE).unwrap_or_default();
        dirs.extend(std::env::split_paths(&more).filter(|dir| dir.is_absolute() || dir.is_dir()));
        Self {
            dirs,
            system: true,
            servers: debuginfod::servers(),
        }
    }

    /// Files that may be the vmlinux, the best first.
    pub fn kernels(&self, facts: &Facts) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in &self.dirs {
            files.extend(by_build_id(dir, facts.build_id.as_deref(), "debug"));
            if let Some(release) = &facts.release {
                files.push(dir.join(format!("vmlinux-{release}")));
                files.push(dir.join(release).join("vmlinux"));
            }
            files.push(dir.join("vmlinux"));
        }
        if self.system {
            let debug = Path::new(DEBUG);
            files.extend(by_build_id(debug, facts.build_id.as_deref(), "debug"));
            if let Some(release) = &facts.release {
                files.push(debug.join(format!("boot/vmlinux-{release}")));
                files.push(debug.join(format!("lib/modules/{release}/vmlinux")));
                files.push(PathBuf::from(format!(
                    "/lib/modules/{release}/build/vmlinux"
                )));
            }
        }
        with_compressed(files)
    }

    /// Tables that may be of a kernel or of a module, by its build-id, among all tables or among those of
    /// a release.
    pub fn tables_by_build_id(
        &self,
        build_id: Option<&str>,
        release: Option<&str>,
    ) -> Vec<PathBuf> {
        let mut dirs = self.dirs.clone();
        if self.system {
            dirs.push(PathBuf::from(TABLES));
            dirs.extend(release.map(|release| Path::new(TABLES).join(release)));
        }
        let files = dirs
            .iter()
            .filter_map(|dir| by_build_id(dir, build_id, TABLE_EXTENSION));
        files.filter(|file| is_there(file)).collect()
    }

    /// Tables that may be of an image, by its build-id and, for a kernel, its release.
    pub fn tables(&self, build_id: Option<&str>, release: Option<&str>) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in &self.dirs {
            if let Some(release) = release {
                files.push(dir.join(format!("{release}.lineinfo")));
                files.push(dir.join(format!("vmlinux-{release}.lineinfo")));
                files.push(dir.join(release).join("vmlinux.lineinfo"));
                files.push(dir.join("vmlinux.lineinfo"));
            }
        }
        if let (true, Some(release)) = (self.system, release) {
            files.push(Path::new(TABLES).join(release).join("vmlinux.lineinfo"));
        }
        files.retain(|file| is_there(file));
        let mut tables = self.tables_by_build_id(build_id, release);
        tables.append(&mut files);
        tables
    }

    /// Lists of symbols that may be of a kernel.
    pub fn lists(&self, release: &str) -> Vec<PathBuf> {
        let names = [
            format!("System.map-{release}"),
            format!("kallsyms-{release}"),
        ];
        let mut dirs = self.dirs.clone();
        if self.system {
            dirs.push(Path::new(TABLES).join(release));
            dirs.push(PathBuf::from("/boot"));
        }
        let mut files: Vec<PathBuf> = dirs
            .iter()
            .flat_map(|dir| names.iter().map(|name| dir.join(name)))
            .collect();
        files.retain(|file| is_there(file));
        files
    }

    /// Directories below which modules may be.
    pub fn modules(&self, release: Option<&str>) -> Vec<PathBuf> {
        let mut dirs = self.dirs.clone();
        if let (true, Some(release)) = (self.system, release) {
            dirs.push(Path::new(TABLES).join(release));
            dirs.push(Path::new(DEBUG).join("lib/modules").join(release));
            dirs.push(Path::new("/lib/modules").join(release));
        }
        dirs.retain(|dir| dir.is_dir());
        dirs
    }

    /// Directories in which stores may be.
    pub fn stores(&self, release: Option<&str>) -> Vec<PathBuf> {
        let mut dirs = self.dirs.clone();
        if self.system {
            dirs.push(PathBuf::from(TABLES));
        }
        let of_release = release.map(|release| dirs.iter().map(move |dir| dir.join(release)));
        let of_release: Vec<PathBuf> = of_release.into_iter().flatten().collect();
        dirs.extend(of_release);
        dirs
    }

    /// Debug files of a build-id, of a module or a kernel.
    pub fn debug_files(&self, build_id: &str) -> Vec<PathBuf> {
        let system = self.system.then(|| PathBuf::from(DEBUG));
        let dirs = self.dirs.iter().chain(&system);
        let files = dirs.filter_map(|dir| by_build_id(dir, Some(build_id), "debug"));
        with_compressed(files.collect())
    }

    /// In words, where it was looked.
    pub fn places(&self) -> String {
        let named = self.dirs.iter().map(|dir| dir.display().to_string());
        let system = self
            .system
            .then(|| format!("{TABLES}, {DEBUG}, /lib/modules"));
        let servers = self.servers.iter().cloned();
        let places = named.chain(system).chain(servers);
        places.collect::<Vec<_>>().join(", ")
    }
}

/// Whether there is such a file.
fn is_there(file: &Path) -> bool {
    let is_there = file.is_file();
    if !is_there {
        message::detail(format_args!("{}: no such file", file.display()));
    }
    is_there
}

/// The files that are there, as they are or compressed.
fn with_compressed(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in files {
        let compressed = compressed::EXTENSIONS.map(|end| {
            let mut name = file.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        });
        let before = found.len();
        let all = [file.clone()].into_iter().chain(compressed);
        found.extend(all.filter(|file| file.is_file()));
        if found.len() == before {
            message::detail(format_args!(
                "{}: no such file, nor a compressed one",
                file.display()
            ));
        }
    }
    found
}

/// Where a file of a build-id is, if that is known.
fn by_build_id(dir: &Path, build_id: Option<&str>, extension: &str) -> Option<PathBuf> {
    files::by_build_id(dir, build_id?, extension)
}
