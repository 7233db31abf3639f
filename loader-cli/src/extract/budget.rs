//! How much memory a file may make the loader take.
//!
//! A compressed section, a line program or a table of names can grow to thousands of times its size.
//! So everything that grows with what a file says, and not with its size, is charged to the file's
//! budget before there is memory for it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::BudgetError;

/// Memory for each byte of a file.
const PER_BYTE: u64 = 4;

/// Memory for every file, however small.
const AT_LEAST: u64 = 256 << 20;

/// What an image and its debug files may take, and what they have taken.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Size of the files in bytes.
    files: AtomicU64,
    /// In bytes; absent, it follows from the size.
    limit: Option<u64>,
    used: AtomicU64,
}

impl Budget {
    /// With a limit that the user has set, or that of the files.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            files: AtomicU64::new(0),
            limit,
            used: AtomicU64::new(0),
        }
    }

    /// Adds a file, all of which may be read into memory.
    pub(crate) fn add_file(&self, len: u64) {
        self.files.fetch_add(len, Ordering::Relaxed);
        self.used.fetch_add(len, Ordering::Relaxed);
    }

    /// The limit in bytes.
    pub(crate) fn limit(&self) -> u64 {
        let files = self.files.load(Ordering::Relaxed);
        self.limit
            .unwrap_or_else(|| files.saturating_mul(PER_BYTE).saturating_add(AT_LEAST))
    }

    /// What is left of it, in bytes.
    pub(crate) fn rest(&self) -> u64 {
        let used = self.used.load(Ordering::Relaxed);
        self.limit().saturating_sub(used)
    }

    /// Takes memory that is kept.
    ///
    /// # Errors
    ///
    /// [`BudgetError`] if there is not so much left.
    pub(crate) fn charge(&self, what: &'static str, bytes: u64) -> Result<(), BudgetError> {
        let limit = self.limit();
        let take = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        match taken {
            Ok(_) => Ok(()),
            Err(used) => Err(BudgetError {
                what,
                bytes,
                used,
                limit,
                files: self.files.load(Ordering::Relaxed),
            }),
        }
    }

    /// Frees, when the result is dropped, all that is charged until then. Nothing else may use the
    /// budget meanwhile.
    pub(crate) fn scope(&self) -> Scope<'_> {
        Scope {
            budget: self,
            used: self.used.load(Ordering::Relaxed),
        }
    }

    /// Takes memory until the result is dropped.
    ///
    /// # Errors
    ///
    /// As [`Budget::charge`].
    pub(crate) fn hold(&self, what: &'static str, bytes: u64) -> Result<Held<'_>, BudgetError> {
        self.charge(what, bytes)?;
        Ok(Held {
            budget: self,
            bytes,
        })
    }
}

/// Makes what is charged from now on temporary.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    budget: &'a Budget,
    used: u64,
}

impl Scope<'_> {
    /// It is not temporary after all.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.budget.used.store(self.used, Ordering::Relaxed);
    }
}

/// Memory that is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
