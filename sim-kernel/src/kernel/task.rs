//! Tasks: who is running, with which files and which rights.

use std::cell::Cell;

use lineinfo_core::text::TextBuffer;
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

impl Identity {
    /// An identity; of `comm` as much as fits.
    pub(crate) fn new(cpu: usize, pid: u32, comm: &str) -> Self {
        let mut bytes = [0; 16];
        let mut text = TextBuffer::new(&mut bytes);
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
