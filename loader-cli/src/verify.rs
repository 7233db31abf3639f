//! A table against an independent decoder of the same DWARF: the addr2line crate.

use std::fmt;
use std::path::Path;

use addr2line::Context;
use gimli::{DwarfSections, EndianSlice, RunTimeEndian};
use indicatif::ProgressBar;
use lineinfo_core::{Offset, Table};
use rayon::prelude::*;

use crate::error::Error;
use crate::extract::elf::Elf;
use crate::extract::paths::{SourceRoot, join};
use crate::extract::{printable, source_root};
use crate::hex;

/// How many differences a report keeps.
pub const FIRST_DIFFERENCES: usize = 10;

/// Addresses that one thread takes at a time.
const CHUNK: usize = 16 * 1024;

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Report {
    /// Addresses at which table and decoder were compared.
    pub checked: u64,
    /// Addresses that no unit claims, where the decoder has no say.
    pub unclaimed: u64,
    /// Addresses at which they differ.
    pub differences: u64,
    /// The first [`FIRST_DIFFERENCES`] of them, by address.
    pub first: Vec<Difference>,
}

/// One address at which table and decoder differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The link-time address.
    pub address: u64,
    /// What the table says: `file:line`.
    pub table: Option<String>,
    /// What the decoder says.
    pub decoder: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_miss = |said: &Option<String>| said.clone().unwrap_or_else(|| "??".to_owned());
        write!(
            f,
            "{:#x}: table {}, decoder {}",
            self.address,
            or_miss(&self.table),
            or_miss(&self.decoder)
        )
    }
}

impl Report {
    fn merge(mut self, other: Self) -> Self {
        self.checked += other.checked;
        self.unclaimed += other.unclaimed;
        self.differences += other.differences;
        self.first.extend(other.first);
        self.first.sort_by_key(|difference| difference.address);
        self.first.truncate(FIRST_DIFFERENCES);
        self
    }
}

/// Compares at the first and last byte of every row; the bar counts addresses.
///
/// # Errors
///
/// [`Error::OtherBuild`] if the table was not built from this image; else what is wrong with the
/// image or its DWARF.
pub fn verify(
    blob_path: &Path,
    table: &Table<'_>,
    elf: &Elf<'_>,
    root: Option<SourceRoot>,
    bar: &ProgressBar,
) -> Result<Report, Error> {
    let identity = &elf.identity;
    if table.layout().build_id() != identity.build_id {
        return Err(Error::OtherBuild {
            blob_path: blob_path.to_owned(),
            blob: hex(table.layout().build_id()),
            image_path: elf.path().to_owned(),
            image: hex(&identity.build_id),
        });
    }
    let root = match root {
        Some(root) => root,
        None => source_root(elf)?,
    };
    let sections = DwarfSections::load(|id| elf.debug_section(id))?;
    let addresses = row_ends(table);
    let (path, endian) = (elf.path(), elf.endian());
    let failed = |source| Error::Dwarf {
        path: path.to_owned(),
        source,
    };
    bar.set_length(addresses.len() as u64);
    addresses
        .par_chunks(CHUNK)
        .map_init(
            || Context::from_dwarf(sections.borrow(|section| EndianSlice::new(section, endian))),
            |context, addresses| {
                let context = context.as_ref().map_err(|source| failed(*source))?;
                let report = compare(table, context, &root, identity.text_start, addresses)
                    .map_err(failed)?;
                bar.inc(addresses.len() as u64);
                Ok(report)
            },
        )
        .try_reduce(Report::default, |one, other| Ok(one.merge(other)))
}

/// Offsets of the first and the last byte of every row.
fn row_ends(table: &Table<'_>) -> Vec<Offset> {
    let mut ends = Vec::new();
    for (position, region) in table.regions().enumerate() {
        let starts = table
            .region_rows(position)
            .map(|row| region.start.0 + u64::from(row.start));
        for start in starts {
            // The last byte of the row before.
            if let Some(last) = start.checked_sub(1).filter(|last| *last >= region.start.0) {
                ends.push(Offset(last));
            }
            ends.push(Offset(start));
        }
        ends.push(Offset(region.start.0 + u64::from(region.len) - 1));
    }
    ends
}

fn compare(
    table: &Table<'_>,
    context: &Context<EndianSlice<'_, RunTimeEndian>>,
    root: &SourceRoot,
    text_start: u64,
    offsets: &[Offset],
) -> gimli::Result<Report> {
    let mut report = Report::default();
    for offset in offsets {
        let address = text_start + offset.0;
        let ours = table.lookup(*offset).map(|location| location.to_string());
        let theirs = context.find_location(address)?.and_then(|location| {
            let file = printable(root.relative(&join([location.file?])));
            // Line 0 means that there is no line.
            let line = location.line.filter(|line| *line != 0)?;
            Some(format!("{file}:{line}"))
        });
        if theirs.is_none() && !is_claimed(context, address) {
            report.unclaimed += 1;
            continue;
        }
        report.checked += 1;
        if ours != theirs {
            report.differences += 1;
            if report.first.len() < FIRST_DIFFERENCES {
                report.first.push(Difference {
                    address,
                    table: ours,
                    decoder: theirs,
                });
            }
        }
    }
    Ok(report)
}

/// Whether the ranges of any unit hold the address.
fn is_claimed(context: &Context<EndianSlice<'_, RunTimeEndian>>, address: u64) -> bool {
    context
        .find_dwarf_and_unit(address)
        .skip_all_loads()
        .is_some()
}
