//! Crashes on demand, as in Linux's `lkdtm`: a task that is made for it crashes in the way that is
//! written to `/sys/kernel/debug/provoke-crash/DIRECT`.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use super::cpu::{self, CPUS_MAX};
use super::panic::panic;
use super::smp;
use super::task::{self, Current};
use crate::fs::proc::open_store;
use crate::fs::{Node, namei};
use crate::machine::frames::{keep_frame, stack_starts_here};
use crate::machine::trap::{self, TrapStack};
use crate::machine::{syscall, tick};
use crate::printk;

/// How long to sleep between two checks of the task that is to crash.
const PAUSE: Duration = Duration::from_millis(1);

/// All crashes, by the names that are written.
const ACTIONS: &[(&str, fn())] = &[
    ("PANIC", lkdtm_panic),
    ("BUG", lkdtm_bug),
    ("EXCEPTION", lkdtm_exception),
    ("EXHAUST_STACK", lkdtm_exhaust_stack),
    (HARDLOCKUP, lkdtm_hardlockup),
];

/// The crash that happens to a CPU and not to a task.
const HARDLOCKUP: &str = "HARDLOCKUP";

/// CPUs that are to lock up.
static LOCK_UP: [AtomicBool; CPUS_MAX] = [const { AtomicBool::new(false) }; CPUS_MAX];

const FILES: &[Node] = &[Node {
    path: "/sys/kernel/debug/provoke-crash/DIRECT",
    permissions: 0o644,
    driver_decides: false,
    open: |_, _, _| open_store(Some(actions), direct_entry),
}];

/// Registers the file, and the work that locks a CPU up.
pub(crate) fn init() {
    namei::register(FILES);
    smp::register_work(lock_up_if_asked);
}

/// The text of the file.
fn actions() -> String {
    let names: Vec<&str> = ACTIONS.iter().map(|(name, _)| *name).collect();
    format!("Available crash types:\n{}\n", names.join("\n"))
}

/// Crashes a task as the written name says, and returns when the task has ended.
#[inline(never)]
fn direct_entry(text: &[u8]) -> Result<usize, Errno> {
    let name = str::from_utf8(text).map_err(|_| Errno::EINVAL)?.trim();
    let (_, action) = ACTIONS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or(Errno::EINVAL)?;
    printk!(Info, "lkdtm: Performing direct entry {name}");
    match cpu::online() - 1 {
        // Init goes on while another CPU hangs.
        last @ 1.. if name == HARDLOCKUP => LOCK_UP[last].store(true, Ordering::Release),
        0 if name == HARDLOCKUP => lkdtm_hardlockup(),
        _ => crash_in_a_task(*action)?,
    }
    keep_frame(Ok(text.len()))
}

fn crash_in_a_task(action: fn()) -> Result<(), Errno> {
    let pid = task::next_pid();
    let cpu = task::current().cpu;
    let task = thread::Builder::new()
        .name("lkdtm".into())
        .spawn(move || ret_from_fork(Current::new(cpu, pid, "lkdtm"), action))
        .map_err(|_| Errno::EAGAIN)?;
    while !task.is_finished() && !task::is_dead(pid) {
        thread::sleep(PAUSE);
    }
    Ok(())
}

#[inline(never)]
fn ret_from_fork(task: Current, action: fn()) {
    stack_starts_here();
    task.make_current();
    match TrapStack::install() {
        Ok(_stack) => lkdtm_do_action(action),
        Err(errno) => printk!(Err, "lkdtm: no stack for traps: {errno}"),
    }
    keep_frame(());
}

#[inline(never)]
fn lkdtm_do_action(action: fn()) {
    action();
    keep_frame(());
}

#[inline(never)]
fn lkdtm_panic() {
    panic(format_args!("dumptest"))
}

#[inline(never)]
fn lkdtm_bug() {
    trap::bug();
    keep_frame(());
}

#[inline(never)]
fn lkdtm_exception() {
    trap::dereference_null();
    keep_frame(());
}

#[inline(never)]
fn lkdtm_exhaust_stack() {
    recursive_loop(u64::MAX);
    keep_frame(());
}

#[inline(never)]
fn recursive_loop(remaining: u64) -> u64 {
    let mut buffer = [0_u8; 512];
    black_box(&mut buffer);
    if remaining == 0 {
        return 0;
    }
    keep_frame(recursive_loop(remaining - 1) + u64::from(buffer[0]))
}

/// Locks this CPU up, if that was written.
fn lock_up_if_asked(cpu: usize) {
    if LOCK_UP[cpu].swap(false, Ordering::Acquire) {
        lkdtm_hardlockup();
    }
}

#[inline(never)]
fn lkdtm_hardlockup() {
    if let Err(errno) = tick::local_irq_disable() {
        printk!(Err, "lkdtm: cannot disable interrupts: {errno}");
        return;
    }
    loop {
        // It sleeps, for the CPU of the host has other things to do.
        syscall::safe_halt(PAUSE);
    }
}
