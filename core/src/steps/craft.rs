//! Blobs that are as slow as their size allows, or would be if a limit of the format were not
//! checked.

#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "a generator of test data, over its own numbers"
)]

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;

use crate::blob::{
    Encoding, FORMAT_VERSION, HEADER_SIZE, Header, MAGIC, Profile, RegionWidths, SectionEntry,
    SectionKind,
};
use crate::writer::seal;

/// A hostile blob: its checksum is right.
#[derive(Clone, Debug)]
pub struct Hostile {
    /// What is hostile about it.
    pub name: &'static str,
    /// Its bytes.
    pub blob: Vec<u8>,
    /// The slowest look-up known, in bytes from `_text`.
    pub target: u64,
    /// Whether it breaks a limit of the format.
    pub is_refused: bool,
}

/// A record of a region, of fields as wide as they can be.
#[derive(Clone, Copy, Debug)]
struct RegionRecord {
    start: u64,
    len: u32,
    rows: u32,
    table_end: u32,
    name: u32,
}

/// The name `.text`.
const TEXT: u32 = 0;
/// The first name in the section of names.
const OWN: u32 = 64 * 2;

/// A blob in parts, before they are put together.
#[derive(Clone, Debug)]
struct Parts {
    encoding: Encoding,
    files: u32,
    exact_files: u32,
    regions: Vec<RegionRecord>,
    region_names: Vec<u8>,
    file_names: Vec<u8>,
    tables: Vec<u8>,
    model: Vec<u8>,
    /// Functions, their names, and chains, if there are any.
    chains: Option<[Vec<u8>; 3]>,
    /// Sections of an unknown kind, without bytes.
    unknown: u32,
}

impl Parts {
    /// One region with one table.
    fn new(encoding: Encoding, len: u32, rows: u32, table: Vec<u8>) -> Self {
        Self {
            encoding,
            files: 1,
            exact_files: 0,
            regions: vec![RegionRecord {
                start: 0,
                len,
                rows,
                table_end: table.len() as u32,
                name: TEXT,
            }],
            region_names: Vec::new(),
            file_names: names(b"\0-a", &[], &[vec![1, 2, 0]]),
            tables: table,
            model: Vec::new(),
            chains: None,
            unknown: 0,
        }
    }

    /// One region with one row of 16 bytes.
    fn small() -> Self {
        let row = [0_u32.to_le_bytes(), 7_u32.to_le_bytes()].concat();
        Self::new(Encoding::Flat, 16, 1, [&row[..], &[0, 0]].concat())
    }

    fn blob(self) -> Vec<u8> {
        let mut regions = RegionWidths::new([8, 4, 4, 4, 4]).as_bytes().to_vec();
        for region in &self.regions {
            regions.extend(region.start.to_le_bytes());
            let fields = [region.len, region.rows, region.table_end, region.name];
            regions.extend(fields.map(u32::to_le_bytes).as_flattened());
        }
        let mut sections = vec![
            (SectionKind::Regions.number(), regions),
            (SectionKind::RegionNames.number(), self.region_names),
            (SectionKind::Files.number(), self.file_names),
            (SectionKind::Rows.number(), self.tables),
        ];
        if self.encoding == Encoding::Packed {
            sections.push((SectionKind::Model.number(), self.model));
        }
        if let Some([functions, names, chains]) = self.chains {
            sections.push((SectionKind::Functions.number(), functions));
            sections.push((SectionKind::FunctionNames.number(), names));
            sections.push((SectionKind::Chains.number(), chains));
        }
        sections.extend((0..self.unknown).map(|_| (99, Vec::new())));
        let mut directory: Vec<SectionEntry> = Vec::new();
        let mut end = HEADER_SIZE + sections.len() * size_of::<SectionEntry>();
        for (kind, bytes) in &sections {
            directory.push(SectionEntry {
                kind: *kind as u8,
                size: (bytes.len() as u32).into(),
            });
            end += bytes.len();
        }
        let header = Header {
            magic: MAGIC,
            format_version: FORMAT_VERSION.into(),
            encoding: self.encoding.number(),
            profile: Profile::Full.number(),
            total_size: (end as u32).into(),
            crc32: 0.into(),
            machine: 62.into(),
            build_id_len: 0,
            sections: sections.len() as u8,
            text_start: 0.into(),
            files: self.files.into(),
            exact_files: self.exact_files.into(),
            build_id: [0; 20],
        };
        let mut blob = [header.as_bytes(), directory.as_bytes()].concat();
        for (_, bytes) in sections {
            blob.extend(bytes);
        }
        seal(&mut blob);
        blob
    }

    fn hostile(self, name: &'static str, target: u64, is_refused: bool) -> Hostile {
        Hostile {
            name,
            blob: self.blob(),
            target,
            is_refused,
        }
    }
}

/// All of them.
pub fn all() -> Vec<Hostile> {
    vec![
        names_without_end(),
        names_that_expand_too_much(),
        names_of_no_bytes(),
        undefined_symbols(),
        long_names(b'a'),
        long_names(0xc3),
        dense_names(b'a', 1000),
        dense_names(0xc3, 1000),
        dense_names(b'a', 10_000),
        hot_pairs_without_bits(),
        successors_without_bits(),
        regions_that_share_a_name(),
        regions_without_text(),
        unknown_sections(),
        blocks(1 << 16, true),
        blocks(256, false),
        lists_of_callers(),
        long_function_names(),
        pages_of_small_blocks(),
        delta_of_long_numbers(),
        rows_without_bytes(),
    ]
}

/// A section of file names.
fn names(terminals: &[u8], rules: &[[u8; 2]], groups: &[Vec<u8>]) -> Vec<u8> {
    let mut section = Vec::new();
    section.extend([terminals.len() as u8, rules.len() as u8]);
    section.extend(terminals);
    section.extend(rules.as_flattened());
    let begins = groups.len().saturating_sub(1);
    let symbols: usize = groups.iter().map(Vec::len).sum();
    let width = match section.len() + 2 * begins + symbols {
        0..=0xffff => 2,
        _ => 4,
    };
    let mut begin = 0_u32;
    for group in groups.iter().take(begins) {
        begin += group.len() as u32;
        section.extend(&begin.to_le_bytes()[..width]);
    }
    groups.iter().for_each(|group| section.extend(group));
    section
}

/// Rules of which each doubles the one before; the first stands for the symbols `pair`.
fn doubling(pair: [u8; 2], first: u8, count: u8) -> Vec<[u8; 2]> {
    let mut rules = vec![pair];
    rules.extend((0..count - 1).map(|rule| [first + rule; 2]));
    rules
}

/// One name of 65 MB.
fn names_without_end() -> Hostile {
    let mut parts = Parts::small();
    let mut group = vec![1];
    group.extend(vec![3 + 14; 2000]);
    group.push(0);
    parts.file_names = names(b"\0-a", &doubling([2, 2], 3, 15), &[group]);
    parts.hostile("a name of 65 MB", 0, true)
}

/// A thousand groups of 16 names of 512 bytes, in 52 bytes each.
fn names_that_expand_too_much() -> Hostile {
    let mut parts = Parts::small();
    let group = [1, 3 + 8, 0].repeat(16);
    parts.files = 16_000;
    parts.file_names = names(b"\0-a", &doubling([2, 2], 3, 9), &vec![group; 1000]);
    parts.hostile("names of 150 times their size", 0, true)
}

/// 16 empty names in one symbol, many times.
fn names_of_no_bytes() -> Hostile {
    let mut parts = Parts::small();
    parts.files = 16_000;
    parts.file_names = names(b"\0-a", &doubling([1, 0], 3, 5), &vec![vec![3 + 4]; 1000]);
    parts.hostile("empty names", 0, true)
}

fn undefined_symbols() -> Hostile {
    let mut parts = Parts::small();
    parts.file_names = names(b"\0-a", &[], &[vec![1, 2, 99, 0]]);
    parts.hostile("an undefined symbol", 0, true)
}

/// The symbols of long names: the end, no prefix, and two of which names are made, with rules that
/// double them up to 512 bytes.
fn alphabet(byte: u8) -> ([u8; 4], Vec<[u8; 2]>) {
    // With 0xc3 before it this is a letter of two bytes.
    let second = if byte < 0x80 { byte } else { 0xa9 };
    ([0, b'-', byte, second], doubling([2, 3], 4, 9))
}

/// A group of 16 names of 512 bytes: the longest way to the last one.
fn long_names(byte: u8) -> Hostile {
    let mut parts = Parts::small();
    let (terminals, mut rules) = alphabet(byte);
    // So many bytes that names may expand to so much.
    rules.resize(60, [0; 2]);
    parts.files = 16;
    parts.file_names = names(&terminals, &rules, &[[1, 4 + 8, 0].repeat(16)]);
    // The last file.
    let files = parts.tables.len() - 2;
    parts.tables[files] = 15;
    let name = if byte < 0x80 {
        "a group of long names"
    } else {
        "a group of long names, not ASCII"
    };
    parts.hostile(name, 0, false)
}

/// Names that expand to 62 times their size.
fn dense_names(byte: u8, groups: usize) -> Hostile {
    let mut parts = Parts::small();
    let (terminals, rules) = alphabet(byte);
    let of_4 = [1, 4 + 6, 4 + 6, 4 + 6, 4 + 6, 0].repeat(8);
    let of_8 = [&[1][..], &[4 + 5; 8], &[0]].concat().repeat(8);
    let group = [of_4, of_8].concat();
    parts.files = groups as u32 * 16;
    parts.file_names = names(&terminals, &rules, &vec![group; groups]);
    let is_refused = groups > 1022;
    let name = match (is_refused, byte) {
        (true, _) => "names of more than 8 MiB",
        (false, ..0x80) => "names of 62 times their size",
        (false, 0x80..) => "names of 62 times their size, not ASCII",
    };
    parts.hostile(name, 0, is_refused)
}

/// The entry of a number code.
const fn number(head: u16, raw: u16, length: u16) -> u16 {
    head << 9 | raw << 4 | length
}

/// A model: `hot_pairs` in `hot` bytes, tables of one bit for numbers of which each entry is the
/// same, and one code for tokens, of two symbols of one bit.
fn model(
    page_bits: u8,
    hot_pairs: u32,
    hot: &[u8],
    numbers: [u16; 7],
    tokens: [u16; 2],
) -> Vec<u8> {
    let mut model = vec![0, page_bits, 4, 0, 0, 0, 0];
    model.extend(hot_pairs.to_le_bytes());
    model.extend((hot.len() as u32).to_le_bytes());
    model.extend(hot);
    // One token code, number codes of one bit, one class of hot pairs, no pool; the contexts.
    model.extend([1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
    model.extend([0; 400]);
    let entry = |entry: u16| entry.to_le_bytes();
    for number in numbers {
        model.extend([number; 2].map(entry).as_flattened());
    }
    for symbol in tokens {
        model.extend([symbol << 4 | 1; 64].map(entry).as_flattened());
    }
    model
}

/// The number codes of [`model`]: lengths of 16 bytes, blocks that begin with a gap.
const NUMBERS: [u16; 7] = [
    number(1, 0, 1),
    number(0, 0, 1),
    number(0, 0, 1),
    number(0, 0, 1),
    number(0, 0, 1),
    number(0, 0, 1),
    number(0, 0, 1),
];

const HOT: u16 = 1033;
const SUCCESSOR: u16 = 1034;

/// One hot pair of file 0 and line 1, which is its own successor.
const HOT_PAIR: &[u8] = &[0, 1, 0, 1, 1, 0b1001, 0];

fn hot_pairs_without_bits() -> Hostile {
    let mut parts = Parts::new(Encoding::Packed, 16, 1, vec![0, 0]);
    parts.model = model(8, u32::MAX, &[0; 5], NUMBERS, [HOT, SUCCESSOR]);
    parts.hostile("2^32 hot pairs of no bits", 0, true)
}

fn successors_without_bits() -> Hostile {
    let mut parts = Parts::new(Encoding::Packed, 16, 1, vec![0, 0]);
    let hot = [&[0, 0, 0, 31, 0][..], &[0xff; 40_000]].concat();
    parts.model = model(8, 10_000, &hot, NUMBERS, [HOT, SUCCESSOR]);
    parts.hostile("successors of no bits", 0, true)
}

/// Every region has the same name of 512 bytes.
fn regions_that_share_a_name() -> Hostile {
    let mut parts = Parts::small();
    parts.region_names = [&[b'x'; 512][..], &[0]].concat();
    parts.regions[0].name = OWN;
    let empty = RegionRecord {
        start: 16,
        len: 0,
        rows: 0,
        ..parts.regions[0]
    };
    parts.regions.resize(30_000, empty);
    parts.hostile("regions that share a long name", 0, true)
}

fn regions_without_text() -> Hostile {
    let mut parts = Parts::small();
    let first = parts.regions[0];
    for number in 0..30_000_u32 {
        parts.region_names.extend(b"x\0");
        parts.regions.push(RegionRecord {
            start: 16,
            len: 0,
            rows: 0,
            name: OWN + 4 * number,
            ..first
        });
    }
    parts.hostile("regions without text", 15, false)
}

fn unknown_sections() -> Hostile {
    let mut parts = Parts::small();
    parts.unknown = 250;
    parts.hostile("unknown sections without bytes", 0, false)
}

/// A field of so many bits.
fn push_bits(bits: &mut Vec<bool>, value: u32, width: u32) {
    bits.extend((0..width).map(|bit| value >> bit & 1 == 1));
}

fn bytes_of(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| {
        let bits = bits.iter().rev();
        bits.fold(0, |byte, bit| byte << 1 | u8::from(*bit))
    };
    bits.chunks(8).map(byte).collect()
}

/// One page with `count` blocks, the last of 160 entries; all its locations but the first are the
/// successor of the hot pair before, the token that takes longest.
fn blocks(count: u32, is_refused: bool) -> Hostile {
    let (parts, len) = parts_of_blocks(count);
    let name = if is_refused {
        "65,536 blocks in a page"
    } else {
        "a page full of blocks"
    };
    parts.hostile(name, (len - 1).into(), is_refused)
}

/// Its parts, and its bytes of text.
fn parts_of_blocks(count: u32) -> (Parts, u32) {
    const LAST: u32 = 41;
    let len = 16 * (count - 1) + 160 * 16;
    let page_bits = len.ilog2() + 1;
    let size_bits = 6;
    let mut table = vec![1, size_bits as u8, 1, 0];
    table.extend(count.to_le_bytes());
    // One page, of which only the number of its first block has a bit.
    table.extend([0, 1, 0, 0, 0]);
    table.push(0);
    let mut records = Vec::new();
    for block in 0..=count {
        let start = if block < count { block } else { 0 };
        let size_before = if block == count { LAST - 1 } else { 0 };
        push_bits(&mut records, start, page_bits - 4);
        push_bits(&mut records, size_before, size_bits);
    }
    table.extend(bytes_of(&records));
    table.extend(vec![0; count as usize - 1]);
    // 160 lengths of one bit, then from the end: a gap, a hot pair, its successors.
    table.extend([0; 20]);
    table.extend([0xff; LAST as usize - 21]);
    table.push(0b0001_1111);
    let mut parts = Parts::new(Encoding::Packed, len, 2, table);
    parts.model = model(page_bits as u8, 1, HOT_PAIR, NUMBERS, [HOT, SUCCESSOR]);
    (parts, len)
}

/// The section of functions in the form for a module: one symbol for each kind of number, which takes no bit, but
/// for a size a bit, see [`LAST_CHUNK`]; and one group with its data.
fn functions(count: u16, symbols: [u8; 11], lists: u16, data: &[u8], declarations: u8) -> Vec<u8> {
    let mut section = count.to_le_bytes().to_vec();
    let code = |symbol: u8| [&[0; 12][..], &[symbol]].concat();
    let mut codes: Vec<Vec<u8>> = symbols.into_iter().map(code).collect();
    codes.push([&[2][..], &[0; 11], &[1, THE_REST]].concat());
    section.extend([0, 0, 0, codes.len() as u8]);
    section.extend(0..codes.len() as u8);
    let mut begin = 0_u16;
    for code in &codes {
        section.extend(begin.to_le_bytes());
        begin += code.len() as u16;
    }
    section.extend(begin.to_le_bytes());
    section.extend(codes.concat());
    section.extend([1, 0, 0, 0, 0, data.len() as u8, 0, 0, declarations]);
    section.extend(lists.to_le_bytes());
    section.extend(data);
    section
}

/// The section of the names of functions: one group of `count`, each of them the first token and the end. That
/// is a byte, or token `depth` twice, and each token from 3 on is the one before, twice.
fn function_names(count: usize, depth: u16) -> Vec<u8> {
    let token = |first: u16, second: u16| {
        let [a, b, c, _] = (u32::from(first) | u32::from(second) << 12).to_le_bytes();
        [a, b, c]
    };
    // The only two with a code: what names are made of, and their end.
    let mut tokens = match depth {
        0 => vec![token(0xfff, b'f'.into())],
        _ => vec![token(depth, depth)],
    };
    tokens.push(token(0xfff, 0));
    tokens.push(token(0xfff, b'f'.into()));
    tokens.extend((2..=depth).map(|below| token(below, below)));
    let mut section = (tokens.len() as u16).to_le_bytes().to_vec();
    section.extend([2, 0]);
    section.extend([0; 28]);
    // No prefix and no underscore: codes of one symbol.
    section.extend([13, 13]);
    section.extend([0; 26]);
    section.extend(tokens.as_flattened());
    // Of every name two bits, from the highest on: the first token, and the end.
    let stream: Vec<u8> = vec![0b0101_0101; count.div_ceil(4)];
    section.extend([stream.len() as u8, 0, 0]);
    section.extend(stream);
    section
}

/// The size of ops that are all that is left of a stream.
const THE_REST: u8 = 126;

/// From its last byte on: 13 chunks whose ops take no bit, and the last one, whose ops begin with two ones.
const LAST_CHUNK: [u8; 2] = [0b0000_0111, 0];

/// The section of chains of a region with blocks, of which only the last one has a stream.
fn chains_of_last(blocks: u32, stream: &[u8]) -> Vec<u8> {
    let size_bits = 8;
    let mut table = vec![size_bits];
    table.extend([0; 4].repeat(blocks.div_ceil(32) as usize));
    table.extend(vec![0; blocks as usize - 1]);
    table.push(stream.len() as u8);
    table.extend(stream);
    [&(table.len() as u32).to_le_bytes()[..], &table].concat()
}

/// The symbol of 1007 with seven raw bits that are all set, and that of 1024 with eight bits of 16.
const SYMBOL_1007: u8 = 63;
const SYMBOL_1024: u8 = 64;
/// The caller of the edge before.
const SAME_CALLER: u8 = 126;

/// A function that is called from itself at 1,023 lines, and chains of which every level is the one of the last
/// ones: all before it are read first.
fn lists_of_callers() -> Hostile {
    // All levels are new, and the innermost is the function that the location suggests.
    const OP: u8 = 3 * 15 + 1;
    let (mut parts, len) = parts_of_blocks(256);
    let symbols = [
        OP,
        0,
        0,
        SYMBOL_1007,
        0,
        0,
        SYMBOL_1024,
        0,
        SAME_CALLER,
        0,
        0,
    ];
    parts.exact_files = 1;
    parts.chains = Some([
        functions(1, symbols, 1, &[16, 8], 0),
        function_names(1, 0),
        chains_of_last(256, &[&[0xff; 32][..], &LAST_CHUNK].concat()),
    ]);
    parts.hostile("long lists of callers", (len - 1).into(), false)
}

/// A group of 16 functions with names of 512 bytes, of which the last one is inlined.
fn long_function_names() -> Hostile {
    const OP: u8 = 3 * 15 + 1;
    let (mut parts, len) = parts_of_blocks(256);
    parts.exact_files = 1;
    parts.chains = Some([
        functions(16, [OP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, &[0; 15], 15),
        function_names(16, 10),
        chains_of_last(256, &LAST_CHUNK),
    ]);
    parts.hostile("long names of functions", (len - 1).into(), false)
}

/// The most blocks for the bytes: 16 in each page of 256 bytes, of one byte each.
fn pages_of_small_blocks() -> Hostile {
    const PAGES: u32 = 10_000;
    let count = PAGES * 16;
    let mut table = vec![1, 0, 1, 0];
    table.extend(count.to_le_bytes());
    table.extend([18, 18, 1, 0, 0]);
    let mut pages = Vec::new();
    for page in 0..PAGES {
        push_bits(&mut pages, page * 16, 18);
        push_bits(&mut pages, page * 16, 18);
        push_bits(&mut pages, u32::from(page > 0), 1);
    }
    table.extend(bytes_of(&pages));
    let mut records = Vec::new();
    (0..count).for_each(|block| push_bits(&mut records, block % 16, 4));
    push_bits(&mut records, 0, 4);
    table.extend(bytes_of(&records));
    table.extend(vec![0; count as usize]);
    let mut parts = Parts::new(Encoding::Packed, count * 16, count, table);
    parts.model = model(8, 0, &[], NUMBERS, [HOT, SUCCESSOR]);
    parts.hostile("pages of small blocks", (count * 16 - 1).into(), false)
}

/// Rows of 15 bytes, the longest there are.
fn delta_of_long_numbers() -> Hostile {
    const LONG_ZERO: [u8; 5] = [0x80, 0x80, 0x80, 0x80, 0];
    const LONG_ONE: [u8; 5] = [0x81, 0x80, 0x80, 0x80, 0];
    let mut stream = Vec::new();
    let mut directory = Vec::new();
    for block in 0..1000_u32 {
        directory.extend((block * 64).to_le_bytes());
        directory.extend((stream.len() as u32).to_le_bytes());
        stream.extend([LONG_ZERO, LONG_ONE].as_flattened());
        for _ in 1..64 {
            stream.extend([LONG_ONE, LONG_ZERO, LONG_ONE].as_flattened());
        }
    }
    let table = [directory, stream].concat();
    let parts = Parts::new(Encoding::Delta, 64_000, 64_000, table);
    parts.hostile("rows of long numbers", 63_999, false)
}

/// As many rows as a packed table may claim, and more.
fn rows_without_bytes() -> Hostile {
    let mut parts = Parts::new(Encoding::Packed, 16, u32::MAX, vec![0, 0]);
    parts.model = model(8, 0, &[], NUMBERS, [HOT, SUCCESSOR]);
    parts.hostile("2^32 rows in one byte", 0, true)
}
