//! The binary, from outside: booted, spoken to through its socket, looked at from the host.

mod boot;
mod credentials;
mod device;
mod memory;
mod support;
mod traps;
