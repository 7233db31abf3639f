//! The binary from outside: its console, its socket, and its memory as the host counts it.

mod boot;
mod credentials;
mod device;
mod kdb;
mod memory;
mod pstore;
mod signatures;
mod support;
mod traps;
