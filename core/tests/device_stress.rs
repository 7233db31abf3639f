//! The device under threads: readers in "any context" while tables are loaded, refused and unloaded,
//! on the memory of this machine and for ThreadSanitizer (`.ci/tsan`).
//!
//! `LINEINFO_STRESS_SECONDS` says for how long; without it, for a moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::device::{
    BuildId, Caller, Config, Device, Expected, IDLE_MS_DEFAULT, Level, LoadedTable, Memory, Policy,
    Port, Refusal, Sealed, TableSlot, Trust,
};
use lineinfo_core::uapi::{Errno, Ioctl};
use lineinfo_core::writer::{Image, Region, encode};
use lineinfo_core::{Address, Row};

const READERS: usize = 2;
/// How often a load or an unload looks at the readers of the old table before it gives up.
const LOOKS: u32 = 100;
/// How many of everything there must be, so that the test means something.
const COUNT_MIN: u64 = 100;
/// How much longer to wait for them.
const PATIENCE: Duration = Duration::from_secs(60);

const PAGE: usize = 4096;
const BUILD_ID: [u8; 20] = [7; 20];
const ADDRESS: Address<u64> = Address::Exact(0x1108);
const ROOT: Caller = Caller {
    uid: 0,
    pid: 1,
    may_load: true,
    may_see_addresses: true,
};
const CONFIG: Config = Config {
    policy: Policy::On,
    max_bytes: 1 << 20,
    trust: Trust::Anybody,
    idle_ms: IDLE_MS_DEFAULT,
};

static SLOT: TableSlot<Kernel> = TableSlot::new();
static DONE: AtomicBool = AtomicBool::new(false);
static LOADS: AtomicU64 = AtomicU64::new(0);
static UNLOADS: AtomicU64 = AtomicU64::new(0);
static REFUSALS: AtomicU64 = AtomicU64::new(0);
static LOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The kernel around the device: the memory of the host, and one slot.
struct Kernel;

#[derive(Debug)]
struct Pages(Vec<u8>);

impl Memory for Pages {
    type Sealed = Self;
    const PAGE_SIZE: usize = PAGE;

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn truncate(&mut self, size: usize) {
        self.0.truncate(size.next_multiple_of(PAGE));
    }

    fn seal(self) -> Option<Self> {
        Some(self)
    }
}

impl Sealed for Pages {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Port for Kernel {
    type Memory = Pages;
    type Owner = Box<LoadedTable<Pages>>;

    fn allocate(&self, size: usize) -> Option<Pages> {
        Some(Pages(vec![0; size.next_multiple_of(PAGE)]))
    }

    fn own(&self, table: LoadedTable<Pages>) -> Option<Self::Owner> {
        Some(Box::new(table))
    }

    fn now_ms(&self) -> u64 {
        0
    }

    fn log(&self, _level: Level, _line: &str) {}

    fn keep_waiting(&self) -> impl FnMut() -> bool {
        let mut looks = 0;
        move || {
            thread::yield_now();
            looks += 1;
            looks < LOOKS
        }
    }

    fn with_slot<T>(
        &self,
        name: &str,
        act: impl FnOnce(&TableSlot<Self>, &Expected) -> T,
    ) -> Option<T> {
        name.is_empty().then(|| act(&SLOT, &expected()))
    }

    fn with_slot_at<T>(&self, _address: u64, act: impl FnOnce(&TableSlot<Self>) -> T) -> T {
        act(&SLOT)
    }
}

fn expected() -> Expected {
    Expected {
        build_id: BuildId::new(&BUILD_ID),
        machine: 62,
        slide: 0x1000,
    }
}

/// A table that has this line at [`ADDRESS`].
fn table(file: &str, line: u32) -> Vec<u8> {
    let rows = [Row {
        start: 0,
        file: 0,
        line,
    }];
    let image = Image {
        machine: expected().machine,
        build_id: &BUILD_ID,
        text_start: 0x100,
        profile: Profile::Full,
        files: &[file],
        exact_files: 1,
        regions: &[Region {
            name: ".text",
            start: 0,
            len: 16,
            init: false,
            rows: &rows,
        }],
    };
    encode(&image, Encoding::Flat).expect("a blob")
}

/// What readers in any context do: each answer is of one table, each reason of one refusal.
fn read() {
    while !DONE.load(Ordering::Relaxed) {
        let mut buffer = [0; 32];
        let mut text = StrBuffer::new(&mut buffer);
        SLOT.push_location(&mut text, ADDRESS);
        match text.as_str() {
            " (a.rs:1)" | " (b.rs:2)" => _ = LOCATIONS.fetch_add(1, Ordering::Relaxed),
            bare => assert_eq!(bare, ""),
        }

        let status = SLOT.status(&expected(), CONFIG.policy);
        assert_eq!(status.build_id(), BUILD_ID);
        let errno = status.last_errno;
        let is = |known: Errno| errno == known.number();
        let reason = status.last_reason();
        assert_eq!(errno == 0, reason.is_empty(), "{errno}: {reason}");
        assert_eq!(
            is(Errno::EBADMSG),
            reason.starts_with("checksum "),
            "{errno}: {reason}"
        );
        assert_eq!(
            is(Errno::ENOEXEC),
            reason.starts_with("not a "),
            "{errno}: {reason}"
        );
        // The sanitizer remembers the latest of what a thread did, which must cover the last table.
        thread::yield_now();
    }
}

/// Opens the device, writes a blob, and closes it.
fn load(device: &mut Device<Kernel>, blob: &[u8]) -> Result<(), Errno> {
    let mut file = device.open(ROOT, true).map_err(Refusal::errno)?;
    let written = device.write(&mut file, blob);
    device.close(&file);
    written.map_err(Refusal::errno)
}

fn unload(device: &mut Device<Kernel>) -> Result<(), Errno> {
    let mut file = device.open(ROOT, true).map_err(Refusal::errno)?;
    let unloaded = device.ioctl(&mut file, Ioctl::Unload.code(), &mut []);
    device.close(&file);
    unloaded.map_err(Refusal::errno)
}

fn load_and_unload(end: Instant) {
    let mut device = Device::new(Kernel);
    device.configure(CONFIG);
    let good = [table("a.rs", 1), table("b.rs", 2)];
    let mut flipped = good[0].clone();
    *flipped.last_mut().expect("a blob has bytes") ^= 1;
    let bad = [
        (flipped, Errno::EBADMSG),
        (vec![b'x'; PAGE], Errno::ENOEXEC),
    ];

    let enough = || {
        [&LOADS, &UNLOADS, &REFUSALS, &LOCATIONS]
            .iter()
            .all(|count| count.load(Ordering::Relaxed) >= COUNT_MIN)
    };
    while Instant::now() < end || (!enough() && Instant::now() < end + PATIENCE) {
        for (blob, (bad, errno)) in good.iter().zip(&bad) {
            match load(&mut device, blob) {
                Ok(()) => _ = LOADS.fetch_add(1, Ordering::Relaxed),
                // An older table still has readers.
                Err(busy) => assert_eq!(busy, Errno::EBUSY),
            }
            assert_eq!(load(&mut device, bad), Err(*errno));
            REFUSALS.fetch_add(1, Ordering::Relaxed);
            device.reclaim(&SLOT);
        }
        match unload(&mut device) {
            Ok(()) => _ = UNLOADS.fetch_add(1, Ordering::Relaxed),
            // An older table still has readers, or the loads were refused for that reason.
            Err(refused) => assert!(matches!(refused, Errno::EBUSY | Errno::ENODATA)),
        }
    }
}

#[test]
fn readers_see_whole_tables_and_reasons_while_tables_come_and_go() {
    let seconds = std::env::var("LINEINFO_STRESS_SECONDS");
    let seconds = seconds.map_or(0.5, |text| text.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let readers = [(); READERS].map(|()| thread::spawn(read));
    let loaded = thread::spawn(move || load_and_unload(end)).join();
    DONE.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().expect("the reader ends");
    }
    loaded.expect("the loader ends");
    let counts @ [loads, unloads, refusals, locations] =
        [&LOADS, &UNLOADS, &REFUSALS, &LOCATIONS].map(|count| count.load(Ordering::Relaxed));
    println!("{locations} locations, {loads} loads, {unloads} unloads, {refusals} refusals");
    assert!(counts.iter().all(|count| *count >= COUNT_MIN));
}
