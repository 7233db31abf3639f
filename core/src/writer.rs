//! Writes blobs (feature `alloc`).

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use crate::blob::{
    BUILD_ID_MAX, Encoding, FORMAT_VERSION, HEADER_SIZE, Header, MAGIC, Profile, REGION_INIT,
    RegionEntry, SectionEntry, SectionKind,
};
use crate::encoding::{Row, delta, flat};
use crate::{index, wide};

/// What a blob is made from.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// ELF machine number (`e_machine`).
    pub machine: u16,
    /// Build-id, at most [`BUILD_ID_MAX`] bytes; empty if there is none.
    pub build_id: &'a [u8],
    /// Link-time address of `_text`.
    pub text_start: u64,
    /// What the rows are exact for.
    pub profile: Profile,
    /// Names of the files, relative to the root of the sources, each once.
    pub files: &'a [&'a str],
    /// The text sections, by ascending start.
    pub regions: &'a [Region<'a>],
}

/// One text section.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    /// Name of the section.
    pub name: &'a str,
    /// Its start, in bytes from `_text`.
    pub start: u64,
    /// Its length in bytes.
    pub len: u32,
    /// It is init text, freed after boot.
    pub init: bool,
    /// Its rows, with strictly ascending starts.
    pub rows: &'a [Row],
}

/// Why no blob could be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The build-id is longer than a header holds.
    BuildId {
        /// Its length in bytes.
        len: usize,
    },
    /// Something counted or measured in 32 bits (16 for the length of a region's name) has more.
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        size: u64,
    },
    /// The result does not pass [`crate::Table::parse`]: the input breaks a rule of the format.
    Invalid(crate::Error),
}

impl core::error::Error for EncodeError {}

impl core::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BuildId { len } => write!(
                f,
                "a build-id of {len} bytes, a blob holds {BUILD_ID_MAX}; link with --build-id=sha1"
            ),
            Self::TooLarge { what, size } => {
                write!(f, "{what} is {size}, more than the format holds")
            }
            Self::Invalid(error) => write!(f, "the rows do not make a table: {error}"),
        }
    }
}

/// Writes a blob, and reads it back with [`crate::Table::parse`] before it is given out.
///
/// # Errors
///
/// What does not fit the format, or breaks its rules: rows out of order or outside their region,
/// regions that overlap, names that cannot be printed.
pub fn encode(image: &Image<'_>, encoding: Encoding) -> Result<Vec<u8>, EncodeError> {
    let mut build_id = [0; BUILD_ID_MAX];
    let build_id_len = image.build_id.len();
    build_id
        .get_mut(..build_id_len)
        .ok_or(EncodeError::BuildId { len: build_id_len })?
        .copy_from_slice(image.build_id);
    let files = narrow("the number of files", image.files.len())?;

    let mut entries = Vec::new();
    let mut region_names = Vec::new();
    let mut tables = Vec::new();
    let mut rows = 0_usize;
    for region in image.regions {
        let mut table = match encoding {
            Encoding::Flat => flat::encode(region.rows, files),
            Encoding::Delta => delta::encode(region.rows),
        };
        let entry = RegionEntry {
            start: region.start.into(),
            len: region.len.into(),
            rows: narrow("the number of rows", region.rows.len())?.into(),
            table_offset: narrow("the size of the rows", tables.len())?.into(),
            table_size: narrow("the size of the rows", table.len())?.into(),
            name_offset: narrow("the size of the region names", region_names.len())?.into(),
            name_len: u16::try_from(region.name.len())
                .map_err(|_| EncodeError::TooLarge {
                    what: "the length of a region's name",
                    size: wide(region.name.len()),
                })?
                .into(),
            flags: if region.init { REGION_INIT } else { 0 }.into(),
        };
        entries.extend_from_slice(entry.as_bytes());
        region_names.extend_from_slice(region.name.as_bytes());
        tables.append(&mut table);
        rows = rows.saturating_add(region.rows.len());
    }
    let sections = [
        (SectionKind::Regions, entries),
        (SectionKind::RegionNames, region_names),
        (SectionKind::Files, file_section(image.files)?),
        (SectionKind::Rows, tables),
    ];

    let mut directory = Vec::new();
    let mut end = HEADER_SIZE.saturating_add(size_of::<[SectionEntry; 4]>());
    for (kind, bytes) in &sections {
        let entry = SectionEntry {
            kind: kind.number().into(),
            offset: narrow("the size of the blob", end)?.into(),
            size: narrow("the size of a section", bytes.len())?.into(),
        };
        directory.extend_from_slice(entry.as_bytes());
        end = end.saturating_add(bytes.len());
    }
    let text_len = image
        .regions
        .last()
        .map_or(0, |last| last.start.saturating_add(u64::from(last.len)));
    let header = Header {
        magic: MAGIC,
        format_version: FORMAT_VERSION.into(),
        header_size: u16::try_from(HEADER_SIZE).unwrap_or(u16::MAX).into(),
        total_size: narrow("the size of the blob", end)?.into(),
        crc32: 0.into(),
        machine: image.machine.into(),
        encoding: encoding.number(),
        profile: image.profile.number(),
        text_start: image.text_start.into(),
        text_len: text_len.into(),
        rows: narrow("the number of rows", rows)?.into(),
        files: files.into(),
        regions: narrow("the number of regions", image.regions.len())?.into(),
        sections: narrow("the number of sections", sections.len())?.into(),
        build_id_len: u8::try_from(build_id_len).unwrap_or(u8::MAX),
        build_id,
        reserved: [0; 19],
    };
    let mut blob = Vec::with_capacity(end);
    blob.extend_from_slice(header.as_bytes());
    blob.append(&mut directory);
    for (_, mut bytes) in sections {
        blob.append(&mut bytes);
    }
    seal(&mut blob);
    crate::Table::parse(&blob).map_err(EncodeError::Invalid)?;
    Ok(blob)
}

/// Writes the checksum of a blob into its header, after its bytes were changed.
///
/// For tests and fuzzers that damage a blob behind its checksum. Bytes too few for a header are
/// left as they are.
pub fn seal(blob: &mut [u8]) {
    use zerocopy::FromBytes;

    let crc32 = Header::checksum(blob);
    if let Ok((header, _)) = Header::mut_from_prefix(blob) {
        header.crc32 = crc32.into();
    }
}

fn file_section(files: &[&str]) -> Result<Vec<u8>, EncodeError> {
    let mut section = Vec::new();
    let mut end = 0_usize;
    for name in files {
        end = end.saturating_add(name.len());
        let end = narrow("the size of the file names", end)?;
        section.extend_from_slice(&end.to_le_bytes());
    }
    section.reserve_exact(end);
    for name in files {
        section.extend_from_slice(name.as_bytes());
    }
    Ok(section)
}

fn narrow(what: &'static str, size: usize) -> Result<u32, EncodeError> {
    // Positions in a blob must be indices on every target.
    u32::try_from(size)
        .ok()
        .filter(|narrow| index(*narrow) == size)
        .ok_or(EncodeError::TooLarge {
            what,
            size: wide(size),
        })
}
