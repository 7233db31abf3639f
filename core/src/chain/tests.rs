//! Chains come back as they were written, and what was not written is refused or answered in bounds.

use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use fastrand::Rng;

use super::write::{InlineChain, InlineLevel, InlinedFunction, Inlines};
use super::{Frame, LEVELS_MAX};
use crate::blob::{Encoding, Profile, SectionKind};
use crate::steps::measure;
use crate::writer::{EncodeError, Image, Region, encode, encode_with_inlines, seal};
use crate::{Address, Offset, Row, Table};

/// Rows of regions with their chains.
struct Sample {
    files: Vec<String>,
    inlines: Inlines,
    regions: Vec<(Vec<Row>, Vec<Option<u32>>, u32)>,
}

impl Sample {
    /// Code that looks like a kernel's: functions of headers are inlined everywhere, others in their own
    /// file, and rows move between the levels of a chain. `wild` of a hundred rows and calls are anywhere.
    fn new(seed: u64, functions: usize, rows: usize, wild: u8) -> Self {
        let mut rng = Rng::with_seed(seed);
        let file_count = 3 + functions / 8;
        let files: Vec<String> = (0..file_count)
            .map(|n| match n % 2 {
                0 => format!("include/linux/h{n}.h"),
                _ => format!("kernel/f{n}.c"),
            })
            .collect();
        let number = |n: usize| u32::try_from(n).unwrap();
        let functions: Vec<InlinedFunction> = (0..functions)
            .map(|n| InlinedFunction {
                name: format!("{}fn_{}_{n}", "_".repeat(n % 4), n % 13),
                file: number(rng.usize(..file_count)),
                line: rng.u32(..40) * 25,
            })
            .collect();
        let mut chains = Vec::new();
        for _ in 0..functions.len() * 4 {
            let depth = match rng.u8(..50) {
                0 => rng.usize(LEVELS_MAX - 1..LEVELS_MAX + 5),
                _ => rng.usize(1..5),
            };
            let mut levels: Vec<InlineLevel> = Vec::new();
            for _ in 0..depth {
                // A function has few callers and few lines of each.
                let around = levels.last().map_or(rng.usize(..functions.len()), |level| {
                    usize::try_from(level.function).unwrap()
                });
                let function = match rng.u8(..100) < wild {
                    true => rng.usize(..functions.len()),
                    false => (around * 7 + rng.usize(..3)) % functions.len(),
                };
                let line = match rng.u8(..100) < wild {
                    true => rng.u32(..100_000),
                    false => functions[around].line + 1 + rng.u32(..5),
                };
                levels.push(InlineLevel {
                    function: number(function),
                    line: if rng.u8(..50) == 0 { 0 } else { line },
                });
            }
            chains.push(InlineChain {
                file: number(rng.usize(..file_count)),
                levels,
            });
        }
        let inlines = Inlines { functions, chains };
        let mut regions = Vec::new();
        for region in 0..3 {
            let mut list = Vec::new();
            let mut of_rows = Vec::new();
            let mut start = 0;
            let (mut chain, mut file, mut line) = (None, 1, 10);
            let count = if region == 1 { 1 + rows / 10 } else { rows };
            for _ in 0..count {
                if rng.u8(..3) == 0 {
                    let any = rng.usize(..inlines.chains.len());
                    chain = (rng.u8(..4) > 0).then_some(number(any));
                }
                match chain.map(|chain| &inlines.chains[usize::try_from(chain).unwrap()]) {
                    Some(chain) if rng.u8(..100) >= wild => {
                        let innermost = chain.levels.last().unwrap().function;
                        let innermost = &inlines.functions[usize::try_from(innermost).unwrap()];
                        (file, line) = (innermost.file, innermost.line + 1 + rng.u32(..6));
                    }
                    Some(_) => (file, line) = (number(rng.usize(..file_count)), 1 + rng.u32(..99)),
                    None => line = 1 + (line + rng.u32(..4)) % 1000,
                }
                let gap = rng.u8(..40) == 0;
                list.push(Row {
                    start,
                    file: if gap { 0 } else { file },
                    line: if gap { 0 } else { line },
                });
                of_rows.push(chain.filter(|_| !gap));
                start += 1 + rng.u32(..30);
            }
            regions.push((list, of_rows, start));
        }
        Self {
            files,
            inlines,
            regions,
        }
    }

    fn encode(&self, with_chains: bool) -> Result<Vec<u8>, EncodeError> {
        let names: Vec<&str> = self.files.iter().map(String::as_str).collect();
        let mut start = 0;
        let mut regions = Vec::new();
        for (number, (rows, _, len)) in self.regions.iter().enumerate() {
            regions.push(Region {
                name: ".text",
                start,
                len: *len,
                init: number == 1,
                rows,
            });
            start += u64::from(*len) + 64;
        }
        let image = Image {
            machine: 62,
            build_id: &[],
            text_start: 0,
            profile: Profile::Full,
            files: &names,
            exact_files: names.len(),
            regions: &regions,
        };
        let chains: Vec<&[Option<u32>]> = self.regions.iter().map(|region| &*region.1).collect();
        match with_chains {
            true => encode_with_inlines(&image, &self.inlines, &chains, Encoding::Packed),
            false => encode(&image, Encoding::Packed),
        }
    }

    /// What a row says, innermost function first; nothing in a gap.
    fn expected(&self, row: &Row, chain: Option<u32>) -> Vec<String> {
        let file = |file: u32| &self.files[usize::try_from(file).unwrap()];
        if row.line == 0 {
            return Vec::new();
        }
        let innermost = format!("{}:{}", file(row.file), row.line);
        let Some(chain) = chain else {
            return vec![innermost];
        };
        let chain = &self.inlines.chains[usize::try_from(chain).unwrap()];
        let function =
            |level: &InlineLevel| &self.inlines.functions[usize::try_from(level.function).unwrap()];
        // From a chain that is too deep, levels in the middle are left out.
        let depth = chain.levels.len();
        let left_out = depth.saturating_sub(LEVELS_MAX);
        let kept = |level: usize| level < 8 || level >= 8 + left_out;
        let mut place = innermost;
        let mut said = Vec::new();
        for (number, level) in chain.levels.iter().enumerate().rev() {
            if kept(number) {
                said.push(format!("{} ({place})", function(level).name));
            }
            let file = match number.checked_sub(1) {
                Some(around) => file(function(&chain.levels[around]).file),
                None => file(chain.file),
            };
            place = format!("{file}:{}", level.line);
        }
        said.push(place);
        said
    }

    fn starts(&self) -> impl Iterator<Item = u64> {
        self.regions.iter().scan(0, |next, (_, _, len)| {
            let start = *next;
            *next += u64::from(*len) + 64;
            Some(start)
        })
    }

    /// Compares every row; those of init text only if they are still there.
    fn is_in(&self, table: &Table<'_>, with_init: bool) {
        let mut inlined = 0;
        for (start, (number, (rows, chains, len))) in
            self.starts().zip(self.regions.iter().enumerate())
        {
            let ends = rows.iter().skip(1).map(|row| row.start).chain([*len]);
            for ((row, chain), end) in rows.iter().zip(chains).zip(ends) {
                for target in [row.start, end - 1] {
                    let address = Address::Exact(Offset(start + u64::from(target)));
                    let expected = match with_init || number != 1 {
                        true => self.expected(row, *chain),
                        false => Vec::new(),
                    };
                    assert_eq!(
                        said(table, address),
                        expected,
                        "at {target} of region {number}"
                    );
                    inlined += usize::from(expected.len() > 1);
                }
            }
        }
        assert!(inlined > 0);
    }
}

fn say(frame: &Frame<'_>) -> String {
    match frame.function {
        Some(function) => format!("{function} ({})", frame.location),
        None => frame.location.to_string(),
    }
}

fn said(table: &Table<'_>, address: Address) -> Vec<String> {
    let chain = table.chain(address);
    chain
        .into_iter()
        .flatten()
        .map(|frame| say(&frame))
        .collect()
}

#[test]
fn chains_come_back() {
    for (seed, functions, rows, wild) in [
        (1, 1, 10, 0),
        (2, 20, 200, 0),
        (3, 20, 300, 100),
        (4, 100, 600, 5),
        (5, 300, 600, 30),
    ] {
        let sample = Sample::new(seed, functions, rows, wild);
        let blob = sample.encode(true).unwrap();
        let table = Table::parse(&blob).unwrap();
        table.check_rows().unwrap();
        sample.is_in(&table, true);
        // Lines are the same without chains.
        let plain = sample.encode(false).unwrap();
        let plain = Table::parse(&plain).unwrap();
        assert_eq!(plain.layout().rows(), table.layout().rows());
        assert!(plain.inlined_functions().is_none());
        for offset in (0..table.layout().text_len()).step_by(7) {
            let address = Address::Exact(Offset(offset));
            let line = |table: &Table<'_>| table.lookup(address).map(|found| found.to_string());
            assert_eq!(line(&plain), line(&table));
            assert!(plain.chain(address).is_none());
        }
    }
}

#[test]
fn chains_stay_without_init_text() {
    let sample = Sample::new(6, 50, 300, 5);
    let blob = sample.encode(true).unwrap();
    let table = Table::parse(&blob).unwrap();
    let mut small = vec![0; table.size_without_init()];
    let layout = table.copy_without_init(&mut small).unwrap();
    sample.is_in(&Table::from_layout(&small, layout), false);
    let parsed = Table::parse(&small).unwrap();
    parsed.check_rows().unwrap();
    sample.is_in(&parsed, false);
    assert!(!table.chain_table(1).is_empty() && parsed.chain_table(1).is_empty());
    let mut own = blob.clone();
    let layout = Table::remove_init(&mut own, table.layout()).unwrap();
    let size = usize::try_from(layout.size()).unwrap();
    assert_eq!(own[..size], small);
}

#[test]
fn a_frame_is_written_as_traces_have_it() {
    let sample = Sample::new(2, 20, 200, 0);
    let blob = sample.encode(true).unwrap();
    let table = Table::parse(&blob).unwrap();
    let mut buffer = [0; 256];
    let offsets = (0..table.layout().text_len()).map(|offset| Address::Exact(Offset(offset)));
    let chain = offsets.filter_map(|address| table.chain(address));
    for frame in chain.flatten() {
        let mut text = crate::buffer::StrBuffer::new(&mut buffer);
        frame.push_to(&mut text);
        let expected = match frame.function {
            Some(function) => format!(" {function} ({}) [inline]", frame.location),
            None => format!(" ({})", frame.location),
        };
        assert_eq!(text.into_str(), expected);
    }
}

#[test]
fn what_has_no_place_in_the_format_is_refused() {
    let mut sample = Sample::new(2, 20, 200, 0);
    for chain in &mut sample.inlines.chains {
        chain.levels[0].line = 1 << 24;
    }
    assert!(matches!(
        sample.encode(true),
        Err(EncodeError::TooLarge { .. })
    ));
    let mut sample = Sample::new(2, 20, 200, 0);
    sample.inlines.functions[3].name = "\u{1b}[2J".to_string();
    assert!(matches!(
        sample.encode(true),
        Err(EncodeError::Name { position: 3, .. })
    ));
    let sample = Sample::new(2, 20, 200, 0);
    let image = Image {
        machine: 62,
        build_id: &[],
        text_start: 0,
        profile: Profile::Full,
        files: &[],
        exact_files: 0,
        regions: &[],
    };
    let flat = encode_with_inlines(&image, &sample.inlines, &[], Encoding::Flat);
    assert!(matches!(flat, Err(EncodeError::Chains { .. })));
}

/// Where a section is in a blob.
fn section(blob: &[u8], kind: SectionKind) -> core::ops::Range<usize> {
    let table = Table::parse(blob).unwrap();
    let mut sections = table.sections();
    let (_, start, size) = sections.find(|(of, ..)| *of == Some(kind)).unwrap();
    let start = usize::try_from(start).unwrap();
    start..start + usize::try_from(size).unwrap()
}

/// Damages the sections, repairs the checksum, and tries what a reader does with them.
#[test]
fn no_damage_leads_out_of_bounds() {
    let mut rng = Rng::with_seed(7);
    let seeds: Vec<Vec<u8>> = [(1, 3, 20, 0), (2, 20, 200, 5), (3, 100, 300, 30)]
        .into_iter()
        .map(|(seed, functions, rows, wild)| {
            Sample::new(seed, functions, rows, wild)
                .encode(true)
                .unwrap()
        })
        .collect();
    let (mut accepted, mut sound, mut most) = (0, 0, 0);
    let kinds = [
        SectionKind::Functions,
        SectionKind::Functions,
        SectionKind::FunctionNames,
        SectionKind::Chains,
        SectionKind::Chains,
        SectionKind::Rows,
    ];
    for round in 0..3_000 {
        let mut blob = seeds[round % seeds.len()].clone();
        let range = section(&blob, kinds[rng.usize(..kinds.len())]);
        for _ in 0..1 + rng.usize(..4) {
            // Heads of sections are short, and most of what a reader believes is in them.
            let near = 1 + rng.usize(..range.len()) / (1 << rng.u8(..6));
            let at = range.start + rng.usize(..near.min(range.len()));
            match rng.u8(..3) {
                0 => blob[at] ^= 1 << rng.u8(..8),
                1 => blob[at] = rng.u8(..),
                _ => {
                    let end = (at + rng.usize(..8)).min(range.end);
                    blob[at..end].fill([0, 255][rng.usize(..2)]);
                }
            }
        }
        seal(&mut blob);
        let (parsed, steps) = measure(|| Table::parse(&blob));
        let bound = blob.len() * Table::PARSE_STEPS_PER_BYTE;
        assert!(steps <= u64::try_from(bound).unwrap(), "{steps} steps");
        let Ok(table) = parsed else { continue };
        accepted += 1;
        let is_sound = table.check_rows().is_ok();
        sound += usize::from(is_sound);
        for _ in 0..20 {
            let offset = Offset(rng.u64(..table.layout().text_len()));
            let (chain, steps) = measure(|| table.chain(Address::Exact(offset)));
            assert!(
                steps <= Table::CHAIN_STEPS.try_into().unwrap(),
                "{steps} steps"
            );
            most = most.max(steps);
            let found = table.lookup(Address::Exact(offset));
            if is_sound {
                assert_eq!(chain.is_some(), found.is_some());
            }
            let frames: Vec<Frame<'_>> = chain.into_iter().flatten().collect();
            assert!(frames.len() <= LEVELS_MAX + 1);
            if let Some(innermost) = frames.first() {
                let found = found.unwrap().to_string();
                assert_eq!(innermost.location.to_string(), found);
                assert!(
                    frames
                        .iter()
                        .all(|frame| !say(frame).contains(char::is_control))
                );
            }
        }
    }
    assert!(
        accepted > 500 && sound > 25,
        "{accepted} accepted, {sound} sound"
    );
    assert!(most > 100);
}
