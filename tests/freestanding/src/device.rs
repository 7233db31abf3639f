//! A port of the device over what `main.c` has: it links only if the whole way of a load has no
//! branch that panics.

use core::ptr::NonNull;
use core::slice;

use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::device::{
    BuildId, Caller, Config, Device, Expected, Level, LoadedTable, Memory, Policy, Port, Sealed,
    TableSlot, Trust,
};
use lineinfo_core::slot::Owner;
use lineinfo_core::uapi::{Ioctl, Status};
use lineinfo_core::{Address, Table};

unsafe extern "C" {
    /// Pages for so many bytes, or null.
    fn lineinfo_allocate(size: usize) -> *mut u8;
    fn lineinfo_free(pages: *mut u8, size: usize);
    safe fn lineinfo_now_ms() -> u64;
    fn lineinfo_log(text: *const u8, len: usize);
}

static KERNEL: TableSlot<C> = TableSlot::new();

struct C {
    expected: Expected,
}

#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the pages belong to this value alone.
unsafe impl Send for Pages {}
// SAFETY: shared references to it only read the pages.
unsafe impl Sync for Pages {}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: they came from `lineinfo_allocate` with this size, and nobody else has them.
        unsafe { lineinfo_free(self.start.as_ptr(), self.size) };
    }
}

impl Memory for Pages {
    type Sealed = Self;
    const PAGE_SIZE: usize = 4096;

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes are there, and the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.size) }
    }

    fn truncate(&mut self, _size: usize) {}

    fn seal(self) -> Option<Self> {
        Some(self)
    }
}

impl Sealed for Pages {
    fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes are there, and nobody writes them any more.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.size) }
    }
}

/// A table in pages of its own: what a kernel without Rust's allocator keeps in a slot.
struct Owned(NonNull<LoadedTable<Pages>>);

// SAFETY: the table belongs to this value alone.
unsafe impl Send for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: `own` put a table there, and nobody reads it any more.
        unsafe { self.0.drop_in_place() };
        // SAFETY: `own` allocated it with this size.
        unsafe { lineinfo_free(self.0.as_ptr().cast(), size_of::<LoadedTable<Pages>>()) };
    }
}

// SAFETY: the table stays where it is until the owner is dropped.
unsafe impl Owner for Owned {
    type Target = LoadedTable<Pages>;

    fn into_raw(self) -> NonNull<LoadedTable<Pages>> {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }

    unsafe fn from_raw(raw: NonNull<LoadedTable<Pages>>) -> Self {
        Self(raw)
    }
}

impl Port for C {
    type Memory = Pages;
    type Owner = Owned;

    fn allocate(&self, size: usize) -> Option<Pages> {
        // SAFETY: any size may be asked for.
        let start = NonNull::new(unsafe { lineinfo_allocate(size) })?;
        Some(Pages { start, size })
    }

    fn own(&self, table: LoadedTable<Pages>) -> Option<Owned> {
        // SAFETY: any size may be asked for.
        let raw = unsafe { lineinfo_allocate(size_of::<LoadedTable<Pages>>()) };
        let raw = NonNull::new(raw.cast::<LoadedTable<Pages>>())?;
        // SAFETY: the pages are new, large enough, and aligned to their size.
        unsafe { raw.write(table) };
        Some(Owned(raw))
    }

    fn now_ms(&self) -> u64 {
        lineinfo_now_ms()
    }

    fn log(&self, _level: Level, line: &str) {
        // SAFETY: the text is there during the call.
        unsafe { lineinfo_log(line.as_ptr(), line.len()) };
    }

    fn keep_waiting(&self) -> impl FnMut() -> bool {
        || false
    }

    fn with_slot<T>(
        &self,
        name: &str,
        act: impl FnOnce(&TableSlot<Self>, &Expected) -> T,
    ) -> Option<T> {
        name.is_empty().then(|| act(&KERNEL, &self.expected))
    }

    fn with_slot_at<T>(&self, _address: u64, mut act: impl FnMut(&TableSlot<Self>) -> T) -> T {
        act(&KERNEL)
    }
}

/// Loads a blob through the device, by both ways, and unloads it; the status goes to the log.
///
/// Returns 0, or minus an errno.
///
/// # Safety
///
/// `blob` must be valid for reads of `blob_size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn lineinfo_device(blob: *const u8, blob_size: usize) -> isize {
    // SAFETY: the caller promises it.
    let blob = unsafe { slice::from_raw_parts(blob, blob_size) };
    match cycle(blob) {
        Ok(()) => 0,
        Err(refusal) => -(refusal.errno().number() as isize),
    }
}

fn cycle(blob: &[u8]) -> Result<(), lineinfo_core::device::Refusal> {
    // What runs is whatever the blob was made from.
    let layout = *Table::parse(blob)?.layout();
    let mut device = Device::new(C {
        expected: Expected {
            build_id: BuildId::new(layout.build_id()),
            machine: layout.machine(),
            slide: 0,
        },
    });
    device.configure(Config {
        policy: Policy::On,
        max_bytes: u64::MAX,
        trust: Trust::Anybody,
        idle_ms: 0,
    });
    device.load_appended(blob.len() as u64, |_, _| Err(()));
    let root = Caller {
        uid: 0,
        pid: 1,
        may_load: true,
        may_see_addresses: true,
    };
    let mut file = device.open(root, true)?;
    for piece in blob.chunks(1000) {
        device.write(&mut file, piece)?;
    }
    device.ioctl(&mut file, Ioctl::Commit.code(), &mut [])?;
    device.flush(&file)?;
    device.free_init("");
    device.reclaim(&KERNEL);
    let mut text = [0; Status::TEXT_BYTES];
    let mut text = StrBuffer::new(&mut text);
    device.status(&file)?.push_to(&mut text);
    KERNEL.push_location(&mut text, Address::Exact(layout.text_start()));
    // SAFETY: the text is there during the call.
    unsafe { lineinfo_log(text.as_str().as_ptr(), text.as_str().len()) };
    device.ioctl(&mut file, Ioctl::Unload.code(), &mut [])?;
    device.close(&file);
    Ok(())
}
