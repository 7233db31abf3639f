//! Which token to write for a location.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

use alloc::vec::Vec;

use super::COLD;
use crate::encoding::packed::hot::write::Dictionary;
use crate::encoding::packed::model::write::Costs;
use crate::encoding::packed::model::{FAR, FILE, FIRST_FILE, FIRST_LINE, HOT, LINE};
use crate::encoding::packed::recent::{self, DELTA_MIN, FileLine, LOCATIONS, Recent, length_class};
use crate::index;

/// A piece of text and the location it came from (line 0: a gap).
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Entry {
    /// In bytes of text.
    pub(in super::super) length: u32,
    pub(in super::super) location: FileLine,
    /// Index of the location among the hot pairs, or [`COLD`].
    pub(in super::super) hot: u32,
}

/// 0, -1, 1, -2, 2, ... as 0, 1, 2, 3, 4, ...
pub(crate) const fn fold(difference: i32) -> u32 {
    let magnitude = (if difference < 0 {
        !difference
    } else {
        difference
    })
    .cast_unsigned();
    magnitude << 1 | if difference < 0 { 1 } else { 0 }
}

/// Takes the symbols of a block.
pub(in super::super) trait Sink {
    /// A token; `before` is the hot pair that the token before it named, or [`COLD`].
    fn token(&mut self, context: usize, symbol: u16, before: u32);
    fn number(&mut self, kind: usize, value: u32);
    fn bit(&mut self, bit: bool);
    /// After each entry but the first of a block: its position, what it cost, and the hot pair that
    /// was named last.
    fn entry(&mut self, _position: usize, _cost: f32, _before: u32) {}
}

/// Chooses tokens by what they cost.
#[derive(Clone, Debug)]
pub(in super::super) struct Coder<'a> {
    costs: &'a Costs,
    dictionary: &'a Dictionary,
    headers: u32,
    pub(in super::super) unit_bits: u32,
    /// The least that a far token costs, by cluster.
    least_far: Vec<f32>,
}

/// What makes a near difference of lines a symbol.
const NEAR: u64 = 64;
const _: () = assert!(DELTA_MIN == -64);
/// Bits of the sign of a distance.
const SIGN: f32 = 1.0;

#[derive(Clone, Copy, Debug)]
struct Choice {
    symbol: u16,
    cost: f32,
}

impl Choice {
    /// Takes a symbol if it costs less with the `rest` of its token, which is found where the symbol
    /// alone does.
    #[inline(always)]
    fn consider(&mut self, costs: &[f32], symbol: u16, rest: impl FnOnce() -> f32) {
        let cost = costs[usize::from(symbol)];
        if cost < self.cost {
            let cost = cost + rest();
            if cost < self.cost {
                *self = Self { symbol, cost };
            }
        }
    }
}

impl<'a> Coder<'a> {
    pub(in super::super) fn new(
        costs: &'a Costs,
        dictionary: &'a Dictionary,
        headers: u32,
        unit_bits: u32,
    ) -> Self {
        let least = |costs: &[f32]| costs.iter().copied().fold(f32::INFINITY, f32::min);
        let distance = SIGN + least(&costs.numbers[FAR]);
        let far = |costs: &Vec<f32>| {
            least(&costs[usize::from(recent::FAR)..usize::from(recent::NEW)]) + distance
        };
        Self {
            costs,
            dictionary,
            headers,
            unit_bits,
            least_far: costs.tokens.iter().map(far).collect(),
        }
    }

    /// Writes the locations of a block. The first has no alternatives.
    pub(in super::super) fn block(&self, guess: FileLine, entries: &[Entry], sink: &mut impl Sink) {
        let Some((first, rest)) = entries.split_first() else {
            return;
        };
        let start = if first.location.line == 0 {
            sink.number(FIRST_FILE, 0);
            guess
        } else {
            let difference = first.location.file.wrapping_sub(guess.file).cast_signed();
            sink.number(FIRST_FILE, 1 + fold(difference));
            sink.number(FIRST_LINE, first.location.line.abs_diff(guess.line));
            sink.bit(first.location.line < guess.line);
            first.location
        };
        let mut recent = Recent::new(start, guess, self.headers);
        let mut hot = COLD;
        let mut named = COLD;
        for (position, entry) in rest.iter().enumerate() {
            let class = length_class(entry.length >> self.unit_bits);
            let context = recent.contexts(class) + index(recent.level());
            let choice = self.choose(&recent, hot, entry, context);
            sink.token(context, choice.symbol, named);
            let before = hot;
            named = COLD;
            let location = entry.location;
            match choice.symbol {
                recent::GAP => {}
                0..recent::FAR => recent.put(choice.symbol >> 7, location),
                _ => {
                    match choice.symbol {
                        recent::FAR..recent::NEW => {
                            let from = recent.get(choice.symbol);
                            sink.number(FAR, location.line.abs_diff(from.line));
                            sink.bit(location.line < from.line);
                        }
                        recent::NEW => {
                            sink.number(FILE, location.file);
                            sink.number(LINE, location.line);
                        }
                        recent::NEXT_FILE => sink.number(LINE, location.line),
                        recent::HOT => {
                            sink.number(HOT, entry.hot);
                            named = entry.hot;
                        }
                        _ => named = entry.hot,
                    }
                    recent.put(7, location);
                }
            }
            let class = self.dictionary.class(named);
            hot = if named == COLD { hot } else { named };
            recent.note(choice.symbol, class);
            sink.entry(position + 1, choice.cost, before);
        }
    }

    fn choose(&self, recent: &Recent, hot: u32, entry: &Entry, context: usize) -> Choice {
        let cluster = usize::from(self.costs.cluster_of[context]);
        let costs = &self.costs.tokens[cluster];
        let location = entry.location;
        if location.line == 0 {
            return Choice {
                symbol: recent::GAP,
                cost: costs[usize::from(recent::GAP)],
            };
        }
        let mut best = Choice {
            symbol: recent::NEW,
            cost: f32::INFINITY,
        };
        let packed = recent::pack(location);
        for rank in 0..LOCATIONS {
            let from = recent.packed(rank);
            // In one comparison: another file is far away, unless the line is one that no file has.
            let low = packed.wrapping_sub(from).wrapping_add(NEAR);
            if let Ok(low @ 0..128) = u16::try_from(low)
                && from >> 32 == packed >> 32
            {
                best.consider(costs, rank << 7 | low, || 0.0);
            }
        }
        if entry.hot != COLD {
            best.consider(costs, recent::HOT, || self.costs.number(HOT, entry.hot));
            let list = self.dictionary.successors.get(index(hot));
            let list = list.into_iter().flatten();
            let symbol = (recent::SUCCESSOR..recent::NEXT_FILE)
                .zip(list)
                .find(|(_, to)| **to == entry.hot);
            if let Some((symbol, _)) = symbol {
                best.consider(costs, symbol, || 0.0);
            }
        }
        if self.least_far[cluster] < best.cost {
            for rank in 0..LOCATIONS {
                let from = recent.get(rank);
                let distance = location.line.abs_diff(from.line);
                if from.file == location.file {
                    let rest = || SIGN + self.costs.number(FAR, distance);
                    best.consider(costs, recent::FAR | rank, rest);
                }
            }
        }
        let may_be_next = costs[usize::from(recent::NEXT_FILE)] < best.cost;
        if may_be_next && location.file == recent.next_file().file {
            best.consider(costs, recent::NEXT_FILE, || {
                self.costs.number(LINE, location.line)
            });
        }
        best.consider(costs, recent::NEW, || {
            self.costs.number(FILE, location.file) + self.costs.number(LINE, location.line)
        });
        best
    }
}
