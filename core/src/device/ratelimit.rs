/// So many lines are logged in a window.
const BURST: u32 = 10;
/// The length of a window, in milliseconds.
const INTERVAL_MS: u64 = 5000;

/// Which lines of a kind are logged, so that nobody floods the log: 10 in 5 seconds, as Linux's
/// `printk_ratelimited` does.
#[derive(Debug)]
pub struct RateLimit {
    /// When the window began, in milliseconds.
    start_ms: u64,
    logged: u32,
    suppressed: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::new()
    }
}

impl RateLimit {
    /// Nothing was logged so far.
    pub const fn new() -> Self {
        Self {
            start_ms: 0,
            logged: 0,
            suppressed: 0,
        }
    }

    /// Whether a line may be logged now, and how many were suppressed since the last one that was.
    pub const fn admit(&mut self, now_ms: u64) -> Option<u32> {
        if self.logged == 0 || now_ms.saturating_sub(self.start_ms) > INTERVAL_MS {
            self.start_ms = now_ms;
            self.logged = 0;
        }
        if self.logged == BURST {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.logged = self.logged.saturating_add(1);
        Some(core::mem::replace(&mut self.suppressed, 0))
    }
}
