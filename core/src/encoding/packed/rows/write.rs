//! How blocks are written.
#![expect(
    clippy::indexing_slicing,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

use alloc::vec::Vec;

use crate::encoding::packed::bits::BitVec;
use crate::encoding::packed::codes::write::{self as codes, escape, number_symbol};
use crate::encoding::packed::model::LENGTH;
use crate::encoding::packed::model::write::Codes;
use crate::encoding::packed::recent::FileLine;
use crate::encoding::packed::tokens::write::{Coder, Entry, Sink};
use crate::writer::EncodeError;

/// Writes blocks, one after the other.
#[derive(Clone)]
pub(in super::super) struct BlockWriter<'a> {
    codes: &'a Codes,
    /// The canonical codes that belong to the lengths.
    tokens: Vec<Vec<u16>>,
    numbers: Vec<Vec<u16>>,
    forward: BitVec<false>,
    backward: BitVec<true>,
}

impl<'a> BlockWriter<'a> {
    pub(in super::super) fn new(codes: &'a Codes) -> Result<Self, EncodeError> {
        let token = |lengths: &Vec<u8>| codes::codes(lengths);
        let number = |(kind, lengths): (usize, &Vec<u8>)| match kind {
            LENGTH => codes::forward_codes(lengths),
            _ => codes::codes(lengths),
        };
        let numbers = codes.numbers.iter().enumerate();
        Ok(Self {
            tokens: codes.tokens.iter().map(token).collect::<Result<_, _>>()?,
            numbers: numbers.map(number).collect::<Result<_, _>>()?,
            codes,
            forward: BitVec::default(),
            backward: BitVec::default(),
        })
    }

    pub(in super::super) fn block(
        &mut self,
        coder: &Coder<'_>,
        guess: FileLine,
        entries: &[Entry],
    ) -> Vec<u8> {
        self.forward.clear();
        self.backward.clear();
        for entry in entries {
            let bits = self.length_bits(entry.length, coder.unit_bits);
            bits.iter()
                .for_each(|(value, count)| self.forward.push(*value, *count));
        }
        coder.block(guess, entries, self);
        self.forward.join(&self.backward)
    }

    /// The code of a length: in units, or by an escape in bytes.
    fn length_bits(&self, length: u32, unit_bits: u32) -> [(u64, u32); 2] {
        let (symbol, _, _) = number_symbol(length >> unit_bits);
        if length.trailing_zeros() >= unit_bits && self.codes.numbers[LENGTH][symbol] > 0 {
            self.number_bits(LENGTH, length >> unit_bits)
        } else {
            self.escape_bits(LENGTH, length)
        }
    }

    fn escape_bits(&self, kind: usize, value: u32) -> [(u64, u32); 2] {
        let escape = escape(value);
        let code = self.numbers[kind][escape].into();
        let length = self.codes.numbers[kind][escape].into();
        [(code, length), (u64::from(value & 0x7fff_ffff), 31)]
    }

    /// The code of a number and its raw bits.
    fn number_bits(&self, kind: usize, value: u32) -> [(u64, u32); 2] {
        let (symbol, raw, raw_bits) = number_symbol(value);
        let lengths = &self.codes.numbers[kind];
        if lengths[symbol] == 0 {
            return self.escape_bits(kind, value);
        }
        let code = (self.numbers[kind][symbol].into(), lengths[symbol].into());
        [code, (raw.into(), raw_bits)]
    }
}

impl Sink for BlockWriter<'_> {
    fn token(&mut self, context: usize, symbol: u16, _: u32) {
        let cluster = usize::from(self.codes.cluster_of[context]);
        let symbol = usize::from(symbol);
        let length = self.codes.tokens[cluster][symbol];
        self.backward
            .push(self.tokens[cluster][symbol].into(), length.into());
    }

    fn number(&mut self, kind: usize, value: u32) {
        let bits = self.number_bits(kind, value);
        bits.iter()
            .for_each(|(value, count)| self.backward.push(*value, *count));
    }

    fn bit(&mut self, bit: bool) {
        self.backward.push(bit.into(), 1);
    }
}
