//! The one arena that tables live in, and its figures.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::OnceLock;

use nix::errno::Errno;

use super::page_alloc::PAGE_SIZE;
use crate::kernel::lineinfo::LINEINFO;
use crate::machine::memory::{Arena, Pages};

static ARENA: OnceLock<Arena> = OnceLock::new();

/// Sets up the memory of the machine; the first call counts.
pub(crate) fn init(arena: Arena) -> &'static Arena {
    ARENA.get_or_init(|| arena)
}

/// Reserves an arena of `size_bytes` bytes, in whole pages.
pub(crate) fn reserve(size_bytes: u64) -> Result<Arena, Errno> {
    let pages = usize::try_from(size_bytes).map_err(|_| Errno::ENOMEM)? / PAGE_SIZE;
    Arena::reserve(NonZeroUsize::new(pages).ok_or(Errno::EINVAL)?)
}

/// Pages for at least `size_bytes` bytes.
///
/// # Errors
///
/// `ENOMEM`; before [`init`] there is no memory at all.
pub(crate) fn vmalloc(size_bytes: usize) -> Result<Pages, Errno> {
    ARENA.get().ok_or(Errno::ENOMEM)?.allocate(size_bytes)
}

/// The figures of `/proc/meminfo`, in bytes, from the books of the allocator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemInfo {
    total: usize,
    used: usize,
    lineinfo: u64,
}

impl MemInfo {
    /// As of now; takes the lock of the books.
    pub(crate) fn now() -> Self {
        let arena = ARENA.get();
        Self {
            total: arena.map_or(0, Arena::total_pages) * PAGE_SIZE,
            used: arena.map_or(0, Arena::used_pages) * PAGE_SIZE,
            lineinfo: LINEINFO.memory_bytes(),
        }
    }
}

/// `VmallocUsed` is every page in use, a load in progress included; `Lineinfo` the table in the
/// slot.
impl fmt::Display for MemInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, bytes: u64| writeln!(f, "{name:<16}{:>8} kB", bytes / 1024);
        line("MemTotal:", self.total as u64)?;
        line("MemFree:", (self.total - self.used) as u64)?;
        line("VmallocUsed:", self.used as u64)?;
        line("Lineinfo:", self.lineinfo)
    }
}
