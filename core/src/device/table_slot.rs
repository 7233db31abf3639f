use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};

use zerocopy::{FromBytes, FromZeros};

use super::{Config, Expected, Level, Memory, Policy, Port, Refusal, Sealed, SealedOf, log};
use crate::address::Address;
use crate::blob::Header;
use crate::buffer::StrBuffer;
use crate::chain::{Frame, Wanted};
use crate::error::Error;
use crate::location::Location;
use crate::slot::{Slot, SwapError};
use crate::table::{Layout, Table};
use crate::uapi::{AddressBase, Lookup, REASON_BYTES, State, Status};
use crate::{index, wide};

/// A table: checked, in read-only memory of its own, and never changed.
#[derive(Debug)]
pub struct LoadedTable<S> {
    /// The blob, from the first byte on.
    memory: S,
    layout: Layout,
    /// Run-time address of `_text`.
    text_start: u64,
}

impl<S: Sealed> LoadedTable<S> {
    #[inline(always)] // So that a look-up needs no `Table` in memory.
    fn table(&self) -> Table<'_> {
        Table::from_layout(self.blob(), self.layout)
    }

    /// The location of a run-time address; for any context.
    #[inline(always)] // A frame less on the stack of an interrupt, which is short.
    pub fn lookup(&self, address: Address<u64>) -> Option<Location<'_>> {
        self.lookup_from(address, self.text_start)
    }

    /// The checksum of the blob.
    fn checksum(&self) -> u32 {
        let header = Header::ref_from_prefix(self.blob());
        header.map_or(0, |(header, _)| header.crc32.get())
    }

    fn blob(&self) -> &[u8] {
        let blob = self.memory.bytes().get(..index(self.layout.size()));
        blob.unwrap_or(&[])
    }

    /// The same for an address that is counted from where `_text` is at `text_start`.
    #[inline(always)] // As above.
    fn lookup_from(&self, address: Address<u64>, text_start: u64) -> Option<Location<'_>> {
        let address = address.relative_to(text_start)?;
        let row = self.layout.row_at(self.blob(), address.byte()?)?;
        self.table().location(row, address)
    }

    /// Appends the text of a frame at a run-time address; for any context.
    #[inline(always)] // As above.
    fn push_frame(&self, text: &mut StrBuffer<'_>, address: Address<u64>, wanted: Wanted) -> bool {
        let Some(address) = address.relative_to(self.text_start) else {
            return false;
        };
        (self.layout).push_frame(self.blob(), text, address, wanted)
    }

    /// Memory taken, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        wide(self.memory.bytes().len())
    }

    fn describe(&self, status: &mut Status) {
        status.rows = self.layout.rows();
        status.files = self.layout.files();
        status.bytes = self.layout.size().into();
        status.memory = self.memory_bytes();
        status.encoding = self.layout.encoding().number();
        status.profile = self.layout.profile().number();
        status.set_build_id(self.layout.build_id());
    }
}

/// The slot of one image, of the kernel or of a module.
///
/// Readers come from any context. Whoever changes it does so through the [`Device`](super::Device),
/// one at a time.
#[derive(Debug)]
pub struct TableSlot<P: Port> {
    pub(super) slot: Slot<LoadedTable<SealedOf<P>>, P::Owner>,
    /// Memory of an old table that is still to be freed, in bytes; 0 where there is none.
    pending_bytes: AtomicUsize,
    /// The init text of the image is gone.
    init_freed: AtomicBool,
    /// How often a table was asked, and how often it had no answer.
    lookups: AtomicUsize,
    misses: AtomicUsize,
    last_refusal: LastRefusal,
}

impl<P: Port> Default for TableSlot<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Port> TableSlot<P> {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            slot: Slot::empty(),
            pending_bytes: AtomicUsize::new(0),
            init_freed: AtomicBool::new(false),
            lookups: AtomicUsize::new(0),
            misses: AtomicUsize::new(0),
            last_refusal: LastRefusal::new(),
        }
    }

    /// How often a table was asked.
    pub fn lookups(&self) -> usize {
        self.lookups.load(Ordering::Relaxed)
    }

    /// How often it had no answer.
    pub fn misses(&self) -> usize {
        self.misses.load(Ordering::Relaxed)
    }

    /// Counts what a table said.
    #[inline(always)] // As `LoadedTable::lookup`.
    fn count<T>(&self, said: Option<T>) -> Option<T> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        if said.is_none() {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
        said
    }

    /// Appends ` (file:line)` of a run-time address, if the table knows it; for any context.
    pub fn push_location(&self, text: &mut StrBuffer<'_>, address: Address<u64>) {
        let reader = self.slot.read();
        let table = reader.get();
        if let Some(location) = table.and_then(|table| self.count(table.lookup(address))) {
            location.push_to(text);
        }
    }

    /// Appends ` name (file:line) [inline]` of a function that is inlined at a run-time address, for any context:
    /// at level 0 the innermost. `false` if there is none of that level.
    pub fn push_inlined(
        &self,
        text: &mut StrBuffer<'_>,
        address: Address<u64>,
        level: usize,
    ) -> bool {
        let reader = self.slot.read();
        let table = reader.get();
        table.is_some_and(|table| table.push_frame(text, address, Wanted::Inlined(level)))
    }

    /// Appends ` (file:line)` of the physical function at a run-time address, that of the symbol, for any
    /// context; `false` where the table does not know the inlined functions, and [`TableSlot::push_location`]
    /// is all there is.
    pub fn push_physical(&self, text: &mut StrBuffer<'_>, address: Address<u64>) -> bool {
        let reader = self.slot.read();
        let table = reader.get();
        let pushed = table.is_some_and(|table| table.push_frame(text, address, Wanted::Physical));
        if pushed {
            self.lookups.fetch_add(1, Ordering::Relaxed);
        }
        pushed
    }

    /// Answers a question, if there is a table to ask.
    pub(super) fn answer(
        &self,
        question: &mut Lookup,
        address: Address<u64>,
        base: AddressBase,
    ) -> Result<(), Refusal> {
        let reader = self.slot.read();
        let table = reader.get().ok_or(Refusal::Empty)?;
        let text_start = match base {
            AddressBase::RunTime => table.text_start,
            AddressBase::Text => 0,
        };
        let level = usize::from(question.level);
        let relative = address.relative_to(text_start);
        let chain = relative.and_then(|address| table.table().chain(address));
        let (levels, frame) = match chain {
            Some(mut chain) => (chain.inlined().saturating_add(1), chain.nth(level)),
            None => {
                let location = table.lookup_from(address, text_start);
                let frame = location.map(|location| Frame {
                    function: None,
                    location,
                });
                (0, frame.filter(|_| level == 0))
            }
        };
        // All levels are one look-up.
        if level == 0 {
            self.count(frame);
        }
        let levels = u16::try_from(levels).unwrap_or(0);
        question.answer(table.checksum(), levels, frame);
        Ok(())
    }

    /// Where the offsets of init text begin in the table of a module, if it has any; for any context.
    ///
    /// Linux loads init text apart from the text that stays ([`crate::ModuleAreas`]).
    pub fn init_start(&self) -> Option<u64> {
        let reader = self.slot.read();
        let areas = reader.get()?.table().module_areas()?;
        (!areas.init.is_empty()).then_some(areas.init.start)
    }

    /// Memory of the table, in bytes; for any context.
    pub fn memory_bytes(&self) -> u64 {
        let reader = self.slot.read();
        reader.get().map_or(0, LoadedTable::memory_bytes)
    }

    /// What the slot holds, and why something was last refused; for any context.
    pub fn status(&self, expected: &Expected, policy: Policy) -> Status {
        let mut status = Status::new_zeroed();
        let reader = self.slot.read();
        let state = match (reader.get(), policy) {
            (Some(table), _) => {
                table.describe(&mut status);
                State::Loaded
            }
            (None, Policy::On | Policy::Off) => State::Empty,
            (None, Policy::Never) => State::Never,
        };
        status.state = state.number();
        if state != State::Loaded {
            status.set_build_id(expected.build_id.bytes());
        }
        self.last_refusal.describe(&mut status);
        status
    }

    /// Keeps a refusal for [`TableSlot::status`].
    pub(super) fn record(&self, refusal: Refusal) {
        self.last_refusal.set(refusal);
    }

    /// Checks that the first `size` bytes are a table of the image that somebody trusted has made, and
    /// publishes it.
    ///
    /// They are parsed once; what they say of init text that is gone is removed in place.
    pub(super) fn load(
        &self,
        port: &P,
        config: &Config,
        expected: &Expected,
        mut memory: P::Memory,
        size: usize,
    ) -> Result<(), Refusal> {
        let blob = memory.bytes_mut().get_mut(..size).unwrap_or(&mut []);
        // Whose table it is comes first: only one that is meant for this image is worth the time that
        // the rest takes.
        let table = Table::parse_head(blob)?;
        config.trust.check(port, table.signed())?;
        expected.check(table.layout())?;
        table.check_parts()?;
        let mut layout = *table.layout();
        if self.init_freed.load(Ordering::Relaxed) {
            layout = Table::remove_init(blob, &layout).ok_or(Error::Malformed {
                part: "regions",
                offset: 0,
                expected: "tables that can be taken out",
                found: layout.size().into(),
            })?;
        }
        memory.truncate(index(layout.size()));
        let table = seal::<P>(expected, memory, layout)?;
        let memory_bytes = table.memory_bytes();
        self.replace(port, table)?;
        log(port, Level::Info, |text| {
            text.push_str("loaded ");
            push_description(text, &layout, memory_bytes);
        });
        Ok(())
    }

    /// Replaces the table; the old one is freed when its readers have left.
    fn replace(&self, port: &P, table: LoadedTable<SealedOf<P>>) -> Result<(), Refusal> {
        let size = table.layout.size().into();
        let owner = port.own(table).ok_or(Refusal::NoMemory { size })?;
        let old_bytes = self.memory_bytes();
        match self.slot.swap(Some(owner), port.keep_waiting()) {
            Ok(old) => drop(old),
            Err(SwapError::Busy(_refused)) => return Err(Refusal::Readers),
            Err(SwapError::Pending) => self.free_later(port, old_bytes),
        }
        Ok(())
    }

    /// The init text of the image is gone, so tables that come have nothing to say of it; a table
    /// that is here is replaced by a smaller copy if that saves whole pages.
    ///
    /// Otherwise, and where there is no memory for the copy, it stays as it is.
    pub(super) fn free_init(&self, port: &P, expected: &Expected) {
        self.init_freed.store(true, Ordering::Relaxed);
        let before = self.memory_bytes();
        let copy = {
            let reader = self.slot.read();
            let table = reader.get();
            table.and_then(|table| copy_without_init(port, expected, table))
        };
        let Some(copy) = copy else { return };
        let saved = before.saturating_sub(copy.memory_bytes());
        if self.replace(port, copy).is_ok() {
            log(port, Level::Info, |text| {
                text.push_str("freed ");
                text.push_u64(saved / 1024);
                text.push_str(" kB of the table: init text is gone");
            });
        }
    }

    /// Empties the slot and frees the memory.
    ///
    /// Where readers of the table do not leave in time the slot is empty, and the memory is freed
    /// by [`TableSlot::reclaim`].
    pub(super) fn unload(&self, port: &P) -> Result<(), Refusal> {
        let bytes = self.memory_bytes();
        if bytes == 0 {
            return match (self.is_pending(), self.reclaim(port)) {
                (false, _) => Err(Refusal::Empty),
                (true, false) => Err(Refusal::Readers),
                (true, true) => Ok(()),
            };
        }
        match self.slot.swap(None, port.keep_waiting()) {
            Ok(old) => {
                free(port, old, bytes);
                Ok(())
            }
            Err(SwapError::Busy(_)) => Err(Refusal::Readers),
            Err(SwapError::Pending) => {
                self.free_later(port, bytes);
                Err(Refusal::Readers)
            }
        }
    }

    fn free_later(&self, port: &P, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.pending_bytes.store(bytes, Ordering::Release);
        log(port, Level::Warning, |text| {
            text.push_str("the old table is still being read; its memory is freed later");
        });
    }

    /// Whether an old table is still to be freed; for any context.
    pub fn is_pending(&self) -> bool {
        self.pending_bytes.load(Ordering::Acquire) != 0
    }

    /// Frees an old table whose readers have left by now; says whether none is left.
    pub(super) fn reclaim(&self, port: &P) -> bool {
        let Ok(old) = self.slot.reclaim(|| false) else {
            return false;
        };
        let bytes = self.pending_bytes.swap(0, Ordering::AcqRel);
        free(port, old, wide(bytes));
        true
    }
}

fn free<P: Port>(port: &P, table: Option<P::Owner>, bytes: u64) {
    let Some(table) = table else { return };
    drop(table);
    log(port, Level::Info, |text| {
        text.push_str("unloaded, ");
        text.push_u64(bytes / 1024);
        text.push_str(" kB freed");
    });
}

/// Makes a table of memory that holds a blob with this layout.
fn seal<P: Port>(
    expected: &Expected,
    memory: P::Memory,
    layout: Layout,
) -> Result<LoadedTable<SealedOf<P>>, Refusal> {
    let size = layout.size().into();
    Ok(LoadedTable {
        memory: memory.seal().ok_or(Refusal::NoMemory { size })?,
        layout,
        text_start: layout.text_start().wrapping_add(expected.slide),
    })
}

/// The same table without init text, if that takes fewer pages and there is memory for them.
fn copy_without_init<P: Port>(
    port: &P,
    expected: &Expected,
    table: &LoadedTable<SealedOf<P>>,
) -> Option<LoadedTable<SealedOf<P>>> {
    let size = table.table().size_without_init();
    let pages = |bytes: usize| bytes.div_ceil(P::Memory::PAGE_SIZE);
    if pages(size) >= pages(table.memory.bytes().len()) {
        return None;
    }
    let mut memory = port.allocate(size)?;
    let layout = table.table().copy_without_init(memory.bytes_mut())?;
    seal::<P>(expected, memory, layout).ok()
}

fn push_description(text: &mut StrBuffer<'_>, layout: &Layout, memory_bytes: u64) {
    text.push_u32(layout.rows());
    text.push_str(" entries, ");
    text.push_u32(layout.files());
    text.push_str(" files, ");
    text.push_u32(layout.size());
    text.push_str(" bytes in ");
    text.push_u64(memory_bytes / 1024);
    text.push_str(" kB, ");
    text.push_str(layout.encoding().name());
    text.push_str(", ");
    text.push_str(layout.profile().name());
}

/// The errno and the reason of the last refusal of a slot, as text that any context can read.
///
/// A sequence lock: the version is odd while the one writer is at work, and a reader that saw two
/// versions, or an odd one, has seen nothing.
#[derive(Debug)]
struct LastRefusal {
    version: AtomicU32,
    errno: AtomicU32,
    reason: [AtomicU8; REASON_BYTES],
}

impl LastRefusal {
    /// How often a reader tries before it goes without: it may have interrupted the writer.
    const TRIES: u32 = 4;

    const fn new() -> Self {
        Self {
            version: AtomicU32::new(0),
            errno: AtomicU32::new(0),
            reason: [const { AtomicU8::new(0) }; REASON_BYTES],
        }
    }

    /// Only whoever has the device may come here, so there is one writer.
    fn set(&self, refusal: Refusal) {
        let mut reason = [0; REASON_BYTES];
        refusal.push_to(&mut StrBuffer::new(&mut reason));
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.errno
            .store(refusal.errno().number(), Ordering::Relaxed);
        for (to, from) in self.reason.iter().zip(reason) {
            to.store(from, Ordering::Relaxed);
        }
        self.version
            .store(version.wrapping_add(2), Ordering::Release);
    }

    fn describe(&self, status: &mut Status) {
        for _ in 0..Self::TRIES {
            let version = self.version.load(Ordering::Acquire);
            status.last_errno = self.errno.load(Ordering::Relaxed);
            for (to, from) in status.last_reason.iter_mut().zip(&self.reason) {
                *to = from.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version {
                return;
            }
        }
        status.last_errno = 0;
        status.last_reason = [0; REASON_BYTES];
    }
}
