//! Modules: code that is loaded and unloaded while the kernel runs, each with a table of its own.
//!
//! ```text
//!   insmod ─ read symbols, dlopen ─> ModuleSlot { text, slot } <── which module is this address in?
//!   rmmod  ─ empty the slot, wait for its readers ─> cleanup_module, dlclose, free its table
//! ```
//!
//! A caller of a module's code and a look-up in its table hold a reader of the slot, so that its
//! memory is freed when there are none any more.

pub(crate) mod procfs;
pub(crate) mod sysfs;

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lineinfo_core::device::{Expected, TableSlot};
use lineinfo_core::slot::{Slot, SwapError};
use nix::errno::Errno;

use super::image::Image;
use super::kdb::command::{self, Command};
use super::lineinfo::{LINEINFO, Modules, Sim, expected_of, wait_for_readers};
use super::smp;
use super::sysrq::{self, Key};
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
    /// What its file states about it.
    pub(crate) image: Image,
    /// The image that its table must be made from.
    expected: Expected,
    /// Its own table, which is freed with it.
    pub(crate) table: TableSlot<Sim>,
}

impl Module {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its line in `/proc/modules`.
    const fn line(&self, see_address: bool) -> Line<'_> {
        Line {
            module: self,
            see_address,
        }
    }
}

/// Room for a module.
#[derive(Debug)]
struct ModuleSlot {
    /// Run-time addresses of its text; the range of an empty slot is empty.
    start: AtomicU64,
    end: AtomicU64,
    slot: Slot<Module, Box<Module>>,
}

static MODULES: [ModuleSlot; MODULES_MAX] = [const {
    ModuleSlot {
        start: AtomicU64::new(0),
        end: AtomicU64::new(0),
        slot: Slot::empty(),
    }
}; MODULES_MAX];

/// Held while a module is loaded or unloaded. Readers do not take it.
static CHANGING: Mutex<()> = Mutex::new(());

static TRACE_MODULES: Key = Key {
    key: b'x',
    help: "trace-modules(x)",
    action: "Show where modules are",
    handler: sysrq_handle_modules,
};

static LSMOD: Command = Command {
    name: "lsmod",
    help: "loaded modules",
    run: kdb_lsmod,
};

/// All modules that are loaded, as lineinfo knows them.
#[derive(Debug)]
struct Loaded;

impl Modules for Loaded {
    fn named(&self, name: &str, act: &mut dyn FnMut(&TableSlot<Sim>, &Expected)) {
        named(name, |module| act(&module.table, &module.expected));
    }

    fn at(&self, address: u64, act: &mut dyn FnMut(&TableSlot<Sim>)) {
        at(address, |module| act(&module.table));
    }

    fn memory_bytes(&self) -> u64 {
        let mut bytes = 0;
        for_each(|module| bytes += module.table.memory_bytes());
        bytes
    }
}

/// Registers the key, the command, the tables and the work of modules.
pub(crate) fn init() {
    LINEINFO.register_modules(&Loaded);
    sysrq::register_key(&TRACE_MODULES);
    command::register(&LSMOD);
    smp::register_work(|_cpu| reclaim());
}

/// Calls `ask` with the module that an address is in, if there is one; for any context.
pub(crate) fn at<T>(address: u64, ask: impl FnOnce(&Module) -> T) -> Option<T> {
    let entry = MODULES.iter().find(|entry| {
        let start = entry.start.load(Ordering::Acquire);
        (start..entry.end.load(Ordering::Acquire)).contains(&address)
    })?;
    let reader = entry.slot.read();
    let module = reader.get()?;
    // Another module may be in the slot by now.
    module.image.text.contains(&address).then(|| ask(module))
}

/// Calls `ask` with the module of a name, if there is one.
pub(crate) fn named<T>(name: &str, ask: impl FnOnce(&Module) -> T) -> Option<T> {
    let entry = entry_of(name)?;
    let reader = entry.slot.read();
    reader.get().filter(|module| module.name == name).map(ask)
}

/// Calls `ask` with each module.
pub(crate) fn for_each(mut ask: impl FnMut(&Module)) {
    for entry in &MODULES {
        if let Some(module) = entry.slot.read().get() {
            ask(module);
        }
    }
}

fn entry_of(name: &str) -> Option<&'static ModuleSlot> {
    let is = |entry: &&ModuleSlot| {
        entry
            .slot
            .read()
            .get()
            .is_some_and(|found| found.name == name)
    };
    MODULES.iter().find(is)
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
    let free = |entry: &&ModuleSlot| {
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
        // The slot is empty, and the lock keeps others from filling it.
        Err(SwapError::Busy(_) | SwapError::Pending) => {
            return Err(("its slot is in use".to_owned(), Errno::EBUSY));
        }
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
/// If its readers do not leave in time, [`reclaim`] frees its memory later.
#[inline(never)]
pub(crate) fn delete_module(name: &str) -> Result<usize, Errno> {
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = entry_of(name).ok_or(Errno::ENOENT)?;
    take_out(entry, true);
    keep_frame(Ok(0))
}

fn take_out(entry: &ModuleSlot, initialized: bool) {
    entry.end.store(0, Ordering::Release);
    match entry.slot.swap(None, wait_for_readers()) {
        Ok(module) if initialized => finish(module),
        Ok(module) => drop(module),
        Err(SwapError::Busy(_) | SwapError::Pending) => printk!(
            Warning,
            "module: it is still in use; its memory is freed later"
        ),
    }
}

/// Frees a module that has no readers any more.
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

/// Frees modules that were still in use when they were unloaded, and such tables of modules.
fn reclaim() {
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

/// Calls the work of all modules; with `trace` they log where they are.
#[inline(never)]
pub(crate) fn run_work(trace: bool) {
    for_each(|module| module.object.work(trace));
    keep_frame(());
}

/// A line of `/proc/modules`: name, bytes of text, users, dependencies, state and address.
struct Line<'a> {
    module: &'a Module,
    /// Whether the address is shown, or zeros for it.
    see_address: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Module { name, image, .. } = self.module;
        let size = image.text.end - image.text.start;
        let start = if self.see_address {
            image.text.start
        } else {
            0
        };
        write!(f, "{name} {size} 0 - Live {start:#018x}")
    }
}

#[inline(never)]
fn sysrq_handle_modules() {
    run_work(true);
    keep_frame(());
}

fn kdb_lsmod(output: &mut dyn fmt::Write) -> fmt::Result {
    let (mut count, mut written) = (0, Ok(()));
    for_each(|module| {
        count += 1;
        written = written.and_then(|()| writeln!(output, "{}", module.line(true)));
    });
    if count == 0 {
        written = writeln!(output, "no modules are loaded");
    }
    written
}

/// The name of the module in a file, made from the name of the file by the rules of Linux.
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
