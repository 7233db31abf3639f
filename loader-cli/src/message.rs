//! What is said on stderr: one line each, after the name of the program.
//!
//! How much is said is set once, for the process, as the choice of colours is (`anstream`): errors
//! always, warnings and notes unless it is to be quiet, and details if they are wanted.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors, and no progress.
    Quiet = 0,
    /// Also warnings, notes and progress.
    #[default]
    Normal = 1,
    /// Also which files were looked for and used.
    Verbose = 2,
}

/// A [`Verbosity`].
static VERBOSITY: AtomicU8 = AtomicU8::new(Verbosity::Normal as u8);

/// Sets how much is said from here on.
pub fn set_verbosity(verbosity: Verbosity) {
    VERBOSITY.store(verbosity as u8, Ordering::Relaxed);
}

/// Whether so much is said.
pub fn says(verbosity: Verbosity) -> bool {
    VERBOSITY.load(Ordering::Relaxed) >= verbosity as u8
}

/// Why the command fails.
pub fn error(what: impl Display) {
    say(
        Verbosity::Quiet,
        AnsiColor::Red.on_default().bold(),
        "",
        what,
    );
}

/// What is wrong, though the command goes on.
pub fn warning(what: impl Display) {
    let style = AnsiColor::Yellow.on_default().bold();
    say(Verbosity::Normal, style, " warning:", what);
}

/// What somebody may want to know.
pub fn note(what: impl Display) {
    say(Verbosity::Normal, Style::new().bold(), "", what);
}

/// What somebody wants to know who asks how a result came about.
pub fn detail(what: impl Display) {
    say(Verbosity::Verbose, Style::new().dimmed(), "", what);
}

fn say(verbosity: Verbosity, style: Style, kind: &str, what: impl Display) {
    if !says(verbosity) {
        return;
    }
    let style = match AutoStream::choice(&io::stderr()) {
        ColorChoice::Never => Style::new(),
        ColorChoice::Auto | ColorChoice::Always | ColorChoice::AlwaysAnsi => style,
    };
    // One write a line: what others write at the same time comes before or after it.
    let line = format!("{style}lineinfo:{kind}{style:#} {what}\n");
    // Where stderr is closed, nobody is there to be told.
    let _ = io::stderr().write_all(line.as_bytes());
}
