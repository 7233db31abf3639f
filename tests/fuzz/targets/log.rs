//! Any bytes as a log: nothing is lost, nothing is changed, and locations are put where a frame ends.
//!
//! The logs of `loader-cli/tests/log/corpus` are its seeds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineinfo_cli::Error;
use lineinfo_cli::log::{Annotator, Facts, Frame, Kind, Outcome, Resolve, Style};
use lineinfo_cli::source::LocationBuf;

/// What is put in, which no input has.
const LOCATION: &[u8] = b" (\x01.c:1)";

/// Knows every frame.
struct All;

impl Resolve for All {
    fn resolve(&mut self, frame: &Frame<'_>, _: Kind) -> Result<Outcome, Error> {
        assert!(!frame.symbol.is_empty() && frame.text.starts_with(frame.symbol));
        Ok(Outcome::Found(LocationBuf {
            file: "\u{1}.c".to_owned(),
            line: 1,
            approximate: false,
            frames: Vec::new(),
        }))
    }
}

fuzz_target!(|input: &[u8]| {
    if input.contains(&1) {
        return;
    }
    let mut annotator = Annotator::new(All, Style::Plain, true);
    let mut found = Vec::new();
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        Facts::of_line(line);
        annotator.line(line).expect("every frame is known");
        found.extend_from_slice(annotator.ready());
        annotator.taken();
    }
    annotator.settle();
    found.extend_from_slice(annotator.ready());

    let mut plain = Vec::new();
    let mut rest = &found[..];
    while let Some(byte) = rest.first() {
        match rest.strip_prefix(LOCATION) {
            Some(after) => rest = after,
            None => {
                plain.push(*byte);
                rest = &rest[1..];
            }
        }
    }
    assert_eq!(plain, input);
});
