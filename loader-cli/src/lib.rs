//! Builds, loads and inspects lineinfo tables: the library behind the binary `lineinfo`.
//!
//! ```text
//!   vmlinux ─ build: extract, lineinfo_core::writer ─> blob ───┬─ append / strip: boot images
//!                                                              ├─ device: load, unload, status
//!                                                              ├─ verify: against addr2line
//!                                                              └─ source: look-ups, or on a device
//!
//!   log ─ log::Reader ─> frames ─ images: symbols, source ─> locations ─ log::Annotator ─> log
//! ```
//!
//! [`cmd`] has one module per sub-command; each turns its arguments into calls of the other modules
//! and prints the outcome. Results go to stdout, progress and errors to stderr. Whatever is written to
//! a file goes through [`output`], so that no failure loses what was there.

#![deny(unsafe_code)]

pub mod boot_image;
pub mod build;
pub mod cmd;
pub mod compressed;
pub mod device;
pub mod error;
pub mod extract;
pub mod files;
pub mod fleet;
pub mod images;
mod interrupt;
pub mod json;
pub mod kind;
pub mod log;
pub mod message;
pub mod output;
mod picture;
pub mod points;
pub mod progress;
mod raw;
pub mod running;
mod shares;
pub mod signature;
pub mod source;
pub mod symbols;
pub mod verify;

pub use error::Error;

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of an ELF machine as kernel developers know it.
pub(crate) fn machine_name(machine: u16) -> String {
    use object::elf;
    match elf::Machine(machine) {
        elf::EM_X86_64 => "x86_64".to_owned(),
        elf::EM_386 => "i386".to_owned(),
        elf::EM_AARCH64 => "arm64".to_owned(),
        elf::EM_ARM => "arm".to_owned(),
        elf::EM_RISCV => "riscv".to_owned(),
        elf::EM_PPC64 => "ppc64".to_owned(),
        elf::EM_S390 => "s390".to_owned(),
        _ => format!("e_machine {machine}"),
    }
}
