//! The device `/dev/lineinfo` for a kernel in C: the life of a load, and the slots of the kernel and
//! of its modules.

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::str;

use lineinfo_core::blob::BUILD_ID_MAX;
use lineinfo_core::device::{Caller, Config, Device, File, Policy, Refusal, TableSlot, Trust};
use lineinfo_core::uapi::{Errno, Status};

use crate::holder::{Holder, get, get_mut, put};
use crate::port::{self, Kernel};
use crate::table::{address_of, level_of};
use crate::text::write_text;
use crate::{bytes, bytes_mut, negative};

/// A table may come late only.
pub const POLICY_OFF: u32 = 0;
/// A table may come at boot, from the image, and late.
pub const POLICY_ON: u32 = 1;
/// A table comes at no time.
pub const POLICY_NEVER: u32 = 2;

/// Tables are taken from anybody, signed or not.
pub const TRUST_ANYBODY: u32 = 0;
/// Tables are taken that the key of the configuration has signed.
pub const TRUST_KEY: u32 = 1;
/// No table is taken: signatures are demanded, and there is no key to verify them with.
pub const TRUST_NOBODY: u32 = 2;

/// Something that was asked for is refused. The levels are those of syslog.
pub const LEVEL_ERROR: u32 = 3;
/// Something is not as it should be.
pub const LEVEL_WARNING: u32 = 4;
/// What goes on.
pub const LEVEL_INFO: u32 = 6;

/// The caller may load and unload.
pub const CALLER_MAY_LOAD: u32 = 1;
/// The caller may ask for run-time addresses, whose answers tell where the kernel is.
pub const CALLER_MAY_SEE_ADDRESSES: u32 = 2;

/// What the device is told at boot.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceConfig {
    /// The largest blob taken, in bytes.
    pub max_bytes: u64,
    /// How long a file that is open for writing may make no request before the next opener can take
    /// the device over, in milliseconds.
    pub idle_ms: u64,
    /// When a table may come: one of `LINEINFO_POLICY_*`.
    pub policy: u32,
    /// Whose tables are taken: one of `LINEINFO_TRUST_*`.
    pub trust: u32,
    /// The Ed25519 public key for `LINEINFO_TRUST_KEY`.
    pub key: [u8; 32],
}

/// A part of a message whose signature is verified.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MessagePart {
    /// Its bytes.
    pub bytes: *const u8,
    /// How many they are.
    pub size: usize,
}

/// Who opens the device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FileCaller {
    /// Its user.
    pub uid: u32,
    /// Its process; 0 for the kernel itself.
    pub pid: u32,
    /// What it may do: `LINEINFO_CALLER_*`, added.
    pub rights: u32,
}

/// What a table of an image must be, and where the image is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpectedImage {
    /// Run-time minus link-time addresses, in bytes.
    pub slide: u64,
    /// ELF machine number (`e_machine`) of the image.
    pub machine: u16,
    /// Length of its build-id in bytes; an image without one takes no table.
    pub build_id_len: u8,
    /// Its build-id.
    pub build_id: [u8; BUILD_ID_MAX],
    /// Zero.
    pub reserved: u8,
}

/// The unit of the memory that the device asks for, in bytes; a kernel with larger pages rounds up.
pub const PAGE_BYTES: usize = 4096;

/// The size of a device in units of 8 bytes.
pub const DEVICE_WORDS: usize = 25;
/// The size of an open file in units of 8 bytes.
pub const FILE_WORDS: usize = 11;
/// The size of a slot in units of 8 bytes.
pub const SLOT_WORDS: usize = 35;

/// The device. The kernel gives it a place and a lock that may sleep, and holds the lock in every call
/// that takes the device.
#[repr(C)]
#[derive(Debug)]
pub struct RawDevice {
    /// Not for the caller.
    opaque: [u64; DEVICE_WORDS],
}

/// An open file of the device.
#[repr(C)]
#[derive(Debug)]
pub struct RawFile {
    /// Not for the caller.
    opaque: [u64; FILE_WORDS],
}

/// The slot for the table of the kernel, or of a module. It stays where it is.
#[repr(C)]
#[derive(Debug)]
pub struct RawSlot {
    /// Not for the caller.
    opaque: UnsafeCell<[u64; SLOT_WORDS]>,
}

// SAFETY: its field is private, and nothing makes one but C.
unsafe impl Holder for RawDevice {
    type Value = Device<Kernel>;
}

// SAFETY: its field is private, and nothing makes one but C.
unsafe impl Holder for RawFile {
    type Value = File;
}

// SAFETY: its field is private, nothing makes one but C, and all of it is in an `UnsafeCell`.
unsafe impl Holder for RawSlot {
    type Value = TableSlot<Kernel>;
}

/// 0, or minus the errno of a refusal.
fn result(done: Result<(), Refusal>) -> c_int {
    done.map_or_else(|refusal| negative(refusal.errno()), |()| 0)
}

/// Makes an empty slot; without it, or from memory of zeros alone, there is none.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_slot_init(slot: &mut MaybeUninit<RawSlot>) {
    put(slot, TableSlot::new());
}

/// Ends a slot that nobody uses any more, that of a module which goes away, and frees its table.
///
/// # Safety
///
/// Nobody uses the slot during the call or after it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_slot_destroy(slot: &mut RawSlot) {
    let slot = ptr::from_mut(get_mut(slot));
    // SAFETY: it is a slot, and the caller promises that it is not used any more.
    unsafe { ptr::drop_in_place(slot) };
}

/// Writes the text of a run-time address: " (file:line)", or " (file:~line)" if the table is only
/// approximate there.
///
/// `kind` is one of `LINEINFO_ADDRESS_*`, with or without `LINEINFO_ADDRESS_UNRELIABLE`. For any
/// context, an NMI too; takes less than 1 KiB of stack, and no lock.
///
/// Returns the length of what was written in bytes, without the zero that ends it: 0 if there is no
/// table, if it does not know the address, or for a kind that this version does not know.
///
/// # Safety
///
/// `text` is valid for writes of `text_size` bytes, or `text_size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_slot_text(
    slot: &RawSlot,
    kind: u32,
    address: u64,
    text: *mut c_char,
    text_size: usize,
) -> usize {
    // SAFETY: the caller promises it.
    unsafe {
        write_text(text, text_size, |text| {
            if let Some(address) = address_of(kind, address) {
                get(slot).push_location(text, address);
            }
        })
    }
}

/// Writes the text of a function that is inlined at a run-time address, as `lineinfo_inlined_text` does. For
/// any context, an NMI too; takes no lock.
///
/// # Safety
///
/// `text` is valid for writes of `text_size` bytes, or `text_size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_slot_inlined_text(
    slot: &RawSlot,
    kind: u32,
    address: u64,
    level: u32,
    text: *mut c_char,
    text_size: usize,
) -> usize {
    // SAFETY: the caller promises it.
    unsafe {
        write_text(text, text_size, |text| {
            if let Some(address) = address_of(kind, address) {
                get(slot).push_inlined(text, address, level_of(level));
            }
        })
    }
}

/// Writes the text of the physical function at a run-time address, as `lineinfo_physical_text` does. For any
/// context, an NMI too; takes no lock.
///
/// # Safety
///
/// `text` is valid for writes of `text_size` bytes, or `text_size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_slot_physical_text(
    slot: &RawSlot,
    kind: u32,
    address: u64,
    text: *mut c_char,
    text_size: usize,
) -> usize {
    // SAFETY: the caller promises it.
    unsafe {
        write_text(text, text_size, |text| {
            if let Some(address) = address_of(kind, address) {
                get(slot).push_physical(text, address);
            }
        })
    }
}

/// Where the offsets of init text begin in the table of a module, in bytes: Linux loads init text
/// apart from the text that stays, so its run-time addresses are to be counted from there. For any
/// context.
///
/// Returns 0 if there is no table, or no init text in it.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_slot_init_start(slot: &RawSlot) -> u64 {
    get(slot).init_start().unwrap_or(0)
}

/// Memory of the table in a slot, in bytes; 0 if it is empty. For any context.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_slot_memory(slot: &RawSlot) -> u64 {
    get(slot).memory_bytes()
}

/// How often a slot was asked for an address. For any context.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_slot_lookups(slot: &RawSlot) -> usize {
    get(slot).lookups()
}

/// How often it did not know the address. For any context.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_slot_misses(slot: &RawSlot) -> usize {
    get(slot).misses()
}

/// Returns 1 if an old table of the slot is still to be freed by `lineinfo_device_reclaim`, else 0.
/// For any context.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_slot_is_pending(slot: &RawSlot) -> c_int {
    c_int::from(get(slot).is_pending())
}

/// Makes a device.
///
/// Returns 0, or minus `LINEINFO_EINVAL` for a policy or a trust that this version does not know; then
/// the device refuses every load.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_device_init(
    device: &mut MaybeUninit<RawDevice>,
    config: &DeviceConfig,
) -> c_int {
    let mut new = Device::new(Kernel);
    let policy = match config.policy {
        POLICY_OFF => Some(Policy::Off),
        POLICY_ON => Some(Policy::On),
        POLICY_NEVER => Some(Policy::Never),
        _ => None,
    };
    let trust = match config.trust {
        TRUST_ANYBODY => Some(Trust::Anybody),
        TRUST_KEY => Some(Trust::Key(config.key)),
        TRUST_NOBODY => Some(Trust::Nobody),
        _ => None,
    };
    let known = policy.zip(trust);
    if let Some((policy, trust)) = known {
        new.configure(Config {
            policy,
            max_bytes: config.max_bytes,
            trust,
            idle_ms: config.idle_ms,
        });
    }
    put(device, new);
    known.map_or(negative(Errno::EINVAL), |_| 0)
}

/// Fills the slot of the kernel from the end of its boot image, if the policy is
/// `LINEINFO_POLICY_ON`. Whatever is wrong there is logged.
///
/// `image` goes to `lineinfo_port_read` as it is.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_device_load_appended(
    device: &mut RawDevice,
    image: *mut c_void,
    image_size: u64,
) {
    get_mut(device).load_appended(image_size, |at, to| port::read(image, at, to));
}

/// Opens a file of the device: for status and look-ups, or, if `writing` is not 0, for loads too.
///
/// Returns 0 and writes `file`, or minus an errno: `LINEINFO_EPERM`, or `LINEINFO_EBUSY` if another
/// file is open for writing.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_device_open(
    device: &mut RawDevice,
    caller: &FileCaller,
    writing: c_int,
    file: &mut MaybeUninit<RawFile>,
) -> c_int {
    let caller = Caller {
        uid: caller.uid,
        pid: caller.pid,
        may_load: caller.rights & CALLER_MAY_LOAD != 0,
        may_see_addresses: caller.rights & CALLER_MAY_SEE_ADDRESSES != 0,
    };
    let opened = get_mut(device).open(caller, writing != 0);
    result(opened.map(|opened| put(file, opened)))
}

/// Takes the next bytes of a blob, all of them; with the last one the table is published.
///
/// Returns 0, or minus an errno that says what is wrong with the blob; the log and the status of the
/// slot say more.
///
/// # Safety
///
/// `from` is valid for reads of `size` bytes, or `size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_device_write(
    device: &mut RawDevice,
    file: &mut RawFile,
    from: *const u8,
    size: usize,
) -> c_int {
    // SAFETY: the caller promises it.
    let from = unsafe { bytes(from, size) };
    result(get_mut(device).write(get_mut(file), from))
}

/// Makes a request: `code` is one of `LINEINFO_IOC_*`, and `argument` has the size and goes the ways
/// that the number says.
///
/// Returns 0, or minus an errno: `LINEINFO_ENOTTY` for a number that is none.
///
/// # Safety
///
/// `argument` is valid for reads and writes of `size` bytes, or `size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_device_ioctl(
    device: &mut RawDevice,
    file: &mut RawFile,
    code: u32,
    argument: *mut u8,
    size: usize,
) -> c_int {
    // SAFETY: the caller promises it.
    let argument = unsafe { bytes_mut(argument, size) };
    result(get_mut(device).ioctl(get_mut(file), code, argument))
}

/// What the slot of a file's target holds; `lineinfo_status_text` makes of it what `read` gives.
///
/// Returns 0 and writes `status`, or minus `LINEINFO_ENOENT` if the module has gone.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_device_status(
    device: &RawDevice,
    file: &RawFile,
    status: &mut MaybeUninit<Status>,
) -> c_int {
    let found = get(device).status(get(file));
    result(found.map(|found| {
        status.write(found);
    }))
}

/// For `flush` of a file: returns 0, or minus an errno if what was written is not a whole blob.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_device_flush(device: &RawDevice, file: &RawFile) -> c_int {
    result(get(device).flush(get(file)))
}

/// Closes a file; what was written and is not published is discarded.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_device_close(device: &mut RawDevice, file: &RawFile) {
    get_mut(device).close(get(file));
}

/// The init text of a module is gone, or that of the kernel if the name is empty: frees what its
/// table says of it.
///
/// Returns 0, or minus `LINEINFO_EINVAL` for a name that is not UTF-8.
///
/// # Safety
///
/// `name` is valid for reads of `len` bytes, or `len` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_device_free_init(
    device: &mut RawDevice,
    name: *const c_char,
    len: usize,
) -> c_int {
    // SAFETY: the caller promises it.
    let Ok(name) = str::from_utf8(unsafe { bytes(name.cast(), len) }) else {
        return negative(Errno::EINVAL);
    };
    get_mut(device).free_init(name);
    0
}

/// Frees an old table of a slot whose readers have left by now.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_device_reclaim(device: &mut RawDevice, slot: &RawSlot) {
    get_mut(device).reclaim(get(slot));
}
