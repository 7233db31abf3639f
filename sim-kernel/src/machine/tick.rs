//! The timer interrupt: a signal that the host sends to the thread of a CPU, again and again.

use std::ffi::c_void;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigEvent, SigSet, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use super::{nmi, signal};

const TICK: Signal = Signal::SIGALRM;

static HANDLER: OnceLock<fn()> = OnceLock::new();

/// Makes `handler` the handler of the timer interrupt, for all CPUs; the first one stays.
///
/// It runs between any two instructions at which interrupts are on: it must not allocate, and must
/// not take a lock.
pub(crate) fn install(handler: fn()) -> Result<(), Errno> {
    HANDLER.get_or_init(|| handler);
    signal::install(TICK as i32, entry, libc::SA_RESTART)
}

/// The clock of one CPU; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Clock {
    _timer: Timer,
}

impl Clock {
    /// Interrupts this thread from now on once every `period`.
    pub(crate) fn start(period: Duration) -> Result<Self, Errno> {
        debug_assert!(HANDLER.get().is_some(), "the signal would end the process");
        let event = SigEvent::new(SigevNotify::SigevThreadId {
            signal: TICK,
            thread_id: nmi::this_thread(),
            si_value: 0,
        });
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
        let every = Expiration::Interval(period.into());
        timer.set(every, TimerSetTimeFlags::empty())?;
        Ok(Self { _timer: timer })
    }
}

/// Turns the timer interrupt of this thread off, for good.
pub(crate) fn local_irq_disable() -> Result<(), Errno> {
    let mut mask = SigSet::empty();
    mask.add(TICK);
    mask.thread_block()
}

extern "C" fn entry(_signal: i32, _info: *const libc::siginfo_t, _context: *const c_void) {
    if let Some(handler) = HANDLER.get() {
        handler();
    }
}
