//! The binary, from outside: booted, spoken to through its socket, looked at from the host.

mod boot;
mod credentials;
mod device;
mod kdb;
mod memory;
mod pstore;
mod support;
mod traps;
