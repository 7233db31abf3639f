//! Two streams of bits in one run of bytes.
//!
//! The forward and the backward stream of a block ([specified](super#streams) in the head of the
//! encoding) grow towards each other, they can meet in the middle of a byte, and neither needs to know
//! where the other begins.
//!
//! The reader is the branch-free one of Fabian Giesen's "Reading bits in far too many ways"
//! (variant 4): a fill reads eight bytes wherever it is, keeps whole bytes of them, and leaves
//! 56 to 63 bits to take. Bytes that a fill sees beyond the block belong to its neighbours; what
//! is *taken* is counted, and [`Bits::taken`] is what the check of a table relies on.

/// Bits that can be taken after a [`Bits::fill`].
pub(crate) const FILLED: u32 = 56;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits<'a, const BACKWARD: bool> {
    bytes: &'a [u8],
    /// The first byte, in stream order, that is not wholly in `buffer`.
    at: usize,
    buffer: u64,
    /// Bits in `buffer` that count.
    count: u32,
}

impl<'a, const BACKWARD: bool> Bits<'a, BACKWARD> {
    /// A stream that begins with byte `begin`, or, backward, with the byte before it.
    pub(crate) const fn new(bytes: &'a [u8], begin: usize) -> Self {
        Self {
            bytes,
            at: begin,
            buffer: 0,
            count: 0,
        }
    }

    /// Makes [`FILLED`] bits ready.
    #[inline(always)]
    pub(crate) fn fill(&mut self) {
        let bytes = crate::index(63_u32.wrapping_sub(self.count) >> 3);
        // A position before the first byte wraps to one after the last, where there are none.
        if BACKWARD {
            self.buffer |= self.load().wrapping_shr(self.count);
            self.at = self.at.wrapping_sub(bytes);
        } else {
            self.buffer |= self.load().wrapping_shl(self.count);
            self.at = self.at.wrapping_add(bytes);
        }
        self.count |= FILLED;
    }

    /// Goes on where another reader of the same bytes is.
    #[inline(always)]
    pub(crate) fn resume(&mut self, other: &Self) {
        (self.at, self.buffer, self.count) = (other.at, other.buffer, other.count);
    }

    /// The next `bits` (at most 31) without taking them; not more than are ready.
    #[inline(always)]
    pub(crate) fn peek(&self, bits: u32) -> u32 {
        if BACKWARD {
            // Two shifts, because one by 64 would be none.
            low((self.buffer >> 1).wrapping_shr(63_u32.wrapping_sub(bits)))
        } else {
            low(self.buffer) & 1_u32.wrapping_shl(bits).wrapping_sub(1)
        }
    }

    /// Takes bits; not more than are ready.
    #[inline(always)]
    pub(crate) fn take(&mut self, bits: u32) {
        self.buffer = if BACKWARD {
            self.buffer.wrapping_shl(bits)
        } else {
            self.buffer.wrapping_shr(bits)
        };
        self.count = self.count.wrapping_sub(bits);
    }

    /// Takes bits and gives them as a number; at most 31, not more than are ready.
    #[inline(always)]
    pub(crate) fn number(&mut self, bits: u32) -> u32 {
        let value = self.peek(bits);
        self.take(bits);
        value
    }

    /// Bits taken since `begin`, whether or not the bytes were there.
    pub(crate) fn taken(&self, begin: usize) -> usize {
        let bytes = if BACKWARD {
            begin.wrapping_sub(self.at)
        } else {
            self.at.wrapping_sub(begin)
        };
        bytes.wrapping_mul(8).wrapping_sub(crate::index(self.count))
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        let (start, end) = if BACKWARD {
            (self.at.wrapping_sub(8), self.at)
        } else {
            (self.at, self.at.wrapping_add(8))
        };
        match self.bytes.get(start..end).and_then(<[u8]>::first_chunk) {
            Some(word) => u64::from_le_bytes(*word),
            None => load_at_the_edge::<BACKWARD>(self.bytes, self.at),
        }
    }
}

impl<'a> Bits<'a, true> {
    /// A stream that begins inside a byte: with the bit below bit `begin` of the bytes, of each of which bit 0 is
    /// the lowest.
    #[inline(always)]
    pub(crate) fn below(bytes: &'a [u8], begin: usize) -> Self {
        let mut stream = Self::new(bytes, begin.div_ceil(8));
        stream.fill();
        stream.take(low(crate::wide(begin.wrapping_neg() & 7)));
        stream
    }

    /// The bit that the next one is below, so that [`Bits::below`] goes on there. It wraps below the first byte.
    #[inline(always)]
    pub(crate) fn position(&self) -> usize {
        let bits = self.at.wrapping_mul(8);
        bits.wrapping_add(crate::index(self.count))
    }
}

/// Bytes that are not there read as zero.
///
/// It gets no reference to a stream, so that the fields of one can stay in registers.
#[cold]
#[inline(never)]
fn load_at_the_edge<const BACKWARD: bool>(bytes: &[u8], from: usize) -> u64 {
    let mut word = [0; 8];
    for (distance, byte) in word.iter_mut().enumerate() {
        let at = if BACKWARD {
            from.wrapping_sub(distance).wrapping_sub(1)
        } else {
            from.wrapping_add(distance)
        };
        *byte = bytes.get(at).copied().unwrap_or(0);
    }
    if BACKWARD {
        u64::from_be_bytes(word)
    } else {
        u64::from_le_bytes(word)
    }
}

/// The low half of a word.
#[inline(always)]
#[expect(clippy::as_conversions, reason = "the high half is to be dropped")]
pub(crate) const fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// `width` bits (at most 57) at bit position `at` of a forward stream, for records of fixed width.
#[inline(always)]
pub(crate) fn field(bytes: &[u8], at: u64, width: u32) -> Option<u64> {
    let byte = usize::try_from(at >> 3).ok()?;
    let word = match bytes.get(byte..).and_then(<[u8]>::first_chunk) {
        Some(word) => u64::from_le_bytes(*word),
        None => load_at_the_edge::<false>(bytes, byte),
    };
    let mask = 1_u64.wrapping_shl(width).wrapping_sub(1);
    Some(word.wrapping_shr(low(at & 7)) & mask)
}

/// The fields in what [`field`] gives, lowest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields(pub(super) u64);

impl Fields {
    /// The next field, of at most 31 bits.
    #[inline(always)]
    pub(super) fn next(&mut self, bits: u8) -> u32 {
        let bits = u32::from(bits);
        let value = low(self.0) & 1_u32.wrapping_shl(bits).wrapping_sub(1);
        self.0 = self.0.wrapping_shr(bits);
        value
    }
}

/// Collects the bits of a stream.
#[cfg(feature = "write")]
#[derive(Clone, Debug, Default)]
pub(crate) struct BitVec<const BACKWARD: bool> {
    /// In stream order, the bits as in a forward stream.
    bytes: alloc::vec::Vec<u8>,
    bits: usize,
}

#[cfg(feature = "write")]
impl<const BACKWARD: bool> BitVec<BACKWARD> {
    /// Appends the low `bits` (at most 57) of `value`.
    pub(crate) fn push(&mut self, value: u64, bits: u32) {
        if bits == 0 {
            return;
        }
        self.push_in_order(
            if BACKWARD {
                value.reverse_bits().wrapping_shr(64_u32.wrapping_sub(bits))
            } else {
                value & 1_u64.wrapping_shl(bits).wrapping_sub(1)
            },
            bits,
        );
    }

    /// Appends all bits of another stream.
    pub(crate) fn append(&mut self, other: &Self) {
        let mut bits = other.bits;
        for byte in &other.bytes {
            let taken = bits.min(8);
            self.push_in_order((*byte).into(), low(crate::wide(taken)));
            bits = bits.wrapping_sub(taken);
        }
    }

    /// Appends bits, of which there is at least one, from the lowest one on; those above are zero.
    fn push_in_order(&mut self, value: u64, bits: u32) {
        let taken = self.bits & 7;
        let shift = low(crate::wide(taken));
        let mut bytes = value.wrapping_shl(shift).to_le_bytes().into_iter();
        if taken > 0
            && let Some((last, more)) = self.bytes.last_mut().zip(bytes.next())
        {
            *last |= more;
        }
        self.bits = self.bits.wrapping_add(crate::index(bits));
        let missing = self.bits.div_ceil(8).wrapping_sub(self.bytes.len());
        self.bytes.extend(bytes.take(missing));
    }

    /// Number of bits.
    pub(crate) const fn len(&self) -> usize {
        self.bits
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bits = 0;
    }
}

#[cfg(feature = "write")]
impl BitVec<false> {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of a block: this stream from its first byte on, `backward` from its last, and
    /// zeros where they meet.
    pub(crate) fn join(&self, backward: &BitVec<true>) -> alloc::vec::Vec<u8> {
        let size = self.bits.wrapping_add(backward.bits).div_ceil(8);
        let mut block = alloc::vec![0_u8; size];
        for (byte, own) in block.iter_mut().zip(&self.bytes) {
            *byte |= own;
        }
        for (byte, own) in block.iter_mut().rev().zip(&backward.bytes) {
            *byte |= own.reverse_bits();
        }
        block
    }
}

#[cfg(all(test, feature = "write"))]
mod tests {
    use super::*;

    #[test]
    fn two_streams_share_a_run_of_bytes() {
        let (mut forward, mut backward) = (BitVec::<false>::default(), BitVec::<true>::default());
        forward.push(1, 3);
        backward.push(1, 1);
        for value in 0..100_u32 {
            forward.push(value.into(), 7);
            backward.push(u64::from(value) * 3, 9);
        }
        let block = forward.join(&backward);
        assert_eq!(block.len(), 201);
        let mut up = Bits::<false>::new(&block, 0);
        let mut down = Bits::<true>::new(&block, block.len());
        up.fill();
        down.fill();
        assert_eq!((up.number(3), down.number(1)), (1, 1));
        for value in 0..100 {
            up.fill();
            down.fill();
            assert_eq!((up.number(7), down.number(9)), (value, value * 3));
        }
        assert_eq!((up.taken(0), down.taken(block.len())), (703, 901));
    }

    #[test]
    fn a_stream_goes_on_inside_a_byte() {
        let mut backward = BitVec::<true>::default();
        let mut tail = BitVec::<true>::default();
        for value in 0..100_u32 {
            let to = if value < 50 { &mut backward } else { &mut tail };
            to.push(value.into(), 7);
        }
        backward.append(&tail);
        assert_eq!(backward.len(), 700);
        let bytes = BitVec::<false>::default().join(&backward);
        let mut at = 8 * bytes.len();
        for value in 0..100 {
            let mut stream = Bits::below(&bytes, at);
            assert_eq!(stream.position(), at);
            stream.fill();
            assert_eq!(stream.number(7), value);
            at -= 7;
            assert_eq!(stream.position(), at);
        }
        let mut stream = Bits::below(&bytes, 3);
        stream.fill();
        stream.take(9);
        assert!(stream.position() > 8 * bytes.len());
    }

    /// Bit `n` of a stream, by its definition.
    fn bit<const BACKWARD: bool>(bytes: &[u8], begin: usize, n: usize) -> u32 {
        let byte = if BACKWARD {
            begin.checked_sub(n / 8 + 1)
        } else {
            Some(begin + n / 8)
        };
        let byte = byte.and_then(|at| bytes.get(at)).copied().unwrap_or(0);
        let shift = if BACKWARD { 7 - n % 8 } else { n % 8 };
        u32::from(byte >> shift & 1)
    }

    /// `width` bits of a stream as a number: the first one is the lowest, or, backward, the highest.
    fn bits<const BACKWARD: bool>(bytes: &[u8], begin: usize, from: usize, width: usize) -> u32 {
        let position = |n: usize| if BACKWARD { width - 1 - n } else { n };
        (0..width).fold(0, |number, n| {
            number | bit::<BACKWARD>(bytes, begin, from + n) << position(n)
        })
    }

    /// Reads a stream to its end and beyond, in steps of two widths for each fill.
    fn read<const BACKWARD: bool>(bytes: &[u8], begin: usize, skip: u32, width: u32) {
        let mut stream = Bits::<BACKWARD>::new(bytes, begin);
        let mut from = 0;
        let end = 8 * if BACKWARD { begin } else { bytes.len() - begin };
        let mut take = |stream: &mut Bits<'_, BACKWARD>, width: u32| {
            let expected = bits::<BACKWARD>(bytes, begin, from, crate::index(width));
            assert_eq!(
                stream.number(width),
                expected,
                "{bytes:?} {begin} {from} {width}"
            );
            from += crate::index(width);
            assert_eq!(stream.taken(begin), from);
            from
        };
        for _ in 0..skip {
            stream.fill();
            take(&mut stream, 1);
        }
        loop {
            stream.fill();
            take(&mut stream, width);
            let at = take(&mut stream, (FILLED - width).min(31));
            if at > end {
                return;
            }
        }
    }

    /// A proof for runs of these lengths. What a reader does depends on where it is, on how many of
    /// the bits of a byte are taken (eight cases), and on the width; all of them are tried. It only
    /// shifts, masks and ORs, so each bit of a number is the OR of some bits of the run, and which
    /// ones is seen from runs with one bit set.
    #[test]
    fn every_read_of_a_short_run_is_the_bits_of_its_definition() {
        for len in [0, 1, 2, 7, 8, 9, 16, 17] {
            for set in 0..=8 * len {
                let mut bytes = std::vec![0_u8; len];
                if let Some(byte) = bytes.get_mut(set / 8) {
                    *byte = 1 << (set % 8);
                }
                for begin in 0..=len {
                    for skip in 0..8 {
                        // Every width where a load meets an end of the run, some in longer ones.
                        let step = if len <= 9 { 1 } else { 5 };
                        for width in (0..=31).step_by(step) {
                            read::<false>(&bytes, begin, skip, width);
                            read::<true>(&bytes, begin, skip, width);
                        }
                    }
                }
            }
        }
    }
}
