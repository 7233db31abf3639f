//! The port of [`lineinfo_core::device`]: what this kernel brings, and nothing else.
//!
//! ```text
//!   boot image ── load_from_image ──┐
//!                                   ├─> Device (core) ─> memory, clock, log, modules: `Sim`
//!   /dev/lineinfo ── file.rs ───────┘         │
//!                                         TableSlot: the kernel's, in `LINEINFO`, or a module's
//! ```

pub(crate) mod file;
pub(crate) mod inlines;
pub(crate) mod key;
pub(crate) mod sysfs;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use lineinfo_core::Signed;
use lineinfo_core::device::{
    BuildId, Config, Device, Expected, Level, LoadedTable, Memory, Port, Sealed, TableSlot,
};
use lineinfo_core::uapi::Status;

use super::image::{self, Image};
use super::printk;
use crate::machine::fault::should_fail;
use crate::machine::memory::{Pages, SealedPages};
use crate::machine::page_alloc::PAGE_SIZE;
use crate::machine::syscall;
use crate::mm::vmalloc::vmalloc;
use crate::printk;

/// How long a writer waits for the readers of an old table.
const READERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it sleeps between two looks.
const READERS_PAUSE: Duration = Duration::from_micros(100);

/// This kernel, as the device needs it.
#[derive(Debug)]
pub(crate) struct Sim;

impl Memory for Pages {
    type Sealed = SealedPages;
    const PAGE_SIZE: usize = PAGE_SIZE;

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }

    fn truncate(&mut self, size: usize) {
        self.truncate(size);
    }

    fn seal(self) -> Option<SealedPages> {
        self.seal().ok()
    }
}

impl Sealed for SealedPages {
    fn bytes(&self) -> &[u8] {
        self.bytes()
    }
}

impl Port for Sim {
    type Memory = Pages;
    type Owner = Box<LoadedTable<SealedPages>>;

    fn allocate(&self, size: usize) -> Option<Pages> {
        vmalloc(size.max(1)).ok()
    }

    fn own(&self, table: LoadedTable<SealedPages>) -> Option<Self::Owner> {
        (!should_fail("the owner of a table")).then(|| Box::new(table))
    }

    fn now_ms(&self) -> u64 {
        printk::uptime().as_millis() as u64
    }

    fn log(&self, level: Level, line: &str) {
        match level {
            Level::Error => printk!(Err, "{line}"),
            Level::Warning => printk!(Warning, "{line}"),
            Level::Info => printk!(Info, "{line}"),
        }
    }

    fn verify(&self, signed: &Signed<'_>) -> bool {
        key::verify(signed)
    }

    fn keep_waiting(&self) -> impl FnMut() -> bool {
        wait_for_readers()
    }

    fn with_slot<T>(
        &self,
        name: &str,
        act: impl FnOnce(&TableSlot<Self>, &Expected) -> T,
    ) -> Option<T> {
        match name {
            "" => Some(act(&LINEINFO.kernel, &LINEINFO.told().1)),
            name => {
                let (mut act, mut result) = (Some(act), None);
                LINEINFO.modules.get()?.named(name, &mut |slot, expected| {
                    result = act.take().map(|act| act(slot, expected));
                });
                result
            }
        }
    }

    fn with_slot_at<T>(&self, address: u64, mut act: impl FnMut(&TableSlot<Self>) -> T) -> T {
        let mut result = None;
        if let Some(modules) = LINEINFO.modules.get() {
            modules.at(address, &mut |slot| result = Some(act(slot)));
        }
        result.unwrap_or_else(|| act(&LINEINFO.kernel))
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

/// The tables of modules: the part of the kernel that has them registers itself.
pub(crate) trait Modules: Sync {
    /// Calls `act` with the slot of the module of a name, if there is one.
    fn named(&self, name: &str, act: &mut dyn FnMut(&TableSlot<Sim>, &Expected));

    /// Calls `act` with the slot of the module that an address is in, if it is in one.
    fn at(&self, address: u64, act: &mut dyn FnMut(&TableSlot<Sim>));

    /// The memory of all their tables, in bytes.
    fn memory_bytes(&self) -> u64;
}

/// The device of this kernel, and the slot of its own table.
pub(crate) struct Lineinfo {
    device: Mutex<Device<Sim>>,
    /// The table of the kernel; those of modules are theirs.
    kernel: TableSlot<Sim>,
    /// What it was told at boot.
    told: OnceLock<(Config, Expected)>,
    modules: OnceLock<&'static dyn Modules>,
}

/// The device of this kernel.
pub(crate) static LINEINFO: Lineinfo = Lineinfo {
    device: Mutex::new(Device::new(Sim)),
    kernel: TableSlot::new(),
    told: OnceLock::new(),
    modules: OnceLock::new(),
};

impl Lineinfo {
    /// Tells the device what it is to do; the first call counts.
    pub(crate) fn init(&self, config: Config, expected: Expected) {
        let (config, _) = self.told.get_or_init(|| (config, expected));
        self.device().configure(*config);
    }

    /// What it was told; before that it takes nothing.
    fn told(&self) -> (Config, Expected) {
        let told = self.told.get().copied();
        told.unwrap_or((Config::NEVER, expected_of(None)))
    }

    /// Adds the tables of modules; the first call counts.
    pub(crate) fn register_modules(&self, modules: &'static dyn Modules) {
        self.modules.get_or_init(|| modules);
    }

    fn device(&self) -> MutexGuard<'_, Device<Sim>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the slot from the end of the boot image. Whatever is wrong there is logged, and the
    /// boot goes on.
    pub(crate) fn load_from_image(&self, image: &File) {
        match image.metadata() {
            Ok(metadata) => self
                .device()
                .load_appended(metadata.len(), |at, buffer| image.read_exact_at(buffer, at)),
            Err(error) => printk!(Err, "lineinfo: cannot read the image: {error}"),
        }
    }

    /// Init text is gone, and what tables say of it can go.
    pub(crate) fn free_initmem(&self) {
        // The text of another kernel is not here, so none of it can be gone.
        if !image::is_another() {
            self.device().free_init("");
        }
    }

    /// Uses the table of the kernel; for any context.
    pub(crate) fn with_table<T>(&self, act: impl FnOnce(&TableSlot<Sim>) -> T) -> T {
        act(&self.kernel)
    }

    /// What the slot of the kernel holds; for any context.
    pub(crate) fn status(&self) -> Status {
        self.status_of(&self.kernel, &self.told().1)
    }

    /// What a slot holds; for any context.
    pub(crate) fn status_of(&self, slot: &TableSlot<Sim>, expected: &Expected) -> Status {
        slot.status(expected, self.told().0.policy)
    }

    /// Memory of all tables, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let modules = self.modules.get();
        self.kernel.memory_bytes() + modules.map_or(0, |modules| modules.memory_bytes())
    }

    /// Frees old tables of the kernel whose readers have left by now.
    pub(crate) fn reclaim(&self) {
        self.reclaim_in(&self.kernel);
    }

    /// The same for any slot; where somebody else has the device, not now.
    pub(crate) fn reclaim_in(&self, slot: &TableSlot<Sim>) {
        if slot.is_pending()
            && let Ok(mut device) = self.device.try_lock()
        {
            device.reclaim(slot);
        }
    }
}

/// What a table of an image must be; without one, nothing is.
pub(crate) fn expected_of(image: Option<&Image>) -> Expected {
    Expected {
        build_id: BuildId::new(image.map_or(&[], |image| &image.build_id)),
        machine: image.map_or(image::MACHINE, |image| image.machine),
        slide: image.map_or(0, |image| image.slide),
    }
}
