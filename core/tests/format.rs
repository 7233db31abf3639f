//! The format as a whole: what is written is read back, and what was not written is refused.

use lineinfo_core::blob::{Encoding, HEADER_SIZE, Profile};
use lineinfo_core::uapi::Errno;
use lineinfo_core::writer::{EncodeError, Image, Region, encode, seal};
use lineinfo_core::{Address, Error, Offset, Row, Table};
use proptest::prelude::*;

const FILES: &[&str] = &["kernel/fork.c", "include/linux/list.h", "fs/read_write.c"];

fn row(start: u32, file: u32, line: u32) -> Row {
    Row { start, file, line }
}

fn region(start: u64, len: u32, rows: &[Row]) -> Region<'_> {
    Region {
        name: ".text",
        start,
        len,
        init: false,
        rows,
    }
}

fn image<'a>(files: &'a [&'a str], regions: &'a [Region<'a>]) -> Image<'a> {
    Image {
        machine: 62,
        build_id: &[0xab; 20],
        text_start: 0xffff_ffff_8100_0000,
        profile: Profile::Full,
        files,
        exact_files: files.len(),
        regions,
    }
}

/// A small blob with two regions, gaps, and more rows than fit a block.
fn sample(encoding: Encoding) -> Vec<u8> {
    let rows: Vec<Row> = (0..150)
        .map(|n| match n % 7 {
            6 => row(n * 5, 0, 0),
            _ => row(n * 5, n % 3, 1 + n * n % 1000),
        })
        .collect();
    let init = [row(0, 1, 7)];
    let regions = [
        region(0, 1000, &rows),
        Region {
            name: ".init.text",
            init: true,
            ..region(4096, 16, &init)
        },
    ];
    encode(&image(FILES, &regions), encoding).expect("the sample is valid")
}

fn lookup(table: &Table<'_>, offset: u64) -> Option<String> {
    table
        .lookup(Address::Exact(Offset(offset)))
        .map(|found| found.to_string())
}

/// What a list of rows says of an offset, by the definition.
fn expected(rows: &[Row], target: u32) -> Option<(u32, u32)> {
    let row = rows.iter().rev().find(|row| row.start <= target)?;
    (!row.is_gap()).then_some((row.file, row.line))
}

/// What rows say, without those that say nothing new: where, which file, which line.
fn said<'a>(rows: &[Row], names: &'a [impl AsRef<str>]) -> Vec<(u32, &'a str, u32)> {
    let mut said = Vec::new();
    let mut last = ("", 0);
    for row in rows {
        let place = match row.line {
            0 => ("", 0),
            line => (names[row.file as usize].as_ref(), line),
        };
        if place != last {
            said.push((row.start, place.0, place.1));
            last = place;
        }
    }
    said
}

/// Rows with ascending starts, and the length of their region.
fn rows(most: usize) -> impl Strategy<Value = (Vec<Row>, u32)> {
    let step = prop_oneof![4 => 1_u32..20, 1 => 1_u32..100_000];
    let line = prop_oneof![
        1 => Just(0_u32),
        8 => 1_u32..3000,
        1 => any::<u32>(),
    ];
    let all = prop::collection::vec((step, 0_u32..3, line), 0..most);
    (all, 1_u32..500).prop_map(|(steps, behind)| {
        let mut start = 0;
        let rows: Vec<Row> = steps
            .into_iter()
            .map(|(step, file, line)| {
                start += step;
                row(start, if line == 0 { 0 } else { file }, line)
            })
            .collect();
        (rows, start + behind)
    })
}

proptest! {
    #[test]
    fn every_look_up_says_what_the_rows_say((rows, len) in rows(300)) {
        for &encoding in Encoding::ALL {
            let regions = [region(64, len, &rows)];
            let blob = encode(&image(FILES, &regions), encoding)?;
            let table = Table::parse(&blob)?;
            table.check_rows()?;
            let names: Vec<String> = table.files().map(|name| name.to_string()).collect();
            let found: Vec<Row> = table.region_rows(0).collect();
            if encoding != Encoding::Packed {
                prop_assert_eq!(&found, &rows);
            }
            prop_assert_eq!(said(&found, &names), said(&rows, FILES), "{}", encoding);
            let ends = rows.iter().flat_map(|row| [row.start.saturating_sub(1), row.start, row.start + 1]);
            for target in ends.chain([0, len - 1]).filter(|target| *target < len) {
                let found = table.lookup(Address::Exact(Offset(64 + u64::from(target))));
                let found = found.map(|found| (found.file.to_string(), found.line));
                let expected = expected(&rows, target)
                    .map(|(file, line)| (FILES[file as usize].to_owned(), line));
                prop_assert_eq!(found, expected, "{} at {}", encoding, target);
            }
        }
    }

    #[test]
    fn damage_behind_the_checksum_is_refused_or_harmless(
        at in HEADER_SIZE..4000,
        value in any::<u8>(),
        second in HEADER_SIZE..4000,
    ) {
        for &encoding in Encoding::ALL {
            let mut blob = sample(encoding);
            let len = blob.len();
            blob[at % len] = value;
            blob[second % len] ^= 0x80;
            seal(&mut blob);
            if let Ok(table) = Table::parse(&blob) {
                for offset in 0..5000 {
                    let _ = table.lookup(Address::Exact(Offset(offset)));
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_harmless(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Table::parse(&bytes).is_err());
        seal(&mut bytes);
        let _ = Table::parse(&bytes);
    }
}

#[test]
fn every_truncation_is_refused() {
    for &encoding in Encoding::ALL {
        let blob = sample(encoding);
        for len in 0..blob.len() {
            let error = Table::parse(&blob[..len]).expect_err("too short");
            assert!(
                matches!(error, Error::Truncated { found, .. } if found == len as u64),
                "{error}"
            );
        }
        let longer = [&blob[..], &[0]].concat();
        assert!(matches!(Table::parse(&longer), Err(Error::Trailing { .. })));
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for &encoding in Encoding::ALL {
        let blob = sample(encoding);
        for at in 0..blob.len() {
            for bit in 0..8 {
                let mut flipped = blob.clone();
                flipped[at] ^= 1 << bit;
                let error = Table::parse(&flipped).expect_err("a flipped bit");
                // The magic and the size are looked at before the checksum can be.
                let expected = match at {
                    0..8 | 12..16 => Errno::ENOEXEC,
                    _ => Errno::EBADMSG,
                };
                assert_eq!(error.errno(), expected, "byte {at}: {error}");
            }
        }
    }
}

#[test]
fn a_header_that_breaks_a_rule_is_refused_by_name() {
    let cases: [(usize, u8, &str); 8] = [
        (8, 9, "format version 9, this reader knows 1"),
        (10, 77, "found 77"),
        (
            11,
            0,
            "expected a known profile: 1 (full) or 2 (calls), found 0",
        ),
        (22, 21, "expected a build-id of at most 20 bytes, found 21"),
        (22, 19, "expected zeros after the build-id"),
        (23, 2, "expected sections up to the end of the blob"),
        (23, 255, "expected a section inside the blob"),
        (36, 9, "expected at most the number of files"),
    ];
    for (at, value, message) in cases {
        let mut blob = sample(Encoding::Flat);
        blob[at] = value;
        seal(&mut blob);
        let error = Table::parse(&blob).expect_err(message);
        assert_eq!(error.errno(), Errno::ENOEXEC);
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn a_section_of_an_unknown_kind_is_skipped() {
    let mut blob = sample(Encoding::Delta);
    // One more entry in the directory, at its end, and its one byte behind everything.
    let behind_directory = HEADER_SIZE + 5 * usize::from(blob[23]);
    blob.splice(behind_directory..behind_directory, [99, 1, 0, 0, 0]);
    blob.push(0x5a);
    blob[23] += 1;
    let total = blob.len() as u32;
    blob[12..16].copy_from_slice(&total.to_le_bytes());
    seal(&mut blob);
    let table = Table::parse(&blob).expect("unknown sections are skipped");
    assert_eq!(
        lookup(&table, 4096).as_deref(),
        Some("include/linux/list.h:7")
    );
    assert_eq!(
        table.sections().filter(|(kind, ..)| kind.is_none()).count(),
        1
    );
}

// The traps of the field.

#[test]
fn trap_below_text_and_beyond_the_text_is_a_miss() {
    assert_eq!(
        Offset::of(0xffff_ffff_80ff_ffff, 0xffff_ffff_8100_0000),
        None
    );
    for &encoding in Encoding::ALL {
        let blob = sample(encoding);
        let table = Table::parse(&blob).unwrap();
        assert!(lookup(&table, 0).is_some());
        // Between the regions, behind the last, and where a u32 would have come round to 0.
        for offset in [1000, 4095, 4112, 1 << 32, u64::MAX] {
            assert_eq!(lookup(&table, offset), None, "{offset}");
        }
    }
}

#[test]
fn trap_a_return_address_is_looked_up_one_byte_before() {
    let rows = [row(0, 0, 10), row(8, 0, 11)];
    let regions = [region(0, 16, &rows)];
    for &encoding in Encoding::ALL {
        let blob = encode(&image(FILES, &regions), encoding).unwrap();
        let table = Table::parse(&blob).unwrap();
        let line = |offset| {
            table
                .lookup(Address::Return(Offset(offset)))
                .map(|l| l.line)
        };
        assert_eq!(line(8), Some(10));
        assert_eq!(line(9), Some(11));
        // A call that is the last instruction of the text returns behind it.
        assert_eq!(line(16), Some(11));
        assert_eq!(line(0), None);
    }
}

#[test]
fn trap_more_files_than_a_u16_or_a_fixed_hash_holds() {
    let names: Vec<String> = (0..70_000).map(|n| format!("d{}/f{n}.c", n % 97)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rows: Vec<Row> = (0..70_000).map(|n| row(n, n, n + 1)).collect();
    let regions = [region(0, 70_000, &rows)];
    for &encoding in Encoding::ALL {
        let blob = encode(&image(&names, &regions), encoding).unwrap();
        let table = Table::parse(&blob).unwrap();
        for n in [0, 8191, 8192, 65_535, 65_536, 69_999] {
            let expected = format!("{}:{}", names[n as usize], n + 1);
            assert_eq!(lookup(&table, n), Some(expected), "{encoding}");
        }
    }
}

#[test]
fn trap_an_exhausted_block_is_refused_and_not_read_as_zeros() {
    let blob = sample(Encoding::Delta);
    let table = Table::parse(&blob).unwrap();
    let (_, rows_at, _) = table.sections().last().unwrap();
    // The last byte of the first region's table: a row loses its end.
    let first = table.regions().next().unwrap();
    let mut cut = blob.clone();
    cut[first.table.end as usize - 1] |= 0x80;
    seal(&mut cut);
    // A kernel takes it, and misses; whoever checks the rows does not.
    let table = Table::parse(&cut).expect("the rows are not looked at");
    assert_eq!(lookup(&table, 149 * 5), None);
    let error = table.check_rows().expect_err("a row without an end");
    assert!(
        matches!(error, Error::Malformed { part: "rows", offset, .. } if offset >= u64::from(rows_at)),
        "{error}"
    );
}

#[test]
fn trap_counts_that_multiply_beyond_the_blob_are_refused() {
    for &encoding in Encoding::ALL {
        for field in [32, HEADER_SIZE + 1, HEADER_SIZE + 6, HEADER_SIZE + 11] {
            let mut blob = sample(encoding);
            blob[field..field + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            seal(&mut blob);
            assert!(Table::parse(&blob).is_err(), "{encoding}, field at {field}");
        }
    }
}

#[test]
fn trap_output_is_bounded_by_what_was_written() {
    let blob = sample(Encoding::Flat);
    let table = Table::parse(&blob).unwrap();
    let location = table.lookup(Address::Exact(Offset(4096))).unwrap();
    let whole = " (include/linux/list.h:7)";
    for room in 0..40 {
        let mut buffer = vec![0xff; room];
        assert_eq!(location.write(&mut buffer), &whole[..room.min(whole.len())]);
    }
}

#[test]
fn what_breaks_a_rule_is_not_written() {
    let refused = |files: &[&str], regions: &[Region<'_>]| {
        encode(&image(files, regions), Encoding::Delta).expect_err("not a table")
    };
    let backwards = [row(4, 0, 1), row(4, 0, 2)];
    let outside = [row(16, 0, 1)];
    let no_file = [row(0, 3, 1)];
    let fine = [row(0, 0, 1)];
    for rows in [&backwards[..], &outside, &no_file] {
        let error = refused(FILES, &[region(0, 16, rows)]);
        assert!(matches!(error, EncodeError::Invalid(_)), "{error}");
    }
    let overlapping = [region(0, 16, &fine), region(8, 16, &fine)];
    assert!(matches!(
        refused(FILES, &overlapping),
        EncodeError::Invalid(_)
    ));
    for name in ["", "a\nb.c", "a\u{202e}c.b", &"n".repeat(513)] {
        let error = refused(&[name], &[region(0, 16, &fine)]);
        assert!(matches!(error, EncodeError::Name { .. }), "{error}");
    }
    let long_id = Image {
        build_id: &[1; 21],
        ..image(FILES, &[])
    };
    assert_eq!(
        encode(&long_id, Encoding::Flat),
        Err(EncodeError::BuildId { len: 21 })
    );
}
