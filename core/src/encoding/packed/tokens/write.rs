//! Which token to write for a location.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

use super::COLD;
use crate::encoding::packed::hot::write::Dictionary;
use crate::encoding::packed::model::write::Costs;
use crate::encoding::packed::model::{FAR, FILE, FIRST_FILE, FIRST_LINE, HOT, LINE};
use crate::encoding::packed::recent::{
    self, DELTA_MIN, FileLine, LOCATIONS, Recent, Slots, length_class,
};
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
pub(in super::super) const fn fold(difference: i32) -> u32 {
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
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Coder<'a> {
    pub(in super::super) costs: &'a Costs,
    pub(in super::super) dictionary: &'a Dictionary,
    pub(in super::super) headers: u32,
    pub(in super::super) unit_bits: u32,
}

#[derive(Clone, Copy, Debug)]
struct Choice {
    symbol: u16,
    cost: f32,
}

impl Coder<'_> {
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
        let (mut recent, mut slots) = Recent::new(start, guess, self.headers);
        let mut hot = COLD;
        let mut named = COLD;
        for (position, entry) in rest.iter().enumerate() {
            let class = length_class(entry.length >> self.unit_bits);
            let context = recent.contexts(class) + index(recent.level());
            let choice = self.choose(&recent, &slots, hot, entry, context);
            sink.token(context, choice.symbol, named);
            let before = hot;
            named = COLD;
            let location = entry.location;
            match choice.symbol {
                recent::GAP => {}
                0..recent::FAR => recent.put(&mut slots, choice.symbol >> 7, location),
                _ => {
                    match choice.symbol {
                        recent::FAR..recent::NEW => {
                            let from = recent.get(&slots, choice.symbol);
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
                    recent.put(&mut slots, 7, location);
                }
            }
            let class = self.dictionary.class(named);
            hot = if named == COLD { hot } else { named };
            recent.note(choice.symbol, class);
            sink.entry(position + 1, choice.cost, before);
        }
    }

    fn choose(
        &self,
        recent: &Recent,
        slots: &Slots,
        hot: u32,
        entry: &Entry,
        context: usize,
    ) -> Choice {
        let costs = &self.costs.tokens[usize::from(self.costs.cluster_of[context])];
        let location = entry.location;
        if location.line == 0 {
            return Choice {
                symbol: recent::GAP,
                cost: costs[usize::from(recent::GAP)],
            };
        }
        let mut best = Choice {
            symbol: recent::NEW,
            cost: costs[usize::from(recent::NEW)]
                + self.costs.number(FILE, location.file)
                + self.costs.number(LINE, location.line),
        };
        let mut consider = |symbol: u16, cost: f32| {
            let cost = costs[usize::from(symbol)] + cost;
            if cost < best.cost {
                best = Choice { symbol, cost };
            }
        };
        if location.file == recent.next_file(slots).file {
            consider(recent::NEXT_FILE, self.costs.number(LINE, location.line));
        }
        for rank in 0..LOCATIONS {
            let from = recent.get(slots, rank);
            if from.file != location.file {
                continue;
            }
            let delta = i64::from(location.line) - i64::from(from.line);
            match u16::try_from(delta - i64::from(DELTA_MIN)) {
                Ok(low @ 0..128) => consider(rank << 7 | low, 0.0),
                _ => {
                    let distance = location.line.abs_diff(from.line);
                    consider(recent::FAR | rank, 1.0 + self.costs.number(FAR, distance));
                }
            }
        }
        if entry.hot != COLD {
            consider(recent::HOT, self.costs.number(HOT, entry.hot));
            let list = self.dictionary.successors.get(index(hot));
            let list = list.into_iter().flatten();
            let symbol = (recent::SUCCESSOR..recent::NEXT_FILE)
                .zip(list)
                .find(|(_, to)| **to == entry.hot);
            if let Some((symbol, _)) = symbol {
                consider(symbol, 0.0);
            }
        }
        best
    }
}
