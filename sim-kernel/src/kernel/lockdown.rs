//! `lockdown=`: how far the kernel is locked down, as `security/lockdown/lockdown.c` of Linux has it.
//! Of what Linux refuses then, this kernel refuses one thing: code and data for itself that are not
//! signed, which tables are. `insmod` goes on, as modules have no signatures here; Linux refuses that with
//! EPERM.

use std::sync::OnceLock;

use crate::fs::proc::{open_text, text_file};
use crate::fs::{Node, namei};

/// How far the kernel is locked down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lockdown {
    /// Not at all.
    None,
    /// Root cannot change the running kernel.
    Integrity,
    /// Nor read secrets out of it.
    Confidentiality,
}

impl Lockdown {
    const ALL: [Self; 3] = [Self::None, Self::Integrity, Self::Confidentiality];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }

    /// A level of `lockdown=`, which has no name for the lowest.
    pub(crate) fn from_parameter(value: &str) -> Option<Self> {
        let named = |level: &Self| *level != Self::None && level.name() == value;
        Self::ALL.into_iter().find(named)
    }
}

static LEVEL: OnceLock<Lockdown> = OnceLock::new();

const FILES: &[Node] = &[text_file("/sys/kernel/security/lockdown", |_, _, _| {
    open_text(lockdown_show)
})];

/// Sets the level, and registers the file; the first call counts.
pub(crate) fn init(level: Lockdown) {
    LEVEL.get_or_init(|| level);
    namei::register(FILES);
}

/// All levels, with brackets around that of this kernel.
fn lockdown_show() -> String {
    let level = LEVEL.get().copied().unwrap_or(Lockdown::None);
    let names = Lockdown::ALL.map(|known| match known == level {
        true => format!("[{}]", known.name()),
        false => known.name().to_owned(),
    });
    names.join(" ") + "\n"
}
