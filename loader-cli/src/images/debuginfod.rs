//! Debug files from debuginfod servers, for what is in no directory.
//!
//! `$DEBUGINFOD_URLS` names the servers, separated by white space; without it nothing is asked. The
//! protocol is one request: `GET SERVER/buildid/BUILDID/debuginfo`. What comes is kept in no
//! directory: the table that is made of it is ([`super::cache`]).
//!
//! A server has `$DEBUGINFOD_TIMEOUT` seconds, or 90, to be found, to accept the connection and to
//! answer, and [`BODY_TIMEOUTS`] times that to send the file.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::message;

/// The servers.
const SERVERS_VARIABLE: &str = "DEBUGINFOD_URLS";

/// How many seconds a server has to answer.
const TIMEOUT_VARIABLE: &str = "DEBUGINFOD_TIMEOUT";

/// What the client of elfutils has.
const TIMEOUT: Duration = Duration::from_secs(90);

/// How much longer a file may take than the answer.
const BODY_TIMEOUTS: u32 = 20;

/// The largest file that is taken, in bytes: several times the vmlinux of a distribution.
const FILE_MAX: u64 = 8 << 30;

/// A file that came from a server.
#[derive(Debug)]
pub(super) struct Fetched {
    /// It has no name, so nothing has to remove it.
    file: File,
    /// Where it came from.
    pub(super) url: String,
}

impl Fetched {
    /// A path to the file, while this is there.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// The servers that the environment names.
pub(super) fn servers() -> Vec<String> {
    let servers = std::env::var(SERVERS_VARIABLE).unwrap_or_default();
    let servers = servers.split_ascii_whitespace();
    // Signatures, which are checked by whom they matter to: a table of another build is not taken.
    let servers = servers.filter(|server| !server.starts_with("ima:"));
    servers
        .map(|server| server.trim_end_matches('/').to_owned())
        .collect()
}

/// The debug file of a build-id from the first server that has it; what is wrong with the others is
/// noted.
pub(super) fn fetch(
    servers: &[String],
    build_id: &str,
    notes: &mut Vec<String>,
) -> Option<Fetched> {
    let agent = agent();
    for server in servers {
        let url = format!("{server}/buildid/{build_id}/debuginfo");
        if cfg!(not(feature = "tls")) && url.starts_with("https:") {
            notes.push(format!(
                "{url}: not asked: this lineinfo was built without TLS; build it with --features tls, or name a server of http"
            ));
            continue;
        }
        match get(&agent, &url) {
            Ok(file) => {
                message::detail(format_args!("{url}: fetched"));
                return Some(Fetched { file, url });
            }
            Err(ureq::Error::StatusCode(404)) => {
                message::detail(format_args!("{url}: the server does not have it"));
            }
            Err(error) => notes.push(format!("{url}: {error}")),
        }
    }
    None
}

fn agent() -> ureq::Agent {
    let timeout = std::env::var(TIMEOUT_VARIABLE).ok();
    let timeout = timeout.and_then(|seconds| seconds.parse().ok());
    let timeout = timeout.filter(|seconds| *seconds > 0);
    let timeout = timeout.map_or(TIMEOUT, Duration::from_secs);
    let config = ureq::Agent::config_builder()
        .timeout_resolve(Some(timeout))
        .timeout_connect(Some(timeout))
        .timeout_recv_response(Some(timeout))
        .timeout_recv_body(Some(timeout.saturating_mul(BODY_TIMEOUTS)))
        .user_agent(concat!("lineinfo/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

fn get(agent: &ureq::Agent, url: &str) -> Result<File, ureq::Error> {
    let mut response = agent.get(url).call()?;
    let expected = response.body().content_length();
    let mut body = response.body_mut().with_config().limit(FILE_MAX).reader();
    let mut file = tempfile::tempfile()?;
    let len = io::copy(&mut body, &mut file)?;
    if expected.is_some_and(|expected| expected != len) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    file.rewind()?;
    Ok(file)
}
