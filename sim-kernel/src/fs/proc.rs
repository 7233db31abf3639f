//! Files whose text a function makes when they are read, as those in `/proc` and `/sys` are.

use nix::errno::Errno;

use super::snapshot::Snapshot;
use super::{FileOperations, Node, Open};
use crate::machine::frames::keep_frame;

/// Makes the text of a file.
pub(crate) type Show = fn() -> String;
/// Takes what is written to a file; returns the number of bytes taken.
pub(crate) type Store = fn(&[u8]) -> Result<usize, Errno>;

/// A file that every user may read.
pub(crate) const fn text_file(path: &'static str, open: Open) -> Node {
    Node {
        path,
        permissions: 0o444,
        driver_decides: false,
        open,
    }
}

/// Opens a file that can only be read.
pub(crate) fn open_text(show: Show) -> Result<Box<dyn FileOperations>, Errno> {
    open(Some(show), None)
}

/// Opens a file that can be written, and read if there is a `show`.
pub(crate) fn open_store(
    show: Option<Show>,
    store: Store,
) -> Result<Box<dyn FileOperations>, Errno> {
    open(show, Some(store))
}

#[expect(clippy::unnecessary_wraps, reason = "it is the end of an `open`")]
fn open(show: Option<Show>, store: Option<Store>) -> Result<Box<dyn FileOperations>, Errno> {
    Ok(Box::new(ProcFile {
        show,
        store,
        text: Snapshot::default(),
    }))
}

/// An open file.
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
