use core::fmt;

use crate::buffer::StrBuffer;
use crate::files::FileName;

/// A line of a source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// The file, relative to the root of the sources.
    pub file: FileName<'a>,
    /// The line in the file, from 1.
    pub line: u32,
    /// The table is not exact at this address ([`crate::blob::Profile::Calls`]); the location is
    /// one near it.
    pub approximate: bool,
}

impl Location<'_> {
    /// Writes ` (fs/read_write.c:681)`, or ` (fs/read_write.c:~681)` if approximate, up to the end
    /// of the buffer, and returns what was written.
    pub fn write<'b>(&self, buffer: &'b mut [u8]) -> &'b str {
        let mut text = StrBuffer::new(buffer);
        self.push_to(&mut text);
        text.into_str()
    }

    /// Appends what [`Location::write`] writes, without `core::fmt`, which has branches that panic.
    pub fn push_to(&self, text: &mut StrBuffer<'_>) {
        text.push_str(" (");
        self.file.push_to(text);
        text.push_str(self.line_mark());
        text.push_u32(self.line);
        text.push_str(")");
    }

    const fn line_mark(&self) -> &'static str {
        if self.approximate { ":~" } else { ":" }
    }
}

/// `fs/read_write.c:681`, or `fs/read_write.c:~681` if approximate.
impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.file, self.line_mark(), self.line)
    }
}
