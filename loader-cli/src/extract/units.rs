//! The units of `.debug_info`: compilation directories and names, which line programs before DWARF 5
//! do without, and where line programs begin.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use gimli::{AttributeValue, DebugAbbrev, DebugInfoOffset, Reader, UnitHeader};

use super::budget::Budget;
use super::lines::{Dwarf, Slice, resolve};
use crate::error::BudgetError;

/// What the root entries of all units say.
#[derive(Debug, Default)]
pub(super) struct Units<'a> {
    /// Compilation directory and name, by the offset of the line program.
    pub(super) by_program: HashMap<usize, (Slice<'a>, Slice<'a>)>,
    /// How many units have the line program at an offset.
    pub(super) users: HashMap<usize, u64>,
    /// Bytes of the abbreviations of all units, where they were asked for.
    pub(super) abbreviations: u64,
    /// The offsets of all line programs.
    pub(super) programs: BTreeSet<usize>,
    /// There are units that cannot be read.
    pub(super) lost: bool,
    /// The strings of the supplementary file.
    pub(super) supplement: Slice<'a>,
}

/// What a unit may take.
const UNIT_BYTES: u64 = 256;

/// Bytes of abbreviations that are searched for each byte of `.debug_info` and `.debug_abbrev`; units
/// that need more are lost. The root entry of a unit has one of the first abbreviations.
const SEARCHED_MAX: u64 = 64;

impl<'a> Units<'a> {
    /// Reads the root entry of each unit; none, where `.debug_info` is not loaded.
    ///
    /// `whole`: adds up all abbreviations of each unit as well.
    pub(super) fn read(
        dwarf: &Dwarf<'a>,
        info: Slice<'a>,
        abbrev: Slice<'a>,
        supplement: Slice<'a>,
        whole: bool,
        budget: &Budget,
    ) -> Result<Self, BudgetError> {
        let sizes = info.len() + abbrev.len();
        let mut abbreviations = Abbreviations {
            section: abbrev,
            left: SEARCHED_MAX.saturating_mul(sizes as u64),
            last: None,
            last_table: None,
        };
        let mut units = Self {
            supplement,
            ..Self::default()
        };
        let mut rest = info;
        while !rest.is_empty() {
            let offset = rest.offset_from(info);
            let next = rest
                .read_initial_length()
                .and_then(|(length, _)| rest.skip(length));
            if next.is_err() {
                units.lost = true;
                break;
            }
            budget.charge("units", UNIT_BYTES)?;
            let unit = dwarf.debug_info.header_from_offset(DebugInfoOffset(offset));
            if let (true, Ok(unit)) = (whole, &unit) {
                match abbreviations.table_len(unit.debug_abbrev_offset().0) {
                    Ok(len) => units.abbreviations += len,
                    Err(_) => units.lost = true,
                }
            }
            let root = unit.and_then(|unit| Root::read(&unit, &mut abbreviations));
            let added = root.and_then(|root| units.add(dwarf, &root));
            units.lost |= added.is_err();
        }
        Ok(units)
    }

    fn add(&mut self, dwarf: &Dwarf<'a>, root: &Root<'a>) -> gimli::Result<()> {
        let Some(program) = root.program else {
            return Ok(());
        };
        self.programs.insert(program);
        *self.users.entry(program).or_default() += 1;
        let string = |value: Option<_>| match value {
            Some(value) => resolve(dwarf, self.supplement, value),
            None => Ok(Slice::default()),
        };
        let paths = (string(root.comp_dir)?, string(root.name)?);
        // Partial units have the line table of another unit, and no name.
        let known = self.by_program.entry(program).or_insert(paths);
        if known.1.is_empty() {
            *known = paths;
        }
        Ok(())
    }
}

/// What follows the root entries of units, in bytes from the start of `.debug_info`: in the units whose
/// root entry says where their code is.
///
/// Of a unit that cannot be read nothing is known.
pub(super) fn children(info: Slice<'_>, abbrev: Slice<'_>) -> Vec<Range<usize>> {
    let (info, abbrev) = (gimli::DebugInfo::from(info), DebugAbbrev::from(abbrev));
    let mut children = Vec::new();
    let mut units = info.units();
    while let Ok(Some(unit)) = units.next() {
        let of_unit = || -> gimli::Result<Option<Range<usize>>> {
            let abbreviations = unit.abbreviations(&abbrev)?;
            let mut entries = unit.entries_raw(&abbreviations, None)?;
            let root = entries.read_abbreviation()?;
            let Some(root) = root.filter(|root| root.has_children()) else {
                return Ok(None);
            };
            let mut has_code = false;
            for attribute in root.attributes() {
                let attribute = entries.read_attribute(*attribute)?;
                has_code |= matches!(attribute.name(), gimli::DW_AT_ranges | gimli::DW_AT_high_pc);
            }
            let offset = unit.debug_info_offset().filter(|_| has_code);
            let len = unit.length_including_self();
            Ok(offset.map(|unit| unit.0 + entries.next_offset().0..unit.0 + len))
        };
        children.extend(of_unit().ok().flatten());
    }
    children
}

/// The attributes of a root entry.
#[derive(Default)]
struct Root<'a> {
    program: Option<usize>,
    comp_dir: Option<AttributeValue<Slice<'a>>>,
    name: Option<AttributeValue<Slice<'a>>>,
}

impl<'a> Root<'a> {
    fn read(
        unit: &UnitHeader<Slice<'a>>,
        abbreviations: &mut Abbreviations<'a>,
    ) -> gimli::Result<Self> {
        let mut root = Self::default();
        let mut entry = unit.range_from(gimli::UnitOffset(unit.size_of_header())..)?;
        let code = entry.read_uleb128()?;
        if code == 0 {
            return Ok(root);
        }
        let table = abbreviations.only(unit, code)?;
        let mut entries = unit.entries_raw(table, None)?;
        let Some(abbreviation) = entries.read_abbreviation()? else {
            return Ok(root);
        };
        for attribute in abbreviation.attributes() {
            let attribute = entries.read_attribute(*attribute)?;
            match (attribute.name(), attribute.value()) {
                (gimli::DW_AT_stmt_list, AttributeValue::DebugLineRef(offset)) => {
                    root.program = Some(offset.0);
                }
                (gimli::DW_AT_comp_dir, value) => root.comp_dir = Some(value),
                (gimli::DW_AT_name, value) => root.name = Some(value),
                _ => {}
            }
        }
        Ok(root)
    }
}

/// Finds single abbreviations. A table of them may be large, and every unit may have another.
struct Abbreviations<'a> {
    section: Slice<'a>,
    /// Bytes that may still be searched.
    left: u64,
    /// The one that was found last, by the offset of its table and its code.
    last: Option<((usize, u64), gimli::Abbreviations)>,
    /// The table that was measured last, and its length.
    last_table: Option<(usize, u64)>,
}

impl<'a> Abbreviations<'a> {
    /// A table of only the abbreviation with this code.
    fn only(
        &mut self,
        unit: &UnitHeader<Slice<'a>>,
        code: u64,
    ) -> gimli::Result<&gimli::Abbreviations> {
        let offset = unit.debug_abbrev_offset().0;
        let found = match self.last.take() {
            Some((key, found)) if key == (offset, code) => found,
            _ => {
                let mut table = self.section;
                table.skip(offset)?;
                let mut only = self.find(table, code)?.to_vec();
                // The end of the table.
                only.push(0);
                DebugAbbrev::new(&only, table.endian())
                    .abbreviations(gimli::DebugAbbrevOffset(0))?
            }
        };
        Ok(&self.last.insert(((offset, code), found)).1)
    }

    /// The length of a whole table.
    fn table_len(&mut self, offset: usize) -> gimli::Result<u64> {
        if let Some((_, len)) = self.last_table.filter(|(last, _)| *last == offset) {
            return Ok(len);
        }
        let mut table = self.section;
        table.skip(offset)?;
        let mut len = 0;
        while let Some((_, bytes)) = self.next(&mut table)? {
            len += bytes.len() as u64;
        }
        self.last_table = Some((offset, len));
        Ok(len)
    }

    /// The bytes of an abbreviation.
    fn find(&mut self, mut table: Slice<'a>, code: u64) -> gimli::Result<&'a [u8]> {
        while let Some((found, bytes)) = self.next(&mut table)? {
            if found == code {
                return Ok(bytes);
            }
        }
        Err(gimli::Error::InvalidAbbreviationCode(code))
    }

    /// The code and the bytes of the next abbreviation of a table.
    fn next(&mut self, table: &mut Slice<'a>) -> gimli::Result<Option<(u64, &'a [u8])>> {
        let start = *table;
        let code = table.read_uleb128()?;
        if code == 0 {
            return Ok(None);
        }
        let _tag = table.read_uleb128()?;
        let _has_children = table.read_u8()?;
        loop {
            let name = table.read_uleb128()?;
            let form = table.read_uleb128()?;
            if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                table.read_sleb128()?;
            }
            if (name, form) == (0, 0) {
                break;
            }
        }
        let len = table.offset_from(start);
        let left = self.left.checked_sub(len as u64);
        self.left = left.ok_or(gimli::Error::InvalidAbbreviationCode(code))?;
        Ok(Some((code, &start.slice()[..len])))
    }
}
