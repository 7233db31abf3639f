//! A blob without its tables of init text, for a kernel that has freed that text.

use zerocopy::{FromBytes, IntoBytes};

use crate::blob::{HEADER_SIZE, Header, REGION_INIT, RegionEntry, SectionEntry, SectionKind};
use crate::table::Table;
use crate::{index, wide};

impl Table<'_> {
    /// Size in bytes of what [`Table::copy_without_init`] writes; that of the blob if it has no
    /// tables of init text.
    pub fn size_without_init(&self) -> usize {
        let init = |region: &crate::RegionView<'_>| region.init;
        let tables = self.regions().filter(init).map(|region| region.table);
        let bytes = tables.fold(0, |sum: u64, table| {
            sum.saturating_add(table.end.saturating_sub(table.start))
        });
        let size = u64::from(self.layout().size()).saturating_sub(bytes);
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    /// Writes the blob without the tables of init text: its regions stay, and have no rows.
    ///
    /// Allocates nothing. Returns what was written, to be checked with [`Table::parse`]; `None`
    /// where there is not room for [`Table::size_without_init`] bytes.
    pub fn copy_without_init<'b>(&self, to: &'b mut [u8]) -> Option<&'b [u8]> {
        let size = self.size_without_init();
        let to = to.get_mut(..size)?;
        let from = self.bytes();
        let (header, _) = Header::read_from_prefix(from).ok()?;
        let sections = index(header.sections.get());
        let directory_size = sections.checked_mul(size_of::<SectionEntry>())?;
        let mut end = HEADER_SIZE.checked_add(directory_size)?;
        let mut rows = 0_u32;
        for section in 0..sections {
            let at = section
                .checked_mul(size_of::<SectionEntry>())?
                .checked_add(HEADER_SIZE)?;
            let (mut entry, _) = SectionEntry::read_from_prefix(from.get(at..)?).ok()?;
            let old = from
                .get(index(entry.offset.get())..)?
                .get(..index(entry.size.get()))?;
            let start = end;
            match SectionKind::from_number(entry.kind.get()) {
                Some(SectionKind::Regions) => {
                    rows = copy_regions(old, to.get_mut(start..)?)?;
                    end = end.checked_add(old.len())?;
                }
                Some(SectionKind::Rows) => {
                    for region in self.regions().filter(|region| !region.init) {
                        let table = usize::try_from(region.table.start).ok()?
                            ..usize::try_from(region.table.end).ok()?;
                        end = put(to, end, from.get(table)?)?;
                    }
                }
                _ => end = put(to, end, old)?,
            }
            entry.offset = u32::try_from(start).ok()?.into();
            entry.size = u32::try_from(end.checked_sub(start)?).ok()?.into();
            put(to, at, entry.as_bytes())?;
        }
        let mut new = header;
        new.total_size = u32::try_from(end).ok()?.into();
        new.rows = rows.into();
        new.crc32 = 0.into();
        put(to, 0, new.as_bytes())?;
        new.crc32 = Header::checksum(to).into();
        put(to, 0, new.as_bytes())?;
        (wide(end) == wide(size)).then_some(to)
    }
}

/// Copies regions, those of init text without rows; gives the number of rows of the others.
fn copy_regions(from: &[u8], to: &mut [u8]) -> Option<u32> {
    let entries = <[RegionEntry]>::ref_from_bytes(from).ok()?;
    let (mut at, mut table_offset, mut rows) = (0, 0_u32, 0_u32);
    for entry in entries {
        let mut entry = *entry;
        entry.table_offset = table_offset.into();
        if entry.flags.get() & REGION_INIT != 0 {
            entry.rows = 0.into();
            entry.table_size = 0.into();
        }
        table_offset = table_offset.checked_add(entry.table_size.get())?;
        rows = rows.checked_add(entry.rows.get())?;
        at = put(to, at, entry.as_bytes())?;
    }
    Some(rows)
}

/// Puts bytes at a position; gives the position behind them.
fn put(to: &mut [u8], at: usize, bytes: &[u8]) -> Option<usize> {
    let end = at.checked_add(bytes.len())?;
    to.get_mut(at..end)?.copy_from_slice(bytes);
    Some(end)
}
