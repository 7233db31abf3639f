//! file:line tables for kernel stack traces: the part that runs inside a kernel.
//!
//! A kernel prints `vfs_write+0xf8/0x450`; its reader wants `fs/read_write.c:681`. The table that
//! answers is a *blob* outside the kernel, and the kernel has an empty [`slot::Slot`] for it, filled
//! at boot or later, and emptied again to get the memory back.
//!
//! ```text
//!  vmlinux ──(lineinfo build)──> rows ──writer::encode──> blob
//!                                                          │
//!            boot image ── footer::Ending::find ───────────┤
//!            device file ── uapi ──────────────────────────┤
//!                                                          v
//!            device::Device: who may, size, memory; then what the image must be
//!                                                          │
//!                 Table::parse: checksum, bounds, directories, names
//!                                                          │
//!                                                  Slot::swap (a writer)
//!                                                          v
//!  stack dump, panic, NMI ── Slot::read ── Table::lookup ── Location
//!                                             " (fs/read_write.c:681)"
//! ```
//!
//! The life of one request: an NMI handler makes an [`Address`] of a frame's return address, relative
//! to the run-time address of `_text` ([`Address::relative_to`]), enters the slot ([`slot::Slot::read`]: two atomic
//! read-modify-writes and one load), asks [`Table::lookup`], writes the
//! [`Location`] into a buffer on its stack ([`Location::write`]) and leaves the slot. Nothing on
//! that way allocates, takes a lock, loops on another CPU, or can panic.
//!
//! # The blob, byte by byte
//!
//! All integers are little-endian and unaligned. [`blob::Header`] (60 bytes) is followed by
//! `sections` directory entries ([`blob::SectionEntry`], 5 bytes each) and then by the sections
//! themselves, in the order of the directory and without holes. A section without bytes is left out.
//! Readers skip sections whose kind they do not know.
//!
//! | section | contents |
//! |---|---|
//! | 1 regions | one record for each text section, by ascending start, as below |
//! | 2 region names | the unusual names among those of the regions, in their order, each with a zero after it |
//! | 3 files | the names of the files, as below |
//! | 4 rows | the tables of the regions in their order, in the header's encoding, without anything between them |
//! | 5 model | what these tables share; in the packed encoding only |
//! | 6 functions | the functions that are inlined somewhere; this and the following ones are optional: [`chain`] |
//! | 7 function names | their names |
//! | 8 chains | the chains of inlined functions of the regions in their order |
//! | 16 signature | [`blob::BlobSignature`], the last section; in a signed blob only |
//! | 32 symbols | the symbols of the image, for readers of logs; a kernel skips them |
//!
//! The layout of the symbols is specified in the loader, which alone reads and writes them.
//! `writer::with_symbols` puts them into a blob, and takes them out for a kernel.
//!
//! The encodings are specified where they are implemented: [`encoding::flat`], [`encoding::delta`],
//! [`encoding::packed`].
//!
//! ## Regions
//!
//! The section begins with [`blob::RegionWidths`] (3 bytes): how many bytes each field of a record has.
//! All records have these fields:
//!
//! | bytes | contents |
//! |---|---|
//! | 1 to 8 | start of the region, in bytes from `_text` |
//! | 1 to 4 | its length in bytes |
//! | 1 to 4 | number of its rows |
//! | 1 to 4 | where its table ends in the rows section; it begins where that of the region before ends |
//! | 1 to 4 | bit 0: init text, freed after boot and its table with it; the other bits: the name |
//!
//! A name below 64 is one of these, from 0 on: `.text`, `.init.text`, `.exit.text`, `.noinstr.text`,
//! `.text.unlikely`, `.altinstr_replacement`, `.head.text`, `.ref.text`, `.static_call.text`,
//! `.rodata.text`, `.text.startup`, `.text.exit`, `.text.hot`, `.fixup`, `.sched.text`, `.kprobes.text`.
//! Another is 64 more than where it begins in the section of region names.
//!
//! ## Names of files
//!
//! Neighbouring names share directories, so a name is the length of the prefix that it shares with
//! the name before, and the rest. In the string that results, frequent pairs of symbols are replaced
//! by symbols of their own, and so on with pairs of those: `.c` and the end of a name together take
//! one byte.
//!
//! | bytes | contents |
//! |---|---|
//! | 1 | number of terminals, `t`; 0 if the grammar is the one in the file `built-in.grammar` beside this source, which begins in the same way |
//! | 1 | number of rules, `r`; `t + r` is at most 256 |
//! | t | the byte that each symbol below `t` stands for |
//! | 2 r | the two symbols, `u8` each, that each symbol from `t` on stands for; both are smaller than it, and none is nested 16 deep |
//! | 2 or 4 per 16 names but the first | where the group begins, in bytes from the start of the symbols: `u16` if the section has less than 64 KiB, otherwise `u32` |
//! | | the symbols, `u8` each, all below `t + r` |
//!
//! With the built-in grammar the number of rules, the terminals and the rules are not there.
//!
//! A group of 16 names (the last may have fewer) is, expanded: for every name a byte of 45 plus the
//! length of its prefix (at most 80 bytes, between two characters; 0 for the first of a group), the
//! rest of the name, and a zero. No symbol reaches from one group into the next.
//!
//! # Limits
//!
//! A kernel looks up in any context, so the work is bounded by the format and [`Table::parse`] checks
//! every bound. It takes at most [`Table::PARSE_STEPS_PER_BYTE`] steps for each byte of the blob, and
//! a look-up with its name at most [`Table::LOOKUP_STEPS`], where a step is one turn of a loop.
//!
//! | what | limit |
//! |---|---|
//! | the name of a file or a region | 1 to 512 bytes of UTF-8, without control characters (C0, DEL, C1), the line separators U+2028 and U+2029, and the controls of bidirectional text (U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069) |
//! | all names of files, expanded | 64 times the size of their section, and 8 MiB |
//! | rows of a table in the delta encoding | at least 3 bytes each, 2 for the first of a block |
//! | rows of a table in the packed encoding | at least 2 bits each, in blocks of at most 160 entries |
//! | blocks that start in one page, in the packed encoding | 256 |
//! | hot pairs and their successors, in the packed encoding | at least 1 bit each |
//!
//! `parse` does not decode rows. If the rows of a blob are nonsense although its checksum is right, a
//! look-up misses or gives a wrong line, and nothing worse. Whoever makes or transfers tables checks
//! the rows with [`Table::check_rows`].
//!
//! [`your_kernel`] is how another kernel uses all this, in ten steps.
//!
//! # Features
//!
//! `alloc` brings what a kernel with an allocator wants. `write` brings the writer, and is the only
//! part that uses floating point. `steps` counts steps and makes hostile blobs, for tests.
//!
//! A worked example: one region of 16 bytes of text at `_text`, one file, and three rows
//! (`a.c:7` from 0, `a.c:9` from 4, a gap from 12).
//!
#![cfg_attr(not(feature = "write"), doc = "```ignore")]
#![cfg_attr(feature = "write", doc = "```")]
//! use lineinfo_core::{Address, Offset, Row, Table, blob::{Encoding, Profile}, writer::{Image, Region, encode}};
//!
//! let rows = [
//!     Row { start: 0, file: 0, line: 7 },
//!     Row { start: 4, file: 0, line: 9 },
//!     Row { start: 12, file: 0, line: 0 },
//! ];
//! let blob = encode(&Image {
//!     machine: 62,
//!     build_id: &[0xab; 20],
//!     text_start: 0xffff_ffff_8100_0000,
//!     profile: Profile::Full,
//!     files: &["a.c"],
//!     exact_files: 1,
//!     regions: &[Region { name: ".text", start: 0, len: 16, init: false, rows: &rows }],
//! }, Encoding::Flat)?;
//!
//! assert_eq!(&blob[0..8], b"\x89LNINFO\n"); // magic
//! assert_eq!(&blob[8..12], [1, 0, 1, 1]); // format version 1, flat, full
//! assert_eq!(blob[23], 3); // sections
//! let directory = 60;
//! assert_eq!(&blob[directory..directory + 5], [1, 8, 0, 0, 0]); // regions, 8 bytes
//! let regions = directory + 3 * 5;
//! assert_eq!(&blob[regions..regions + 3], [0x11, 0x11, 1]); // every field has one byte
//! assert_eq!(&blob[regions + 3..regions + 8], [0, 16, 3, 30, 0]); // from 0, 16 bytes, 3 rows, .text
//! let files = regions + 8;
//! assert_eq!(blob[files], 0); // the built-in grammar
//! assert_eq!(&blob[files + 1..files + 4], [1, 53, 84]); // prefix of 0 bytes, "a", ".c" and the end
//! let table = files + 4;
//! assert_eq!(&blob[table..table + 12], [0, 0, 0, 0, 4, 0, 0, 0, 12, 0, 0, 0]); // starts
//! assert_eq!(&blob[table + 12..table + 24], [7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]); // lines
//! assert_eq!(&blob[table + 24..], [0, 0, 0, 0, 0, 0]); // files, u16 each
//!
//! let table = Table::parse(&blob)?;
//! let mut buffer = [0; 64];
//! let location = table.lookup(Address::Exact(Offset(5))).ok_or("a miss")?;
//! assert_eq!(location.write(&mut buffer), " (a.c:9)");
//! assert!(table.lookup(Address::Exact(Offset(12))).is_none()); // a gap
//! assert!(table.lookup(Address::Exact(Offset(16))).is_none()); // beyond the text
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![deny(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::as_conversions,
        clippy::allow_attributes,
        reason = "a test may panic"
    )
)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, feature = "steps"))]
extern crate std;

mod address;
mod areas;
pub mod blob;
pub mod buffer;
#[cfg(feature = "write")]
pub mod calls;
pub mod chain;
pub mod device;
pub mod encoding;
mod error;
mod files;
pub mod footer;
mod location;
mod name;
mod regions;
mod signature;
pub mod slot;
#[cfg(not(any(test, feature = "steps")))]
mod steps;
#[cfg(any(test, feature = "steps"))]
pub mod steps;
mod table;
pub mod uapi;
mod without_init;
#[cfg(feature = "write")]
pub mod writer;
#[doc = include_str!("your_kernel.md")]
pub mod your_kernel {}

pub use address::{Address, Offset};
pub use areas::ModuleAreas;
pub use chain::{Chain, Frame, FunctionName};
pub use encoding::Row;
pub use error::Error;
pub use files::FileName;
pub use location::Location;
pub use name::{NAME_MAX, is_printable};
pub use signature::{KeyId, Signed};
pub use table::{Layout, RegionView, Table};

/// A `u32` as an index: every target of this crate has at least 32-bit addresses.
#[expect(
    clippy::as_conversions,
    reason = "usize is at least as wide as u32, checked at compile time"
)]
const fn index(value: u32) -> usize {
    const { assert!(usize::BITS >= u32::BITS) };
    value as usize
}

/// A length or position as `u64`, for error reports: `usize` is never wider.
#[expect(
    clippy::as_conversions,
    reason = "usize is at most as wide as u64, checked at compile time"
)]
const fn wide(value: usize) -> u64 {
    const { assert!(usize::BITS <= u64::BITS) };
    value as u64
}
