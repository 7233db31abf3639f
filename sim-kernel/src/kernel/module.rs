//! Modules: code that comes and goes while the kernel runs, each with a table of its own.
//!
//! ```text
//!   insmod ─ read symbols, dlopen ─> Entry { text, slot } <── which module is this address in?
//!   rmmod  ─ empty the slot, wait for who is inside ─> cleanup_module, dlclose, its table with it
//! ```
//!
//! Whoever calls into a module or looks something up in it holds a reader of the slot, so that its
//! memory goes when nobody is inside any more.

use std::fmt::{self, Write};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lineinfo_core::device::{Expected, TableSlot};
use lineinfo_core::slot::{Slot, SwapError};
use nix::errno::Errno;

use super::image::Image;
use super::lineinfo::{LINEINFO, Sim, expected_of, wait_for_readers};
use crate::machine::frames::keep_frame;
use crate::machine::module::Object;
use crate::printk;

/// Most modules at a time.
const MODULES_MAX: usize = 16;

/// Longest name, in bytes: what the device's ABI holds.
const NAME_BYTES_MAX: usize = lineinfo_core::uapi::MODULE_NAME_MAX;

/// A module that is loaded.
#[derive(Debug)]
pub(crate) struct Module {
    name: String,
    object: Object,
    /// What its file says about it.
    pub(crate) image: Image,
    /// What a table of it must be.
    pub(crate) expected: Expected,
    /// Its own table, which goes when it goes.
    pub(crate) table: TableSlot<Sim>,
}

impl Module {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// A place for a module.
#[derive(Debug)]
struct Entry {
    /// Run-time addresses of its text; nothing is in an empty range.
    start: AtomicU64,
    end: AtomicU64,
    slot: Slot<Module, Box<Module>>,
}

static MODULES: [Entry; MODULES_MAX] = [const {
    Entry {
        start: AtomicU64::new(0),
        end: AtomicU64::new(0),
        slot: Slot::empty(),
    }
}; MODULES_MAX];

/// Held by whoever loads or unloads a module. Readers do not know it.
static CHANGING: Mutex<()> = Mutex::new(());

/// Asks the module that an address is in, if there is one; for any context.
pub(crate) fn at<T>(address: u64, ask: impl FnOnce(&Module) -> T) -> Option<T> {
    let entry = MODULES.iter().find(|entry| {
        let start = entry.start.load(Ordering::Acquire);
        (start..entry.end.load(Ordering::Acquire)).contains(&address)
    })?;
    let reader = entry.slot.read();
    let module = reader.get()?;
    // Another one may have taken the place since.
    module.image.text.contains(&address).then(|| ask(module))
}

/// Asks the module of a name, if there is one.
pub(crate) fn named<T>(name: &str, ask: impl FnOnce(&Module) -> T) -> Option<T> {
    let entry = entry_of(name)?;
    let reader = entry.slot.read();
    reader.get().filter(|module| module.name == name).map(ask)
}

/// Asks all modules, one after the other.
pub(crate) fn for_each(mut ask: impl FnMut(&Module)) {
    for entry in &MODULES {
        if let Some(module) = entry.slot.read().get() {
            ask(module);
        }
    }
}

fn entry_of(name: &str) -> Option<&'static Entry> {
    let is = |entry: &&Entry| {
        entry
            .slot
            .read()
            .get()
            .is_some_and(|found| found.name == name)
    };
    MODULES.iter().find(is)
}

/// Memory of all their tables, in bytes.
pub(crate) fn table_bytes() -> u64 {
    let mut bytes = 0;
    for_each(|module| bytes += module.table.memory_bytes());
    bytes
}

/// Loads a module from a file of the host, and runs its `init_module`.
#[inline(never)]
pub(crate) fn init_module(path: &str) -> Result<usize, Errno> {
    let loaded = load_module(Path::new(path));
    loaded.map_err(|(reason, errno)| {
        printk!(Err, "module: {path}: {reason}");
        errno
    })?;
    keep_frame(Ok(0))
}

fn load_module(path: &Path) -> Result<(), (String, Errno)> {
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let name = name_of(path).ok_or_else(|| {
        let reason = format!("the file's name must be 1 to {NAME_BYTES_MAX} letters and digits");
        (reason, Errno::EINVAL)
    })?;
    if entry_of(&name).is_some() {
        return Err((format!("{name} is loaded already"), Errno::EEXIST));
    }
    let free = |entry: &&Entry| {
        let empty = entry.slot.read().get().is_none();
        empty && entry.slot.reclaim(|| false).map(finish).is_ok()
    };
    let entry = MODULES.iter().find(free).ok_or_else(|| {
        let reason = format!("there are {MODULES_MAX} modules; unload one");
        (reason, Errno::ENOSPC)
    })?;
    // A name without a slash would be looked for elsewhere.
    let path = std::path::absolute(path).map_err(|error| (error.to_string(), Errno::ENOENT))?;
    let file = File::open(&path).map_err(|error| (error.to_string(), Errno::ENOENT))?;
    let object = Object::open(&path).map_err(|error| (error, Errno::ENOEXEC))?;
    let image =
        Image::read(file, object.base()).map_err(|error| (error.to_string(), Errno::ENOEXEC))?;
    let text = image.text.clone();
    let expected = expected_of(Some(&image));
    let module = Module {
        name: name.clone(),
        object,
        image,
        expected,
        table: TableSlot::new(),
    };
    match entry.slot.swap(Some(Box::new(module)), wait_for_readers()) {
        Ok(old) => drop(old),
        // There was nothing to wait for, and nobody else changes it.
        Err(_) => return Err(("its place is taken".to_owned(), Errno::EBUSY)),
    }
    entry.start.store(text.start, Ordering::Release);
    entry.end.store(text.end, Ordering::Release);
    match named(&name, |module| do_init_module(&module.object)) {
        Some(0) => {
            printk!(Info, "module: {name} at {:#x}-{:#x}", text.start, text.end);
            Ok(())
        }
        status => {
            take_out(entry, false);
            let status = status.unwrap_or(0);
            let reason = format!("its init_module failed with {status}");
            Err((reason, Errno::from_raw(-status)))
        }
    }
}

#[inline(never)]
fn do_init_module(object: &Object) -> i32 {
    keep_frame(object.init())
}

/// Unloads a module.
///
/// Where somebody is inside of it for long, its memory comes back with [`reclaim`].
#[inline(never)]
pub(crate) fn delete_module(name: &str) -> Result<usize, Errno> {
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = entry_of(name).ok_or(Errno::ENOENT)?;
    take_out(entry, true);
    keep_frame(Ok(0))
}

fn take_out(entry: &Entry, initialized: bool) {
    entry.end.store(0, Ordering::Release);
    match entry.slot.swap(None, wait_for_readers()) {
        Ok(module) if initialized => finish(module),
        Ok(module) => drop(module),
        Err(SwapError::Busy(_) | SwapError::Pending) => printk!(
            Warning,
            "module: it is still in use; its memory comes back later"
        ),
    }
}

/// The end of a module that nobody is inside of any more.
fn finish(module: Option<Box<Module>>) {
    if let Some(module) = module {
        module.object.cleanup();
        let bytes = module.table.memory_bytes();
        if bytes > 0 {
            let name = module.name();
            printk!(
                Info,
                "lineinfo: {name} goes with its table, {} kB freed",
                bytes / 1024
            );
        }
    }
}

/// Gives back modules that were still in use when they were unloaded, and tables likewise.
pub(crate) fn reclaim() {
    for entry in &MODULES {
        if let Some(module) = entry.slot.read().get() {
            LINEINFO.reclaim_in(&module.table);
        }
    }
    if let Ok(_changing) = CHANGING.try_lock() {
        for entry in &MODULES {
            if let Ok(module) = entry.slot.reclaim(|| false) {
                finish(module);
            }
        }
    }
}

/// Lets all modules do what they do; with `trace` they show where they are.
#[inline(never)]
pub(crate) fn run_work(trace: bool) {
    for_each(|module| module.object.work(trace));
    keep_frame(());
}

/// A line of `/proc/modules`: name, bytes of text, users, dependencies, state and address.
impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, image, .. } = self;
        let size = image.text.end - image.text.start;
        let start = image.text.start;
        write!(f, "{name} {size} 0 - Live {start:#018x}")
    }
}

/// `/proc/modules`.
pub(crate) fn modules_show() -> String {
    let mut text = String::new();
    for_each(|module| writeln!(text, "{module}").expect("a string takes everything"));
    text
}

/// The name of the module in a file: that of the file, by the rules of Linux.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_stem()?.to_str()?.replace('-', "_");
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let short = (1..=NAME_BYTES_MAX).contains(&name.len());
    (short && name.bytes().all(good)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_after_its_file() {
        let name = |path| name_of(Path::new(path));
        assert_eq!(name("/lib/xor.ko").as_deref(), Some("xor"));
        assert_eq!(name("snd-hda.ko").as_deref(), Some("snd_hda"));
        assert_eq!(name("/"), None);
        assert_eq!(name("a b.ko"), None);
        assert_eq!(name(&"x".repeat(NAME_BYTES_MAX + 1)), None);
    }
}
