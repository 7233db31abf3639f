//! What the host sees of this process: its options, its socket, its signals.

pub(crate) mod door;
pub(crate) mod kaslr;
pub(crate) mod options;
pub(crate) mod power;
