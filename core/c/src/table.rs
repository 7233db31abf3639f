//! A table: its check, its facts, and the text of an address.

use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;

use lineinfo_core::blob::{BUILD_ID_MAX, REGION_INIT};
use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::uapi::{AddressKind, Errno};
use lineinfo_core::{Address, Error, Table};

use crate::holder::{Holder, get, put};
use crate::text::write_text;
use crate::{bytes, bytes_mut, negative};

/// The size of a table in units of 8 bytes.
pub const TABLE_WORDS: usize = 20;

/// A table that `lineinfo_parse` made: a pointer to its blob, and what was found in it.
///
/// The caller gives it a place and may copy it. The contents are those of the library.
#[repr(C)]
#[derive(Debug)]
pub struct RawTable {
    /// Not for the caller.
    opaque: [u64; TABLE_WORDS],
}

// SAFETY: its field is private, and nothing makes one but C.
unsafe impl Holder for RawTable {
    type Value = Table<'static>;
}

/// What the header of a table says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TableFacts {
    /// Link-time address of `_text`; 0 for a relocatable module.
    pub text_start: u64,
    /// Bytes from `_text` to the end of the last region.
    pub text_len: u64,
    /// Size of the blob in bytes.
    pub size: u32,
    /// Number of rows, gaps included.
    pub rows: u32,
    /// Number of files.
    pub files: u32,
    /// Number of files whose rows are exact; those of the files after them are exact nowhere.
    pub exact_files: u32,
    /// ELF machine number (`e_machine`) of the image that the table describes.
    pub machine: u16,
    /// How the rows are encoded: one of `LINEINFO_ENCODING_*`.
    pub encoding: u8,
    /// What the rows are exact for: one of `LINEINFO_PROFILE_*`.
    pub profile: u8,
    /// Length of the build-id in bytes, 0 if the image has none.
    pub build_id_len: u8,
    /// The build-id of the image, padded with zeros.
    pub build_id: [u8; BUILD_ID_MAX],
    /// Zero.
    pub reserved: [u8; 7],
}

/// One text section of a table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RegionFacts {
    /// Start of the section, in bytes from `_text`.
    pub start: u64,
    /// Its length in bytes.
    pub len: u32,
    /// Number of its rows.
    pub rows: u32,
    /// `LINEINFO_REGION_INIT` for init text, which is freed after boot; else 0.
    pub flags: u32,
    /// Length of its name in bytes.
    pub name_len: u32,
    /// Its name: UTF-8 without a zero at its end. It is in the blob, and valid as long as that is.
    pub name: *const c_char,
}

/// Checks a blob and makes a table of it.
///
/// After it a look-up cannot fail, only miss, and cannot read outside the blob. It allocates
/// nothing and takes time in proportion to the blob: about a millisecond for that of a whole kernel.
///
/// Returns 0 and writes `table`, or minus an errno with the reason as text: `LINEINFO_EBADMSG` for
/// a checksum that does not match, `LINEINFO_ENOEXEC` for a blob that is cut off, of another version,
/// or malformed.
///
/// # Safety
///
/// `blob` is valid for reads of `blob_size` bytes, which nobody changes as long as the table is used.
/// `reason` is valid for writes of `reason_size` bytes. A pointer may be null if its size is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_parse(
    table: &mut MaybeUninit<RawTable>,
    blob: *const u8,
    blob_size: usize,
    reason: *mut c_char,
    reason_size: usize,
) -> c_int {
    // SAFETY: the caller promises it.
    let blob = unsafe { bytes(blob, blob_size) };
    match Table::parse(blob) {
        Ok(parsed) => {
            put(table, parsed);
            0
        }
        // SAFETY: the caller promises it.
        Err(error) => unsafe { refused(error, reason, reason_size) },
    }
}

/// Writes what the header of a table says.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_facts(table: &RawTable, facts: &mut MaybeUninit<TableFacts>) {
    let layout = get(table).layout();
    let mut build_id = [0; BUILD_ID_MAX];
    for (to, from) in build_id.iter_mut().zip(layout.build_id()) {
        *to = *from;
    }
    facts.write(TableFacts {
        text_start: layout.text_start(),
        text_len: layout.text_len(),
        size: layout.size(),
        rows: layout.rows(),
        files: layout.files(),
        exact_files: layout.exact_files(),
        machine: layout.machine(),
        encoding: layout.encoding().number(),
        profile: layout.profile().number(),
        build_id_len: u8::try_from(layout.build_id().len()).unwrap_or(0),
        build_id,
        reserved: [0; 7],
    });
}

/// Writes the facts of a text section; sections are numbered from 0, by ascending start.
///
/// Returns 0, or minus `LINEINFO_ENOENT` if the table has no section of that number.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_region(
    table: &RawTable,
    number: u32,
    region: &mut MaybeUninit<RegionFacts>,
) -> c_int {
    let found = usize::try_from(number).ok();
    let Some(found) = found.and_then(|number| get(table).region(number)) else {
        return negative(Errno::ENOENT);
    };
    region.write(RegionFacts {
        start: found.start.0,
        len: found.len,
        rows: found.rows,
        flags: if found.init { REGION_INIT.into() } else { 0 },
        name_len: u32::try_from(found.name.len()).unwrap_or(0),
        name: found.name.as_ptr().cast(),
    });
    0
}

/// To be added to the kind of an address that was found on a stack and may be no return address (`?`
/// in a trace of x86): the answer is then not called exact where a call would have to be there.
pub const ADDRESS_UNRELIABLE: u32 = 0x100;

/// What an address and its kind, as C gives them, stand for.
pub(crate) const fn address_of(kind: u32, address: u64) -> Option<Address<u64>> {
    let Some(known) = AddressKind::from_number(kind & !ADDRESS_UNRELIABLE) else {
        return None;
    };
    let address = known.address(address);
    if kind & ADDRESS_UNRELIABLE != 0 {
        return address.unreliable();
    }
    Some(address)
}

/// Writes the text of an address: " (file:line)", or " (file:~line)" if the table is only
/// approximate there.
///
/// `address` is one at run time, as is `text_start`, the address of `_text`. `kind` is one of
/// `LINEINFO_ADDRESS_*`, with or without `LINEINFO_ADDRESS_UNRELIABLE`. For any context; takes less
/// than 1 KiB of stack.
///
/// Returns the length of what was written in bytes, without the zero that ends it: 0 if the table
/// does not know the address, or for a kind that this version does not know.
///
/// # Safety
///
/// `text` is valid for writes of `text_size` bytes, or `text_size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_text(
    table: &RawTable,
    text_start: u64,
    kind: u32,
    address: u64,
    text: *mut c_char,
    text_size: usize,
) -> usize {
    let address = address_of(kind, address).and_then(|address| address.relative_to(text_start));
    let location = address.and_then(|address| get(table).lookup(address));
    let push = |text: &mut StrBuffer<'_>| {
        if let Some(location) = location {
            location.push_to(text);
        }
    };
    // SAFETY: the caller promises it.
    unsafe { write_text(text, text_size, push) }
}

/// Writes the text of a function that is inlined at an address: `" name (file:line) [inline]"`. `level` 0 is the
/// innermost, 1 the one it is inlined into, and so on.
///
/// A trace prints a line for each, before that of the frame, which then has the text of
/// `lineinfo_physical_text` in place of that of `lineinfo_text`. For any context; takes less than 1 KiB of
/// stack.
///
/// Returns the length of what was written in bytes, without the zero that ends it: 0 if there is no inlined
/// function of that level, or the table does not know.
///
/// # Safety
///
/// `text` is valid for writes of `text_size` bytes, or `text_size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_inlined_text(
    table: &RawTable,
    text_start: u64,
    kind: u32,
    address: u64,
    level: u32,
    text: *mut c_char,
    text_size: usize,
) -> usize {
    let address = address_of(kind, address).and_then(|address| address.relative_to(text_start));
    let push = |text: &mut StrBuffer<'_>| {
        if let Some(address) = address {
            get(table).push_inlined(text, address, level_of(level));
        }
    };
    // SAFETY: the caller promises it.
    unsafe { write_text(text, text_size, push) }
}

/// Writes the text of the physical function at an address: " (file:line)", where in the function of the symbol
/// the address is, whatever is inlined there. For any context; takes less than 1 KiB of stack.
///
/// Returns the length of what was written in bytes, without the zero that ends it: 0 if the table has no inlined
/// functions, or does not know the address; there may be one from `lineinfo_text` then.
///
/// # Safety
///
/// `text` is valid for writes of `text_size` bytes, or `text_size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_physical_text(
    table: &RawTable,
    text_start: u64,
    kind: u32,
    address: u64,
    text: *mut c_char,
    text_size: usize,
) -> usize {
    let address = address_of(kind, address).and_then(|address| address.relative_to(text_start));
    let push = |text: &mut StrBuffer<'_>| {
        if let Some(address) = address {
            get(table).push_physical(text, address);
        }
    };
    // SAFETY: the caller promises it.
    unsafe { write_text(text, text_size, push) }
}

/// A level, as C gives it.
pub(crate) fn level_of(level: u32) -> usize {
    usize::try_from(level).unwrap_or(usize::MAX)
}

/// Checks every row of a table, and that each can be looked up and printed.
///
/// For whoever makes, stores or sends tables. A kernel does not need it: it is safe after
/// `lineinfo_parse`, which takes a hundredth of the time.
///
/// Returns 0, or minus `LINEINFO_ENOEXEC` with the reason as text.
///
/// # Safety
///
/// `reason` is valid for writes of `reason_size` bytes, or `reason_size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_check_rows(
    table: &RawTable,
    reason: *mut c_char,
    reason_size: usize,
) -> c_int {
    match get(table).check_rows() {
        Ok(()) => 0,
        // SAFETY: the caller promises it.
        Err(error) => unsafe { refused(error, reason, reason_size) },
    }
}

/// Size in bytes of the blob of a table without the rows of init text; that of the blob if it has
/// none.
#[unsafe(no_mangle)]
pub extern "C" fn lineinfo_size_without_init(table: &RawTable) -> usize {
    get(table).size_without_init()
}

/// Writes the blob of a table without the rows of init text, for a kernel that has freed that text,
/// and makes a table of what is written, which needs no check.
///
/// `to_size` is at least `lineinfo_size_without_init`.
///
/// Returns 0 and writes `smaller`, or minus `LINEINFO_ENOMEM` if `to_size` is too small.
///
/// # Safety
///
/// `to` is valid for writes of `to_size` bytes, apart from the blob of `table`, and nobody changes
/// them as long as `smaller` is used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_copy_without_init(
    table: &RawTable,
    to: *mut u8,
    to_size: usize,
    smaller: &mut MaybeUninit<RawTable>,
) -> c_int {
    // SAFETY: the caller promises it.
    let to = unsafe { bytes_mut(to, to_size) };
    let Some(layout) = get(table).copy_without_init(to) else {
        return negative(Errno::ENOMEM);
    };
    put(smaller, Table::from_layout(to, layout));
    0
}

/// Removes the rows of init text from a blob in its own memory, for a kernel that has freed that
/// text, and makes `table`, which is the table of that blob, one of what is left.
///
/// `lineinfo_facts` then says how many bytes the blob has; the memory after them is free.
///
/// Returns 0, or minus `LINEINFO_EINVAL` if the table is not one of this blob.
///
/// # Safety
///
/// `blob` is valid for writes of `blob_size` bytes. Nobody uses the table or a copy of it during the
/// call, nor a copy after it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lineinfo_remove_init(
    table: &mut MaybeUninit<RawTable>,
    blob: *mut u8,
    blob_size: usize,
) -> c_int {
    // SAFETY: the caller promises that it is a table.
    let layout = *get(unsafe { table.assume_init_ref() }).layout();
    // SAFETY: the caller promises it.
    let blob = unsafe { bytes_mut(blob, blob_size) };
    if usize::try_from(layout.size()) != Ok(blob.len()) {
        return negative(Errno::EINVAL);
    }
    let Some(layout) = Table::remove_init(blob, &layout) else {
        return negative(Errno::EINVAL);
    };
    let left = usize::try_from(layout.size()).ok();
    let left = left.and_then(|size| blob.get(..size)).unwrap_or(&[]);
    put(table, Table::from_layout(left, layout));
    0
}

/// # Safety
///
/// As [`write_text`].
unsafe fn refused(error: Error, reason: *mut c_char, reason_size: usize) -> c_int {
    let push = |text: &mut StrBuffer<'_>| error.push_to(text);
    // SAFETY: the caller promises it.
    unsafe { write_text(reason, reason_size, push) };
    negative(error.errno())
}
