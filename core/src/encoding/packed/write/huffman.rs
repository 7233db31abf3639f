//! Huffman codes of limited length, and their tables.

use alloc::vec;
use alloc::vec::Vec;

use crate::encoding::packed::codes::{LINK, POOL_UNIT, ROOT_BITS, ROOT_SIZE};

/// The lengths of an optimal code of at most `limit` bits, 0 for symbols that do not occur.
///
/// Package-merge (Larmore and Hirschberg 1990). A code of one symbol has one bit.
pub(super) fn lengths(counts: &[u64], limit: u32) -> Vec<u8> {
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
pub(super) fn codes(lengths: &[u8]) -> Vec<u16> {
    let mut symbols: Vec<usize> = (0..lengths.len()).filter(|&s| lengths[s] > 0).collect();
    symbols.sort_by_key(|&s| (lengths[s], s));
    let mut codes = vec![0; lengths.len()];
    let mut code = 0_u32;
    let mut length = 0;
    for symbol in symbols {
        code <<= lengths[symbol] - length;
        length = lengths[symbol];
        codes[symbol] = u16::try_from(code).unwrap_or(u16::MAX);
        code += 1;
    }
    codes
}

/// The same codes with their first bit lowest, for a forward stream.
pub(super) fn forward_codes(lengths: &[u8]) -> Vec<u16> {
    let mut codes = codes(lengths);
    for (code, &length) in codes.iter_mut().zip(lengths) {
        if length > 0 {
            *code = code.reverse_bits() >> (16 - length);
        }
    }
    codes
}

/// The table of a number code: an entry for every value of `bits` bits, which a forward stream has
/// with its first bit lowest.
pub(super) fn number_table(lengths: &[u8], heads: &[u16], bits: u8, forward: bool) -> Vec<u16> {
    let mut table = vec![0; 1 << bits];
    for (symbol, code) in codes(lengths).into_iter().enumerate() {
        let length = lengths[symbol];
        if length > 0 {
            let first = usize::from(code) << (bits - length);
            table[first..first + (1 << (bits - length))].fill(heads[symbol] | u16::from(length));
        }
    }
    if forward && bits > 0 {
        let reversed = |at: usize| at.reverse_bits() >> (usize::BITS - u32::from(bits));
        return (0..table.len()).map(|at| table[reversed(at)]).collect();
    }
    table
}

/// The root table of a token code; its sub-tables are appended to the pool. `None` if the pool is
/// full.
pub(super) fn token_table(lengths: &[u8], pool: &mut Vec<u16>) -> Option<[u16; ROOT_SIZE]> {
    let root_bits = u8::try_from(ROOT_BITS).ok()?;
    let codes = codes(lengths);
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
            let unit = u16::try_from(pool.len() / POOL_UNIT).ok()?;
            if unit >= 1 << 11 {
                return None;
            }
            root[prefix] = LINK | unit << 4 | u16::from(bits);
            let size = (1_usize << bits).next_multiple_of(POOL_UNIT);
            pool.resize(pool.len() + size, 0);
        }
    }
    for (symbol, &code) in codes.iter().enumerate() {
        let length = lengths[symbol];
        let symbol = u16::try_from(symbol).ok()? << 4;
        let code = usize::from(code);
        // The codes that begin like this one, or the values that the bits behind it have.
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
    Some(root)
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
