//! The JSON documents that commands print with `--json`.
//!
//! A document is an object on a line of its own, and `format_version` is its first field. The schema
//! of a command's documents is `schemas/COMMAND.json`; tests check what is printed against it. A command
//! counts up its version when a field goes away or changes its meaning.

use std::io::{self, Write};

use serde::Serialize;

/// A document around the fields of its body.
#[derive(Serialize)]
struct Document<'a, T> {
    format_version: u32,
    #[serde(flatten)]
    body: &'a T,
}

/// Writes a document of this version of its format.
///
/// # Errors
///
/// Those of writing.
pub fn write(to: &mut impl Write, format_version: u32, body: &impl Serialize) -> io::Result<()> {
    let document = Document {
        format_version,
        body,
    };
    serde_json::to_writer(&mut *to, &document)?;
    writeln!(to)
}
