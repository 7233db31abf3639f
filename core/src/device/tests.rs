//! The device in a world that a test rules: its clock, its memory, its readers.

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::string::{String, ToString};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;
use std::{format, vec};

use proptest::prelude::*;

use super::*;
use crate::blob::{Encoding, Profile};
use crate::footer;
use crate::table::Table;
use crate::uapi::{AddressBase, Errno, LOOKUP_FOUND, State};
use crate::writer::{self, Image, InlineChain, InlinedFunction, Inlines, Region, encode};
use crate::{Address, Row};

const PAGE: usize = 4096;
const MACHINE: u16 = 62;
const BUILD_ID: [u8; 20] = [7; 20];
const SLIDE: u64 = 0x1000;
const MODULE: &str = "xor";

/// What surrounds the device; it lives for ever, as a kernel does.
struct World {
    now_ms: Cell<u64>,
    log: RefCell<Vec<String>>,
    free_pages: Arc<AtomicUsize>,
    kernel: TableSlot<&'static World>,
    module: TableSlot<&'static World>,
}

#[derive(Debug)]
struct Pages {
    bytes: Vec<u8>,
    free_pages: Arc<AtomicUsize>,
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.free_pages
            .fetch_add(self.bytes.len() / PAGE, Ordering::Relaxed);
    }
}

impl Memory for Pages {
    type Sealed = Self;
    const PAGE_SIZE: usize = PAGE;

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn truncate(&mut self, size: usize) {
        let before = self.bytes.len();
        self.bytes.truncate(size.next_multiple_of(PAGE));
        self.free_pages
            .fetch_add((before - self.bytes.len()) / PAGE, Ordering::Relaxed);
    }

    fn seal(self) -> Option<Self> {
        Some(self)
    }
}

impl Sealed for Pages {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Port for &'static World {
    type Memory = Pages;
    type Owner = Box<LoadedTable<Pages>>;

    fn allocate(&self, size: usize) -> Option<Pages> {
        let pages = size.max(1).div_ceil(PAGE);
        let taken = self
            .free_pages
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                free.checked_sub(pages)
            });
        taken.ok()?;
        Some(Pages {
            bytes: vec![0; pages * PAGE],
            free_pages: self.free_pages.clone(),
        })
    }

    fn own(&self, table: LoadedTable<Pages>) -> Option<Self::Owner> {
        Some(Box::new(table))
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    fn log(&self, _level: Level, line: &str) {
        self.log.borrow_mut().push(line.to_string());
    }

    fn verify(&self, signed: &Signed<'_>) -> bool {
        signed.signature.signature == fake_signature(&signed.message.concat())
    }

    fn keep_waiting(&self) -> impl FnMut() -> bool {
        || false
    }

    fn with_slot<T>(
        &self,
        name: &str,
        act: impl FnOnce(&TableSlot<Self>, &Expected) -> T,
    ) -> Option<T> {
        match name {
            "" => Some(act(&self.kernel, &expected())),
            MODULE => Some(act(&self.module, &expected())),
            _ => None,
        }
    }

    fn with_slot_at<T>(&self, _address: u64, mut act: impl FnMut(&TableSlot<Self>) -> T) -> T {
        act(&self.kernel)
    }
}

fn expected() -> Expected {
    Expected {
        build_id: BuildId::new(&BUILD_ID),
        machine: MACHINE,
        slide: SLIDE,
    }
}

/// What stands for a signature here: something that depends on every byte.
fn fake_signature(message: &[u8]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..4].copy_from_slice(&crc32fast::hash(message).to_le_bytes());
    signature
}

const KEY: [u8; 32] = [0xaa; 32];
const OTHER_KEY: [u8; 32] = [0xbb; 32];

fn signed(blob: &[u8], key: [u8; 32]) -> Vec<u8> {
    writer::sign(blob, key, fake_signature).unwrap()
}

const ROOT: Caller = Caller {
    uid: 0,
    pid: 1,
    may_load: true,
    may_see_addresses: true,
};

const NOBODY: Caller = Caller {
    uid: 65534,
    pid: 2,
    may_load: false,
    may_see_addresses: false,
};

const CONFIG: Config = Config {
    policy: Policy::On,
    max_bytes: 1 << 20,
    trust: Trust::Anybody,
    idle_ms: IDLE_MS_DEFAULT,
};

struct Fixture {
    world: &'static World,
    device: Device<&'static World>,
}

impl Fixture {
    fn new(pages: usize) -> Self {
        let world: &'static World = Box::leak(Box::new(World {
            now_ms: Cell::new(0),
            log: RefCell::default(),
            free_pages: Arc::new(AtomicUsize::new(pages)),
            kernel: TableSlot::new(),
            module: TableSlot::new(),
        }));
        let mut device = Device::new(world);
        device.configure(CONFIG);
        Self { world, device }
    }

    fn free_pages(&self) -> usize {
        self.world.free_pages.load(Ordering::Relaxed)
    }

    fn log(&self) -> String {
        self.world
            .log
            .borrow_mut()
            .drain(..)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn wait(&self, ms: u64) {
        self.world.now_ms.set(self.world.now_ms.get() + ms);
    }

    fn ioctl(&mut self, file: &mut File, request: Ioctl) -> Result<(), Errno> {
        let mut argument = vec![0; request.size()];
        self.device
            .ioctl(file, request.code(), &mut argument)
            .map_err(Refusal::errno)
    }

    fn aim(&mut self, file: &mut File, name: &str) -> Result<(), Errno> {
        let mut target = Target::module(name).unwrap();
        self.device
            .ioctl(file, Ioctl::Target.code(), target.as_mut_bytes())
            .map_err(Refusal::errno)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), Errno> {
        self.device.write(file, bytes).map_err(Refusal::errno)
    }

    fn load(&mut self, blob: &[u8]) -> Result<(), Errno> {
        let mut file = self.device.open(ROOT, true).map_err(Refusal::errno)?;
        let written = self.write(&mut file, blob);
        let committed = self.ioctl(&mut file, Ioctl::Commit);
        self.device.close(&file);
        written.and(committed)
    }

    fn unload(&mut self) -> Result<(), Errno> {
        let mut file = self.device.open(ROOT, true).map_err(Refusal::errno)?;
        let unloaded = self.ioctl(&mut file, Ioctl::Unload);
        self.device.close(&file);
        unloaded
    }

    fn location(&self, address: u64) -> String {
        let mut buffer = [0; 32];
        let mut text = StrBuffer::new(&mut buffer);
        let address = Address::Exact(address);
        self.world.kernel.push_location(&mut text, address);
        text.as_str().to_string()
    }

    fn status(&self) -> Status {
        self.device.status_of("").unwrap()
    }
}

/// A table of 10 bytes for each row of text, and as many for each row of init text.
fn table_for(build_id: &[u8], machine: u16, text_rows: u32, init_rows: u32) -> Vec<u8> {
    let rows = |count: u32| -> Vec<Row> {
        let row = |row| Row {
            start: row * 4,
            file: 0,
            line: row + 1,
        };
        (0..count).map(row).collect()
    };
    let (text, init) = (rows(text_rows), rows(init_rows));
    let region = |name, start, init, rows| Region {
        name,
        start,
        len: 0x10000,
        init,
        rows,
    };
    let image = Image {
        machine,
        build_id,
        text_start: 0x100,
        profile: Profile::Full,
        files: &["a.rs"],
        exact_files: 1,
        regions: &[
            region(".text", 0, false, &text),
            region(".init.text", 0x10000, true, &init),
        ],
    };
    encode(&image, Encoding::Flat).unwrap()
}

fn table(text_rows: u32, init_rows: u32) -> Vec<u8> {
    table_for(&BUILD_ID, MACHINE, text_rows, init_rows)
}

/// A table of 16 bytes of text: in the first 8 the functions of these names are inlined, the first into
/// the second at line 8, that into the physical one at line 9.
fn table_with_inlines(names: [&str; 2]) -> Vec<u8> {
    let inlines = Inlines {
        functions: names.map(|name| InlinedFunction::new(name, 0, 1)).to_vec(),
        chains: vec![InlineChain::new(1, &[(1, 9), (0, 8)])],
    };
    let row = |start, file, line| Row { start, file, line };
    let image = Image {
        machine: MACHINE,
        build_id: &BUILD_ID,
        text_start: 0x100,
        profile: Profile::Full,
        files: &["a.h", "b.c"],
        exact_files: 2,
        regions: &[Region {
            name: ".text",
            start: 0,
            len: 16,
            init: false,
            rows: &[row(0, 0, 7), row(8, 1, 10), row(12, 0, 0)],
        }],
    };
    let chains = [Some(0), None, None];
    writer::encode_with_inlines(&image, &inlines, &[&chains], Encoding::Packed).unwrap()
}

#[test]
fn a_table_is_published_with_its_last_byte() {
    let mut f = Fixture::new(10);
    let blob = table(10, 0);
    for piece in [1, 95, 96, 97, 4096] {
        let mut file = f.device.open(ROOT, true).unwrap();
        for bytes in blob[..blob.len() - 1].chunks(piece) {
            f.write(&mut file, bytes).unwrap();
        }
        assert_eq!(f.status().state, State::Empty.number());
        assert_eq!(
            f.device.flush(&file).map_err(Refusal::errno),
            Err(Errno::ENOEXEC)
        );
        f.write(&mut file, &blob[blob.len() - 1..]).unwrap();
        assert_eq!(f.status().state, State::Loaded.number());
        f.ioctl(&mut file, Ioctl::Commit).unwrap();
        f.device.flush(&file).unwrap();
        assert_eq!(f.write(&mut file, b"x"), Err(Errno::EINVAL));
        f.ioctl(&mut file, Ioctl::Commit).unwrap();
        assert_eq!(f.location(SLIDE + 0x100 + 5), " (a.rs:2)");
        assert_eq!(f.location(SLIDE + 0xff), "");
        assert_eq!(f.free_pages(), 9);
        f.ioctl(&mut file, Ioctl::Unload).unwrap();
        assert_eq!(f.ioctl(&mut file, Ioctl::Unload), Err(Errno::ENODATA));
        f.device.close(&file);
        assert_eq!(f.free_pages(), 10);
    }
    assert!(f.log().contains("lineinfo: loaded 10 entries, 1 files, "));
}

#[test]
fn whatever_is_wrong_leaves_the_old_table_and_no_memory() {
    let mut f = Fixture::new(10);
    let good = table(10, 0);
    f.load(&good).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() - 1] ^= 1;
    let mut huge = good.clone();
    huge[12..16].copy_from_slice(&(CONFIG.max_bytes as u32 + 1).to_le_bytes());
    let cases = [
        (flipped, Errno::EBADMSG, "checksum "),
        (huge, Errno::EFBIG, "1048577 bytes, lineinfo.max=1048576"),
        (b"x".repeat(96), Errno::ENOEXEC, "not a lineinfo blob"),
        (
            good[..50].to_vec(),
            Errno::ENOEXEC,
            "truncated: 50 of 60 bytes",
        ),
        (
            [&good[..], b"x"].concat(),
            Errno::ENOEXEC,
            " bytes where the header says ",
        ),
        (
            table_for(&BUILD_ID, 183, 1, 0),
            Errno::ENOEXEC,
            "made for ELF machine 183, ",
        ),
        (
            table_for(&[1; 20], MACHINE, 1, 0),
            Errno::ESTALE,
            "made for build-id 0101",
        ),
        (
            table_for(&[], MACHINE, 1, 0),
            Errno::ESTALE,
            "made for build-id (none)",
        ),
        (table(5000, 0), Errno::ENOMEM, "no memory for "),
    ];
    f.log();
    for (blob, errno, reason) in cases {
        let mut file = f.device.open(ROOT, true).unwrap();
        let written = f.write(&mut file, &blob);
        assert_eq!(f.ioctl(&mut file, Ioctl::Commit), Err(errno), "{reason}");
        if written.is_err() {
            assert_eq!(
                f.write(&mut file, &good),
                Err(errno),
                "{reason}: it stays refused"
            );
        }
        f.device.close(&file);
        let log = f.log();
        assert!(
            log.contains("load refused: ") && log.contains(reason),
            "{log}"
        );
        assert!(log.ends_with(&format!(": -{errno}")), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
        let status = f.status();
        assert_eq!(status.last_errno, errno.number());
        assert!(status.last_reason().contains(reason));
        assert_eq!((status.rows, f.free_pages()), (10, 9), "{reason}");
    }
}

#[test]
fn a_file_that_does_not_go_on_loses_the_device_to_the_next() {
    let mut f = Fixture::new(10);
    let blob = table(1000, 0);
    let pages = blob.len().div_ceil(PAGE);
    let mut old = f.device.open(ROOT, true).unwrap();
    f.write(&mut old, &blob[..5000]).unwrap();
    assert_eq!(f.free_pages(), 10 - pages);

    // Every request counts, even one that anybody can make.
    f.wait(IDLE_MS_DEFAULT - 1);
    f.ioctl(&mut old, Ioctl::Status).unwrap();
    f.wait(IDLE_MS_DEFAULT - 1);
    let turned_away = f.device.open(ROOT, true).map(drop);
    assert_eq!(turned_away, Err(Refusal::Writing { by: ROOT }));

    // Nobody who may not load can take it over.
    f.wait(1);
    let turned_away = f.device.open(NOBODY, true).map(drop);
    assert_eq!(turned_away.map_err(Refusal::errno), Err(Errno::EPERM));
    f.log();

    let other = Caller { pid: 3, ..ROOT };
    let mut new = f.device.open(other, true).unwrap();
    assert_eq!(f.free_pages(), 10, "what was written is gone");
    assert_eq!(
        f.log(),
        "lineinfo: process 3 of user 0 takes the device over from process 1 of user 0, which made no request for 30 s; 5000 bytes discarded"
    );
    assert_eq!(
        f.device.flush(&old).map_err(Refusal::errno),
        Err(Errno::ETIMEDOUT)
    );
    assert_eq!(f.write(&mut old, &blob[5000..]), Err(Errno::ETIMEDOUT));
    for request in [Ioctl::Commit, Ioctl::Unload, Ioctl::Abort] {
        assert_eq!(f.ioctl(&mut old, request), Err(Errno::ETIMEDOUT));
    }
    f.ioctl(&mut old, Ioctl::Status).unwrap();
    let reason = f.status().last_reason().to_string();
    assert!(reason.contains("no request for more than 30 s"), "{reason}");

    // The new one is not disturbed, not even by the end of the old one.
    f.write(&mut new, &blob[..5000]).unwrap();
    f.device.close(&old);
    f.write(&mut new, &blob[5000..]).unwrap();
    f.ioctl(&mut new, Ioctl::Commit).unwrap();
    f.device.close(&new);
    assert_eq!(f.status().rows, 1000);
}

#[test]
fn a_file_that_is_closed_half_way_discards_what_it_wrote() {
    let mut f = Fixture::new(10);
    let mut file = f.device.open(ROOT, true).unwrap();
    f.write(&mut file, &table(10, 0)[..150]).unwrap();
    f.device.close(&file);
    assert_eq!(f.free_pages(), 10);
    assert_eq!(
        f.log(),
        "lineinfo: load by process 1 of user 0 closed after 150 bytes, before the end: discarded"
    );
    f.load(&table(10, 0)).unwrap();
}

#[test]
fn a_load_that_is_aborted_can_begin_again() {
    let mut f = Fixture::new(10);
    let (first, second) = (table(10, 0), table(20, 0));
    let mut file = f.device.open(ROOT, true).unwrap();
    f.ioctl(&mut file, Ioctl::Abort).unwrap();
    assert_eq!(f.log(), "", "there was nothing to discard");

    // Half-way, and for another target from then on.
    f.write(&mut file, &first[..200]).unwrap();
    f.ioctl(&mut file, Ioctl::Abort).unwrap();
    assert_eq!(f.free_pages(), 10);
    f.device.flush(&file).unwrap();
    assert!(
        f.log()
            .contains("process 1 of user 0 aborted after 200 bytes")
    );
    f.aim(&mut file, MODULE).unwrap();
    f.aim(&mut file, "").unwrap();

    // After a refusal.
    assert_eq!(f.write(&mut file, &b"x".repeat(96)), Err(Errno::ENOEXEC));
    f.ioctl(&mut file, Ioctl::Abort).unwrap();
    f.write(&mut file, &first).unwrap();
    assert_eq!(f.status().rows, 10);

    // After the end: the table stays until the next one comes.
    f.ioctl(&mut file, Ioctl::Abort).unwrap();
    assert_eq!(f.status().rows, 10);
    assert_eq!(f.ioctl(&mut file, Ioctl::Commit), Err(Errno::ENOEXEC));
    f.ioctl(&mut file, Ioctl::Abort).unwrap();
    f.write(&mut file, &second).unwrap();
    f.ioctl(&mut file, Ioctl::Commit).unwrap();
    assert_eq!(f.status().rows, 20);
}

#[test]
fn each_slot_keeps_its_own_last_refusal() {
    let mut f = Fixture::new(10);
    let mut file = f.device.open(ROOT, true).unwrap();
    assert_eq!(f.aim(&mut file, "none"), Err(Errno::ENOENT));
    f.aim(&mut file, MODULE).unwrap();
    assert_eq!(f.write(&mut file, &b"x".repeat(96)), Err(Errno::ENOEXEC));
    assert_eq!(f.aim(&mut file, ""), Ok(()), "nothing is under way");
    f.device.close(&file);
    assert!(
        f.log()
            .contains("load of module xor refused: not a lineinfo blob")
    );
    assert_eq!(
        f.load(&table_for(&[1; 20], MACHINE, 1, 0)),
        Err(Errno::ESTALE)
    );
    assert_eq!(f.status().last_errno, Errno::ESTALE.number());
    let module = f.device.status_of(MODULE).unwrap();
    assert_eq!(module.last_errno, Errno::ENOEXEC.number());
    assert!(module.last_reason().starts_with("not a lineinfo blob"));

    // A target is not changed in the middle of a load.
    let mut file = f.device.open(ROOT, true).unwrap();
    f.write(&mut file, b"x").unwrap();
    assert_eq!(f.aim(&mut file, MODULE), Err(Errno::EINVAL));
}

#[test]
fn refusals_that_anybody_can_cause_do_not_flood_the_log() {
    let mut f = Fixture::new(10);
    for _ in 0..1000 {
        assert!(f.device.open(NOBODY, true).is_err());
        f.wait(1);
    }
    assert_eq!(f.log().lines().count(), 10);
    f.wait(5000);
    assert!(f.device.open(NOBODY, true).is_err());
    let log = f.log();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines[0], "lineinfo: 990 refusals suppressed");
    assert!(
        lines[1].contains("open refused: user 65534 "),
        "{}",
        lines[1]
    );
    assert_eq!(lines.len(), 2);
}

#[test]
fn who_may_not_load_changes_no_status_and_hides_no_refusal_of_others() {
    let mut f = Fixture::new(10);
    assert_eq!(f.load(&b"x".repeat(96)), Err(Errno::ENOEXEC));
    for _ in 0..20 {
        assert!(f.device.open(NOBODY, true).is_err());
    }
    let status = f.status();
    assert_eq!(status.last_errno, Errno::ENOEXEC.number());
    assert!(status.last_reason().starts_with("not a lineinfo blob"));
    f.log();
    assert_eq!(f.load(&b"y".repeat(96)), Err(Errno::ENOEXEC));
    assert!(f.log().contains("load refused: not a lineinfo blob"));
    // An open that finds the device busy is about no slot.
    let file = f.device.open(ROOT, true).unwrap();
    assert!(f.device.open(ROOT, true).is_err());
    assert_eq!(f.status().last_errno, Errno::ENOEXEC.number());
    f.device.close(&file);
}

#[test]
fn who_may_not_see_addresses_asks_by_offset() {
    let mut f = Fixture::new(10);
    let ask = |f: &mut Fixture, file: &mut File, address, base| {
        let mut question = Lookup::from_base(Address::Exact(address), base);
        let bytes = question.as_mut_bytes();
        let asked = f.device.ioctl(file, Ioctl::Lookup.code(), bytes);
        let answer = (question.result, question.file().to_string(), question.line);
        asked.map(|()| answer).map_err(Refusal::errno)
    };
    let found = |line| Ok((LOOKUP_FOUND, "a.rs".to_string(), line));
    let missed = Ok((0, String::new(), 0));
    let mut nobody = f.device.open(NOBODY, false).unwrap();
    assert_eq!(
        ask(&mut f, &mut nobody, 5, AddressBase::Text),
        Err(Errno::ENODATA)
    );
    f.load(&table(10, 0)).unwrap();
    // Every run-time address is refused alike, right or wrong.
    for address in [0, 5, SLIDE + 0x105, u64::MAX] {
        assert_eq!(
            ask(&mut f, &mut nobody, address, AddressBase::RunTime),
            Err(Errno::EPERM)
        );
    }
    for (offset, answer) in [(5, found(2)), (1 << 40, missed.clone()), (u64::MAX, missed)] {
        assert_eq!(ask(&mut f, &mut nobody, offset, AddressBase::Text), answer);
    }
    let mut root = f.device.open(ROOT, false).unwrap();
    for (address, base) in [
        (SLIDE + 0x105, AddressBase::RunTime),
        (5, AddressBase::Text),
    ] {
        assert_eq!(ask(&mut f, &mut root, address, base), found(2));
    }
    // The offset is that into the file's target.
    f.aim(&mut nobody, MODULE).unwrap();
    assert_eq!(
        ask(&mut f, &mut nobody, 5, AddressBase::Text),
        Err(Errno::ENODATA)
    );
    let mut question = Lookup::new(Address::Exact(5));
    question.base = 2;
    let bytes = question.as_mut_bytes();
    let unknown = f.device.ioctl(&mut nobody, Ioctl::Lookup.code(), bytes);
    assert_eq!(unknown, Err(Refusal::Argument));
}

#[test]
fn functions_are_asked_for_level_by_level() {
    let mut f = Fixture::new(10);
    let mut file = f.device.open(NOBODY, false).unwrap();
    let mut ask = |f: &mut Fixture, offset, level| {
        let mut question = Lookup::from_base(Address::Exact(offset), AddressBase::Text);
        question.level = level;
        let bytes = question.as_mut_bytes();
        let asked = f.device.ioctl(&mut file, Ioctl::Lookup.code(), bytes);
        asked.map(|()| question).map_err(Refusal::errno)
    };
    let said = |answer: &Lookup| {
        let function = answer.function().unwrap_or("-");
        let location = format!("{}:{}", answer.file(), answer.line);
        format!(
            "{} {} {location} {function}",
            answer.levels,
            answer.result & LOOKUP_FOUND
        )
    };
    assert_eq!(ask(&mut f, 5, 1).unwrap_err(), Errno::ENODATA);
    f.load(&table_with_inlines(["inner", "outer"])).unwrap();
    for (offset, level, expected) in [
        (5, 0, "3 1 a.h:7 inner"),
        (5, 1, "3 1 a.h:8 outer"),
        (5, 2, "3 1 b.c:9 -"),
        (5, 3, "3 0 :0 -"),
        (5, u16::MAX, "3 0 :0 -"),
        (9, 0, "1 1 b.c:10 -"),
        (9, 1, "1 0 :0 -"),
        (13, 0, "0 0 :0 -"),
        (13, 1, "0 0 :0 -"),
        (99, 0, "0 0 :0 -"),
    ] {
        assert_eq!(
            said(&ask(&mut f, offset, level).unwrap()),
            expected,
            "{offset}, {level}"
        );
    }
    // The levels of an address are one look-up.
    let counted = (f.world.kernel.lookups(), f.world.kernel.misses());
    assert_eq!(counted, (4, 2));

    // Answers of two tables are told apart.
    let first = ask(&mut f, 5, 0).unwrap().checksum;
    assert_eq!(ask(&mut f, 99, 7).unwrap().checksum, first);
    f.load(&table_with_inlines(["other", "outer"])).unwrap();
    let second = ask(&mut f, 5, 1).unwrap().checksum;
    assert_ne!(first, second);

    // A table without chains has the location alone.
    f.load(&table(10, 0)).unwrap();
    assert_eq!(said(&ask(&mut f, 5, 0).unwrap()), "0 1 a.rs:2 -");
    assert_eq!(said(&ask(&mut f, 5, 1).unwrap()), "0 0 :0 -");
}

#[test]
fn who_may_do_what() {
    let mut f = Fixture::new(10);
    f.load(&table(10, 0)).unwrap();
    let mut reader = f.device.open(NOBODY, false).unwrap();
    for request in Ioctl::ALL {
        let expected = match request {
            Ioctl::Status | Ioctl::Target => Ok(()),
            Ioctl::Lookup => Err(Errno::EPERM),
            Ioctl::Commit | Ioctl::Unload | Ioctl::Abort => Err(Errno::EBADF),
        };
        assert_eq!(f.ioctl(&mut reader, *request), expected, "{request}");
    }
    assert_eq!(f.write(&mut reader, b"x"), Err(Errno::EBADF));

    let mut reader = f.device.open(ROOT, false).unwrap();
    let mut question = Lookup::new(Address::Return(SLIDE + 0x104));
    f.device
        .ioctl(&mut reader, Ioctl::Lookup.code(), question.as_mut_bytes())
        .unwrap();
    let answer = (question.result, question.file(), question.line);
    assert_eq!(answer, (LOOKUP_FOUND, "a.rs", 1));
    question.kind = 99;
    let unknown = f
        .device
        .ioctl(&mut reader, Ioctl::Lookup.code(), question.as_mut_bytes());
    assert_eq!(unknown, Err(Refusal::Argument));

    let size = Ioctl::Status.size();
    for (code, len, errno) in [
        (Ioctl::Status.code(), size - 1, Errno::EINVAL),
        (Ioctl::Status.code(), 0, Errno::EINVAL),
        (Ioctl::Status.code() + 100, size, Errno::ENOTTY),
        (u32::MAX, size, Errno::ENOTTY),
    ] {
        let refused = f.device.ioctl(&mut reader, code, &mut vec![0; len]);
        assert_eq!(refused.map_err(Refusal::errno), Err(errno));
    }
}

#[test]
fn a_device_that_was_told_nothing_or_never_takes_nothing() {
    let mut f = Fixture::new(10);
    let never = Config {
        policy: Policy::Never,
        ..CONFIG
    };
    for mut device in [Device::new(f.world), {
        f.device.configure(never);
        f.device
    }] {
        let refused = device.open(ROOT, true).map(drop);
        assert_eq!(refused, Err(Refusal::Never));
        device.open(NOBODY, false).unwrap();
        assert_eq!(device.status_of("").unwrap().state, State::Never.number());
        device.load_appended(0, |_, _| Err(()));
    }
}

#[test]
fn a_table_that_is_being_read_is_freed_later() {
    let mut f = Fixture::new(10);
    f.load(&table(10, 0)).unwrap();
    let reader = f.world.kernel.slot.read();
    f.load(&table(20, 0)).unwrap();
    assert_eq!(f.free_pages(), 8, "both are there");
    assert_eq!(f.load(&table(30, 0)), Err(Errno::EBUSY));
    assert_eq!(f.free_pages(), 8, "the one that was refused is freed");
    f.device.reclaim(&f.world.kernel);
    assert!(f.world.kernel.is_pending());
    drop(reader);
    f.device.reclaim(&f.world.kernel);
    assert!(!f.world.kernel.is_pending());
    assert_eq!(f.free_pages(), 9);

    let reader = f.world.kernel.slot.read();
    assert_eq!(f.unload(), Err(Errno::EBUSY));
    assert!(reader.get().is_some(), "it is there for who is reading it");
    assert_eq!(
        f.world.kernel.memory_bytes(),
        0,
        "and gone for everybody else"
    );
    assert_eq!(f.unload(), Err(Errno::EBUSY));
    drop(reader);
    assert_eq!(f.unload(), Ok(()));
    assert_eq!(f.unload(), Err(Errno::ENODATA));
    assert_eq!(f.free_pages(), 10);
}

#[test]
fn a_table_that_comes_after_init_text_has_gone_shrinks_in_its_own_memory() {
    let blob = table(1000, 1000);
    let pages = blob.len().div_ceil(PAGE);
    let left = table(1000, 0).len().div_ceil(PAGE);
    assert!(left < pages);
    // Room for the blob, and for no copy of it.
    let mut f = Fixture::new(pages);
    f.device.free_init("");
    f.load(&blob).unwrap();
    assert_eq!(f.free_pages(), pages - left);
    assert_eq!(f.status().rows, 1000);
    assert_eq!(f.status().memory as usize, left * PAGE);
    let text = SLIDE + 0x100;
    assert_eq!(f.location(text + 400), " (a.rs:101)");
    assert_eq!(f.location(text + 0x10000), "", "that text is gone");
    f.unload().unwrap();
    assert_eq!(f.free_pages(), pages);

    // That of a module is another image.
    let mut file = f.device.open(ROOT, true).unwrap();
    f.aim(&mut file, MODULE).unwrap();
    f.write(&mut file, &blob).unwrap();
    assert_eq!(f.device.status_of(MODULE).unwrap().rows, 2000);
}

#[test]
fn a_table_that_came_before_is_copied_only_if_that_saves_pages_and_there_are_some() {
    let (few, many) = (table(1000, 1), table(1000, 1000));
    let pages = |blob: &[u8]| blob.len().div_ceil(PAGE);
    let left = pages(&table(1000, 0));
    assert_eq!(pages(&few), left, "10 bytes are no page");
    for (blob, memory, rows, free) in [
        // Nothing to be saved, though there is memory for a copy.
        (&few, 100, 1001, 100 - left),
        // Something to be saved, and no memory for the copy.
        (&many, pages(&many), 2000, 0),
        (&many, pages(&many) + left, 1000, pages(&many)),
    ] {
        let mut f = Fixture::new(memory);
        f.load(blob).unwrap();
        f.log();
        f.device.free_init("");
        assert_eq!((f.status().rows, f.free_pages()), (rows, free));
        assert_eq!(f.status().last_errno, 0);
        assert_eq!(f.location(SLIDE + 0x100 + 400), " (a.rs:101)");
        let log = f.log();
        assert_eq!(log.contains("freed "), rows == 1000, "{log}");
        assert!(!log.contains("refused"), "{log}");
    }
}

#[test]
fn the_table_of_a_boot_image_goes_the_same_way() {
    let blob = table(100, 0);
    let image_of = |image_len: u64| {
        let (pad, footer) = footer::append(image_len, &blob).unwrap();
        [&vec![1; image_len as usize], pad, &blob, footer.as_bytes()].concat()
    };
    let boot = |f: &mut Fixture, image: &[u8], unreadable: u64| {
        f.device.load_appended(image.len() as u64, |at, buffer| {
            let bytes = &image[at as usize..][..buffer.len()];
            buffer.copy_from_slice(bytes);
            if at == unreadable { Err(()) } else { Ok(()) }
        });
        f.log()
    };
    for image_len in 0..17 {
        let mut f = Fixture::new(10);
        let image = image_of(image_len);
        let log = boot(&mut f, &image, u64::MAX);
        assert!(log.starts_with("lineinfo: loaded 100 entries"), "{log}");
        assert_eq!(f.location(SLIDE + 0x100 + 40), " (a.rs:11)");
        assert_eq!(f.free_pages(), 10 - blob.len().div_ceil(PAGE));
    }
    let mut f = Fixture::new(10);
    let image = image_of(3);
    let mut flipped = image.clone();
    flipped[500] ^= 1;
    for (image, unreadable, errno, reason) in [
        (&flipped, u64::MAX, Errno::EBADMSG, "where the footer says"),
        (&image, 3, Errno::ENOEXEC, "truncated: 0 of "),
    ] {
        let log = boot(&mut f, image, unreadable);
        assert!(
            log.starts_with("lineinfo: appended table refused: "),
            "{log}"
        );
        assert!(log.contains(reason), "{log}");
        assert_eq!(f.status().last_errno, errno.number());
        assert_eq!(f.free_pages(), 10);
    }
    // The limit is that of the blob: the pad does not count, and gains nothing.
    for image_len in 0..17 {
        let image = image_of(image_len);
        for (max, is_loaded) in [(blob.len(), true), (blob.len() - 1, false)] {
            let mut f = Fixture::new(10);
            f.device.configure(Config {
                max_bytes: max as u64,
                ..CONFIG
            });
            let log = boot(&mut f, &image, u64::MAX);
            assert_eq!(
                f.status().state == State::Loaded.number(),
                is_loaded,
                "{log}"
            );
            assert_eq!(log.contains("-EFBIG"), !is_loaded, "{log}");
        }
    }
    let log = boot(&mut f, &image[..100], u64::MAX);
    assert!(log.contains("no table is appended to this image"), "{log}");
}

#[test]
fn only_tables_of_the_trusted_key_are_taken() {
    let (blob, image_len) = (table(1000, 1000), 3);
    let good = signed(&blob, KEY);
    assert_eq!(signed(&good, KEY), good, "a signature is replaced");
    assert_eq!(signed(&signed(&blob, OTHER_KEY), KEY), good);
    let other = signed(&blob, OTHER_KEY);
    let mut forged = other.clone();
    let key = forged.len() - 96;
    forged[key..key + 32].copy_from_slice(&KEY);
    writer::seal(&mut forged);
    // Any bit but those of the checksum, which is made right again.
    let changed = |bit: usize| {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        writer::seal(&mut changed);
        changed
    };
    let rows = 8 * 5000 + 3;
    let cases = [
        (
            Trust::Key(KEY),
            blob.clone(),
            "it is not signed, this kernel takes tables signed by key aaaaaaaaaaaaaaaa; sign it with `lineinfo sign`",
        ),
        (
            Trust::Key(KEY),
            other,
            "signed by key bbbbbbbbbbbbbbbb, this kernel takes tables signed by key aaaaaaaaaaaaaaaa",
        ),
        (
            Trust::Key(KEY),
            forged,
            "the signature of key aaaaaaaaaaaaaaaa does not match",
        ),
        (
            Trust::Key(KEY),
            changed(rows),
            "the signature of key aaaaaaaaaaaaaaaa does not match",
        ),
        (Trust::Nobody, blob.clone(), "boot with lineinfo.key="),
        (Trust::Nobody, good.clone(), "boot with lineinfo.key="),
    ];
    let boot = |f: &mut Fixture, blob: &[u8]| {
        let (pad, footer) = footer::append(image_len, blob).unwrap();
        let image = [&vec![1; image_len as usize], pad, blob, footer.as_bytes()].concat();
        f.device.load_appended(image.len() as u64, |at, buffer| {
            buffer.copy_from_slice(&image[at as usize..][..buffer.len()]);
            Ok::<(), ()>(())
        });
    };
    for (trust, blob, reason) in cases {
        let mut f = Fixture::new(100);
        f.device.configure(Config { trust, ..CONFIG });
        assert_eq!(f.load(&blob), Err(Errno::EKEYREJECTED), "{reason}");
        for is_late in [true, false] {
            if !is_late {
                boot(&mut f, &blob);
            }
            let status = f.status();
            assert_eq!(status.last_errno, Errno::EKEYREJECTED.number());
            assert!(status.last_reason().contains(reason), "{status}");
            assert_eq!((status.state, f.free_pages()), (State::Empty.number(), 100));
            assert!(f.log().ends_with("-EKEYREJECTED"));
        }
    }
    // Whoever demands nothing takes all of them.
    for (trust, blob) in [
        (Trust::Key(KEY), &good),
        (Trust::Anybody, &good),
        (Trust::Anybody, &blob),
    ] {
        let mut f = Fixture::new(100);
        f.device.configure(Config { trust, ..CONFIG });
        f.load(blob).unwrap();
        boot(&mut f, blob);
        // Init text is taken out of what was verified.
        f.device.free_init("");
        assert_eq!(f.status().rows, 1000);
        f.load(blob).unwrap();
        assert_eq!(f.status().rows, 1000);
        assert_eq!(f.location(SLIDE + 0x100 + 400), " (a.rs:101)");
    }
    // A signature is over all else.
    let small = signed(&table(2, 1), KEY);
    let mut f = Fixture::new(100);
    f.device.configure(Config {
        trust: Trust::Key(KEY),
        ..CONFIG
    });
    for bit in (0..16 * 8).chain(20 * 8..small.len() * 8) {
        let mut changed = small.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        writer::seal(&mut changed);
        assert!(f.load(&changed).is_err(), "bit {bit}");
        f.log();
    }
    f.load(&small).unwrap();
}

#[test]
fn a_signature_is_the_last_section_and_of_one_size() {
    let good = signed(&table(2, 0), KEY);
    let entries = Table::parse(&good).unwrap().sections().count();
    let of_signature = HEADER_SIZE + 5 * (entries - 1);
    let swap = |position: usize, with: usize| {
        let mut bad = good.clone();
        let (a, b) = (HEADER_SIZE + 5 * position, HEADER_SIZE + 5 * with);
        bad.swap(a, b);
        bad
    };
    let mut short = good.clone();
    short[of_signature + 1] -= 1;
    short[12] -= 1;
    short.pop();
    for mut bad in [swap(entries - 1, entries - 2), short] {
        writer::seal(&mut bad);
        let error = Table::parse(&bad).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Malformed {
                    part: "signature",
                    ..
                }
            ),
            "{error}"
        );
    }
}

/// What somebody does with one of three files.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open {
        by: Caller,
        writing: bool,
    },
    /// The next bytes of the table, of as many rows as the file's number says.
    Write {
        bytes: usize,
    },
    Garbage,
    Ioctl(Ioctl),
    Aim(&'static str),
    Wait {
        ms: u64,
    },
    Close,
    FreeInit,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (prop::sample::select(&[ROOT, NOBODY][..]), any::<bool>())
            .prop_map(|(by, writing)| Step::Open { by, writing }),
        6 => prop::sample::select(&[1_usize, 100, 5000, 100_000][..])
            .prop_map(|bytes| Step::Write { bytes }),
        1 => Just(Step::Garbage),
        4 => prop::sample::select(Ioctl::ALL).prop_map(Step::Ioctl),
        1 => prop::sample::select(&["", MODULE, "none"][..]).prop_map(Step::Aim),
        1 => prop::sample::select(&[1, 5000, IDLE_MS_DEFAULT][..])
            .prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Close),
        1 => Just(Step::FreeInit),
    ]
}

proptest! {
    /// Whatever anybody does, in whatever order: there is one writer, who is there by right; memory is
    /// where a table or the one load is, and nowhere else; a table answers rightly.
    #[test]
    fn any_order_of_requests_keeps_the_books(steps in prop::collection::vec((0_usize..3, step()), 0..60)) {
        const PAGES: usize = 30;
        let blobs = [table(400, 100), table(1000, 0), table(1500, 1500)];
        let mut f = Fixture::new(PAGES);
        let mut files: [Option<(File, Vec<u8>)>; 3] = [None, None, None];
        for (who, step) in steps {
            let file = &mut files[who];
            match (step, file) {
                (Step::Open { by, writing }, file @ None) => {
                    if let Ok(opened) = f.device.open(by, writing) {
                        prop_assert!(by.may_load || !writing);
                        *file = Some((opened, blobs[who].clone()));
                    }
                }
                (Step::Write { bytes }, Some((file, rest))) => {
                    let bytes = bytes.min(rest.len());
                    let piece = rest.drain(..bytes).collect::<Vec<_>>();
                    let _refused = f.device.write(file, &piece);
                }
                (Step::Garbage, Some((file, _))) => {
                    let _refused = f.device.write(file, b"garbage");
                }
                (Step::Ioctl(request), Some((file, rest))) => {
                    if f.ioctl(file, request).is_ok() && request == Ioctl::Abort {
                        rest.clone_from(&blobs[who]);
                    }
                }
                (Step::Aim(name), Some((file, _))) => {
                    let _refused = f.aim(file, name);
                }
                (Step::Wait { ms }, _) => f.wait(ms),
                (Step::Close, file @ Some(_)) => {
                    if let Some((file, _)) = file.take() {
                        f.device.close(&file);
                    }
                }
                (Step::FreeInit, _) => f.device.free_init(""),
                (Step::Open { .. }, Some(_)) | (_, None) => {}
            }
            let load = match f.device.writer.as_ref().map(|writer| &writer.load) {
                Some(Load::Body { memory, .. }) => memory.bytes.len(),
                Some(Load::Header { .. } | Load::Published | Load::Refused(_)) | None => 0,
            };
            let tables = f.world.kernel.memory_bytes() + f.world.module.memory_bytes();
            prop_assert_eq!(f.free_pages(), PAGES - (load + tables as usize) / PAGE);
            if f.status().state == State::Loaded.number() {
                prop_assert_eq!(f.location(SLIDE + 0x100 + 800), " (a.rs:201)");
            }
            if let Some(writer) = &f.device.writer {
                let mine = |(file, _): &&(File, Vec<u8>)| file.writer == Some(writer.number);
                prop_assert_eq!(files.iter().flatten().filter(mine).count(), 1);
                prop_assert_eq!(writer.caller, ROOT);
            }
        }
        for (file, _) in files.into_iter().flatten() {
            f.device.close(&file);
        }
        prop_assert!(f.device.writer.is_none());
        prop_assert!(f.log().lines().all(|line| line.len() < LINE_BYTES));
    }
}

#[test]
fn the_last_refusal_is_read_whole_or_not_at_all() {
    static SLOT: TableSlot<&'static World> = TableSlot::new();
    let refusals = [
        Refusal::Never,
        Refusal::Readers,
        Refusal::NotPermitted { uid: 1 },
    ];
    let texts: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    let stop = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..20_000 {
                SLOT.record(refusals[turn % 3]);
            }
            stop.store(1, Ordering::Relaxed);
        });
        let mut seen = 0;
        while stop.load(Ordering::Relaxed) == 0 || seen == 0 {
            let status = SLOT.status(&expected(), Policy::Off);
            if status.last_errno != 0 {
                let found = texts.iter().position(|text| text == status.last_reason());
                let refusal = refusals[found.expect("one of them")];
                assert_eq!(status.last_errno, refusal.errno().number());
                seen += 1;
            }
        }
    });
}

#[test]
fn an_argument_has_the_size_that_its_request_says() {
    let mut f = Fixture::new(1);
    let mut file = f.device.open(ROOT, false).unwrap();
    let mut bytes = vec![0xff; Ioctl::Status.size()];
    f.device
        .ioctl(&mut file, Ioctl::Status.code(), &mut bytes)
        .unwrap();
    let status = Status::read_from_bytes(&bytes).unwrap();
    assert_eq!(
        status.build_id(),
        BUILD_ID,
        "the one that a table must have"
    );
}
