//! Any messages to the device: requests of the socket's protocol, and what a kernel does beside them.
//! What is refused changes nothing; nobody gets in; and when all files are closed, the memory in use is
//! that of the tables.
//!
//! A message is a byte and a [`Request`]. The lower half of the byte says which of four files makes the
//! request (the last one is nobody's), the upper half [what it is](Kind); a payload follows where the
//! request has one.
#![no_main]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libfuzzer_sys::fuzz_target;
use lineinfo_core::device::{
    BuildId, Caller, Config, Device, Expected, File, IDLE_MS_DEFAULT, Level, LoadedTable, Memory,
    Policy, Port, Refusal, Sealed, TableSlot, Trust,
};
use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE, Op, Request};
use lineinfo_core::uapi::{AddressBase, Errno, Ioctl, LOOKUP_FOUND, Lookup, Status};
use zerocopy::FromBytes;

/// Tables of the kernel: two that are right, one of them with inlined functions, and one of another kernel.
const TABLES: [&[u8]; 3] = [
    include_bytes!("../seeds/blob/small"),
    include_bytes!("../seeds/blob/packed-inlines"),
    include_bytes!("../seeds/blob/other-kernel"),
];
const BUILD_ID: [u8; 20] = [0xab; 20];
const PAGE: usize = 4096;
const PAGES: usize = 8;
const FILES: usize = 4;
const NOBODY: usize = 3;

/// What a message is.
enum Kind {
    /// A request of the protocol.
    Request,
    /// Writes the next bytes of a table, as many as the argument says.
    WriteTable(usize),
    /// Closes the file.
    Close,
    /// Time goes by, in milliseconds.
    Wait,
    /// The memory operation that the argument counts to fails.
    FailNth,
    /// The init text of the kernel goes.
    FreeInit,
}

impl Kind {
    fn of(number: u8) -> Self {
        match number {
            1 => Self::Close,
            2 => Self::Wait,
            3 => Self::FailNth,
            4 => Self::FreeInit,
            5..8 => Self::WriteTable(usize::from(number) - 5),
            _ => Self::Request,
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut kernel = Kernel::new();
    let mut rest = input;
    while let Some((kind, after)) = rest.split_first()
        && let Ok((request, after)) = Request::read_from_prefix(after)
    {
        let len = (request.len as usize).min(after.len());
        let (payload, after) = after.split_at(len);
        rest = after;
        let before = kernel.status();
        let number = usize::from(kind & 0xf) % FILES;
        let done = kernel.message(number, &Kind::of(kind >> 4), &request, payload);
        let after = kernel.status();
        if let Err(refusal) = done {
            assert!(!refusal.to_string().is_empty());
            assert_eq!(tables_of(&before), tables_of(&after), "{refusal}");
        }
    }
    kernel.end();
});

/// Whether a look-up is by an offset, which tells nothing of where the kernel is.
fn is_relative(argument: &[u8]) -> bool {
    let question = Lookup::read_from_bytes(argument);
    question.is_ok_and(|question| question.base() == Some(AddressBase::Text))
}

/// The functions at an address have a name, but the last one, and none comes after it.
fn check_levels(answer: &[u8]) {
    let answer = Lookup::read_from_bytes(answer).expect("an answer");
    let is_found = answer.result & LOOKUP_FOUND != 0;
    let level = u32::from(answer.level);
    match u32::from(answer.levels) {
        0 => assert!(level == 0 || !is_found),
        levels => assert_eq!(is_found, level < levels),
    }
    let is_inlined = is_found && level + 1 < answer.levels.into();
    assert_eq!(answer.function().is_some(), is_inlined);
}

/// What is loaded, for the kernel and the module.
fn tables_of(status: &[Status; 2]) -> [(u32, u32, u64, u64); 2] {
    status.map(|status| (status.state, status.rows, status.bytes, status.memory))
}

struct World {
    now_ms: Cell<u64>,
    free_pages: Arc<AtomicUsize>,
    fail_nth: Cell<u32>,
    kernel: TableSlot<Sim>,
    module: TableSlot<Sim>,
}

impl World {
    fn fails(&self) -> bool {
        let left = self.fail_nth.get();
        self.fail_nth.set(left.saturating_sub(1));
        left == 1
    }
}

#[derive(Clone)]
struct Sim(Rc<World>);

struct Pages {
    bytes: Vec<u8>,
    free_pages: Arc<AtomicUsize>,
    /// Sealing it fails.
    is_unsealable: bool,
}

impl Drop for Pages {
    fn drop(&mut self) {
        let pages = self.bytes.len() / PAGE;
        self.free_pages.fetch_add(pages, Ordering::Relaxed);
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
        let pages = (before - self.bytes.len()) / PAGE;
        self.free_pages.fetch_add(pages, Ordering::Relaxed);
    }

    fn seal(self) -> Option<Self> {
        (!self.is_unsealable).then(|| self)
    }
}

impl Sealed for Pages {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn expected() -> Expected {
    Expected {
        build_id: BuildId::new(&BUILD_ID),
        machine: 62,
        slide: 0x1000,
    }
}

impl Port for Sim {
    type Memory = Pages;
    type Owner = Box<LoadedTable<Pages>>;

    fn allocate(&self, size: usize) -> Option<Pages> {
        if self.0.fails() {
            return None;
        }
        let pages = size.max(1).div_ceil(PAGE);
        let take = |free: usize| free.checked_sub(pages);
        let free_pages = &self.0.free_pages;
        free_pages
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        Some(Pages {
            bytes: vec![0; pages * PAGE],
            free_pages: free_pages.clone(),
            is_unsealable: self.0.fails(),
        })
    }

    fn own(&self, table: LoadedTable<Pages>) -> Option<Self::Owner> {
        (!self.0.fails()).then(|| Box::new(table))
    }

    fn now_ms(&self) -> u64 {
        self.0.now_ms.get()
    }

    fn log(&self, _level: Level, line: &str) {
        assert!(
            line.starts_with("lineinfo: ") && !line.contains(char::is_control),
            "{line:?}"
        );
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
            "" => Some(act(&self.0.kernel, &expected())),
            "xor" => Some(act(&self.0.module, &expected())),
            _ => None,
        }
    }

    fn with_slot_at<T>(&self, address: u64, mut act: impl FnMut(&TableSlot<Self>) -> T) -> T {
        match address {
            ..0x1000_0000 => act(&self.0.kernel),
            _ => act(&self.0.module),
        }
    }
}

struct Kernel {
    world: Rc<World>,
    device: Device<Sim>,
    files: [Option<File>; FILES],
    /// How much of a table each file has written.
    written: [usize; FILES],
}

impl Kernel {
    fn new() -> Self {
        let world = Rc::new(World {
            now_ms: Cell::new(0),
            free_pages: Arc::new(AtomicUsize::new(PAGES)),
            fail_nth: Cell::new(0),
            kernel: TableSlot::new(),
            module: TableSlot::new(),
        });
        let mut device = Device::new(Sim(Rc::clone(&world)));
        device.configure(Config {
            policy: Policy::On,
            max_bytes: 4 * PAGE as u64,
            trust: Trust::Anybody,
            idle_ms: IDLE_MS_DEFAULT,
        });
        Self {
            world,
            device,
            files: [const { None }; FILES],
            written: [0; FILES],
        }
    }

    fn status(&self) -> [Status; 2] {
        ["", "xor"].map(|name| self.device.status_of(name).expect("a slot"))
    }

    fn message(
        &mut self,
        number: usize,
        kind: &Kind,
        request: &Request,
        payload: &[u8],
    ) -> Result<(), Refusal> {
        let arg = request.arg;
        match kind {
            Kind::Request => self.request(number, request, payload)?,
            Kind::WriteTable(table) => {
                let table = TABLES[*table];
                let from = self.written[number].min(table.len());
                let to = from.saturating_add(arg as usize).min(table.len());
                self.written[number] = to;
                self.write(number, &table[from..to])?;
            }
            Kind::Close => self.close(number),
            Kind::Wait => {
                let now_ms = &self.world.now_ms;
                now_ms.set(now_ms.get().saturating_add(arg.into()));
            }
            Kind::FailNth => self.world.fail_nth.set(arg),
            Kind::FreeInit => self.device.free_init(""),
        }
        Ok(())
    }

    fn request(&mut self, number: usize, request: &Request, payload: &[u8]) -> Result<(), Refusal> {
        let Some(op) = Op::from_number(request.op) else {
            return Ok(());
        };
        match op {
            Op::Open => self.open(number, request.arg & OPEN_WRITE != 0),
            Op::Write => self.write(number, payload),
            Op::Read => match &self.files[number] {
                Some(file) if request.arg & OPEN_READ == 0 => self.device.flush(file),
                Some(file) => self.device.status(file).map(|status| {
                    assert!(status.to_string().starts_with("state: "));
                }),
                None => Ok(()),
            },
            Op::Ioctl => {
                let Some(file) = &mut self.files[number] else {
                    return Ok(());
                };
                let code = request.arg;
                let mut argument = payload.to_vec();
                let ioctl = Ioctl::from_code(code);
                if let (Some(ioctl), true) = (ioctl, payload.is_empty()) {
                    argument.resize(ioctl.size(), 0);
                }
                let done = self.device.ioctl(file, code, &mut argument);
                match ioctl {
                    Some(Ioctl::Lookup) if number == NOBODY && !is_relative(&argument) => {
                        assert!(done.is_err());
                    }
                    Some(Ioctl::Lookup) if done.is_ok() => check_levels(&argument),
                    Some(Ioctl::Unload) if number == NOBODY => {
                        assert!(done.is_err());
                    }
                    Some(Ioctl::Abort) => self.written[number] = 0,
                    None => assert_eq!(done.map_err(Refusal::errno), Err(Errno::ENOTTY)),
                    _ => {}
                }
                done
            }
        }
    }

    fn open(&mut self, number: usize, writing: bool) -> Result<(), Refusal> {
        if self.files[number].is_some() {
            return Ok(());
        }
        let is_root = number != NOBODY;
        let caller = Caller {
            uid: if is_root { 0 } else { 65534 },
            pid: number as u32 + 1,
            may_load: is_root,
            may_see_addresses: is_root,
        };
        let file = self.device.open(caller, writing)?;
        assert!(is_root || !writing, "nobody may load");
        self.files[number] = Some(file);
        self.written[number] = 0;
        Ok(())
    }

    fn write(&mut self, number: usize, bytes: &[u8]) -> Result<(), Refusal> {
        match &mut self.files[number] {
            Some(file) => {
                let written = self.device.write(file, bytes);
                assert!(number != NOBODY || written.is_err());
                written
            }
            None => Ok(()),
        }
    }

    fn close(&mut self, number: usize) {
        if let Some(file) = self.files[number].take() {
            self.device.close(&file);
        }
    }

    /// Closes and unloads all: no page is lost, and the next load works.
    fn end(&mut self) {
        (0..FILES).for_each(|number| self.close(number));
        let memory: u64 = self.status().iter().map(|status| status.memory).sum();
        let free = self.world.free_pages.load(Ordering::Relaxed);
        assert_eq!((PAGES - free) * PAGE, memory as usize, "pages in use");

        self.world.fail_nth.set(0);
        // The next opener need not wait.
        self.open(0, true).expect("the device is free");
        let file = self.files[0].as_mut().expect("it was opened");
        let unload = Ioctl::Unload.code();
        // There may be nothing to unload.
        let _empty = self.device.ioctl(file, unload, &mut []);
        let table = TABLES[0];
        self.device.write(file, table).expect("a good table");
        assert!(self.status()[0].rows > 0);
    }
}
