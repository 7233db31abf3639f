//! The packed encoding over tables of all shapes and sizes: exact, and safe when damaged.

use lineinfo_core::blob::{Encoding, HEADER_SIZE, Profile, SectionKind};
use lineinfo_core::calls::{Code, reduce};
use lineinfo_core::writer::{Image, Options, Region, Tuning, encode, seal};
use lineinfo_core::{Address, Offset, Row, Table};
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

/// A generator of Lehmer: the same tables on every machine.
struct Random(u128);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0xda94_2042_e4dd_58b5);
        (u64::try_from(self.0 >> 64).unwrap() % u64::from(limit)) as u32
    }
}

/// Rows like those of compiled code: functions at multiples of 16, steps of a few lines, places
/// that come back, inlined headers, gaps; and now and then something that code never has.
fn code(seed: u64, count: u32, files: u32) -> (Vec<Row>, u32) {
    let mut random = Random(u128::from(seed) << 1 | 1);
    let mut rows: Vec<Row> = Vec::new();
    let (mut start, mut file, mut line) = (random.below(40), 0, 1_u32);
    for _ in 0..count {
        match random.below(40) {
            0 => {
                start = start.next_multiple_of(16);
                file = random.below(files);
                line = 1 + random.below(3000);
            }
            1 => line = u32::MAX - random.below(3),
            2 => start += random.below(1 << 17),
            3..8 => {
                file = random.below(files.min(7));
                line = 10 * (1 + random.below(12));
            }
            8 => line = 0,
            n => line = line.saturating_add(n % 5).saturating_sub(2).max(1),
        }
        let row = Row {
            start,
            file: if line == 0 { 0 } else { file },
            line,
        };
        if rows.last().is_none_or(|last| last.start < start) {
            rows.push(row);
        }
        start += 1 + random.below(12);
    }
    (rows, start)
}

fn names(files: u32) -> Vec<String> {
    let name = |n| match n % 3 {
        0 => format!("include/linux/h{n}.h"),
        _ => format!("drivers/d{}/f{n}.c", n % 11),
    };
    (0..files).map(name).collect()
}

fn image<'a>(names: &'a [&'a str], regions: &'a [Region<'a>]) -> Image<'a> {
    Image {
        machine: 62,
        build_id: &[],
        text_start: 0,
        profile: Profile::Full,
        files: names,
        exact_files: names.len(),
        regions,
    }
}

fn packed(block: u32) -> Options {
    Options {
        encoding: Encoding::Packed,
        tuning: Tuning { block },
    }
}

/// Encodes regions one behind the other and compares every answer at the ends of every row.
fn is_exact(lists: &[(Vec<Row>, u32)], files: u32, block: u32) {
    let names = names(files);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut start = 0;
    let mut regions = Vec::new();
    for (rows, len) in lists {
        regions.push(Region {
            name: ".text",
            start,
            len: *len,
            init: false,
            rows,
        });
        start += u64::from(*len) + 100;
    }
    let blob = encode(&image(&names, &regions), packed(block)).expect("a table");
    let table = Table::parse(&blob).expect("a valid table");
    for region in &regions {
        let ends = region.rows.iter().skip(1).map(|row| row.start);
        let first = region.rows.first().map_or(region.len, |row| row.start);
        let step = usize::try_from(first / 100).unwrap().max(1);
        for target in (0..first).step_by(step).chain(first.checked_sub(1)) {
            assert!(
                table
                    .lookup(Address::Exact(Offset(region.start + u64::from(target))))
                    .is_none()
            );
        }
        for (row, end) in region.rows.iter().zip(ends.chain([region.len])) {
            for target in [row.start, row.start + (end - row.start) / 2, end - 1] {
                let found = table.lookup(Address::Exact(Offset(region.start + u64::from(target))));
                match found {
                    None => assert_eq!(row.line, 0, "block {block} at {target}"),
                    Some(found) => {
                        assert_eq!(found.line, row.line, "block {block} at {target}");
                        assert!(found.file == *names[row.file as usize]);
                    }
                }
            }
        }
    }
}

#[test]
fn exact_for_every_size_of_block() {
    let lists = [code(1, 1500, 40)];
    for block in 1..=96 {
        is_exact(&lists, 40, block);
    }
}

/// Every choice of rows from eight places, far apart and close together, with gaps among them: each
/// directory that so few rows can have is searched for each of them.
#[test]
fn exact_for_every_small_directory() {
    const PLACES: u32 = 8;
    for distance in [1, 16, 100, 5000] {
        for block in [1, 2] {
            for choice in 1_u32..1 << PLACES {
                let chosen = (0..PLACES).filter(|place| choice >> place & 1 == 1);
                let rows: Vec<Row> = chosen
                    .map(|place| match (place + choice) % 5 {
                        0 => (place, 0, 0),
                        file => (place, file % 3, 100 * file + place),
                    })
                    .map(|(place, file, line)| Row {
                        start: place * distance,
                        file,
                        line,
                    })
                    .collect();
                is_exact(&[(rows, PLACES * distance)], 3, block);
            }
        }
    }
}

#[test]
fn exact_with_codes_of_its_own_and_many_files() {
    for (seed, count, files) in [(2, 6000, 5), (3, 20_000, 300), (4, 9000, 70_000)] {
        is_exact(&[code(seed, count, files)], files, 48);
        is_exact(&[code(seed, count, files)], files, 7);
    }
}

#[test]
fn exact_with_regions_of_all_sizes() {
    let one = |start, line, len| {
        (
            vec![Row {
                start,
                file: 0,
                line,
            }],
            len,
        )
    };
    let lists = [
        (vec![], 1000),
        one(0, 1, 1),
        one(7, u32::MAX, 8),
        one(0, 7, u32::MAX - 5),
        one(u32::MAX - 9, 7, u32::MAX),
        (vec![], 1),
        code(5, 3, 2),
        code(6, 300, 2),
    ];
    for block in [1, 16, 48] {
        is_exact(&lists, 2, block);
    }
}

#[test]
fn a_gap_of_gigabytes_between_rows() {
    let (mut rows, _) = code(7, 500, 4);
    let (behind, len) = code(8, 500, 4);
    let shift = 3_900_000_000;
    rows.extend(behind.into_iter().map(|row| Row {
        start: row.start + shift,
        ..row
    }));
    for block in [1, 12, 48, 96] {
        is_exact(&[(rows.clone(), len + shift)], 4, block);
    }
}

/// The average distance of blocks makes pages of megabytes, of which one would have thousands of
/// blocks.
#[test]
fn a_page_with_more_blocks_than_a_page_may_have() {
    let row = |n: u32| Row {
        start: n * 16,
        file: 0,
        line: 1 + n % 1000,
    };
    let mut rows: Vec<Row> = (0..3000).map(row).collect();
    rows.push(Row {
        start: 1 << 30,
        file: 0,
        line: 7,
    });
    for block in [1, 4] {
        is_exact(&[(rows.clone(), (1 << 30) + 16)], 1, block);
    }
}

#[test]
fn a_small_table_is_no_larger_than_with_delta() {
    for count in [0, 1, 2, 5, 20, 100, 500, 2000] {
        let (rows, len) = code(9, count, 10);
        // Without the lines and lengths that code never has.
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.line < 10_000).collect();
        let names = names(10);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let regions = [Region {
            name: ".text",
            start: 0,
            len,
            init: false,
            rows: &rows,
        }];
        let image = image(&names, &regions);
        let size = |options: Options| {
            let blob = encode(&image, options).expect("a table");
            let table = Table::parse(&blob).expect("a valid table");
            let of = |kind| {
                let mut sections = table.sections();
                sections
                    .find(|found| found.0 == Some(kind))
                    .map_or(0, |found| found.2)
            };
            of(SectionKind::Rows) + of(SectionKind::Model)
        };
        let (packed, delta) = (size(packed(48)), size(Encoding::Delta.into()));
        // The head of the model is all that a table of no rows has more.
        assert!(
            packed <= delta.max(28),
            "{count} rows: {packed} and {delta} bytes"
        );
    }
}

/// A table with several regions and pages, with codes of its own or the built-in ones.
fn sample(count: u32) -> Vec<u8> {
    let names = names(9);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (rows, len) = code(10, count, 9);
    let (init, init_len) = code(11, 30, 9);
    let region = |start, len, rows| Region {
        name: ".text",
        start,
        len,
        init: false,
        rows,
    };
    let regions = [
        region(0, len, &rows),
        region(u64::from(len), init_len, &init),
    ];
    encode(&image(&names, &regions), packed(16)).expect("a table")
}

fn is_refused_or_harmless(blob: &mut [u8]) {
    seal(blob);
    if let Ok(table) = Table::parse(blob) {
        let len = table.layout().text_len();
        for offset in (0..len).step_by(usize::try_from(len / 300).unwrap().max(1)) {
            let _ = table
                .lookup(Address::Exact(Offset(offset)))
                .map(|found| found.to_string());
        }
        for region in 0..table.regions().count() {
            table.region_rows(region).for_each(drop);
        }
    }
}

proptest! {
    #[test]
    fn damage_is_refused_or_harmless(
        at in HEADER_SIZE..100_000,
        value in any::<u8>(),
        bit in 0_u32..8,
    ) {
        static SAMPLES: std::sync::LazyLock<[Vec<u8>; 2]> =
            std::sync::LazyLock::new(|| [sample(1000), sample(6000)]);
        for sample in SAMPLES.iter() {
            let mut blob = sample.clone();
            let at = at % blob.len();
            blob[at] ^= 1 << bit;
            is_refused_or_harmless(&mut blob);
            blob[at] = value;
            is_refused_or_harmless(&mut blob);
        }
    }
}

/// After a damage that was not refused every address still has the answer of the rows.
#[test]
fn what_is_accepted_is_consistent() {
    let sample = sample(800);
    for at in HEADER_SIZE..sample.len() {
        let mut blob = sample.clone();
        blob[at] ^= 1 << (at % 8);
        seal(&mut blob);
        let Ok(table) = Table::parse(&blob) else {
            continue;
        };
        if table.check_rows().is_err() {
            continue;
        }
        for (number, region) in table.regions().enumerate() {
            let rows: Vec<Row> = table.region_rows(number).collect();
            assert_eq!(rows.len(), region.rows as usize);
            for row in rows.iter().step_by(5) {
                let found = table.lookup(Address::Exact(Offset(
                    region.start.0 + u64::from(row.start),
                )));
                assert_eq!(found.map_or(0, |found| found.line), row.line, "byte {at}");
            }
        }
    }
}

#[test]
fn the_number_of_processors_does_not_matter() {
    let (rows, len) = code(9, 120_000, 300);
    let points: Vec<u32> = (5..len).step_by(23).collect();
    let calls = Code {
        len,
        points: &points,
        assembly: &[],
    };
    let with = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let names = names(300);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let region = Region {
                name: ".text",
                start: 0,
                len,
                init: false,
                rows: &rows,
            };
            let blob = encode(&image(&names, &[region]), packed(48)).expect("a table");
            (blob, reduce(&rows, &calls, 300))
        })
    };
    let (alone, together) = (with(1), with(3));
    assert!(alone.0 == together.0, "other bytes");
    assert!(alone.1 == together.1, "other starts of rows");
}
