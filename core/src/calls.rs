//! Reduces rows to what is exact where stack traces look (feature `write`).
//!
//! A trace looks up the last byte of calls and the first byte of traps, and nothing else. Between
//! two such *points* with the same location no row is needed, and between two with different locations
//! one row may begin anywhere after the first and up to the second. That freedom is used to make
//! lengths that a packed table stores in few bits: rows begin at multiples of 4, and among those a
//! Viterbi pass finds the starts whose lengths are the most frequent ones.

#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own lists"
)]

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::encoding::Row;
use crate::encoding::packed::write::{as_f32, log2};
use crate::index;

/// Rows begin at multiples of this, in bytes, wherever one is free.
const UNIT: u32 = 4;
/// Most starts that are tried for a row.
const CANDIDATES: u32 = 41;
/// Rounds in which starts and the costs of lengths are fitted to each other.
const ROUNDS: usize = 6;
/// Lengths, in units, that have a cost of their own; above, one for each power of two.
const OWN_COSTS: usize = 64;
/// What a length costs that is not a multiple of the unit, in bits.
const OFF_COST: f32 = 41.0;

/// What is known of the code of a region; addresses are in bytes from its start.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// Its length in bytes.
    pub len: u32,
    /// Where traces look, ascending.
    pub points: &'a [u32],
    /// Where it was made from assembly, ascending and without overlap.
    pub assembly: &'a [Range<u32>],
}

/// Keeps what is needed for an exact answer at every point.
///
/// `rows` are those of a region, in order. The result is equal to `rows` at every point. Elsewhere
/// it has a row near the address; before the first point it has the row of that point.
///
/// A compiler makes a return address by a call, so all that a trace of compiled code looks up are
/// points. Assembly also pushes addresses that no call precedes. So in assembly a row of an exact
/// file covers the row that `rows` have for the call, at most 3 bytes before the point, and at most
/// 3 bytes of the row after it. All other rows have the index of their file plus `files`, the number
/// of files. The caller appends the names of the files once more, as those of rows that are exact
/// nowhere ([`crate::blob::Header::exact_files`]).
pub fn reduce(rows: &[Row], code: &Code<'_>, files: u32) -> Vec<Row> {
    let len = code.len;
    let spans = spans(rows, code, files);
    let mut costs = Costs::guess();
    let mut starts = choose(&spans, len, &costs);
    for _ in 1..ROUNDS {
        costs = Costs::count(&starts, len);
        starts = choose(&spans, len, &costs);
    }
    let row = |(span, start): (&Span, u32)| Row { start, ..span.row };
    spans.iter().zip(starts).map(row).collect()
}

/// A future row, and where it may start: after `after` and up to `until`.
#[derive(Clone, Copy, Debug)]
struct Span {
    row: Row,
    after: Option<u32>,
    until: u32,
}

fn spans(rows: &[Row], code: &Code<'_>, files: u32) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut rows = rows.iter().peekable();
    let mut here = Row {
        start: 0,
        file: 0,
        line: 0,
    };
    // The last address that belongs to the row before.
    let mut taken = None;
    for stop in stops(code) {
        while let Some(row) = rows.next_if(|row| row.start <= stop.at) {
            here = *row;
        }
        // In assembly nearly every instruction has a row: that of a call begins within it, and that
        // of a stretch before the end of its first instruction.
        let begins = here.start.checked_sub(1).filter(|_| stop.assembly);
        let ends = rows.peek().map_or(code.len, |next| next.start);
        let until = if stop.assembly {
            stop.until.min(ends - 1)
        } else {
            stop.until
        };
        let mut row = here;
        if !stop.exact && !row.is_gap() {
            row.file += files;
        }
        let same = spans
            .last()
            .is_some_and(|last| (last.row.file, last.row.line) == (row.file, row.line));
        if !same {
            spans.push(Span {
                row,
                after: taken.max(stop.after).max(begins),
                until,
            });
        }
        taken = Some(until);
    }
    spans
}

/// An address at which a row is exact.
#[derive(Clone, Copy, Debug)]
struct Stop {
    at: u32,
    /// It is a point, and not the start of a stretch of assembly without points.
    exact: bool,
    /// It is in assembly.
    assembly: bool,
    /// Its row begins after this,
    after: Option<u32>,
    /// and up to this.
    until: u32,
}

/// The points, and in assembly the stretches before, between and after them.
fn stops(code: &Code<'_>) -> Vec<Stop> {
    let compiled = |at: u32, after: Option<u32>| Stop {
        at,
        exact: true,
        assembly: false,
        after,
        until: at,
    };
    let stretch = |at: u32, end: u32| Stop {
        at,
        exact: false,
        assembly: true,
        after: at.checked_sub(1),
        until: end.min(at + UNIT) - 1,
    };
    let mut stops = Vec::new();
    let points = code.points.iter();
    let mut points = points.filter(|point| **point < code.len).peekable();
    // The last address of the assembly before.
    let mut assembly = None;
    for range in code.assembly {
        while let Some(point) = points.next_if(|point| **point < range.start) {
            stops.push(compiled(*point, assembly));
        }
        // From where on there is no point.
        let mut bare = range.start;
        while let Some(point) = points.next_if(|point| **point < range.end) {
            if bare < *point {
                stops.push(stretch(bare, *point));
            }
            stops.push(Stop {
                assembly: true,
                ..compiled(*point, point.checked_sub(UNIT))
            });
            bare = point + 1;
        }
        if bare < range.end {
            stops.push(stretch(bare, range.end));
        }
        assembly = range.end.checked_sub(1);
    }
    stops.extend(points.map(|point| compiled(*point, assembly)));
    stops
}

impl Span {
    /// Where the row may start: multiples of the unit, the last of them, or if there is none, where
    /// it must.
    fn candidates(&self) -> Vec<u32> {
        let Some(after) = self.after else {
            return vec![0];
        };
        let last = self.until / UNIT * UNIT;
        let first = (after / UNIT + 1) * UNIT;
        if first > last {
            return vec![self.until];
        }
        let most = (CANDIDATES - 1) * UNIT;
        let first = first.max(last.saturating_sub(most));
        (first..=last).step_by(index(UNIT)).collect()
    }
}

/// What lengths cost, in bits.
struct Costs(Vec<f32>);

impl Costs {
    fn guess() -> Self {
        let class = |class: u16| 3.0 + f32::from(class) * 0.1;
        Self((0..).map(class).take(OWN_COSTS + 32).collect())
    }

    fn count(starts: &[u32], len: u32) -> Self {
        let mut counts = vec![0.5_f32; OWN_COSTS + 32];
        let mut total = 0.0;
        let ends = starts.iter().skip(1).copied().chain([len]);
        for (start, end) in starts.iter().zip(ends) {
            if let Some((class, _)) = class(end - start) {
                counts[class] += 1.0;
                total += 1.0;
            }
        }
        Self(counts.iter().map(|count| log2(total / count)).collect())
    }

    fn of(&self, length: u32) -> f32 {
        match class(length) {
            Some((class, raw)) => self.0[class] + raw,
            None => OFF_COST,
        }
    }
}

/// The class of a length and the raw bits that it takes besides; none if it is no multiple.
fn class(length: u32) -> Option<(usize, f32)> {
    if !length.is_multiple_of(UNIT) {
        return None;
    }
    let units = length / UNIT;
    match index(units) {
        own @ 0..OWN_COSTS => Some((own, 0.0)),
        _ => Some((OWN_COSTS + index(units.ilog2()), as_f32(units.ilog2()))),
    }
}

/// The starts with which all lengths together cost least.
fn choose(spans: &[Span], len: u32, costs: &Costs) -> Vec<u32> {
    // The cost of the best way to each candidate, and for each span where the ways came from.
    let mut ways: Vec<(u32, f32)> = vec![];
    let mut from: Vec<Vec<(u32, usize)>> = Vec::with_capacity(spans.len());
    for span in spans {
        let candidates = span.candidates();
        let mut next = Vec::with_capacity(candidates.len());
        let mut choices = Vec::with_capacity(candidates.len());
        for start in candidates {
            let way = |(number, (before, cost)): (usize, &(u32, f32))| {
                (number, cost + costs.of(start - before))
            };
            let best = ways.iter().enumerate().map(way);
            let best = best.min_by(|a, b| a.1.total_cmp(&b.1));
            let (number, cost) = best.unwrap_or((0, 0.0));
            next.push((start, cost));
            choices.push((start, number));
        }
        // Costs stay small numbers, so that none of their bits are lost.
        let least = next
            .iter()
            .map(|way| way.1)
            .min_by(f32::total_cmp)
            .unwrap_or(0.0);
        next.iter_mut().for_each(|way| way.1 -= least);
        ways = next;
        from.push(choices);
    }
    let last = ways.iter().enumerate();
    let last = last.map(|(number, (start, cost))| (number, cost + costs.of(len - start)));
    let mut number = last
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map_or(0, |best| best.0);
    let mut starts: Vec<u32> = Vec::with_capacity(spans.len());
    for choices in from.iter().rev() {
        let (start, before) = choices[number];
        starts.push(start);
        number = before;
    }
    starts.reverse();
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(rows: &[Row], target: u32) -> (u32, u32) {
        let row = rows.iter().rev().find(|row| row.start <= target);
        row.map_or((0, 0), |row| (row.file, row.line))
    }

    #[test]
    fn every_point_says_what_it_said() {
        let mut rows = Vec::new();
        let mut points = Vec::new();
        let (mut start, mut point) = (3, 0);
        for n in 0..2000_u32 {
            let line = n * n % 23;
            rows.push(Row {
                start,
                file: if line == 0 { 0 } else { n % 3 },
                line,
            });
            start += 1 + n * 7 % 11;
            point += 1 + n * n % 13;
            points.push(point);
        }
        let len = start.max(point) + 7;
        let code = Code {
            len,
            points: &points,
            assembly: &[],
        };
        let reduced = reduce(&rows, &code, 3);
        assert!(reduced.len() < points.len());
        assert!(reduced.is_sorted_by(|a, b| a.start < b.start));
        for &point in &points {
            assert_eq!(say(&reduced, point), say(&rows, point), "at {point}");
        }
        let nowhere = Code {
            points: &[],
            ..code
        };
        assert_eq!(reduce(&rows, &nowhere, 3), []);

        // In assembly an answer is exact at a point, or says that it is not.
        let assembly = [100..300, 300..310, 2000..2401];
        let code = Code {
            assembly: &assembly,
            ..code
        };
        let reduced = reduce(&rows, &code, 3);
        assert!(reduced.is_sorted_by(|a, b| a.start < b.start));
        for &point in &points {
            assert_eq!(say(&reduced, point), say(&rows, point), "at {point}");
        }
        let ends = assembly.clone().map(|range| range.end);
        for at in assembly.into_iter().flatten() {
            let (file, line) = say(&reduced, at);
            let near = points
                .iter()
                .chain(&ends)
                .any(|stop| stop.abs_diff(at) < UNIT);
            assert!(line == 0 || file >= 3 || near, "at {at}");
        }
    }
}
