//! Signals that end the program, held back while a file is being replaced.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::{flag, low_level};

/// While it exists, SIGINT, SIGTERM, SIGHUP and SIGQUIT do not end the program. One that came
/// ends it when this is dropped, so values that clean up must be dropped before.
///
/// From the first of these on, a file that grows beyond `RLIMIT_FSIZE` is an error (EFBIG), and
/// SIGXFSZ does not end the program either.
#[derive(Debug)]
pub(crate) struct Hold {
    signals: &'static Signals,
    /// One at a time: `Signals` has one state.
    _one: MutexGuard<'static, ()>,
}

#[derive(Debug)]
struct Signals {
    /// A signal ends the program at once, as without a handler.
    at_once: Arc<AtomicBool>,
    /// The signal that came, or 0.
    came: Arc<AtomicUsize>,
}

static ONE: Mutex<()> = Mutex::new(());

impl Hold {
    pub(crate) fn new() -> io::Result<Self> {
        static SIGNALS: OnceLock<Signals> = OnceLock::new();

        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let signals = match SIGNALS.get() {
            Some(signals) => signals,
            None => {
                let signals = Signals::install()?;
                SIGNALS.get_or_init(|| signals)
            }
        };
        signals.at_once.store(false, Ordering::SeqCst);
        Ok(Self { signals, _one: one })
    }

    /// Fails if a signal came, which says: clean up, and drop this.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.signals.came.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(io::Error::other(format!("interrupted by signal {signal}"))),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.signals.at_once.store(true, Ordering::SeqCst);
        let came = self.signals.came.swap(0, Ordering::SeqCst);
        if let Ok(signal @ 1..) = i32::try_from(came) {
            // Ends the program with the status that the signal's default action gives it. A failure
            // leaves the program to report what `check` said.
            let _ = low_level::emulate_default_handler(signal);
        }
    }
}

impl Signals {
    fn install() -> io::Result<Self> {
        let signals = Self {
            at_once: Arc::new(AtomicBool::new(true)),
            came: Arc::new(AtomicUsize::new(0)),
        };
        let ignored = ignored();
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            // What nohup or the shell told this program to ignore stays ignored.
            if ignored >> (signal - 1) & 1 == 0 {
                flag::register_conditional_default(signal, Arc::clone(&signals.at_once))?;
                flag::register_usize(signal, Arc::clone(&signals.came), signal as usize)?;
            }
        }
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(signals)
    }
}

/// The signals that are ignored, signal 1 in bit 0; none where there is no `/proc`.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
