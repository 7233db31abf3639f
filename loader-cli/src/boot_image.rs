//! Boot images with a table behind them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use lineinfo_core::footer::{self, Footer};
use zerocopy::IntoBytes;

use crate::error::Error;
use crate::files;

/// A boot image on disk.
#[derive(Debug)]
pub struct BootImage {
    path: PathBuf,
    file: File,
    len: u64,
    footer: Option<Footer>,
}

impl BootImage {
    /// Opens an image and looks for a footer.
    ///
    /// # Errors
    ///
    /// Those of [`files::open_image`], and [`Error::Footer`] for a footer that cannot be true.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut file = files::open_image(path)?;
        let mut read_tail = || {
            let len = file.metadata()?.len();
            let mut tail = Vec::new();
            file.seek(SeekFrom::Start(len.saturating_sub(footer::TAIL as u64)))?;
            file.read_to_end(&mut tail)?;
            Ok((len, tail))
        };
        let (len, tail) = read_tail().map_err(Error::io(path))?;
        let footer = Footer::find(&tail, len).map_err(|source| Error::Footer {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            len,
            footer,
        })
    }

    /// Length of the image without what is appended, in bytes.
    pub fn image_len(&self) -> u64 {
        self.footer.map_or(self.len, |footer| footer.image_len)
    }

    /// Replaces what is appended, if anything, by this blob.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and [`Error::TooLarge`]; the image is then as it was.
    pub fn append(&self, blob_path: &Path, blob: &[u8]) -> Result<(), Error> {
        let (pad, footer) =
            footer::append(self.image_len(), blob).ok_or_else(|| Error::TooLarge {
                path: blob_path.to_owned(),
                size_bytes: blob.len(),
            })?;
        self.rewrite(&[pad, blob, footer.as_bytes()])
    }

    /// Removes what is appended, so that the image is again what it was, to the byte.
    ///
    /// # Errors
    ///
    /// [`Error::NothingAppended`], and [`Error::Io`]; the image is then as it was.
    pub fn strip(&self) -> Result<(), Error> {
        if self.footer.is_none() {
            return Err(Error::NothingAppended {
                path: self.path.clone(),
            });
        }
        self.rewrite(&[])
    }

    fn rewrite(&self, behind: &[&[u8]]) -> Result<(), Error> {
        files::replace(&self.path, Some(&self.file), |to| {
            let mut from = &self.file;
            from.seek(SeekFrom::Start(0))?;
            let copied = io::copy(&mut from.take(self.image_len()), to)?;
            if copied != self.image_len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            behind.iter().try_for_each(|part| to.write_all(part))
        })
    }
}
