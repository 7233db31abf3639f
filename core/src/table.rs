use core::ops::Range;

use zerocopy::FromBytes;

use crate::address::{Address, Offset};
use crate::blob::{
    BUILD_ID_MAX, BlobSignature, Encoding, FORMAT_VERSION, HEADER_SIZE, Header, MAGIC, Profile,
    SectionEntry, SectionKind,
};
use crate::buffer::StrBuffer;
use crate::chain::{self, Chain, FunctionName, Ops, RawFrame, Wanted};
use crate::encoding::packed::{self, Chunk, Model};
use crate::encoding::{self, Fault, RegionTable, Row, Rows};
use crate::error::Error;
use crate::files::{self, FileName, Files};
use crate::location::Location;
use crate::name;
use crate::regions::{self, Region, Regions};
use crate::signature::Signed;
use crate::{index, wide};

/// A validated view of a blob.
///
/// After [`Table::parse`] a look-up cannot fail, only miss, and it cannot leave the blob.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    bytes: &'a [u8],
    layout: Layout,
}

/// What [`Table::parse`] found: the positions of the parts of a blob, without the blob.
///
/// Whoever owns the bytes keeps this beside them and makes a [`Table`] again at no cost with
/// [`Table::from_layout`].
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub(crate) header: Header,
    /// Bytes from `_text` to the end of the last region.
    text_len: u64,
    /// Number of rows, over all regions.
    pub(crate) rows_count: u32,
    encoding: Encoding,
    profile: Profile,
    pub(crate) regions: Span,
    region_names: Span,
    files: Span,
    rows: Span,
    model: Span,
    functions: Span,
    function_names: Span,
    pub(crate) chains: Span,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// An address whose block is found.
struct Begun {
    region: u32,
    /// The offset, from the start of the region.
    target: u32,
    /// Where the table of the region begins and ends in the rows section.
    table: (u32, u32),
}

impl Span {
    fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(index(self.start)..index(self.end)).unwrap_or(&[])
    }
}

impl Layout {
    /// Size of a layout in memory, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// ELF machine number (`e_machine`) of the image that the table describes.
    pub const fn machine(&self) -> u16 {
        self.header.machine.get()
    }

    /// Build-id of the image, empty if it has none.
    pub fn build_id(&self) -> &[u8] {
        self.header
            .build_id
            .get(..usize::from(self.header.build_id_len))
            .unwrap_or(&[])
    }

    /// Link-time address of `_text`.
    pub const fn text_start(&self) -> u64 {
        self.header.text_start.get()
    }

    /// Bytes from `_text` to the end of the last region.
    pub const fn text_len(&self) -> u64 {
        self.text_len
    }

    /// How the rows are encoded.
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// What the rows are exact for.
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// Number of rows, gaps included.
    pub const fn rows(&self) -> u32 {
        self.rows_count
    }

    /// Number of files.
    pub const fn files(&self) -> u32 {
        self.header.files.get()
    }

    /// Number of files whose rows are exact ([`Header::exact_files`]).
    pub const fn exact_files(&self) -> u32 {
        self.header.exact_files.get()
    }

    /// Whether the table has chains of inlined functions.
    pub const fn has_chains(&self) -> bool {
        self.functions.start != self.functions.end
    }

    /// Size of the blob in bytes.
    pub const fn size(&self) -> u32 {
        self.header.total_size.get()
    }
}

/// One text section of a table.
#[derive(Clone, Debug)]
pub struct RegionView<'a> {
    /// Name of the section.
    pub name: &'a str,
    /// Start of the section, from `_text`.
    pub start: Offset,
    /// Its length in bytes.
    pub len: u32,
    /// Number of its rows.
    pub rows: u32,
    /// It is init text, freed after boot.
    pub init: bool,
    /// The position of its table in the blob, in bytes.
    pub table: Range<u64>,
}

impl Header {
    /// The header at the start of `bytes`, with its magic and sizes checked and nothing else.
    ///
    /// For a receiver that must make room for [`Header::total_size`] bytes before it has them;
    /// everything else waits for the checksum.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`], [`Error::Magic`], and [`Error::Malformed`] for a size that cannot
    /// hold the header.
    pub fn peek(bytes: &[u8]) -> Result<&Self, Error> {
        // A file of another kind is better told by its first bytes than by its length.
        if let Ok((found, _)) = <[u8; 8]>::read_from_prefix(bytes)
            && found != MAGIC
        {
            return Err(Error::Magic { found });
        }
        let (header, _) = Self::ref_from_prefix(bytes).map_err(|_| Error::Truncated {
            expected: wide(HEADER_SIZE),
            found: wide(bytes.len()),
        })?;
        if index(header.total_size.get()) < HEADER_SIZE {
            return Err(Error::Malformed {
                part: "header",
                offset: wide(core::mem::offset_of!(Self, total_size)),
                expected: "a size of at least a header",
                found: u64::from(header.total_size.get()),
            });
        }
        Ok(header)
    }

    /// Where the section directory ends, and the first section begins.
    pub(crate) const fn directory_end(&self) -> u32 {
        #[expect(
            clippy::as_conversions,
            reason = "u32::try_from is not const; both are small"
        )]
        let (header, entry) = (HEADER_SIZE as u32, size_of::<SectionEntry>() as u32);
        #[expect(clippy::as_conversions, reason = "u32::from is not const")]
        let sections = self.sections as u32;
        header.wrapping_add(entry.wrapping_mul(sections))
    }

    /// The checksum of a blob, in which the field of the checksum counts as zero.
    pub(crate) fn checksum(blob: &[u8]) -> u32 {
        const START: usize = core::mem::offset_of!(Header, crc32);
        const END: usize = core::mem::offset_of!(Header, machine);
        const { assert!(END - START == size_of::<u32>()) };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(blob.get(..START).unwrap_or(&[]));
        hasher.update(&[0; size_of::<u32>()]);
        hasher.update(blob.get(END..).unwrap_or(&[]));
        hasher.finalize()
    }
}

impl<'a> Table<'a> {
    /// Size of a table in memory, in bytes: for a caller in C that makes room for one.
    pub const SIZE: usize = size_of::<Self>();

    /// Most steps that [`Table::parse`] takes for each byte of a blob, the checksum apart.
    ///
    /// A step is a turn of a loop whose number of turns depends on the blob; a turn is a few dozen
    /// instructions. The largest part is names, which expand to at most 64 times their size.
    pub const PARSE_STEPS_PER_BYTE: usize = 2 * files::EXPANSION_MAX + 2;

    /// Most steps that [`Table::lookup`] and [`Location::push_to`] take together: about 500 to find
    /// the row, and the rest to print a name of the format's maximum size in a group of such names.
    pub const LOOKUP_STEPS: usize =
        encoding::SEARCH_STEPS_MAX + encoding::STEPS_MAX + files::NAME_STEPS_MAX;

    /// Most steps that [`Table::chain`] takes. It is a bound for hostile blobs; the chains of a kernel take
    /// a few thousand.
    pub const CHAIN_STEPS: usize =
        encoding::SEARCH_STEPS_MAX + encoding::STEPS_MAX + chain::STEPS_MAX;

    /// Most steps that [`Frame::push_to`](crate::Frame::push_to) takes for a frame of a chain: to print a name of a
    /// function and one of a file, each of the format's maximum size in a group of such names.
    pub const FRAME_STEPS: usize = chain::FRAME_STEPS_MAX;

    /// Validates a blob: the checksum first, then everything except the rows.
    ///
    /// Takes at most [`Table::PARSE_STEPS_PER_BYTE`] steps for each byte of the blob. Afterwards a
    /// look-up cannot fail, only miss. If a writer has put nonsense into the rows, a look-up misses
    /// or gives a wrong line; [`Table::check_rows`] finds that.
    ///
    /// # Errors
    ///
    /// An [`Error`] that says what was expected where, and what was found.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let table = Self::parse_head(bytes)?;
        table.check_parts()?;
        Ok(table)
    }

    /// The first part of [`Table::parse`]: the checksum, the header and the directory. It takes no
    /// longer than the checksum, and is enough to tell whose table it is.
    pub(crate) fn parse_head(bytes: &'a [u8]) -> Result<Self, Error> {
        let layout = Layout::parse(bytes)?;
        Ok(Self { bytes, layout })
    }

    /// The second part of [`Table::parse`].
    pub(crate) fn check_parts(&self) -> Result<(), Error> {
        self.check_files()?;
        self.check_model()?;
        self.check_regions()?;
        self.check_chains()
    }

    /// Decodes every row and checks that each can be looked up and printed.
    ///
    /// For whoever makes, stores or transfers tables. A kernel does not need it: it is safe after
    /// [`Table::parse`], which takes a hundredth of the time.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] that names the part of the blob.
    pub fn check_rows(&self) -> Result<(), Error> {
        if self.layout.encoding == Encoding::Packed {
            let model = Model::new(self.layout.model.of(self.bytes));
            if model.is_none_or(|model| !model.has_sound_pairs()) {
                return Err(self.model_fault("successors that are hot pairs"));
            }
        }
        let chains = self.chains();
        let in_functions = fault_in("functions", self.layout.functions.start.into());
        if let Some(chains) = &chains {
            chains.check_functions().map_err(in_functions)?;
        }
        for (number, region) in self.all_regions().enumerate() {
            let start = u64::from(self.layout.rows.start);
            let start = start.saturating_add(region.table_begin.into());
            if let Some(table) = self.region_table(&region) {
                table
                    .check_rows(self.layout.encoding)
                    .map_err(fault_in("rows", start))?;
                if let Some(chains) = &chains {
                    let checked = chains.check_chains(number, &table);
                    checked.map_err(fault_in("chains", start))?;
                }
            }
        }
        Ok(())
    }

    /// A table from bytes that [`Table::parse`] has accepted, and the layout it gave.
    ///
    /// With other bytes look-ups miss or answer wrongly; they still never leave `bytes`.
    pub const fn from_layout(bytes: &'a [u8], layout: Layout) -> Self {
        Self { bytes, layout }
    }

    /// The blob.
    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The positions of the parts of the blob, and the fields of its header.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The location of the instruction that an address refers to; `None` in a gap and outside the
    /// text.
    ///
    /// A table of [`Profile::Calls`] is exact at calls and traps only, so its answer for an
    /// [`Address::Exact`] is approximate. So is one for a return address that no call precedes:
    /// compilers make none, and where the code was assembly the table says where the calls are.
    #[inline(always)] // A frame less on the stack of an interrupt, which is short.
    pub fn lookup(&self, address: Address) -> Option<Location<'a>> {
        let row = self.layout.row_at(self.bytes, address.byte()?)?;
        self.location(row, address)
    }

    /// The location of an address that a row covers; `None` in a gap.
    #[inline(always)] // As above.
    pub fn location(&self, row: Row, address: Address) -> Option<Location<'a>> {
        let exact = match (self.layout.profile, address) {
            (Profile::Full, _) | (Profile::Calls, Address::Return(_) | Address::Trap(_)) => {
                row.file < self.layout.exact_files()
            }
            (Profile::Calls, Address::Exact(_)) => false,
        };
        if row.is_gap() {
            return None;
        }
        Some(Location {
            file: self.file(row.file)?,
            line: row.line,
            approximate: !exact,
        })
    }

    /// The functions at an address: the chain of inlined ones, innermost first, and the physical one.
    ///
    /// `None` where there is no line, where the line is approximate, and if the table has no chains.
    /// [`Table::lookup`] gives the location of the innermost function.
    pub fn chain(&self, address: Address) -> Option<Chain<'a>> {
        let chains = self.chains()?;
        let mut chunk = Chunk::EMPTY;
        let region = self.layout.chunk_at(self.bytes, address, &mut chunk)?;
        Chain::read(chains, region, &chunk)
    }

    /// Appends ` refcount_inc (include/linux/refcount.h:364) [inline]` for an inlined function at an address, of
    /// which the innermost has level 0; `false` if there is none of that level, or [`Table::chain`] is `None`.
    #[inline(always)] // As `file`.
    pub fn push_inlined(&self, text: &mut StrBuffer<'_>, address: Address, level: usize) -> bool {
        (self.layout).push_frame(self.bytes, text, address, Wanted::Inlined(level))
    }

    /// Appends ` (file:line)` of the physical function at an address, that of the symbol; `false` if
    /// [`Table::chain`] is `None`.
    #[inline(always)] // As `file`.
    pub fn push_physical(&self, text: &mut StrBuffer<'_>, address: Address) -> bool {
        (self.layout).push_frame(self.bytes, text, address, Wanted::Physical)
    }

    /// Number of functions that are inlined somewhere; `None` if the table has no chains.
    pub fn inlined_functions(&self) -> Option<u32> {
        self.chains()?.functions()
    }

    /// The names of these functions.
    pub fn inlined_function_names(&self) -> impl Iterator<Item = FunctionName<'a>> + use<'a> {
        let chains = self.chains();
        let functions = 0..self.inlined_functions().unwrap_or(0);
        functions.map_while(move |function| chains?.name(function))
    }

    /// The table of the chains of a region, without a byte if there is none.
    pub(crate) fn chain_table(&self, region: usize) -> &'a [u8] {
        let table = self.chains().and_then(|chains| {
            let range = chains.region(region)?;
            chains.chains.get(range)
        });
        table.unwrap_or(&[])
    }

    /// The sections of chains, if there are any.
    fn chains(&self) -> Option<chain::Sections<'a>> {
        (self.layout.has_chains()).then(|| self.layout.chains_of(self.bytes))
    }

    fn check_chains(&self) -> Result<(), Error> {
        let layout = &self.layout;
        let Some(chains) = self.chains() else {
            let found = layout.function_names.of(self.bytes).len();
            let found = found.saturating_add(layout.chains.of(self.bytes).len());
            return match found {
                0 => Ok(()),
                found => Err(Error::Malformed {
                    part: "chains",
                    offset: layout.chains.start.into(),
                    expected: "functions where there are chains",
                    found: wide(found),
                }),
            };
        };
        let start = layout.functions.start;
        if layout.encoding != Encoding::Packed {
            return Err(Error::Malformed {
                part: "functions",
                offset: start.into(),
                expected: "chains in the packed encoding only",
                found: layout.encoding.number().into(),
            });
        }
        chains.check().map_err(fault_in("functions", start.into()))
    }

    /// The names of all files, in the order of their indices.
    pub fn files(&self) -> impl Iterator<Item = FileName<'a>> + use<'a> {
        let table = *self;
        (0..self.layout.files()).map_while(move |file| table.file(file))
    }

    /// The name of one file.
    #[inline(always)] // So that a look-up needs no `Table` in memory.
    pub fn file(&self, file: u32) -> Option<FileName<'a>> {
        let section = self.layout.files.of(self.bytes);
        FileName::new(section, self.layout.files(), file)
    }

    /// All regions, by ascending start.
    pub fn regions(&self) -> impl Iterator<Item = RegionView<'a>> + use<'a> {
        let table = *self;
        let regions = table.all_regions();
        regions.filter_map(move |region| table.view(&region))
    }

    /// One region, by its position among [`Table::regions`].
    pub fn region(&self, region: usize) -> Option<RegionView<'a>> {
        self.view(&self.region_section()?.get(region)?)
    }

    /// The rows of one region, by its position among [`Table::regions`].
    pub fn region_rows(&self, region: usize) -> impl Iterator<Item = Row> + use<'a> {
        self.region_section()
            .and_then(|regions| regions.get(region))
            .and_then(|region| self.region_table(&region))
            .and_then(|table| table.rows(self.layout.encoding).ok())
            .into_iter()
            .flat_map(|rows: Rows<'a>| rows.map_while(Result::ok))
    }

    /// The sections of the blob: the name of each kind that is known, offset and size in bytes.
    pub fn sections(&self) -> impl Iterator<Item = (Option<SectionKind>, u32, u32)> + use<'a> {
        self.section_spans().map(|(kind, span)| {
            let size = span.end.saturating_sub(span.start);
            (SectionKind::from_number(kind), span.start, size)
        })
    }

    /// The directory of the sections, each with its bytes.
    pub(crate) fn raw_sections(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        self.section_spans()
            .map(move |(kind, span)| (kind, span.of(bytes)))
    }

    /// The kind of every section, and where it is.
    fn section_spans(&self) -> impl Iterator<Item = (u32, Span)> + use<'a> {
        let entries = directory(self.bytes, &self.layout.header).unwrap_or(&[]);
        let mut end = self.layout.header.directory_end();
        entries.iter().map(move |entry| {
            let start = end;
            end = start.saturating_add(entry.size.get());
            (entry.kind.into(), Span { start, end })
        })
    }

    /// The symbols of the image ([`SectionKind::Symbols`]), as they are in the blob; `None` if it has
    /// none.
    pub fn symbols(&self) -> Option<&'a [u8]> {
        let number = SectionKind::Symbols.number();
        let mut sections = self.raw_sections();
        sections.find_map(|(kind, bytes)| (kind == number).then_some(bytes))
    }

    /// The signature, if the blob has one, and what it is over; [`Table::parse`] does not verify it.
    ///
    /// A table that init text was taken out of ([`Table::remove_init`]) is no longer what was signed.
    pub fn signed(&self) -> Option<Signed<'a>> {
        let last = directory(self.bytes, &self.layout.header)?.last()?;
        let is_signature = u32::from(last.kind) == SectionKind::Signature.number();
        is_signature.then(|| Signed::of(self.bytes))?
    }

    #[inline(always)] // As `file`.
    fn region_section(&self) -> Option<Regions<'a>> {
        Regions::new(self.layout.regions.of(self.bytes))
    }

    fn all_regions(&self) -> impl Iterator<Item = Region> + use<'a> {
        let regions = self.region_section().into_iter();
        regions.flat_map(|regions| regions.iter())
    }

    fn region_table(&self, region: &Region) -> Option<RegionTable<'a>> {
        let range = (region.table_begin, region.table_end);
        (self.layout).table_of(self.bytes, range, region.rows, region.len)
    }

    fn check_model(&self) -> Result<(), Error> {
        let section = self.layout.model.of(self.bytes);
        let sound = match self.layout.encoding {
            Encoding::Flat | Encoding::Delta => section.is_empty(),
            Encoding::Packed => Model::new(section).is_some_and(|model| model.is_sound()),
        };
        match sound {
            true => Ok(()),
            false => {
                Err(self.model_fault("hot pairs and codes if the table is packed, else nothing"))
            }
        }
    }

    fn model_fault(&self, expected: &'static str) -> Error {
        let span = self.layout.model;
        Error::Malformed {
            part: "model",
            offset: span.start.into(),
            expected,
            found: wide(span.of(self.bytes).len()),
        }
    }

    fn view(&self, region: &Region) -> Option<RegionView<'a>> {
        let rows = u64::from(self.layout.rows.start);
        Some(RegionView {
            name: core::str::from_utf8(self.region_name(region)?).ok()?,
            start: Offset(region.start),
            len: region.len,
            rows: region.rows,
            init: region.is_init(),
            table: rows.checked_add(region.table_begin.into())?
                ..rows.checked_add(region.table_end.into())?,
        })
    }

    fn region_name(&self, region: &Region) -> Option<&'a [u8]> {
        region.name(self.layout.region_names.of(self.bytes))
    }

    fn check_files(&self) -> Result<(), Error> {
        let span = self.layout.files;
        let files = Files::new(span.of(self.bytes), self.layout.files());
        let files = files.ok_or(Error::Malformed {
            part: "files",
            offset: span.start.into(),
            expected: "the end of every name",
            found: u64::from(self.layout.files()),
        })?;
        files.check().map_err(fault_in("files", span.start.into()))
    }

    fn check_regions(&self) -> Result<(), Error> {
        let mut text_end = 0;
        let mut table_end: u32 = 0;
        let mut name_end: u32 = 0;
        for (position, region) in self.all_regions().enumerate() {
            let malformed = |expected, found| Error::Malformed {
                part: "regions",
                offset: self.layout.regions.start.into(),
                expected,
                found,
            };
            if region.start < text_end {
                let expected = "regions that ascend and do not overlap";
                return Err(malformed(expected, region.start));
            }
            text_end = region
                .start
                .checked_add(u64::from(region.len))
                .ok_or_else(|| malformed("a region that ends below 2^64", region.start))?;
            let own = region.own_name();
            if own.is_some_and(|begin| begin != name_end) {
                let found = own.unwrap_or(0).into();
                return Err(malformed("a name where the last one ended", found));
            }
            let name = self.region_name(&region).ok_or_else(|| {
                malformed(
                    "a usual name or one inside the region names",
                    wide(position),
                )
            })?;
            if own.is_some() {
                let size = u32::try_from(name.len()).unwrap_or(u32::MAX);
                name_end = name_end.saturating_add(size).saturating_add(1);
            }
            if let Some(expected) = name::fault(name) {
                return Err(malformed(expected, wide(name.len())));
            }
            let table = self.region_table(&region).ok_or_else(|| {
                malformed("a table inside the rows section", region.table_end.into())
            })?;
            let table_at = u64::from(self.layout.rows.start).saturating_add(table_end.into());
            table_end = region.table_end;
            table
                .check(self.layout.encoding)
                .map_err(fault_in("rows", table_at))?;
        }
        let malformed = |expected, found| Error::Malformed {
            part: "regions",
            offset: self.layout.regions.start.into(),
            expected,
            found,
        };
        if index(table_end) != self.layout.rows.of(self.bytes).len() {
            return Err(malformed(
                "tables that fill the rows section",
                u64::from(table_end),
            ));
        }
        if index(name_end) != self.layout.region_names.of(self.bytes).len() {
            return Err(malformed(
                "names that fill the region names",
                u64::from(name_end),
            ));
        }
        Ok(())
    }
}

impl Layout {
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let header = *Header::peek(bytes)?;
        check_size(header.total_size.get(), bytes.len())?;
        let found = Header::checksum(bytes);
        if found != header.crc32.get() {
            return Err(Error::Checksum {
                expected: header.crc32.get(),
                found,
            });
        }
        if header.format_version.get() != FORMAT_VERSION {
            return Err(Error::Version {
                found: header.format_version.get(),
            });
        }
        let malformed = |offset: usize, expected, found| Error::Malformed {
            part: "header",
            offset: wide(offset),
            expected,
            found,
        };
        macro_rules! at {
            ($field:ident) => {
                core::mem::offset_of!(Header, $field)
            };
        }
        if header.exact_files > header.files {
            let found = header.exact_files.get().into();
            return Err(malformed(
                at!(exact_files),
                "at most the number of files",
                found,
            ));
        }
        let id_len = usize::from(header.build_id_len);
        let beyond = header.build_id.get(id_len..).ok_or_else(|| {
            malformed(
                at!(build_id_len),
                "a build-id of at most 20 bytes",
                wide(id_len),
            )
        })?;
        if beyond.iter().any(|byte| *byte != 0) {
            return Err(malformed(
                at!(build_id),
                "zeros after the build-id",
                wide(BUILD_ID_MAX),
            ));
        }
        let encoding = Encoding::from_number(header.encoding).ok_or_else(|| {
            malformed(
                at!(encoding),
                "a known encoding: 1 (flat), 2 (delta) or 3 (packed)",
                header.encoding.into(),
            )
        })?;
        let profile = Profile::from_number(header.profile).ok_or_else(|| {
            malformed(
                at!(profile),
                "a known profile: 1 (full) or 2 (calls)",
                header.profile.into(),
            )
        })?;

        let mut layout = Self {
            header,
            text_len: 0,
            rows_count: 0,
            encoding,
            profile,
            regions: Span::default(),
            region_names: Span::default(),
            files: Span::default(),
            rows: Span::default(),
            model: Span::default(),
            functions: Span::default(),
            function_names: Span::default(),
            chains: Span::default(),
        };
        layout.read_directory(bytes)?;
        let section = layout.regions.of(bytes);
        let regions = Regions::new(section).ok_or(Error::Malformed {
            part: "regions",
            offset: layout.regions.start.into(),
            expected: "the widths of fields, and whole records",
            found: wide(section.len()),
        })?;
        let mut rows = 0_u64;
        for region in regions.iter() {
            rows = rows.saturating_add(region.rows.into());
            layout.text_len = region.start.saturating_add(region.len.into());
        }
        layout.rows_count = u32::try_from(rows).map_err(|_| Error::Malformed {
            part: "regions",
            offset: layout.regions.start.into(),
            expected: "less than 2^32 rows",
            found: rows,
        })?;
        Ok(layout)
    }

    /// The row that covers `offset`, unless it is a gap, in the bytes that have this layout.
    ///
    /// Of a layout that is not moved, so that nothing of it is on the stack while rows are decoded.
    #[inline(always)] // A frame less on the stack of an interrupt, which is short.
    pub(crate) fn row_at(&self, bytes: &[u8], offset: Offset) -> Option<Row> {
        let found = regions::find(self.regions.of(bytes), offset.0)?;
        let range = (found.table_begin, found.table_end);
        let table = self.table_of(bytes, range, found.rows, found.len)?;
        let row = table.find(self.encoding, found.target)?;
        (!row.is_gap()).then_some(row)
    }

    /// Finds the entry that covers an address, where the table is exact and the entry is no gap, and leaves the
    /// chunk up to it; gives the number of the region.
    #[inline(always)] // As above.
    fn chunk_at(&self, bytes: &[u8], address: Address, chunk: &mut Chunk) -> Option<usize> {
        if self.profile == Profile::Calls && matches!(address, Address::Exact(_)) {
            return None;
        }
        let found = self.begin_chunk(bytes, address.byte()?.0, chunk)?;
        let table = self.rows.of(bytes);
        let (begin, end) = found.table;
        let table = table.get(index(begin)..index(end))?;
        let row = packed::end_chunk(table, self.model.of(bytes), found.target, chunk)?;
        let exact = !row.is_gap() && row.file < self.exact_files();
        exact.then_some(index(found.region))
    }

    #[inline(never)]
    fn begin_chunk(&self, bytes: &[u8], offset: u64, chunk: &mut Chunk) -> Option<Begun> {
        let found = regions::find(self.regions.of(bytes), offset)?;
        let table = (found.table_begin, found.table_end);
        let rows = self.table_of(bytes, table, found.rows, found.len)?;
        packed::begin_chunk(&rows, found.target, chunk)?;
        Some(Begun {
            region: found.number,
            target: found.target,
            table,
        })
    }

    /// Appends the text of a frame at an address.
    ///
    /// In parts, none of which is on the stack while another one is at work.
    #[inline(always)] // As above.
    pub(crate) fn push_frame(
        &self,
        bytes: &[u8],
        text: &mut StrBuffer<'_>,
        address: Address,
        wanted: Wanted,
    ) -> bool {
        if !self.has_chains() {
            return false;
        }
        let mut chunk = Chunk::EMPTY;
        let Some(region) = self.chunk_at(bytes, address, &mut chunk) else {
            return false;
        };
        let ops = self.ops(bytes, region, &chunk);
        let frame = ops.and_then(|ops| self.raw_frame(bytes, ops, &chunk, wanted));
        if let Some(frame) = frame {
            frame.push_to(
                text,
                |text, function| self.push_name(bytes, text, function),
                |text, place| self.push_place(bytes, text, place),
            );
        }
        frame.is_some()
    }

    #[inline(never)]
    fn ops(&self, bytes: &[u8], region: usize, chunk: &Chunk) -> Option<Ops> {
        self.chains_of(bytes).ops(region, chunk)
    }

    #[inline(never)]
    fn raw_frame(&self, bytes: &[u8], ops: Ops, chunk: &Chunk, wanted: Wanted) -> Option<RawFrame> {
        RawFrame::read(&self.chains_of(bytes), ops, chunk, wanted)
    }

    #[inline(never)]
    fn push_name(&self, bytes: &[u8], text: &mut StrBuffer<'_>, function: u32) {
        self.chains_of(bytes).push_name(text, function);
    }

    #[inline(never)]
    fn push_place(&self, bytes: &[u8], text: &mut StrBuffer<'_>, place: chain::Place) {
        self.chains_of(bytes).push_place(text, place);
    }

    #[inline(always)] // As above.
    fn chains_of<'a>(&self, bytes: &'a [u8]) -> chain::Sections<'a> {
        chain::Sections {
            functions: self.functions.of(bytes),
            function_names: self.function_names.of(bytes),
            chains: self.chains.of(bytes),
            file_names: self.files.of(bytes),
            files: self.files(),
            regions: Regions::new(self.regions.of(bytes)).map_or(0, |regions| regions.len()),
        }
    }

    #[inline(always)] // As above.
    fn table_of<'a>(
        &self,
        bytes: &'a [u8],
        (begin, end): (u32, u32),
        rows: u32,
        len: u32,
    ) -> Option<RegionTable<'a>> {
        Some(RegionTable {
            bytes: self.rows.of(bytes).get(index(begin)..index(end))?,
            rows,
            files: self.files(),
            len,
            model: self.model.of(bytes),
        })
    }

    /// Where a section is; `None` for one that a look-up does not read.
    pub(crate) const fn section(&mut self, kind: SectionKind) -> Option<&mut Span> {
        match kind {
            SectionKind::Regions => Some(&mut self.regions),
            SectionKind::RegionNames => Some(&mut self.region_names),
            SectionKind::Files => Some(&mut self.files),
            SectionKind::Rows => Some(&mut self.rows),
            SectionKind::Model => Some(&mut self.model),
            SectionKind::Functions => Some(&mut self.functions),
            SectionKind::FunctionNames => Some(&mut self.function_names),
            SectionKind::Chains => Some(&mut self.chains),
            SectionKind::Signature | SectionKind::Symbols => None,
        }
    }

    fn read_directory(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let malformed = |entry: usize, expected, found| Error::Malformed {
            part: "section directory",
            offset: wide(
                entry
                    .saturating_mul(size_of::<SectionEntry>())
                    .saturating_add(HEADER_SIZE),
            ),
            expected,
            found,
        };
        let entries = directory(bytes, &self.header).ok_or_else(|| {
            malformed(
                0,
                "as many entries as the header says",
                self.header.sections.into(),
            )
        })?;
        let mut end = self.header.directory_end();
        let mut seen = [false; SectionKind::ALL.len()];
        for (position, entry) in entries.iter().enumerate() {
            let start = end;
            end = start
                .checked_add(entry.size.get())
                .filter(|end| index(*end) <= bytes.len())
                .ok_or_else(|| {
                    malformed(
                        position,
                        "a section inside the blob",
                        entry.size.get().into(),
                    )
                })?;
            let Some(kind) = SectionKind::from_number(entry.kind.into()) else {
                continue;
            };
            let repeated = seen
                .iter_mut()
                .zip(SectionKind::ALL)
                .find(|(_, known)| **known == kind)
                .is_some_and(|(seen, _)| core::mem::replace(seen, true));
            if repeated {
                return Err(malformed(
                    position,
                    "one section of a kind",
                    entry.kind.into(),
                ));
            }
            // A signature is the last section, so that all else comes before it.
            let size = index(entry.size.get());
            if kind == SectionKind::Signature
                && (size != size_of::<BlobSignature>() || index(end) != bytes.len())
            {
                return Err(Error::Malformed {
                    part: "signature",
                    offset: start.into(),
                    expected: "96 bytes at the end of the blob",
                    found: wide(size),
                });
            }
            if let Some(place) = self.section(kind) {
                *place = Span { start, end };
            }
        }
        if index(end) != bytes.len() {
            return Err(malformed(
                entries.len(),
                "sections up to the end of the blob",
                end.into(),
            ));
        }
        Ok(())
    }
}

fn check_size(total_size: u32, found: usize) -> Result<(), Error> {
    let expected = u64::from(total_size);
    let found = wide(found);
    match found.cmp(&expected) {
        core::cmp::Ordering::Equal => Ok(()),
        core::cmp::Ordering::Less => Err(Error::Truncated { expected, found }),
        core::cmp::Ordering::Greater => Err(Error::Trailing { expected, found }),
    }
}

fn directory<'a>(bytes: &'a [u8], header: &Header) -> Option<&'a [SectionEntry]> {
    let count = usize::from(header.sections);
    let behind_header = bytes.get(HEADER_SIZE..)?;
    let (entries, _) = <[SectionEntry]>::ref_from_prefix_with_elems(behind_header, count).ok()?;
    Some(entries)
}

fn fault_in(part: &'static str, base: u64) -> impl Fn(Fault) -> Error {
    move |fault| Error::Malformed {
        part,
        offset: base.saturating_add(wide(fault.at)),
        expected: fault.expected,
        found: fault.found,
    }
}
