//! A load for the CPUs: system calls, files, a disk and timers in changing order, so that a CPU is
//! found somewhere else every time it is interrupted.
//!
//! `load=on` at boot, or `1` in `/proc/sys/kernel/load`, turns it on. CPU 0 has init to run.

use std::sync::atomic::{AtomicBool, Ordering};

use super::module;
use super::task::{self, Credentials, Identity, Task};
use super::timer::Timers;
use crate::entry::{Syscall, do_syscall_64};
use crate::fs::OpenMode;
use crate::machine::frames::keep_frame;

static ON: AtomicBool = AtomicBool::new(false);

/// Turns the load on or off.
pub(crate) fn set(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

/// Whether it is on.
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// The task that makes the load of one CPU.
#[derive(Debug)]
pub(crate) struct Load {
    identity: Identity,
    task: Task,
    timers: Timers,
    random: u64,
}

impl Load {
    /// That of a CPU.
    pub(crate) fn new(cpu: usize) -> Self {
        Self {
            identity: Identity::new(cpu, task::next_pid(), &format!("load/{cpu}")),
            task: Task::new(Credentials::kernel()),
            timers: Timers::new(),
            random: 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(cpu as u64 + 1),
        }
    }

    /// Runs it for a moment.
    #[inline(never)]
    pub(crate) fn run(&mut self) {
        let idle = task::current();
        self.identity.make_current();
        self.one();
        idle.make_current();
        keep_frame(());
    }

    #[inline(never)]
    fn one(&mut self) {
        // Xorshift: the order must differ between CPUs, and no more.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        match self.random % 9 {
            0 => self.read("/proc/meminfo", 0),
            1 => self.read("/proc/uptime", 0),
            2 => self.read("/dev/lineinfo", 0),
            3 => self.read("/dev/kmsg", 0),
            4 => self.write("/dev/ram0"),
            5 | 6 => self.read("/dev/ram0", self.random >> 8 & 0xffff),
            7 => module::run_work(false),
            _ => self.timers.run(),
        }
        keep_frame(());
    }

    #[inline(never)]
    fn read(&mut self, path: &str, at: u64) {
        let mode = OpenMode::READ;
        let mut buffer = [0; 1024];
        let opened = do_syscall_64(&mut self.task, Syscall::Open { path, mode });
        if let Ok(fd) = opened {
            let buffer = &mut buffer[..];
            // What it reads is of no use to it, nor whether it could.
            let _unused = do_syscall_64(&mut self.task, Syscall::Pread { fd, buffer, at });
            let _closed = do_syscall_64(&mut self.task, Syscall::Close { fd });
        }
        keep_frame(());
    }

    #[inline(never)]
    fn write(&mut self, path: &str) {
        let mode = OpenMode::WRITE;
        let bytes = self.random.to_le_bytes();
        let opened = do_syscall_64(&mut self.task, Syscall::Open { path, mode });
        if let Ok(fd) = opened {
            let bytes = &bytes[..];
            let _unused = do_syscall_64(&mut self.task, Syscall::Write { fd, bytes });
            let _closed = do_syscall_64(&mut self.task, Syscall::Close { fd });
        }
        keep_frame(());
    }
}
