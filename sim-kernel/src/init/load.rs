//! A load for the CPUs from 1: each makes system calls, block I/O and timer calls in a changing
//! order, so successive traces of it differ.
//!
//! `load=on` at boot, or `1` in `/proc/sys/kernel/load`, turns it on. CPU 0 runs init.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use crate::entry::{Syscall, do_syscall_64};
use crate::fs::cred::Credentials;
use crate::fs::proc::open_store;
use crate::fs::{Node, OpenMode, Task, namei};
use crate::kernel::task::{self, Current};
use crate::kernel::timer::Timers;
use crate::kernel::{module, smp};
use crate::machine::frames::keep_frame;

static ON: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The task of this CPU, once it has run.
    static TASK: RefCell<Option<LoadTask>> = const { RefCell::new(None) };
}

const FILES: &[Node] = &[Node {
    path: "/proc/sys/kernel/load",
    permissions: 0o644,
    driver_decides: false,
    open: |_, _, _| open_store(Some(load_show), load_store),
}];

/// Turns the load on or off, and registers its tasks and the file.
pub(super) fn init(on: bool) {
    ON.store(on, Ordering::Relaxed);
    smp::register_runnable(run);
    namei::register(FILES);
}

fn load_show() -> String {
    format!("{}\n", u8::from(ON.load(Ordering::Relaxed)))
}

fn load_store(bytes: &[u8]) -> Result<usize, Errno> {
    let on = match bytes.trim_ascii() {
        b"0" => false,
        b"1" => true,
        _ => return Err(Errno::EINVAL),
    };
    ON.store(on, Ordering::Relaxed);
    Ok(bytes.len())
}

/// Runs the task of a CPU for a moment, if the load is on.
#[inline(never)]
fn run(cpu: usize) -> bool {
    let on = ON.load(Ordering::Relaxed);
    if on {
        TASK.with_borrow_mut(|task| task.get_or_insert_with(|| LoadTask::new(cpu)).run());
    }
    keep_frame(on)
}

/// The task that makes the load of one CPU.
#[derive(Debug)]
struct LoadTask {
    current: Current,
    task: Task,
    timers: Timers,
    random: u64,
}

impl LoadTask {
    fn new(cpu: usize) -> Self {
        Self {
            current: Current::new(cpu, task::next_pid(), &format!("load/{cpu}")),
            task: Task::new(Credentials::kernel()),
            timers: Timers::new(),
            random: 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(cpu as u64 + 1),
        }
    }

    #[inline(never)]
    fn run(&mut self) {
        let idle = task::current();
        self.current.make_current();
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
            // Neither what it reads nor an error matters.
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
