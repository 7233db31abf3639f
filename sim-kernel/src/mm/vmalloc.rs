//! The one arena that tables are allocated from.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use nix::errno::Errno;

use crate::machine::memory::{Arena, Pages};
use crate::machine::page_alloc::PAGE_SIZE;

static ARENA: OnceLock<Arena> = OnceLock::new();

/// Sets the memory of the machine; the first call counts.
pub(crate) fn init(arena: Arena) -> &'static Arena {
    ARENA.get_or_init(|| arena)
}

/// Reserves an arena of `size_bytes` bytes, in whole pages.
pub(crate) fn reserve(size_bytes: u64) -> Result<Arena, Errno> {
    let pages = usize::try_from(size_bytes).map_err(|_| Errno::ENOMEM)? / PAGE_SIZE;
    Arena::reserve(NonZeroUsize::new(pages).ok_or(Errno::EINVAL)?)
}

/// Allocates pages for at least `size_bytes` bytes.
///
/// # Errors
///
/// `ENOMEM`; before [`init`] there is no memory at all.
pub(crate) fn vmalloc(size_bytes: usize) -> Result<Pages, Errno> {
    ARENA.get().ok_or(Errno::ENOMEM)?.allocate(size_bytes)
}

/// The memory of the machine and how much of it is in use, in bytes; takes the allocator's lock.
pub(crate) fn total_and_used_bytes() -> (usize, usize) {
    ARENA.get().map_or((0, 0), |arena| {
        (
            arena.total_pages() * PAGE_SIZE,
            arena.used_pages() * PAGE_SIZE,
        )
    })
}
