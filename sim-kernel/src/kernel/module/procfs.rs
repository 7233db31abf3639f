//! `/proc/modules` and `/proc/kallsyms`.

use std::fmt::Write;

use super::for_each;
use crate::fs::proc::{open_text, text_file};
use crate::fs::{Node, namei};
use crate::kernel::image;

const FILES: &[Node] = &[
    text_file("/proc/kallsyms", |_, _, _| open_text(kallsyms_show)),
    text_file("/proc/modules", |_, _, _| open_text(modules_show)),
];

/// Registers the files.
pub(crate) fn init() {
    namei::register(FILES);
}

fn modules_show() -> String {
    let mut text = String::new();
    for_each(|module| writeln!(text, "{module}").expect("a string takes everything"));
    text
}

/// The symbols of the kernel that tables are about, and those of the modules.
fn kallsyms_show() -> String {
    let mut text = String::new();
    let symbols = image::of_tables().map(|image| &image.symbols);
    for symbol in symbols.into_iter().flat_map(|symbols| symbols.iter()) {
        writeln!(text, "{symbol}").expect("a string takes everything");
    }
    for_each(|module| {
        for symbol in module.image.symbols.iter() {
            let name = module.name();
            writeln!(text, "{symbol}\t[{name}]").expect("a string takes everything");
        }
    });
    text
}
