use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lineinfo_core::blob::BUILD_ID_MAX;
use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::slot::{Slot, SwapError};
use lineinfo_core::uapi::{Lookup, State, Status};
use lineinfo_core::{Address, Location};
use zerocopy::FromZeros;

use super::{Identity, LoadedTable, Refusal};
use crate::machine::syscall;
use crate::printk;

/// How long a writer waits for the readers of an old table.
const READERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it sleeps between two looks.
const READERS_PAUSE: Duration = Duration::from_micros(100);

/// The slot of one image, and who may change it.
#[derive(Debug)]
pub(crate) struct TableSlot {
    pub(super) slot: Slot<LoadedTable, Box<LoadedTable>>,
    /// Held by whoever changes the slot. Readers do not know it.
    changing: Mutex<()>,
    /// An old table is still to be given back.
    pending: AtomicBool,
    /// How often a table was asked, and how often it had no answer; counted in any context.
    lookups: AtomicU64,
    misses: AtomicU64,
}

impl TableSlot {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self {
            slot: Slot::empty(),
            changing: Mutex::new(()),
            pending: AtomicBool::new(false),
            lookups: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// How often a table was asked.
    pub(super) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// How often it had no answer.
    pub(super) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Asks a table, and counts.
    fn lookup<'a>(&self, table: &'a LoadedTable, address: Address<u64>) -> Option<Location<'a>> {
        let location = table.lookup(address);
        self.lookups.fetch_add(1, Ordering::Relaxed);
        if location.is_none() {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
        location
    }

    /// Appends ` (file:line)` of an address, if the table knows it; for any context.
    pub(crate) fn push_location(&self, text: &mut StrBuffer<'_>, address: Address<u64>) {
        let reader = self.slot.read();
        let table = reader.get();
        if let Some(location) = table.and_then(|table| self.lookup(table, address)) {
            location.push_to(text);
        }
    }

    /// Answers a question, if there is a table to ask.
    pub(super) fn answer(
        &self,
        question: &mut Lookup,
        address: Address<u64>,
    ) -> Result<(), Refusal> {
        let reader = self.slot.read();
        let table = reader.get().ok_or(Refusal::Empty)?;
        question.answer(self.lookup(table, address));
        Ok(())
    }

    /// Memory of the table, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let reader = self.slot.read();
        reader.get().map_or(0, LoadedTable::memory_bytes)
    }

    /// What the slot holds.
    pub(super) fn status(&self, identity: &Identity) -> Status {
        let mut status = Status::new_zeroed();
        let reader = self.slot.read();
        let (state, build_id) = match reader.get() {
            Some(table) => {
                table.describe(&mut status);
                (State::Loaded, table.layout().build_id())
            }
            None => (State::Empty, &identity.build_id[..]),
        };
        status.state = state.number();
        let len = build_id.len().min(BUILD_ID_MAX);
        status.build_id[..len].copy_from_slice(&build_id[..len]);
        status.build_id_len = u8::try_from(len).unwrap_or(0);
        status
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

    /// Gives back what the table says of init text, which is gone; says how many bytes that were.
    pub(super) fn free_init(&self, identity: &Identity) -> Result<u64, Refusal> {
        let _changing = self.changing();
        let (before, table) = {
            let reader = self.slot.read();
            let Some(table) = reader.get() else {
                return Ok(0);
            };
            (table.memory_bytes(), table.without_init(identity)?)
        };
        let Some(table) = table else {
            return Ok(0);
        };
        let after = table.memory_bytes();
        match self.slot.swap(Some(Box::new(table)), wait_for_readers()) {
            Ok(old) => drop(old),
            Err(SwapError::Busy(_refused)) => return Err(Refusal::Readers),
            Err(SwapError::Pending) => self.leave_for_later(),
        }
        Ok(before - after)
    }

    /// Empties the slot and gives the memory back.
    ///
    /// Where readers of the table do not leave in time the slot is empty, and the memory comes
    /// back with [`TableSlot::reclaim`].
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

/// Sleeps between two looks at the readers of a slot, for a bounded time.
pub(crate) fn wait_for_readers() -> impl FnMut() -> bool {
    let start = Instant::now();
    move || {
        syscall::safe_halt(READERS_PAUSE);
        start.elapsed() < READERS_TIMEOUT
    }
}
