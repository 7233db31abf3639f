//! The output of kdb: straight to the console, and not into the log.

use std::fmt::{self, Write};

use lineinfo_core::buffer::StrBuffer;

use crate::machine::syscall;

/// Longest line, in bytes.
pub(super) const LINE_BYTES: usize = 1024;

/// Writes a line to the console.
pub(super) fn say(line: fmt::Arguments<'_>) {
    let mut buffer = [0; LINE_BYTES];
    let mut text = StrBuffer::new(&mut buffer);
    // A `StrBuffer` takes everything.
    let _always_taken = writeln!(text, "{line}");
    print(text.into_str().as_bytes());
}

/// Writes bytes to the console.
pub(super) fn print(bytes: &[u8]) {
    // There is nowhere to report that the console is gone.
    let _gone = syscall::write_all(syscall::CONSOLE, bytes);
}

/// Writes a text to the console line by line.
pub(super) struct Lines {
    line: [u8; LINE_BYTES],
    len: usize,
}

impl Lines {
    /// At the start of a line.
    pub(super) const fn new() -> Self {
        Self {
            line: [0; LINE_BYTES],
            len: 0,
        }
    }
}

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(free) = self.line.get_mut(self.len) {
                *free = byte;
                self.len += 1;
            }
            if byte == b'\n' {
                print(&self.line[..self.len]);
                self.len = 0;
            }
        }
        Ok(())
    }
}
