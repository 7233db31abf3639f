//! The figures of the memory: `/proc/meminfo` and `sysrq m`.

use std::fmt;

use super::cpu;
use super::lineinfo::LINEINFO;
use super::sysrq::{self, Key};
use crate::fs::proc::{open_text, text_file};
use crate::fs::{Node, namei};
use crate::mm::vmalloc;
use crate::printk;

const FILES: &[Node] = &[text_file("/proc/meminfo", |_, _, _| {
    open_text(meminfo_proc_show)
})];

static SHOW_MEMORY: Key = Key {
    key: b'm',
    help: "show-memory-usage(m)",
    action: "Show Memory",
    handler: sysrq_handle_showmem,
};

/// Registers the file and the key.
pub(crate) fn init() {
    namei::register(FILES);
    sysrq::register_key(&SHOW_MEMORY);
}

/// The figures, in bytes, from the allocator's counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemInfo {
    total: usize,
    used: usize,
    lineinfo: u64,
}

impl MemInfo {
    /// The figures as of now; takes the allocator's lock.
    pub(crate) fn now() -> Self {
        let (total, used) = vmalloc::total_and_used_bytes();
        Self {
            total,
            used,
            lineinfo: LINEINFO.memory_bytes(),
        }
    }
}

/// `VmallocUsed` counts every page in use, those of a load in progress included; `Lineinfo` counts
/// the tables.
impl fmt::Display for MemInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, bytes: u64| writeln!(f, "{name:<16}{:>8} kB", bytes / 1024);
        line("MemTotal:", self.total as u64)?;
        line("MemFree:", (self.total - self.used) as u64)?;
        line("VmallocUsed:", self.used as u64)?;
        line("Lineinfo:", self.lineinfo)
    }
}

fn meminfo_proc_show() -> String {
    MemInfo::now().to_string()
}

#[inline(never)]
fn sysrq_handle_showmem() {
    let text = MemInfo::now().to_string();
    for line in text.lines() {
        printk!(Info, "{line}");
    }
    printk!(Info, "{} CPUs online", cpu::online());
}
