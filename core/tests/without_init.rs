//! Blobs without the tables of init text.

use lineinfo_core::blob::{Encoding, HEADER_SIZE, Profile};
use lineinfo_core::writer::{Image, Region, encode, seal};
use lineinfo_core::{Address, Offset, Row, Table};

fn rows(first_line: u32) -> Vec<Row> {
    (0..500)
        .map(|row| Row {
            start: row * 8,
            file: row % 2,
            line: first_line + row,
        })
        .collect()
}

#[test]
fn the_rest_of_a_table_is_as_it_was() {
    let (first, init, last) = (rows(1), rows(1000), rows(2000));
    let region = |name, start, init, rows| Region {
        name,
        start,
        len: 4000,
        init,
        rows,
    };
    for &encoding in Encoding::ALL {
        let blob = encode(
            &Image {
                machine: 62,
                build_id: &[7; 20],
                text_start: 0,
                profile: Profile::Full,
                files: &["a.c", "b.c"],
                exact_files: 2,
                regions: &[
                    region(".text", 0, false, &first),
                    region(".init.text", 4096, true, &init),
                    region(".exit.text", 8192, false, &last),
                ],
            },
            encoding,
        )
        .expect("a blob");
        let whole = Table::parse(&blob).expect("a table");
        let mut small = vec![0; whole.size_without_init()];
        assert!(small.len() < blob.len(), "{encoding}");
        assert!(whole.copy_without_init(&mut small[1..]).is_none());
        let derived = whole.copy_without_init(&mut small).expect("there is room");

        // In its own memory it becomes the same.
        let mut shrunk = blob.clone();
        let in_place = Table::remove_init(&mut shrunk, whole.layout()).expect("a table");
        shrunk.truncate(in_place.size() as usize);
        assert!(shrunk == small, "{encoding}");

        // What was derived is what is found there.
        let table = Table::parse(&small).expect("a table");
        for layout in [derived, in_place] {
            let parsed = format!("{:?}", table.layout());
            assert_eq!(format!("{layout:?}"), parsed, "{encoding}");
        }
        assert_eq!(table.layout().rows(), 1000, "{encoding}");
        for offset in (0..12_288).map(Offset) {
            let found = table.lookup(Address::Exact(offset));
            if (4096..8192).contains(&offset.0) {
                assert_eq!(found, None, "{encoding} at {offset:?}");
            } else {
                assert_eq!(
                    found,
                    whole.lookup(Address::Exact(offset)),
                    "{encoding} at {offset:?}"
                );
            }
        }
        let mut again = small.clone();
        let unchanged = Table::remove_init(&mut again, table.layout()).expect("a table");
        assert_eq!(unchanged.size() as usize, small.len());
        assert!(
            again == small,
            "{encoding}: there is nothing left to remove"
        );
    }
}

/// Sections in another order, and one that no reader knows, move like the others.
#[test]
fn rows_may_come_before_what_describes_them() {
    let (first, init) = (rows(1), rows(1000));
    let region = |name, start, init, rows| Region {
        name,
        start,
        len: 4000,
        init,
        rows,
    };
    let blob = encode(
        &Image {
            machine: 62,
            build_id: &[7; 20],
            text_start: 0,
            profile: Profile::Full,
            files: &["a.c", "b.c"],
            exact_files: 2,
            regions: &[
                region(".init.text", 0, true, &init),
                region(".text", 4096, false, &first),
            ],
        },
        Encoding::Flat,
    )
    .expect("a blob");
    let mut reordered = reverse_sections(&blob);
    let layout = *Table::parse(&reordered).expect("a table").layout();
    let small = Table::remove_init(&mut reordered, &layout).expect("a table");
    let table = Table::parse(&reordered[..small.size() as usize]).expect("a table");
    for offset in (0..8192).map(Offset) {
        let whole = Table::parse(&blob).expect("a table");
        let expected = whole.lookup(Address::Exact(offset));
        let found = table.lookup(Address::Exact(offset));
        assert_eq!(found, expected.filter(|_| offset.0 >= 4096), "{offset:?}");
    }
}

/// The same blob with its sections in reverse order, and a section of an unknown kind at the end.
fn reverse_sections(blob: &[u8]) -> Vec<u8> {
    let count = usize::from(blob[23]);
    let mut start = HEADER_SIZE + 5 * count;
    let mut sections = Vec::new();
    for entry in blob[HEADER_SIZE..start].chunks_exact(5) {
        let size = u32::from_le_bytes(entry[1..].try_into().expect("four bytes")) as usize;
        sections.push((entry[0], &blob[start..start + size]));
        start += size;
    }
    let unknown = (99, &b"unknown"[..]);
    let (mut directory, mut contents) = (Vec::new(), Vec::new());
    for (kind, bytes) in sections.into_iter().rev().chain([unknown]) {
        directory.push(kind);
        directory.extend((bytes.len() as u32).to_le_bytes());
        contents.extend_from_slice(bytes);
    }
    let mut new = [&blob[..HEADER_SIZE], &directory, &contents].concat();
    let size = new.len() as u32;
    new[12..16].copy_from_slice(&size.to_le_bytes());
    new[23] += 1;
    seal(&mut new);
    new
}
