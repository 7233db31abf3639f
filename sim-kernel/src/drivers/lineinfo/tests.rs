//! The driver without a kernel around it: what cannot be brought about from outside.

use std::num::NonZeroUsize;

use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::writer::{Image, Region, encode};
use lineinfo_core::{Address, Row};

use super::{Identity, LoadedTable, Refusal, TableSlot};
use crate::kernel::image::MACHINE;
use crate::machine::memory::Arena;

const BUILD_ID: [u8; 20] = [7; 20];

fn identity() -> Identity {
    Identity {
        build_id: BUILD_ID.to_vec(),
        machine: MACHINE,
        slide: 0x1000,
    }
}

fn table(arena: &'static Arena, machine: u16) -> Result<LoadedTable, Refusal> {
    let blob = encode(
        &Image {
            machine,
            build_id: &BUILD_ID,
            text_start: 0x100,
            profile: Profile::Full,
            files: &["a.rs"],
            exact_files: 1,
            regions: &[Region {
                name: ".text",
                start: 0,
                len: 16,
                init: false,
                rows: &[
                    Row {
                        start: 0,
                        file: 0,
                        line: 1,
                    },
                    Row {
                        start: 8,
                        file: 0,
                        line: 2,
                    },
                ],
            }],
        },
        Encoding::Flat,
    )
    .expect("a blob");
    let mut pages = arena.allocate(blob.len()).expect("memory");
    pages.bytes_mut()[..blob.len()].copy_from_slice(&blob);
    LoadedTable::check(pages.seal().expect("seal"), 0..blob.len(), &identity())
}

fn arena() -> &'static Arena {
    let pages = NonZeroUsize::new(4).expect("pages");
    Box::leak(Box::new(Arena::reserve(pages).expect("addresses")))
}

#[test]
fn a_table_that_is_being_read_comes_back_later() {
    let (arena, driver) = (arena(), TableSlot::new());
    driver
        .publish(table(arena, MACHINE).expect("a table"))
        .expect("publish");
    assert_eq!(arena.used_pages(), 1);

    let reader = driver.slot.read();
    assert_eq!(
        driver.unload().map_err(Refusal::errno),
        Err(lineinfo_core::uapi::Errno::EBUSY)
    );
    assert!(
        reader.get().is_some(),
        "the table is there for who is reading it"
    );
    assert_eq!(driver.memory_bytes(), 0, "and gone for everybody else");
    assert_eq!(arena.used_pages(), 1);
    driver.reclaim();
    assert_eq!(arena.used_pages(), 1);

    drop(reader);
    driver.reclaim();
    assert_eq!(arena.used_pages(), 0);
    assert!(matches!(driver.unload(), Err(Refusal::Empty)));
}

#[test]
fn a_new_table_does_not_wait_for_the_readers_of_the_old_one_for_ever() {
    let (arena, driver) = (arena(), TableSlot::new());
    driver
        .publish(table(arena, MACHINE).expect("a table"))
        .expect("publish");
    let reader = driver.slot.read();
    driver
        .publish(table(arena, MACHINE).expect("a table"))
        .expect("the new one is live");
    assert_eq!(arena.used_pages(), 2);
    let third = driver.publish(table(arena, MACHINE).expect("a table"));
    assert!(matches!(third, Err(Refusal::Readers)));
    assert_eq!(arena.used_pages(), 2, "the refused one is given back");
    drop(reader);
    driver.reclaim();
    assert_eq!(arena.used_pages(), 1);
}

#[test]
fn look_ups_take_run_time_addresses() {
    let driver = TableSlot::new();
    driver
        .publish(table(arena(), MACHINE).expect("a table"))
        .expect("publish");
    let location = |address| {
        let mut buffer = [0; 32];
        let mut text = StrBuffer::new(&mut buffer);
        driver.push_location(&mut text, address);
        text.into_str().to_owned()
    };
    assert_eq!(location(Address::Exact(0x1108)), " (a.rs:2)");
    assert_eq!(location(Address::Return(0x1108)), " (a.rs:1)");
    assert_eq!(location(Address::Exact(0x10ff)), "");
    assert_eq!(location(Address::Exact(0x1110)), "");
    assert_eq!(location(Address::Exact(u64::MAX)), "");
}

#[test]
fn another_machine_is_refused_and_its_pages_given_back() {
    let arena = arena();
    assert!(matches!(
        table(arena, MACHINE + 1),
        Err(Refusal::Machine { .. })
    ));
    assert_eq!(arena.used_pages(), 0);
    assert!(table(arena, MACHINE).is_ok());
}
