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

fn log(message: fmt::Arguments<'_>, shown: bool) {
    let mut buffer = [0; LINE_BYTES];
    let (end, room) = buffer.split_last_mut().expect("a line has room");
    let mut text = StrBuffer::new(room);
    let time = uptime();
    // A `StrBuffer` takes everything; a message that cannot format itself is cut there.
    let _cut = write!(
        text,
        "[{:5}.{:06}] {message}",
        time.as_secs(),
        time.subsec_micros()
    );
    let len = text.into_str().len();
    // The message may quote anything; it stays one line, and does not control a terminal.
    for byte in &mut room[..len] {
        if byte.is_ascii_control() {
            *byte = b'?';
        }
    }
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
