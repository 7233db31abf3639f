//! Arrays of fixed-size fields, the first design of the field: 10 bytes a row.
//!
//! For `n` rows, without padding:
//!
//! | bytes | contents |
//! |---|---|
//! | 4 n | starts, `u32`, in bytes from the start of the region |
//! | 4 n | lines, `u32`, 0 in a gap |
//! | 2 n or 4 n | files, `u16`, or `u32` in a blob of more than 65,536 files |
//!
//! A look-up is a binary search over the starts.

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::{U16, U32};

use super::{Fault, RegionTable, Row};
use crate::index;
use crate::steps::step;

/// How many files a `u16` can tell apart.
const NARROW_FILES: u32 = 1 << 16;

#[derive(Clone, Copy, Debug)]
enum FileColumn<'a> {
    Narrow(&'a [U16]),
    Wide(&'a [U32]),
}

impl FileColumn<'_> {
    fn get(&self, row: usize) -> Option<u32> {
        match self {
            Self::Narrow(files) => files.get(row).map(|file| u32::from(file.get())),
            Self::Wide(files) => files.get(row).map(|file| file.get()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Columns<'a> {
    starts: &'a [U32],
    lines: &'a [U32],
    files: FileColumn<'a>,
}

impl<'a> Columns<'a> {
    /// Cuts the table into its columns, which must fill it.
    fn new(table: &RegionTable<'a>) -> Option<Self> {
        let rows = index(table.rows);
        let (starts, rest) = <[U32]>::ref_from_prefix_with_elems(table.bytes, rows).ok()?;
        let (lines, rest) = <[U32]>::ref_from_prefix_with_elems(rest, rows).ok()?;
        let files = if table.files <= NARROW_FILES {
            FileColumn::Narrow(<[U16]>::ref_from_bytes_with_elems(rest, rows).ok()?)
        } else {
            FileColumn::Wide(<[U32]>::ref_from_bytes_with_elems(rest, rows).ok()?)
        };
        Some(Self {
            starts,
            lines,
            files,
        })
    }

    fn row(&self, row: usize) -> Option<Row> {
        Some(Row {
            start: self.starts.get(row)?.get(),
            file: self.files.get(row)?,
            line: self.lines.get(row)?.get(),
        })
    }
}

/// The light check: the columns fill the table.
pub(super) fn check(table: &RegionTable<'_>) -> Result<(), Fault> {
    Rows::new(table).map(drop)
}

pub(super) fn find(table: &RegionTable<'_>, target: u32) -> Option<Row> {
    let columns = Columns::new(table)?;
    let after = columns.starts.partition_point(|start| {
        step();
        start.get() <= target
    });
    columns.row(after.checked_sub(1)?)
}

#[derive(Clone, Debug)]
pub(crate) struct Rows<'a> {
    columns: Columns<'a>,
    next: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(table: &RegionTable<'a>) -> Result<Self, Fault> {
        let columns = Columns::new(table)
            .ok_or_else(|| table.fault("columns of as many rows as the region says"))?;
        Ok(Self { columns, next: 0 })
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.columns.row(self.next)?;
        self.next = self.next.saturating_add(1);
        Some(Ok(row))
    }
}

#[cfg(feature = "write")]
pub(crate) fn encode(rows: &[Row], files: u32) -> alloc::vec::Vec<u8> {
    let starts = rows.iter().flat_map(|row| row.start.to_le_bytes());
    let lines = rows.iter().flat_map(|row| row.line.to_le_bytes());
    let file_bytes = if files <= NARROW_FILES { 2 } else { 4 };
    let files = rows
        .iter()
        .flat_map(|row| row.file.to_le_bytes().into_iter().take(file_bytes));
    starts.chain(lines).chain(files).collect()
}
