//! Any bytes as a log: nothing is lost, nothing is changed, and locations are put where a frame ends.
//!
//! The logs of `loader-cli/tests/log/corpus` are its seeds.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use lineinfo_cli::Error;
use lineinfo_cli::log::{Annotator, Answers, Facts, Frame, Kind, Machine, Outcome, Resolve, Style};
use lineinfo_cli::source::LocationBuf;

/// What is put in, which no input has.
const LOCATION: &[u8] = b" (\x01.c:1)";

/// Knows every frame.
struct All;

impl Resolve for All {
    fn resolve(&mut self, frame: &Frame<'_>, _: Kind) -> Result<Outcome, Error> {
        assert!(!frame.symbol.is_empty() && frame.text.starts_with(frame.symbol));
        Ok(Outcome::Found(LocationBuf {
            file: "\u{1}.c".into(),
            line: 1,
            approximate: false,
            frames: Vec::new(),
        }))
    }
}

thread_local! {
    /// To make these takes longer than to read most inputs.
    static MADE: RefCell<(Annotator, Answers<All>)> =
        RefCell::new((Annotator::new(Style::Plain, true), Answers::new(All)));
}

fuzz_target!(|input: &[u8]| {
    if !input.contains(&1) {
        MADE.with_borrow_mut(|(annotator, answers)| check(annotator, answers, input));
    }
});

fn check(annotator: &mut Annotator, answers: &mut Answers<All>, input: &[u8]) {
    let mut machine = Machine::default();
    let mut found = Vec::new();
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        Facts::of_line(line);
        annotator
            .line(line, &mut machine, answers)
            .expect("every frame is known");
        found.extend_from_slice(annotator.ready());
        annotator.taken();
    }
    annotator.settle();
    found.extend_from_slice(annotator.ready());
    annotator.taken();

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
}
