use core::ops::Range;

use zerocopy::FromBytes;

use crate::address::{Address, Offset};
use crate::blob::{
    BUILD_ID_MAX, BlobSignature, Encoding, FORMAT_VERSION, HEADER_SIZE, Header, MAGIC, Profile,
    REGION_INIT, RegionEntry, SectionEntry, SectionKind,
};
use crate::chain::{self, Chain};
use crate::encoding::packed::Model;
use crate::encoding::{self, Fault, RegionTable, Row, Rows};
use crate::error::Error;
use crate::files::{self, FileName, Files};
use crate::location::Location;
use crate::name;
use crate::signature::Signed;
use crate::steps::step;
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
        self.header.text_len.get()
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
        self.header.rows.get()
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
        for (region, entry) in self.region_entries().iter().enumerate() {
            let start = u64::from(self.layout.rows.start);
            let start = start.saturating_add(entry.table_offset.get().into());
            if let Some(table) = self.region_table(entry) {
                table
                    .check_rows(self.layout.encoding)
                    .map_err(fault_in("rows", start))?;
                if let Some(chains) = &chains {
                    let checked = chains.check_chains(region, &table);
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
        let row = self.row_at(address.byte()?)?;
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
    ///
    pub fn chain(&self, address: Address) -> Option<Chain<'a>> {
        self.with_chain(address, |chain| chain.clone())
    }

    /// Lets `then` use what [`Table::chain`] gives, which is not moved then: it is large for a short stack.
    #[inline(always)] // So that a look-up needs no `Table` in memory.
    pub fn with_chain<R>(
        &self,
        address: Address,
        then: impl FnOnce(&mut Chain<'a>) -> R,
    ) -> Option<R> {
        if self.layout.profile == Profile::Calls && matches!(address, Address::Exact(_)) {
            return None;
        }
        let mut chain = Chain::new(self.chains()?);
        let (region, entry, target) = self.region_at(address.byte()?)?;
        let exact_files = self.layout.exact_files();
        chain.read(region, &self.region_table(entry)?, target, exact_files)?;
        Some(then(&mut chain))
    }

    /// Number of functions that are inlined somewhere; `None` if the table has no chains.
    pub fn inlined_functions(&self) -> Option<u32> {
        self.chains()?.functions()
    }

    /// The table of the chains of a region, without a byte if there is none.
    pub(crate) fn chain_table(&self, region: usize) -> &'a [u8] {
        let chains = self.chains();
        let table = chains.and_then(|chains| chains.region(region));
        table.unwrap_or(&[])
    }

    /// The sections of chains, if there are any.
    fn chains(&self) -> Option<chain::Sections<'a>> {
        self.layout.has_chains().then(|| chain::Sections {
            functions: self.layout.functions.of(self.bytes),
            function_names: self.layout.function_names.of(self.bytes),
            chains: self.layout.chains.of(self.bytes),
            file_names: self.layout.files.of(self.bytes),
            files: self.layout.files(),
            regions: self.layout.header.regions.get(),
        })
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
        table
            .region_entries()
            .iter()
            .filter_map(move |entry| table.view(entry))
    }

    /// One region, by its position among [`Table::regions`].
    pub fn region(&self, region: usize) -> Option<RegionView<'a>> {
        self.view(self.region_entries().get(region)?)
    }

    /// The rows of one region, by its position among [`Table::regions`].
    pub fn region_rows(&self, region: usize) -> impl Iterator<Item = Row> + use<'a> {
        self.region_entries()
            .get(region)
            .and_then(|entry| self.region_table(entry))
            .and_then(|table| table.rows(self.layout.encoding).ok())
            .into_iter()
            .flat_map(|rows: Rows<'a>| rows.map_while(Result::ok))
    }

    /// The sections of the blob: the name of each kind that is known, offset and size in bytes.
    pub fn sections(&self) -> impl Iterator<Item = (Option<SectionKind>, u32, u32)> + use<'a> {
        self.directory().iter().map(|entry| {
            (
                SectionKind::from_number(entry.kind.get()),
                entry.offset.get(),
                entry.size.get(),
            )
        })
    }

    /// The directory of the sections, each with its bytes.
    pub(crate) fn raw_sections(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        self.directory().iter().map(move |entry| {
            let section = slice(bytes, entry.offset.get(), entry.size.get());
            (entry.kind.get(), section.unwrap_or(&[]))
        })
    }

    /// The symbols of the image ([`SectionKind::Symbols`]), as they are in the blob; `None` if it has
    /// none.
    pub fn symbols(&self) -> Option<&'a [u8]> {
        let number = SectionKind::Symbols.number();
        let mut sections = self.raw_sections();
        sections.find_map(|(kind, bytes)| (kind == number).then_some(bytes))
    }

    fn directory(&self) -> &'a [SectionEntry] {
        directory(self.bytes, &self.layout.header).unwrap_or(&[])
    }

    /// The signature, if the blob has one, and what it is over; [`Table::parse`] does not verify it.
    ///
    /// A table that init text was taken out of ([`Table::remove_init`]) is no longer what was signed.
    pub fn signed(&self) -> Option<Signed<'a>> {
        let number = SectionKind::Signature.number();
        let last = self.directory().last()?;
        (last.kind.get() == number).then(|| Signed::of(self.bytes))?
    }

    /// The row that covers `offset`.
    #[inline(always)] // As above.
    fn row_at(&self, offset: Offset) -> Option<Row> {
        let (_, entry, target) = self.region_at(offset)?;
        let row = self
            .region_table(entry)?
            .find(self.layout.encoding, target)?;
        (!row.is_gap()).then_some(row)
    }

    /// The region that holds `offset`, its index, and the bytes from its start.
    #[inline(always)] // As above.
    fn region_at(&self, offset: Offset) -> Option<(usize, &'a RegionEntry, u32)> {
        let regions = self.region_entries();
        let after = regions.partition_point(|region| {
            step();
            region.start.get() <= offset.0
        });
        let region = after.checked_sub(1)?;
        let entry = regions.get(region)?;
        let target = u32::try_from(offset.0.checked_sub(entry.start.get())?).ok()?;
        (target < entry.len.get()).then_some((region, entry, target))
    }

    #[inline(always)] // As `file`.
    fn region_entries(&self) -> &'a [RegionEntry] {
        <[RegionEntry]>::ref_from_bytes(self.layout.regions.of(self.bytes)).unwrap_or(&[])
    }

    #[inline(always)] // As `file`.
    fn region_table(&self, entry: &RegionEntry) -> Option<RegionTable<'a>> {
        let bytes = slice(
            self.layout.rows.of(self.bytes),
            entry.table_offset.get(),
            entry.table_size.get(),
        )?;
        Some(RegionTable {
            bytes,
            rows: entry.rows.get(),
            files: self.layout.files(),
            len: entry.len.get(),
            model: self.layout.model.of(self.bytes),
        })
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

    fn view(&self, entry: &RegionEntry) -> Option<RegionView<'a>> {
        let table_start =
            u64::from(self.layout.rows.start).checked_add(u64::from(entry.table_offset.get()))?;
        Some(RegionView {
            name: core::str::from_utf8(self.region_name(entry)?).ok()?,
            start: Offset(entry.start.get()),
            len: entry.len.get(),
            rows: entry.rows.get(),
            init: entry.flags.get() & REGION_INIT != 0,
            table: table_start..table_start.checked_add(u64::from(entry.table_size.get()))?,
        })
    }

    fn region_name(&self, entry: &RegionEntry) -> Option<&'a [u8]> {
        slice(
            self.layout.region_names.of(self.bytes),
            entry.name_offset.get(),
            entry.name_len.get().into(),
        )
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
        let mut table_end = 0;
        let mut name_end = 0;
        let mut rows = 0_u64;
        for (position, entry) in self.region_entries().iter().enumerate() {
            let at = position
                .saturating_mul(size_of::<RegionEntry>())
                .saturating_add(index(self.layout.regions.start));
            let malformed = |expected, found| Error::Malformed {
                part: "regions",
                offset: wide(at),
                expected,
                found,
            };
            let start = entry.start.get();
            if start < text_end {
                return Err(malformed("regions that ascend and do not overlap", start));
            }
            text_end = start
                .checked_add(u64::from(entry.len.get()))
                .filter(|end| *end <= self.layout.text_len())
                .ok_or_else(|| malformed("a region inside the text covered", start))?;
            if entry.flags.get() & !REGION_INIT != 0 {
                return Err(malformed("no unknown flags", entry.flags.get().into()));
            }
            if entry.name_offset.get() != name_end {
                let name = entry.name_offset.get();
                return Err(malformed("a name where the last one ended", name.into()));
            }
            let name = self.region_name(entry).ok_or_else(|| {
                malformed(
                    "a name inside the region names",
                    entry.name_len.get().into(),
                )
            })?;
            name_end = name_end.saturating_add(entry.name_len.get().into());
            if let Some(expected) = name::fault(name) {
                return Err(malformed(expected, wide(name.len())));
            }
            if entry.table_offset.get() != table_end {
                return Err(malformed(
                    "a table where the last one ended",
                    entry.table_offset.get().into(),
                ));
            }
            let table = self.region_table(entry).ok_or_else(|| {
                malformed(
                    "a table inside the rows section",
                    entry.table_size.get().into(),
                )
            })?;
            let table_at = u64::from(self.layout.rows.start).saturating_add(table_end.into());
            table_end = table_end.saturating_add(entry.table_size.get());
            table
                .check(self.layout.encoding)
                .map_err(fault_in("rows", table_at))?;
            rows = rows.saturating_add(u64::from(entry.rows.get()));
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
        if text_end != self.layout.text_len() {
            return Err(malformed(
                "a last region that ends the text covered",
                text_end,
            ));
        }
        if rows != u64::from(self.layout.rows()) {
            return Err(malformed("as many rows as the header says", rows));
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
        if usize::from(header.header_size.get()) != HEADER_SIZE {
            return Err(malformed(
                at!(header_size),
                "96 bytes of header",
                header.header_size.get().into(),
            ));
        }
        if header.exact_files > header.files {
            let found = header.exact_files.get().into();
            return Err(malformed(
                at!(exact_files),
                "at most the number of files",
                found,
            ));
        }
        if header.reserved != [0; 3] || header.reserved_end != [0; 12] {
            return Err(malformed(at!(reserved), "reserved bytes of zero", 1));
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
        let entries = layout.regions.of(bytes).len();
        if entries != index(header.regions.get()).saturating_mul(size_of::<RegionEntry>()) {
            return Err(malformed(
                at!(regions),
                "32 bytes of section for every region",
                wide(entries),
            ));
        }
        Ok(layout)
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
                self.header.sections.get().into(),
            )
        })?;
        let mut end = HEADER_SIZE.saturating_add(size_of_val(entries));
        let mut seen = [false; SectionKind::ALL.len()];
        for (position, entry) in entries.iter().enumerate() {
            let start = index(entry.offset.get());
            if start != end {
                return Err(malformed(
                    position,
                    "a section where the last one ended",
                    wide(start),
                ));
            }
            end = start
                .checked_add(index(entry.size.get()))
                .filter(|end| *end <= bytes.len())
                .ok_or_else(|| {
                    malformed(
                        position,
                        "a section inside the blob",
                        entry.size.get().into(),
                    )
                })?;
            let Some(kind) = SectionKind::from_number(entry.kind.get()) else {
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
                    entry.kind.get().into(),
                ));
            }
            // A signature is the last section, so that all else comes before it.
            let size = index(entry.size.get());
            if kind == SectionKind::Signature
                && (size != size_of::<BlobSignature>() || end != bytes.len())
            {
                return Err(Error::Malformed {
                    part: "signature",
                    offset: entry.offset.get().into(),
                    expected: "96 bytes at the end of the blob",
                    found: wide(size),
                });
            }
            if let Some(place) = self.section(kind) {
                *place = Span {
                    start: entry.offset.get(),
                    end: entry.offset.get().saturating_add(entry.size.get()),
                };
            }
        }
        if end != bytes.len() {
            return Err(malformed(
                entries.len(),
                "sections up to the end of the blob",
                wide(end),
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
    let count = index(header.sections.get());
    let behind_header = bytes.get(HEADER_SIZE..)?;
    let (entries, _) = <[SectionEntry]>::ref_from_prefix_with_elems(behind_header, count).ok()?;
    Some(entries)
}

fn slice(bytes: &[u8], offset: u32, size: u32) -> Option<&[u8]> {
    bytes.get(index(offset)..)?.get(..index(size))
}

fn fault_in(part: &'static str, base: u64) -> impl Fn(Fault) -> Error {
    move |fault| Error::Malformed {
        part,
        offset: base.saturating_add(wide(fault.at)),
        expected: fault.expected,
        found: fault.found,
    }
}
