//! `/proc/modules` and `/proc/kallsyms`.

use std::fmt::Write;

use super::for_each;
use crate::fs::proc::{open_text, text_file};
use crate::fs::{Node, namei};
use crate::kernel::kallsyms::Symbol;
use crate::kernel::{image, kptr};

const FILES: &[Node] = &[
    text_file("/proc/kallsyms", |_, credentials, _| {
        open_text(match kptr::may_see_addresses(credentials) {
            true => || kallsyms_show(true),
            false => || kallsyms_show(false),
        })
    }),
    text_file("/proc/modules", |_, credentials, _| {
        open_text(match kptr::may_see_addresses(credentials) {
            true => || modules_show(true),
            false => || modules_show(false),
        })
    }),
];

/// Registers the files.
pub(crate) fn init() {
    namei::register(FILES);
}

fn modules_show(see_addresses: bool) -> String {
    let mut text = String::new();
    for_each(|module| {
        let line = module.line(see_addresses);
        writeln!(text, "{line}").expect("a string takes everything");
    });
    text
}

/// The symbols of the kernel that tables are about, and those of the modules; zeros for addresses
/// that are not to be seen.
fn kallsyms_show(see_addresses: bool) -> String {
    let mut text = String::new();

    let symbols = image::of_tables().map(|image| &image.symbols);
    for symbol in symbols.into_iter().flat_map(|symbols| symbols.iter()) {
        let symbol = shown(symbol, see_addresses);
        writeln!(text, "{symbol}").expect("a string takes everything");
    }
    for_each(|module| {
        for symbol in module.image.symbols.iter() {
            let name = module.name();
            let symbol = shown(symbol, see_addresses);
            writeln!(text, "{symbol}\t[{name}]").expect("a string takes everything");
        }
    });
    text
}

/// A symbol with its address, or with zeros for it.
const fn shown(symbol: Symbol<'_>, see_addresses: bool) -> Symbol<'_> {
    let start = if see_addresses { symbol.start } else { 0 };
    Symbol { start, ..symbol }
}
