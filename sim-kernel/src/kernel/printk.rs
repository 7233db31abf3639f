//! The kernel log: one line at a time, formatted in a buffer on the stack and written straight to
//! the console, so that it works in a panic and in an interrupt.

use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use lineinfo_core::buffer::StrBuffer;

use super::kmsg;
use crate::machine::syscall;

/// How urgent a line is, as in Linux's `kern_levels.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// The system is going down.
    Emerg = 0,
    /// A request failed.
    Err = 3,
    /// Something is wrong, and the kernel goes on.
    Warning = 4,
    /// Normal, but significant.
    Notice = 5,
    /// Informational.
    Info = 6,
    /// For debugging.
    Debug = 7,
}

/// Lines of this level and above are not shown (`loglevel=`).
pub(crate) const CONSOLE_LOGLEVEL_DEFAULT: u8 = 7;
/// Shows everything.
const CONSOLE_LOGLEVEL_VERBOSE: u8 = 15;

/// Longest line, its time and end included, in bytes; the rest of a longer one is left out.
const LINE_BYTES: usize = 1024;

static CONSOLE_LOGLEVEL: AtomicU8 = AtomicU8::new(CONSOLE_LOGLEVEL_DEFAULT);
static BOOT: OnceLock<Instant> = OnceLock::new();

/// Logs one line: `printk!(Info, "{} pages", n)`.
#[macro_export]
macro_rules! printk {
    ($level:ident, $($argument:tt)*) => {
        $crate::kernel::printk::emit(
            $crate::kernel::printk::Level::$level,
            format_args!($($argument)*),
        )
    };
}

/// Starts the clock of the log; the first call counts.
pub(crate) fn start_clock() {
    BOOT.get_or_init(Instant::now);
}

/// Time since boot.
pub(crate) fn uptime() -> Duration {
    BOOT.get().map_or(Duration::ZERO, Instant::elapsed)
}

/// Shows lines of a level below this number.
pub(crate) fn set_console_loglevel(level: u8) {
    CONSOLE_LOGLEVEL.store(level, Ordering::Relaxed);
}

/// Shows everything from now on, as a panic does.
pub(crate) fn console_verbose() {
    set_console_loglevel(CONSOLE_LOGLEVEL_VERBOSE);
}

/// Logs one line, and shows it at any level of the console, as the headers of sysrq are.
pub(crate) fn emit_always(message: fmt::Arguments<'_>) {
    log(message, true);
}

/// Logs one line; see [`printk!`].
pub(crate) fn emit(level: Level, message: fmt::Arguments<'_>) {
    let shown = (level as u8) < CONSOLE_LOGLEVEL.load(Ordering::Relaxed);
    log(message, shown);
}

/// Writes text, and every character that could end the line, control a terminal or reorder what is
/// shown as `\x0a`, byte by byte: a message may quote anything (`/dev/kmsg` of Linux does the same,
/// `append_char` of kernel/printk/printk.c).
pub(crate) struct Escaped<'a, 'b>(pub(crate) &'a mut StrBuffer<'b>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let mut bytes = [0; 4];
            let character_text = &*character.encode_utf8(&mut bytes);
            if lineinfo_core::is_printable(character) {
                self.0.push_str(character_text);
                continue;
            }
            for byte in character_text.bytes() {
                self.0.push_str("\\x");
                self.0.push_hex(&[byte]);
            }
        }
        Ok(())
    }
}

fn log(message: fmt::Arguments<'_>, shown: bool) {
    let mut buffer = [0; LINE_BYTES];
    let (end, room) = buffer.split_last_mut().expect("a line has room");
    let mut text = StrBuffer::new(room);
    let time = uptime();
    // A `StrBuffer` takes everything; a message that cannot format itself is cut there.
    let _cut = write!(text, "[{:5}.{:06}] ", time.as_secs(), time.subsec_micros());
    let _cut = write!(Escaped(&mut text), "{message}");
    let len = text.into_str().len();
    match room.get_mut(len) {
        Some(after) => *after = b'\n',
        None => *end = b'\n',
    }
    let line = &buffer[..=len];
    kmsg::push(line);
    if shown {
        // There is nowhere to report that the console is gone.
        let _gone = syscall::write_all(syscall::CONSOLE, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_quotes_stays_in_its_line() {
        let mut buffer = [0; 64];
        let mut text = StrBuffer::new(&mut buffer);
        let comm = "a\nBUG: \x1b[2J\u{9b}1m \u{2028}\u{202e}é";
        write!(Escaped(&mut text), "Comm: {comm}").expect("a buffer takes everything");
        assert_eq!(
            text.as_str(),
            "Comm: a\\x0aBUG: \\x1b[2J\\xc2\\x9b1m \\xe2\\x80\\xa8\\xe2\\x80\\xaeé"
        );
    }
}
