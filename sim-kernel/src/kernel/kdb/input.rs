//! The input of kdb: lines that are edited on a terminal, or lines as they are.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use embedded_io::ErrorType;
use lineinfo_core::buffer::StrBuffer;
use nix::errno::Errno;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use noline::builder::EditorBuilder;
use noline::history::SliceHistory;
use noline::line_buffer::SliceBuffer;
use noline::sync_editor::Editor;

use super::output;
use crate::machine::syscall;

/// The input is a terminal on which lines can be edited.
static EDITING: AtomicBool = AtomicBool::new(false);

/// Finds out what the input is: the first such question allocates, which kdb itself must not.
pub(super) fn init() {
    // The editor asks the terminal for its cursor's position; a dumb terminal would not answer.
    let answers = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    EDITING.store(io::stdin().is_terminal() && answers, Ordering::Relaxed);
}

/// Reads the commands.
pub(super) enum CommandReader<'a> {
    Terminal(Editor<SliceBuffer<'a>, SliceHistory<'a>>),
    Plain,
}

impl<'a> CommandReader<'a> {
    /// With a buffer for a line and one for earlier lines.
    pub(super) fn new(line: &'a mut [u8], history: &'a mut [u8]) -> Self {
        let editor = EditorBuilder::from_slice(line)
            .with_slice_history(history)
            .build_sync(&mut Terminal);
        match editor {
            Ok(editor) if EDITING.load(Ordering::Relaxed) => Self::Terminal(editor),
            _ => Self::Plain,
        }
    }

    /// The next command; `None` at the end of the input.
    pub(super) fn read<'b>(&mut self, prompt: &str, text: &'b mut [u8]) -> Option<&'b str> {
        let text = match self {
            Self::Terminal(editor) => {
                let raw = raw()?;
                let line = editor.readline(prompt, &mut Terminal);
                raw.restore();
                let mut buffer = StrBuffer::new(text);
                buffer.push_str(line.ok()?);
                return Some(buffer.into_str());
            }
            Self::Plain => {
                output::print(prompt.as_bytes());
                let line = syscall::read_line(io::stdin().as_raw_fd(), text);
                line.ok().flatten().unwrap_or(b"go")
            }
        };
        let line = std::str::from_utf8(text).unwrap_or("?");
        // A terminal shows what is typed; of other input nothing is shown but this.
        if !io::stdin().is_terminal() {
            output::say(format_args!("{line}"));
        }
        Some(line)
    }
}

/// A terminal that gives each byte as it is typed.
struct Raw {
    before: Termios,
}

fn raw() -> Option<Raw> {
    // The terminal of another process is left alone.
    syscall::wait_for_foreground(io::stdin().as_raw_fd());
    let before = tcgetattr(io::stdin().as_fd()).ok()?;
    let mut after = before.clone();
    cfmakeraw(&mut after);
    tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &after).ok()?;
    Some(Raw { before })
}

impl Raw {
    fn restore(self) {
        // A terminal that is gone stays as it was.
        let _gone = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

/// Bytes to and from the terminal.
struct Terminal;

#[derive(Debug)]
struct TerminalError(#[expect(dead_code, reason = "shown in a debugger")] Errno);

impl embedded_io::Error for TerminalError {
    fn kind(&self) -> embedded_io::ErrorKind {
        embedded_io::ErrorKind::Other
    }
}

impl ErrorType for Terminal {
    type Error = TerminalError;
}

impl embedded_io::Read for Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TerminalError> {
        loop {
            match syscall::read(io::stdin().as_raw_fd(), buffer) {
                Err(Errno::EINTR) => {}
                read => return read.map_err(TerminalError),
            }
        }
    }
}

impl embedded_io::Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, TerminalError> {
        syscall::write_all(syscall::CONSOLE, bytes).map_err(TerminalError)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), TerminalError> {
        Ok(())
    }
}
