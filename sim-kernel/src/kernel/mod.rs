//! The core of the kernel: log, symbols, CPUs and their load, traces, traps, sysrq, panic and the end.

pub(crate) mod cpu;
pub(crate) mod image;
pub(crate) mod kallsyms;
pub(crate) mod kdb;
pub(crate) mod kmsg;
pub(crate) mod lineinfo;
pub(crate) mod lkdtm;
pub(crate) mod load;
pub(crate) mod module;
pub(crate) mod nmi;
pub(crate) mod panic;
pub(crate) mod printk;
pub(crate) mod pstore;
pub(crate) mod reboot;
pub(crate) mod stacktrace;
pub(crate) mod sysrq;
pub(crate) mod task;
pub(crate) mod timer;
pub(crate) mod traps;
pub(crate) mod watchdog;
