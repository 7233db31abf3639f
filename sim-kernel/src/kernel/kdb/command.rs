//! Commands of kdb that other parts of the kernel register.

use std::fmt;

use crate::registry::Registry;

/// Most commands.
const COMMANDS_MAX: usize = 8;

static COMMANDS: Registry<&'static Command, COMMANDS_MAX> = Registry::new();

/// A command without arguments.
pub(crate) struct Command {
    /// What is typed.
    pub(crate) name: &'static str,
    /// Its line in the help.
    pub(crate) help: &'static str,
    /// Writes its output, which takes everything. The other CPUs are held with all their locks: it
    /// must not allocate, and must not take a lock.
    pub(crate) run: fn(&mut dyn fmt::Write) -> fmt::Result,
}

/// Adds a command.
pub(crate) fn register(command: &'static Command) {
    COMMANDS.register(command);
}

/// All commands, in the order in which they were added; for any context.
pub(super) fn all() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter()
}
