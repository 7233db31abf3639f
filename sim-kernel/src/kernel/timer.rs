//! Time as the CPUs see it: ticks, which the clock of each brings as an interrupt, and timers.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;

use super::cpu::CPUS_MAX;
use super::task;
use crate::machine::frames::keep_frame;
use crate::machine::tick;

/// The time between two ticks.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The ticks of each CPU since it came up.
static TICKS: [AtomicU64; CPUS_MAX] = [const { AtomicU64::new(0) }; CPUS_MAX];

/// Takes the timer interrupt over.
pub(crate) fn init() -> Result<(), Errno> {
    tick::install(|| {
        TICKS[task::current().cpu].fetch_add(1, Ordering::Relaxed);
    })
}

/// How often the clock of a CPU has interrupted it.
pub(crate) fn ticks(cpu: usize) -> u64 {
    TICKS[cpu].load(Ordering::Relaxed)
}

/// A timer: after so many rounds, this.
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
    /// Some that do a little work.
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

    /// Calls those that are due.
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
