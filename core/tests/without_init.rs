//! Blobs without the tables of init text.

use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::writer::{Image, Region, encode};
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
        assert!(whole.copy_without_init(&mut small).is_some());
        let table = Table::parse(&small).expect("a table");
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
        let mut again = vec![0; table.size_without_init()];
        assert_eq!(table.copy_without_init(&mut again), Some(&small[..]));
    }
}
