//! `/sys/kernel/lineinfo`: what the slot holds, one value a file.

use std::fmt::Display;

use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::uapi::{Errno, State, Status};

use super::{BuildId, LINEINFO};
use crate::fs::Node;
use crate::fs::proc::{open_text, text_file};

/// What a file says of something that is not there.
const NONE: &str = "none";

/// All files of the directory.
pub(crate) const NODES: &[Node] = &[
    text_file("/sys/kernel/lineinfo/state", |_, _, _| {
        open_text(state_show)
    }),
    text_file("/sys/kernel/lineinfo/encoding", |_, _, _| {
        open_text(encoding_show)
    }),
    text_file("/sys/kernel/lineinfo/profile", |_, _, _| {
        open_text(profile_show)
    }),
    text_file("/sys/kernel/lineinfo/build_id", |_, _, _| {
        open_text(build_id_show)
    }),
    text_file("/sys/kernel/lineinfo/entries", |_, _, _| {
        open_text(entries_show)
    }),
    text_file("/sys/kernel/lineinfo/bytes", |_, _, _| {
        open_text(bytes_show)
    }),
    text_file("/sys/kernel/lineinfo/last_error", |_, _, _| {
        open_text(last_error_show)
    }),
    text_file("/sys/kernel/lineinfo/lookups", |_, _, _| {
        open_text(lookups_show)
    }),
    text_file("/sys/kernel/lineinfo/misses", |_, _, _| {
        open_text(misses_show)
    }),
];

fn line(value: impl Display) -> String {
    format!("{value}\n")
}

/// The name of something that only a table has.
fn of_table(name: impl FnOnce(&Status) -> Option<&'static str>) -> String {
    let status = LINEINFO.status();
    let loaded = status.state == State::Loaded.number();
    line(if loaded { name(&status) } else { None }.unwrap_or(NONE))
}

fn state_show() -> String {
    let state = State::from_number(LINEINFO.status().state);
    line(state.map_or(NONE, State::name))
}

fn encoding_show() -> String {
    of_table(|status| Encoding::from_number(status.encoding).map(Encoding::name))
}

fn profile_show() -> String {
    of_table(|status| Profile::from_number(status.profile).map(Profile::name))
}

fn build_id_show() -> String {
    line(BuildId::new(LINEINFO.status().build_id()))
}

fn entries_show() -> String {
    line(LINEINFO.status().rows)
}

fn bytes_show() -> String {
    line(LINEINFO.status().bytes)
}

fn last_error_show() -> String {
    let status = LINEINFO.status();
    match Errno::from_number(status.last_errno) {
        Some(errno) => line(format_args!("{errno}: {}", status.last_reason())),
        None => line(NONE),
    }
}

fn lookups_show() -> String {
    line(LINEINFO.kernel.lookups())
}

fn misses_show() -> String {
    line(LINEINFO.kernel.misses())
}
