//! A kernel of its own with [`lineinfo_core`]: it boots, fills its slot from the table that comes as
//! its initrd, and panics with file and line in its trace.
//!
//! ```text
//! $ cargo build --manifest-path core/examples/bare-metal/Cargo.toml --target-dir target
//! $ lineinfo build target/debug/bare-metal -o kernel.lineinfo
//! $ qemu-system-x86_64 -display none -no-reboot -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=1 \
//!       -kernel target/debug/bare-metal -initrd kernel.lineinfo
//! lineinfo: 17027 entries
//! Kernel panic - not syncing: cannot open root device "hda"
//! Call Trace:
//!  [<000000000014d7ac>] (/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/panicking.rs:80)
//!  [<0000000000103509>] (examples/bare-metal/src/main.rs:71)
//!  [<0000000000103269>] (examples/bare-metal/src/main.rs:65)
//!  [<0000000000103b74>] (examples/bare-metal/src/main.rs:49)
//!  [<000000000010008f>]
//! ```
//!
//! `boot.s` is the way from the loader to [`start_kernel`]; `kernel.ld` says where `_text` and the
//! build-id are. What a port of lineinfo is, is [`own_table`], the `swap` after it, and [`show_frame`].

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::panic::PanicInfo;

use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::slot::Slot;
use lineinfo_core::{Address, Table};

global_asm!(include_str!("boot.s"));

/// The table of this kernel.
static LINEINFO: Slot<Table<'static>> = Slot::empty();

/// The first code in 64-bit mode, with the physical address of a `struct hvm_start_info`.
#[unsafe(no_mangle)]
extern "C" fn start_kernel(start_info: u64) -> ! {
    match initrd(start_info).ok_or("no initrd").and_then(own_table) {
        Err(reason) => print(format_args!("lineinfo: {reason}\n")),
        Ok(table) => {
            print(format_args!(
                "lineinfo: {} entries\n",
                table.layout().rows()
            ));
            let table = &raw const table;
            // SAFETY: this function never returns, so what is on its stack stays for ever.
            let table: &'static Table<'static> = unsafe { &*table };
            // Nobody reads yet, and nothing was there before.
            let _ = LINEINFO.swap(Some(table), || true);
        }
    }
    mount_root(&["hda"]);
    exit();
}

/// The table of these bytes, if it is one of this kernel.
fn own_table(blob: &'static [u8]) -> Result<Table<'static>, &'static str> {
    let table = Table::parse(blob).map_err(|_| "the initrd is no table")?;
    if table.layout().build_id() != build_id() {
        return Err("the initrd is the table of another build");
    }
    Ok(table)
}

#[inline(never)]
fn mount_root(devices: &[&str]) {
    for device in devices {
        open_device(device);
    }
}

#[inline(never)]
fn open_device(device: &str) {
    panic!("cannot open root device \"{device}\"");
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    print(format_args!(
        "Kernel panic - not syncing: {}\nCall Trace:\n",
        info.message()
    ));
    let mut frame: *const Frame;
    // SAFETY: it reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    while !frame.is_null() {
        // SAFETY: code compiled with frame pointers leaves in `rbp` the address of a frame, and
        // the entry in `boot.s` leaves null.
        let Frame { caller, returns_to } = unsafe { *frame };
        show_frame(returns_to);
        frame = caller;
    }
    exit();
}

/// What a function with a frame pointer has pushed.
#[derive(Clone, Copy)]
#[repr(C)]
struct Frame {
    caller: *const Frame,
    returns_to: u64,
}

/// One line of a trace. It takes no lock and no memory: an NMI handler may call it.
fn show_frame(returns_to: u64) {
    // This kernel runs where it is linked; one that moves itself gives the address of its `_text`.
    let text = (&raw const TEXT).addr() as u64;
    let address = Address::Return(returns_to).relative_to(text);
    let mut buffer = [0; 256];
    let mut line = StrBuffer::new(&mut buffer);
    let reader = LINEINFO.read();
    let location = reader.get().zip(address);
    if let Some(location) = location.and_then(|(table, address)| table.lookup(address)) {
        location.push_to(&mut line);
    }
    print(format_args!(" [<{returns_to:016x}>]{}\n", line.as_str()));
}

unsafe extern "C" {
    /// The first byte of the kernel's text (`kernel.ld`).
    #[link_name = "_text"]
    static TEXT: u8;
    /// The note with the build-id.
    #[link_name = "__start_build_id"]
    static BUILD_ID_NOTE: u8;
    #[link_name = "__stop_build_id"]
    static BUILD_ID_NOTE_END: u8;
}

/// The build-id of this kernel.
fn build_id() -> &'static [u8] {
    /// The header of the note, and the name `GNU`.
    const BEFORE: usize = 16;
    let start = &raw const BUILD_ID_NOTE;
    let len = (&raw const BUILD_ID_NOTE_END).addr() - start.addr();
    // SAFETY: `kernel.ld` puts the note between these symbols, and nobody writes there.
    let note: &[u8] = unsafe { core::slice::from_raw_parts(start, len) };
    note.get(BEFORE..).unwrap_or(&[])
}

/// `struct hvm_start_info` of the PVH boot protocol, as far as it matters here.
#[derive(Clone, Copy)]
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    /// Physical address of as many [`Module`]s.
    module_list: u64,
}

/// `struct hvm_modlist_entry`, its start.
#[derive(Clone, Copy)]
#[repr(C)]
struct Module {
    address: u64,
    size: u64,
}

/// The bytes of the first module that the loader has brought.
fn initrd(start_info: u64) -> Option<&'static [u8]> {
    const MAGIC: u32 = 0x336e_c578;
    // SAFETY: the loader gives its address, below 1 GiB, where memory is mapped to itself.
    let info = unsafe { *(start_info as *const StartInfo) };
    if info.magic != MAGIC || info.modules == 0 {
        return None;
    }
    // SAFETY: the list is there, as the number says.
    let module = unsafe { *(info.module_list as *const Module) };
    let size = usize::try_from(module.size).ok()?;
    // SAFETY: the loader has put these bytes there, and nobody writes to them.
    Some(unsafe { core::slice::from_raw_parts(module.address as *const u8, size) })
}

/// The first serial port.
struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: it is the data register of the port, which QEMU empties at once.
            unsafe { out(0x3f8, byte) };
        }
        Ok(())
    }
}

fn print(text: fmt::Arguments<'_>) {
    // The port takes everything.
    let _ = Serial.write_fmt(text);
}

/// Ends QEMU, with the status of its device `isa-debug-exit`.
fn exit() -> ! {
    // SAFETY: a machine without the device ignores it.
    unsafe { out(0xf4, 0) };
    loop {
        core::hint::spin_loop();
    }
}

/// Writes a byte to an I/O port.
///
/// # Safety
///
/// What the device does with it must not break what the compiler knows of memory.
unsafe fn out(port: u16, value: u8) {
    // SAFETY: the caller promises it.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}
