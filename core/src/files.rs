//! The section of file names: front-coded in groups, with a grammar of byte pairs (Gage's byte pair
//! encoding), as the head of the crate specifies it.

use core::fmt;

use zerocopy::FromBytes;

use crate::buffer::StrBuffer;
use crate::encoding::Fault;
use crate::name::{self, NAME_MAX};
use crate::steps::step;
use crate::{index, wide};

/// The grammar that every reader has, for tables of few names.
const BUILT_IN: &[u8] = include_bytes!("built-in.grammar");

/// Names in a group.
const GROUP: usize = 16;
/// Added to the length of a prefix: bytes that names have anyway.
const PREFIX_BASE: u8 = 45;
/// Longest prefix, in bytes.
const PREFIX_MAX: usize = 80;
/// Deepest nesting of rules.
const DEPTH_MAX: usize = 16;
/// Symbols that a byte can name.
const SYMBOLS_MAX: usize = 256;

/// Most bytes that all names expand to, as a multiple of the size of the section.
pub(crate) const EXPANSION_MAX: usize = 64;

/// Most bytes of all names together, expanded: more than those of all sources of Linux. To expand
/// more would delay a boot.
const EXPANDED_MAX: usize = 8 << 20;

/// Most steps that it takes to print a name: every byte of the group, its rules, and the bytes of
/// the name.
pub(crate) const NAME_STEPS_MAX: usize = 2 * GROUP * (NAME_MAX + 2) + NAME_MAX;

/// The name of a source file, relative to the root of the sources.
///
/// It is stored in pieces and put together while it is printed or compared; nothing is allocated.
#[derive(Clone, Copy)]
pub struct FileName<'a> {
    /// The whole section, and not a view of its parts: this is on the stack of every look-up.
    section: &'a [u8],
    files: u32,
    file: u32,
}

impl<'a> FileName<'a> {
    /// The name of one of the `files` in a section; `None` if there are not so many.
    pub(crate) fn new(section: &'a [u8], files: u32, file: u32) -> Option<Self> {
        (file < files).then_some(Self {
            section,
            files,
            file,
        })
    }

    /// Its index among [`crate::Table::files`].
    pub const fn index(&self) -> u32 {
        self.file
    }

    /// Appends the name, and stops where the buffer is full.
    ///
    /// Not inlined: its stack must not be there while rows are decoded.
    #[inline(never)]
    pub(crate) fn push_to(&self, text: &mut StrBuffer<'_>) {
        for character in self.characters() {
            text.push_str(character.as_str());
            if text.is_truncated() {
                return;
            }
        }
    }

    fn bytes(&self) -> NameBytes<'a> {
        let files = Files::new(self.section, self.files).unwrap_or(Files::EMPTY);
        NameBytes::new(&files, self.file)
    }

    fn characters(&self) -> impl Iterator<Item = Character> + use<'a> {
        Characters(self.bytes())
    }
}

impl fmt::Display for FileName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.characters()
            .try_for_each(|character| f.write_str(character.as_str()))
    }
}

impl fmt::Debug for FileName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileName({self})")
    }
}

impl PartialEq for FileName<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes().eq(other.bytes())
    }
}

impl Eq for FileName<'_> {}

impl PartialEq<str> for FileName<'_> {
    fn eq(&self, other: &str) -> bool {
        self.bytes().eq(other.bytes())
    }
}

/// What symbols stand for.
#[derive(Clone, Copy, Debug)]
struct Grammar<'a> {
    terminals: &'a [u8],
    rules: &'a [[u8; 2]],
}

impl<'a> Grammar<'a> {
    /// The grammar at the start of `bytes`, and what follows it.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[terminals, rules], rest) = bytes.split_first_chunk()?;
        let (terminals, rest) = rest.split_at_checked(terminals.into())?;
        let (rules, rest) = <[[u8; 2]]>::ref_from_prefix_with_elems(rest, rules.into()).ok()?;
        Some((Self { terminals, rules }, rest))
    }
}

/// The section of file names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files<'a> {
    grammar: Grammar<'a>,
    /// Where the groups but the first begin.
    begins: &'a [u8],
    /// Bytes of such a position.
    width: usize,
    symbols: &'a [u8],
    /// Size of the section before the symbols.
    head: usize,
    count: u32,
}

/// Bytes of the position of a group in a section of a size.
const fn width_of(section: usize) -> usize {
    if section <= 0xffff { 2 } else { 4 }
}

/// A name that was checked, as far as the next one needs it.
#[derive(Clone, Copy, Debug)]
struct Checked {
    len: usize,
    /// Bit `n`: a prefix of `n` bytes ends between characters.
    ends: u128,
}

impl Checked {
    /// Before the first name of a group.
    const NONE: Self = Self { len: 0, ends: 1 };
}

impl<'a> Files<'a> {
    const EMPTY: Self = Self {
        grammar: Grammar {
            terminals: &[],
            rules: &[],
        },
        begins: &[],
        width: 2,
        symbols: &[],
        head: 0,
        count: 0,
    };

    pub(crate) fn new(section: &'a [u8], count: u32) -> Option<Self> {
        let (grammar, rest) = match section.split_first()? {
            (0, rest) => (Grammar::split(BUILT_IN)?.0, rest),
            _ => Grammar::split(section)?,
        };
        let width = width_of(section.len());
        let begins = index(count).div_ceil(GROUP).saturating_sub(1);
        let (begins, symbols) = rest.split_at_checked(begins.checked_mul(width)?)?;
        Some(Self {
            grammar,
            begins,
            width,
            symbols,
            head: section.len().wrapping_sub(symbols.len()),
            count,
        })
    }

    /// Where a group begins in the symbols.
    fn begin(&self, group: usize) -> Option<usize> {
        let Some(before) = group.checked_sub(1) else {
            return Some(0);
        };
        let at = before.checked_mul(self.width)?;
        let bytes = self.begins.get(at..)?.get(..self.width)?;
        let value = bytes.iter().rev().fold(0_u32, |value, byte| {
            value.wrapping_shl(8) | u32::from(*byte)
        });
        Some(index(value))
    }

    /// The expanded bytes of a group and, after it, of those that follow.
    fn expand(&self, group: usize) -> Expansion<'a> {
        let begin = self.begin(group).unwrap_or(usize::MAX);
        Expansion {
            grammar: self.grammar,
            rest: self.symbols.get(begin..).unwrap_or(&[]),
            stack: [0; DEPTH_MAX],
            depth: 0,
        }
    }

    /// Checks that every name is there, and that it can be printed in a kernel log.
    ///
    /// Expands every group once, and not more than [`EXPANSION_MAX`] allows.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.check_symbols()?;
        let symbols_at = self.head;
        let size = symbols_at.saturating_add(self.symbols.len());
        let most = size.saturating_mul(EXPANSION_MAX).min(EXPANDED_MAX);
        let mut expanded: usize = 0;
        let mut end = 0;
        for group in 0..index(self.count).div_ceil(GROUP) {
            let fault = |expected, found| Fault {
                at: symbols_at.saturating_add(end),
                expected,
                found,
            };
            let begin = self.begin(group).unwrap_or(usize::MAX);
            if begin != end {
                return Err(fault(
                    "a group of names where the last one ended",
                    wide(begin),
                ));
            }
            let first = group.saturating_mul(GROUP);
            let names = index(self.count).saturating_sub(first).min(GROUP);
            let mut expansion = self.expand(group);
            let mut last = Checked::NONE;
            for name in 0..names {
                let (checked, bytes) = check_name(&mut expansion, last)
                    .map_err(|expected| fault(expected, wide(first.saturating_add(name))))?;
                last = checked;
                expanded = expanded.saturating_add(bytes);
                if expanded > most {
                    return Err(fault(
                        "names of at most 64 times the size of their section, and 8 MiB",
                        wide(expanded),
                    ));
                }
            }
            if expansion.depth != 0 {
                return Err(fault(
                    "a symbol that ends with its group",
                    wide(expansion.depth),
                ));
            }
            end = self.symbols.len().saturating_sub(expansion.rest.len());
        }
        if end != self.symbols.len() {
            return Err(Fault {
                at: symbols_at.saturating_add(end),
                expected: "names up to the end of the section",
                found: wide(self.symbols.len()),
            });
        }
        Ok(())
    }

    /// Every symbol is defined; rules refer to smaller symbols, so they end, and they do not nest
    /// too deep.
    fn check_symbols(&self) -> Result<(), Fault> {
        let mut depths = [0_u8; SYMBOLS_MAX];
        let Grammar { terminals, rules } = self.grammar;
        let terminals = terminals.len();
        let defined = terminals.saturating_add(rules.len());
        if defined > SYMBOLS_MAX {
            return Err(Fault {
                at: 0,
                expected: "at most 256 symbols",
                found: wide(defined),
            });
        }
        for (rule, pair) in rules.iter().enumerate() {
            step();
            let symbol = terminals.saturating_add(rule);
            let fault = |expected| Fault {
                at: terminals
                    .saturating_add(rule.saturating_mul(2))
                    .saturating_add(2),
                expected,
                found: wide(symbol),
            };
            if pair.iter().any(|part| usize::from(*part) >= symbol) {
                return Err(fault("a rule of smaller symbols"));
            }
            let depths_of_parts = pair.iter().map(|part| depths.get(usize::from(*part)));
            let deepest = depths_of_parts.flatten().max().copied().unwrap_or(0);
            let depth = deepest.saturating_add(1);
            if usize::from(depth) >= DEPTH_MAX {
                return Err(fault("rules nested less than 16 deep"));
            }
            if let Some(slot) = depths.get_mut(symbol) {
                *slot = depth;
            }
        }
        let mut symbols = self.symbols.iter().enumerate();
        if let Some((at, symbol)) = symbols.find(|(_, symbol)| usize::from(**symbol) >= defined) {
            return Err(Fault {
                at: self.head.saturating_add(at),
                expected: "a symbol that is defined",
                found: (*symbol).into(),
            });
        }
        Ok(())
    }
}

/// Checks the next name, given the one before it in the group; also gives the bytes it expands to.
fn check_name(
    expansion: &mut Expansion<'_>,
    before: Checked,
) -> Result<(Checked, usize), &'static str> {
    let prefix = expansion.next().and_then(prefix_length);
    let prefix = prefix.filter(|prefix| {
        *prefix <= before.len && before.ends.wrapping_shr(bits_of(*prefix)) & 1 == 1
    });
    let prefix = prefix.ok_or("a prefix of the name before that ends between characters")?;
    let mut len = prefix;
    let kept = 2_u128.wrapping_shl(bits_of(prefix)).wrapping_sub(1);
    let mut ends = before.ends & kept;
    let mut checker = name::Checker::default();
    loop {
        let byte = expansion.next().ok_or("the end of every name")?;
        if byte == 0 {
            break;
        }
        if !checker.push(byte) {
            return Err(name::CHARACTERS);
        }
        len = len.saturating_add(1);
        if len > NAME_MAX {
            return Err(name::LENGTH);
        }
        if len <= PREFIX_MAX && checker.is_whole() {
            ends |= 1_u128.wrapping_shl(bits_of(len));
        }
    }
    if !checker.is_whole() {
        return Err(name::CHARACTERS);
    }
    if len == 0 {
        return Err(name::LENGTH);
    }
    let expanded = len.saturating_sub(prefix).saturating_add(2);
    Ok((Checked { len, ends }, expanded))
}

/// A length of at most [`PREFIX_MAX`], for shifts.
fn bits_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn prefix_length(byte: u8) -> Option<usize> {
    let length = usize::from(byte.checked_sub(PREFIX_BASE)?);
    (length <= PREFIX_MAX).then_some(length)
}

/// The bytes of expanded symbols.
#[derive(Clone, Debug)]
struct Expansion<'a> {
    grammar: Grammar<'a>,
    rest: &'a [u8],
    /// Second halves of rules whose first halves are being expanded.
    stack: [u8; DEPTH_MAX],
    depth: usize,
}

impl Iterator for Expansion<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let mut symbol = match self.depth.checked_sub(1) {
            Some(top) => {
                self.depth = top;
                *self.stack.get(top)?
            }
            None => {
                let (first, rest) = self.rest.split_first()?;
                self.rest = rest;
                *first
            }
        };
        loop {
            step();
            let number = usize::from(symbol);
            let Some(rule) = number.checked_sub(self.grammar.terminals.len()) else {
                return self.grammar.terminals.get(number).copied();
            };
            let [first, second] = *self.grammar.rules.get(rule)?;
            *self.stack.get_mut(self.depth)? = second;
            self.depth = self.depth.saturating_add(1);
            symbol = first;
        }
    }
}

/// The bytes of one name, which begins with bytes of the names before it in the group.
#[derive(Clone, Debug)]
struct NameBytes<'a> {
    expansion: Expansion<'a>,
    /// The first bytes of the name before.
    head: [u8; PREFIX_MAX],
    /// How many of them the name shares.
    prefix: usize,
    /// Position in the name.
    position: usize,
}

impl<'a> NameBytes<'a> {
    fn new(files: &Files<'a>, file: u32) -> Self {
        let file = index(file);
        let mut expansion = files.expand(file / GROUP);
        let mut head = [0; PREFIX_MAX];
        for _ in 0..file % GROUP {
            let mut position = expansion.next().and_then(prefix_length).unwrap_or(0);
            for byte in expansion.by_ref().take(NAME_MAX.saturating_add(1)) {
                if byte == 0 {
                    break;
                }
                if let Some(slot) = head.get_mut(position) {
                    *slot = byte;
                }
                position = position.saturating_add(1);
            }
        }
        let prefix = expansion.next().and_then(prefix_length).unwrap_or(0);
        Self {
            expansion,
            head,
            prefix,
            position: 0,
        }
    }
}

impl Iterator for NameBytes<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let position = self.position;
        if position >= NAME_MAX {
            return None;
        }
        self.position = position.saturating_add(1);
        if position < self.prefix {
            step();
            return self.head.get(position).copied();
        }
        let byte = self.expansion.next().filter(|byte| *byte != 0);
        if byte.is_none() {
            self.position = NAME_MAX;
        }
        byte
    }
}

/// The bytes of one character.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Character {
    bytes: [u8; 4],
    len: usize,
}

impl Character {
    /// The character, or a question mark for one that must not be in a log.
    pub(crate) fn printable(self) -> Self {
        let mut characters = self.as_str().chars();
        match characters.next() {
            Some(character) if name::is_printable(character) => self,
            Some(_) | None => Self {
                bytes: [b'?', 0, 0, 0],
                len: 1,
            },
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or(&[]);
        core::str::from_utf8(bytes).unwrap_or("")
    }
}

/// The characters of checked bytes.
pub(crate) struct Characters<B>(pub(crate) B);

impl<B: Iterator<Item = u8>> Iterator for Characters<B> {
    type Item = Character;

    /// Gathers bytes into a character: the first says how many follow.
    fn next(&mut self) -> Option<Character> {
        let first = self.0.next()?;
        let mut character = Character {
            bytes: [first, 0, 0, 0],
            len: 1,
        };
        let more = match first.leading_ones() {
            2 => 1,
            3 => 2,
            4 => 3,
            _ => 0,
        };
        for (slot, byte) in character
            .bytes
            .iter_mut()
            .skip(1)
            .take(more)
            .zip(&mut self.0)
        {
            *slot = byte;
            character.len = character.len.saturating_add(1);
        }
        Some(character)
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

    use alloc::vec;
    use alloc::vec::Vec;

    use super::{
        BUILT_IN, DEPTH_MAX, EXPANSION_MAX, Files, GROUP, Grammar, PREFIX_BASE, PREFIX_MAX,
        SYMBOLS_MAX, width_of,
    };
    use crate::index;
    use crate::writer::{EncodeError, narrow};

    /// Encodes names that keep the rules for names, with the built-in grammar or one of their own.
    pub(crate) fn encode(names: &[&str]) -> Result<Vec<u8>, EncodeError> {
        let groups = names.chunks(GROUP).map(front_code);
        let groups: Vec<Vec<u8>> = groups.collect::<Result<_, _>>()?;
        let own = with_own_grammar(&groups)?;
        let built_in = with_built_in_grammar(&groups)?;
        let count = narrow("the number of files", names.len())?;
        let fits = |section: &Vec<u8>| {
            let files = Files::new(section, count);
            section.len() < own.len() && files.is_some_and(|files| files.check().is_ok())
        };
        Ok(built_in.filter(fits).unwrap_or(own))
    }

    /// A grammar for lists of names, in the form of the built-in one.
    pub(crate) fn built_in_grammar(lists: &[Vec<&str>]) -> Result<Vec<u8>, EncodeError> {
        let groups = lists.iter().flat_map(|names| names.chunks(GROUP));
        let groups: Vec<Vec<u8>> = groups.map(front_code).collect::<Result<_, _>>()?;
        let (grammar, _) = grammar_of(&groups)?;
        Ok(grammar)
    }

    fn with_own_grammar(groups: &[Vec<u8>]) -> Result<Vec<u8>, EncodeError> {
        let (mut section, stream) = grammar_of(groups)?;
        let symbols: Vec<Vec<u8>> = stream
            .split(|&symbol| symbol == MARK)
            .take(groups.len())
            // All but the mark are below 256.
            .map(|group| {
                let symbols = group.iter().copied();
                symbols
                    .filter_map(|symbol| u8::try_from(symbol).ok())
                    .collect()
            })
            .collect();
        push_groups(&mut section, &symbols)?;
        Ok(section)
    }

    /// The shortest way to write every group; `None` where a byte has no symbol.
    fn with_built_in_grammar(groups: &[Vec<u8>]) -> Result<Option<Vec<u8>>, EncodeError> {
        let grammar = Grammar::split(BUILT_IN);
        let (grammar, _) = grammar.ok_or(EncodeError::Invariant("a grammar of another form"))?;
        let mut expanded: Vec<Vec<u8>> = grammar.terminals.iter().map(|byte| vec![*byte]).collect();
        for [first, second] in grammar.rules {
            let parts = [*first, *second].map(|part| expanded[usize::from(part)].as_slice());
            expanded.push(parts.concat());
        }
        let symbols: Option<Vec<Vec<u8>>> = groups.iter().map(|g| shortest(g, &expanded)).collect();
        let Some(symbols) = symbols else {
            return Ok(None);
        };
        let mut section = vec![0];
        push_groups(&mut section, &symbols)?;
        Ok(Some(section))
    }

    /// The fewest symbols that stand for these bytes.
    fn shortest(bytes: &[u8], expanded: &[Vec<u8>]) -> Option<Vec<u8>> {
        // For every position from the end on: how many symbols there are to the end, and the first.
        let mut ways: Vec<Option<(usize, u8)>> = vec![None; bytes.len() + 1];
        ways[bytes.len()] = Some((0, 0));
        for at in (0..bytes.len()).rev() {
            let fits = (0..=u8::MAX).zip(expanded);
            let fits = fits.filter(|(_, symbol)| bytes[at..].starts_with(symbol));
            let ways_from = fits.filter_map(|(number, symbol)| {
                let (count, _) = ways[at + symbol.len()]?;
                Some((count + 1, number))
            });
            ways[at] = ways_from.min();
        }
        let mut symbols = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (_, symbol) = ways[at]?;
            symbols.push(symbol);
            at += expanded[usize::from(symbol)].len();
        }
        Some(symbols)
    }

    /// Appends where the groups begin, and their symbols.
    fn push_groups(section: &mut Vec<u8>, groups: &[Vec<u8>]) -> Result<(), EncodeError> {
        let symbols: usize = groups.iter().map(Vec::len).sum();
        let begins = groups.len().saturating_sub(1);
        let width = match width_of(section.len() + 2 * begins + symbols) {
            2 => 2,
            _ => width_of(section.len() + 4 * begins + symbols),
        };
        let mut begin = 0;
        for group in groups.iter().take(begins) {
            begin += group.len();
            let begin: u32 = narrow("the size of the file names", begin)?;
            section.extend_from_slice(&begin.to_le_bytes()[..width]);
        }
        section.extend(groups.iter().flatten());
        Ok(())
    }

    /// A grammar that fits groups, and their symbols, each group followed by a mark that is no symbol.
    fn grammar_of(groups: &[Vec<u8>]) -> Result<(Vec<u8>, Vec<u16>), EncodeError> {
        // Without names there is nothing to stand for, but there must be a terminal.
        let mut used = [false; SYMBOLS_MAX];
        used[0] = true;
        groups
            .iter()
            .flatten()
            .for_each(|&byte| used[usize::from(byte)] = true);
        let terminals: Vec<u8> = (0..=u8::MAX)
            .filter(|&byte| used[usize::from(byte)])
            .collect();
        let mut symbol_of = [0_u16; SYMBOLS_MAX];
        for (symbol, &byte) in (0..).zip(&terminals) {
            symbol_of[usize::from(byte)] = symbol;
        }
        let mut stream: Vec<u16> = Vec::new();
        for group in groups {
            stream.extend(group.iter().map(|&byte| symbol_of[usize::from(byte)]));
            stream.push(MARK);
        }
        let begins = 2 * groups.len().saturating_sub(1);
        let rules = grammar(&mut stream, terminals.len(), 2 + terminals.len() + begins)?;
        let head = [
            narrow("the number of terminals", terminals.len())?,
            narrow("the number of rules", rules.len())?,
        ];
        Ok((
            [&head, &terminals[..], rules.as_flattened()].concat(),
            stream,
        ))
    }

    const MARK: u16 = u16::MAX;

    fn front_code(names: &[&str]) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        let mut last = "";
        for name in names {
            let same = last.bytes().zip(name.bytes()).take_while(|(a, b)| a == b);
            let mut prefix = same.count().min(PREFIX_MAX);
            while !name.is_char_boundary(prefix) {
                prefix -= 1;
            }
            out.push(PREFIX_BASE + narrow::<u8>("a prefix", prefix)?);
            out.extend_from_slice(&name.as_bytes()[prefix..]);
            out.push(0);
            last = name;
        }
        Ok(out)
    }

    /// Replaces the most frequent pair by a new symbol for as long as that pays, and the names do
    /// not expand too much. `fixed` is the size in bytes of what is neither a rule nor a symbol.
    fn grammar(
        stream: &mut Vec<u16>,
        terminals: usize,
        fixed: usize,
    ) -> Result<Vec<[u8; 2]>, EncodeError> {
        let marks = stream.iter().filter(|&&symbol| symbol == MARK).count();
        let expanded = stream.len() - marks;
        let mut rules = Vec::new();
        let mut depths = vec![0_usize; terminals];
        let mut counts = vec![0_u32; SYMBOLS_MAX * SYMBOLS_MAX];
        let at = |pair: &[u16]| usize::from(pair[0]) * SYMBOLS_MAX + usize::from(pair[1]);
        let is_pair = |pair: &&[u16]| pair[0] != MARK && pair[1] != MARK;
        while depths.len() < SYMBOLS_MAX {
            stream
                .windows(2)
                .filter(is_pair)
                .for_each(|pair| counts[at(pair)] += 1);
            let mut best: Option<(u32, u16, u16)> = None;
            for pair in stream.windows(2).filter(is_pair) {
                let count = core::mem::take(&mut counts[at(pair)]);
                let shallow = pair.iter().all(|&s| depths[usize::from(s)] + 2 < DEPTH_MAX);
                if shallow && count > 0 {
                    best = best.max(Some((count, pair[0], pair[1])));
                }
            }
            // A rule takes two bytes and saves one for each use.
            let Some((count @ 4.., first, second)) = best else {
                break;
            };
            // A pair may occur less often than counted, where it overlaps itself.
            let symbols = stream.len() - marks;
            let least = fixed + (rules.len() + 1) * 2 + symbols.saturating_sub(index(count));
            if expanded > least.saturating_mul(EXPANSION_MAX) {
                break;
            }
            let depth = depths[usize::from(first)].max(depths[usize::from(second)]) + 1;
            let symbol: u16 = narrow("the number of symbols", depths.len())?;
            depths.push(depth);
            let part = |symbol: u16| narrow::<u8>("a symbol", symbol.into());
            rules.push([part(first)?, part(second)?]);
            let mut kept = 0;
            let mut read = 0;
            while read < stream.len() {
                let pair = stream[read] == first && stream.get(read + 1) == Some(&second);
                stream[kept] = if pair { symbol } else { stream[read] };
                read += if pair { 2 } else { 1 };
                kept += 1;
            }
            stream.truncate(kept);
        }
        Ok(rules)
    }
}

#[cfg(all(test, feature = "write"))]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;
    use std::{format, vec};

    use super::*;

    fn round_trip(names: &[&str]) -> usize {
        let section = write::encode(names).unwrap();
        let files = Files::new(&section, u32::try_from(names.len()).unwrap()).unwrap();
        files.check().unwrap();
        for (file, name) in (0..).zip(names) {
            let found = FileName::new(&section, files.count, file).unwrap();
            assert_eq!(found.to_string(), *name);
            assert!(found == **name);
        }
        section.len()
    }

    #[test]
    fn names_come_back() {
        round_trip(&[]);
        round_trip(&["a"]);
        round_trip(&["fs/ä.c", "fs/ö.c", "fs/\u{1f980}/x.c", "fs/\u{1f981}.c"]);
        let long = "x/".repeat(255);
        round_trip(&["x/x/x", &long, &format!("{long}y"), &long[..500], "z"]);
        // So much alike that all rules together would expand to too much.
        let alike: Vec<String> = (0..2000)
            .map(|n| format!("{}{n:04}", &long[..500]))
            .collect();
        let alike: Vec<&str> = alike.iter().map(String::as_str).collect();
        round_trip(&alike);
        let every = (0x20_u8..0x7f).map(|byte| String::from_utf8(vec![byte]).unwrap());
        let other = (0xa0..0x400).filter_map(char::from_u32).map(String::from);
        let every: Vec<String> = every.chain(other).collect();
        let every: Vec<&str> = every.iter().map(String::as_str).collect();
        round_trip(&every);
    }

    /// A section of one group, in which every byte but the last is its own symbol.
    fn section(names: &[&[u8]]) -> Vec<u8> {
        let mut section = vec![255, 0];
        section.extend(0..u8::MAX);
        section.extend(names.concat());
        section
    }

    fn refusal(names: &[&[u8]]) -> Option<&'static str> {
        let section = section(names);
        let files = Files::new(&section, u32::try_from(names.len()).unwrap()).unwrap();
        files.check().err().map(|fault| fault.expected)
    }

    #[test]
    fn names_that_break_a_rule_are_refused() {
        // '-' is a prefix of no bytes, '.' one of 1 byte, '/' one of 2.
        assert_eq!(refusal(&[b"-a.c\0", b"/h\0"]), None);
        assert_eq!(refusal(&["-é\0".as_bytes(), b"/\0"]), None);
        for name in [
            "-\u{1b}[2J\0",
            "-a\u{7f}\0",
            "-\u{85}\0",
            "-a\u{202e}c.b\0",
            "-\u{2067}\0",
            "-\u{61c}\0",
            "-\u{2028}\0",
        ] {
            assert_eq!(
                refusal(&[name.as_bytes()]),
                Some(name::CHARACTERS),
                "{name:?}"
            );
        }
        assert_eq!(refusal(&[b"-\xc3\0"]), Some(name::CHARACTERS));
        let prefix = "a prefix of the name before that ends between characters";
        assert_eq!(refusal(&["-é\0".as_bytes(), b".\xa9\0"]), Some(prefix));
        assert_eq!(refusal(&[b".a\0"]), Some(prefix));
        assert_eq!(refusal(&[b"-a\0", b"/b\0"]), Some(prefix));
        assert_eq!(refusal(&[b"-\0"]), Some(name::LENGTH));
        let long = [b"-", &[b'a'; NAME_MAX][..], b"\0"].concat();
        assert_eq!(refusal(&[&long]), None);
        assert_eq!(refusal(&[&long, b"}abc\0"]), None);
        let longer = [b"-", &[b'a'; NAME_MAX + 1][..], b"\0"].concat();
        assert_eq!(refusal(&[&longer]), Some(name::LENGTH));
        assert_eq!(refusal(&[b"-a"]), Some("the end of every name"));
    }

    #[test]
    fn directories_are_not_repeated() {
        let names: Vec<String> = (0..500)
            .map(|n| format!("drivers/net/ethernet/e{n}.c"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(round_trip(&names) < 2500);
    }

    /// The bytes of a symbol, by definition; `None` where a rule or symbol is not well-formed.
    fn expand(terminals: &[u8], rules: &[[u8; 2]], symbol: u8, to: &mut Vec<u8>) -> Option<()> {
        let symbol = usize::from(symbol);
        if let Some(byte) = terminals.get(symbol) {
            to.push(*byte);
            return Some(());
        }
        let pair = rules.get(symbol - terminals.len())?;
        for part in pair {
            if usize::from(*part) >= symbol {
                return None;
            }
            expand(terminals, rules, *part, to)?;
        }
        Some(())
    }

    /// The names of one group, by definition.
    fn names(bytes: &[u8], count: usize) -> Option<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        let mut rest = bytes;
        for _ in 0..count {
            let (prefix, after) = rest.split_first()?;
            let prefix = usize::from(prefix.checked_sub(PREFIX_BASE)?);
            let before = names.last().map_or("", String::as_str);
            let end = after.iter().position(|byte| *byte == 0)?;
            let name = [before.as_bytes().get(..prefix)?, &after[..end]].concat();
            if name.is_empty() {
                return None;
            }
            names.push(String::from_utf8(name).ok()?);
            rest = &after[end + 1..];
        }
        rest.is_empty().then_some(names)
    }

    /// A proof for sections of one group, four terminals, two rules and up to four symbols: the check
    /// accepts what the definition accepts, and every name is what the definition makes of it.
    #[test]
    fn every_small_section_is_what_its_definition_makes_of_it() {
        let terminals = *b"\0a-.";
        let mut accepted = 0;
        let pair = |number: u8, symbols: u8| [number / symbols, number % symbols];
        // One symbol more than there are, for each.
        for first in (0..25).map(|number| pair(number, 5)) {
            for second in (0..36).map(|number| pair(number, 6)) {
                let rules = [first, second];
                let is_good = first[0].max(first[1]) < 4 && second[0].max(second[1]) < 5;
                let len_max = if is_good { 4 } else { 1 };
                for len in 0..=len_max {
                    for number in 0..7_usize.pow(len) {
                        let digit = |at| u8::try_from(number / 7_usize.pow(at) % 7).unwrap();
                        let symbols: Vec<u8> = (0..len).map(digit).collect();
                        for count in 1..=2 {
                            accepted +=
                                usize::from(is_defined(&terminals, &rules, &symbols, count));
                        }
                    }
                }
            }
        }
        assert!(accepted > 10_000, "{accepted}");
    }

    /// Compares a section with its definition, and says whether it is accepted.
    fn is_defined(terminals: &[u8], rules: &[[u8; 2]], symbols: &[u8], count: u32) -> bool {
        let mut bytes = Vec::new();
        let rules_end =
            (4..6).all(|symbol| expand(terminals, rules, symbol, &mut Vec::new()).is_some());
        let expanded = symbols
            .iter()
            .try_for_each(|symbol| expand(terminals, rules, *symbol, &mut bytes));
        let defined = expanded.filter(|()| rules_end);
        let names = defined.and_then(|()| names(&bytes, index(count)));

        let head = [4, u8::try_from(rules.len()).unwrap()];
        let section = [&head[..], terminals, rules.as_flattened(), symbols].concat();
        let files = Files::new(&section, count).unwrap();
        let checked = files.check();
        assert_eq!(
            checked.is_ok(),
            names.is_some(),
            "{rules:?} {symbols:?}: {checked:?} {names:?}"
        );
        let Some(names) = names else { return false };
        for (file, name) in (0..).zip(&names) {
            let found = FileName::new(&section, count, file).unwrap();
            assert_eq!(found.to_string(), *name, "{rules:?} {symbols:?}");
        }
        true
    }
}
