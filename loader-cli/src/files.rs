//! Reading whole files.

use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use lineinfo_core::writer::{EncodeError, with_symbols};
use lineinfo_core::{Layout, Table};
use nix::fcntl::OFlag;

use crate::error::Error;

/// Opens an image: a regular file that is not empty.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::NotAFile`], which says what is there instead.
pub fn open_image(path: &Path) -> Result<File, Error> {
    let file = open_regular(path)?;
    if file.metadata().map_err(Error::io(path))?.len() == 0 {
        return Err(Error::NotAFile {
            path: path.to_owned(),
            found: "an empty file",
        });
    }
    Ok(file)
}

/// Looks before it opens: to open a FIFO waits for a writer, and to open a device can do anything.
fn open_regular(path: &Path) -> Result<File, Error> {
    let check = |kind: FileType| {
        let found = if kind.is_dir() {
            "a directory"
        } else if kind.is_file() {
            return Ok(());
        } else {
            "a device, socket or pipe"
        };
        Err(Error::NotAFile {
            path: path.to_owned(),
            found,
        })
    };
    check(fs::metadata(path).map_err(Error::io(path))?.file_type())?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)
        .map_err(Error::io(path))?;
    // It may have become something else.
    check(file.metadata().map_err(Error::io(path))?.file_type())?;
    Ok(file)
}

/// Whether two paths lead to the same file.
pub fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Reads a whole file, which must be regular.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::NotAFile`].
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut open_regular(path)?, &mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

/// A blob from a file, as bytes that [`Table::parse`] and [`Table::check_rows`] accept.
#[derive(Debug)]
pub struct BlobFile {
    bytes: Vec<u8>,
    layout: Layout,
}

impl BlobFile {
    /// Reads and validates a blob.
    ///
    /// # Errors
    ///
    /// Those of [`read`], and [`Error::Blob`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes = read(path)?;
        let table = Table::parse(&bytes).and_then(|table| table.check_rows().map(|()| table));
        let layout = *table
            .map_err(|source| Error::Blob {
                path: path.to_owned(),
                source,
            })?
            .layout();
        Ok(Self { bytes, layout })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The blob as a kernel gets it: a kernel has symbols of its own.
    ///
    /// # Errors
    ///
    /// What [`with_symbols`] says.
    pub fn without_symbols(&self) -> Result<Vec<u8>, EncodeError> {
        with_symbols(&self.table(), &[])
    }

    /// The table.
    pub fn table(&self) -> Table<'_> {
        Table::from_layout(&self.bytes, self.layout)
    }
}
