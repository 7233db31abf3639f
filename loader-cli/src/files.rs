//! Reading whole files and replacing them.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use lineinfo_core::{Layout, Table};

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

fn open_regular(path: &Path) -> Result<File, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let kind = file.metadata().map_err(Error::io(path))?.file_type();
    let found = if kind.is_dir() {
        "a directory"
    } else if kind.is_socket() || kind.is_char_device() || kind.is_block_device() || kind.is_fifo()
    {
        "a device, socket or pipe"
    } else {
        return Ok(file);
    };
    Err(Error::NotAFile {
        path: path.to_owned(),
        found,
    })
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

    /// The table.
    pub fn table(&self) -> Table<'_> {
        Table::from_layout(&self.bytes, self.layout)
    }
}

/// Writes a file so that at any time the old contents or the new ones are there, whole.
///
/// The new file has the permissions and the owner of `like`, or, without, those of a new file. A
/// symbolic link is followed, not replaced.
///
/// # Errors
///
/// [`Error::Io`]; the old file is then as it was.
pub fn replace(
    path: &Path,
    like: Option<&File>,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), Error> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(".lineinfo-")
        // As for any new file, the umask takes away from this.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(Error::io(path))?;
    let written = (|| {
        let file = temporary.as_file_mut();
        write(file)?;
        file.flush()?;
        if let Some(like) = like {
            let metadata = like.metadata()?;
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
                chown(temporary.path(), Some(metadata.uid()), Some(metadata.gid()))?;
            }
            temporary
                .as_file()
                .set_permissions(metadata.permissions())?;
        }
        temporary.as_file().sync_all()
    })();
    written.map_err(Error::io(path))?;
    temporary
        .persist(&target)
        .map_err(|error| Error::io(path)(error.error))?;
    Ok(())
}
