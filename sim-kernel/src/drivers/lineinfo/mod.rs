//! The lineinfo driver: the slot of this kernel, and who may put what into it.
//!
//! ```text
//!  boot image ── footer.rs ──┐
//!                            ├─> pages ─> LoadedTable::check ─> TableSlot::publish ─> slot
//!  /dev/lineinfo ─ file.rs ──┘                                       │
//!                                             the kernel's, in Lineinfo, or a module's
//! ```

pub(crate) mod file;
pub(crate) mod footer;
mod refusal;
pub(crate) mod sysfs;
mod table;
mod table_slot;

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use lineinfo_core::Address;
use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::uapi::{Lookup, State, Status, Target};
use zerocopy::FromZeros;

pub(crate) use refusal::{BuildId, Refusal};
pub(crate) use table::LoadedTable;
pub(crate) use table_slot::{TableSlot, wait_for_readers};

use crate::kernel::image;
use crate::printk;

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
    /// What a table of the kernel must be.
    pub(crate) kernel: Identity,
}

/// Which image a table belongs to, and where that is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Build-id of the image.
    pub(crate) build_id: Vec<u8>,
    /// ELF machine number of the image.
    pub(crate) machine: u16,
    /// Run-time minus link-time addresses, in bytes.
    pub(crate) slide: u64,
}

/// The tables of modules: the part of the kernel that has them registers itself.
pub(crate) trait Modules: fmt::Debug + Sync {
    /// Calls `act` with the slot of the module of a name, if there is one.
    fn named(&self, name: &str, act: &mut dyn FnMut(&TableSlot, &Identity));

    /// Calls `act` with the slot of the module that an address is in, if it is in one.
    fn at(&self, address: u64, act: &mut dyn FnMut(&TableSlot));

    /// The memory of all their tables, in bytes.
    fn memory_bytes(&self) -> u64;
}

/// The state of the driver.
#[derive(Debug)]
pub(crate) struct Lineinfo {
    /// The table of the kernel; those of modules are theirs.
    kernel: TableSlot,
    config: OnceLock<Config>,
    modules: OnceLock<&'static dyn Modules>,
    /// Somebody has the device open for writing.
    writing: AtomicBool,
    /// Boot is over, and its text gone.
    init_freed: AtomicBool,
    /// What was last refused, for [`Status`].
    last_refusal: Mutex<Option<Refusal>>,
}

/// The driver of this kernel.
pub(crate) static LINEINFO: Lineinfo = Lineinfo::new();

impl Lineinfo {
    const fn new() -> Self {
        Self {
            kernel: TableSlot::new(),
            config: OnceLock::new(),
            modules: OnceLock::new(),
            writing: AtomicBool::new(false),
            init_freed: AtomicBool::new(false),
            last_refusal: Mutex::new(None),
        }
    }

    /// Tells the driver what it is to do; the first call counts.
    pub(crate) fn init(&self, config: Config) {
        self.config.get_or_init(|| config);
    }

    /// Adds the tables of modules; the first call counts.
    pub(crate) fn register_modules(&self, modules: &'static dyn Modules) {
        self.modules.get_or_init(|| modules);
    }

    /// What it was told, or why nothing can be loaded yet.
    fn config(&self) -> Result<&Config, Refusal> {
        self.config.get().ok_or(Refusal::Never)
    }

    /// Appends ` (file:line)` of an address of the kernel, if its table knows it; for any context.
    pub(crate) fn push_location(&self, text: &mut StrBuffer<'_>, address: Address<u64>) {
        self.kernel.push_location(text, address);
    }

    /// Does something with the table of the kernel, or of a module, and what it must be.
    fn with<T>(
        &self,
        target: &Target,
        act: impl FnOnce(&TableSlot, &Identity) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        match target.name() {
            "" => act(&self.kernel, &self.config()?.kernel),
            name => {
                let modules = self.modules.get().ok_or(Refusal::NoModule)?;
                let (mut act, mut result) = (Some(act), None);
                modules.named(name, &mut |slot, identity| {
                    result = act.take().map(|act| act(slot, identity));
                });
                result.ok_or(Refusal::NoModule)?
            }
        }
    }

    /// Answers a question, from the table of the module that the address is in, or the kernel's.
    fn answer(&self, question: &mut Lookup, address: Address<u64>) -> Result<(), Refusal> {
        let mut answered = None;
        if let Some(modules) = self.modules.get() {
            modules.at(address.byte().unwrap_or(0), &mut |slot| {
                answered = Some(slot.answer(question, address));
            });
        }
        answered.unwrap_or_else(|| self.kernel.answer(question, address))
    }

    /// Memory of all tables, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let modules = self.modules.get();
        self.kernel.memory_bytes() + modules.map_or(0, |modules| modules.memory_bytes())
    }

    /// What the slot of the kernel holds, and why the last load was refused.
    pub(crate) fn status(&self) -> Status {
        self.kernel_status(self.last_refusal().as_ref())
    }

    /// The same for a context that must not wait: without the reason, if somebody is setting it.
    pub(crate) fn status_now(&self) -> Status {
        let last_refusal = self.last_refusal.try_lock();
        self.kernel_status(last_refusal.ok().and_then(|last| *last).as_ref())
    }

    /// What the slot of a target holds, and why the last load was refused.
    pub(crate) fn status_of(&self, target: &Target) -> Result<Status, Refusal> {
        match target.name() {
            "" => Ok(self.status()),
            _ => {
                let status = self.with(target, |slot, identity| Ok(slot.status(identity)))?;
                Ok(self.complete(status, self.last_refusal().as_ref()))
            }
        }
    }

    fn kernel_status(&self, last_refusal: Option<&Refusal>) -> Status {
        let config = self.config.get();
        let status = config.map_or_else(Status::new_zeroed, |config| {
            self.kernel.status(&config.kernel)
        });
        self.complete(status, last_refusal)
    }

    fn complete(&self, mut status: Status, last_refusal: Option<&Refusal>) -> Status {
        let never = (self.config.get()).is_none_or(|config| config.policy == Policy::Never);
        if never && status.state == State::Empty.number() {
            status.state = State::Never.number();
        }
        if let Some(refusal) = last_refusal {
            let mut text = [0; REASON_BYTES];
            let mut reason = StrBuffer::new(&mut text);
            // A `StrBuffer` takes everything.
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

    /// Init text is gone: gives back what the table says of it, now and in tables that come.
    pub(crate) fn free_initmem(&self) {
        let Some(config) = self.config.get() else {
            return;
        };
        // Of another kernel the text is not here, so none of it can be gone.
        if image::is_another() {
            return;
        }
        self.init_freed.store(true, Ordering::Release);
        match self.kernel.free_init(&config.kernel) {
            Ok(0) => {}
            Ok(bytes) => printk!(
                Info,
                "Freeing unused lineinfo of init text: {} kB",
                bytes / 1024
            ),
            Err(refusal) => printk!(Warning, "lineinfo: init text keeps its table: {refusal}"),
        }
    }

    /// A table of this target as it is published: without init text where that is gone.
    fn without_freed(
        &self,
        table: LoadedTable,
        target: &Target,
        identity: &Identity,
    ) -> Result<LoadedTable, Refusal> {
        if !target.name().is_empty() || !self.init_freed.load(Ordering::Acquire) {
            return Ok(table);
        }
        Ok(table.without_init(identity)?.unwrap_or(table))
    }

    /// Gives back an old table of the kernel whose readers have left by now.
    pub(crate) fn reclaim(&self) {
        self.kernel.reclaim();
    }
}

#[cfg(test)]
mod tests;
