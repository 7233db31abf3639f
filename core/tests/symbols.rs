//! The section of symbols: put in, taken out, and skipped by who does not read it.

use lineinfo_core::blob::{Encoding, Profile, SectionKind};
use lineinfo_core::writer::{Image, Region, encode, with_symbols};
use lineinfo_core::{Address, Offset, Row, Table};

fn blob(encoding: Encoding) -> Vec<u8> {
    let rows: Vec<Row> = (0..500)
        .map(|row| Row {
            start: row * 8,
            file: row % 2,
            line: row + 1,
        })
        .collect();
    let region = |name, start, init| Region {
        name,
        start,
        len: 4000,
        init,
        rows: &rows,
    };
    let image = Image {
        machine: 62,
        build_id: &[7; 20],
        text_start: 0,
        profile: Profile::Full,
        files: &["a.c", "b.c"],
        exact_files: 2,
        regions: &[region(".init.text", 0, true), region(".text", 4096, false)],
    };
    encode(&image, encoding).expect("a blob")
}

#[test]
fn symbols_change_nothing_else() {
    for &encoding in Encoding::ALL {
        let plain = blob(encoding);
        let without = Table::parse(&plain).expect("a table");
        assert_eq!(without.symbols(), None);
        let one = with_symbols(&without, b"of one reader").expect("room");
        let one = Table::parse(&one).expect("a table");
        let other = with_symbols(&one, b"others").expect("room");
        let with = Table::parse(&other).expect("a table");
        assert_eq!(with.symbols(), Some(&b"others"[..]), "{encoding}");
        let kinds = with.sections().map(|(kind, ..)| kind);
        let symbols = kinds.filter(|kind| *kind == Some(SectionKind::Symbols));
        assert_eq!(symbols.count(), 1, "{encoding}");
        for offset in (0..8192).map(|at| Address::Exact(Offset(at))) {
            assert_eq!(with.lookup(offset), without.lookup(offset), "{encoding}");
        }
        let again = with_symbols(&with, &[]).expect("room");
        assert!(again == plain, "{encoding}");
    }
}

/// A kernel that was given a table with symbols can still free what it says of init text.
#[test]
fn symbols_stay_when_init_text_goes() {
    for &encoding in Encoding::ALL {
        let plain = blob(encoding);
        let plain = Table::parse(&plain).expect("a table");
        let mut whole = with_symbols(&plain, b"symbols").expect("room");
        let layout = *Table::parse(&whole).expect("a table").layout();
        let small = Table::remove_init(&mut whole, &layout).expect("a table");
        let small = Table::parse(&whole[..small.size() as usize]).expect("a table");
        assert_eq!(small.symbols(), Some(&b"symbols"[..]), "{encoding}");
        assert_eq!(small.lookup(Address::Exact(Offset(0))), None);
        let kept = Address::Exact(Offset(4096));
        assert_eq!(small.lookup(kept), plain.lookup(kept), "{encoding}");
    }
}
