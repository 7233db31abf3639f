//! `/sys/kernel/lineinfo`: what the slot holds, one value a file.

use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::device::BuildId;
use lineinfo_core::uapi::{Errno, State, Status};

use super::LINEINFO;
use crate::fs::Node;
use crate::fs::proc::{open_text, text_file};

/// What a file says of something that is not there.
const NONE: &str = "none";

/// Defines a file for each attribute, whose value is made of the status.
macro_rules! attributes {
    ($($name:literal => $show:expr;)*) => {
        /// All files of the directory.
        pub(crate) const NODES: &[Node] = &[$(
            text_file(concat!("/sys/kernel/lineinfo/", $name), |_, _, _| {
                open_text(|| {
                    let show: fn(&Status) -> String = $show;
                    show(&LINEINFO.status()) + "\n"
                })
            }),
        )*];
    };
}

attributes! {
    "state" => |status| name(State::from_number(status.state).map(State::name));
    "encoding" => |status| name(Encoding::from_number(status.encoding).map(Encoding::name));
    "profile" => |status| name(Profile::from_number(status.profile).map(Profile::name));
    "build_id" => |status| BuildId::new(status.build_id()).to_string();
    "entries" => |status| status.rows.to_string();
    "bytes" => |status| status.bytes.to_string();
    "last_error" => |status| match Errno::from_number(status.last_errno) {
        Some(errno) => format!("{errno}: {}", status.last_reason()),
        None => NONE.to_owned(),
    };
    "lookups" => |_| LINEINFO.kernel.lookups().to_string();
    "misses" => |_| LINEINFO.kernel.misses().to_string();
}

fn name(name: Option<&str>) -> String {
    name.unwrap_or(NONE).to_owned()
}
