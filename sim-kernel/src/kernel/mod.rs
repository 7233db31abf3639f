//! The core of the kernel.
//!
//! ```text
//!   kdb   watchdog   lkdtm   traps   meminfo      each registers what it owns: files, sysrq keys,
//!     └──────┴─────────┴───────┤                  kdb commands, NMI and panic handlers, work
//!                            panic
//!                              │
//!               pstore        nmi
//!                 │            │
//!                 │        stacktrace
//!                 │            │
//!                 │          module
//!                 │            │
//!                 │    smp, timer, cpu   image, kallsyms
//!                 └────────────┤
//!      sysrq, kdb/command, printk, kmsg, reboot, task, taint, cmdline, kptr, lockdown
//! ```
//!
//! A part knows only parts below it. What a lower part calls in a higher one was registered with
//! the lower one, and `init` lists who registers.

pub(crate) mod cmdline;
pub(crate) mod cpu;
pub(crate) mod fault;
pub(crate) mod image;
pub(crate) mod kallsyms;
pub(crate) mod kdb;
pub(crate) mod kmsg;
pub(crate) mod kptr;
pub(crate) mod lineinfo;
pub(crate) mod lkdtm;
pub(crate) mod lockdown;
pub(crate) mod meminfo;
pub(crate) mod module;
pub(crate) mod nmi;
pub(crate) mod panic;
pub(crate) mod printk;
pub(crate) mod pstore;
pub(crate) mod reboot;
pub(crate) mod smp;
pub(crate) mod stacktrace;
pub(crate) mod sysrq;
pub(crate) mod taint;
pub(crate) mod task;
pub(crate) mod timer;
pub(crate) mod traps;
pub(crate) mod watchdog;
