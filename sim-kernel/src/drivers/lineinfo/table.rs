use std::fmt;
use std::ops::Range;

use lineinfo_core::uapi::Status;
use lineinfo_core::{Address, Layout, Location, Table};

use super::Identity;
use super::file::no_memory;
use super::refusal::{BuildId, Refusal};
use crate::machine::memory::SealedPages;
use crate::mm::vmalloc::vmalloc;

/// A table: checked, in read-only pages of its own, and not changed any more.
#[derive(Debug)]
pub(crate) struct LoadedTable {
    pages: SealedPages,
    /// Where the blob stands in the pages, in bytes.
    blob: Range<usize>,
    layout: Layout,
    /// Run-time address of `_text`.
    text_start: u64,
}

impl LoadedTable {
    /// Checks that there is a blob in the pages, and that it was made from this image.
    pub(crate) fn check(
        pages: SealedPages,
        blob: Range<usize>,
        image: &Identity,
    ) -> Result<Self, Refusal> {
        let bytes = pages.bytes().get(blob.clone()).unwrap_or(&[]);
        let layout = *Table::parse(bytes)?.layout();
        if layout.machine() != image.machine {
            return Err(Refusal::Machine {
                found: layout.machine(),
                kernel: image.machine,
            });
        }
        // An image without a build-id cannot tell its own table from another's.
        if image.build_id.is_empty() || layout.build_id() != image.build_id {
            return Err(Refusal::OtherKernel {
                found: BuildId::new(layout.build_id()),
                kernel: BuildId::new(&image.build_id),
            });
        }
        Ok(Self {
            pages,
            blob,
            layout,
            text_start: layout.text_start().wrapping_add(image.slide),
        })
    }

    /// The same without what it says of init text, in pages of its own; `None` if it says nothing of
    /// that.
    pub(super) fn without_init(&self, image: &Identity) -> Result<Option<Self>, Refusal> {
        let bytes = self.pages.bytes().get(self.blob.clone()).unwrap_or(&[]);
        let table = Table::from_layout(bytes, self.layout);
        let size = table.size_without_init();
        if size == bytes.len() {
            return Ok(None);
        }
        let mut pages = vmalloc(size).map_err(|errno| no_memory(size, errno))?;
        table.copy_without_init(pages.bytes_mut());
        let pages = pages.seal().map_err(|errno| no_memory(size, errno))?;
        Self::check(pages, 0..size, image).map(Some)
    }

    /// The location of a run-time address; for any context.
    pub(crate) fn lookup(&self, address: Address<u64>) -> Option<Location<'_>> {
        let bytes = self.pages.bytes().get(self.blob.clone())?;
        let table = Table::from_layout(bytes, self.layout);
        table.lookup(address.relative_to(self.text_start)?)
    }

    /// The facts of the blob.
    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Memory taken, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.pages.bytes().len() as u64
    }

    /// Fills in the numbers of a status.
    pub(crate) fn describe(&self, status: &mut Status) {
        status.rows = self.layout.rows();
        status.files = self.layout.files();
        status.bytes = self.layout.size().into();
        status.memory = self.memory_bytes();
        status.encoding = self.layout.encoding().number();
        status.profile = self.layout.profile().number();
    }
}

impl fmt::Display for LoadedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} entries, {} files, {} bytes in {} kB, {}, {}",
            self.layout.rows(),
            self.layout.files(),
            self.layout.size(),
            self.memory_bytes() / 1024,
            self.layout.encoding(),
            self.layout.profile(),
        )
    }
}
