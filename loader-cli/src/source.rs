//! Where the locations of addresses come from: a table, or a running kernel.

mod rows;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lineinfo_core::Address;
use lineinfo_core::uapi::{AddressBase, LOOKUP_APPROXIMATE, LOOKUP_FOUND, Lookup};

use serde::Serialize;

use crate::device::{Access, Device};
use crate::error::Error;
use crate::files::BlobFile;
use crate::raw;
use crate::symbols::Symbols;

use self::rows::RowsFile;

/// Something that knows the locations of addresses.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    lines: Lines,
}

#[derive(Debug)]
enum Lines {
    /// Addresses are those of the image as it was linked.
    Table(Box<RowsFile>),
    /// Addresses are those of the running kernel.
    Device(Device),
}

/// File and line of an address; shown as `fs/read_write.c:681`, with `~` before an approximate line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocationBuf {
    /// The file, relative to the root of the sources.
    pub file: Arc<str>,
    /// The line in it, from 1.
    pub line: u32,
    /// The table is not exact at this address, only near it.
    pub approximate: bool,
    /// The functions there, innermost first, and the physical one last; empty if the table has no
    /// inlined functions, or none there.
    pub frames: Vec<FrameBuf>,
}

/// A function at an address, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrameBuf {
    /// `None` is the physical function: its name is that of the symbol.
    pub function: Option<Arc<str>>,
    /// As [`LocationBuf::file`].
    pub file: Arc<str>,
    /// As [`LocationBuf::line`].
    pub line: u32,
}

impl LocationBuf {
    /// What [`fmt::Display`] shows, with the bytes of a name that is not UTF-8.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.push_to(&mut bytes);
        bytes
    }

    /// Appends what [`LocationBuf::to_bytes`] gives: a log has a million of them.
    pub fn push_to(&self, to: &mut Vec<u8>) {
        push_place(to, &self.file, self.approximate, self.line);
    }

    /// The location in the physical function, which is that of the address unless functions were inlined
    /// there.
    #[must_use]
    pub fn physical(&self) -> Self {
        let (file, line) = match self.frames.last() {
            Some(frame) => (Arc::clone(&frame.file), frame.line),
            None => (Arc::clone(&self.file), self.line),
        };
        Self {
            file,
            line,
            approximate: self.approximate,
            frames: Vec::new(),
        }
    }

    /// The inlined functions, innermost first.
    pub fn inlined(&self) -> impl Iterator<Item = &FrameBuf> {
        self.frames.iter().filter(|frame| frame.function.is_some())
    }
}

impl FrameBuf {
    /// What [`fmt::Display`] shows, with the bytes of a name that is not UTF-8.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.push_to(&mut bytes);
        bytes
    }

    /// Appends what [`FrameBuf::to_bytes`] gives.
    pub fn push_to(&self, to: &mut Vec<u8>) {
        match &self.function {
            Some(function) => {
                push_name(to, function);
                to.extend_from_slice(b" (");
                push_place(to, &self.file, false, self.line);
                to.extend_from_slice(b") [inline]");
            }
            None => push_place(to, &self.file, false, self.line),
        }
    }
}

/// Appends `file:line`, with `~` before an approximate line.
fn push_place(to: &mut Vec<u8>, file: &str, approximate: bool, line: u32) {
    push_name(to, file);
    to.extend_from_slice(if approximate { b":~" } else { b":" });
    to.extend_from_slice(itoa::Buffer::new().format(line).as_bytes());
}

/// Appends a name of which some bytes may be no UTF-8.
fn push_name(to: &mut Vec<u8>, name: &str) {
    match name.is_ascii() {
        true => to.extend_from_slice(name.as_bytes()),
        false => to.extend_from_slice(&raw::to_bytes(name)),
    }
}

/// `refcount_inc (include/linux/refcount.h:364) [inline]`.
impl fmt::Display for FrameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "{function} ({}:{}) [inline]", self.file, self.line),
            None => write!(f, "{}:{}", self.file, self.line),
        }
    }
}

/// A byte of a name that is no part of a UTF-8 character is shown as a character from U+EF80 to
/// U+EFFF.
impl fmt::Display for LocationBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.approximate { "~" } else { "" };
        write!(f, "{}:{mark}{}", self.file, self.line)
    }
}

impl Source {
    /// Reads and validates a table.
    ///
    /// # Errors
    ///
    /// Those of [`BlobFile::open`].
    pub fn table(path: &Path) -> Result<Self, Error> {
        Ok(Self::of_blob(path, BlobFile::open(path)?))
    }

    /// A table that was read, or made, for `path`.
    pub fn of_blob(path: &Path, blob: BlobFile) -> Self {
        Self {
            path: path.to_owned(),
            lines: Lines::Table(Box::new(RowsFile::new(blob))),
        }
    }

    /// Opens a device.
    ///
    /// # Errors
    ///
    /// Those of [`Device::open`].
    pub fn device(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            lines: Lines::Device(Device::open(path, Access::Read)?),
        })
    }

    /// The file of the table or device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The build-id of the image that it is about.
    ///
    /// # Errors
    ///
    /// Those of [`Device::status`].
    pub fn build_id(&mut self) -> Result<Vec<u8>, Error> {
        match &mut self.lines {
            Lines::Table(rows) => Ok(rows.table().layout().build_id().to_owned()),
            Lines::Device(device) => Ok(device.status()?.build_id().to_owned()),
        }
    }

    /// The symbols that came with the table; `None` if there are none, and for a device.
    ///
    /// # Errors
    ///
    /// Those of [`Symbols::of_table`].
    pub fn symbols(&self) -> Result<Option<Symbols>, Error> {
        match &self.lines {
            Lines::Table(rows) => Symbols::of_table(&self.path, &rows.table()),
            Lines::Device(_) => Ok(None),
        }
    }

    /// ELF machine number of the image; `None` for a device.
    pub fn machine(&self) -> Option<u16> {
        match &self.lines {
            Lines::Table(rows) => Some(rows.table().layout().machine()),
            Lines::Device(_) => None,
        }
    }

    /// Link-time address of `_text`; `None` for a device, whose addresses are those of the run.
    pub fn linked_text_start(&self) -> Option<u64> {
        match &self.lines {
            Lines::Table(rows) => Some(rows.table().layout().text_start()),
            Lines::Device(_) => None,
        }
    }

    /// The location of the instruction that an address stands for; `None` for a miss.
    ///
    /// # Errors
    ///
    /// Those of [`Device::lookup`].
    pub fn lookup(&mut self, address: Address<u64>) -> Result<Option<LocationBuf>, Error> {
        self.lookup_from(address, AddressBase::RunTime)
    }

    /// The same for an offset from `_text`, which a device tells anybody.
    ///
    /// # Errors
    ///
    /// Those of [`Device::lookup`].
    pub fn lookup_offset(&mut self, offset: Address<u64>) -> Result<Option<LocationBuf>, Error> {
        self.lookup_from(offset, AddressBase::Text)
    }

    fn lookup_from(
        &mut self,
        address: Address<u64>,
        base: AddressBase,
    ) -> Result<Option<LocationBuf>, Error> {
        match &mut self.lines {
            Lines::Table(rows) => {
                let text_start = match base {
                    AddressBase::RunTime => rows.table().layout().text_start(),
                    AddressBase::Text => 0,
                };
                let address = address.relative_to(text_start);
                Ok(address.and_then(|address| rows.lookup(address)))
            }
            Lines::Device(device) => {
                let answers = device.lookup(address, base)?;
                Ok(location_of(&answers))
            }
        }
    }
}

/// What a device says of an address: an answer for each function there.
fn location_of(answers: &[Lookup]) -> Option<LocationBuf> {
    let innermost = answers.first()?;
    let frames = answers.iter().map(|answer| FrameBuf {
        function: answer.function().map(Arc::from),
        file: answer.file().into(),
        line: answer.line,
    });
    (innermost.result & LOOKUP_FOUND != 0).then(|| LocationBuf {
        file: innermost.file().into(),
        line: innermost.line,
        approximate: innermost.result & LOOKUP_APPROXIMATE != 0,
        frames: match innermost.levels {
            0 => Vec::new(),
            _ => frames.collect(),
        },
    })
}
