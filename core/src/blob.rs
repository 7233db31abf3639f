//! The on-disk layout of a blob: raw structures, in their order in a blob.
//!
//! Reading them is the business of [`crate::Table`]; nothing here is trusted until it has been
//! through [`crate::Table::parse`].

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Defines an enumeration of the format together with its numbers and names.
macro_rules! numbered {
    ($(#[doc = $about:literal])* $name:ident: $repr:ty { $($(#[doc = $doc:literal])* $variant:ident = $number:literal, $text:literal;)* }) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $doc])* $variant),* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its number in a blob.
            pub const fn number(self) -> $repr {
                match self { $(Self::$variant => $number),* }
            }

            /// The variant of a number; `None` if this version does not know it.
            pub const fn from_number(number: $repr) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// Its name, in lower case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The documentation of the enumeration, for a header in another language.
            pub const ABOUT: &str = concat!($($about, "\n"),*);

            /// Its documentation, for a header in another language.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc, "\n"),*)),* }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}
pub(crate) use numbered;

/// The first bytes of a blob. Not ASCII and with a newline, so that a transfer that changes text
/// is noticed.
pub const MAGIC: [u8; 8] = *b"\x89LNINFO\n";

/// The version of the format that this crate reads and writes.
///
/// History: 1, the first.
pub const FORMAT_VERSION: u16 = 1;

/// Longest build-id that fits, in bytes (a SHA-1; `ld --build-id=md5` makes 16).
pub const BUILD_ID_MAX: usize = 20;

/// The size of [`Header`], in bytes.
pub const HEADER_SIZE: usize = size_of::<Header>();

/// The head of a blob, 60 bytes at its start.
///
/// `magic`, `total_size` and `crc32` keep their positions in every future version, so that any
/// version can be told from damage.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Offset 0: [`MAGIC`].
    pub magic: [u8; 8],
    /// Offset 8: [`FORMAT_VERSION`].
    pub format_version: U16,
    /// Offset 10: an [`Encoding`].
    pub encoding: u8,
    /// Offset 11: a [`Profile`].
    pub profile: u8,
    /// Offset 12: size of the whole blob in bytes.
    pub total_size: U32,
    /// Offset 16: CRC-32 (IEEE) of the whole blob, these four bytes taken as zero.
    pub crc32: U32,
    /// Offset 20: `e_machine` of the ELF file the rows came from.
    pub machine: U16,
    /// Offset 22: length of the build-id in bytes, at most [`BUILD_ID_MAX`].
    pub build_id_len: u8,
    /// Offset 23: number of entries in the section directory.
    pub sections: u8,
    /// Offset 24: link-time address of `_text`; 0 for a relocatable module ([`crate::ModuleAreas`]).
    pub text_start: U64,
    /// Offset 32: number of files.
    pub files: U32,
    /// Offset 36: number of files whose rows are exact, at every byte or at calls and traps; rows of
    /// the files after them are exact nowhere.
    pub exact_files: U32,
    /// Offset 40: the build-id, zeros after its length.
    pub build_id: [u8; BUILD_ID_MAX],
}

/// One entry of the section directory, 5 bytes.
///
/// The sections follow the directory in its order, each where the one before ends.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SectionEntry {
    /// Offset 0: a [`SectionKind`], or a kind unknown to this reader.
    pub kind: u8,
    /// Offset 1: its size in bytes.
    pub size: U32,
}

/// The head of the section of regions, 3 bytes: how many bytes each field of a record has.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RegionWidths {
    /// Offset 0: of the start (1 to 8, bits 0 to 3), and of the length (1 to 4, bits 4 to 7).
    pub start_and_len: u8,
    /// Offset 1: of the number of rows (1 to 4), and of the end of the table (1 to 4).
    pub rows_and_end: u8,
    /// Offset 2: of the name (1 to 4).
    pub name: u8,
}

impl RegionWidths {
    /// From the widths of all fields in their order.
    #[cfg(feature = "write")]
    pub(crate) fn new([start, len, rows, end, name]: [u32; 5]) -> Self {
        let byte = |low: u32, high: u32| u8::try_from(low | high << 4).unwrap_or(0);
        Self {
            start_and_len: byte(start, len),
            rows_and_end: byte(rows, end),
            name: byte(name, 0),
        }
    }

    #[expect(clippy::as_conversions, reason = "usize::from is not const")]
    const fn low(byte: u8) -> usize {
        (byte & 15) as usize
    }

    pub(crate) const fn start(self) -> usize {
        Self::low(self.start_and_len)
    }

    pub(crate) const fn len(self) -> usize {
        Self::low(self.start_and_len >> 4)
    }

    pub(crate) const fn rows(self) -> usize {
        Self::low(self.rows_and_end)
    }

    pub(crate) const fn end(self) -> usize {
        Self::low(self.rows_and_end >> 4)
    }

    pub(crate) const fn name(self) -> usize {
        Self::low(self.name)
    }

    /// Bytes before the end of the table.
    pub(crate) const fn before_end(self) -> usize {
        self.start()
            .saturating_add(self.len())
            .saturating_add(self.rows())
    }

    /// Bytes of a record; `None` if a width is not one that a field can have.
    pub(crate) const fn record_size(self) -> Option<usize> {
        const fn in_4(width: usize) -> bool {
            1 <= width && width <= 4
        }
        let known = 1 <= self.start()
            && self.start() <= 8
            && in_4(self.len())
            && in_4(self.rows())
            && in_4(self.end())
            && in_4(self.name())
            && self.name >> 4 == 0;
        if !known {
            return None;
        }
        Some(
            self.before_end()
                .saturating_add(self.end())
                .saturating_add(self.name()),
        )
    }
}

/// A signature of the blob, 96 bytes.
///
/// It is pure Ed25519 (RFC 8032) over every byte of the blob but its last 64, which are `signature`,
/// with the four bytes of [`Header::crc32`] taken as zero. So it covers the size of the blob, the
/// directory, and the key; the checksum is written last and covers the signature.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BlobSignature {
    /// Offset 0: the Ed25519 public key.
    pub key: [u8; 32],
    /// Offset 32: the Ed25519 signature.
    pub signature: [u8; 64],
}

/// The region is init text: freed after boot, and its table with it.
pub const REGION_INIT: u16 = 1;

const _: () = assert!(size_of::<Header>() == 60);
const _: () = assert!(size_of::<SectionEntry>() == 5);
const _: () = assert!(size_of::<RegionWidths>() == 3);
const _: () = assert!(size_of::<BlobSignature>() == 96);

numbered! {
    /// The kinds of section.
    SectionKind: u32 {
        /// [`RegionWidths`], and a record for every region.
        Regions = 1, "regions";
        /// The names of the regions that have unusual ones.
        RegionNames = 2, "region-names";
        /// The names of the files.
        Files = 3, "files";
        /// The tables of the regions.
        Rows = 4, "rows";
        /// What the tables of all regions share: [`crate::encoding::packed`].
        Model = 5, "model";
        /// The functions that are inlined somewhere: [`crate::chain`].
        Functions = 6, "functions";
        /// Their names.
        FunctionNames = 7, "function-names";
        /// The chains of inlined functions, by region.
        Chains = 8, "chains";
        /// A [`BlobSignature`]; the last section.
        Signature = 16, "signature";
        /// The symbols of the image, for readers of logs: a kernel has its own. Its layout is that of
        /// whoever reads it, and not checked with the rest of the blob.
        Symbols = 32, "symbols";
    }
}

numbered! {
    /// How rows are encoded.
    Encoding: u8 {
        /// Arrays of fixed-size fields: [`crate::encoding::flat`].
        Flat = 1, "flat";
        /// Blocks of 64 rows, LEB128 differences: [`crate::encoding::delta`].
        Delta = 2, "delta";
        /// Blocks of two bit streams, codes fitted to the image: [`crate::encoding::packed`].
        Packed = 3, "packed";
    }
}

numbered! {
    /// What the rows are exact for.
    Profile: u8 {
        /// Exact at every byte of text.
        Full = 1, "full";
        /// Exact at return addresses and traps, approximate elsewhere.
        Calls = 2, "calls";
    }
}
