//! A blob without its tables of init text, for a kernel that has freed that text.
//!
//! The regions of init text stay, without rows; everything after their tables moves down. The blob
//! was parsed before, so its new [`Layout`] is derived here, not parsed again. A signature stays where it
//! is, the last section, and is no longer right: it was verified before.

use core::ops::Range;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use crate::blob::{HEADER_SIZE, Header, RegionWidths, SectionEntry, SectionKind};
use crate::regions::{self, Regions};
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
        let sections = usize::from(layout.header.sections);
        // Where the regions can be read, unchanged: they change when all tables have moved.
        let mut regions = layout.regions;
        let mut end = index(layout.header.directory_end());
        let mut old_end = layout.header.directory_end();
        for section in 0..sections {
            let at = section
                .checked_mul(size_of::<SectionEntry>())?
                .checked_add(HEADER_SIZE)?;
            let mut entry: SectionEntry = self.read(at)?;
            let old = Span {
                start: old_end,
                end: old_end.checked_add(entry.size.get())?,
            };
            old_end = old.end;
            let start = end;
            let kind = SectionKind::from_number(entry.kind.into());
            match kind {
                Some(SectionKind::Rows) => {
                    for region in 0..self.regions(regions)?.len() {
                        let region = self.regions(regions)?.get(region)?;
                        if !region.is_init() {
                            let of_rows = |at: u32| old.start.checked_add(at).map(index);
                            let table = of_rows(region.table_begin)?..of_rows(region.table_end)?;
                            end = self.put(table, end)?;
                        }
                    }
                }
                // A table without chains may have such a section without a byte.
                Some(SectionKind::Chains) if old.start != old.end => {
                    end = self.chains(range(old), end, regions)?;
                }
                Some(SectionKind::Regions) => {
                    end = self.put(range(old), end)?;
                    if self.from.is_none() {
                        regions = span(start, end)?;
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
                    end = self.put(range(old), end)?;
                }
            }
            let new = span(start, end)?;
            entry.size = new.end.checked_sub(new.start)?.into();
            self.write(at, entry.as_bytes())?;
            if let Some(place) = kind.and_then(|kind| layout.section(kind)) {
                *place = new;
            }
        }
        layout.rows_count = self.empty_init_regions(layout.regions)?;
        layout.header.total_size = u32::try_from(end).ok()?.into();
        self.write(0, layout.header.as_bytes())?;
        layout.header.crc32 = Header::checksum(self.to.get(..end)?).into();
        self.write(0, layout.header.as_bytes())?;
        Some(layout)
    }

    /// The chains without those of init text; gives where they end now.
    fn chains(&mut self, old: Range<usize>, start: usize, regions: Span) -> Option<usize> {
        let count = self.regions(regions)?.len();
        // Where each table ends, which says where it was until it is replaced.
        let tables = old
            .start
            .checked_add(count.checked_mul(size_of::<U32>())?)?;
        let mut end = self.put(old.start..tables, start)?;
        let (mut old_begin, mut new_end) = (0, 0_u32);
        for number in 0..count {
            let at = start.checked_add(number.checked_mul(size_of::<U32>())?)?;
            let (old_end, _) = U32::read_from_prefix(self.to.get(at..)?).ok()?;
            if !self.regions(regions)?.get(number)?.is_init() {
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

    /// The regions of the old blob.
    fn regions(&self, at: Span) -> Option<Regions<'_>> {
        let from = self.from.unwrap_or(self.to);
        Regions::new(from.get(range(at))?)
    }

    /// Makes the regions say where the tables are now; gives the number of all rows.
    fn empty_init_regions(&mut self, at: Span) -> Option<u32> {
        let section = self.to.get_mut(range(at))?;
        let (widths, _) = RegionWidths::read_from_prefix(section).ok()?;
        let size = widths.record_size()?;
        let (mut table_begin, mut table_end, mut all_rows) = (0_u32, 0_u32, 0_u32);
        let mut record_at = size_of::<RegionWidths>();
        for record in 0..Regions::new(section)?.len() {
            let region = Regions::new(section)?.get(record)?;
            // The record before has changed, but where this table began is where that one ended.
            let old_size = region.table_end.checked_sub(table_begin)?;
            table_begin = region.table_end;
            let (rows, new_size) = if region.is_init() {
                (0, 0)
            } else {
                (region.rows, old_size)
            };
            table_end = table_end.checked_add(new_size)?;
            all_rows = all_rows.checked_add(rows)?;
            let record = section.get_mut(record_at..)?.get_mut(..size)?;
            regions::replace(widths, record, rows, table_end)?;
            record_at = record_at.checked_add(size)?;
        }
        Some(all_rows)
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

fn range(span: Span) -> Range<usize> {
    index(span.start)..index(span.end)
}

fn span(start: usize, end: usize) -> Option<Span> {
    Some(Span {
        start: u32::try_from(start).ok()?,
        end: u32::try_from(end).ok()?,
    })
}
