//! Canonical Huffman codes, as tables that are used where they are in the blob
//! ([specified](super#codes) in the head of the encoding).

#[cfg(feature = "write")]
pub(crate) mod write;

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
        let entry = self.entry(bits)?;
        let raw = u32::from(entry >> 4 & 31);
        let head = u32::from(entry >> 9).wrapping_shl(raw);
        Some(head.wrapping_add(bits.number(raw)))
    }

    /// Reads a length as a number and the binary logarithm of what it counts: units, but bytes
    /// after an escape.
    ///
    /// Four lengths can be read from a stream that has been filled once: with raw bits, which are
    /// rare, it is filled again.
    #[inline(always)]
    pub(super) fn read_length(
        &self,
        bits: &mut Bits<'_, false>,
        unit_bits: u32,
    ) -> Option<(u32, u32)> {
        let entry = self.entry(bits)?;
        let raw = u32::from(entry >> 4 & 31);
        let head = u32::from(entry >> 9);
        if raw == 0 {
            return Some((head, unit_bits));
        }
        bits.fill();
        let number = head.wrapping_shl(raw).wrapping_add(bits.number(raw));
        bits.fill();
        Some((number, if raw == ESCAPE_BITS { 0 } else { unit_bits }))
    }

    /// Takes a code and gives its entry.
    #[inline(always)]
    fn entry<const BACKWARD: bool>(&self, bits: &mut Bits<'_, BACKWARD>) -> Option<u16> {
        let entry = self.table.get(index(bits.peek(self.bits)))?.get();
        let code = u32::from(entry & 15);
        bits.take(code);
        (code != 0).then_some(entry)
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
    pub(super) fn read(&self, cluster: u32, bits: &mut Bits<'_, true>) -> Option<u16> {
        let root = self.roots.get(index(cluster))?;
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
