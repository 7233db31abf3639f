//! Memory: the books of the pages, and the figures that `/proc/meminfo` shows.

pub(crate) mod page_alloc;
pub(crate) mod vmalloc;
