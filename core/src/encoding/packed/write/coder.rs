//! Which token to say a place with.

use alloc::vec;
use alloc::vec::Vec;

use super::cluster::{as_f32, log2};
use crate::encoding::packed::model::{FAR, FILE, FIRST_FILE, FIRST_LINE, HOT, LINE, NUMBERS};
use crate::encoding::packed::recent::{
    self, DELTA_MIN, PLACES, Place, Recent, SYMBOLS, length_class,
};

/// No hot pair.
pub(super) const COLD: u32 = u32::MAX;

/// A piece of text and the place it came from (line 0: a gap).
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// In bytes of text.
    pub(super) length: u32,
    pub(super) place: Place,
    /// Index of the place among the hot pairs, or [`COLD`].
    pub(super) hot: u32,
}

/// Symbols of a number code: 64 that are their own heads, 4 for each power of two above, and the
/// two escapes.
pub(super) const NUMBER_SYMBOLS: usize = 64 + 26 * 4 + 2;
/// The escape for numbers below 2^31; the one for larger ones follows.
pub(super) const ESCAPE: usize = NUMBER_SYMBOLS - 2;

/// The escape that a number needs.
pub(super) const fn escape(value: u32) -> usize {
    if value >> 31 == 0 { ESCAPE } else { ESCAPE + 1 }
}

/// The symbol of a number, its raw bits, and how many they are.
pub(super) fn number_symbol(value: u32) -> (usize, u32, u32) {
    if value < 64 {
        return (crate::index(value), 0, 0);
    }
    let power = value.ilog2();
    let raw = power - 2;
    let head = value >> raw;
    let symbol = 64 + (power - 6) * 4 + (head - 4);
    (crate::index(symbol), value - (head << raw), raw)
}

/// The raw bits and the head of a symbol, as they stand in the entry of a table.
pub(super) fn number_head(symbol: usize) -> u16 {
    let symbol = u16::try_from(symbol).unwrap_or(0);
    let (head, raw) = match symbol {
        0..64 => (symbol, 0),
        64..168 => (4 + (symbol - 64) % 4, 4 + (symbol - 64) / 4),
        _ => (symbol - 168, 31),
    };
    head << 9 | raw << 4
}

/// 0, -1, 1, -2, 2, ... as 0, 1, 2, 3, 4, ...
pub(super) const fn fold(difference: i32) -> u32 {
    let magnitude = (if difference < 0 {
        !difference
    } else {
        difference
    })
    .cast_unsigned();
    magnitude << 1 | if difference < 0 { 1 } else { 0 }
}

/// What every symbol costs, in bits.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    /// The cluster of every context.
    pub(super) cluster_of: Vec<u8>,
    /// By cluster and symbol; infinite where there is no code.
    pub(super) tokens: Vec<Vec<f32>>,
    /// By kind and symbol, raw bits included; infinite where there is no code, so that the
    /// escapes are taken.
    pub(super) numbers: Vec<Vec<f32>>,
}

impl Costs {
    /// A guess, before anything has been counted.
    pub(super) fn guess() -> Self {
        let mut tokens = vec![0.0; SYMBOLS];
        for (symbol, cost) in tokens.iter_mut().enumerate() {
            let symbol = u16::try_from(symbol).unwrap_or(0);
            *cost = match symbol {
                0..recent::FAR => {
                    let delta = i32::from(symbol & 127) + DELTA_MIN;
                    let size = as_f32(delta.unsigned_abs());
                    2.0 + f32::from(symbol >> 7) * 1.2 + (size * 0.3).min(5.0 + size * 0.05)
                }
                recent::FAR..recent::NEW => 6.0 + f32::from(symbol - recent::FAR),
                recent::NEW => 6.0,
                recent::HOT => 3.0,
                recent::SUCCESSOR..recent::GAP => 4.0 + f32::from(symbol - recent::SUCCESSOR) * 0.4,
                _ => 5.0,
            };
        }
        let number: Vec<f32> = (0..NUMBER_SYMBOLS)
            .map(|symbol| {
                let raw = u32::from(number_head(symbol) >> 4 & 31);
                let symbol = u32::try_from(symbol).unwrap_or(0);
                as_f32(raw) + 3.0 + log2(as_f32(symbol.min(64)) + 1.0) * 0.7
            })
            .collect();
        Self {
            cluster_of: vec![0; recent::contexts(1)],
            tokens: vec![tokens],
            numbers: vec![number; NUMBERS],
        }
    }

    pub(super) fn number(&self, kind: usize, value: u32) -> f32 {
        let (symbol, _, _) = number_symbol(value);
        let costs = &self.numbers[kind];
        costs[symbol].min(costs[escape(value)])
    }
}

/// The hot pairs and their lists of successors.
#[derive(Clone, Debug, Default)]
pub(super) struct Dictionary {
    pub(super) pairs: Vec<Place>,
    pub(super) successors: Vec<Vec<u32>>,
    pub(super) classes: Vec<u8>,
}

impl Dictionary {
    /// Number of classes of hot pairs, at least 1.
    pub(super) fn hot_classes(&self) -> u8 {
        self.classes.iter().copied().max().unwrap_or(0) + 1
    }
}

/// What is done with the symbols of a block.
pub(super) trait Sink {
    /// A token; `behind` is the hot pair that the token before it named, or [`COLD`].
    fn token(&mut self, context: usize, symbol: u16, behind: u32);
    fn number(&mut self, kind: usize, value: u32);
    fn bit(&mut self, bit: bool);
    /// After each entry but the first of a block: its index, what it cost, and the hot pair that
    /// was named last.
    fn entry(&mut self, _index: usize, _cost: f32, _before: u32) {}
}

/// Chooses tokens by what they cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coder<'a> {
    pub(super) costs: &'a Costs,
    pub(super) dictionary: &'a Dictionary,
    pub(super) headers: u32,
    pub(super) unit_bits: u32,
}

#[derive(Clone, Copy, Debug)]
struct Choice {
    symbol: u16,
    cost: f32,
}

impl Coder<'_> {
    /// Says the places of a block. The first token of a block is chosen by nothing: there is only
    /// one way to say it.
    pub(super) fn block(&self, guess: Place, entries: &[Entry], sink: &mut impl Sink) {
        let Some((first, rest)) = entries.split_first() else {
            return;
        };
        let start = if first.place.line == 0 {
            sink.number(FIRST_FILE, 0);
            guess
        } else {
            let difference = first.place.file.wrapping_sub(guess.file).cast_signed();
            sink.number(FIRST_FILE, 1 + fold(difference));
            sink.number(FIRST_LINE, first.place.line.abs_diff(guess.line));
            sink.bit(first.place.line < guess.line);
            first.place
        };
        let mut recent = Recent::new(start, self.headers);
        let mut hot = COLD;
        let mut named = COLD;
        for (index, entry) in rest.iter().enumerate() {
            let context =
                recent.context(self.headers, length_class(entry.length >> self.unit_bits));
            let choice = self.choose(&recent, hot, entry, context);
            sink.token(context, choice.symbol, named);
            let before = hot;
            named = COLD;
            let place = entry.place;
            match choice.symbol {
                recent::GAP => {}
                0..recent::FAR => recent.put(choice.symbol >> 7, place),
                _ => {
                    match choice.symbol {
                        recent::FAR..recent::NEW => {
                            let from = recent.get(choice.symbol);
                            sink.number(FAR, place.line.abs_diff(from.line));
                            sink.bit(place.line < from.line);
                        }
                        recent::NEW => {
                            sink.number(FILE, place.file);
                            sink.number(LINE, place.line);
                        }
                        recent::HOT => {
                            sink.number(HOT, entry.hot);
                            named = entry.hot;
                        }
                        _ => named = entry.hot,
                    }
                    recent.put(7, place);
                }
            }
            let class = self.dictionary.classes.get(crate::index(named));
            let class = class.copied().unwrap_or(0);
            hot = if named == COLD { hot } else { named };
            recent.note(choice.symbol, class, self.headers);
            sink.entry(index + 1, choice.cost, before);
        }
    }

    fn choose(&self, recent: &Recent, hot: u32, entry: &Entry, context: usize) -> Choice {
        let costs = &self.costs.tokens[usize::from(self.costs.cluster_of[context])];
        let place = entry.place;
        if place.line == 0 {
            return Choice {
                symbol: recent::GAP,
                cost: costs[usize::from(recent::GAP)],
            };
        }
        let mut best = Choice {
            symbol: recent::NEW,
            cost: costs[usize::from(recent::NEW)]
                + self.costs.number(FILE, place.file)
                + self.costs.number(LINE, place.line),
        };
        let mut consider = |symbol: u16, cost: f32| {
            let cost = costs[usize::from(symbol)] + cost;
            if cost < best.cost {
                best = Choice { symbol, cost };
            }
        };
        for rank in 0..PLACES {
            let rank = u16::try_from(rank).unwrap_or(0);
            let from = recent.get(rank);
            if from.file != place.file {
                continue;
            }
            let delta = i64::from(place.line) - i64::from(from.line);
            match u16::try_from(delta - i64::from(DELTA_MIN)) {
                Ok(low @ 0..128) => consider(rank << 7 | low, 0.0),
                _ => {
                    let distance = place.line.abs_diff(from.line);
                    consider(recent::FAR | rank, 1.0 + self.costs.number(FAR, distance));
                }
            }
        }
        if entry.hot != COLD {
            consider(recent::HOT, self.costs.number(HOT, entry.hot));
            let list = self.dictionary.successors.get(crate::index(hot));
            let at = list.and_then(|list| list.iter().position(|&to| to == entry.hot));
            if let Some(at) = at.and_then(|at| u16::try_from(at).ok()) {
                consider(recent::SUCCESSOR + at, 0.0);
            }
        }
        best
    }
}
