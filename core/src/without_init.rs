//! A blob without its tables of init text, for a kernel that has freed that text.
//!
//! The regions of init text stay, without rows; everything after their tables moves down. The blob
//! was parsed before, so its new [`Layout`] is derived here, not parsed again. A signature stays where it
//! is, the last section, and is no longer right: it was verified before.

use core::ops::Range;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use crate::blob::{HEADER_SIZE, Header, REGION_INIT, RegionEntry, SectionEntry, SectionKind};
use crate::table::{Layout, Span, Table};
use crate::{index, wide};

impl Table<'_> {
    /// Size in bytes of the blob without its tables of init text; that of the blob if it has none.
    pub fn size_without_init(&self) -> usize {
        let init = self.regions().enumerate().filter(|(_, region)| region.init);
        let bytes = init.fold(0, |sum: u64, (number, region)| {
            let table = region.table.end.saturating_sub(region.table.start);
            let chains = wide(self.chain_table(number).len());
            sum.saturating_add(table).saturating_add(chains)
        });
        let size = u64::from(self.layout().size()).saturating_sub(bytes);
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    /// Writes the blob without the tables of init text to the start of `to`, and returns its layout
    /// for [`Table::from_layout`].
    ///
    /// Allocates nothing. `None` where there is not room for [`Table::size_without_init`] bytes.
    pub fn copy_without_init(&self, to: &mut [u8]) -> Option<Layout> {
        let to = to.get_mut(..self.size_without_init())?;
        Shrink {
            from: Some(self.bytes()),
            to,
        }
        .run(*self.layout())
    }

    /// Removes the tables of init text from a blob in its own memory, and returns its new layout,
    /// which says how many bytes are left.
    ///
    /// `layout` is what [`Table::parse`] found in these bytes; `None` is for other bytes, which may
    /// be overwritten.
    pub fn remove_init(blob: &mut [u8], layout: &Layout) -> Option<Layout> {
        let table = Table::from_layout(blob, *layout);
        if table.size_without_init() == blob.len() {
            return Some(*layout);
        }
        Shrink {
            from: None,
            to: blob,
        }
        .run(*layout)
    }
}

/// A blob that is copied to where there is less room, or that shrinks where it is.
struct Shrink<'a> {
    /// What is copied; `None` if the blob is in `to`.
    from: Option<&'a [u8]>,
    to: &'a mut [u8],
}

impl Shrink<'_> {
    /// Every byte moves to the same or a lower position, in ascending order, so that a blob in its
    /// own memory never overwrites what it still needs.
    fn run(mut self, mut layout: Layout) -> Option<Layout> {
        let sections = index(layout.header.sections.get());
        let regions = index(layout.header.regions.get());
        // Where the regions can be read, unchanged: they change when all tables have moved.
        let mut regions_at = index(layout.regions.start);
        let entry_at = |position: usize, size: usize, start: usize| {
            position.checked_mul(size)?.checked_add(start)
        };
        let mut end = entry_at(sections, size_of::<SectionEntry>(), HEADER_SIZE)?;
        for section in 0..sections {
            let at = entry_at(section, size_of::<SectionEntry>(), HEADER_SIZE)?;
            let mut entry: SectionEntry = self.read(at)?;
            let old = span(entry.offset.get(), entry.size.get())?;
            let start = end;
            let kind = SectionKind::from_number(entry.kind.get());
            match kind {
                Some(SectionKind::Rows) => {
                    for region in 0..regions {
                        let at = entry_at(region, size_of::<RegionEntry>(), regions_at)?;
                        let region: RegionEntry = self.read(at)?;
                        if region.flags.get() & REGION_INIT == 0 {
                            let table = region.table_offset.get();
                            let table = entry.offset.get().checked_add(table)?;
                            end = self.put(span(table, region.table_size.get())?, end)?;
                        }
                    }
                }
                // A table without chains may have such a section without a byte.
                Some(SectionKind::Chains) if !old.is_empty() => {
                    end = self.chains(old, end, regions_at, regions)?;
                }
                Some(SectionKind::Regions) => {
                    end = self.put(old, end)?;
                    if self.from.is_none() {
                        regions_at = start;
                    }
                }
                Some(
                    SectionKind::RegionNames
                    | SectionKind::Files
                    | SectionKind::Model
                    | SectionKind::Functions
                    | SectionKind::FunctionNames
                    | SectionKind::Chains
                    | SectionKind::Signature
                    | SectionKind::Symbols,
                )
                | None => {
                    end = self.put(old, end)?;
                }
            }
            entry.offset = u32::try_from(start).ok()?.into();
            entry.size = u32::try_from(end.checked_sub(start)?).ok()?.into();
            self.write(at, entry.as_bytes())?;
            if let Some(place) = kind.and_then(|kind| layout.section(kind)) {
                *place = Span {
                    start: entry.offset.get(),
                    end: u32::try_from(end).ok()?,
                };
            }
        }
        layout.header.rows = self
            .empty_init_regions(index(layout.regions.start), regions)?
            .into();
        layout.header.total_size = u32::try_from(end).ok()?.into();
        self.write(0, layout.header.as_bytes())?;
        layout.header.crc32 = Header::checksum(self.to.get(..end)?).into();
        self.write(0, layout.header.as_bytes())?;
        Some(layout)
    }

    /// The chains without those of init text; gives where they end now.
    fn chains(
        &mut self,
        old: Range<usize>,
        start: usize,
        regions_at: usize,
        regions: usize,
    ) -> Option<usize> {
        // Where each table ends, which says where it was until it is replaced.
        let tables = old
            .start
            .checked_add(regions.checked_mul(size_of::<U32>())?)?;
        let mut end = self.put(old.start..tables, start)?;
        let (mut old_begin, mut new_end) = (0, 0_u32);
        for number in 0..regions {
            let at = start.checked_add(number.checked_mul(size_of::<U32>())?)?;
            let (old_end, _) = U32::read_from_prefix(self.to.get(at..)?).ok()?;
            let region = number.checked_mul(size_of::<RegionEntry>())?;
            let region: RegionEntry = self.read(regions_at.checked_add(region)?)?;
            if region.flags.get() & REGION_INIT == 0 {
                let size = old_end.get().checked_sub(old_begin)?;
                let table = tables.checked_add(index(old_begin))?;
                end = self.put(table..table.checked_add(index(size))?, end)?;
                new_end = new_end.checked_add(size)?;
            }
            old_begin = old_end.get();
            self.write(at, U32::new(new_end).as_bytes())?;
        }
        Some(end)
    }

    /// Makes the regions say where the tables are now; gives the number of all rows.
    fn empty_init_regions(&mut self, start: usize, regions: usize) -> Option<u32> {
        let (mut at, mut table_offset, mut rows) = (start, 0_u32, 0_u32);
        for _ in 0..regions {
            let (mut entry, _) = RegionEntry::read_from_prefix(self.to.get(at..)?).ok()?;
            entry.table_offset = table_offset.into();
            if entry.flags.get() & REGION_INIT != 0 {
                entry.rows = 0.into();
                entry.table_size = 0.into();
            }
            table_offset = table_offset.checked_add(entry.table_size.get())?;
            rows = rows.checked_add(entry.rows.get())?;
            self.write(at, entry.as_bytes())?;
            at = at.checked_add(size_of::<RegionEntry>())?;
        }
        Some(rows)
    }

    /// A structure of the old blob.
    fn read<T: FromBytes>(&self, at: usize) -> Option<T> {
        let from = self.from.unwrap_or(self.to);
        let (value, _) = T::read_from_prefix(from.get(at..)?).ok()?;
        Some(value)
    }

    /// Moves bytes of the old blob to a position; gives the position after them.
    fn put(&mut self, bytes: Range<usize>, at: usize) -> Option<usize> {
        let end = at.checked_add(bytes.len())?;
        match self.from {
            Some(from) => self.write(at, from.get(bytes)?)?,
            None => {
                let down = bytes.start.checked_sub(at)?;
                let both = self.to.get_mut(at..bytes.end)?;
                // Always: said where the compiler sees that nothing can panic.
                if down <= both.len() {
                    both.copy_within(down.., 0);
                }
            }
        }
        Some(end)
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        let to = self.to.get_mut(at..)?.get_mut(..bytes.len())?;
        // `copy_from_slice` would leave a branch that panics.
        for (to, from) in to.iter_mut().zip(bytes) {
            *to = *from;
        }
        Some(())
    }
}

fn span(start: u32, size: u32) -> Option<Range<usize>> {
    Some(index(start)..index(start.checked_add(size)?))
}
