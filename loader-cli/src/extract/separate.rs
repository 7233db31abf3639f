//! Separate debug files: where the DWARF of a stripped image is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::elf::{Elf, ElfFile};
use crate::error::{DebugFileError, Error};
use crate::{files, hex, message};

/// What an image says of its debug file.
#[derive(Debug)]
pub(super) struct DebugLink {
    /// Name of the file.
    pub(super) name: Vec<u8>,
    /// CRC-32 of the whole file.
    pub(super) crc32: u32,
}

/// What a debug file says of its supplementary file.
#[derive(Debug)]
pub(super) struct SupplementLink {
    /// Its path, absolute or from the directory of the debug file.
    pub(super) name: Vec<u8>,
    pub(super) build_id: Vec<u8>,
}

impl SupplementLink {
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.name))
    }
}

/// Finds and opens the supplementary file of a debug file: where the link says, or by build-id. A file
/// of another build-id is not the one.
pub(super) fn find_supplement(
    file: &ElfFile,
    elf: &Elf<'_>,
    link: &SupplementLink,
    debug_dirs: &[PathBuf],
) -> Result<Option<ElfFile>, Error> {
    let path = elf.path().canonicalize();
    let path = path.as_deref().unwrap_or(elf.path());
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut paths = vec![directory.join(link.path())];
    paths.extend(by_build_id(&link.build_id, debug_dirs));
    for path in paths.into_iter().filter(|path| path.is_file()) {
        let found = file.open_beside(&path)?;
        if found.parse()?.identity.build_id == link.build_id {
            message::detail(format_args!(
                "{}: used, it is the supplementary file",
                path.display()
            ));
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Where a debug file of a build-id is, below each of the directories.
fn by_build_id(build_id: &[u8], debug_dirs: &[PathBuf]) -> Vec<PathBuf> {
    let build_id = hex(build_id);
    let file_in = |dir: &PathBuf| files::by_build_id(dir, &build_id, "debug");
    debug_dirs.iter().filter_map(file_in).collect()
}

/// Finds and opens the debug file of an image, as debuggers do: by build-id, then by name.
///
/// With several directories the first that has the file counts. A file that is there and belongs to
/// another image is passed over, and is the error if there is none that fits.
pub(super) fn find(
    image: &ElfFile,
    elf: &Elf<'_>,
    debug_dirs: &[PathBuf],
) -> Result<Option<ElfFile>, Error> {
    let link = elf.debug_link()?;
    let mut unfit = None;
    for (path, crc32) in candidates(elf, link.as_ref(), debug_dirs) {
        if !path.is_file() {
            message::detail(format_args!("{}: no such file", path.display()));
            continue;
        }
        if is_same_file(&path, elf.path()) {
            continue;
        }
        match open(image, elf, &path, crc32) {
            Ok(file) => {
                let (debug, image) = (path.display(), elf.path().display());
                message::detail(format_args!(
                    "{debug}: used, it is the debug file of {image}"
                ));
                return Ok(Some(file));
            }
            Err(error) => {
                message::detail(&error);
                unfit = unfit.or(Some(error));
            }
        }
    }
    unfit.map_or(Ok(None), Err)
}

/// Where the debug file may be, and the CRC that it must have if it is not named by build-id.
fn candidates(
    elf: &Elf<'_>,
    link: Option<&DebugLink>,
    debug_dirs: &[PathBuf],
) -> Vec<(PathBuf, Option<u32>)> {
    let by_id = by_build_id(&elf.identity.build_id, debug_dirs);
    let mut paths: Vec<_> = by_id.into_iter().map(|path| (path, None)).collect();
    let Some(link) = link else {
        return paths;
    };
    let image = elf.path().canonicalize();
    let image = image.as_deref().unwrap_or(elf.path());
    let directory = image.parent().unwrap_or(Path::new(""));
    let name = Path::new(OsStr::from_bytes(&link.name));
    let mut beside = vec![directory.join(name), directory.join(".debug").join(name)];
    let below = directory.strip_prefix("/").unwrap_or(directory);
    beside.extend(debug_dirs.iter().map(|dir| dir.join(below).join(name)));
    paths.extend(beside.into_iter().map(|path| (path, Some(link.crc32))));
    paths
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn open(image: &ElfFile, elf: &Elf<'_>, path: &Path, crc32: Option<u32>) -> Result<ElfFile, Error> {
    let unfit = |source| Error::DebugFile {
        path: path.to_owned(),
        image_path: elf.path().to_owned(),
        source,
    };
    if let Some(expected) = crc32 {
        let found = files::crc32(path)?;
        if found != expected {
            return Err(unfit(DebugFileError::Checksum { expected, found }));
        }
    }
    let file = image.open_beside(path)?;
    let debug = file.parse()?;
    let (of_image, of_debug) = (&elf.identity, &debug.identity);
    if of_image.build_id != of_debug.build_id {
        return Err(unfit(DebugFileError::BuildId {
            expected: hex(&of_image.build_id),
            found: hex(&of_debug.build_id),
        }));
    }
    // What was stripped keeps its place in the headers, and relocatable files are laid out by it.
    for text in &of_image.text {
        let same = of_debug.text.iter().any(|debug| debug.is_same(text));
        if !same || of_image.text.len() != of_debug.text.len() {
            return Err(unfit(DebugFileError::Sections {
                name: text.name.clone(),
            }));
        }
    }
    if !debug.has_lines() {
        return Err(Error::NoDebugInformation {
            path: path.to_owned(),
        });
    }
    drop(debug);
    Ok(file)
}
