//! Memory: the arena that tables are allocated from.

pub(crate) mod vmalloc;
