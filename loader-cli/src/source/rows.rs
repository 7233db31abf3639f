//! A table that is asked many times: what was decoded once is kept.
//!
//! A look-up in a packed table decodes the entries of a block and the name of a file, which takes some
//! microseconds. That is nothing for a trace, and most of the time of a log of a million frames. So
//! names are kept as they are used, and after [`LOOKUPS_MAX`] look-ups all rows are decoded, 12 bytes
//! each, with an index by pages of text: a binary search of a million rows would miss the cache at
//! nearly every step.

use std::sync::Arc;

use lineinfo_core::{Address, FileName, Location, Offset, Row, Table};

use super::{FrameBuf, LocationBuf};
use crate::files::BlobFile;

/// Look-ups that take as long as to decode all rows.
const LOOKUPS_MAX: u32 = 1 << 14;

/// Bytes of text that an entry of the index is for: about twenty rows.
const PAGE: u32 = 256;

/// A table, and what of it was decoded.
#[derive(Debug)]
pub(super) struct RowsFile {
    blob: BlobFile,
    /// Names by the positions of the files, those that were used.
    names: Vec<Option<Arc<str>>>,
    lookups: u32,
    /// All regions, when there were many look-ups.
    regions: Vec<DecodedRegion>,
}

/// The rows of a region.
#[derive(Debug)]
struct DecodedRegion {
    start: Offset,
    len: u32,
    /// A search and its answer are at one place of the memory.
    rows: Vec<Row>,
    /// For each page, the first row that begins in it or after it.
    pages: Vec<u32>,
}

impl DecodedRegion {
    /// The row that covers a byte, in bytes from the start of the region.
    fn row_at(&self, target: u32) -> Option<Row> {
        let page = (target / PAGE) as usize;
        let [first, end] = [page, page + 1].map(|page| self.pages[page] as usize);
        let after = first + self.rows[first..end].partition_point(|row| row.start <= target);
        after.checked_sub(1).map(|row| self.rows[row])
    }
}

impl RowsFile {
    pub(super) fn new(blob: BlobFile) -> Self {
        Self {
            names: vec![None; blob.table().layout().files() as usize],
            blob,
            lookups: 0,
            regions: Vec::new(),
        }
    }

    pub(super) fn table(&self) -> Table<'_> {
        self.blob.table()
    }

    /// What [`Table::lookup`] says.
    pub(super) fn lookup(&mut self, address: Address) -> Option<LocationBuf> {
        let table = self.blob.table();
        if self.lookups == LOOKUPS_MAX {
            self.regions = decode(&table);
        }
        self.lookups = self.lookups.saturating_add(1);
        let Location {
            file,
            line,
            approximate,
        } = match self.regions.is_empty() {
            true => table.lookup(address)?,
            false => {
                let row = row_at(&self.regions, address.byte()?)?;
                table.location(row, address)?
            }
        };
        let names = &mut self.names;
        let chain = table.chain(address).into_iter().flatten();
        let frames = chain.map(|frame| FrameBuf {
            function: frame.function.map(|function| function.to_string().into()),
            file: name_of(names, frame.location.file),
            line: frame.location.line,
        });
        Some(LocationBuf {
            frames: frames.collect(),
            file: name_of(names, file),
            line,
            approximate,
        })
    }
}

/// The name of a file, which is kept.
fn name_of(names: &mut [Option<Arc<str>>], file: FileName<'_>) -> Arc<str> {
    match names.get_mut(file.index() as usize) {
        Some(name) => Arc::clone(name.get_or_insert_with(|| file.to_string().into())),
        None => file.to_string().into(),
    }
}

/// Decodes all rows.
fn decode(table: &Table<'_>) -> Vec<DecodedRegion> {
    let regions = table.regions().enumerate();
    let decoded = regions.map(|(position, view)| {
        let mut region = DecodedRegion {
            start: view.start,
            len: view.len,
            rows: Vec::with_capacity(view.rows as usize),
            pages: Vec::with_capacity((view.len / PAGE) as usize + 2),
        };
        for row in table.region_rows(position) {
            let start = row.start;
            let pages = start.div_ceil(PAGE) as usize + usize::from(start.is_multiple_of(PAGE));
            region.pages.resize(pages, region.rows.len() as u32);
            region.rows.push(row);
        }
        let pages = (view.len / PAGE) as usize + 2;
        region.pages.resize(pages, region.rows.len() as u32);
        region
    });
    decoded.collect()
}

/// The row that covers a byte.
fn row_at(regions: &[DecodedRegion], byte: Offset) -> Option<Row> {
    let after = regions.partition_point(|region| region.start <= byte);
    let region = &regions[after.checked_sub(1)?];
    let target = u32::try_from(byte.0 - region.start.0).ok()?;
    (target < region.len).then(|| region.row_at(target))?
}

#[cfg(test)]
mod tests {
    use lineinfo_core::blob::{Encoding, Profile};
    use lineinfo_core::writer::{Image, Region, encode};

    use super::*;

    #[test]
    fn the_answers_are_the_same_when_all_rows_are_decoded() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut rows = Vec::new();
        let mut start = 0;
        let mut last = 0;
        while start < 4000 {
            // Line 0 is a gap.
            let line = random.u32(0..50);
            let file = if line == 0 { 0 } else { random.u32(0..3) };
            if line != last {
                rows.push(Row { start, file, line });
            }
            last = line;
            start += random.u32(1..20);
        }
        let region = |name, start, len| Region {
            name,
            start,
            len,
            init: false,
            rows: &rows,
        };
        for profile in [Profile::Full, Profile::Calls] {
            let image = Image {
                machine: 62,
                build_id: &[],
                text_start: 0,
                profile,
                files: &["a.c", "b.c", "c.S"],
                exact_files: 2,
                regions: &[region(".text", 0, 5000), region(".init.text", 6000, 4500)],
            };
            let blob = encode(&image, Encoding::Packed).expect("a table");
            let table = Table::parse(&blob).expect("a table");
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), &blob).expect("room");
            let mut rows = RowsFile::new(BlobFile::open(file.path()).expect("a table"));
            for _ in 0..2 {
                for byte in (0..11_000).map(Offset) {
                    for address in [
                        Address::Exact(byte),
                        Address::Return(byte),
                        Address::Trap(byte),
                    ] {
                        let found = rows.lookup(address).map(|location| location.to_string());
                        let expected = table.lookup(address).map(|location| location.to_string());
                        assert_eq!(found, expected, "{address:?}");
                    }
                }
                assert_eq!(rows.regions.len(), 2);
            }
        }
    }
}
