//! Time as the CPUs see it: ticks, which are interrupts by the clock of each CPU, timers, and the
//! uptime.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;

use super::cpu::CPUS_MAX;
use super::{printk, task};
use crate::fs::proc::{open_text, text_file};
use crate::fs::{Node, namei};
use crate::machine::frames::keep_frame;
use crate::machine::tick::{self, Clock};
use crate::printk;

/// The time between two ticks.
const TICK: Duration = Duration::from_millis(100);

/// The ticks of each CPU since it came up.
static TICKS: [AtomicU64; CPUS_MAX] = [const { AtomicU64::new(0) }; CPUS_MAX];

/// Every CPU that was started has a clock.
static TICKING: AtomicBool = AtomicBool::new(true);

const FILES: &[Node] = &[text_file("/proc/uptime", |_, _, _| {
    open_text(uptime_proc_show)
})];

/// Installs the handler of the timer interrupt, and registers the file.
pub(crate) fn init() -> Result<(), Errno> {
    namei::register(FILES);
    tick::install(|| {
        TICKS[task::current().cpu].fetch_add(1, Ordering::Relaxed);
    })
}

/// Starts the clock of the CPU that calls this.
pub(crate) fn start_clock(cpu: usize) {
    match Clock::start(TICK) {
        Ok(clock) => std::mem::forget(clock),
        Err(errno) => {
            TICKING.store(false, Ordering::Relaxed);
            printk!(Warning, "smp: cpu {cpu} has no clock: {errno}; no watchdog");
        }
    }
}

/// Whether all CPUs have clocks, so that one that does not tick hangs.
pub(crate) fn ticking() -> bool {
    TICKING.load(Ordering::Relaxed)
}

/// How often the clock of a CPU has interrupted it.
pub(crate) fn ticks(cpu: usize) -> u64 {
    TICKS[cpu].load(Ordering::Relaxed)
}

fn uptime_proc_show() -> String {
    let uptime = printk::uptime().as_secs_f64();
    // The idle time is not counted.
    format!("{uptime:.2} 0.00\n")
}

/// A timer: its function is called once every so many rounds.
#[derive(Debug)]
struct Timer {
    every: u32,
    left: u32,
    function: fn(&mut [u64; 64]),
}

/// The timers of one CPU.
#[derive(Debug)]
pub(crate) struct Timers {
    timers: [Timer; 3],
    state: [u64; 64],
}

impl Timers {
    /// Timers that do a little work.
    pub(crate) const fn new() -> Self {
        const fn every(every: u32, function: fn(&mut [u64; 64])) -> Timer {
            Timer {
                every,
                left: every,
                function,
            }
        }
        Self {
            timers: [
                every(1, process_timeout),
                every(2, delayed_work_timer_fn),
                every(5, wb_timer_fn),
            ],
            state: [1; 64],
        }
    }

    /// Calls the functions of those that are due.
    #[inline(never)]
    pub(crate) fn run(&mut self) {
        for timer in &mut self.timers {
            timer.left -= 1;
            if timer.left == 0 {
                timer.left = timer.every;
                call_timer_fn(timer.function, &mut self.state);
            }
        }
        keep_frame(());
    }
}

#[inline(never)]
fn call_timer_fn(function: fn(&mut [u64; 64]), state: &mut [u64; 64]) {
    function(state);
    keep_frame(());
}

#[inline(never)]
fn process_timeout(state: &mut [u64; 64]) {
    for round in 0..200 {
        for word in &mut *state {
            *word = black_box(word.rotate_left(5) ^ round);
        }
    }
}

#[inline(never)]
fn delayed_work_timer_fn(state: &mut [u64; 64]) {
    for _ in 0..100 {
        mix(state);
    }
    keep_frame(());
}

#[inline(never)]
fn wb_timer_fn(state: &mut [u64; 64]) {
    process_timeout(state);
    mix(state);
    keep_frame(());
}

#[inline(never)]
fn mix(state: &mut [u64; 64]) {
    let mut last = 0;
    for word in state {
        *word = black_box(word.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ last);
        last = *word;
    }
}
