//! `/proc`: files whose text is made when they are read.

use std::fmt::Write;

use nix::errno::Errno;

use super::snapshot::Snapshot;
use super::{FileOperations, Node, Open};
use crate::init;
use crate::kernel::{image, lkdtm, load, module, printk, sysrq};
use crate::machine::atomic;
use crate::machine::frames::keep_frame;
use crate::mm::vmalloc::MemInfo;

/// All files in `/proc`.
pub(crate) const NODES: &[Node] = &[
    text_file("/proc/cmdline", |_, _, _| open_text(cmdline_proc_show)),
    text_file("/proc/kallsyms", |_, _, _| open_text(kallsyms_show)),
    text_file("/proc/meminfo", |_, _, _| open_text(meminfo_proc_show)),
    text_file("/proc/modules", |_, _, _| open_text(module::modules_show)),
    text_file("/proc/uptime", |_, _, _| open_text(uptime_proc_show)),
    text_file("/proc/sys/kernel/atomic_allocations", |_, _, _| {
        open_text(atomic_allocations_show)
    }),
    Node {
        path: "/proc/sys/kernel/load",
        permissions: 0o644,
        driver_decides: false,
        open: |_, _, _| open_both(Some(load_show), load_store),
    },
    Node {
        path: "/proc/sysrq-trigger",
        permissions: 0o200,
        driver_decides: false,
        open: |_, _, _| open_both(None, write_sysrq_trigger),
    },
    Node {
        path: "/sys/kernel/debug/provoke-crash/DIRECT",
        permissions: 0o644,
        driver_decides: false,
        open: |_, _, _| open_both(Some(lkdtm::actions), lkdtm::direct_entry),
    },
];

/// Makes the text of a file.
pub(crate) type Show = fn() -> String;
type Store = fn(&[u8]) -> Result<usize, Errno>;

/// A file that anybody may read.
pub(crate) const fn text_file(path: &'static str, open: Open) -> Node {
    Node {
        path,
        permissions: 0o444,
        driver_decides: false,
        open,
    }
}

/// Opens a file whose text is made by `show`.
#[expect(clippy::unnecessary_wraps, reason = "it is the end of an `open`")]
pub(crate) fn open_text(show: Show) -> Result<Box<dyn FileOperations>, Errno> {
    Ok(Box::new(ProcFile {
        show: Some(show),
        store: None,
        text: Snapshot::default(),
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "it is the end of an `open`")]
fn open_both(show: Option<Show>, store: Store) -> Result<Box<dyn FileOperations>, Errno> {
    Ok(Box::new(ProcFile {
        show,
        store: Some(store),
        text: Snapshot::default(),
    }))
}

/// A file in `/proc`.
struct ProcFile {
    show: Option<Show>,
    store: Option<Store>,
    text: Snapshot,
}

impl FileOperations for ProcFile {
    #[inline(never)]
    fn read(&mut self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        let show = self.show.ok_or(Errno::EINVAL)?;
        keep_frame(Ok(self.text.read(show, buffer, at)))
    }

    #[inline(never)]
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let store = self.store.ok_or(Errno::EINVAL)?;
        keep_frame(store(bytes))
    }
}

fn cmdline_proc_show() -> String {
    format!("{}\n", init::saved_command_line())
}

fn kallsyms_show() -> String {
    let mut text = String::new();
    let symbols = image::identity().map(|image| &image.symbols);
    for symbol in symbols.into_iter().flat_map(|symbols| symbols.iter()) {
        writeln!(text, "{symbol}").expect("a string takes everything");
    }
    module::for_each(|module| {
        for symbol in module.image.symbols.iter() {
            let name = module.name();
            writeln!(text, "{symbol}\t[{name}]").expect("a string takes everything");
        }
    });
    text
}

fn meminfo_proc_show() -> String {
    MemInfo::now().to_string()
}

fn uptime_proc_show() -> String {
    let uptime = printk::uptime().as_secs_f64();
    // The idle time is not counted.
    format!("{uptime:.2} 0.00\n")
}

/// How often somebody allocated in an interrupt, a trace or a panic: never.
fn atomic_allocations_show() -> String {
    format!("{}\n", atomic::violations())
}

fn load_show() -> String {
    format!("{}\n", u8::from(load::is_on()))
}

fn load_store(bytes: &[u8]) -> Result<usize, Errno> {
    match bytes.trim_ascii() {
        b"0" => load::set(false),
        b"1" => load::set(true),
        _ => return Err(Errno::EINVAL),
    }
    Ok(bytes.len())
}

#[inline(never)]
fn write_sysrq_trigger(bytes: &[u8]) -> Result<usize, Errno> {
    if let Some(key) = bytes.first() {
        sysrq::handle_sysrq(*key);
    }
    keep_frame(Ok(bytes.len()))
}
