//! Stack traces: `symbol+0xoffset/0xsize (file:line)` for every frame of a thread.
//!
//! Everything here runs in panics and interrupts: no allocation, no lock.

use std::fmt::{self, Write};

use lineinfo_core::Address;
use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::device::TableSlot;

use super::image::{Image, image};
use super::lineinfo::{LINEINFO, Sim, inlines};
use super::module::{self, Module};
use super::printk::{self, Level};
use super::taint;
use super::task::{self, Current};
use crate::machine::atomic;
use crate::machine::frames::{Frames, keep_frame};
use crate::machine::signal::Registers;
use crate::machine::trap::X86_TRAP_UD;

/// Most frames of a trace, so that the trace of a damaged stack ends.
const FRAMES_MAX: usize = 64;

/// Longest text of one address, in bytes.
const ADDRESS_BYTES: usize = 512;

/// An address as a trace prints it: `symbol+0xoff/0xsize [module] (file:line)`, as much of it as the
/// symbols and the table know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbolized {
    address: Address<u64>,
    /// It is no return address, or an unwinder that can be trusted found it.
    reliable: bool,
    /// The functions that are inlined there have lines of their own ([`show_inlined`]), and this is the one of
    /// the symbol.
    physical: bool,
}

impl Symbolized {
    /// An instruction.
    pub(crate) const fn exact(address: u64) -> Self {
        Self {
            address: Address::Exact(address),
            reliable: true,
            physical: false,
        }
    }

    /// The address of a byte of the instruction.
    fn byte(self) -> u64 {
        self.address.byte().unwrap_or(0)
    }

    /// The address to look up in a table.
    const fn question(self) -> Option<Address<u64>> {
        if self.reliable {
            Some(self.address)
        } else {
            self.address.unreliable()
        }
    }

    fn push_to(self, text: &mut StrBuffer<'_>) -> fmt::Result {
        if let Some(written) = module::at(self.byte(), |module| self.push_in(module, text)) {
            return written;
        }
        self.push_symbol(image(), text)?;
        LINEINFO.with_table(|table| self.push_location(table, text));
        Ok(())
    }

    fn push_in(self, module: &Module, text: &mut StrBuffer<'_>) -> fmt::Result {
        self.push_symbol(Some(&module.image), text)?;
        write!(text, " [{}]", module.name())?;
        self.push_location(&module.table, text);
        Ok(())
    }

    fn push_location(self, table: &TableSlot<Sim>, text: &mut StrBuffer<'_>) {
        let Some(address) = self.question() else {
            return;
        };
        let physical = self.physical && table.push_physical(text, address);
        if !physical {
            table.push_location(text, address);
        }
    }

    /// Appends the text of a function that is inlined there, at level 0 the innermost; `false` if there is none.
    fn push_inlined(self, text: &mut StrBuffer<'_>, level: usize) -> bool {
        let Some(address) = self.question() else {
            return false;
        };
        let mut push = |table: &TableSlot<Sim>| table.push_inlined(text, address, level);
        let of_module = module::at(self.byte(), |module| push(&module.table));
        of_module.unwrap_or_else(|| LINEINFO.with_table(push))
    }

    fn push_symbol(self, image: Option<&Image>, text: &mut StrBuffer<'_>) -> fmt::Result {
        let value = self.address.value();
        match image.and_then(|image| image.symbols.lookup(self.byte())) {
            Some(symbol) => {
                let offset = value - symbol.start;
                write!(text, "{}+{offset:#x}/{:#x}", symbol.name, symbol.size_bytes)
            }
            None => write!(text, "{value:#x}"),
        }
    }
}

impl fmt::Display for Symbolized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ADDRESS_BYTES];
        let mut text = StrBuffer::new(&mut buffer);
        self.push_to(&mut text)?;
        f.write_str(text.into_str())
    }
}

/// Logs the task of this thread, and its trace from the caller outwards.
#[inline(never)]
pub(crate) fn dump_stack(level: Level) {
    let current = task::current();
    printk::emit(level, format_args!("{}", TaskLine(current)));
    show_stack(level);
    keep_frame(());
}

#[inline(never)]
fn show_stack(level: Level) {
    let _atomic = atomic::enter();
    let frames = Frames::here();
    show_frames(frames, true, &mut |line| printk::emit(level, line));
}

/// Writes the task of this thread, and its trace from the caller outwards, line by line.
#[inline(never)]
pub(crate) fn show_current(line: &mut dyn FnMut(fmt::Arguments<'_>)) {
    line(format_args!("{}", TaskLine(task::current())));
    show_frames(Frames::here(), true, line);
    keep_frame(());
}

/// Writes the trace of an interrupted thread, line by line.
pub(crate) fn show_interrupted(registers: &Registers, line: &mut dyn FnMut(fmt::Arguments<'_>)) {
    show(registers, false, line);
}

/// The same with the contents of all registers.
pub(crate) fn show_regs(registers: &Registers, line: &mut dyn FnMut(fmt::Arguments<'_>)) {
    show(registers, true, line);
}

fn show(registers: &Registers, all: bool, line: &mut dyn FnMut(fmt::Arguments<'_>)) {
    let rip = registers.rip();
    line(format_args!("{}", TaskLine(task::current())));
    let address = if all && registers.trap() == X86_TRAP_UD {
        Address::Trap(rip)
    } else {
        Address::Exact(rip)
    };
    let rip_line = Symbolized {
        address,
        reliable: true,
        physical: inlines::are_shown(),
    };
    show_inlined(rip_line, line);
    line(format_args!("RIP: 0010:{rip_line}"));
    if all {
        let (rsp, eflags) = (registers.rsp(), registers.eflags());
        line(format_args!("RSP: 0018:{rsp:016x} EFLAGS: {eflags:08x}"));
        for [a, b, c] in registers.general().as_chunks().0 {
            line(format_args!(
                "{}: {:016x} {}: {:016x} {}: {:016x}",
                a.0, a.1, b.0, b.1, c.0, c.1
            ));
        }
    }
    // Libraries are built without frame pointers: what is found there may not be a frame.
    let reliable =
        image().is_some_and(|image| image.text.contains(&rip)) || module::at(rip, |_| ()).is_some();
    show_frames(Frames::interrupted(registers), reliable, line);
}

/// Writes a line for each function that is inlined at an address, innermost first.
#[inline(never)]
fn show_inlined(at: Symbolized, line: &mut dyn FnMut(fmt::Arguments<'_>)) {
    if !at.physical {
        return;
    }
    for level in 0.. {
        let mut buffer = [0; ADDRESS_BYTES];
        let mut text = StrBuffer::new(&mut buffer);
        if !at.push_inlined(&mut text, level) {
            return;
        }
        line(format_args!("{}", text.into_str()));
    }
}

fn show_frames(frames: Frames, reliable: bool, line: &mut dyn FnMut(fmt::Arguments<'_>)) {
    let mark = if reliable { "" } else { "? " };
    line(format_args!("Call Trace:"));
    line(format_args!(" <TASK>"));
    for return_address in frames.take(FRAMES_MAX) {
        let frame = Symbolized {
            address: Address::Return(return_address),
            reliable,
            physical: inlines::are_shown() && reliable,
        };
        show_inlined(frame, line);
        line(format_args!(" {mark}{frame}"));
    }
    line(format_args!(" </TASK>"));
}

/// The first line of a trace: `CPU: 0 PID: 1 Comm: init Not tainted 0.1.0`.
struct TaskLine(Current);

impl fmt::Display for TaskLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Current { cpu, pid, .. } = self.0;
        let (comm, taint, version) = (self.0.comm(), taint::text(), env!("CARGO_PKG_VERSION"));
        write!(f, "CPU: {cpu} PID: {pid} Comm: {comm} {taint} {version}")
    }
}

/// Whether frame pointers lead from a function to its callers, as in a build with
/// `-C force-frame-pointers=yes`.
pub(crate) fn frame_pointers_work() -> bool {
    let Some(image) = image() else {
        return false;
    };
    let in_order = |frames: [u64; 2]| {
        let functions: [fn() -> [u64; 2]; 2] = [inner, outer];
        functions
            .into_iter()
            .zip(frames)
            .all(|(function, address)| {
                let called = image.symbols.lookup(function as usize as u64);
                let found = image.symbols.lookup(address.saturating_sub(1));
                called.is_some() && found == called
            })
    };
    // Without symbols there is nothing to compare with, and nothing to show.
    image.symbols.len() == 0 || in_order(outer())
}

#[inline(never)]
fn outer() -> [u64; 2] {
    keep_frame(inner())
}

#[inline(never)]
fn inner() -> [u64; 2] {
    keep_frame(two_callers())
}

#[inline(never)]
fn two_callers() -> [u64; 2] {
    let mut frames = Frames::here();
    std::array::from_fn(|_| frames.next().unwrap_or(0))
}
