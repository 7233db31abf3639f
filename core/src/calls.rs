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

use rayon::prelude::*;

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
/// Lengths, in units, whose costs are tabulated.
const SHORT: u32 = 1024;
/// Rows for which one processor chooses starts, or some more.
const PIECE: usize = 8192;
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
    let candidates: Vec<Candidates> = spans.iter().map(Span::candidates).collect();
    let mut costs = Costs::guess();
    let mut starts = choose(&candidates, len, &costs);
    for _ in 1..ROUNDS {
        costs = Costs::count(&starts, len);
        starts = choose(&candidates, len, &costs);
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

/// Where a row may start: `count` starts, a unit apart.
#[derive(Clone, Copy, Debug)]
struct Candidates {
    first: u32,
    count: u32,
}

impl Candidates {
    const fn only(start: u32) -> Self {
        Self {
            first: start,
            count: 1,
        }
    }

    fn starts(self) -> impl Iterator<Item = u32> {
        (0..self.count).map(move |number| self.first + number * UNIT)
    }
}

impl Span {
    /// Where the row may start: multiples of the unit, the last of them, or if there is none, where
    /// it must.
    fn candidates(&self) -> Candidates {
        let Some(after) = self.after else {
            return Candidates::only(0);
        };
        let last = self.until / UNIT * UNIT;
        let first = (after / UNIT + 1) * UNIT;
        if first > last {
            return Candidates::only(self.until);
        }
        let most = (CANDIDATES - 1) * UNIT;
        let first = first.max(last.saturating_sub(most));
        Candidates {
            first,
            count: (last - first) / UNIT + 1,
        }
    }
}

/// What lengths cost, in bits.
struct Costs {
    /// By class.
    classes: Vec<f32>,
    /// By length in units, for those that are frequent.
    short: Vec<f32>,
}

impl Costs {
    fn new(classes: Vec<f32>) -> Self {
        let mut costs = Self {
            classes,
            short: Vec::new(),
        };
        costs.short = (0..SHORT).map(|units| costs.of(units * UNIT)).collect();
        costs
    }

    fn guess() -> Self {
        let class = |class: u16| 3.0 + f32::from(class) * 0.1;
        Self::new((0..).map(class).take(OWN_COSTS + 32).collect())
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
        Self::new(counts.iter().map(|count| log2(total / count)).collect())
    }

    fn of(&self, length: u32) -> f32 {
        match class(length) {
            Some((class, raw)) => self.classes[class] + raw,
            None => OFF_COST,
        }
    }

    /// What the lengths cost that begin at a start and end at each of some candidates, which are all
    /// after it; absent where they are not tabulated.
    fn between(&self, start: u32, ends: Candidates) -> Option<&[f32]> {
        let shortest = ends.first - start;
        let units = index(shortest / UNIT);
        let costs = self.short.get(units..units + index(ends.count));
        costs.filter(|_| shortest.is_multiple_of(UNIT))
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
///
/// On a row that can start at one address only nothing after it depends on what was before, so there the
/// rows are cut into pieces, for all processors.
fn choose(candidates: &[Candidates], len: u32, costs: &Costs) -> Vec<u32> {
    let mut pieces = Vec::new();
    let mut rest = candidates;
    loop {
        let mut next = rest.iter().skip(PIECE);
        let cut = next.position(|row| row.count == 1).map(|at| PIECE + at);
        let Some((piece, after)) = cut.and_then(|cut| rest.split_at_checked(cut)) else {
            pieces.push((rest, len));
            break;
        };
        pieces.push((piece, after.first().map_or(len, |row| row.first)));
        rest = after;
    }
    let choose = |(piece, end): &(&[Candidates], u32)| choose_piece(piece, *end, costs);
    pieces.par_iter().flat_map(choose).collect()
}

/// The same for some rows, which end where the next begins.
fn choose_piece(candidates: &[Candidates], len: u32, costs: &Costs) -> Vec<u32> {
    // What the best way to each candidate costs, one row of the text after the other.
    let total: usize = candidates.iter().map(|row| index(row.count)).sum();
    let mut ways: Vec<f32> = Vec::with_capacity(total);
    let mut before: Option<Candidates> = None;
    for row in candidates {
        let known = ways.len();
        let Some(before) = before.replace(*row) else {
            ways.resize(index(row.count), 0.0);
            continue;
        };
        ways.resize(known + index(row.count), f32::INFINITY);
        let (done, next) = ways.split_at_mut(known);
        for (start, way) in before.starts().zip(&done[known - index(before.count)..]) {
            extend(*way, start, *row, costs, next);
        }
        // Costs stay small numbers, so that none of their bits are lost.
        let least = next.iter().copied().fold(f32::INFINITY, f32::min);
        next.iter_mut().for_each(|way| *way -= least);
    }
    // Back along the best way: what it came from is found again.
    let mut starts = Vec::with_capacity(candidates.len());
    let (mut end, mut to) = (ways.len(), len);
    for row in candidates.iter().rev() {
        let from = end - index(row.count);
        let ways = row.starts().zip(&ways[from..end]);
        let ways = ways.map(|(start, cost)| (start, cost + costs.of(to - start)));
        let best = ways.min_by(|a, b| a.1.total_cmp(&b.1));
        to = best.map_or(row.first, |(start, _)| start);
        starts.push(to);
        end = from;
    }
    starts.reverse();
    starts
}

/// Goes on from a start, to which the best way costs `way`, to each of some candidates.
fn extend(way: f32, start: u32, to: Candidates, costs: &Costs, ways: &mut [f32]) {
    match costs.between(start, to) {
        Some(lengths) => {
            for (best, length) in ways.iter_mut().zip(lengths) {
                *best = best.min(way + length);
            }
        }
        None => {
            for (best, end) in ways.iter_mut().zip(to.starts()) {
                *best = best.min(way + costs.of(end - start));
            }
        }
    }
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
