//! The magic keys, which are written to `/proc/sysrq-trigger`. Each is registered by the part of
//! the kernel that handles it.

use std::fmt;

use nix::errno::Errno;

use super::printk;
use crate::fs::proc::open_store;
use crate::fs::{Node, namei};
use crate::machine::frames::keep_frame;
use crate::registry::Registry;

/// Most keys.
const KEYS_MAX: usize = 16;

static KEYS: Registry<&'static Key, KEYS_MAX> = Registry::new();

const FILES: &[Node] = &[Node {
    path: "/proc/sysrq-trigger",
    permissions: 0o200,
    driver_decides: false,
    open: |_, _, _| open_store(None, write_sysrq_trigger),
}];

/// A key and what it does.
pub(crate) struct Key {
    /// The character that is written, a small letter.
    pub(crate) key: u8,
    /// Its entry in the help.
    pub(crate) help: &'static str,
    /// The line of the log that says it was used.
    pub(crate) action: &'static str,
    /// What it does.
    pub(crate) handler: fn(),
}

/// Adds a key.
pub(crate) fn register_key(key: &'static Key) {
    KEYS.register(key);
}

/// Registers the file.
pub(crate) fn init() {
    namei::register(FILES);
}

fn find(key: u8) -> Option<&'static Key> {
    KEYS.iter().find(|known| known.key == key)
}

/// Does what the key is for; for an unknown one logs the keys that there are.
#[inline(never)]
fn handle_sysrq(key: u8) {
    match find(key) {
        Some(key) => {
            let action = key.action;
            printk::emit_always(format_args!("sysrq: {action}"));
            (key.handler)();
        }
        None => printk::emit_always(format_args!("sysrq: HELP :{Help}")),
    }
    keep_frame(());
}

/// All keys, by the alphabet.
struct Help;

impl fmt::Display for Help {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys = (b'a'..=b'z').filter_map(find);
        keys.try_for_each(|key| write!(f, " {}", key.help))
    }
}

#[inline(never)]
fn write_sysrq_trigger(bytes: &[u8]) -> Result<usize, Errno> {
    if let Some(key) = bytes.first() {
        handle_sysrq(*key);
    }
    keep_frame(Ok(bytes.len()))
}
