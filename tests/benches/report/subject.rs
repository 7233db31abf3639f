//! The image that the report is about, and where it is asked.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lineinfo_cli::extract::elf::{Elf, ElfFile};
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::extract::{Extracted, extract};
use lineinfo_cli::points::Instructions;
use lineinfo_core::blob::Encoding;
use lineinfo_core::{Address, Offset, Table};

/// One address that everybody is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// Relative to `_text`, with its kind, as a kernel asks.
    pub(crate) address: Address,
    /// The byte that is meant, at link time, for those who know no kinds.
    pub(crate) byte: u64,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What traces look up: return addresses and traps.
    Points,
    /// Bytes of text that have a line.
    Bytes,
}

/// An image, and what its tables are made from.
pub(crate) struct Subject {
    pub(crate) path: PathBuf,
    pub(crate) file: ElfFile,
    pub(crate) full: Extracted,
    pub(crate) calls: Extracted,
    /// All return addresses and traps.
    points: Vec<Address>,
    /// Where there are lines, in bytes from `_text`, and how many bytes of text came before.
    lines: Vec<(Range<u64>, u64)>,
    line_bytes: u64,
}

impl Subject {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = ElfFile::open(path)?;
        let elf = file.parse()?;
        let full = extract(&elf, &Naming::default(), &())?;
        let mut calls = extract(&elf, &Naming::default(), &())?;
        calls.reduce_to_calls(&elf)?;
        let points = points(&elf, &full)?;
        let lines = lines(&full)?;
        let (mut line_bytes, mut counted) = (0, Vec::new());
        for range in lines {
            let len = range.end - range.start;
            counted.push((range, line_bytes));
            line_bytes += len;
        }
        ensure!(
            !points.is_empty() && line_bytes > 0,
            "{}: no code with lines",
            path.display()
        );
        drop(elf);
        Ok(Self {
            path: path.to_owned(),
            file,
            full,
            calls,
            points,
            lines: counted,
            line_bytes,
        })
    }

    /// Random questions of a kind.
    pub(crate) fn questions(
        &self,
        kind: Kind,
        count: usize,
        random: &mut fastrand::Rng,
    ) -> Vec<Question> {
        let address = |random: &mut fastrand::Rng| match kind {
            Kind::Points => self.points[random.usize(..self.points.len())],
            Kind::Bytes => {
                let at = random.u64(..self.line_bytes);
                let after = self.lines.partition_point(|(_, before)| *before <= at);
                let (range, before) = &self.lines[after - 1];
                Address::Exact(Offset(range.start + (at - before)))
            }
        };
        let question = |address: Address| {
            let byte = address.byte()?;
            Some(Question {
                address,
                byte: self.full.identity.text_start + byte.0,
            })
        };
        std::iter::repeat_with(|| address(random))
            .filter_map(question)
            .take(count)
            .collect()
    }

    /// Number of return addresses and traps.
    pub(crate) fn points(&self) -> usize {
        self.points.len()
    }
}

fn points(elf: &Elf<'_>, full: &Extracted) -> Result<Vec<Address>> {
    let machine = full.identity.machine;
    let instructions = Instructions::of(machine, elf.address_size());
    let instructions = instructions.with_context(|| format!("no decoder for machine {machine}"))?;
    let mut points = Vec::new();
    for region in &full.regions {
        let start = region.section.address;
        for point in instructions.points(elf.code(&region.section)?) {
            let at = match point {
                Address::Return(at) => Address::Return(start + at),
                Address::Exact(at) => Address::Exact(start + at),
                Address::Trap(at) => Address::Trap(start + at),
            };
            points.extend(at.relative_to(full.identity.text_start));
        }
    }
    Ok(points)
}

fn lines(full: &Extracted) -> Result<Vec<Range<u64>>> {
    let blob = full.encode(Encoding::Flat)?;
    let table = Table::parse(&blob)?;
    let mut lines = Vec::new();
    for (position, region) in table.regions().enumerate() {
        let mut rows = table.region_rows(position).peekable();
        while let Some(row) = rows.next() {
            let end = rows.peek().map_or(region.len, |next| next.start);
            if !row.is_gap() {
                lines.push(region.start.0 + u64::from(row.start)..region.start.0 + u64::from(end));
            }
        }
    }
    Ok(lines)
}
