//! Builds, loads and inspects lineinfo tables: the library behind the binary `lineinfo`.
//!
//! ```text
//!   vmlinux ─ extract ─> rows ─ lineinfo_core::writer ─> blob ─┬─ append / strip: boot images
//!                                                              ├─ device: load, unload, status
//!                                                              ├─ verify: against addr2line
//!                                                              └─ source: look-ups, or on a device
//! ```
//!
//! [`cmd`] has one module per sub-command; each turns its arguments into calls of the other modules
//! and prints the outcome. Results go to stdout, progress and errors to stderr.

#![deny(unsafe_code)]

pub mod boot_image;
pub mod cmd;
pub mod device;
pub mod error;
pub mod extract;
pub mod files;
pub mod source;
pub mod verify;

pub use error::Error;

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
