//! What a file is, by its first bytes, and what to give where another kind is expected.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bstr::ByteSlice;
use lineinfo_core::blob;

use crate::error::Error;
use crate::symbols::list_line;

/// How many bytes of a file say what it is.
pub const HEAD_BYTES: usize = 4096;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ELF file.
    Elf,
    /// A table.
    Table,
    /// A compressed kernel of x86.
    BzImage,
    /// An executable of EFI, as kernels are; a bzImage with an EFI stub is a [`Kind::BzImage`].
    Pe,
    /// Something else that a boot loader starts.
    BootImage(&'static str),
    /// Several files in one.
    Archive(&'static str),
    /// A compressed file.
    Compressed(&'static str),
    /// What a tool recorded, and the command that prints it.
    Recording(&'static str, &'static str),
    /// Text in UTF-16.
    Utf16,
    /// A list of symbols like `/proc/kallsyms`.
    SymbolList,
    /// Text.
    Text,
    /// Something else.
    Other,
}

/// Bytes at an offset that say what a file is.
const MAGICS: [(usize, &[u8], Kind); 22] = [
    (0, b"\x7fELF", Kind::Elf),
    (0, &blob::MAGIC, Kind::Table),
    // Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
    (0x202, b"HdrS", Kind::BzImage),
    // Documentation/arch/arm64/booting.rst and Documentation/arch/riscv/boot-image-header.rst.
    (0x38, b"ARM\x64", Kind::BootImage("an Image of arm64")),
    (0x38, b"RSC\x05", Kind::BootImage("an Image of riscv")),
    (
        0,
        b"\x27\x05\x19\x56",
        Kind::BootImage("an image of U-Boot"),
    ),
    (0, b"ANDROID!", Kind::BootImage("a boot image of Android")),
    (
        0,
        b"!<arch>\ndebian-binary",
        Kind::Archive("a Debian package"),
    ),
    (0, b"!<arch>\n", Kind::Archive("an archive of object files")),
    (0, b"!<thin>\n", Kind::Archive("an archive of object files")),
    (0, b"\xed\xab\xee\xdb", Kind::Archive("an RPM package")),
    (257, b"ustar", Kind::Archive("a tar archive")),
    (0, b"070701", Kind::Archive("a cpio archive")),
    (0, b"PK\x03\x04", Kind::Archive("a zip archive")),
    (0, b"\x1f\x8b", Kind::Compressed("gzip")),
    (0, b"\xfd7zXZ\0", Kind::Compressed("xz")),
    (0, b"\x28\xb5\x2f\xfd", Kind::Compressed("zstd")),
    (0, b"BZh", Kind::Compressed("bzip2")),
    (0, b"\x04\x22\x4d\x18", Kind::Compressed("lz4")),
    (
        0,
        b"LPKSHHRH",
        Kind::Recording("a journal of systemd", "journalctl -k --file"),
    ),
    (
        0,
        b"PERFILE2",
        Kind::Recording("a recording of perf", "perf script -i"),
    ),
    (
        0,
        b"KDUMP   ",
        Kind::Recording("a dump of a kernel", "vmcore-dmesg"),
    ),
];

impl Kind {
    /// What a file is.
    ///
    /// # Errors
    ///
    /// That of reading it.
    pub fn of(file: &File) -> io::Result<Self> {
        let mut head = vec![0; HEAD_BYTES];
        let mut len = 0;
        while len < head.len() {
            match file.read_at(&mut head[len..], len as u64) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self::of_head(&head[..len]))
    }

    /// What begins with these bytes; at most [`HEAD_BYTES`] of them are read.
    pub fn of_head(bytes: &[u8]) -> Self {
        let head = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
        let is_at =
            |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
        let found = MAGICS.iter().find(|(at, magic, _)| is_at(*at, magic));
        match found {
            Some((.., Self::BootImage(_))) | None if is_pe(head) => Self::Pe,
            Some((.., kind)) => *kind,
            None if is_utf16(head) => Self::Utf16,
            None if is_symbol_list(head) => Self::SymbolList,
            None if is_text(head) => Self::Text,
            None => Self::Other,
        }
    }
}

fn is_pe(head: &[u8]) -> bool {
    const OFFSET_AT: usize = 0x3c;

    let offset = head.get(OFFSET_AT..).and_then(|rest| rest.first_chunk());
    let offset = offset.map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let header = offset.and_then(|offset| head.get(offset..));
    head.starts_with(b"MZ") && header.is_some_and(|header| header.starts_with(b"PE\0\0"))
}

/// `ffffffff81000000 T _text`, with the digits of a 32-bit or a 64-bit address.
fn is_symbol_list(head: &[u8]) -> bool {
    let line = head.lines().next().unwrap_or_default();
    let digits = line.iter().take_while(|byte| **byte != b' ').count();
    matches!(digits, 8 | 16) && list_line(line).is_some()
}

/// Whether nearly every second byte is 0, and the others are not, with a byte order mark or without.
fn is_utf16(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xff\xfe").unwrap_or(head);
    let head = head.strip_prefix(b"\xfe\xff").unwrap_or(head);
    let (units, _) = head.as_chunks::<2>();
    let little = units.iter().filter(|unit| unit[0] != 0 && unit[1] == 0);
    let big = units.iter().filter(|unit| unit[0] == 0 && unit[1] != 0);
    units.len() >= 4 && little.count().max(big.count()) > units.len() / 4 * 3
}

fn is_text(head: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    // The end may be in the middle of a character.
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    !head.is_empty() && valid && !head.iter().any(|byte| is_control(byte) && *byte != 0x1b)
}

/// `an ELF file`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elf => "an ELF file",
            Self::Table => "a lineinfo table",
            Self::BzImage => "a bzImage",
            Self::Pe => "a PE file",
            Self::BootImage(what) | Self::Archive(what) => what,
            Self::Compressed(how) => return write!(f, "compressed by {how}"),
            Self::Recording(what, _) => what,
            Self::Utf16 => "text in UTF-16",
            Self::SymbolList => "a list of symbols",
            Self::Text => "a text file",
            Self::Other => "a file of an unknown kind",
        })
    }
}

/// What a file should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An ELF file with debug information.
    Image,
    /// A table.
    Table,
    /// An ELF file or a list of symbols.
    Symbols,
    /// The log of a kernel.
    Log,
}

/// A file of one kind where another is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub found: Kind,
    /// What it should be.
    pub wanted: Wanted,
}

impl Foreign {
    /// The error for a file that is not what it should be.
    pub fn error(path: &Path, found: Kind, wanted: Wanted) -> Error {
        Error::Foreign(Self {
            path: path.to_owned(),
            found,
            wanted,
        })
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let expected = match self.wanted {
            Wanted::Image => "an ELF file with debug information",
            Wanted::Table => "a lineinfo table",
            Wanted::Symbols => "an ELF file or a list like /proc/kallsyms",
            Wanted::Log => "a kernel log in plain text",
        };
        write!(
            f,
            "{path}: it is {}, and should be {expected}; ",
            self.found
        )?;
        match (self.wanted, self.found) {
            (Wanted::Table, Kind::Elf) => write!(
                f,
                "build its table with `lineinfo build {path} -o {}`",
                self.path.with_extension("lineinfo").display()
            ),
            (_, Kind::Compressed(_)) => f.write_str("decompress it first"),
            (Wanted::Log, Kind::Utf16) => {
                write!(f, "convert it with `iconv -f UTF-16 -t UTF-8 {path}`")
            }
            (Wanted::Log, Kind::Recording(_, command)) => {
                write!(f, "print it with `{command} {path}`")
            }
            (Wanted::Log, Kind::Archive(_)) => f.write_str("unpack it, and name the log in it"),
            (Wanted::Log, Kind::Elf) => f.write_str(
                "name the log, and a vmlinux with --vmlinux; the log in a dump is printed by `vmcore-dmesg`",
            ),
            (Wanted::Log, Kind::Table) => f.write_str("name the log, and a table with --table"),
            (Wanted::Log, _) => f.write_str("name the log"),
            (Wanted::Table, Kind::BzImage | Kind::Pe | Kind::BootImage(_)) => write!(
                f,
                "name the table itself; `lineinfo footer {path}` shows whether one is appended"
            ),
            (Wanted::Table, _) => f.write_str("name a table that `lineinfo build` has made"),
            (Wanted::Image, Kind::Table) => {
                f.write_str("name the vmlinux or the module that it was built from")
            }
            (Wanted::Symbols, Kind::Table) => f.write_str("name it with --table"),
            (_, Kind::BzImage | Kind::Pe | Kind::BootImage(_)) => f.write_str(
                "a boot image has no debug information: name the vmlinux that it was made from, which is in the directory of its build or in the -dbg package",
            ),
            (_, Kind::Archive(what)) if what.ends_with("object files") => {
                f.write_str("name the vmlinux or the module that was linked from it")
            }
            (_, Kind::Archive(_)) => f.write_str("unpack it, and name the vmlinux or a module in it"),
            (Wanted::Image, Kind::SymbolList) => f.write_str(
                "a list has no lines: name the vmlinux, which is in the directory of its build or in the -dbg package",
            ),
            (Wanted::Image, _) => f.write_str("name a vmlinux or a module (.ko)"),
            (Wanted::Symbols, _) => f.write_str("name a vmlinux, a module (.ko) or such a list"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes at an offset, after zeros.
    fn at(offset: usize, bytes: &[u8]) -> Vec<u8> {
        [&vec![0; offset][..], bytes].concat()
    }

    #[test]
    fn magics_are_found_where_they_are() {
        for (offset, magic, kind) in MAGICS {
            assert_eq!(Kind::of_head(&at(offset, magic)), kind, "{kind}");
            assert_ne!(Kind::of_head(&at(offset + 1, magic)), kind, "{kind}");
        }
    }

    #[test]
    fn a_bzimage_with_an_efi_stub_is_one() {
        let mut image = at(0x202, b"HdrS");
        image[..2].copy_from_slice(b"MZ");
        image[0x3c] = 0x40;
        image[0x40..0x44].copy_from_slice(b"PE\0\0");
        assert_eq!(Kind::of_head(&image), Kind::BzImage);
        assert_eq!(Kind::of_head(&image[..0x44]), Kind::Pe);
        assert_eq!(Kind::of_head(&image[..0x43]), Kind::Other);
    }

    #[test]
    fn text_lists_and_what_is_neither() {
        let list = b"ffffffff81000000 T _text\nffffffff81000040 T x\n";
        assert_eq!(Kind::of_head(list), Kind::SymbolList);
        assert_eq!(Kind::of_head(b"c0008000 T stext"), Kind::SymbolList);
        assert_eq!(Kind::of_head(b"cafe T stext"), Kind::Text);
        assert_eq!(Kind::of_head("caf\u{e9}\n".as_bytes()), Kind::Text);
        assert_eq!(Kind::of_head(&"caf\u{e9}".as_bytes()[..4]), Kind::Text);
        assert_eq!(Kind::of_head(b"caf\xe9\n"), Kind::Other);
        assert_eq!(Kind::of_head(b"\0"), Kind::Other);
        assert_eq!(Kind::of_head(b""), Kind::Other);
    }
}
