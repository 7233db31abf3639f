//! Any bytes as a blob whose size and checksum are right: an error or a table, in the number of steps
//! that the documentation states; and where [`Table::check_rows`] accepts it, look-ups give what the
//! rows say.
//!
//! `core/examples/fuzz.rs` checks more with a mutator of its own, which knows the sections. This
//! target goes where coverage leads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineinfo_core::blob::HEADER_SIZE;
use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::steps::measure;
use lineinfo_core::writer::seal;
use lineinfo_core::{Address, Offset, Row, Table};

fuzz_target!(|input: &[u8]| {
    let mut blob = input.to_vec();
    if let (true, Ok(size)) = (blob.len() >= HEADER_SIZE, u32::try_from(blob.len())) {
        blob[12..16].copy_from_slice(&size.to_le_bytes());
        seal(&mut blob);
    }
    let (parsed, steps) = measure(|| Table::parse(&blob));
    assert!(steps <= (blob.len() * Table::PARSE_STEPS_PER_BYTE) as u64);
    let table = match parsed {
        Ok(table) => table,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let is_checked = table.check_rows().is_ok();
    for (number, region) in table.regions().enumerate() {
        let rows: Vec<Row> = table.region_rows(number).collect();
        let near = |row: &Row| {
            [
                row.start.wrapping_sub(1),
                row.start,
                row.start.wrapping_add(1),
            ]
        };
        let ends = [0, region.len.wrapping_sub(1), region.len];
        for target in rows.iter().take(64).flat_map(near).chain(ends) {
            let found = look_up(&table, region.start.0.wrapping_add(target.into()));
            if !is_checked || target >= region.len {
                continue;
            }
            let after = rows.partition_point(|row| row.start <= target);
            let row = after.checked_sub(1).map(|row| rows[row]);
            let row = row.filter(|row| !row.is_gap());
            let expected = row.map(|row| match table.file(row.file) {
                Some(file) => (file.to_string(), row.line),
                None => panic!("a row with a file that is not there"),
            });
            assert_eq!(found, expected, "region {number}, byte {target}");
        }
    }
    for offset in [table.layout().text_len(), u64::MAX] {
        assert_eq!(look_up(&table, offset), None, "after the text");
    }
    let mut copy = vec![0; table.size_without_init()];
    let copied = table.copy_without_init(&mut copy);
    let size = copied.expect("room for it").size();
    let copy = Table::parse(&copy[..size as usize]).expect("a table");
    assert!(!is_checked || copy.check_rows().is_ok());
});

/// File and line of an offset, written into a buffer on the way.
fn look_up(table: &Table<'_>, offset: u64) -> Option<(String, u32)> {
    let mut buffer = [0; 640];
    let (found, steps) = measure(|| {
        let found = table.lookup(Address::Exact(Offset(offset)))?;
        found.write(&mut buffer);
        Some(found)
    });
    assert!(steps <= Table::LOOKUP_STEPS as u64);
    look_up_functions(table, offset);
    found.map(|found| (found.file.to_string(), found.line))
}

/// The functions of an offset, written into a buffer.
fn look_up_functions(table: &Table<'_>, offset: u64) {
    let mut buffer = [0; 1280];
    let address = Address::Trap(Offset(offset));
    let (chain, steps) = measure(|| table.chain(address));
    assert!(steps <= Table::CHAIN_STEPS as u64);
    for (level, frame) in chain.into_iter().flatten().enumerate() {
        if level == 0 {
            let found = table.lookup(address).map(|found| (found.file, found.line));
            assert_eq!(found, Some((frame.location.file, frame.location.line)));
        }
        let mut text = StrBuffer::new(&mut buffer);
        let ((), steps) = measure(|| frame.push_to(&mut text));
        assert!(steps <= Table::FRAME_STEPS as u64);
        assert!(!text.into_str().contains(char::is_control));
    }
}
