//! Tables made from images as they are needed, and kept by build-id.
//!
//! They are in `$XDG_CACHE_HOME/lineinfo/tables`, or `~/.cache/lineinfo/tables`, together at most
//! [`CACHE_BYTES_MAX`]; those that were not used for the longest time go first. A file there is a
//! table with symbols like any other, and is checked like any other when it is read.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lineinfo_core::blob::FORMAT_VERSION;
use tempfile::NamedTempFile;

use crate::build::Recipe;
use crate::error::Error;
use crate::extract::elf::ElfFile;
use crate::files::BlobFile;
use crate::hex;
use crate::message;
use crate::output::{HardLinks, Output};

/// How much the tables take together, in bytes: some two hundred of kernels.
pub const CACHE_BYTES_MAX: u64 = 1 << 30;

/// A table of an image: the one that is kept, or a new one.
///
/// # Errors
///
/// Those of reading the image and its debug file. A cache that cannot be written is none.
pub fn table_of(image: &Path, debug_dirs: &[PathBuf]) -> Result<BlobFile, Error> {
    let file = ElfFile::open(image)?.with_debug(debug_dirs)?;
    let elf = file.parse()?;
    let build_id = &elf.identity.build_id;
    if let Some((_, blob)) = kept(build_id) {
        return Ok(blob);
    }
    let blob = Recipe::default().build(&file, &())?.bytes;
    let kept = kept_path(build_id);
    if let Some(kept) = &kept
        && keep(kept, &blob).is_ok()
    {
        message::detail(format_args!(
            "{}: made of {}, and kept",
            kept.display(),
            elf.dwarf_path().display()
        ));
        return BlobFile::open(kept);
    }
    let mut temporary = NamedTempFile::new().map_err(Error::io(std::env::temp_dir()))?;
    temporary
        .write_all(&blob)
        .map_err(Error::io(temporary.path()))?;
    BlobFile::open(temporary.path())
}

/// The table that is kept of a build-id, and where.
pub fn kept(build_id: &[u8]) -> Option<(PathBuf, BlobFile)> {
    let path = kept_path(build_id)?;
    let blob = BlobFile::open(&path).ok()?;
    if blob.table().layout().build_id() != build_id {
        return None;
    }
    message::detail(format_args!("{}: it was kept", path.display()));
    touch(&path);
    Some((path, blob))
}

/// Where an image's table is kept: one of another version may have been made by other rules.
fn kept_path(build_id: &[u8]) -> Option<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("{}-{version}-{FORMAT_VERSION}.lineinfo", hex(build_id));
    let directory = directory().filter(|_| !build_id.is_empty())?;
    Some(directory.join(name))
}

/// Where tables are kept; `None` without a home.
fn directory() -> Option<PathBuf> {
    let absolute = |name| {
        let path = std::env::var_os(name).map(PathBuf::from)?;
        path.is_absolute().then_some(path)
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("lineinfo/tables"))
}

/// Says that a table was used.
fn touch(path: &Path) {
    // A cache on a read-only file system is still one.
    let file = std::fs::File::options().append(true).open(path);
    drop(file.and_then(|file| file.set_modified(SystemTime::now())));
}

fn keep(path: &Path, blob: &[u8]) -> Result<(), Error> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
    make_room(directory, blob.len() as u64);
    Output::at(path, HardLinks::Refuse)?.write(|file| file.write_all(blob))
}

/// Removes the tables that were not used for the longest time, until there is room for one more.
fn make_room(directory: &Path, bytes: u64) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut tables: Vec<(SystemTime, u64, PathBuf)> = entries
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|end| end == "lineinfo")
        })
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        })
        .collect();
    tables.sort();
    let mut total = bytes + tables.iter().map(|(_, len, _)| len).sum::<u64>();
    for (_, len, path) in tables {
        if total <= CACHE_BYTES_MAX {
            break;
        }
        if std::fs::remove_file(path).is_ok() {
            total -= len;
        }
    }
}
