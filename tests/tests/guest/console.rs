//! What a guest printed: its parts, and the frames among its lines.

use anyhow::{Context, Result, ensure};

/// One part of a log, from a line `=== NAME` to the next.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) lines: Vec<String>,
}

/// The parts of a log; what comes before the first has no name.
pub(crate) fn parts(log: &str) -> Vec<Part> {
    let mut parts = vec![Part {
        name: String::new(),
        lines: Vec::new(),
    }];
    for line in log.lines() {
        let line = line.trim_end_matches('\r');
        match without_time(line).strip_prefix("=== ") {
            Some(name) => parts.push(Part {
                name: name.to_owned(),
                lines: Vec::new(),
            }),
            None => {
                let part = parts.last_mut().expect("there is a first one");
                part.lines.push(line.to_owned());
            }
        }
    }
    parts
}

/// A line without `[   12.345678] `.
pub(crate) fn without_time(line: &str) -> &str {
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .filter(|(time, _)| {
            time.chars()
                .all(|c| matches!(c, ' ' | '.') || c.is_ascii_digit())
        })
        .map_or(line, |(_, rest)| rest)
}

/// What the address of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A call returns to it.
    Return,
    /// The instruction itself.
    Instruction,
    /// The instruction of the first oops, which x86 prints once more after each: its text may be
    /// gone, and something else be there.
    FirstOops,
    /// A register with a return address, perhaps an old one.
    LinkRegister,
    /// `?`: a word on the stack.
    Unreliable,
}

/// `symbol+0xoffset/0xsize [module] (file:line)`, the last two only if there are any, and the lines
/// ` name (file:line) [inline]` before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) symbol: String,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Empty for the kernel.
    pub(crate) module: String,
    /// `file:line`; `~` is before a line that is approximate.
    pub(crate) location: Option<String>,
    /// `name (file:line)` of each inlined function, innermost first.
    pub(crate) inlined: Vec<String>,
}

/// The frames among lines of a log.
///
/// # Errors
///
/// If no frame comes after the line of an inlined function.
pub(crate) fn frames(lines: &[String]) -> Result<Vec<Frame>> {
    let mut frames = Vec::new();
    let mut before = Before::default();
    let mut inlined = Vec::new();
    for line in lines {
        let text = without_time(line);
        if let Some(text) = text.strip_suffix(" [inline]") {
            let text = text.strip_prefix(' ').context("no space before a name")?;
            inlined.push(text.to_owned());
            continue;
        }
        // Another CPU may have printed this line meanwhile.
        let frame = frame(text, &mut before);
        frames.extend(frame.map(|frame| Frame {
            inlined: std::mem::take(&mut inlined),
            ..frame
        }));
    }
    ensure!(inlined.is_empty(), "no frame after {inlined:?}");
    Ok(frames)
}

/// What was said before a frame of arm64 that it depends on.
#[derive(Default)]
struct Before {
    /// The instruction pointer, with which the trace may begin.
    instruction: Option<(String, u64)>,
    /// The frame before was an exception entry.
    is_entry: bool,
    /// An oops or a warning has ended.
    has_ended: bool,
}

fn frame(line: &str, before: &mut Before) -> Option<Frame> {
    if line.starts_with("---[ end trace") {
        before.has_ended = true;
    }
    let instruction = ["RIP: 0010:", "pc : "];
    let (text, mut kind) = if let Some(text) = instruction
        .iter()
        .find_map(|label| line.strip_prefix(label))
    {
        (text, Kind::Instruction)
    } else if let Some(text) = line.strip_prefix("lr : ") {
        (text, Kind::LinkRegister)
    } else if let Some(text) = line.strip_prefix(" ? ") {
        (text, Kind::Unreliable)
    } else {
        (line.strip_prefix(' ')?, Kind::Return)
    };
    let mut frame = parse(text, kind)?;
    let here = (frame.symbol.clone(), frame.offset);
    match kind {
        Kind::Instruction => {
            before.instruction = Some(here);
            if before.has_ended {
                kind = Kind::FirstOops;
            }
        }
        Kind::Return => {
            if before.is_entry || before.instruction.take() == Some(here) {
                kind = Kind::Instruction;
            }
            before.is_entry =
                frame.symbol.starts_with("el1h_64_") && !frame.symbol.contains("handler");
        }
        Kind::FirstOops | Kind::LinkRegister | Kind::Unreliable => {}
    }
    before.has_ended = false;
    frame.kind = kind;
    Some(frame)
}

fn parse(text: &str, kind: Kind) -> Option<Frame> {
    let (text, location) = match text.split_once(" (") {
        Some((text, location)) => (text, Some(location.strip_suffix(')')?.to_owned())),
        None => (text, None),
    };
    let (text, module) = match text.split_once(" [") {
        Some((text, module)) => (text, module.strip_suffix(']')?),
        None => (text, ""),
    };
    let (symbol, extent) = text.rsplit_once("+0x")?;
    let (offset, size) = extent.split_once("/0x")?;
    if symbol.is_empty() || symbol.contains(' ') {
        return None;
    }
    Some(Frame {
        kind,
        symbol: symbol.to_owned(),
        offset: u64::from_str_radix(offset, 16).ok()?,
        size: u64::from_str_radix(size, 16).ok()?,
        module: module.to_owned(),
        location,
        inlined: Vec::new(),
    })
}
