//! `/sys/module`: a directory for each loaded module.

use nix::errno::Errno;

use super::{Module, for_each, named};
use crate::fs::namei::{self, Directory};
use crate::fs::proc::text_file;
use crate::fs::snapshot::Snapshot;
use crate::fs::{FileOperations, Node};
use crate::kernel::lineinfo::LINEINFO;
use crate::machine::frames::keep_frame;

static DIRECTORY: Directory = Directory {
    path: "/sys/module",
    names,
    files: FILES,
};

const FILES: &[Node] = &[
    text_file("/sys/module/*/coresize", |path, _, _| {
        open_of_module(path, coresize_show)
    }),
    text_file("/sys/module/*/initstate", |path, _, _| {
        open_of_module(path, |_| "live\n".to_owned())
    }),
    text_file("/sys/module/*/lineinfo", |path, _, _| {
        open_of_module(path, lineinfo_show)
    }),
];

/// Registers the directory.
pub(crate) fn init() {
    namei::register_directory(&DIRECTORY);
}

fn names() -> Vec<String> {
    let mut names = Vec::new();
    for_each(|module| names.push(module.name().to_owned()));
    names
}

fn open_of_module(
    path: &str,
    show: fn(&Module) -> String,
) -> Result<Box<dyn FileOperations>, Errno> {
    let name = DIRECTORY.name_in(path).ok_or(Errno::ENOENT)?.to_owned();
    let text = Snapshot::default();
    Ok(Box::new(ModuleFile { name, show, text }))
}

/// A file of a module, which may be unloaded when it is read.
struct ModuleFile {
    name: String,
    show: fn(&Module) -> String,
    text: Snapshot,
}

impl FileOperations for ModuleFile {
    #[inline(never)]
    fn read(&mut self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        let text = || named(&self.name, self.show).unwrap_or_default();
        keep_frame(Ok(self.text.read(text, buffer, at)))
    }
}

fn coresize_show(module: &Module) -> String {
    format!("{}\n", module.image.text.end - module.image.text.start)
}

/// The status of its table, as the device prints it.
fn lineinfo_show(module: &Module) -> String {
    LINEINFO
        .status_of(&module.table, &module.expected)
        .to_string()
}
