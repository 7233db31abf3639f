//! The codes of numbers, and the contexts in which they are used
//! ([specified](super#numbers) in the head of the module).

use crate::encoding::packed::bits::Bits;
use crate::index;

/// Longest code, in bits.
pub(super) const CODE_BITS: u32 = 12;
/// Symbols of a code.
pub(super) const SYMBOLS: u32 = 128;
/// Bytes of a code before its symbols: how many symbols have codes of 1, 2, ... bits.
pub(super) const COUNTS: usize = 12;

/// Numbers that are their own symbol.
pub(super) const DIRECT: u32 = 48;
/// The first symbol with a meaning of its own.
const SPECIAL: u32 = 125;

/// What [`read`] gives for the symbols 125 to 127.
pub(super) const SPECIAL_125: u32 = u32::MAX - 2;
pub(super) const SPECIAL_126: u32 = u32::MAX - 1;
pub(super) const SPECIAL_127: u32 = u32::MAX;

/// Largest number that has a code.
#[cfg(feature = "write")]
pub(super) const NUMBER_MAX: u32 = (1 << 25) + (1 << 23) - 17;

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Op,
    Run,
    Exception,
    Option,
    Site,
    Line,
    Options,
    Position,
    Caller,
    CallLine,
    Edge,
    Size,
}

impl Kind {
    /// How many there are.
    pub(super) const COUNT: usize = 12;

    /// The first context of each, in the order of their numbers, and the end.
    const BEGINS: [usize; Self::COUNT + 1] = [
        0, 576, 577, 583, 833, 842, 866, 867, 883, 887, 891, 894, CONTEXTS,
    ];

    /// Its number.
    const fn number(self) -> usize {
        match self {
            Self::Op => 0,
            Self::Run => 1,
            Self::Exception => 2,
            Self::Option => 3,
            Self::Site => 4,
            Self::Line => 5,
            Self::Options => 6,
            Self::Position => 7,
            Self::Caller => 8,
            Self::CallLine => 9,
            Self::Edge => 10,
            Self::Size => 11,
        }
    }

    /// The number of a context of this kind among all contexts.
    #[inline]
    pub(super) fn context(self, form: Form, context: usize) -> usize {
        match form {
            Form::Small => self.number(),
            Form::Full => {
                let begin = Self::BEGINS.get(self.number()).copied();
                begin.unwrap_or(0).wrapping_add(context)
            }
        }
    }
}

/// All contexts of the full form.
const CONTEXTS: usize = 902;

/// Contexts of sizes, which are the last ones.
pub(super) const SIZE_CONTEXTS: usize = 8;

/// Contexts of ops, which have defaults.
pub(super) const OP_CONTEXTS: usize = 576;

/// How many contexts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One for each kind, and no defaults: for a module.
    Small,
    /// All of them.
    Full,
}

impl Form {
    #[cfg(feature = "write")]
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Small => 0,
            Self::Full => 1,
        }
    }

    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Small),
            1 => Some(Self::Full),
            _ => None,
        }
    }

    pub(super) const fn contexts(self) -> usize {
        match self {
            Self::Small => Kind::COUNT,
            Self::Full => CONTEXTS,
        }
    }

    /// The first context of sizes.
    #[cfg(feature = "write")]
    pub(super) const fn size(self) -> usize {
        match self {
            Self::Small => Kind::Size.number(),
            Self::Full => CONTEXTS.wrapping_sub(SIZE_CONTEXTS),
        }
    }

    /// How many op contexts have a default.
    pub(super) const fn defaults(self) -> usize {
        match self {
            Self::Small => 0,
            Self::Full => OP_CONTEXTS,
        }
    }
}

/// Reads a number by a code from a stream.
///
/// The codes of a length are consecutive, so what they are compared with is a bound for each length.
#[inline(always)] // A frame less on a short stack.
pub(super) fn read(code: &[u8], bits: &mut Bits<'_, true>) -> Option<u32> {
    bits.fill();
    let (counts, symbols) = code.split_first_chunk::<COUNTS>()?;
    let symbol = if let [only] = symbols {
        *only
    } else {
        let window = bits.peek(CODE_BITS);
        let mut bound = 0_u32;
        let mut before = 0_u32;
        let mut found = None;
        for (length, count) in (1..).zip(counts) {
            let count = u32::from(*count);
            let shift = CODE_BITS.wrapping_sub(length);
            let end = bound.wrapping_add(count.wrapping_shl(shift));
            if window < end {
                bits.take(length);
                found = Some(before.wrapping_add(window.wrapping_sub(bound).wrapping_shr(shift)));
                break;
            }
            bound = end;
            before = before.wrapping_add(count);
        }
        *symbols.get(index(found?))?
    };
    let symbol = u32::from(symbol);
    Some(match symbol {
        0..DIRECT => symbol,
        DIRECT..SPECIAL => {
            let class = symbol.wrapping_sub(DIRECT);
            let raw_bits = (class >> 2).wrapping_add(4);
            let head = (class & 3 | 4).wrapping_shl(raw_bits);
            let raw = bits.number(raw_bits);
            head.wrapping_add(raw).wrapping_sub(16)
        }
        _ => symbol.wrapping_add(u32::MAX.wrapping_sub(SYMBOLS.wrapping_sub(1))),
    })
}

/// What breaks a rule in a code, if anything does.
pub(super) fn fault(code: &[u8]) -> Option<&'static str> {
    let Some((counts, symbols)) = code.split_first_chunk::<COUNTS>() else {
        return Some("the counts of a code");
    };
    if symbols.iter().any(|symbol| u32::from(*symbol) >= SYMBOLS) {
        return Some("symbols below 128");
    }
    let mut total = 0_u32;
    let mut room = 1_u32.wrapping_shl(CODE_BITS);
    for (length, count) in (1_u32..).zip(counts) {
        let count = u32::from(*count);
        total = total.wrapping_add(count);
        let taken = count.wrapping_shl(CODE_BITS.wrapping_sub(length));
        let Some(rest) = room.checked_sub(taken) else {
            return Some("codes that no other begins with");
        };
        room = rest;
    }
    let sound = match symbols {
        [_] => total == 0,
        _ => u32::try_from(symbols.len()) == Ok(total),
    };
    (!sound).then_some("as many symbols as codes")
}

#[cfg(feature = "write")]
pub(super) mod write {
    //! Codes that fit counts.
    #![expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "runs on the host, over its own counts and lists; the reader is what a kernel links"
    )]

    use alloc::vec;
    use alloc::vec::Vec;

    use super::{CODE_BITS, COUNTS, DIRECT, SPECIAL_125, SYMBOLS};
    use crate::encoding::packed::codes::write::{codes, lengths};
    use crate::index;
    use crate::writer::{EncodeError, narrow};

    /// The symbol of a number, its raw bits and how many they are.
    pub(in super::super) fn symbol(number: u32) -> (u16, u32, u32) {
        if number >= SPECIAL_125 {
            let special = number - (u32::MAX - (SYMBOLS - 1));
            return (u16::try_from(special).unwrap_or(u16::MAX), 0, 0);
        }
        if number < DIRECT {
            return (u16::try_from(number).unwrap_or(u16::MAX), 0, 0);
        }
        let shifted = number + 16;
        let power = shifted.ilog2();
        let raw_bits = power - 2;
        let symbol = DIRECT + 4 * (power - 6) + (shifted >> raw_bits & 3);
        let raw = shifted & ((1 << raw_bits) - 1);
        (u16::try_from(symbol).unwrap_or(u16::MAX), raw, raw_bits)
    }

    /// A code, by symbol.
    pub(in super::super) struct Code {
        lengths: Vec<u8>,
        codes: Vec<u16>,
    }

    impl Code {
        pub(in super::super) fn fit(counts: &[u64]) -> Result<Self, EncodeError> {
            let mut lengths = lengths(counts, CODE_BITS);
            let used = lengths.iter().filter(|length| **length > 0).count();
            if used < 2 {
                lengths.fill(0);
                // What is left is the symbol itself, without a bit.
                let only = counts.iter().position(|count| *count > 0).unwrap_or(0);
                let codes = vec![narrow("a symbol", only)?];
                return Ok(Self { lengths, codes });
            }
            let codes = codes(&lengths)?;
            Ok(Self { lengths, codes })
        }

        /// Code and length of a symbol that was counted.
        pub(in super::super) fn of(&self, symbol: u16) -> (u16, u8) {
            match self.lengths[usize::from(symbol)] {
                0 => (0, 0),
                length => (self.codes[usize::from(symbol)], length),
            }
        }

        /// Bits of a number; `None` if it has no code.
        pub(in super::super) fn bits(&self, number: u32) -> Option<u32> {
            let (symbol, _, raw_bits) = symbol(number);
            let has_code = match self.codes[..] {
                [only] => only == symbol,
                _ => self.lengths[usize::from(symbol)] > 0,
            };
            let length = u32::from(self.lengths[usize::from(symbol)]);
            has_code.then_some(length + raw_bits)
        }

        /// A code from its bytes in a section.
        pub(in super::super) fn read(bytes: &[u8]) -> Result<Self, EncodeError> {
            let (counts, symbols) = bytes
                .split_first_chunk::<COUNTS>()
                .ok_or(EncodeError::Invariant("a code that cannot be read"))?;
            let mut lengths = vec![0; index(SYMBOLS)];
            let by_length = (1..).zip(counts);
            let by_length = by_length.flat_map(|(length, count)| vec![length; (*count).into()]);
            for (symbol, length) in symbols.iter().zip(by_length) {
                lengths[usize::from(*symbol)] = length;
            }
            let codes = match symbols {
                [only] => vec![(*only).into()],
                _ => codes(&lengths)?,
            };
            Ok(Self { lengths, codes })
        }

        /// Its bytes in the section.
        pub(in super::super) fn write(&self) -> Result<Vec<u8>, EncodeError> {
            let mut out = vec![0; COUNTS];
            if self.lengths.iter().all(|length| *length == 0) {
                out.push(narrow("a symbol", usize::from(self.codes[0]))?);
                return Ok(out);
            }
            let mut symbols: Vec<usize> = (0..self.lengths.len())
                .filter(|symbol| self.lengths[*symbol] > 0)
                .collect();
            symbols.sort_by_key(|symbol| (self.lengths[*symbol], *symbol));
            for symbol in symbols {
                out[usize::from(self.lengths[symbol]) - 1] += 1;
                out.push(narrow("a symbol", symbol)?);
            }
            Ok(out)
        }
    }

    /// Counts of symbols, as [`crate::encoding::packed::write::cluster`] takes them.
    pub(in super::super) fn histogram(counts: &[u32]) -> Vec<(u16, u32)> {
        let counts = (0..).zip(counts.iter().copied());
        counts.filter(|(_, count)| *count > 0).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::super::{Bits, NUMBER_MAX, SPECIAL_126, SPECIAL_127, fault, read};
        use super::*;
        use crate::encoding::packed::bits::BitVec;
        use crate::index;

        #[test]
        fn numbers_come_back() {
            let near = |n: u32| [n.saturating_sub(1), n, n + 1];
            let mut numbers: Vec<u32> = (0..25).flat_map(|power| near(1 << power)).collect();
            numbers.extend(0..1000);
            numbers.extend([NUMBER_MAX, SPECIAL_126, SPECIAL_127]);
            let mut counts = vec![0; index(SYMBOLS)];
            for number in &numbers {
                counts[usize::from(symbol(*number).0)] += 1;
            }
            let code = Code::fit(&counts).unwrap();
            let mut stream = BitVec::<true>::default();
            for number in &numbers {
                let (symbol, raw, raw_bits) = symbol(*number);
                let (code, length) = code.of(symbol);
                stream.push(code.into(), length.into());
                stream.push(raw.into(), raw_bits);
            }
            let bytes = BitVec::<false>::default().join(&stream);
            let written = code.write().unwrap();
            assert_eq!(fault(&written), None);
            let mut bits = Bits::<true>::new(&bytes, bytes.len());
            for number in numbers {
                assert_eq!(read(&written, &mut bits), Some(number));
            }
        }

        #[test]
        fn one_symbol_takes_no_bit() {
            let mut counts = vec![0; index(SYMBOLS)];
            counts[7] = 3;
            let code = Code::fit(&counts).unwrap();
            assert_eq!(code.of(7), (0, 0));
            let written = code.write().unwrap();
            assert_eq!(fault(&written), None);
            let mut bits = Bits::<true>::new(&[], 0);
            assert_eq!(read(&written, &mut bits), Some(7));
            assert_eq!(bits.taken(0), 0);
        }

        #[test]
        fn codes_that_break_a_rule_are_refused() {
            let full = [vec![2; 1], vec![0; 11], vec![1, 2]].concat();
            assert_eq!(fault(&full), None);
            assert!(fault(&full[..13]).is_some());
            assert!(fault(&[vec![3; 1], vec![0; 11], vec![1, 2, 3]].concat()).is_some());
            assert!(fault(&[vec![2; 1], vec![0; 11], vec![1, 128]].concat()).is_some());
            assert!(fault(&[0; 11]).is_some());
        }
    }
}
