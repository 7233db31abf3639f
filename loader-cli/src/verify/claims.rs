//! Which addresses units say are theirs.

use std::ops::Range;

use gimli::{EndianSlice, RunTimeEndian};

type Dwarf<'a> = gimli::Dwarf<EndianSlice<'a, RunTimeEndian>>;

/// The addresses of all units.
pub(super) struct Claims {
    /// Those that root entries name.
    units: Ranges,
    /// Those of sequences of rows, which often go on over the padding after a function.
    sequences: Ranges,
}

impl Claims {
    /// What units claim, given the addresses of all sequences. A unit that cannot be read claims nothing.
    pub(super) fn of(dwarf: &Dwarf<'_>, sequences: Vec<Range<u64>>) -> Self {
        let mut claimed = Vec::new();
        let mut units = dwarf.units();
        while let Ok(Some(header)) = units.next() {
            if let Ok(unit) = dwarf.unit(header) {
                claim(dwarf, unit, &mut claimed);
            }
        }
        Self {
            units: Ranges::new(claimed),
            sequences: Ranges::new(sequences),
        }
    }

    /// Whether a unit has rows for the address.
    pub(super) fn hold(&self, address: u64) -> bool {
        self.units.hold(address) && self.have_rows(address)
    }

    /// Whether there are rows for the address, in whatever unit.
    pub(super) fn have_rows(&self, address: u64) -> bool {
        self.sequences.hold(address)
    }
}

/// Adds the addresses of a root entry, or where it has none, those of its line program.
fn claim(
    dwarf: &Dwarf<'_>,
    unit: gimli::Unit<EndianSlice<'_, RunTimeEndian>>,
    claimed: &mut Vec<Range<u64>>,
) {
    let before = claimed.len();
    if let Ok(mut ranges) = dwarf.unit_ranges(&unit) {
        while let Ok(Some(range)) = ranges.next() {
            claimed.push(range.begin..range.end);
        }
    }
    let is_empty = claimed[before..].iter().all(Range::is_empty);
    let program = unit.line_program.filter(|_| is_empty);
    if let Some(Ok((_, sequences))) = program.map(|program| program.sequences()) {
        let sequences = sequences.iter();
        claimed.extend(sequences.map(|sequence| sequence.start..sequence.end));
    }
}

/// Addresses, ascending and without overlap.
struct Ranges(Vec<Range<u64>>);

impl Ranges {
    fn new(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    fn hold(&self, address: u64) -> bool {
        let after = self.0.partition_point(|range| range.start <= address);
        let last = after.checked_sub(1).map(|last| &self.0[last]);
        last.is_some_and(|range| address < range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_in_any_order_hold_their_addresses() {
        let ranges = [(8, 9), (1, 4), (3, 6), (6, 7), (5, 5), (20, 18)];
        let ranges = Ranges::new(ranges.map(|(start, end)| start..end).to_vec());
        assert_eq!(ranges.0, [1..7, 8..9]);
        let held: Vec<u64> = (0..30).filter(|address| ranges.hold(*address)).collect();
        assert_eq!(held, [1, 2, 3, 4, 5, 6, 8]);
    }
}
