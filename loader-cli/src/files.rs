//! Finding files, and reading them.

use std::ffi::OsStr;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lineinfo_core::writer::{EncodeError, with_symbols};
use lineinfo_core::{Layout, Table};
use nix::fcntl::OFlag;

use crate::compressed;
use crate::error::Error;
use crate::kind::{Foreign, Kind, Wanted};
use crate::{hex, message};

/// The name of stdin as an input.
const STDIN: &str = "-";

/// Whether an input is stdin.
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new(STDIN)
}

/// All of stdin, in a file without a name: images are read here and there.
fn copy_of_stdin() -> io::Result<File> {
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut io::stdin().lock(), &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}

/// Opens an image: a regular file that is not empty, or `-` for stdin.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::NotAFile`], which says what is there instead.
pub fn open_image(path: &Path) -> Result<File, Error> {
    let file = match is_stdin(path) {
        true => copy_of_stdin().map_err(Error::io("stdin"))?,
        false => open_regular(path)?,
    };
    if file.metadata().map_err(Error::io(path))?.len() == 0 {
        return Err(Error::NotAFile {
            path: path.to_owned(),
            found: "an empty file",
        });
    }
    Ok(file)
}

/// Opens a regular file, which may be empty or, as in `/proc`, seem so.
///
/// It looks before it opens: to open a FIFO waits for a writer, and to open a device can do anything.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::NotAFile`].
pub fn open_regular(path: &Path) -> Result<File, Error> {
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

/// How the names of tables end.
pub const TABLE_EXTENSION: &str = "lineinfo";

/// Where files are by build-id, in a directory.
pub const BUILD_ID_DIR: &str = ".build-id";

/// Where the file of a build-id is below a directory, as debuggers have it:
/// `.build-id/ab/cdef.EXTENSION`. `None` for what is no build-id in hexadecimal.
pub fn by_build_id(directory: &Path, build_id: &str, extension: &str) -> Option<PathBuf> {
    let is_hex = build_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (first, rest) = build_id.split_at_checked(2).filter(|_| is_hex)?;
    let name = (!rest.is_empty()).then(|| format!("{rest}.{extension}"))?;
    Some(directory.join(BUILD_ID_DIR).join(first).join(name))
}

/// The name of a module by that of its file, which may be compressed; `None` for another file.
pub fn module_stem(name: &str) -> Option<&str> {
    let name = compressed::plain_name(name);
    name.strip_suffix(".ko").or(name.strip_suffix(".ko.debug"))
}

/// Whether a file, of all that are below a directory, is a kernel or a module, by its name.
pub fn is_image(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else {
        return false;
    };
    let is_vmlinux = |name: &str| name == "vmlinux" || name.starts_with("vmlinux-");
    let plain = compressed::plain_name(name);
    let is_table = Path::new(plain).extension() == Some(OsStr::new(TABLE_EXTENSION));
    // In the directory of a build there is another, which decompresses the kernel.
    let is_decompressor = path
        .parent()
        .is_some_and(|dir| dir.ends_with("boot/compressed"));
    module_stem(name).is_some() || is_vmlinux(plain) && !is_table && !is_decompressor
}

/// The files below a directory, sorted; symbolic links to directories are not followed. `failed` is
/// told what cannot be read.
pub fn below(directory: &Path, mut failed: impl FnMut(Error)) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let mut read = || -> io::Result<()> {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => directories.push(entry.path()),
                    false => files.push(entry.path()),
                }
            }
            Ok(())
        };
        if let Err(error) = read() {
            failed(Error::io(directory)(error));
        }
    }
    files.sort();
    files
}

/// Reads a whole file, which must be regular, or with `-` stdin.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::NotAFile`].
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = match is_stdin(path) {
        true => io::stdin().lock().read_to_end(&mut bytes),
        false => open_regular(path)?.read_to_end(&mut bytes),
    };
    read.map_err(Error::io(path))?;
    Ok(bytes)
}

/// The error for a file that [`Table::parse`] or [`Table::check_rows`] refuses: it is no table at all, or
/// a damaged one.
pub fn refused(path: &Path, bytes: &[u8], source: lineinfo_core::Error) -> Error {
    match Kind::of_head(bytes) {
        found if found != Kind::Table && !bytes.is_empty() => {
            Foreign::error(path, found, Wanted::Table)
        }
        _ => Error::Blob {
            path: path.to_owned(),
            source,
        },
    }
}

/// The CRC-32 of a whole file, which must be regular.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::NotAFile`].
pub fn crc32(path: &Path) -> Result<u32, Error> {
    let mut file = open_regular(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(len) => hasher.update(&piece[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
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
    /// Those of [`read`] and [`refused`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes = read(path)?;
        let table = Table::parse(&bytes).and_then(|table| table.check_rows().map(|()| table));
        let layout = *table
            .map_err(|source| refused(path, &bytes, source))?
            .layout();
        message::detail(format_args!(
            "{}: a table of build-id {}",
            path.display(),
            hex(layout.build_id())
        ));
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
