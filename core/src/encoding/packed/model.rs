//! The model section: what the blocks of all regions share ([specified](super#the-model-section) in
//! the head of the encoding).
//!
//! A table of few rows does not pay for codes of its own. It uses those that are built into every
//! reader.

#[cfg(feature = "write")]
pub(super) mod write;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::codes::{NUMBER_BITS, NumberCode, POOL_UNIT, ROOT_SIZE, TokenCodes};
use super::hot::Hot;
use super::recent::{LEVELS, contexts};
use crate::index;

/// The codes that every reader has, for tables that are too small for their own.
pub(super) const BUILT_IN: &[u8] = include_bytes!("built-in.codes");

/// Kinds of numbers, in the order of their codes.
pub(super) const LENGTH: usize = 0;
pub(super) const FAR: usize = 1;
pub(super) const FILE: usize = 2;
pub(super) const LINE: usize = 3;
pub(super) const HOT: usize = 4;
pub(super) const FIRST_FILE: usize = 5;
pub(super) const FIRST_LINE: usize = 6;
/// Number codes of a model.
pub(super) const NUMBERS: usize = 7;

/// The codes are in the section.
pub(super) const CODES_OWN: u8 = 0;
/// The codes are [`BUILT_IN`].
pub(super) const CODES_BUILT_IN: u8 = 1;

/// The model of a table without one.
pub(super) const DEFAULT: &[u8] = &[CODES_BUILT_IN, 16, 0];

/// Smallest and largest binary logarithm of the size of a page.
pub(super) const PAGE_BITS_MIN: u32 = 8;
pub(super) const PAGE_BITS_MAX: u32 = 24;

/// The head of the model section, 3 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ModelHeader {
    /// Offset 0: [`CODES_OWN`] or [`CODES_BUILT_IN`].
    pub(super) codes: u8,
    /// Offset 1: binary logarithm of the size of a page, in bytes of text; 8 to 24.
    pub(super) page_bits: u8,
    /// Offset 2: binary logarithm of the unit of lengths, in bytes of text; 0 to 4.
    pub(super) unit_bits: u8,
}

/// What follows it where the model has codes, 12 bytes; otherwise only the number of headers does, in as
/// many bytes as are left.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct OwnHeader {
    /// Offset 3: files below this index are headers.
    pub(super) headers: U32,
    /// Offset 7: number of hot pairs.
    pub(super) hot_pairs: U32,
    /// Offset 11: size of the hot pairs, in bytes.
    pub(super) hot_size: U32,
}

/// The head of the codes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct CodesHeader {
    /// Number of token codes.
    pub(super) clusters: u8,
    /// Bits that index the table of each number code: length, far, file, line, hot, file and line of
    /// a block's first location.
    pub(super) bits: [u8; NUMBERS],
    /// Number of classes of hot pairs, at least 1 and at most 128.
    pub(super) hot_classes: u8,
    /// Size of the pool, in eights of entries.
    pub(super) pool: U16,
}

/// A view of the model section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model<'a> {
    pub(super) page_bits: u32,
    pub(super) unit_bits: u32,
    pub(super) headers: u32,
    pub(super) hot: Hot<'a>,
    pub(super) codes: Codes<'a>,
}

/// A view of the codes. It is on the stack of every look-up, so it is kept small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codes<'a> {
    pub(super) cluster_of: &'a [u8],
    pub(super) tokens: TokenCodes<'a>,
    pub(super) numbers: Numbers<'a>,
}

/// The number codes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers<'a> {
    /// The tables of all of them.
    tables: &'a [U16],
    bits: [u8; NUMBERS],
}

/// What the rare tokens need: a copy, so that the model itself is never referred to, and the parts
/// of it that every token needs can stay in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rarities<'a> {
    pub(super) numbers: Numbers<'a>,
    pub(super) hot: Hot<'a>,
}

impl<'a> Codes<'a> {
    #[inline(always)]
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = CodesHeader::ref_from_prefix(bytes).ok()?;
        let known = (1..=128).contains(&header.hot_classes)
            && header
                .bits
                .iter()
                .all(|bits| u32::from(*bits) <= NUMBER_BITS);
        if !known {
            return None;
        }
        let (cluster_of, rest) = rest.split_at_checked(contexts(header.hot_classes))?;
        let numbers = begin_of(NUMBERS, &header.bits);
        let (numbers, rest) = <[U16]>::ref_from_prefix_with_elems(rest, numbers).ok()?;
        let clusters = usize::from(header.clusters);
        let (roots, rest) =
            <[[U16; ROOT_SIZE]]>::ref_from_prefix_with_elems(rest, clusters).ok()?;
        let entries = usize::from(header.pool.get()).wrapping_mul(POOL_UNIT);
        let pool = <[U16]>::ref_from_bytes_with_elems(rest, entries).ok()?;
        Some(Self {
            cluster_of,
            tokens: TokenCodes { roots, pool },
            numbers: Numbers {
                tables: numbers,
                bits: header.bits,
            },
        })
    }

    fn are_sound(&self) -> bool {
        let codes = self.tokens.roots.len();
        (0..NUMBERS).all(|kind| self.numbers.code(kind).is_sound())
            && self.tokens.are_sound()
            && self
                .cluster_of
                .iter()
                .all(|code| usize::from(*code) < codes)
    }

    /// The token codes of a context and of the three after it, eight bits each.
    #[inline(always)]
    pub(super) fn clusters(&self, context: usize) -> Option<u32> {
        let end = context.wrapping_add(LEVELS);
        let clusters = self.cluster_of.get(context..end)?.first_chunk()?;
        Some(u32::from_le_bytes(*clusters))
    }
}

impl<'a> Numbers<'a> {
    /// The code of a kind of numbers.
    #[inline]
    pub(super) fn code(&self, kind: usize) -> NumberCode<'a> {
        let bits = u32::from(self.bits.get(kind).copied().unwrap_or(0));
        let begin = begin_of(kind, &self.bits);
        let end = begin.wrapping_add(1_usize.wrapping_shl(bits));
        NumberCode::new(self.tables.get(begin..end).unwrap_or(&[]), bits)
    }
}

#[inline(always)]
const fn or_default(section: &[u8]) -> &[u8] {
    if section.is_empty() { DEFAULT } else { section }
}

/// Where the table of a kind of numbers begins, in entries.
#[inline]
fn begin_of(kind: usize, bits: &[u8; NUMBERS]) -> usize {
    let sizes = bits.iter().take(kind);
    sizes.fold(0, |sum, bits| {
        sum.wrapping_add(1_usize.wrapping_shl((*bits).into()))
    })
}

impl<'a> Model<'a> {
    /// The binary logarithm of the size of a page, without the rest of the model.
    #[inline(always)]
    pub(super) fn page_bits(section: &[u8]) -> Option<u32> {
        let (header, _) = ModelHeader::ref_from_prefix(or_default(section)).ok()?;
        let page_bits = u32::from(header.page_bits);
        let known = (PAGE_BITS_MIN..=PAGE_BITS_MAX).contains(&page_bits);
        known.then_some(page_bits)
    }

    /// A view of a section; `None` if it does not have the form of one.
    #[inline(always)]
    pub(crate) fn new(section: &'a [u8]) -> Option<Self> {
        let (header, rest) = ModelHeader::ref_from_prefix(or_default(section)).ok()?;
        if header.unit_bits > 4 {
            return None;
        }
        let (headers, pairs, hot, codes) = match header.codes {
            CODES_OWN => {
                let (own, rest) = OwnHeader::ref_from_prefix(rest).ok()?;
                let (hot, codes) = rest.split_at_checked(index(own.hot_size.get()))?;
                (own.headers.get(), own.hot_pairs.get(), hot, codes)
            }
            CODES_BUILT_IN if rest.len() <= size_of::<u32>() => {
                let number = |number: u32, byte: &u8| number.wrapping_shl(8) | u32::from(*byte);
                let headers = rest.iter().rev().fold(0, number);
                let hot: &[u8] = &[];
                (headers, 0, hot, BUILT_IN)
            }
            _ => return None,
        };
        Some(Self {
            page_bits: Self::page_bits(section)?,
            unit_bits: header.unit_bits.into(),
            headers,
            hot: Hot::new(hot, pairs)?,
            codes: Codes::new(codes)?,
        })
    }

    pub(super) const fn rarities(&self) -> Rarities<'a> {
        Rarities {
            numbers: self.codes.numbers,
            hot: self.hot,
        }
    }

    /// The light check: no code takes more bits than a reader has ready, every context has a code,
    /// and the lists of the hot pairs fill their section.
    pub(crate) fn is_sound(&self) -> bool {
        self.codes.are_sound() && self.hot.has_all_lists()
    }

    /// Whether the hot pairs and their successors are sound, each of them.
    pub(crate) fn has_sound_pairs(&self) -> bool {
        self.hot.is_sound()
    }
}
