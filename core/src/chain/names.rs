//! The names of functions ([specified](super#names) in the head of the module).

use zerocopy::byteorder::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::codes;
use crate::encoding::Fault;
use crate::encoding::packed::bits::Bits;
use crate::files::EXPANSION_MAX;
use crate::name::{self, NAME_MAX};
use crate::steps::step;
use crate::{index, wide};

/// Names in a group.
const GROUP: u32 = 16;
/// Longest prefix that a name shares with one of the last two.
const PREFIX_MAX: usize = 59;
/// What is kept of a name for those after it.
const HEAD: usize = PREFIX_MAX;
/// Longest code of a token, in bits.
const CODE_BITS: u32 = 15;
/// Codes of that many lengths.
const LENGTHS: usize = 15;
/// Deepest nesting of tokens.
const DEPTH_MAX: usize = 16;
/// Most steps that it takes to print a name: every byte of its group, what it is made of, and what is left of a
/// token at the end of each name.
pub(super) const STEPS_MAX: usize = 16 * (2 * (NAME_MAX + 2) + DEPTH_MAX);
const _: () = assert!(GROUP == 16);

/// Marks a token that is a byte.
const BYTE: u16 = 0xfff;
/// Most tokens.
#[cfg(feature = "write")]
const TOKENS_MAX: usize = 0xfff;

/// The head of the section.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    /// Offset 0: number of tokens.
    tokens: U16,
    /// Offset 2: how many of them have codes of 1, 2, ... bits.
    counts: [U16; LENGTHS],
    /// Offset 32: bytes of the code of prefixes.
    prefix_code: u8,
    /// Offset 33: bytes of the code of underscores.
    underscore_code: u8,
}

/// The codes and the tokens that every reader has, for tables of few functions.
const BUILT_IN: &[u8] = include_bytes!("built-in.names");

/// A view of the section. It is on the stack of a look-up, so it has positions in place of slices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    section: &'a [u8],
    /// The codes and the tokens: the beginning of the section, or [`BUILT_IN`]; and where in it the tokens begin.
    model: &'a [u8],
    tokens: u32,
    /// Where the groups begin in the section, and where their streams do.
    groups: u32,
    streams: u32,
    count: u32,
}

/// Where the code of prefixes is; that of underscores and the tokens follow.
const PREFIX_CODE: usize = size_of::<Header>();

/// A name, read byte by byte.
pub(super) struct NameBytes<'n, 'a> {
    names: &'n Names<'a>,
    bits: Bits<'a, true>,
    /// The beginnings of the name at hand and of the one before, without the underscores that names begin with.
    /// What the name at hand does not share with the name before the last one is written over that.
    heads: [[u8; HEAD]; 2],
    /// Their lengths, at most [`HEAD`].
    lengths: [u8; 2],
    /// Which of them is that of the name at hand: 0 or 1.
    this: u8,
    underscores: u8,
    /// Bytes that come from a name before, and which head they are in.
    prefix: u8,
    before: u8,
    /// Depth of the stack.
    depth: u8,
    state: State,
    /// The next byte.
    position: u16,
    /// Second halves of tokens whose first halves are being expanded.
    stack: [u16; DEPTH_MAX],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Inside,
    End,
    /// The stream is none of names.
    Broken,
}

impl<'a> Names<'a> {
    /// A section without names.
    pub(super) const EMPTY: Self = Self {
        section: &[],
        model: &[],
        tokens: 0,
        groups: 0,
        streams: 0,
        count: 0,
    };

    pub(super) fn new(section: &'a [u8], count: u32) -> Option<Self> {
        let (model, groups) = match section.split_first_chunk()? {
            (&[0, 0], groups) => (BUILT_IN, groups),
            _ => (section, section),
        };
        let (header, rest) = Header::ref_from_prefix(model).ok()?;
        let codes = usize::from(header.prefix_code).wrapping_add(header.underscore_code.into());
        let (_, tokens) = rest.split_at_checked(codes)?;
        let count_of_tokens = usize::from(header.tokens.get());
        let (_, rest) = <[[u8; 3]]>::ref_from_prefix_with_elems(tokens, count_of_tokens).ok()?;
        let tokens_at = model.len().wrapping_sub(tokens.len());
        let end = model.len().wrapping_sub(rest.len());
        let groups = if groups.len() == section.len() {
            rest
        } else {
            groups
        };
        let count_of_groups = index(count.div_ceil(GROUP));
        let (_, streams) = <[[u8; 3]]>::ref_from_prefix_with_elems(groups, count_of_groups).ok()?;
        let position = |rest: &[u8]| u32::try_from(section.len().wrapping_sub(rest.len())).ok();
        Some(Self {
            section,
            model: model.get(..end)?,
            tokens: u32::try_from(tokens_at).ok()?,
            groups: position(groups)?,
            streams: position(streams)?,
            count,
        })
    }

    #[inline]
    fn header(&self) -> Option<&'a Header> {
        Some(Header::ref_from_prefix(self.model).ok()?.0)
    }

    /// The codes of prefixes and of underscores.
    #[inline]
    fn codes(&self) -> Option<(&'a [u8], &'a [u8])> {
        let codes = self.model.get(PREFIX_CODE..index(self.tokens))?;
        codes.split_at_checked(self.header()?.prefix_code.into())
    }

    #[inline]
    fn tokens(&self) -> &'a [[u8; 3]] {
        let tokens = self.model.get(index(self.tokens)..);
        tokens.unwrap_or(&[]).as_chunks().0
    }

    /// Where the stream of each group ends.
    #[inline]
    fn groups(&self) -> &'a [[u8; 3]] {
        let groups = self.section.get(index(self.groups)..index(self.streams));
        groups.unwrap_or(&[]).as_chunks().0
    }

    #[inline]
    fn streams(&self) -> &'a [u8] {
        self.section.get(index(self.streams)..).unwrap_or(&[])
    }

    fn group_end(&self, group: u32) -> Option<usize> {
        let [a, b, c] = *self.groups().get(index(group))?;
        Some(index(u32::from_le_bytes([a, b, c, 0])))
    }

    /// The next token of a stream.
    ///
    /// The tokens have the order of their codes.
    fn token(&self, bits: &mut Bits<'_, true>) -> Option<u16> {
        bits.fill();
        let window = bits.peek(CODE_BITS);
        let mut bound = 0_u32;
        let mut before = 0_u32;
        for (length, count) in (1..).zip(&self.header()?.counts) {
            let count = u32::from(count.get());
            let shift = CODE_BITS.wrapping_sub(length);
            let end = bound.wrapping_add(count.wrapping_shl(shift));
            if window < end {
                bits.take(length);
                let number = window.wrapping_sub(bound).wrapping_shr(shift);
                return u16::try_from(before.wrapping_add(number)).ok();
            }
            bound = end;
            before = before.wrapping_add(count);
        }
        None
    }

    /// The light check: the codes, and where groups are.
    ///
    /// What is printed is made printable then, so names are not read here.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let codes = self.codes();
        let codes = codes.ok_or_else(|| fault("the codes of names", self.section.len()))?;
        let expected = codes::fault(codes.0).or_else(|| codes::fault(codes.1));
        if let Some(expected) = expected {
            return Err(fault(expected, codes.0.len()));
        }
        let streams = self.streams().len();
        let mut end = 0;
        for group in 0..self.groups().len() {
            step();
            let begin = end;
            end = u32::try_from(group)
                .ok()
                .and_then(|group| self.group_end(group))
                .filter(|end| (begin..=streams).contains(end))
                .ok_or_else(|| fault("groups of names that ascend", group))?;
        }
        if end != streams {
            return Err(fault("names up to the end of the section", end));
        }
        Ok(())
    }

    /// The full check: every name is there, and can be printed as it is.
    ///
    /// Expands every name once, and not more than [`EXPANSION_MAX`] allows.
    pub(super) fn check_all(&self) -> Result<(), Fault> {
        let most = self.section.len().saturating_mul(EXPANSION_MAX);
        let mut expanded = 0_usize;
        let mut end = 0;
        for first in (0..self.count).step_by(index(GROUP)) {
            let group = first.wrapping_div(GROUP);
            let begin = end;
            end = self.group_end(group).unwrap_or(0);
            let bytes = end.saturating_sub(begin);
            let mut names = NameBytes::new(self);
            names.go_to_group(group);
            for name in first..first.saturating_add(GROUP).min(self.count) {
                let fault = |expected| fault(expected, index(name));
                names.begin();
                let mut checker = name::Checker::default();
                let mut len = 0_usize;
                for byte in names.by_ref() {
                    len = len.saturating_add(1);
                    if len > NAME_MAX {
                        return Err(fault(name::LENGTH));
                    }
                    if !checker.push(byte) {
                        return Err(fault(name::CHARACTERS));
                    }
                }
                if names.state == State::Broken {
                    return Err(fault("the end of every name"));
                }
                if len == 0 {
                    return Err(fault(name::LENGTH));
                }
                if !checker.is_whole() {
                    return Err(fault(name::CHARACTERS));
                }
                expanded = expanded.saturating_add(len).saturating_add(2);
                if expanded > most {
                    return Err(fault("names of at most 64 times the size of their section"));
                }
            }
            if names.bits.taken(end) > bytes.saturating_mul(8) {
                return Err(fault("names inside their group", index(group)));
            }
        }
        Ok(())
    }
}

const fn fault(expected: &'static str, found: usize) -> Fault {
    Fault {
        at: 0,
        expected,
        found: wide(found),
    }
}

/// What a token is made of.
#[inline(always)]
fn halves([a, b, c]: [u8; 3]) -> (u16, u16) {
    let first = u16::from(a) | u16::from(b & 15) << 8;
    let second = u16::from(b >> 4) | u16::from(c) << 4;
    (first, second)
}

impl<'n, 'a> NameBytes<'n, 'a> {
    /// At no name.
    #[inline(always)] // It is made where it stays.
    pub(super) fn new(names: &'n Names<'a>) -> Self {
        Self {
            bits: Bits::new(names.streams(), 0),
            names,
            heads: [[0; HEAD]; 2],
            lengths: [0; 2],
            this: 0,
            underscores: 0,
            prefix: 0,
            before: 0,
            depth: 0,
            state: State::End,
            position: 0,
            stack: [0; DEPTH_MAX],
        }
    }

    /// Goes to before the first name of a group.
    fn go_to_group(&mut self, group: u32) {
        let begin = self.names.group_end(group).unwrap_or(0);
        self.bits = Bits::new(self.names.streams(), begin);
        self.lengths = [0; 2];
        self.state = State::End;
    }

    /// Goes to a name.
    #[inline(never)]
    pub(super) fn go_to(&mut self, name: u32) {
        self.go_to_group(name.wrapping_div(GROUP));
        for _ in 0..name.wrapping_rem(GROUP) {
            self.begin();
            self.by_ref().for_each(drop);
        }
        self.begin();
    }

    /// Begins the next name, after the end of the one before.
    fn begin(&mut self) {
        self.this ^= 1;
        self.position = 0;
        self.depth = 0;
        let begun = self.read_head();
        if self.state != State::Broken {
            self.state = match begun {
                Some(()) => State::Inside,
                None => State::Broken,
            };
        }
    }

    fn read_head(&mut self) -> Option<()> {
        let (prefix_code, underscore_code) = self.names.codes()?;
        let prefix = codes::read(prefix_code, &mut self.bits)?;
        let underscores = codes::read(underscore_code, &mut self.bits)?;
        let prefix = index(prefix);
        // The head of the name before the last one is where that of this name will be.
        let (before, prefix) = match prefix.checked_sub(PREFIX_MAX.wrapping_add(1)) {
            Some(prefix) => (self.this, prefix),
            None => (self.this ^ 1, prefix),
        };
        self.before = before;
        self.prefix = u8::try_from(prefix).ok()?;
        self.underscores = u8::try_from(underscores).ok().filter(|count| *count <= 3)?;
        let length = *self.lengths.get(usize::from(self.before))?;
        *self.lengths.get_mut(usize::from(self.this))? = 0;
        (self.prefix <= length).then_some(())
    }

    fn end(&mut self, state: State) -> Option<u8> {
        self.state = state;
        None
    }

    /// The next byte of the expanded tokens, with the zero that ends a name.
    fn expanded(&mut self) -> Option<u8> {
        let mut token = match self.depth.checked_sub(1) {
            Some(top) => {
                self.depth = top;
                *self.stack.get(usize::from(top))?
            }
            None => self.names.token(&mut self.bits)?,
        };
        let tokens = self.names.tokens();
        loop {
            step();
            let (first, second) = halves(*tokens.get(usize::from(token))?);
            if first == BYTE {
                return u8::try_from(second).ok();
            }
            *self.stack.get_mut(usize::from(self.depth))? = second;
            self.depth = self.depth.wrapping_add(1);
            token = first;
        }
    }
}

impl Iterator for NameBytes<'_, '_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.state != State::Inside {
            return None;
        }
        if let Some(rest) = self.underscores.checked_sub(1) {
            self.underscores = rest;
            return Some(b'_');
        }
        let position = usize::from(self.position);
        if position > NAME_MAX {
            return self.end(State::Broken);
        }
        let byte = if position < self.prefix.into() {
            step();
            let head = self.heads.get(usize::from(self.before));
            head.and_then(|head| head.get(position)).copied()
        } else {
            self.expanded()
        };
        let Some(byte) = byte else {
            return self.end(State::Broken);
        };
        if byte == 0 {
            return self.end(State::End);
        }
        let this = usize::from(self.this);
        if let Some(slot) = self
            .heads
            .get_mut(this)
            .and_then(|head| head.get_mut(position))
            && let Some(length) = self.lengths.get_mut(this)
        {
            *slot = byte;
            *length = length.wrapping_add(1);
        }
        self.position = self.position.wrapping_add(1);
        Some(byte)
    }
}

#[cfg(feature = "write")]
pub(crate) mod write {
    //! The writer of the section.
    #![expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "runs on the host, over its own lists; the reader is what a kernel links"
    )]

    use alloc::collections::BTreeMap;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::cmp::Reverse;

    use rayon::prelude::*;
    use zerocopy::IntoBytes;
    use zerocopy::byteorder::little_endian::U16;

    use super::super::codes::SYMBOLS;
    use super::super::codes::write::{Code, symbol};
    use super::{BYTE, CODE_BITS, DEPTH_MAX, GROUP, Header, LENGTHS, PREFIX_MAX, TOKENS_MAX};
    use crate::encoding::packed::bits::BitVec;
    use crate::encoding::packed::codes::write::{codes, lengths};
    use crate::encoding::packed::write::cluster::{as_f32, log2};
    use crate::index;
    use crate::writer::{EncodeError, narrow};

    /// What a token must save, in bits: its place in the table, and a bit more.
    const GAIN_MIN: f32 = 28.0;
    /// A round makes tokens of the pairs that save at least this share of what the best one saves.
    const SHARE: f32 = 0.6;

    /// How often names are spelled anew with the codes that fit how they were spelled before.
    const ROUNDS: usize = 4;

    /// A name in a group.
    struct Name<'a> {
        underscores: u32,
        /// The name after these underscores.
        bare: &'a str,
        /// What it shares with the last name and with the one before.
        shared: [usize; 2],
    }

    impl<'a> Name<'a> {
        /// The prefixes that it may have: which of the names before has it, and its bytes.
        fn prefixes(&self) -> impl Iterator<Item = (usize, usize)> {
            let of_one = |which: usize| (1..=self.shared[which]).map(move |prefix| (which, prefix));
            let all = core::iter::once((0, 0)).chain((0..2).flat_map(of_one));
            all.filter(|(_, prefix)| self.bare.is_char_boundary(*prefix))
        }

        /// The number of the longest of them, the underscores, and the rest.
        fn front_coded(&self) -> (u32, u32, &'a [u8]) {
            let longest = self
                .prefixes()
                .max_by_key(|(which, prefix)| (*prefix, Reverse(*which)));
            // A shorter one costs more than its bytes.
            let longest = longest.filter(|(_, prefix)| *prefix >= 2);
            let (which, prefix) = longest.unwrap_or((0, 0));
            let (number, rest) = self.split(which, prefix);
            (number, self.underscores, rest)
        }

        /// Its prefix as it is written, and the rest.
        fn split(&self, which: usize, prefix: usize) -> (u32, &'a [u8]) {
            let number = which * (PREFIX_MAX + 1) + prefix;
            (
                u32::try_from(number).unwrap_or(0),
                &self.bare.as_bytes()[prefix..],
            )
        }
    }

    /// What is written of a name.
    struct Spelling {
        prefix: u32,
        underscores: u32,
        tokens: Vec<u16>,
    }

    /// A token: a byte, or two tokens.
    #[derive(Clone, Copy, Debug)]
    enum Token {
        Byte(u8),
        Pair(u16, u16),
    }

    /// Tokens of the built-in codes.
    const BUILT_IN_TOKENS: usize = 1024;

    /// Encodes names that keep the rules for names, with tokens of their own or with the built-in ones.
    pub(crate) fn encode(names: &[&str]) -> Result<Vec<u8>, EncodeError> {
        let names = in_groups(names);
        let built_in = Model::built_in()?;
        let with_built_in = match built_in.spell(&names) {
            Some(spellings) => {
                let groups = built_in.write_groups(&spellings)?;
                Some([&[0; 2][..], &groups].concat())
            }
            None => None,
        };
        let (own, spellings) = Model::fit(&names)?;
        let own = [own.write()?, own.write_groups(&spellings)?].concat();
        Ok(match with_built_in {
            Some(section) if section.len() <= own.len() => section,
            _ => own,
        })
    }

    /// Codes and tokens that fit the names of many tables, which are to be built in.
    pub(crate) fn built_in(lists: &[Vec<&str>]) -> Result<Vec<u8>, EncodeError> {
        let names = lists.iter().flat_map(|names| in_groups(names));
        let mut all: Vec<(u32, u32, &[u8])> = names.map(|name| name.front_coded()).collect();
        // Whatever is in other names, all these have a code.
        let bytes: Vec<u8> = (b' '..=b'~').collect();
        let number = |number: usize| u32::try_from(number).unwrap_or(0);
        all.extend((0..=2 * PREFIX_MAX + 1).map(|prefix| {
            let rest: &[u8] = if prefix == 0 { &bytes } else { &[] };
            (number(prefix), number(prefix) & 3, rest)
        }));
        let (tokens, spellings) = grammar(&all, BUILT_IN_TOKENS);
        Model::of(&tokens, spellings)?.0.write()
    }

    /// Names with what they share with those before them in their groups.
    fn in_groups<'a>(names: &[&'a str]) -> Vec<Name<'a>> {
        names.chunks(index(GROUP)).flat_map(group).collect()
    }

    /// Tokens for names without their prefixes and underscores, and these names in them.
    fn grammar(names: &[(u32, u32, &[u8])], most: usize) -> (Vec<Token>, Vec<Spelling>) {
        let rests: Vec<&[u8]> = names.iter().map(|(.., rest)| *rest).collect();
        let mut grammar = Grammar::new(&rests, most);
        grammar.run();
        let spellings = names.iter().zip(grammar.names);
        let spellings = spellings.map(|(&(prefix, underscores, _), tokens)| Spelling {
            prefix,
            underscores,
            tokens,
        });
        (grammar.tokens, spellings.collect())
    }

    /// The codes of tokens by the bytes that they stand for.
    struct Trie {
        /// The node after a node and a byte.
        next: BTreeMap<(usize, u8), usize>,
        /// Of each node the bits of the shortest code, and its token.
        tokens: Vec<Option<(u32, u16)>>,
    }

    impl Trie {
        fn new(model: &Model) -> Self {
            let mut trie = Self {
                next: BTreeMap::new(),
                tokens: vec![None],
            };
            let mut bytes = Vec::new();
            for (token, length) in (0..).zip(&model.lengths).filter(|(_, length)| **length > 0) {
                bytes.clear();
                model.expand(token, &mut bytes);
                let mut node = 0;
                for byte in &bytes {
                    let new = trie.tokens.len();
                    node = *trie.next.entry((node, *byte)).or_insert(new);
                    if node == new {
                        trie.tokens.push(None);
                    }
                }
                let choice = (u32::from(*length), token);
                let best = trie.tokens[node].get_or_insert(choice);
                *best = choice.min(*best);
            }
            trie
        }

        /// For each position in bytes, and for their end, the fewest bits of tokens from there on, and the end of the
        /// first token and the token; `None` if there are no such tokens.
        fn ways(&self, bytes: &[u8]) -> Vec<Option<(u32, usize, u16)>> {
            let mut ways = vec![None; bytes.len() + 1];
            ways[bytes.len()] = Some((0, 0, 0));
            for from in (0..bytes.len()).rev() {
                let mut node = 0;
                for (to, byte) in (from + 1..).zip(&bytes[from..]) {
                    let Some(next) = self.next.get(&(node, *byte)) else {
                        break;
                    };
                    node = *next;
                    if let (Some((bits, token)), Some((rest, ..))) = (self.tokens[node], ways[to]) {
                        let way = (bits + rest, to, token);
                        let best = ways[from].get_or_insert(way);
                        *best = way.min(*best);
                    }
                }
            }
            ways
        }
    }

    /// Codes and tokens; those with a code come first, in the order of the codes.
    struct Model {
        tokens: Vec<Token>,
        /// Lengths of the codes, and the codes.
        lengths: Vec<u8>,
        codes: Vec<u16>,
        prefix: Code,
        underscores: Code,
    }

    impl Model {
        /// A model that fits names, and their spellings.
        fn fit(names: &[Name<'_>]) -> Result<(Self, Vec<Spelling>), EncodeError> {
            let front_coded: Vec<_> = names.iter().map(Name::front_coded).collect();
            let (tokens, spellings) = grammar(&front_coded, TOKENS_MAX);
            let (mut model, mut spellings) = Self::of(&tokens, spellings)?;
            for _ in 0..ROUNDS {
                let Some(better) = model.spell(names) else {
                    break;
                };
                (model, spellings) = Self::of(&model.tokens, better)?;
            }
            Ok((model, spellings))
        }

        /// The codes that fit spellings, and these with the numbers of the tokens in the model. Tokens that are not
        /// needed are not in it.
        fn of(
            tokens: &[Token],
            mut spellings: Vec<Spelling>,
        ) -> Result<(Self, Vec<Spelling>), EncodeError> {
            let mut counts = vec![0_u64; tokens.len()];
            let (mut prefixes, mut underscores) =
                ([0_u64; index(SYMBOLS)], [0_u64; index(SYMBOLS)]);
            for spelling in &spellings {
                for token in &spelling.tokens {
                    counts[usize::from(*token)] += 1;
                }
                prefixes[usize::from(symbol(spelling.prefix).0)] += 1;
                underscores[usize::from(symbol(spelling.underscores).0)] += 1;
            }
            let mut needed: Vec<bool> = counts.iter().map(|count| *count > 0).collect();
            let mut halves: Vec<u16> = (0..)
                .zip(&counts)
                .filter(|(_, count)| **count > 0)
                .map(|(token, _)| token)
                .collect();
            while let Some(token) = halves.pop() {
                if let Token::Pair(first, second) = tokens[usize::from(token)] {
                    let new = [first, second].into_iter();
                    halves.extend(
                        new.filter(|half| {
                            !core::mem::replace(&mut needed[usize::from(*half)], true)
                        }),
                    );
                }
            }
            let by_token = lengths(&counts, CODE_BITS);
            let mut order: Vec<usize> =
                (0..by_token.len()).filter(|token| needed[*token]).collect();
            order.sort_by_key(|token| (by_token[*token] == 0, by_token[*token], *token));
            let mut new = vec![0_u16; tokens.len()];
            for (number, token) in (0..).zip(&order) {
                new[*token] = number;
            }
            let renumbered = |token: u16| new[usize::from(token)];
            let tokens = order.iter().map(|token| match tokens[*token] {
                Token::Byte(byte) => Token::Byte(byte),
                Token::Pair(first, second) => Token::Pair(renumbered(first), renumbered(second)),
            });
            let lengths: Vec<u8> = order.iter().map(|token| by_token[*token]).collect();
            let model = Self {
                tokens: tokens.collect(),
                codes: codes(&lengths)?,
                lengths,
                prefix: Code::fit(&prefixes)?,
                underscores: Code::fit(&underscores)?,
            };
            for token in spellings
                .iter_mut()
                .flat_map(|spelling| &mut spelling.tokens)
            {
                *token = renumbered(*token);
            }
            Ok((model, spellings))
        }

        /// The one that every reader has.
        fn built_in() -> Result<Self, EncodeError> {
            let broken = EncodeError::Invariant("built-in names that cannot be read");
            let view = super::Names::new(&[0; 2], 0).ok_or(broken)?;
            let (Some(header), Some((prefix, underscores))) = (view.header(), view.codes()) else {
                return Err(EncodeError::Invariant("built-in names without codes"));
            };
            let mut lengths = Vec::new();
            for (length, count) in (1..).zip(&header.counts) {
                lengths.extend(vec![length; count.get().into()]);
            }
            lengths.resize(view.tokens().len(), 0);
            let token = |bytes: &[u8; 3]| match super::halves(*bytes) {
                (BYTE, byte) => Token::Byte(byte.to_le_bytes()[0]),
                (first, second) => Token::Pair(first, second),
            };
            Ok(Self {
                tokens: view.tokens().iter().map(token).collect(),
                codes: codes(&lengths)?,
                lengths,
                prefix: Code::read(prefix)?,
                underscores: Code::read(underscores)?,
            })
        }

        /// The bytes that a token stands for.
        fn expand(&self, token: u16, to: &mut Vec<u8>) {
            match self.tokens[usize::from(token)] {
                Token::Byte(byte) => to.push(byte),
                Token::Pair(first, second) => {
                    self.expand(first, to);
                    self.expand(second, to);
                }
            }
        }

        /// The spelling of each name that takes the fewest bits; `None` if a name has something without a code.
        fn spell(&self, names: &[Name<'_>]) -> Option<Vec<Spelling>> {
            let trie = Trie::new(self);
            let spell = |name: &Name<'_>| {
                let bytes = [name.bare.as_bytes(), &[0]].concat();
                let ways = trie.ways(&bytes);
                let prefixes = name.prefixes().filter_map(|(which, prefix)| {
                    let (number, _) = name.split(which, prefix);
                    let (rest, ..) = ways[prefix]?;
                    Some((self.prefix.bits(number)? + rest, prefix, number))
                });
                let (_, mut at, prefix) = prefixes.min()?;
                let mut tokens = Vec::new();
                while at < bytes.len() {
                    let (_, to, token) = ways[at]?;
                    tokens.push(token);
                    at = to;
                }
                Some(Spelling {
                    prefix,
                    underscores: name.underscores,
                    tokens,
                })
            };
            names.par_iter().map(spell).collect()
        }

        /// The section up to the groups.
        fn write(&self) -> Result<Vec<u8>, EncodeError> {
            let mut counts = [0_u16; LENGTHS];
            for length in self.lengths.iter().filter(|length| **length > 0) {
                counts[usize::from(*length) - 1] += 1;
            }
            let mut tokens = Vec::new();
            for token in &self.tokens {
                let (first, second) = match *token {
                    Token::Byte(byte) => (BYTE, byte.into()),
                    Token::Pair(first, second) => (first, second),
                };
                let both = u32::from(first) | u32::from(second) << 12;
                let [a, b, c, _] = both.to_le_bytes();
                tokens.extend([a, b, c]);
            }
            let (prefix, underscores) = (self.prefix.write()?, self.underscores.write()?);
            let header = Header {
                tokens: narrow::<u16>("the number of tokens", self.tokens.len())?.into(),
                counts: counts.map(U16::new),
                prefix_code: narrow("the size of a code", prefix.len())?,
                underscore_code: narrow("the size of a code", underscores.len())?,
            };
            Ok([header.as_bytes(), &prefix, &underscores, &tokens].concat())
        }

        /// Where the groups end, and their streams.
        fn write_groups(&self, spellings: &[Spelling]) -> Result<Vec<u8>, EncodeError> {
            let mut ends = Vec::new();
            let mut streams: Vec<u8> = Vec::new();
            for group in spellings.chunks(index(GROUP)) {
                let mut stream = BitVec::<true>::default();
                for spelling in group {
                    for (number, code) in [
                        (spelling.prefix, &self.prefix),
                        (spelling.underscores, &self.underscores),
                    ] {
                        let (symbol, raw, raw_bits) = symbol(number);
                        let (code, length) = code.of(symbol);
                        stream.push(code.into(), length.into());
                        stream.push(raw.into(), raw_bits);
                    }
                    for token in spelling.tokens.iter().copied().map(usize::from) {
                        stream.push(self.codes[token].into(), self.lengths[token].into());
                    }
                }
                streams.extend(BitVec::<false>::default().join(&stream));
                let end: u32 = narrow("the size of the names", streams.len())?;
                match end.to_le_bytes() {
                    [a, b, c, 0] => ends.extend([a, b, c]),
                    _ => {
                        return Err(EncodeError::TooLarge {
                            what: "the size of the names",
                            size: end.into(),
                        });
                    }
                }
            }
            Ok([ends, streams].concat())
        }
    }

    /// The names of a group, with what they share with the two before.
    fn group<'a>(names: &[&'a str]) -> Vec<Name<'a>> {
        let mut out = Vec::new();
        let mut before = ["", ""];
        for name in names {
            let underscores = name.bytes().take_while(|byte| *byte == b'_').count().min(3);
            let bare = &name[underscores..];
            let shared = |other: &str| {
                let pairs = other.bytes().zip(bare.bytes());
                let same = pairs.take_while(|(a, b)| a == b).count();
                same.min(PREFIX_MAX)
            };
            out.push(Name {
                underscores: u32::try_from(underscores).unwrap_or(0),
                bare,
                shared: before.map(shared),
            });
            before = [bare, before[0]];
        }
        out
    }

    /// Frequent pairs of tokens become tokens, over and over.
    struct Grammar {
        tokens: Vec<Token>,
        depths: Vec<usize>,
        /// The tokens of each name.
        names: Vec<Vec<u16>>,
        /// Most tokens.
        most: usize,
    }

    impl Grammar {
        fn new(names: &[&[u8]], most: usize) -> Self {
            let mut number_of = [None; 256];
            let mut tokens = Vec::new();
            let mut number = |byte: u8| {
                *number_of[usize::from(byte)].get_or_insert_with(|| {
                    tokens.push(Token::Byte(byte));
                    // There are at most 256 of them.
                    u16::try_from(tokens.len() - 1).unwrap_or(0)
                })
            };
            let names = names.iter().map(|name| {
                let bytes = name.iter().copied().chain([0]);
                bytes.map(&mut number).collect()
            });
            let names = names.collect();
            Self {
                depths: vec![0; tokens.len()],
                tokens,
                names,
                most,
            }
        }

        fn run(&mut self) {
            while self.round() {}
        }

        /// Makes some tokens; `false` if none pays any more.
        fn round(&mut self) -> bool {
            let mut counts = vec![0_u32; self.tokens.len()];
            let mut pairs: Vec<(u16, u16)> = Vec::new();
            for name in &self.names {
                name.iter()
                    .for_each(|token| counts[usize::from(*token)] += 1);
                pairs.extend(name.windows(2).map(|pair| (pair[0], pair[1])));
            }
            pairs.sort_unstable();
            let total = as_f32(counts.iter().sum());
            let mut gains: Vec<(f32, (u16, u16))> = Vec::new();
            for run in pairs.chunk_by(|a, b| a == b) {
                let (first, second) = run[0];
                let deepest = self.depths[usize::from(first)].max(self.depths[usize::from(second)]);
                let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
                if count < 3 || deepest + 2 >= DEPTH_MAX {
                    continue;
                }
                let (one, other) = (counts[usize::from(first)], counts[usize::from(second)]);
                let expected = as_f32(one) / total * as_f32(other);
                let gain = as_f32(count) * log2(as_f32(count) / expected);
                if gain > GAIN_MIN {
                    gains.push((gain, run[0]));
                }
            }
            gains.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let least = gains.first().map_or(0.0, |best| best.0 * SHARE);
            let mut busy = vec![false; self.tokens.len()];
            let mut made: BTreeMap<(u16, u16), u16> = BTreeMap::new();
            for (gain, (first, second)) in gains {
                let (one, other) = (usize::from(first), usize::from(second));
                if gain < least || self.tokens.len() >= self.most {
                    break;
                }
                // The counts of a pair that shares a token with another one do not hold any more.
                if busy[one] || busy[other] {
                    continue;
                }
                busy[one] = true;
                busy[other] = true;
                let Ok(number) = u16::try_from(self.tokens.len()) else {
                    break;
                };
                self.tokens.push(Token::Pair(first, second));
                self.depths
                    .push(self.depths[one].max(self.depths[other]) + 1);
                made.insert((first, second), number);
            }
            let by_first: BTreeMap<u16, (u16, u16)> = made
                .iter()
                .map(|((first, second), number)| (*first, (*second, *number)))
                .collect();
            let mut partner = vec![None; self.tokens.len()];
            for (first, second) in by_first {
                partner[usize::from(first)] = Some(second);
            }
            for name in &mut self.names {
                let mut kept = 0;
                let mut read = 0;
                while read < name.len() {
                    let token = name[read];
                    let pair = partner[usize::from(token)];
                    let next = name.get(read + 1);
                    let merged = pair.filter(|(second, _)| next == Some(second));
                    name[kept] = merged.map_or(token, |(_, number)| number);
                    read += if merged.is_some() { 2 } else { 1 };
                    kept += 1;
                }
                name.truncate(kept);
            }
            !made.is_empty()
        }
    }
}

#[cfg(all(test, feature = "write"))]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    fn round_trip(names: &[&str]) -> usize {
        let section = write::encode(names).unwrap();
        let view = Names::new(&section, u32::try_from(names.len()).unwrap()).unwrap();
        view.check().unwrap();
        view.check_all().unwrap();
        for (number, name) in (0..).zip(names) {
            let mut bytes = NameBytes::new(&view);
            bytes.go_to(number);
            let bytes: Vec<u8> = bytes.collect();
            assert_eq!(String::from_utf8(bytes).as_deref(), Ok(*name));
        }
        section.len()
    }

    #[test]
    fn names_come_back() {
        round_trip(&[]);
        round_trip(&["a"]);
        round_trip(&["_", "__", "____", "_____x", "__x", "x", "x"]);
        round_trip(&["é", "è", "éa", "\u{1f980}", "\u{1f981}"]);
        let long = "ab".repeat(255);
        round_trip(&[
            &long,
            &format!("{long}y"),
            &format!("__{}", &long[..500]),
            "z",
        ]);
        let many: Vec<String> = (0..500)
            .map(|n| format!("{}read_page_{}_{n:03}", "_".repeat(n % 3), n % 7))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let size = round_trip(&many);
        assert!(size < 500 * 5, "{size} bytes");
    }

    #[test]
    fn few_names_need_no_tokens_of_their_own() {
        assert_eq!(write::encode(&[]).unwrap(), [0, 0]);
        let size = round_trip(&["kmalloc", "refcount_inc", "spin_lock", "spin_unlock"]);
        assert!(size < 20, "{size} bytes");
        let all: String = (b' '..=b'~').map(char::from).collect();
        assert!(write::encode(&[&all]).unwrap().starts_with(&[0, 0]));
    }

    #[test]
    fn names_that_break_a_rule_are_refused() {
        let refused = |names: &[&str]| {
            let section = write::encode(names).unwrap();
            let view = Names::new(&section, u32::try_from(names.len()).unwrap()).unwrap();
            view.check_all().err().map(|fault| fault.expected)
        };
        assert_eq!(refused(&["a\u{1b}[2J"]), Some(name::CHARACTERS));
        assert_eq!(refused(&["a\u{202e}b"]), Some(name::CHARACTERS));
        assert_eq!(refused(&[""]), Some(name::LENGTH));
        assert_eq!(refused(&[&"a".repeat(NAME_MAX)]), None);
        assert!(refused(&[&"a".repeat(NAME_MAX + 1)]).is_some());
        // A token that has itself as its first half; the built-in ones have no such letter.
        let mut section = write::encode(&["éabcabcabc"]).unwrap();
        let view = Names::new(&section, 1).unwrap();
        let (tokens, at) = (
            view.tokens().len(),
            section.len() - view.streams().len() - 3,
        );
        let begin = at - 3 * tokens;
        for token in 0..tokens {
            let number = u16::try_from(token).unwrap().to_le_bytes();
            section[begin + 3 * token..][..2].copy_from_slice(&number);
        }
        let view = Names::new(&section, 1).unwrap();
        assert_eq!(
            view.check_all().err().map(|fault| fault.expected),
            Some("the end of every name")
        );
        let mut bytes = NameBytes::new(&view);
        bytes.go_to(0);
        assert!(bytes.count() <= NAME_MAX);
    }
}
