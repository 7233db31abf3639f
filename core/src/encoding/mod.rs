//! The encodings of the rows of one region.
//!
//! Every encoding stores the same thing: a list of [`Row`]s with strictly ascending starts. A row
//! counts up to the start of the next, the last one up to the end of the region; before the first
//! there is a gap.

pub mod delta;
pub mod flat;
pub mod packed;

use crate::blob::Encoding;
use crate::wide;

/// One row of a region's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Where it begins, in bytes from the start of the region.
    pub start: u32,
    /// Index of its file; 0 in a gap.
    pub file: u32,
    /// Its line, from 1; 0 makes the row a gap, addresses with no line information.
    pub line: u32,
}

impl Row {
    /// Whether its addresses have no line information.
    pub const fn is_gap(&self) -> bool {
        self.line == 0
    }
}

/// Most steps of a binary search over what a `u32` counts.
pub(crate) const SEARCH_STEPS_MAX: usize = 33;

/// Most steps of a look-up in the table of a region.
pub(crate) const STEPS_MAX: usize = packed::STEPS_MAX;
const _: () = assert!(SEARCH_STEPS_MAX + delta::STEPS_MAX <= STEPS_MAX);

/// The encoded table of one region, with the numbers from outside it that its decoder needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionTable<'a> {
    pub(crate) bytes: &'a [u8],
    /// Number of rows.
    pub(crate) rows: u32,
    /// Number of files in the blob.
    pub(crate) files: u32,
    /// Length of the region, in bytes of text.
    pub(crate) len: u32,
    /// What the tables of all regions share, in the packed encoding: the model section.
    pub(crate) model: &'a [u8],
}

/// What breaks a rule of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where, in bytes from the start of the table.
    pub(crate) at: usize,
    pub(crate) expected: &'static str,
    pub(crate) found: u64,
}

/// All rows of a table, in order; an error ends them.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is used where it is made, and there is no box to put it in"
)]
pub(crate) enum Rows<'a> {
    Flat(flat::Rows<'a>),
    Delta(delta::Rows<'a>),
    Packed(packed::Rows<'a>),
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Flat(rows) => rows.next(),
            Self::Delta(rows) => rows.next(),
            Self::Packed(rows) => rows.next(),
        }
    }
}

impl<'a> RegionTable<'a> {
    /// The row that covers `target`, in bytes from the start of the region; gaps included.
    ///
    /// An encoding may cut rows; then the start is that of the part that covers `target`.
    #[inline(always)] // A frame less on the stack of an interrupt, which is short.
    pub(crate) fn find(&self, encoding: Encoding, target: u32) -> Option<Row> {
        match encoding {
            Encoding::Flat => flat::find(self, target),
            Encoding::Delta => delta::find(self, target),
            Encoding::Packed => packed::find(self, target),
        }
    }

    pub(crate) fn rows(&self, encoding: Encoding) -> Result<Rows<'a>, Fault> {
        match encoding {
            Encoding::Flat => flat::Rows::new(self).map(Rows::Flat),
            Encoding::Delta => delta::Rows::new(self).map(Rows::Delta),
            Encoding::Packed => packed::Rows::new(self).map(Rows::Packed),
        }
    }

    /// The light check: checks the directory that a look-up goes through, and decodes no row.
    pub(crate) fn check(&self, encoding: Encoding) -> Result<(), Fault> {
        match encoding {
            Encoding::Flat => flat::check(self),
            Encoding::Delta => delta::check(self),
            Encoding::Packed => packed::check(self),
        }
    }

    /// Decodes every row once and checks the rules that hold for any encoding.
    pub(crate) fn check_rows(&self, encoding: Encoding) -> Result<(), Fault> {
        let mut order = RowOrder::new(self.len, self.files);
        for row in self.rows(encoding)? {
            order.check(&row?)?;
        }
        if order.count != self.rows {
            return Err(Fault {
                at: 0,
                expected: "as many rows as the region says",
                found: u64::from(order.count),
            });
        }
        Ok(())
    }

    fn fault(&self, expected: &'static str) -> Fault {
        Fault {
            at: 0,
            expected,
            found: wide(self.bytes.len()),
        }
    }
}

/// The rules for the rows of a region, whatever their encoding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowOrder {
    /// Length of the region, in bytes of text.
    len: u32,
    /// Number of files in the blob.
    files: u32,
    previous: Option<u32>,
    /// Rows so far.
    count: u32,
}

impl RowOrder {
    pub(crate) const fn new(len: u32, files: u32) -> Self {
        Self {
            len,
            files,
            previous: None,
            count: 0,
        }
    }

    /// Checks the next row.
    pub(crate) fn check(&mut self, row: &Row) -> Result<(), Fault> {
        let fault = |expected, found: u32| Fault {
            at: 0,
            expected,
            found: found.into(),
        };
        if self.previous.is_some_and(|previous| row.start <= previous) {
            return Err(fault("rows with ascending starts", row.start));
        }
        if row.start >= self.len {
            return Err(fault("a row that starts inside its region", row.start));
        }
        if row.file >= self.files && !row.is_gap() {
            return Err(fault("the index of a file", row.file));
        }
        self.previous = Some(row.start);
        self.count = self.count.saturating_add(1);
        Ok(())
    }
}
