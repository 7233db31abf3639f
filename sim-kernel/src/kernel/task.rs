//! Which task a thread is: its CPU, number and name, and which tasks a trap has ended.

use std::cell::Cell;
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use lineinfo_core::buffer::StrBuffer;

use super::printk::Escaped;

/// The task that a thread is, as a trace names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current {
    /// The CPU it runs on.
    pub(crate) cpu: usize,
    /// Its number; 0 for the idle task of a CPU.
    pub(crate) pid: u32,
    comm: [u8; 16],
    comm_len: usize,
}

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current { cpu: 0, pid: 0, comm: [0; 16], comm_len: 0 }) };
}

/// The number of the next task; smaller ones are for tasks that are there from the start.
static NEXT_PID: AtomicU32 = AtomicU32::new(100);

/// How many tasks that a trap has ended are remembered.
const DEAD_MAX: usize = 16;

static DEAD: [AtomicU32; DEAD_MAX] = [const { AtomicU32::new(0) }; DEAD_MAX];

/// A number for a new task.
pub(crate) fn next_pid() -> u32 {
    NEXT_PID.fetch_add(1, Ordering::Relaxed)
}

/// Remembers that a trap has ended this task; for any context.
pub(crate) fn set_dead(pid: u32) {
    DEAD[pid as usize % DEAD_MAX].store(pid, Ordering::Release);
}

/// Whether a trap has ended this task, as far as it is remembered.
pub(crate) fn is_dead(pid: u32) -> bool {
    DEAD[pid as usize % DEAD_MAX].load(Ordering::Acquire) == pid
}

impl Current {
    /// A task with this name, escaped, of which it keeps as much as fits.
    pub(crate) fn new(cpu: usize, pid: u32, comm: &str) -> Self {
        let mut bytes = [0; 16];
        let mut text = StrBuffer::new(&mut bytes);
        // A process chooses its name, a newline in it included. A `StrBuffer` takes everything.
        let _cut = Escaped(&mut text).write_str(comm);
        let comm_len = text.as_str().len();
        Self {
            cpu,
            pid,
            comm: bytes,
            comm_len,
        }
    }

    /// Its name.
    pub(crate) fn comm(&self) -> &str {
        std::str::from_utf8(&self.comm[..self.comm_len]).unwrap_or("?")
    }

    /// Makes it the task of this thread.
    pub(crate) fn make_current(self) {
        CURRENT.set(self);
    }
}

/// The task of this thread; for any context.
pub(crate) fn current() -> Current {
    CURRENT.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_task_is_part_of_a_line_and_utf_8() {
        for (name, shown) in [
            ("bash", "bash"),
            ("a\nBUG: forged", "a\\x0aBUG: forged"),
            ("a-name-of-16-bytes", "a-name-of-16-byt"),
            ("\u{202e}\n\n\n", "\\xe2\\x80\\xae\\x0a"),
            ("fifteen-bytes-\u{e9}", "fifteen-bytes-\u{e9}"),
            ("sixteen--bytes-\u{e9}", "sixteen--bytes-"),
        ] {
            assert_eq!(Current::new(0, 1, name).comm(), shown);
        }
    }
}
