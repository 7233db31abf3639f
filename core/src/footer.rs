//! A table at the end of a boot image: `[image][pad][blob][u32 size][u32 crc32]["#LINEINFO\n"]`.
//!
//! The idea of the kernel's bootconfig: what follows the image in its file is not loaded as code,
//! so any image can carry it and stays executable. `size` counts pad and blob in bytes, so what is
//! before them is the image to the byte; `crc32` (IEEE) is over pad and blob. Both are
//! little-endian on every host. The pad, zeros, aligns the blob to [`ALIGN`].
//!
//! Two things may follow the footer:
//!
//! - Padding, at most [`PADDING_MAX`] bytes in all. Boot loaders pad files with 0x00; flash that was
//!   erased and not written reads 0xff.
//! - A [`Signature`], because a file is signed as a whole.
//!
//! [`Ending::find`] searches from the end of the file, in pieces, and reads the padding and little
//! more. Nobody may believe [`Footer::image_len`] before [`Footer::blob`] has compared
//! the checksum: one flipped bit of `size` makes it point into the image.

use core::fmt;
use core::ops::Range;

use zerocopy::byteorder::{big_endian, little_endian};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::buffer::{self, StrBuffer};
use crate::error::Error;
use crate::uapi::Errno;
use crate::{index, wide};

/// The last bytes of an image with a blob, apart from padding and a signature.
pub const MAGIC: [u8; 10] = *b"#LINEINFO\n";

/// The blob begins at a multiple of this, in bytes from the start of the file.
pub const ALIGN: u32 = 16;

/// How much padding after the footer is searched, in bytes: a block of most flash chips.
pub const PADDING_MAX: u64 = 1024 * 1024;

/// The size of [`RawFooter`], in bytes.
pub const SIZE: usize = size_of::<RawFooter>();

/// The footer, 18 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawFooter {
    /// Offset 0: size of pad and blob in bytes.
    pub size: little_endian::U32,
    /// Offset 4: CRC-32 of pad and blob.
    pub crc32: little_endian::U32,
    /// Offset 8: [`MAGIC`].
    pub magic: [u8; 10],
}

const _: () = assert!(SIZE == 18);

/// The end of a signature of a module: `struct module_signature` and the string after it, as
/// include/linux/module_signature.h has them. s390 and powerpc sign kernels in this way too.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawModuleSignature {
    algorithm: u8,
    hash: u8,
    id_type: u8,
    signer_len: u8,
    key_id_len: u8,
    reserved: [u8; 3],
    signature_len: big_endian::U32,
    magic: [u8; 28],
}

const MODULE_SIGNATURE_MAGIC: [u8; 28] = *b"~Module signature appended~\n";

/// The beginning of a PE file (the Microsoft PE format, "MS-DOS Stub").
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDosHeader {
    magic: [u8; 2],
    unused: [u8; 58],
    pe_offset: little_endian::U32,
}

/// The PE signature, the COFF header and the first field of the optional header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPeHeader {
    magic: [u8; 4],
    unused: [u8; 16],
    optional_header_size: little_endian::U16,
    characteristics: little_endian::U16,
    optional_header_magic: little_endian::U16,
}

/// Where the header of a PE file says that its certificates are.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCertificates {
    /// From the start of the file, unlike the other addresses of that header.
    offset: little_endian::U32,
    size: little_endian::U32,
}

/// A footer that was found in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Footer {
    /// Length of the image before it, in bytes.
    pub image_len: u64,
    /// Where pad and blob end, and the footer begins, in bytes.
    end: u64,
    /// Size of pad and blob in bytes; they begin where the image ends.
    pub payload_size: u32,
    /// CRC-32 of pad and blob.
    crc32: u32,
}

/// A signature at the end of a file. It covers all that is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// What the kernel's `sign-file` appends.
    Module,
    /// The certificate table of a PE file, as `sbsign` appends it.
    Pe {
        /// Where the header names the certificate table, in bytes from the start of the file:
        /// [`PE_ENTRY_SIZE`] bytes, all zero in a file that is not signed.
        entry: u64,
    },
}

/// The size of what [`Signature::Pe`] points at, in bytes.
pub const PE_ENTRY_SIZE: usize = size_of::<RawCertificates>();

/// What is at the end of a boot image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The footer of a table.
    pub footer: Option<Footer>,
    /// A signature; after the table, if there is one.
    pub signature: Option<Signature>,
}

/// What is wrong with a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FooterError {
    /// The blob would begin before the file does.
    Size {
        /// Size of pad and blob, in bytes, as the footer says.
        size: u32,
        /// Bytes in front of the footer.
        room: u64,
    },
    /// The checksum does not match.
    Checksum {
        /// The checksum in the footer.
        expected: u32,
        /// The checksum of pad and blob.
        found: u32,
    },
    /// There is no blob after the pad.
    Blob(Error),
}

impl FooterError {
    /// The errno with which a device refuses such an image.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Size { .. } => Errno::ENOEXEC,
            Self::Checksum { .. } => Errno::EBADMSG,
            Self::Blob(error) => error.errno(),
        }
    }

    /// Appends the error as text, without `core::fmt`.
    pub fn push_to(self, text: &mut StrBuffer<'_>) {
        match self {
            Self::Size { size, room } => {
                text.push_str("damaged footer: it names a table of ");
                text.push_u32(size);
                text.push_str(" bytes, the file has ");
                text.push_u64(room);
                text.push_str(" before it; copy the image again");
            }
            Self::Checksum { expected, found } => {
                text.push_str("damaged table or footer: checksum ");
                text.push_hex(&found.to_be_bytes());
                text.push_str(" where the footer says ");
                text.push_hex(&expected.to_be_bytes());
                text.push_str("; copy the image again");
            }
            Self::Blob(error) => {
                text.push_str("appended table: ");
                error.push_to(text);
            }
        }
    }
}

impl core::error::Error for FooterError {}

impl fmt::Display for FooterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        buffer::display(f, |text| self.push_to(text))
    }
}

impl Ending {
    /// Looks for a footer and a signature at the end of a file of `file_len` bytes.
    ///
    /// `read` fills a slice with the bytes at an offset, all within the file. It is called with pieces
    /// of `buffer`, for at most [`PADDING_MAX`] bytes, the length of `buffer` twice, and 256 bytes; in
    /// a file without padding and signature for one `buffer` and a footer. A page is a good
    /// length. With an empty buffer nothing is found.
    ///
    /// # Errors
    ///
    /// That of `read`; within, [`FooterError::Size`] where there is a footer that cannot be true.
    pub fn find<E>(
        file_len: u64,
        buffer: &mut [u8],
        read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Result<Self, FooterError>, E> {
        let mut file = Reader {
            len: file_len,
            padding_left: PADDING_MAX,
            buffer,
            read,
        };
        let Some(end) = file.trim(file_len)? else {
            return Ok(Ok(Self::default()));
        };
        if let Some(footer) = file.footer(end)? {
            return Ok(footer.map(|footer| Self {
                footer: Some(footer),
                signature: None,
            }));
        }
        let Some((signature, start)) = file.signature(end)? else {
            return Ok(Ok(Self::default()));
        };
        let footer = match file.trim(start)? {
            Some(end) => file.footer(end)?.transpose(),
            None => Ok(None),
        };
        Ok(footer.map(|footer| Self {
            footer,
            signature: Some(signature),
        }))
    }
}

/// A file, and how much padding may still be found in it.
struct Reader<'a, R> {
    len: u64,
    padding_left: u64,
    buffer: &'a mut [u8],
    read: R,
}

impl<E, R: FnMut(u64, &mut [u8]) -> Result<(), E>> Reader<'_, R> {
    /// Where the padding before `end` begins; `None` if there is too much of it.
    fn trim(&mut self, mut end: u64) -> Result<Option<u64>, E> {
        while end > 0 {
            let len =
                usize::try_from(end).map_or(self.buffer.len(), |end| end.min(self.buffer.len()));
            let Some(chunk @ [_, ..]) = self.buffer.get_mut(..len) else {
                return Ok(None);
            };
            (self.read)(end.saturating_sub(wide(len)), chunk)?;
            let padding = chunk
                .iter()
                .rev()
                .take_while(|byte| matches!(byte, 0 | 0xff))
                .count();
            let Some(left) = self.padding_left.checked_sub(wide(padding)) else {
                return Ok(None);
            };
            self.padding_left = left;
            end = end.saturating_sub(wide(padding));
            if padding < len {
                break;
            }
        }
        Ok(Some(end))
    }

    /// The `T` at an offset; `None` if the file ends before.
    fn at<T: FromBytes + IntoBytes + Unaligned>(&mut self, at: u64) -> Result<Option<T>, E> {
        let end = at.checked_add(wide(size_of::<T>()));
        if end.is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let mut value = T::new_zeroed();
        (self.read)(at, value.as_mut_bytes())?;
        Ok(Some(value))
    }

    /// The `T` that ends at an offset, and where it begins; `None` if the file begins after that.
    fn before<T: FromBytes + IntoBytes + Unaligned>(
        &mut self,
        end: u64,
    ) -> Result<Option<(T, u64)>, E> {
        let Some(start) = end.checked_sub(wide(size_of::<T>())) else {
            return Ok(None);
        };
        Ok(self.at(start)?.map(|value| (value, start)))
    }

    fn footer(&mut self, end: u64) -> Result<Option<Result<Footer, FooterError>>, E> {
        let Some((raw, room)) = self.before::<RawFooter>(end)? else {
            return Ok(None);
        };
        if raw.magic != MAGIC {
            return Ok(None);
        }
        let size = raw.size.get();
        let footer = room
            .checked_sub(u64::from(size))
            .map(|image_len| Footer {
                image_len,
                payload_size: size,
                end: room,
                crc32: raw.crc32.get(),
            })
            .ok_or(FooterError::Size { size, room });
        Ok(Some(footer))
    }

    /// A signature that ends at `end`, padding apart, and where it begins.
    fn signature(&mut self, end: u64) -> Result<Option<(Signature, u64)>, E> {
        if let Some((raw, start)) = self.before::<RawModuleSignature>(end)?
            && raw.magic == MODULE_SIGNATURE_MAGIC
        {
            let before = u64::from(raw.signature_len.get())
                .saturating_add(raw.signer_len.into())
                .saturating_add(raw.key_id_len.into());
            let start = start.checked_sub(before);
            return Ok(start.map(|start| (Signature::Module, start)));
        }
        let Some((entry, certificates)) = self.certificates()? else {
            return Ok(None);
        };
        let start = u64::from(certificates.offset.get());
        let certificates_end = start.saturating_add(certificates.size.get().into());
        let at_end = start > 0 && start < end && (end..=self.len).contains(&certificates_end);
        Ok(at_end.then_some((Signature::Pe { entry }, start)))
    }

    /// Where the header of a PE file names its certificate table, and what it says there.
    fn certificates(&mut self) -> Result<Option<(u64, RawCertificates)>, E> {
        const COFF_SIZE: u64 = 24;
        /// In bytes from the start of the optional header, by its magic number.
        const PE32: (u16, u64) = (0x10b, 96);
        const PE32_PLUS: (u16, u64) = (0x20b, 112);
        /// The number of directories is just before them.
        const COUNT_SIZE: u64 = 4;
        const CERTIFICATES: u32 = 4;

        let Some(dos) = self.at::<RawDosHeader>(0)? else {
            return Ok(None);
        };
        if dos.magic != *b"MZ" {
            return Ok(None);
        }
        let pe_offset = u64::from(dos.pe_offset.get());
        let Some(pe) = self.at::<RawPeHeader>(pe_offset)? else {
            return Ok(None);
        };
        let magic = pe.optional_header_magic.get();
        let directories = [PE32, PE32_PLUS]
            .into_iter()
            .find_map(|(kind, offset)| (kind == magic).then_some(offset));
        let (b"PE\0\0", Some(directories)) = (&pe.magic, directories) else {
            return Ok(None);
        };
        let directories = pe_offset
            .saturating_add(COFF_SIZE)
            .saturating_add(directories);
        let count = self.at::<little_endian::U32>(directories.saturating_sub(COUNT_SIZE))?;
        if count.is_none_or(|count| count.get() <= CERTIFICATES) {
            return Ok(None);
        }
        let entry = wide(PE_ENTRY_SIZE)
            .saturating_mul(CERTIFICATES.into())
            .saturating_add(directories);
        Ok(self.at(entry)?.map(|certificates| (entry, certificates)))
    }
}

impl Footer {
    /// Where pad and blob are in the file, in bytes.
    pub const fn payload(&self) -> Range<u64> {
        self.image_len..self.end
    }

    /// The blob in the bytes at [`Footer::payload`], still to be parsed.
    ///
    /// # Errors
    ///
    /// [`FooterError::Checksum`], or [`FooterError::Blob`] for bytes that cannot hold one.
    pub fn blob<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], FooterError> {
        let found = crc32fast::hash(payload);
        if found != self.crc32 {
            return Err(FooterError::Checksum {
                expected: self.crc32,
                found,
            });
        }
        let pad = payload.iter().take_while(|byte| **byte == 0).count();
        let blob = payload.get(pad..).unwrap_or(&[]);
        crate::blob::Header::peek(blob).map_err(FooterError::Blob)?;
        Ok(blob)
    }
}

/// What to write after an image of `image_len` bytes, in this order: zeros, the blob, the footer.
///
/// `None` if the blob is larger than the footer's size can say.
pub fn append(image_len: u64, blob: &[u8]) -> Option<(&'static [u8], RawFooter)> {
    static ZEROS: [u8; index(ALIGN)] = [0; index(ALIGN)];

    let pad = u32::try_from(
        image_len
            .checked_next_multiple_of(u64::from(ALIGN))?
            .checked_sub(image_len)?,
    );
    let pad = ZEROS.get(..index(pad.ok()?))?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(pad);
    hasher.update(blob);
    let footer = RawFooter {
        size: u32::try_from(pad.len().checked_add(blob.len())?)
            .ok()?
            .into(),
        crc32: hasher.finalize().into(),
        magic: MAGIC,
    };
    Some((pad, footer))
}
