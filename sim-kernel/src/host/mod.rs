//! The interface of this process to the host: options, socket, mounted files and signals.

pub(crate) mod kaslr;
pub(crate) mod limit;
pub(crate) mod loader;
pub(crate) mod mount;
pub(crate) mod options;
pub(crate) mod power;
pub(crate) mod socket;
