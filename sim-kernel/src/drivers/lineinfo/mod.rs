//! The lineinfo driver: the slot of this kernel, and who may put what into it.
//!
//! ```text
//!  boot image ── footer.rs ──┐
//!                            ├─> pages ─> LoadedTable::check ─> Lineinfo::publish ─> slot
//!  /dev/lineinfo ─ file.rs ──┘
//! ```

pub(crate) mod file;
pub(crate) mod footer;
mod refusal;
pub(crate) mod sysfs;
mod table;

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use lineinfo_core::Location;
use lineinfo_core::blob::BUILD_ID_MAX;
use lineinfo_core::slot::{Slot, SwapError};
use lineinfo_core::text::TextBuffer;
use lineinfo_core::uapi::{Lookup, State, Status};
use zerocopy::FromZeros;

pub(crate) use refusal::{BuildId, Refusal};
pub(crate) use table::LoadedTable;

use crate::kernel::stacktrace::Address;
use crate::machine::syscall;
use crate::printk;

/// How long a writer waits for the readers of an old table.
const READERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it sleeps between two looks.
const READERS_PAUSE: Duration = Duration::from_micros(100);

/// When a table may come, as `lineinfo=` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// At boot, from the image, and later.
    On,
    /// Only later.
    Off,
    /// At no time.
    Never,
}

/// Room for the reason of a refusal, in bytes; [`Status`] has less.
const REASON_BYTES: usize = 256;

/// What the driver was told at boot.
#[derive(Debug)]
pub(crate) struct Config {
    /// `lineinfo=`.
    pub(crate) policy: Policy,
    /// `lineinfo.max=`, in bytes.
    pub(crate) max_bytes: u64,
    /// Build-id of the kernel.
    pub(crate) build_id: Vec<u8>,
    /// ELF machine number of the kernel.
    pub(crate) machine: u16,
    /// Run-time minus link-time addresses, in bytes.
    pub(crate) slide: u64,
}

/// The state of the driver.
#[derive(Debug)]
pub(crate) struct Lineinfo {
    slot: Slot<LoadedTable, Box<LoadedTable>>,
    config: OnceLock<Config>,
    /// Somebody has the device open for writing.
    writing: AtomicBool,
    /// What was last refused, for [`Status`].
    last_refusal: Mutex<Option<Refusal>>,
    /// Held by whoever changes the slot. Readers do not know it.
    changing: Mutex<()>,
    /// An old table is still to be given back.
    pending: AtomicBool,
    /// How often a table was asked, and how often it had no answer; counted in any context.
    lookups: AtomicU64,
    misses: AtomicU64,
}

/// The driver of this kernel.
pub(crate) static LINEINFO: Lineinfo = Lineinfo::new();

impl Lineinfo {
    const fn new() -> Self {
        Self {
            slot: Slot::empty(),
            config: OnceLock::new(),
            writing: AtomicBool::new(false),
            last_refusal: Mutex::new(None),
            changing: Mutex::new(()),
            pending: AtomicBool::new(false),
            lookups: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// Tells the driver what it is to do; the first call counts.
    pub(crate) fn init(&self, config: Config) {
        self.config.get_or_init(|| config);
    }

    /// What it was told, or why nothing can be loaded yet.
    fn config(&self) -> Result<&Config, Refusal> {
        self.config.get().ok_or(Refusal::Never)
    }

    /// Appends ` (file:line)` of an address, if the table knows it; for any context.
    pub(crate) fn push_location(&self, text: &mut TextBuffer<'_>, address: Address) {
        let reader = self.slot.read();
        let table = reader.get();
        if let Some(location) = table.and_then(|table| self.lookup(table, address)) {
            location.push_to(text);
        }
    }

    /// Asks a table, and counts.
    fn lookup<'a>(&self, table: &'a LoadedTable, address: Address) -> Option<Location<'a>> {
        let location = table.lookup(address);
        self.lookups.fetch_add(1, Ordering::Relaxed);
        if location.is_none() {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
        location
    }

    /// Answers a question, if there is a table to ask.
    fn answer(&self, question: &mut Lookup, address: Address) -> Result<(), Refusal> {
        let reader = self.slot.read();
        let table = reader.get().ok_or(Refusal::Empty)?;
        question.answer(self.lookup(table, address));
        Ok(())
    }

    /// Memory of the table in the slot, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let reader = self.slot.read();
        reader.get().map_or(0, LoadedTable::memory_bytes)
    }

    /// What the slot holds, and why the last load was refused.
    pub(crate) fn status(&self) -> Status {
        self.status_with(self.last_refusal().as_ref())
    }

    /// The same for a context that must not wait: without the reason, if somebody is setting it.
    pub(crate) fn status_now(&self) -> Status {
        let last_refusal = self.last_refusal.try_lock();
        self.status_with(last_refusal.ok().and_then(|last| *last).as_ref())
    }

    fn status_with(&self, last_refusal: Option<&Refusal>) -> Status {
        let mut status = Status::new_zeroed();
        let config = self.config.get();
        let reader = self.slot.read();
        let (state, build_id) = match reader.get() {
            Some(table) => {
                table.describe(&mut status);
                (State::Loaded, table.layout().build_id())
            }
            None => {
                let never = config.is_none_or(|config| config.policy == Policy::Never);
                let state = if never { State::Never } else { State::Empty };
                (state, config.map_or(&[][..], |config| &config.build_id))
            }
        };
        status.state = state.number();
        let len = build_id.len().min(BUILD_ID_MAX);
        status.build_id[..len].copy_from_slice(&build_id[..len]);
        status.build_id_len = u8::try_from(len).unwrap_or(0);
        if let Some(refusal) = last_refusal {
            let mut text = [0; REASON_BYTES];
            let mut reason = TextBuffer::new(&mut text);
            // A `TextBuffer` takes everything.
            let _always_taken = write!(reason, "{refusal}");
            status.set_last_error(refusal.errno(), reason.into_str());
        }
        status
    }

    /// Writes down why something was refused: in the log, and for [`Status`].
    pub(crate) fn refuse(&self, what: &str, refusal: Refusal) -> Refusal {
        printk!(
            Err,
            "lineinfo: {what} refused: {refusal}: -{}",
            refusal.errno()
        );
        *self.last_refusal() = Some(refusal);
        refusal
    }

    fn last_refusal(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.last_refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a table into the slot; the old one is given back when its readers have left.
    pub(crate) fn publish(&self, table: LoadedTable) -> Result<(), Refusal> {
        let _changing = self.changing();
        let description = table.to_string();
        match self.slot.swap(Some(Box::new(table)), wait_for_readers()) {
            Ok(old) => drop(old),
            Err(SwapError::Busy(_refused)) => return Err(Refusal::Readers),
            Err(SwapError::Pending) => self.leave_for_later(),
        }
        printk!(Info, "lineinfo: loaded {description}");
        Ok(())
    }

    /// Empties the slot and gives the memory back.
    ///
    /// Where readers of the table do not leave in time the slot is empty, and the memory comes
    /// back with [`Lineinfo::reclaim`].
    pub(crate) fn unload(&self) -> Result<(), Refusal> {
        let _changing = self.changing();
        if self.slot.read().get().is_none() {
            return match (self.pending.load(Ordering::Acquire), self.reclaim_locked()) {
                (false, _) => Err(Refusal::Empty),
                (true, false) => Err(Refusal::Readers),
                (true, true) => Ok(()),
            };
        }
        match self.slot.swap(None, wait_for_readers()) {
            Ok(old) => {
                given_back(old);
                Ok(())
            }
            Err(SwapError::Busy(_)) => Err(Refusal::Readers),
            Err(SwapError::Pending) => {
                self.leave_for_later();
                Err(Refusal::Readers)
            }
        }
    }

    fn leave_for_later(&self) {
        self.pending.store(true, Ordering::Release);
        printk!(
            Warning,
            "lineinfo: the old table is still being read; its memory comes back later"
        );
    }

    /// Gives back an old table whose readers have left by now, where nobody is changing the slot.
    pub(crate) fn reclaim(&self) {
        if self.pending.load(Ordering::Acquire)
            && let Ok(_changing) = self.changing.try_lock()
        {
            self.reclaim_locked();
        }
    }

    /// Says whether nothing is pending any more.
    fn reclaim_locked(&self) -> bool {
        let Ok(old) = self.slot.reclaim(|| false) else {
            return false;
        };
        self.pending.store(false, Ordering::Release);
        given_back(old);
        true
    }
}

fn given_back(table: Option<Box<LoadedTable>>) {
    if let Some(table) = table {
        let bytes = table.memory_bytes();
        drop(table);
        printk!(Info, "lineinfo: unloaded, {} kB given back", bytes / 1024);
    }
}

/// Sleeps between two looks at the readers, for a bounded time.
fn wait_for_readers() -> impl FnMut() -> bool {
    let start = Instant::now();
    move || {
        syscall::safe_halt(READERS_PAUSE);
        start.elapsed() < READERS_TIMEOUT
    }
}

#[cfg(test)]
mod tests;
