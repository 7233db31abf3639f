//! Tasks: who is running, with which files and which rights.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use lineinfo_core::buffer::StrBuffer;
use nix::unistd::Uid;

use crate::fs::File;

/// What a trace says about the thread it is from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// The CPU it runs on.
    pub(crate) cpu: usize,
    /// Its number; 0 for a CPU that idles.
    pub(crate) pid: u32,
    comm: [u8; 16],
    comm_len: usize,
}

thread_local! {
    static CURRENT: Cell<Identity> = const { Cell::new(Identity { cpu: 0, pid: 0, comm: [0; 16], comm_len: 0 }) };
}

/// The number of the next task; those below are for who is there from the start.
static NEXT_PID: AtomicU32 = AtomicU32::new(100);

/// So many tasks that a trap has ended are remembered.
const DEAD_MAX: usize = 16;

static DEAD: [AtomicU32; DEAD_MAX] = [const { AtomicU32::new(0) }; DEAD_MAX];

/// A number for a new task.
pub(crate) fn next_pid() -> u32 {
    NEXT_PID.fetch_add(1, Ordering::Relaxed)
}

/// A trap has ended this task; for any context.
pub(crate) fn set_dead(pid: u32) {
    DEAD[pid as usize % DEAD_MAX].store(pid, Ordering::Release);
}

/// Whether a trap has ended this task, not long ago.
pub(crate) fn is_dead(pid: u32) -> bool {
    DEAD[pid as usize % DEAD_MAX].load(Ordering::Acquire) == pid
}

impl Identity {
    /// An identity; of `comm` as much as fits.
    pub(crate) fn new(cpu: usize, pid: u32, comm: &str) -> Self {
        let mut bytes = [0; 16];
        let mut text = StrBuffer::new(&mut bytes);
        text.push_str(comm);
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

    /// This thread is that task from now on.
    pub(crate) fn make_current(self) {
        CURRENT.set(self);
    }
}

/// The task of this thread; for any context.
pub(crate) fn current() -> Identity {
    CURRENT.get()
}

/// On whose behalf a call is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credentials {
    /// User of the host.
    pub(crate) uid: Uid,
    /// Process of the host, 0 for the kernel's own.
    pub(crate) host_pid: i32,
}

impl Credentials {
    /// Those of init.
    pub(crate) fn kernel() -> Self {
        Self {
            uid: Uid::effective(),
            host_pid: 0,
        }
    }

    /// May do what root may: is root, or whoever runs this kernel.
    pub(crate) fn privileged(self) -> bool {
        self.uid.is_root() || self.uid == Uid::effective()
    }
}

/// A task as system calls see it.
#[derive(Debug)]
pub(crate) struct Task {
    /// Its rights.
    pub(crate) credentials: Credentials,
    /// Its open files; the position is the descriptor.
    pub(crate) files: Vec<Option<File>>,
}

impl Task {
    /// A task without files.
    pub(crate) const fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            files: Vec::new(),
        }
    }
}
