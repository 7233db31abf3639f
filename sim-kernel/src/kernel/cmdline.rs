//! The command line as the boot loader passed it, and `/proc/cmdline`.

use std::sync::OnceLock;

use crate::fs::proc::{open_text, text_file};
use crate::fs::{Node, namei};

static SAVED: OnceLock<String> = OnceLock::new();

const FILES: &[Node] = &[text_file("/proc/cmdline", |_, _, _| {
    open_text(cmdline_proc_show)
})];

/// Keeps the command line; the first call counts.
pub(crate) fn init(text: &str) {
    SAVED.get_or_init(|| text.to_owned());
    namei::register(FILES);
}

/// The command line; for any context.
pub(crate) fn saved() -> &'static str {
    SAVED.get().map_or("", String::as_str)
}

fn cmdline_proc_show() -> String {
    format!("{}\n", saved())
}
