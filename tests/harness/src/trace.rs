//! Traces and figures among the lines of a console.

use anyhow::{Context, Result};

/// One frame of a stack trace on the console.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// `symbol+0xoff/0xsize`.
    pub symbol: String,
    /// The module it is in, if any.
    pub module: Option<String>,
    /// `file:line`, if it is annotated.
    pub location: Option<String>,
}

/// The frames among lines of a console: ` symbol+0xoff/0xsize [module] (file:line)`, the module and
/// the location only if there are any.
pub fn frames(lines: &[String]) -> Vec<Frame> {
    lines.iter().filter_map(|line| Frame::parse(line)).collect()
}

impl Frame {
    /// A frame of a trace, if the line is one.
    pub fn parse(line: &str) -> Option<Self> {
        let text = without_time(line).strip_prefix(' ')?;
        Self::parse_text(text.strip_prefix("? ").unwrap_or(text))
    }

    /// The code after `RIP:`, if the line has that and a symbol in it.
    pub fn parse_rip(line: &str) -> Option<Self> {
        Self::parse_text(without_time(line).strip_prefix("RIP: 0010:")?)
    }

    fn parse_text(text: &str) -> Option<Self> {
        let (text, location) = match text.rsplit_once(" (") {
            Some((symbol, rest)) => (symbol, Some(rest.strip_suffix(')')?.to_owned())),
            None => (text, None),
        };
        let (symbol, module) = match text.rsplit_once(" [") {
            Some((symbol, rest)) => (symbol, Some(rest.strip_suffix(']')?.to_owned())),
            None => (text, None),
        };
        let (_, extent) = symbol.rsplit_once("+0x")?;
        let (offset, size) = extent.split_once("/0x")?;
        let is_hex = |digits| u64::from_str_radix(digits, 16).is_ok();
        (is_hex(offset) && is_hex(size)).then(|| Self {
            symbol: symbol.to_owned(),
            module,
            location,
        })
    }
}

/// A line of the log without its time.
fn without_time(line: &str) -> &str {
    match line.split_once("] ") {
        Some((stamp, rest)) if stamp.starts_with('[') => rest,
        _ => line,
    }
}

/// A field of the meminfo among lines of a console, in kB.
///
/// # Errors
///
/// If it is not there.
pub fn meminfo_kb(lines: &[String], field: &str) -> Result<u64> {
    let line = lines.iter().find_map(|line| {
        let (_, rest) = line.split_once(&format!("{field}:"))?;
        rest.trim().strip_suffix(" kB")
    });
    let kb = line.with_context(|| format!("no {field} in:\n{}", lines.join("\n")))?;
    Ok(kb.trim().parse()?)
}

/// The resident set of a process in kB, as the host counts its pages.
///
/// # Errors
///
/// If the host does not say.
pub fn resident_kb(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    meminfo_kb(&lines, "Rss")
}
