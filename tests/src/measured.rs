//! What another program takes: time, time of all processors, and the peak of its memory.
//!
//! The memory of children is known only together, so each program runs in a process of its own, which
//! has no other child: this executable, called again with [`OPTION`].

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// The option with which `main` calls [`main`].
pub const OPTION: &str = "--measure";

/// What a program took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// From start to end.
    pub wall: Duration,
    /// Of all processors.
    pub processor: Duration,
    /// The peak of its memory.
    pub peak_kb: u64,
}

/// Runs a command, program and arguments, from an executable whose `main` knows [`OPTION`]; `prepare`
/// says what its stdin and its environment are.
///
/// # Errors
///
/// If it does not start, or fails.
pub fn run(command: &[String], prepare: impl FnOnce(&mut Command)) -> Result<Took> {
    let mut again = Command::new(std::env::current_exe()?);
    again.arg(OPTION).args(command).stdin(Stdio::null());
    prepare(&mut again);
    let output = again.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = said.split_whitespace().flat_map(str::parse).collect();
    match (output.status.success(), &numbers[..]) {
        (true, [wall, processor, peak_kb]) => Ok(Took {
            wall: Duration::from_micros(*wall),
            processor: Duration::from_micros(*processor),
            peak_kb: *peak_kb,
        }),
        _ => bail!("{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Runs a command to its end and prints microseconds, those of all processors, and its peak of memory in
/// kB.
///
/// # Errors
///
/// If it does not start, or fails.
pub fn main(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("a program")?;
    let start = Instant::now();
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null());
    let status = command.status().with_context(|| program.clone())?;
    let wall = start.elapsed();
    // 3: some addresses have no line.
    let is_done = matches!(status.code(), Some(0 | 3));
    ensure!(is_done, "{program}: {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let processor = usage.user_time() + usage.system_time();
    println!(
        "{} {} {}",
        wall.as_micros(),
        processor.num_microseconds(),
        usage.max_rss()
    );
    Ok(())
}
