use std::io::Write;
use std::time::Duration;

use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::uapi::{Errno, State, Status};
use serde::Serialize;

use super::{DeviceArg, OUTPUT, print};
use crate::device::Access;
use crate::error::exit;
use crate::{Error, hex, json};

/// Version of the document of `--json`.
const DOCUMENT_VERSION: u32 = 1;

/// Show what a running kernel has loaded, and why it last refused something.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    device: DeviceArg,
    /// Go on, and print the status again when it has changed: look every SECONDS, or every second.
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = parse_seconds,
        help_heading = OUTPUT
    )]
    watch: Option<Duration>,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

/// The JSON document; the field names are a promise.
#[derive(Debug, Serialize)]
struct Document<'a> {
    device: String,
    /// `null` for the kernel.
    module: Option<&'a str>,
    state: &'static str,
    /// Of the table, or, where none is loaded, what a table must have.
    build_id: String,
    /// `null` where nothing is loaded.
    table: Option<Loaded>,
    last_error: Option<LastError<'a>>,
}

#[derive(Debug, Serialize)]
struct Loaded {
    encoding: &'static str,
    profile: &'static str,
    entries: u32,
    files: u32,
    bytes: u64,
    /// What it takes in the kernel, in bytes.
    memory: u64,
}

/// What was last refused.
#[derive(Debug, Serialize)]
struct LastError<'a> {
    errno: &'static str,
    reason: &'a str,
}

/// What this version does not know the name of.
const UNKNOWN: &str = "unknown";

impl<'a> Document<'a> {
    fn new(args: &'a Args, status: &'a Status) -> Self {
        let state = State::from_number(status.state);
        let encoding = Encoding::from_number(status.encoding);
        let profile = Profile::from_number(status.profile);
        let errno = Errno::from_number(status.last_errno);
        Self {
            device: args.device.path.display().to_string(),
            module: args.device.module.as_deref(),
            state: state.map_or(UNKNOWN, State::name),
            build_id: hex(status.build_id()),
            table: (state == Some(State::Loaded)).then(|| Loaded {
                encoding: encoding.map_or(UNKNOWN, Encoding::name),
                profile: profile.map_or(UNKNOWN, Profile::name),
                entries: status.rows,
                files: status.files,
                bytes: status.bytes,
                memory: status.memory,
            }),
            last_error: (status.last_errno != 0).then(|| LastError {
                errno: errno.map_or(UNKNOWN, Errno::name),
                reason: status.last_reason(),
            }),
        }
    }
}

/// A time to wait.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    /// A day.
    const MAX: f64 = 86_400.0;
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| *seconds >= 0.01 && *seconds <= MAX);
    let seconds = seconds.ok_or_else(|| format!("give a number of seconds from 0.01 to {MAX}"))?;
    Ok(Duration::from_secs_f64(seconds))
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let mut shown: Option<String> = None;
    loop {
        // An open device would keep the kernel from unloading its module.
        let status = args.device.open(Access::Read)?.status()?;
        let text = status.to_string();
        if shown.as_ref() != Some(&text) {
            print(|out| match args.json {
                true => json::write(out, DOCUMENT_VERSION, &Document::new(args, &status)),
                // A blank line ends a status.
                false if shown.is_some() => write!(out, "\n{text}"),
                false => write!(out, "{text}"),
            })?;
            shown = Some(text);
        }
        match args.watch {
            Some(interval) => std::thread::sleep(interval),
            None => return Ok(exit::DONE),
        }
    }
}
