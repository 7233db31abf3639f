//! What a writer costs the readers of a slot: their look-up rate while tables are published,
//! replaced and unloaded in a loop, as a share of the rate without that loop.
//!
//! ```sh
//! cargo run --release --bin readers
//! ```
//!
//! Rates are look-ups per second of the readers' own processor time, so that what the loop itself
//! takes from a small machine, checksum and validation, is not mistaken for a cost of the slot. The
//! exit status is 1 where the share is below 0.9.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use lineinfo_core::slot::Slot;
use lineinfo_core::{Address, Offset, Table};
use lineinfo_tests::{Binaries, stdout_of};
use nix::time::{ClockId, clock_gettime};

const READERS: usize = 2;
const ROUNDS: usize = 8;
const ROUND: Duration = Duration::from_millis(500);
/// The share that must be reached.
const SHARE: f64 = 0.9;

/// A table as a kernel owns it.
#[derive(Debug)]
struct Owned(Vec<u8>);

static SLOT: Slot<Owned, Box<Owned>> = Slot::empty();

fn main() -> Result<ExitCode> {
    let binaries = Binaries::build(true)?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("table").display().to_string();
    let image = binaries.sim_kernel.display().to_string();
    stdout_of(binaries.lineinfo(&["build", &image, "-o", &path])?)?;
    let blob = std::fs::read(&path)?;
    let layout = *Table::parse(&blob)?.layout();

    let (mut quiet, mut busy, mut publications) = (Rate::default(), Rate::default(), 0);
    // By turns, so that whatever else the machine does meets both.
    for _ in 0..ROUNDS {
        fill(blob.clone());
        quiet.add(read_for(ROUND, &blob, &layout)?);
        let stop = AtomicBool::new(false);
        let found = thread::scope(|scope| {
            let writer = scope.spawn(|| publish(&blob, &stop));
            let found = read_for(ROUND, &blob, &layout);
            stop.store(true, Ordering::Relaxed);
            publications += writer.join().expect("the writer does not panic");
            found
        });
        busy.add(found?);
    }
    let share = busy.per_second() / quiet.per_second();
    println!(
        "look-ups a second, {READERS} readers, without the loop  {:>12.0}",
        quiet.per_second()
    );
    println!(
        "look-ups a second, {READERS} readers, with the loop     {:>12.0}",
        busy.per_second()
    );
    println!("tables published or unloaded meanwhile          {publications:>12}");
    println!("share                                           {share:>12.3}");
    Ok(ExitCode::from(u8::from(share < SHARE)))
}

#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    lookups: u64,
    time: Duration,
}

impl Rate {
    fn add(&mut self, other: Self) {
        self.lookups += other.lookups;
        self.time += other.time;
    }

    fn per_second(self) -> f64 {
        self.lookups as f64 / self.time.as_secs_f64()
    }
}

/// Puts a table into the slot, and gives the old one back.
fn fill(blob: Vec<u8>) {
    let waited = SLOT.swap(Some(Box::new(Owned(blob))), || {
        thread::yield_now();
        true
    });
    drop(waited.expect("there is one writer, and it waits"));
}

/// Loads and unloads as a kernel does: validate, publish, replace, empty; gives their number.
fn publish(blob: &[u8], stop: &AtomicBool) -> u64 {
    let mut publications = 0;
    while !stop.load(Ordering::Relaxed) {
        let copy = blob.to_vec();
        black_box(Table::parse(&copy).expect("it was valid before"));
        fill(copy);
        publications += 1;
        if publications % 3 == 0 {
            let waited = SLOT.swap(None, || {
                thread::yield_now();
                true
            });
            drop(waited.expect("there is one writer, and it waits"));
            publications += 1;
        }
    }
    publications
}

/// Looks addresses up in as many threads as there are readers.
fn read_for(time: Duration, own: &[u8], layout: &lineinfo_core::Layout) -> Result<Rate> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                scope.spawn({
                    let stop = &stop;
                    move || look_up(reader, own, layout, stop)
                })
            })
            .collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let mut all = Rate::default();
        for reader in readers {
            all.add(reader.join().expect("a reader does not panic")?);
        }
        Ok(all)
    })
}

fn look_up(
    reader: usize,
    own: &[u8],
    layout: &lineinfo_core::Layout,
    stop: &AtomicBool,
) -> Result<Rate> {
    let start = processor_time()?;
    let mut lookups = 0;
    let mut random = reader as u64 + 1;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..256 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let offset = Offset((random >> 16) % layout.text_len().max(1));
            let guard = SLOT.read();
            // A miss costs less than a look-up: an empty slot must not flatter the readers.
            let bytes = guard.get().map_or(own, |Owned(blob)| blob);
            black_box(Table::from_layout(bytes, *layout).lookup(Address::Exact(offset)));
        }
        lookups += 256;
    }
    let time = processor_time()? - start;
    Ok(Rate { lookups, time })
}

fn processor_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("a clock of the thread")?;
    Ok(time.into())
}
