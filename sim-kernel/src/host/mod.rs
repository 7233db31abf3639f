//! What the host sees of this process: its options, its socket and its files, its signals.

pub(crate) mod kaslr;
pub(crate) mod loader;
pub(crate) mod mount;
pub(crate) mod options;
pub(crate) mod power;
pub(crate) mod socket;
