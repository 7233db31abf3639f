//! Boot images with a table at their end.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lineinfo_core::footer::{self, Ending, Footer, FooterError, PE_ENTRY_SIZE, Signature};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use zerocopy::IntoBytes;

use crate::error::Error;
use crate::files;
use crate::kind::Kind;
use crate::output::{HardLinks, Output};

/// What may be lost when an image is changed, because its user said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Nothing.
    None,
    /// A signature becomes invalid, and other names (hard links) keep the old contents.
    Force,
}

/// A boot image on disk.
#[derive(Debug)]
pub struct BootImage {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    ending: Ending,
}

impl BootImage {
    /// Opens an image and looks for a table at its end.
    ///
    /// # Errors
    ///
    /// Those of [`files::open_image`], and [`Error::Footer`] for a footer that does not match what is
    /// before it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        match Self::look_at(path)? {
            (image, None) => Ok(image),
            (_, Some(source)) => Err(Error::Footer {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Opens an image, with what is wrong with the footer at its end, if anything. It is then only to be
    /// looked at.
    ///
    /// # Errors
    ///
    /// Those of [`files::open_image`].
    pub fn look_at(path: &Path) -> Result<(Self, Option<FooterError>), Error> {
        let file = files::open_image(path)?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        let read = |at, bytes: &mut [u8]| file.read_exact_at(bytes, at);
        let found = Ending::find(metadata.len(), &mut [0; 4096], read);
        let (ending, mut damage) = match found.map_err(Error::io(path))? {
            Ok(ending) => (ending, None),
            Err(damage) => (Ending::default(), Some(damage)),
        };
        let image = Self {
            path: path.to_owned(),
            file,
            metadata,
            ending,
        };
        if let Some((footer, payload)) = image.payload()? {
            damage = footer.blob(&payload).err();
        }
        Ok((image, damage))
    }

    /// The footer, and what it says that was appended; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn payload(&self) -> Result<Option<(Footer, Vec<u8>)>, Error> {
        let Some(footer) = self.ending.footer else {
            return Ok(None);
        };
        let mut payload = vec![0; footer.payload_size as usize];
        let read = self
            .file
            .read_exact_at(&mut payload, footer.payload().start);
        read.map_err(Error::io(&self.path))?;
        Ok(Some((footer, payload)))
    }

    /// Length of the file, in bytes.
    pub fn file_len(&self) -> u64 {
        self.metadata.len()
    }

    /// The signature at its end, if there is one.
    pub const fn signature(&self) -> Option<Signature> {
        self.ending.signature
    }

    /// What the file is.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn kind(&self) -> Result<Kind, Error> {
        Kind::of(&self.file).map_err(Error::io(&self.path))
    }

    /// Length of the image without what is appended, in bytes.
    pub fn image_len(&self) -> u64 {
        let footer = self.ending.footer;
        footer.map_or(self.metadata.len(), |footer| footer.image_len)
    }

    /// Whether it is of a kind that is known to boot with a table after it: ELF, PE or bzImage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn is_known_kind(&self) -> Result<bool, Error> {
        Ok(matches!(self.kind()?, Kind::Elf | Kind::Pe | Kind::BzImage))
    }

    /// Replaces what is appended, if anything, by this blob.
    ///
    /// # Errors
    ///
    /// [`Error::Signed`], [`Error::TooLarge`], and those of [`Output`]; the image is then as it
    /// was.
    pub fn append(&self, blob_path: &Path, blob: &[u8], consent: Consent) -> Result<(), Error> {
        let (pad, footer) =
            footer::append(self.image_len(), blob).ok_or_else(|| Error::TooLarge {
                path: blob_path.to_owned(),
                size_bytes: blob.len(),
            })?;
        let output = self.output(consent)?;
        output.differs_from(blob_path)?;
        self.rewrite(output, &[pad, blob, footer.as_bytes()])
    }

    /// Removes what is appended, so that the image is again what it was, to the byte.
    ///
    /// With it goes a signature that was made after the table was appended. The header of a PE file
    /// then names no certificates any more; its checksum stays the one that the signing tool wrote.
    ///
    /// # Errors
    ///
    /// [`Error::NothingAppended`], [`Error::Signed`], and those of [`Output`]; the image is then
    /// as it was.
    pub fn strip(&self, consent: Consent) -> Result<(), Error> {
        if self.ending.footer.is_none() {
            return Err(Error::NothingAppended {
                path: self.path.clone(),
            });
        }
        self.rewrite(self.output(consent)?, &[])
    }

    fn output(&self, consent: Consent) -> Result<Output, Error> {
        if let (Some(signature), Consent::None) = (self.ending.signature, consent) {
            return Err(Error::Signed {
                path: self.path.clone(),
                signature,
            });
        }
        let hard_links = match consent {
            Consent::None => HardLinks::Refuse,
            Consent::Force => HardLinks::Break,
        };
        Output::in_place_of(&self.path, &self.metadata, hard_links)
    }

    fn rewrite(&self, output: Output, after: &[&[u8]]) -> Result<(), Error> {
        output.write(|to| {
            copy(&self.file, to, self.image_len())?;
            if let Ending {
                footer: Some(_),
                signature: Some(Signature::Pe { entry }),
            } = self.ending
            {
                to.write_all_at(&[0; PE_ENTRY_SIZE], entry)?;
            }
            after.iter().try_for_each(|part| to.write_all(part))
        })
    }
}

/// Copies the first `len` bytes of a file into an empty one, and leaves that at its end. Holes stay
/// holes.
fn copy(mut from: &File, to: &mut File, len: u64) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let start = find(from, Whence::SeekData, at)?.min(len);
        let end = find(from, Whence::SeekHole, start)?.min(len);
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        if io::copy(&mut from.take(end - start), to)? != end - start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at = end;
    }
    to.set_len(len)?;
    to.seek(SeekFrom::End(0))?;
    Ok(())
}

/// Where the next data or hole begins; the end of all where there is none.
fn find(file: &File, whence: Whence, at: u64) -> io::Result<u64> {
    let at = i64::try_from(at).map_err(io::Error::other)?;
    match lseek(file, at, whence) {
        Ok(found) => u64::try_from(found).map_err(io::Error::other),
        Err(Errno::ENXIO) => Ok(u64::MAX),
        Err(errno) => Err(errno.into()),
    }
}
