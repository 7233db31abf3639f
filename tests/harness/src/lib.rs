//! Boots simulated kernels for tests and the tour, and talks to them.
//!
//! ```text
//!   test ──stdin: commands──> sim-kernel (a process) ──stdout──> its console, line by line
//!     └──── Client ──> its socket: /dev/lineinfo
//! ```
//!
//! [`Kernel`] is the process and its console, [`Client`] a client of its socket, and [`trace`] reads
//! what the console prints.

#![forbid(unsafe_code)]

mod client;
mod kernel;
pub mod trace;

use std::time::Duration;

pub use client::Client;
pub use kernel::Kernel;

/// How long anything may take before it counts as hanging.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long to sleep between two attempts.
const PAUSE: Duration = Duration::from_millis(10);
