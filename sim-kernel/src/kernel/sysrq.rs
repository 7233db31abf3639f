//! The magic keys, as written to `/proc/sysrq-trigger`.

use super::cpu;
use super::kdb;
use super::module;
use super::nmi::trigger_all_cpu_backtrace;
use super::panic::panic;
use super::printk::{self, Level};
use crate::machine::frames::keep_frame;
use crate::mm::vmalloc::MemInfo;
use crate::printk;

struct Operation {
    key: u8,
    help: &'static str,
    action: &'static str,
    handler: fn(),
}

/// All keys that do something.
static OPERATIONS: &[Operation] = &[
    Operation {
        key: b'c',
        help: "crash(c)",
        action: "Trigger a crash",
        handler: sysrq_handle_crash,
    },
    Operation {
        key: b'g',
        help: "debug(g)",
        action: "DEBUG",
        handler: sysrq_handle_dbg,
    },
    Operation {
        key: b'l',
        help: "show-backtrace-all-active-cpus(l)",
        action: "Show backtrace of all active CPUs",
        handler: sysrq_handle_show_cpus,
    },
    Operation {
        key: b'm',
        help: "show-memory-usage(m)",
        action: "Show Memory",
        handler: sysrq_handle_showmem,
    },
    Operation {
        key: b't',
        help: "show-task-states(t)",
        action: "Show State",
        handler: sysrq_handle_show_cpus,
    },
    Operation {
        key: b'w',
        help: "show-blocked-tasks(w)",
        action: "Show Blocked State",
        handler: sysrq_handle_show_cpus,
    },
    Operation {
        key: b'x',
        help: "trace-modules(x)",
        action: "Show where modules are",
        handler: sysrq_handle_modules,
    },
];

/// Does what the key asks for; an unknown one shows the keys there are.
#[inline(never)]
pub(crate) fn handle_sysrq(key: u8) {
    match OPERATIONS.iter().find(|operation| operation.key == key) {
        Some(operation) => {
            let action = operation.action;
            printk::emit_always(format_args!("sysrq: {action}"));
            (operation.handler)();
        }
        None => printk::emit_always(format_args!("sysrq: HELP : {}", Help)),
    }
    keep_frame(());
}

struct Help;

impl std::fmt::Display for Help {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, operation) in OPERATIONS.iter().enumerate() {
            let space = if position == 0 { "" } else { " " };
            write!(f, "{space}{}", operation.help)?;
        }
        Ok(())
    }
}

#[inline(never)]
fn sysrq_handle_crash() {
    panic(format_args!("sysrq triggered crash"))
}

#[inline(never)]
fn sysrq_handle_dbg() {
    kdb::on_keyboard_entry();
    keep_frame(());
}

/// Every task runs on a CPU or is the idle task of one, so their traces are all there is.
#[inline(never)]
fn sysrq_handle_show_cpus() {
    trigger_all_cpu_backtrace(Level::Info);
    keep_frame(());
}

#[inline(never)]
fn sysrq_handle_showmem() {
    let text = MemInfo::now().to_string();
    for line in text.lines() {
        printk!(Info, "{line}");
    }
    printk!(Info, "{} CPUs online", cpu::online());
}

#[inline(never)]
fn sysrq_handle_modules() {
    module::run_work(true);
    keep_frame(());
}
