//! `/sys/module`: a directory for each loaded module.

use nix::errno::Errno;

use super::proc::text_file;
use super::snapshot::Snapshot;
use super::{FileOperations, Node};
use crate::kernel::lineinfo::LINEINFO;
use crate::kernel::module::{self, Module};
use crate::machine::frames::keep_frame;

/// Where they are.
pub(super) const DIRECTORY: &str = "/sys/module";

/// The files of each module.
static NODES: &[Node] = &[
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

/// Finds the file of a module.
pub(super) fn lookup(path: &str) -> Option<&'static Node> {
    let name = name_of(path)?;
    module::named(name, |_| ())?;
    let file = path.strip_prefix(DIRECTORY)?.strip_prefix('/')?;
    let (_, file) = file.split_once('/')?;
    let is = |node: &&Node| node.path.strip_prefix("/sys/module/*/") == Some(file);
    NODES.iter().find(is)
}

/// All files of all modules that are loaded, by their paths.
pub(super) fn files() -> impl Iterator<Item = (String, &'static Node)> {
    let mut names = Vec::new();
    module::for_each(|module| names.push(module.name().to_owned()));
    names.into_iter().flat_map(|name| {
        NODES
            .iter()
            .map(move |node| (node.path.replace('*', &name), node))
    })
}

/// The module that a path is about.
fn name_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(DIRECTORY)?.strip_prefix('/')?;
    rest.split('/').next()
}

fn open_of_module(
    path: &str,
    show: fn(&Module) -> String,
) -> Result<Box<dyn FileOperations>, Errno> {
    let name = name_of(path).ok_or(Errno::ENOENT)?.to_owned();
    let text = Snapshot::default();
    Ok(Box::new(ModuleFile { name, show, text }))
}

/// A file about a module, which may be gone when it is read.
struct ModuleFile {
    name: String,
    show: fn(&Module) -> String,
    text: Snapshot,
}

impl FileOperations for ModuleFile {
    #[inline(never)]
    fn read(&mut self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        let text = || module::named(&self.name, self.show).unwrap_or_default();
        keep_frame(Ok(self.text.read(text, buffer, at)))
    }
}

fn coresize_show(module: &Module) -> String {
    format!("{}\n", module.image.text.end - module.image.text.start)
}

/// What the device says of its table.
fn lineinfo_show(module: &Module) -> String {
    LINEINFO
        .status_of(&module.table, &module.expected)
        .to_string()
}
