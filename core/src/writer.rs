//! Writes blobs (feature `write`).

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use crate::blob::{
    BUILD_ID_MAX, BlobSignature, Encoding, FORMAT_VERSION, HEADER_SIZE, Header, MAGIC, Profile,
    SectionEntry, SectionKind,
};
use crate::chain::write as chain;
pub use crate::chain::write::{InlineChain, InlineLevel, InlinedFunction, Inlines};
use crate::encoding::packed::write as packed;
use crate::encoding::{RegionTable, Row, RowOrder, delta, flat};
use crate::files;
use crate::name;
use crate::regions;
use crate::signature::Signed;
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
    /// How many of the files have rows that are exact ([`Header::exact_files`]): all of them but in
    /// a table of [`Profile::Calls`] ([`crate::calls`]).
    pub exact_files: usize,
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

/// How a blob is to be encoded.
///
/// An [`Encoding`] is one, with [`Tuning::BALANCED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How the rows are encoded.
    pub encoding: Encoding,
    /// What [`Encoding::Packed`] trades against what; the others have nothing to choose.
    pub tuning: Tuning,
}

impl From<Encoding> for Options {
    fn from(encoding: Encoding) -> Self {
        Self {
            encoding,
            tuning: Tuning::BALANCED,
        }
    }
}

/// What a packed table trades against what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Entries (rows, or parts of rows) in a block, on average, 1 to 96: fewer make look-ups faster
    /// and the table larger. Values outside are taken as the nearest inside.
    pub block: u32,
}

impl Tuning {
    /// The smallest tables.
    pub const SIZE: Self = Self { block: 80 };
    /// Small tables, and look-ups as fast as with [`Encoding::Delta`].
    pub const BALANCED: Self = Self { block: 48 };
    /// Look-ups in two thirds of the time that [`Encoding::Delta`] takes.
    pub const SPEED: Self = Self { block: 22 };
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
    /// The name of a file or a region breaks a rule for names.
    Name {
        /// Whose name it is.
        what: &'static str,
        /// Its index among all of them.
        position: usize,
        /// What was expected.
        expected: &'static str,
    },
    /// The writer broke a rule of its own: a defect of this crate, and not of what it was given.
    Invariant(
        /// What there was.
        &'static str,
    ),
    /// Chains of inlined functions are wanted in an encoding that has none.
    Chains {
        /// The encoding.
        encoding: Encoding,
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
            Self::Name {
                what,
                position,
                expected,
            } => write!(f, "the name of {what} {position}: expected {expected}"),
            Self::Invariant(what) => {
                write!(
                    f,
                    "the writer made {what}: a defect of lineinfo, please report it"
                )
            }
            Self::Chains { encoding } => write!(
                f,
                "a {encoding} table has no room for inlined functions; encode it as packed, or leave them out"
            ),
            Self::Invalid(error) => write!(f, "the rows do not make a table: {error}"),
        }
    }
}

/// Writes a blob, and checks it with [`crate::Table::parse`] and [`crate::Table::check_rows`] before
/// it returns it.
///
/// # Errors
///
/// What does not fit the format, or breaks its rules: rows out of order or outside their region,
/// regions that overlap, names that cannot be printed.
///
/// With [`Encoding::Packed`] files get other indices, and rows that add nothing are left out: a gap
/// before the first row, and a row with the file and line of the one before.
pub fn encode(image: &Image<'_>, options: impl Into<Options>) -> Result<Vec<u8>, EncodeError> {
    encode_all(image, None, options.into())
}

/// As [`encode`], with the chains of inlined functions: `chains` has for each region the chain of each of
/// its rows, an index in [`Inlines::chains`].
///
/// # Errors
///
/// Those of [`encode`], and [`EncodeError::Chains`] for an encoding without chains.
pub fn encode_with_inlines(
    image: &Image<'_>,
    inlines: &Inlines,
    chains: &[&[Option<u32>]],
    options: impl Into<Options>,
) -> Result<Vec<u8>, EncodeError> {
    let options = options.into();
    if options.encoding != Encoding::Packed {
        return Err(EncodeError::Chains {
            encoding: options.encoding,
        });
    }
    let lens = image.regions.iter().map(|region| region.rows.len());
    if !lens.eq(chains.iter().map(|chains| chains.len())) {
        return Err(EncodeError::TooLarge {
            what: "the number of rows without a word on their chain",
            size: wide(chains.len()),
        });
    }
    encode_all(image, Some((inlines, chains)), options)
}

/// Inlined functions, and the chain of each row of each region.
type WithChains<'a> = (&'a Inlines, &'a [&'a [Option<u32>]]);

fn encode_all(
    image: &Image<'_>,
    with_chains: Option<WithChains<'_>>,
    options: Options,
) -> Result<Vec<u8>, EncodeError> {
    let Options { encoding, tuning } = options;
    let mut build_id = [0; BUILD_ID_MAX];
    let build_id_len = image.build_id.len();
    build_id
        .get_mut(..build_id_len)
        .ok_or(EncodeError::BuildId { len: build_id_len })?
        .copy_from_slice(image.build_id);
    let files: u32 = narrow("the number of files", image.files.len())?;
    check_names("region", image.regions.iter().map(|region| region.name))?;

    let numbering = match encoding {
        Encoding::Flat | Encoding::Delta => None,
        Encoding::Packed => {
            let chains = with_chains.map_or(&[][..], |(_, chains)| chains);
            Some(Numbering::new(image, chains)?)
        }
    };
    let names: Vec<&str> = match &numbering {
        None => image.files.to_vec(),
        Some(numbering) => numbering.names.clone(),
    };
    let encode_rows = || match &numbering {
        None => Ok((Vec::new(), encode_regions(image, encoding, files)?)),
        Some(numbering) => numbering.encode_regions(image, tuning),
    };
    let (encoded, file_section) = rayon::join(encode_rows, || file_section(&names));
    let ((model, encoded), file_section) = (encoded?, file_section?);

    let chains = match (&numbering, with_chains) {
        (Some(numbering), Some((inlines, _))) => {
            numbering.encode_chains(image, inlines, &encoded, &model)?
        }
        _ => None,
    };

    let mut regions = regions::write::Writer::default();
    let mut tables = Vec::new();
    for (region, (mut table, rows)) in image.regions.iter().zip(encoded) {
        tables.append(&mut table);
        regions.push(region, rows, tables.len())?;
    }
    let (regions, region_names) = regions.finish();
    let mut sections = alloc::vec![
        (SectionKind::Regions, regions),
        (SectionKind::Files, file_section),
        (SectionKind::Rows, tables),
        (SectionKind::Model, model),
    ];
    if let Some(chains) = chains {
        sections.push((SectionKind::Functions, chains.functions));
        sections.push((SectionKind::FunctionNames, chains.names));
        sections.push((SectionKind::Chains, chains.chains));
    }
    sections.push((SectionKind::RegionNames, region_names));
    sections.retain(|(_, bytes)| !bytes.is_empty());

    let header = Header {
        magic: MAGIC,
        format_version: FORMAT_VERSION.into(),
        encoding: encoding.number(),
        profile: image.profile.number(),
        total_size: 0.into(),
        crc32: 0.into(),
        machine: image.machine.into(),
        build_id_len: narrow("the size of the build-id", build_id_len)?,
        sections: 0,
        text_start: image.text_start.into(),
        files: files.into(),
        exact_files: narrow::<u32>("the number of exact files", image.exact_files)?.into(),
        build_id,
    };
    let sections: Vec<(u32, &[u8])> = sections
        .iter()
        .map(|(kind, bytes)| (kind.number(), bytes.as_slice()))
        .collect();
    let mut blob = assemble(header, &sections)?;
    seal(&mut blob);
    let table = crate::Table::parse(&blob).map_err(EncodeError::Invalid)?;
    table.check_rows().map_err(EncodeError::Invalid)?;
    Ok(blob)
}

/// The blob of a table with these symbols ([`SectionKind::Symbols`]) in place of its own; without any
/// if they are empty. A signature goes with that, for it is over other bytes; a blob in which there is
/// nothing to change stays as it is.
///
/// # Errors
///
/// [`EncodeError::TooLarge`].
pub fn with_symbols(table: &crate::Table<'_>, symbols: &[u8]) -> Result<Vec<u8>, EncodeError> {
    if table.symbols().unwrap_or(&[]) == symbols {
        return Ok(table.bytes().to_vec());
    }
    let mut sections = unsigned_sections(table);
    if !symbols.is_empty() {
        sections.push((SectionKind::Symbols.number(), symbols));
    }
    let mut blob = assemble(table.layout().header, &sections)?;
    seal(&mut blob);
    Ok(blob)
}

/// The sections of a table without symbols and signature.
fn unsigned_sections<'a>(table: &crate::Table<'a>) -> Vec<(u32, &'a [u8])> {
    let left_out = [SectionKind::Symbols, SectionKind::Signature].map(SectionKind::number);
    table
        .raw_sections()
        .filter(|(kind, _)| !left_out.contains(kind))
        .collect()
}

/// A blob without its checksum: the header, which gets the sizes, the directory and the sections.
fn assemble(mut header: Header, sections: &[(u32, &[u8])]) -> Result<Vec<u8>, EncodeError> {
    let mut directory = Vec::new();
    let directory_size = size_of::<SectionEntry>().saturating_mul(sections.len());
    let mut end = HEADER_SIZE.saturating_add(directory_size);
    for (kind, bytes) in sections {
        let entry = SectionEntry {
            kind: narrow("the kind of a section", index(*kind))?,
            size: narrow::<u32>("the size of a section", bytes.len())?.into(),
        };
        directory.extend_from_slice(entry.as_bytes());
        end = end.saturating_add(bytes.len());
    }
    header.total_size = narrow::<u32>("the size of the blob", end)?.into();
    header.sections = narrow("the number of sections", sections.len())?;
    let mut blob = Vec::with_capacity(end);
    blob.extend_from_slice(header.as_bytes());
    blob.append(&mut directory);
    for (_, bytes) in sections {
        blob.extend_from_slice(bytes);
    }
    Ok(blob)
}

/// The same blob with a signature, in place of one that it has ([`BlobSignature`]), and without
/// symbols: a signed table is for a kernel, which has its own.
///
/// `key` is the Ed25519 public key, and `sign` makes the signature of a message.
///
/// # Errors
///
/// [`EncodeError::Invalid`] for bytes that are no blob, and where it becomes too large.
pub fn sign(
    blob: &[u8],
    key: [u8; 32],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<Vec<u8>, EncodeError> {
    let table = crate::Table::parse(blob).map_err(EncodeError::Invalid)?;
    let mut signature = BlobSignature {
        key,
        signature: [0; 64],
    };
    let mut sections = unsigned_sections(&table);
    let unsigned = signature;
    sections.push((SectionKind::Signature.number(), unsigned.as_bytes()));
    let mut signed = assemble(table.layout().header, &sections)?;
    let message = Signed::of(&signed).map(|signed| signed.message.concat());
    let message = message.ok_or(EncodeError::Invariant("a blob without its signature"))?;
    signature.signature = sign(&message);
    signed.truncate(signed.len().saturating_sub(size_of::<BlobSignature>()));
    signed.extend_from_slice(signature.as_bytes());
    seal(&mut signed);
    crate::Table::parse(&signed).map_err(EncodeError::Invalid)?;
    Ok(signed)
}

/// The codes that fit an image best, in the form of those that [`crate::encoding::packed`] has built
/// in: this is how they were made.
///
/// # Errors
///
/// As [`encode`].
pub fn built_in_codes(image: &Image<'_>) -> Result<Vec<u8>, EncodeError> {
    let numbering = Numbering::new(image, &[])?;
    let sources = numbering.sources(image);
    packed::built_in_codes(&sources, numbering.headers, Tuning::BALANCED.block)
}

/// A grammar for the names of files in many small tables, in the form of the one that core has built
/// in: this is how that was made.
///
/// # Errors
///
/// [`EncodeError::TooLarge`].
pub fn built_in_grammar(lists: &[Vec<&str>]) -> Result<Vec<u8>, EncodeError> {
    files::write::built_in_grammar(lists)
}

/// Codes and tokens for the names of functions in many small tables, in the form of those that core has
/// built in: this is how they were made.
///
/// # Errors
///
/// [`EncodeError::TooLarge`].
pub fn built_in_names(lists: &[Vec<&str>]) -> Result<Vec<u8>, EncodeError> {
    crate::chain::names::write::built_in(lists)
}

/// Writes the checksum of a blob into its header, after its bytes were changed.
///
/// For tests and fuzzers that damage a blob and want its checksum right. Bytes too few for a header are
/// left as they are.
pub fn seal(blob: &mut [u8]) {
    use zerocopy::FromBytes;

    let crc32 = Header::checksum(blob);
    if let Ok((header, _)) = Header::mut_from_prefix(blob) {
        header.crc32 = crc32.into();
    }
}

/// The table of every region, and the number of its rows.
type Tables = Vec<(Vec<u8>, usize)>;

fn encode_regions(
    image: &Image<'_>,
    encoding: Encoding,
    files: u32,
) -> Result<Tables, EncodeError> {
    let encode = |region: &Region<'_>| {
        let table = match encoding {
            Encoding::Flat => flat::encode(region.rows, files),
            Encoding::Delta => delta::encode(region.rows)?,
            Encoding::Packed => {
                return Err(EncodeError::Invariant("a packed table region by region"));
            }
        };
        Ok((table, region.rows.len()))
    };
    image.regions.iter().map(encode).collect()
}

/// The files in the order that the packed encoding wants: headers first, by name, then the others
/// by the address at which they appear first.
struct Numbering<'a> {
    names: Vec<&'a str>,
    /// Number of headers.
    headers: u32,
    /// The rows of every region, renumbered.
    rows: Vec<Vec<Row>>,
    /// The chains of the rows of every region; empty without chains.
    chains: &'a [&'a [Option<u32>]],
    /// The new number of every file.
    new_of_old: Vec<u32>,
}

impl<'a> Numbering<'a> {
    fn new(image: &Image<'a>, chains: &'a [&'a [Option<u32>]]) -> Result<Self, EncodeError> {
        let files: u32 = narrow("the number of files", image.files.len())?;
        let mut first = alloc::vec![u64::MAX; image.files.len()];
        for region in image.regions {
            let mut order = RowOrder::new(region.len, files);
            for row in region.rows {
                order.check(row).map_err(|fault| {
                    EncodeError::Invalid(crate::Error::Malformed {
                        part: "rows",
                        offset: 0,
                        expected: fault.expected,
                        found: fault.found,
                    })
                })?;
                if row.is_gap() {
                    continue;
                }
                if let Some(first) = first.get_mut(index(row.file)) {
                    *first = (*first).min(region.start.saturating_add(row.start.into()));
                }
            }
        }
        let is_header = |name: &str| name.ends_with(".h");
        let mut order: Vec<(bool, bool, u64, &str, usize)> = Vec::new();
        for (old, (name, first)) in image.files.iter().zip(first).enumerate() {
            let header = is_header(name);
            let approximate = old >= image.exact_files;
            let header = header && !approximate;
            order.push((
                approximate,
                !header,
                if header { 0 } else { first },
                name,
                old,
            ));
        }
        order.sort_unstable();
        let mut new_of_old = alloc::vec![0; order.len()];
        for (new, (.., old)) in (0_u32..).zip(&order) {
            if let Some(slot) = new_of_old.get_mut(*old) {
                *slot = new;
            }
        }
        let renumber = |row: &Row| match new_of_old.get(index(row.file)) {
            Some(file) => Row {
                file: *file,
                ..*row
            },
            // A gap may name any file.
            None => Row { file: 0, ..*row },
        };
        let regions = image.regions.iter();
        Ok(Self {
            headers: narrow(
                "the number of files",
                order.iter().filter(|(_, other, ..)| !other).count(),
            )?,
            names: order.into_iter().map(|(_, _, _, name, _)| name).collect(),
            rows: regions
                .map(|region| region.rows.iter().map(renumber).collect())
                .collect(),
            chains,
            new_of_old,
        })
    }

    fn sources(&self, image: &Image<'_>) -> Vec<packed::Source<'_>> {
        let mut sources = Vec::new();
        for (number, (region, rows)) in image.regions.iter().zip(&self.rows).enumerate() {
            sources.push(packed::Source {
                rows,
                chains: self.chains.get(number).copied().unwrap_or(&[]),
                len: region.len,
            });
        }
        sources
    }

    fn encode_chains(
        &self,
        image: &Image<'_>,
        inlines: &Inlines,
        tables: &Tables,
        model: &[u8],
    ) -> Result<Option<chain::Written>, EncodeError> {
        for (position, function) in inlines.functions.iter().enumerate() {
            if let Some(expected) = name::fault(function.name.as_bytes()) {
                return Err(EncodeError::Name {
                    what: "inlined function",
                    position,
                    expected,
                });
            }
        }
        let files = narrow("the number of files", self.names.len())?;
        let mut sources = Vec::new();
        let regions = self.sources(image).into_iter().zip(tables);
        for (source, (table, rows)) in regions {
            sources.push(chain::Source {
                table: RegionTable {
                    bytes: table,
                    rows: narrow("the number of rows", *rows)?,
                    files,
                    len: source.len,
                    model,
                },
                rows: source.rows,
                chains: source.chains,
            });
        }
        chain::encode(inlines, &sources, &self.new_of_old, self.headers)
    }

    fn encode_regions(
        &self,
        image: &Image<'_>,
        tuning: Tuning,
    ) -> Result<(Vec<u8>, Tables), EncodeError> {
        let sources = self.sources(image);
        let packed = packed::encode(&sources, self.headers, tuning.block)?;
        let tables = packed.tables.into_iter();
        let tables = tables.map(|(table, rows)| (table, index(rows))).collect();
        Ok((packed.model, tables))
    }
}

fn file_section(names: &[&str]) -> Result<Vec<u8>, EncodeError> {
    check_names("file", names.iter().copied())?;
    files::write::encode(names)
}

fn check_names<'a>(
    what: &'static str,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), EncodeError> {
    for (position, name) in names.enumerate() {
        if let Some(expected) = name::fault(name.as_bytes()) {
            return Err(EncodeError::Name {
                what,
                position,
                expected,
            });
        }
    }
    Ok(())
}

/// A number in the width that the format has for it.
pub(crate) fn narrow<T: TryFrom<usize>>(what: &'static str, size: usize) -> Result<T, EncodeError> {
    T::try_from(size).map_err(|_| EncodeError::TooLarge {
        what,
        size: wide(size),
    })
}
