//! The section of file names: front-coded in groups, with a grammar of byte pairs (Gage's byte pair
//! encoding), as the head of the crate specifies it.

use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::buffer::StrBuffer;
use crate::encoding::Fault;
use crate::{index, wide};

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

    /// Not inlined: its stack must not be there while rows are decoded.
    #[inline(never)]
    pub(crate) fn push_to(&self, text: &mut StrBuffer<'_>) {
        for character in self.characters() {
            text.push_str(character.as_str());
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

impl PartialOrd for FileName<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FileName<'_> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl core::hash::Hash for FileName<'_> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        for byte in self.bytes() {
            state.write_u8(byte);
        }
        state.write_u8(0);
    }
}

impl PartialEq<str> for FileName<'_> {
    fn eq(&self, other: &str) -> bool {
        self.bytes().eq(other.bytes())
    }
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FilesHeader {
    terminals: U16,
    rules: U16,
}

/// The section of file names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files<'a> {
    terminals: &'a [u8],
    rules: &'a [[u8; 2]],
    groups: &'a [U32],
    symbols: &'a [u8],
    count: u32,
}

impl<'a> Files<'a> {
    const EMPTY: Self = Self {
        terminals: &[],
        rules: &[],
        groups: &[],
        symbols: &[],
        count: 0,
    };

    pub(crate) fn new(section: &'a [u8], count: u32) -> Option<Self> {
        let (header, rest) = FilesHeader::ref_from_prefix(section).ok()?;
        let (terminals, rest) = rest.split_at_checked(header.terminals.get().into())?;
        let rules = usize::from(header.rules.get());
        let (rules, rest) = <[[u8; 2]]>::ref_from_prefix_with_elems(rest, rules).ok()?;
        let groups = index(count).div_ceil(GROUP);
        let (groups, symbols) = <[U32]>::ref_from_prefix_with_elems(rest, groups).ok()?;
        Some(Self {
            terminals,
            rules,
            groups,
            symbols,
            count,
        })
    }

    /// The expanded bytes of a group and, behind it, of those that follow.
    fn expand(&self, group: usize) -> Expansion<'a> {
        let begin = self
            .groups
            .get(group)
            .map_or(usize::MAX, |begin| index(begin.get()));
        Expansion {
            files: *self,
            rest: self.symbols.get(begin..).unwrap_or(&[]),
            stack: [0; DEPTH_MAX],
            depth: 0,
        }
    }

    /// Proves that every name is there, and that it can be printed in a kernel log.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.check_grammar()?;
        let mut end = 0;
        for (group, begin) in self.groups.iter().enumerate() {
            let at = group.saturating_mul(size_of::<U32>());
            if index(begin.get()) != end {
                return Err(Fault {
                    at,
                    expected: "a group of names where the last one ended",
                    found: begin.get().into(),
                });
            }
            let first = group.saturating_mul(GROUP);
            let names = index(self.count).saturating_sub(first).min(GROUP);
            let mut expansion = self.expand(group);
            let mut last = 0;
            for name in 0..names {
                let fault = |expected, found| Fault {
                    at,
                    expected,
                    found,
                };
                let prefix = expansion.next().and_then(prefix_length);
                let prefix = prefix
                    .filter(|prefix| *prefix <= last && (name > 0 || *prefix == 0))
                    .ok_or_else(|| fault("a prefix of the name before", wide(last)))?;
                let rest = expansion.by_ref().take_while(|byte| *byte != 0).count();
                last = prefix.saturating_add(rest);
                if last == 0 {
                    return Err(fault("a name that is not empty", 0));
                }
            }
            if expansion.depth != 0 {
                return Err(Fault {
                    at,
                    expected: "a symbol that ends with its group",
                    found: wide(expansion.depth),
                });
            }
            end = self.symbols.len().saturating_sub(expansion.rest.len());
        }
        if end != self.symbols.len() {
            return Err(Fault {
                at: size_of_val(self.groups),
                expected: "names up to the end of the section",
                found: wide(self.symbols.len()),
            });
        }
        (0..self.count).try_for_each(|file| self.check_text(file))
    }

    /// Rules refer to smaller symbols, so they end; and they do not nest too deep.
    fn check_grammar(&self) -> Result<(), Fault> {
        let mut depths = [0_u8; SYMBOLS_MAX];
        let terminals = self.terminals.len();
        for (rule, pair) in self.rules.iter().enumerate() {
            let symbol = terminals.saturating_add(rule);
            let fault = |expected| Fault {
                at: size_of::<FilesHeader>().saturating_add(symbol),
                expected,
                found: wide(symbol),
            };
            let depth = pair.iter().map(|part| depths.get(usize::from(*part)));
            let depth = depth
                .flatten()
                .max()
                .copied()
                .unwrap_or(0)
                .saturating_add(1);
            if pair.iter().any(|part| usize::from(*part) >= symbol) {
                return Err(fault("a rule of smaller symbols"));
            }
            if usize::from(depth) >= DEPTH_MAX {
                return Err(fault("rules nested less than 16 deep"));
            }
            *depths
                .get_mut(symbol)
                .ok_or_else(|| fault("at most 256 symbols"))? = depth;
        }
        Ok(())
    }

    fn check_text(&self, file: u32) -> Result<(), Fault> {
        let mut bytes = NameBytes::new(self, file);
        while let Some(character) = character(&mut bytes) {
            let fault = |expected| Fault {
                at: 0,
                expected,
                found: file.into(),
            };
            let Ok(text) = core::str::from_utf8(character.bytes()) else {
                return Err(fault("a name in UTF-8"));
            };
            if text.chars().any(char::is_control) {
                return Err(fault("a name without control characters"));
            }
        }
        Ok(())
    }
}

fn prefix_length(byte: u8) -> Option<usize> {
    let length = usize::from(byte.checked_sub(PREFIX_BASE)?);
    (length <= PREFIX_MAX).then_some(length)
}

/// The bytes that symbols stand for.
#[derive(Clone, Debug)]
struct Expansion<'a> {
    files: Files<'a>,
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
            let number = usize::from(symbol);
            let Some(rule) = number.checked_sub(self.files.terminals.len()) else {
                return self.files.terminals.get(number).copied();
            };
            let [first, second] = *self.files.rules.get(rule)?;
            *self.stack.get_mut(self.depth)? = second;
            self.depth = self.depth.saturating_add(1);
            symbol = first;
        }
    }
}

/// The bytes of one name.
///
/// A name's first bytes may stand in any of the names before it in the group. So a first pass over
/// the group finds how many bytes of each name are still those of the one that is wanted, and a
/// second pass gives them out.
#[derive(Clone, Debug)]
struct NameBytes<'a> {
    expansion: Expansion<'a>,
    /// By name in the group: up to which length it and the wanted name are the same.
    common: [u8; GROUP],
    /// The name at hand, and the wanted one, in the group.
    name: usize,
    wanted: usize,
    /// Position in the name at hand; none before its prefix has been read.
    position: Option<usize>,
}

impl<'a> NameBytes<'a> {
    fn new(files: &Files<'a>, file: u32) -> Self {
        let file = index(file);
        let (group, wanted) = (file / GROUP, file % GROUP);
        let mut prefixes = [0_u8; GROUP];
        let mut expansion = files.expand(group);
        for prefix in prefixes.iter_mut().take(wanted.saturating_add(1)) {
            let length = expansion.next().and_then(prefix_length).unwrap_or(0);
            *prefix = u8::try_from(length).unwrap_or(0);
            expansion
                .by_ref()
                .take_while(|byte| *byte != 0)
                .for_each(drop);
        }
        // Of the wanted name everything; of each before it, what the prefixes behind it leave.
        let mut common = [0; GROUP];
        let mut least = u8::MAX;
        for name in (0..=wanted).rev() {
            if let (Some(common), Some(prefix)) = (common.get_mut(name), prefixes.get(name)) {
                *common = least;
                least = least.min(*prefix);
            }
        }
        Self {
            expansion: files.expand(group),
            common,
            name: 0,
            wanted,
            position: None,
        }
    }
}

impl Iterator for NameBytes<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        while self.name <= self.wanted {
            let byte = self.expansion.next()?;
            let Some(position) = self.position else {
                self.position = Some(prefix_length(byte)?);
                continue;
            };
            if byte == 0 {
                self.name = self.name.saturating_add(1);
                self.position = None;
                continue;
            }
            self.position = Some(position.saturating_add(1));
            let common = self
                .common
                .get(self.name)
                .map_or(0, |common| usize::from(*common));
            if self.name == self.wanted || position < common {
                return Some(byte);
            }
        }
        None
    }
}

/// The bytes of one character.
#[derive(Clone, Copy, Debug, Default)]
struct Character {
    bytes: [u8; 4],
    len: usize,
}

impl Character {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(self.bytes()).unwrap_or("")
    }
}

/// Gathers bytes into a character: one byte says how many follow.
fn character(bytes: &mut impl Iterator<Item = u8>) -> Option<Character> {
    let first = bytes.next()?;
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
    for (slot, byte) in character.bytes.iter_mut().skip(1).take(more).zip(bytes) {
        *slot = byte;
        character.len = character.len.saturating_add(1);
    }
    Some(character)
}

struct Characters<'a>(NameBytes<'a>);

impl Iterator for Characters<'_> {
    type Item = Character;

    fn next(&mut self) -> Option<Character> {
        character(&mut self.0)
    }
}

#[cfg(feature = "alloc")]
pub(crate) mod write {
    //! The writer of the section.
    #![expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "runs on the host, over its own lists; the reader is what a kernel links"
    )]

    use alloc::vec;
    use alloc::vec::Vec;

    use zerocopy::IntoBytes;
    use zerocopy::byteorder::little_endian::U32;

    use super::{DEPTH_MAX, FilesHeader, GROUP, PREFIX_BASE, PREFIX_MAX, SYMBOLS_MAX};

    /// Encodes names; none of them may have a zero byte. `None` if they are too long together.
    pub(crate) fn encode(names: &[&str]) -> Option<Vec<u8>> {
        let groups: Vec<Vec<u8>> = names.chunks(GROUP).map(front_code).collect();
        let mut used = [false; SYMBOLS_MAX];
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
        // A stream of the groups, with a mark behind each that is no symbol.
        let mut stream: Vec<u16> = Vec::new();
        for group in &groups {
            stream.extend(group.iter().map(|&byte| symbol_of[usize::from(byte)]));
            stream.push(MARK);
        }
        let rules = grammar(&mut stream, terminals.len());

        let mut begins: Vec<U32> = Vec::new();
        let mut symbols: Vec<u8> = Vec::new();
        for group in stream.split_inclusive(|&symbol| symbol == MARK) {
            begins.push(u32::try_from(symbols.len()).ok()?.into());
            // All but the mark are below 256.
            symbols.extend(group.iter().filter_map(|&symbol| u8::try_from(symbol).ok()));
        }
        let header = FilesHeader {
            terminals: u16::try_from(terminals.len()).ok()?.into(),
            rules: u16::try_from(rules.len()).ok()?.into(),
        };
        let parts: [&[u8]; 5] = [
            header.as_bytes(),
            &terminals,
            rules.as_bytes(),
            begins.as_bytes(),
            &symbols,
        ];
        Some(parts.concat())
    }

    const MARK: u16 = u16::MAX;

    fn front_code(names: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut last = "";
        for name in names {
            let same = last.bytes().zip(name.bytes()).take_while(|(a, b)| a == b);
            let mut prefix = same.count().min(PREFIX_MAX);
            while !name.is_char_boundary(prefix) {
                prefix -= 1;
            }
            out.push(PREFIX_BASE + u8::try_from(prefix).unwrap_or(0));
            out.extend_from_slice(&name.as_bytes()[prefix..]);
            out.push(0);
            last = name;
        }
        out
    }

    /// Replaces the most frequent pair by a new symbol for as long as that pays.
    fn grammar(stream: &mut Vec<u16>, terminals: usize) -> Vec<[u8; 2]> {
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
            let Some((4.., first, second)) = best else {
                break;
            };
            let depth = depths[usize::from(first)].max(depths[usize::from(second)]) + 1;
            let symbol = u16::try_from(depths.len()).unwrap_or(MARK);
            depths.push(depth);
            rules.push([first, second].map(|part| u8::try_from(part).unwrap_or(0)));
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
        rules
    }
}

#[cfg(all(test, feature = "alloc"))]
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
        let long = "x/".repeat(3000);
        round_trip(&["x/x/x", &long, &format!("{long}y"), &long[..500], "z"]);
        let every = (0x20_u8..0x7f).map(|byte| String::from_utf8(vec![byte]).unwrap());
        let other = (0xa0..0x400).filter_map(char::from_u32).map(String::from);
        let every: Vec<String> = every.chain(other).collect();
        let every: Vec<&str> = every.iter().map(String::as_str).collect();
        round_trip(&every);
    }

    #[test]
    fn directories_are_not_repeated() {
        let names: Vec<String> = (0..500)
            .map(|n| format!("drivers/net/ethernet/e{n}.c"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(round_trip(&names) < 2500);
    }
}
