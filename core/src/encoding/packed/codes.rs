//! Canonical Huffman codes, as tables that are used where they stand in the blob.
//!
//! There are two kinds. A *number code* has one table of `2^bits` entries (bits at most 10),
//! indexed by the next bits of the stream. A *token code* has a root table of 128 entries, indexed
//! by the next 7 bits, and sub-tables for codes of 8 to 14 bits. An entry is a `U16`:
//!
//! | bits | number code | token code, a symbol | token code, a link |
//! |---|---|---|---|
//! | 0-3 | length of the code | length of the code (in a sub-table: beyond 7) | bits that index the sub-table |
//! | 4-8 | number of raw bits, `e` | symbol, bits 4-14 | where the sub-table begins in the pool, in eights of entries, bits 4-14 |
//! | 9-15 | head `m` | bit 15: 0 | bit 15: 1 |
//!
//! An entry whose code has length 0 belongs to no symbol. The number is `(m << e) + raw`, where the
//! `e` raw bits follow the code. Numbers below 64 are their own heads; larger ones have four heads
//! for each power of two (`m` in 4..8); `m` 0 and 1 with 31 raw bits are the escapes that any number
//! can take.

use zerocopy::byteorder::little_endian::U16;

use super::bits::Bits;
use crate::index;
use crate::steps::step;

/// Longest code of a number, in bits.
pub(super) const NUMBER_BITS: u32 = 10;
/// Raw bits of an escape.
const ESCAPE_BITS: u32 = 31;
/// Bits that index the root table of a token code.
pub(super) const ROOT_BITS: u32 = 7;
/// Entries of a root table.
pub(super) const ROOT_SIZE: usize = 1 << ROOT_BITS;
/// Longest code of a token, in bits.
#[cfg(feature = "write")]
pub(super) const TOKEN_BITS: u32 = 2 * ROOT_BITS;
/// Entries in the unit in which sub-tables are placed.
pub(super) const POOL_UNIT: usize = 8;
/// Marks a link from a root table to a sub-table.
pub(super) const LINK: u16 = 1 << 15;

/// The code of one kind of number.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberCode<'a> {
    table: &'a [U16],
    bits: u32,
}

impl<'a> NumberCode<'a> {
    /// `table` has an entry for each value of `bits`.
    pub(super) const fn new(table: &'a [U16], bits: u32) -> Self {
        Self { table, bits }
    }

    /// Reads a number from a stream that has been filled; takes at most 41 bits.
    #[inline(always)]
    pub(super) fn read<const BACKWARD: bool>(&self, bits: &mut Bits<'_, BACKWARD>) -> Option<u32> {
        self.read_raw(bits).map(|(number, _)| number)
    }

    /// Reads a length as a number and the binary logarithm of what it counts: units, but bytes
    /// behind an escape.
    #[inline(always)]
    pub(super) fn read_length(
        &self,
        bits: &mut Bits<'_, false>,
        unit_bits: u32,
    ) -> Option<(u32, u32)> {
        let (number, raw) = self.read_raw(bits)?;
        Some((number, if raw == ESCAPE_BITS { 0 } else { unit_bits }))
    }

    #[inline(always)]
    fn read_raw<const BACKWARD: bool>(&self, bits: &mut Bits<'_, BACKWARD>) -> Option<(u32, u32)> {
        let entry = self.table.get(index(bits.peek(self.bits)))?.get();
        let code = u32::from(entry & 15);
        if code == 0 {
            return None;
        }
        bits.take(code);
        let raw = u32::from(entry >> 4 & 31);
        let head = u32::from(entry >> 9).wrapping_shl(raw);
        Some((head.wrapping_add(bits.number(raw)), raw))
    }
}

/// Whether the entries of a number code take at most `bits` bits before their raw ones.
pub(super) fn is_number_code(table: &[U16], bits: u32) -> bool {
    table.iter().all(|entry| {
        step();
        u32::from(entry.get() & 15) <= bits
    })
}

/// The codes of tokens, one for each cluster of contexts.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenCodes<'a> {
    pub(super) roots: &'a [[U16; ROOT_SIZE]],
    pub(super) pool: &'a [U16],
}

impl TokenCodes<'_> {
    /// Whether every sub-table is in the pool, and no code takes more bits than [`Self::read`]
    /// says.
    pub(super) fn are_sound(&self) -> bool {
        let is_short = |entry: u16| u32::from(entry & 15) <= ROOT_BITS;
        let is_link_sound = |entry: u16| {
            let begin = usize::from(entry >> 4 & 0x7ff).wrapping_mul(POOL_UNIT);
            let size = 1_usize.wrapping_shl((entry & 15).into());
            begin.wrapping_add(size) <= self.pool.len()
        };
        let is_root_sound = |entry: &U16| {
            step();
            let entry = entry.get();
            is_short(entry) && (entry & LINK == 0 || is_link_sound(entry))
        };
        let is_pool_sound = |entry: &U16| {
            step();
            is_short(entry.get()) && entry.get() & LINK == 0
        };
        self.roots.iter().flatten().all(is_root_sound) && self.pool.iter().all(is_pool_sound)
    }

    /// Reads a symbol from a stream that has been filled; takes at most 14 bits.
    #[inline(always)]
    pub(super) fn read(&self, cluster: u8, bits: &mut Bits<'_, true>) -> Option<u16> {
        let root = self.roots.get(usize::from(cluster))?;
        let mut entry = root.get(index(bits.peek(ROOT_BITS)))?.get();
        if entry & LINK != 0 {
            bits.take(ROOT_BITS);
            let begin = usize::from(entry >> 4 & 0x7ff).wrapping_mul(POOL_UNIT);
            let at = begin.wrapping_add(index(bits.peek(u32::from(entry & 15))));
            entry = self.pool.get(at)?.get();
        }
        let code = u32::from(entry & 15);
        if code == 0 || entry & LINK != 0 {
            return None;
        }
        bits.take(code);
        Some(entry >> 4)
    }
}

/// The codes as the writer wants them: which symbol has which length.
#[cfg(feature = "write")]
mod listing {
    use alloc::vec::Vec;

    use super::{LINK, NumberCode, POOL_UNIT, ROOT_BITS, TokenCodes};

    impl NumberCode<'_> {
        /// All entries that belong to a symbol.
        pub(in super::super) fn entries(&self) -> impl Iterator<Item = u16> {
            let entries = self.table.iter().map(|entry| entry.get());
            entries.filter(|entry| entry & 15 != 0)
        }
    }

    impl TokenCodes<'_> {
        /// All symbols of a cluster and the lengths of their codes, some of them several times.
        pub(in super::super) fn symbols(&self, cluster: usize) -> Vec<(u16, u32)> {
            let mut symbols = Vec::new();
            for entry in self.roots.get(cluster).into_iter().flatten() {
                let entry = entry.get();
                if entry & LINK == 0 {
                    symbols.push((entry >> 4, u32::from(entry & 15)));
                    continue;
                }
                let begin = usize::from(entry >> 4 & 0x7ff).wrapping_mul(POOL_UNIT);
                let size = 1_usize << (entry & 15);
                for entry in self.pool.iter().skip(begin).take(size) {
                    let entry = entry.get();
                    let length = u32::from(entry & 15).wrapping_add(ROOT_BITS);
                    if entry & 15 != 0 {
                        symbols.push((entry >> 4, length));
                    }
                }
            }
            symbols.retain(|(_, length)| *length != 0);
            symbols
        }
    }
}
