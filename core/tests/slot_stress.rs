//! A slot under threads, on the memory of this machine and for ThreadSanitizer (`.ci/tsan`).
//!
//! `LINEINFO_STRESS_SECONDS` says for how long; without it, for a moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lineinfo_core::slot::{Reader, Slot, SwapError};

const READERS: usize = 2;
const WRITERS: u64 = 2;
/// How often a writer looks at the readers of the old table before it gives up.
const LOOKS: u32 = 100;
/// How many swaps and reads there must be, so that the test means something.
const COUNT_MIN: u64 = 100;
/// How much longer to wait for them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every word is the table's number: written before the table is published, freed after its last
/// reader.
type Table = [u64; 4];

static SLOT: Slot<Table, Box<Table>> = Slot::empty();
static DONE: AtomicBool = AtomicBool::new(false);
static READS: AtomicU64 = AtomicU64::new(0);
static SWAPS: AtomicU64 = AtomicU64::new(0);

/// Checks the table that a reader sees.
fn check(reader: &Reader<'_, Table, Box<Table>>) {
    if let Some(table) = reader.get() {
        assert!(table.iter().all(|word| *word == table[0]), "{table:?}");
        READS.fetch_add(1, Ordering::Relaxed);
    }
}

fn read() {
    while !DONE.load(Ordering::Relaxed) {
        for outer_first in [false, true] {
            let outer = SLOT.read();
            let inner = SLOT.read();
            let (first, last) = if outer_first {
                (outer, inner)
            } else {
                (inner, outer)
            };
            check(&first);
            drop(first);
            check(&last);
        }
        // The sanitizer remembers the latest of what a thread did, which must cover the last table.
        thread::yield_now();
    }
}

fn write(writer: u64, end: Instant) {
    let enough = || {
        [&READS, &SWAPS]
            .iter()
            .all(|count| count.load(Ordering::Relaxed) >= COUNT_MIN)
    };
    let mut number = writer;
    while Instant::now() < end || (!enough() && Instant::now() < end + PATIENCE) {
        number += WRITERS;
        let new = (!number.is_multiple_of(5)).then(|| Box::new([number; 4]));
        let mut looks = 0;
        let swapped = SLOT.swap(new, || {
            thread::yield_now();
            looks += 1;
            looks < LOOKS
        });
        if !matches!(swapped, Err(SwapError::Busy(_))) {
            SWAPS.fetch_add(1, Ordering::Relaxed);
        }
        if number.is_multiple_of(7) {
            // The other writer may be at work, and the readers may still be there.
            let _pending = SLOT.reclaim(|| false);
        }
    }
}

#[test]
fn readers_see_whole_tables_while_writers_replace_them() {
    let seconds = std::env::var("LINEINFO_STRESS_SECONDS");
    let seconds = seconds.map_or(0.5, |text| text.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    // ThreadSanitizer knows how threads start and are joined, but nothing that happens inside a
    // standard library without its instrumentation: no scope, no lock, no channel.
    let readers = [(); READERS].map(|()| thread::spawn(read));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| thread::spawn(move || write(writer, end)))
        .collect();
    for writer in writers {
        writer.join().expect("the writer ends");
    }
    DONE.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().expect("the reader ends");
    }
    let counts @ [reads, swaps] = [&READS, &SWAPS].map(|count| count.load(Ordering::Relaxed));
    println!("{reads} tables read, {swaps} swaps");
    assert!(counts.iter().all(|count| *count >= COUNT_MIN));
}
