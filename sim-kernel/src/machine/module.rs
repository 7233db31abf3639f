//! Code of modules: shared objects that the host loads, and functions of them that are called.
//!
//! A module is trusted like the kernel itself: nothing here guards against its code.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::OnceLock;

use nix::libc;

/// What the kernel exports to modules, `struct kernel` in C.
#[repr(C)]
struct Exports {
    printk: extern "C" fn(*const c_char),
    dump_stack: extern "C" fn(),
}

static EXPORTS: Exports = Exports {
    printk: export_printk,
    dump_stack: export_dump_stack,
};

static PRINTK: OnceLock<fn(&str)> = OnceLock::new();
static DUMP_STACK: OnceLock<fn()> = OnceLock::new();

/// Sets the functions that modules can call; the first call counts.
pub(crate) fn init(printk: fn(&str), dump_stack: fn()) {
    PRINTK.get_or_init(|| printk);
    DUMP_STACK.get_or_init(|| dump_stack);
}

extern "C" fn export_printk(text: *const c_char) {
    // SAFETY: the interface asks modules for a string that ends with a zero byte.
    let text = unsafe { CStr::from_ptr(text) };
    if let Some(printk) = PRINTK.get() {
        printk(&text.to_string_lossy());
    }
}

extern "C" fn export_dump_stack() {
    if let Some(dump_stack) = DUMP_STACK.get() {
        dump_stack();
    }
    super::frames::keep_frame(());
}

/// A shared object in memory; dropping it unloads it.
#[derive(Debug)]
pub(crate) struct Object {
    handle: NonNull<c_void>,
    base: u64,
}

// SAFETY: a handle is valid in every thread, and the functions of a module may be called by any.
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

impl Object {
    /// Loads a file; an error is the host's message.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: runs code of the module, if it has constructors, which is trusted.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let Some(handle) = NonNull::new(handle) else {
            return Err(last_error());
        };
        // From here on, dropping it unloads it.
        let mut object = Self { handle, base: 0 };
        let init = object
            .symbol(c"init_module")
            .ok_or("it has no init_module")?;
        // SAFETY: zeros are a `Dl_info` for the call that fills it.
        let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: only writes to `info`.
        if unsafe { libc::dladdr(init.as_ptr(), &mut info) } == 0 {
            return Err("the host does not know where it is".to_owned());
        }
        object.base = info.dli_fbase.addr() as u64;
        Ok(object)
    }

    /// The run-time address of its first byte.
    pub(crate) const fn base(&self) -> u64 {
        self.base
    }

    /// Calls its `init_module`; 0 is success.
    #[inline(never)]
    pub(crate) fn init(&self) -> i32 {
        let Some(init) = self.symbol(c"init_module") else {
            return -libc::ENOEXEC;
        };
        // SAFETY: the interface gives this symbol this type, and `self` keeps it in memory.
        let init = unsafe {
            std::mem::transmute::<NonNull<c_void>, extern "C" fn(&'static Exports) -> c_int>(init)
        };
        init(&EXPORTS)
    }

    /// Calls its `module_work`, if it has one.
    #[inline(never)]
    pub(crate) fn work(&self, trace: bool) {
        let Some(work) = self.symbol(c"module_work") else {
            return;
        };
        // SAFETY: the interface gives this symbol this type, and `self` keeps it in memory.
        let work = unsafe { std::mem::transmute::<NonNull<c_void>, extern "C" fn(c_int)>(work) };
        work(c_int::from(trace));
        super::frames::keep_frame(());
    }

    /// Calls its `cleanup_module`, if it has one.
    pub(crate) fn cleanup(&self) {
        let Some(cleanup) = self.symbol(c"cleanup_module") else {
            return;
        };
        // SAFETY: the interface gives this symbol this type, and `self` keeps it in memory.
        let cleanup = unsafe { std::mem::transmute::<NonNull<c_void>, extern "C" fn()>(cleanup) };
        cleanup();
    }

    fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is open, and the name ends with a zero byte.
        NonNull::new(unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) })
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // What the host does not unload stays, and is not called any more.
        // SAFETY: the handle is open, and code that could call into it has no `Object`.
        let _stays = unsafe { libc::dlclose(self.handle.as_ptr()) };
    }
}

fn last_error() -> String {
    // SAFETY: gives a string of this thread, valid until the next such call.
    let error = unsafe { libc::dlerror() };
    if error.is_null() {
        return "the host gives no reason".to_owned();
    }
    // SAFETY: not null, so it is a string that ends with a zero byte, as above.
    unsafe { CStr::from_ptr(error) }
        .to_string_lossy()
        .into_owned()
}
