//! Huffman codes of limited length, and the tables of codes.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
)]

use alloc::vec;
use alloc::vec::Vec;

use super::{LINK, NumberCode, POOL_UNIT, ROOT_BITS, ROOT_SIZE, TokenCodes};
use crate::index;
use crate::writer::{EncodeError, narrow};

/// Symbols of a number code: 64 that are their own heads, 4 for each power of two above, and the
/// two escapes.
pub(in super::super) const NUMBER_SYMBOLS: usize = 64 + 26 * 4 + 2;
/// The escape for numbers below 2^31; the one for larger ones follows.
pub(in super::super) const ESCAPE: usize = NUMBER_SYMBOLS - 2;

/// The escape that a number needs.
pub(in super::super) const fn escape(value: u32) -> usize {
    if value >> 31 == 0 { ESCAPE } else { ESCAPE + 1 }
}

/// The symbol of a number, its raw bits, and how many they are.
pub(in super::super) fn number_symbol(value: u32) -> (usize, u32, u32) {
    if value < 64 {
        return (index(value), 0, 0);
    }
    let power = value.ilog2();
    let raw = power - 2;
    let head = value >> raw;
    let symbol = 64 + (power - 6) * 4 + (head - 4);
    (index(symbol), value - (head << raw), raw)
}

/// The heads and raw bits of all symbols, as in the entries of a table.
pub(in super::super) fn number_heads() -> Vec<u16> {
    (0_u16..).map(number_head).take(NUMBER_SYMBOLS).collect()
}

/// The raw bits of a symbol, of its entry in a table.
pub(in super::super) const fn raw_bits(head: u16) -> u16 {
    head >> 4 & 31
}

const fn number_head(symbol: u16) -> u16 {
    let (head, raw) = match symbol {
        0..64 => (symbol, 0),
        64..168 => (4 + (symbol - 64) % 4, 4 + (symbol - 64) / 4),
        _ => (symbol - 168, 31),
    };
    head << 9 | raw << 4
}

/// The lengths of an optimal code of at most `limit` bits, 0 for symbols that do not occur.
///
/// Package-merge (Larmore and Hirschberg 1990). A code of one symbol has one bit.
pub(crate) fn lengths(counts: &[u64], limit: u32) -> Vec<u8> {
    let mut symbols: Vec<usize> = (0..counts.len()).filter(|&s| counts[s] > 0).collect();
    symbols.sort_by_key(|&s| counts[s]);
    let mut lengths = vec![0_u8; counts.len()];
    if symbols.len() < 2 {
        for symbol in symbols {
            lengths[symbol] = 1;
        }
        return lengths;
    }
    // A package is its weight, and how often each symbol is in it is found again from the choices:
    // for every level the list of (weight, is it a single symbol), sorted.
    let mut levels: Vec<Vec<(u64, bool)>> = Vec::new();
    let mut previous: Vec<(u64, bool)> = Vec::new();
    for _ in 0..limit {
        let mut packages = previous
            .chunks_exact(2)
            .map(|pair| (pair[0].0 + pair[1].0, false))
            .peekable();
        let mut singles = symbols.iter().map(|&s| (counts[s], true)).peekable();
        let mut level = Vec::with_capacity(previous.len() / 2 + symbols.len());
        loop {
            let next = match (singles.peek(), packages.peek()) {
                (Some(single), Some(package)) if package.0 < single.0 => packages.next(),
                (Some(_), _) => singles.next(),
                (None, _) => packages.next(),
            };
            let Some(next) = next else { break };
            level.push(next);
        }
        levels.push(level.clone());
        previous = level;
    }
    let mut take = 2 * symbols.len() - 2;
    for level in levels.iter().rev() {
        let singles = level[..take].iter().filter(|item| item.1).count();
        for &symbol in &symbols[..singles] {
            lengths[symbol] += 1;
        }
        take = (take - singles) * 2;
    }
    lengths
}

/// The canonical codes of these lengths, their first bit highest.
pub(crate) fn codes(lengths: &[u8]) -> Result<Vec<u16>, EncodeError> {
    let mut symbols: Vec<usize> = (0..lengths.len()).filter(|&s| lengths[s] > 0).collect();
    symbols.sort_by_key(|&s| (lengths[s], s));
    let mut codes = vec![0; lengths.len()];
    let mut code = 0_u32;
    let mut length = 0;
    for symbol in symbols {
        code <<= lengths[symbol] - length;
        length = lengths[symbol];
        codes[symbol] = narrow("a code", index(code))?;
        code += 1;
    }
    Ok(codes)
}

/// The same codes with their first bit lowest, for a forward stream.
pub(in super::super) fn forward_codes(lengths: &[u8]) -> Result<Vec<u16>, EncodeError> {
    let mut codes = codes(lengths)?;
    for (code, &length) in codes.iter_mut().zip(lengths) {
        if length > 0 {
            *code = code.reverse_bits() >> (16 - length);
        }
    }
    Ok(codes)
}

/// The table of a number code: an entry for every value of `bits` bits, which a forward stream has
/// with its first bit lowest.
pub(in super::super) fn number_table(
    lengths: &[u8],
    bits: u8,
    forward: bool,
) -> Result<Vec<u16>, EncodeError> {
    let heads = number_heads();
    let mut table = vec![0; 1 << bits];
    for (symbol, code) in codes(lengths)?.into_iter().enumerate() {
        let length = lengths[symbol];
        if length > 0 {
            let first = usize::from(code) << (bits - length);
            table[first..first + (1 << (bits - length))].fill(heads[symbol] | u16::from(length));
        }
    }
    if forward && bits > 0 {
        let reversed = |at: usize| at.reverse_bits() >> (usize::BITS - u32::from(bits));
        table = (0..table.len()).map(|at| table[reversed(at)]).collect();
    }
    Ok(table)
}

/// The root table of a token code; its sub-tables are appended to the pool.
pub(in super::super) fn token_table(
    lengths: &[u8],
    pool: &mut Vec<u16>,
) -> Result<[u16; ROOT_SIZE], EncodeError> {
    let root_bits: u8 = narrow("the bits of a root table", index(ROOT_BITS))?;
    let codes = codes(lengths)?;
    let mut root = [0; ROOT_SIZE];
    let mut longest = [0_u8; ROOT_SIZE];
    for (symbol, &code) in codes.iter().enumerate() {
        let length = lengths[symbol];
        if length > root_bits {
            let prefix = usize::from(code >> (length - root_bits));
            longest[prefix] = longest[prefix].max(length - root_bits);
        }
    }
    let mut begins = [0; ROOT_SIZE];
    for (prefix, &bits) in longest.iter().enumerate() {
        if bits > 0 {
            begins[prefix] = pool.len();
            let unit: u16 = narrow("the size of the sub-tables", pool.len() / POOL_UNIT)?;
            if unit >= 1 << 11 {
                return Err(EncodeError::TooLarge {
                    what: "the size of the sub-tables",
                    size: unit.into(),
                });
            }
            root[prefix] = LINK | unit << 4 | u16::from(bits);
            let size = (1_usize << bits).next_multiple_of(POOL_UNIT);
            pool.resize(pool.len() + size, 0);
        }
    }
    for (symbol, &code) in codes.iter().enumerate() {
        let length = lengths[symbol];
        let symbol = narrow::<u16>("a symbol", symbol)? << 4;
        let code = usize::from(code);
        // The codes that begin like this one, or the values that the bits after it have.
        let (slots, code, bits, length) = if length <= root_bits {
            (&mut root[..], code, root_bits, length)
        } else {
            let beyond = length - root_bits;
            let prefix = code >> beyond;
            let sub_table = &mut pool[begins[prefix]..];
            (
                sub_table,
                code - (prefix << beyond),
                longest[prefix],
                beyond,
            )
        };
        if length > 0 {
            let first = code << (bits - length);
            slots[first..first + (1 << (bits - length))].fill(symbol | u16::from(length));
        }
    }
    Ok(root)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_complete_and_within_their_limit() {
        let counts: Vec<u64> = (0..40).map(|n| 1 << (n / 2)).collect();
        for limit in [6, 8, 10, 14] {
            let lengths = lengths(&counts, limit);
            let kraft: u32 = lengths.iter().map(|&l| 1 << (limit - u32::from(l))).sum();
            assert_eq!(kraft, 1 << limit);
        }
    }
}
