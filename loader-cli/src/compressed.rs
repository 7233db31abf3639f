//! Compressed modules and kernels: `.ko.xz`, `.ko.zst`, `.ko.gz`, `vmlinux.xz`.
//!
//! What a file is follows from its first bytes. It is decompressed into a file without a name, for the
//! readers of ELF files read here and there; a log is decompressed as it is read.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;

use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use ruzstd::decoding::StreamingDecoder;

/// How the names of such files end.
pub const EXTENSIONS: [&str; 3] = [".xz", ".zst", ".gz"];

/// How many bytes say how a file is compressed.
pub(crate) const MAGIC_MAX: usize = 6;

/// How much is decompressed at once, in bytes.
const PIECE: usize = 64 << 10;

/// The most memory that a decoder of xz takes, in bytes: what its highest level wants, and some.
const XZ_MEMORY_MAX: u64 = 128 << 20;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Xz,
    Zstandard,
}

impl Compression {
    /// How a file is compressed; `None` if it is not.
    pub(crate) fn of(file: &File) -> io::Result<Option<Self>> {
        let mut start = [0; MAGIC_MAX];
        let len = file.read_at(&mut start, 0)?;
        Ok(Self::of_head(&start[..len]))
    }

    /// How what begins with these bytes is compressed.
    pub(crate) fn of_head(head: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Compression); 3] = [
            (b"\x1f\x8b", Compression::Gzip),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x28\xb5\x2f\xfd", Compression::Zstandard),
        ];
        let found = MAGICS.iter().find(|(magic, _)| head.starts_with(magic));
        found.map(|(_, compression)| *compression)
    }

    /// Decompresses what is read.
    ///
    /// # Errors
    ///
    /// That the start is damaged, or that of reading it.
    pub(crate) fn reader<'a>(self, from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(from)),
            Self::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, CONCATENATED);
                let stream = stream.map_err(io::Error::from)?;
                Box::new(XzDecoder::new_stream(from, stream))
            }
            Self::Zstandard => Box::new(StreamingDecoder::new(from).map_err(io::Error::other)?),
        })
    }

    /// Decompresses a file; `charge` is asked before each piece.
    ///
    /// # Errors
    ///
    /// What `charge` says, or that the file is damaged.
    pub(crate) fn decompress<E: From<io::Error>>(
        self,
        file: &File,
        mut charge: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<File, E> {
        let mut from = self.reader(file)?;
        let mut to = tempfile::tempfile()?;
        let mut piece = vec![0; PIECE];
        loop {
            let len = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            charge(len as u64)?;
            to.write_all(&piece[..len])?;
        }
        to.rewind()?;
        Ok(to)
    }
}

/// A name without the ending of a compressed file.
pub fn plain_name(name: &str) -> &str {
    let plain = EXTENSIONS.iter().find_map(|end| name.strip_suffix(end));
    plain.unwrap_or(name)
}
