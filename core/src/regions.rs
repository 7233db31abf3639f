//! The sections of regions and of their names, as the head of the crate specifies them.
//!
//! All records have the same size, so that a look-up can halve them; the widths of their fields fit the
//! image, for most tables are those of small modules.

use zerocopy::FromBytes;

use crate::blob::{REGION_INIT, RegionWidths};
use crate::index;
use crate::name::NAME_MAX;
use crate::steps::step;

/// The names that most text sections have.
pub(crate) const USUAL: [&str; 16] = [
    ".text",
    ".init.text",
    ".exit.text",
    ".noinstr.text",
    ".text.unlikely",
    ".altinstr_replacement",
    ".head.text",
    ".ref.text",
    ".static_call.text",
    ".rodata.text",
    ".text.startup",
    ".text.exit",
    ".text.hot",
    ".fixup",
    ".sched.text",
    ".kprobes.text",
];

/// Names that are in the section begin at this number and count its bytes.
const OWN: u32 = 64;
const _: () = assert!(USUAL.len() <= index(OWN));

/// One region, as its record says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) len: u32,
    pub(crate) rows: u32,
    /// Where its table begins and ends in the rows section; it begins where the one before ends.
    pub(crate) table_begin: u32,
    pub(crate) table_end: u32,
    /// The name, and whether it is init text.
    name: u32,
}

impl Region {
    pub(crate) fn is_init(&self) -> bool {
        self.name & u32::from(REGION_INIT) != 0
    }

    /// Where the name begins in the section of names, if it is there.
    pub(crate) const fn own_name(&self) -> Option<u32> {
        (self.name >> 1).checked_sub(OWN)
    }

    /// The bytes of the name, given the section of names.
    pub(crate) fn name<'a>(&self, names: &'a [u8]) -> Option<&'a [u8]> {
        let Some(begin) = self.own_name() else {
            let usual = USUAL.get(index(self.name >> 1))?;
            return Some(usual.as_bytes());
        };
        let bytes = names.get(index(begin)..)?;
        let mut most = bytes.iter().take(NAME_MAX.saturating_add(1));
        let end = most.position(|byte| {
            step();
            *byte == 0
        })?;
        bytes.get(..end)
    }
}

/// The section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regions<'a> {
    widths: RegionWidths,
    records: &'a [u8],
    count: usize,
}

impl<'a> Regions<'a> {
    /// `None` if the section does not have the form of one.
    #[inline(always)]
    pub(crate) fn new(section: &'a [u8]) -> Option<Self> {
        let (widths, records) = RegionWidths::read_from_prefix(section).ok()?;
        let size = widths.record_size()?;
        let count = records.len().checked_div(size)?;
        let fits = records.len().checked_rem(size) == Some(0);
        fits.then_some(Self {
            widths,
            records,
            count,
        })
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// A field of a record, given the bytes of the fields before it.
    #[inline(always)]
    fn field(&self, record: usize, before: usize, width: usize) -> Option<u64> {
        let at = record
            .checked_mul(self.widths.record_size()?)?
            .checked_add(before)?;
        number(self.records, at, width)
    }

    #[inline(always)]
    fn start(&self, record: usize) -> Option<u64> {
        self.field(record, 0, self.widths.start())
    }

    #[inline(always)]
    fn table_end(&self, record: usize) -> Option<u32> {
        let before = self.widths.before_end();
        u32::try_from(self.field(record, before, self.widths.end())?).ok()
    }

    #[inline(always)]
    pub(crate) fn get(&self, record: usize) -> Option<Region> {
        if record >= self.count {
            return None;
        }
        let widths = self.widths;
        let narrow = |before: usize, width: usize| {
            let value = self.field(record, before, width)?;
            u32::try_from(value).ok()
        };
        let after_len = widths.start().saturating_add(widths.len());
        Some(Region {
            start: self.start(record)?,
            len: narrow(widths.start(), widths.len())?,
            rows: narrow(after_len, widths.rows())?,
            table_begin: match record.checked_sub(1) {
                Some(before) => self.table_end(before)?,
                None => 0,
            },
            table_end: self.table_end(record)?,
            name: narrow(
                widths.before_end().saturating_add(widths.end()),
                widths.name(),
            )?,
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Region> + use<'a> {
        let regions = *self;
        (0..self.count).map_while(move |record| regions.get(record))
    }
}

/// What a look-up needs of a region, and no more: it is on its stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covering {
    /// Which region it is.
    pub(crate) number: u32,
    /// The offset, from the start of the region.
    pub(crate) target: u32,
    pub(crate) len: u32,
    pub(crate) rows: u32,
    pub(crate) table_begin: u32,
    pub(crate) table_end: u32,
}

/// The region that covers an offset, given the section.
///
/// Not inlined: its stack must not be there while rows are decoded.
#[inline(never)]
pub(crate) fn find(section: &[u8], offset: u64) -> Option<Covering> {
    let regions = Regions::new(section)?;
    let (mut from, mut to) = (0, regions.count);
    while from < to {
        step();
        let middle = from.midpoint(to);
        if regions.start(middle)? <= offset {
            from = middle.checked_add(1)?;
        } else {
            to = middle;
        }
    }
    let number = from.checked_sub(1)?;
    let region = regions.get(number)?;
    let target = u32::try_from(offset.checked_sub(region.start)?).ok()?;
    (target < region.len).then_some(Covering {
        number: u32::try_from(number).ok()?,
        target,
        len: region.len,
        rows: region.rows,
        table_begin: region.table_begin,
        table_end: region.table_end,
    })
}

/// `width` bytes (at most 8) at a position.
#[inline(always)]
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let rest = bytes.get(at..)?;
    if let Some(word) = rest.first_chunk() {
        let unused = 64_u32.wrapping_sub(u32::try_from(width).ok()?.wrapping_mul(8));
        let mask = u64::MAX.wrapping_shr(unused);
        return Some(u64::from_le_bytes(*word) & mask);
    }
    let byte = |value: u64, byte: &u8| value.wrapping_shl(8) | u64::from(*byte);
    Some(rest.get(..width)?.iter().rev().fold(0, byte))
}

/// Makes a region one without rows whose table ends at `table_end`, or only moves its table.
///
/// `record` are the bytes of the record in a section with these widths; numbers become smaller only.
pub(crate) fn replace(
    widths: RegionWidths,
    record: &mut [u8],
    rows: u32,
    table_end: u32,
) -> Option<()> {
    let mut put = |at: usize, width: usize, value: u32| {
        let bytes = record.get_mut(at..)?.get_mut(..width)?;
        let values = value.to_le_bytes();
        for (to, from) in bytes.iter_mut().zip(values) {
            *to = from;
        }
        Some(())
    };
    let at = widths.start().saturating_add(widths.len());
    put(at, widths.rows(), rows)?;
    put(widths.before_end(), widths.end(), table_end)
}

#[cfg(feature = "write")]
pub(crate) mod write {
    //! The writer of both sections.

    use alloc::vec::Vec;

    use zerocopy::IntoBytes;

    use super::{OWN, REGION_INIT, Region, RegionWidths, USUAL};
    use crate::writer::{EncodeError, narrow};

    /// Collects regions.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Writer {
        regions: Vec<Region>,
        names: Vec<u8>,
    }

    impl Writer {
        /// Appends a region, which must start after the one before.
        pub(crate) fn push(
            &mut self,
            region: &crate::writer::Region<'_>,
            rows: usize,
            table_end: usize,
        ) -> Result<(), EncodeError> {
            let usual = (0_u32..).zip(USUAL).find(|(_, name)| *name == region.name);
            let name = match usual {
                Some((number, _)) => number,
                None => {
                    let begin: u32 = narrow("the size of the region names", self.names.len())?;
                    self.names.extend_from_slice(region.name.as_bytes());
                    self.names.push(0);
                    begin.saturating_add(OWN)
                }
            };
            self.regions.push(Region {
                start: region.start,
                len: region.len,
                rows: narrow("the number of rows", rows)?,
                table_begin: 0,
                table_end: narrow("the size of the rows", table_end)?,
                name: name.saturating_mul(2) | if region.init { REGION_INIT.into() } else { 0 },
            });
            Ok(())
        }

        /// The sections of the regions and of their names.
        pub(crate) fn finish(self) -> (Vec<u8>, Vec<u8>) {
            let width = |of: fn(&Region) -> u64| {
                let most = self.regions.iter().map(of).max().unwrap_or(0);
                (71_u32.saturating_sub(most.leading_zeros()) / 8).max(1)
            };
            let widths = [
                width(|region| region.start),
                width(|region| region.len.into()),
                width(|region| region.rows.into()),
                width(|region| region.table_end.into()),
                width(|region| region.name.into()),
            ];
            let mut section = RegionWidths::new(widths).as_bytes().to_vec();
            for region in &self.regions {
                let fields: [u64; 5] = [
                    region.start,
                    region.len.into(),
                    region.rows.into(),
                    region.table_end.into(),
                    region.name.into(),
                ];
                for (field, width) in fields.into_iter().zip(widths) {
                    let bytes = field.to_le_bytes().into_iter();
                    section.extend(bytes.take(crate::index(width)));
                }
            }
            (section, self.names)
        }
    }
}
