//! The log reader: finds the frames of a kernel log and says what instruction each stands for.
//!
//! ```text
//!   bytes ─ Annotator ── a line ──> Reader::line ──> Frame: symbol, offset, size, module, Kind
//!              │                       │  └ Formats: the one table of what kernels write
//!              │                       └ contexts: what a CPU or thread wrote before
//!              ├── Frame ──> Answers ──> Resolve ──> Outcome: a location, or why there is none
//!              └── the line, to the byte, with the locations put in
//! ```
//!
//! Principles: a log is bytes; no line is copied to be read; what a frame stands for follows from the
//! kernel's printing code, not from guesses; where a log cannot show it, the answer is marked.
//!
//! A `WARN` prints its frame before the registers that say whether a trap raised it. Such a frame is
//! [`Kind::Warning`], and a later frame of the log decides it ([`Frame::decides`]).

mod address;
mod annotate;
mod code;
mod facts;
mod formats;
mod frame;
pub mod input;
mod sender;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use bstr::ByteSlice;
use memchr::memmem;

pub use self::annotate::{Annotator, Answers, Outcome, Resolve, Style, Summary};
pub use self::code::Code;
pub use self::facts::{Facts, slide_of_line, slide_of_text};
pub use self::frame::Module;
pub use self::sender::Sender;

use self::address::{Bare, BareMeans};
use self::formats::{BEFORE_MAX, Formats, Means};
use self::frame::{Escape, Words, escape, may_have_escapes};

/// How many CPUs and threads of a machine are kept apart.
const WRITERS_MAX: usize = 4096;

/// How much of the end of a line is kept, in bytes.
const TAIL_MAX: usize = 128;

/// Longest time stamp or caller, in bytes.
const STAMP_MAX: usize = 32;

/// A frame of a log.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// The symbol, as the log has it.
    pub symbol: &'a [u8],
    /// Bytes from the symbol.
    pub offset: u64,
    /// Bytes from the symbol to the next one.
    pub size: u64,
    /// The module it is of; `None` for the kernel.
    pub module: Option<Module<'a>>,
    /// What it stands for.
    pub kind: Kind,
    /// Where the symbol starts in the line, in bytes.
    pub start: usize,
    /// Where its location goes, in bytes from the start of the line.
    pub end: usize,
    /// The log has its location already.
    pub located: bool,
    /// An earlier frame of [`Kind::Warning`] that this one decides, and how.
    pub decides: Option<(Ticket, Kind)>,
    /// The text of the frame, module included: frames of one text and kind have one answer.
    pub text: &'a [u8],
    /// The location that a `WARN` prints before its frame.
    pub printed: &'a [u8],
    /// The address, where the log has it and not symbol, offset and size. Then the symbol is empty, or
    /// what a tool says that it is, and the offset is 0, or what that tool says.
    pub address: Option<u64>,
    /// A hash of symbol, offset and size, which differs between readers.
    id: FrameId,
}

/// A line of a log.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Its bytes, with its newline if it has one.
    pub bytes: &'a [u8],
    /// Where it comes from.
    pub sender: Sender<'a>,
}

impl<'a> From<&'a [u8]> for Line<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            sender: Sender::default(),
        }
    }
}

/// What a frame's address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Where a call returns to.
    Return,
    /// A word of the stack that may be a return address.
    Unreliable,
    /// The instruction itself.
    Exact,
    /// An instruction that traps by design.
    Trap,
    /// The start of a function in a trace: itself, or where a function before it that does not
    /// return would return to.
    Start,
    /// A trap or a return address, which a later frame decides.
    Warning(Ticket),
    /// No code.
    Data,
}

/// Names a frame of [`Kind::Warning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What one CPU or thread wrote before.
#[derive(Clone, Debug, Default)]
struct Context {
    /// The program counter, until the first frame of the trace that follows.
    pc: Option<FrameId>,
    /// The last frame of the trace is the entry of an exception.
    interrupted: bool,
    /// The same, if the frame that was interrupted is on the line that follows or nowhere.
    interrupted_next: bool,
    /// The last frame of the trace.
    last: Option<(FrameId, Kind)>,
    /// A `WARN` that is not decided.
    warning: Option<(FrameId, Ticket)>,
    /// Its last line is one of a list of functions.
    list: bool,
    /// Its last line is a frame of a sample.
    sample: bool,
    /// How its last line ended: a header there may belong to a frame on the next line.
    tail: Vec<u8>,
}

/// A hash of symbol, offset and size.
type FrameId = u64;

/// What one machine wrote before.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Who wrote last: a CPU or thread, or 0 where the log does not say.
    writer: u64,
    /// What that one wrote.
    context: Context,
    /// What the others wrote.
    others: HashMap<u64, Context>,
    /// How many others are kept apart.
    others_max: usize,
}

impl Default for Machine {
    fn default() -> Self {
        Self::with_writers(WRITERS_MAX)
    }
}

impl Machine {
    /// One that wrote nothing yet, and of which so many CPUs and threads are kept apart.
    pub fn with_writers(writers: usize) -> Self {
        Self {
            writer: 0,
            context: Context::default(),
            others: HashMap::new(),
            others_max: writers,
        }
    }

    /// Turns to a CPU or thread.
    fn switch(&mut self, writer: u64) {
        if writer == self.writer {
            return;
        }
        if self.others.len() >= self.others_max {
            self.others.clear();
        }
        let context = self.others.remove(&writer).unwrap_or_default();
        let last = std::mem::replace(&mut self.context, context);
        self.others.insert(self.writer, last);
        self.writer = writer;
    }
}

/// Finds the frames of a log, line by line.
#[derive(Debug)]
pub struct Reader {
    formats: Formats,
    plus: memmem::Finder<'static>,
    hasher: RandomState,
    tickets: u64,
    /// A text without its colours and escapes.
    plain: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            formats: Formats::new(),
            plus: memmem::Finder::new("+0x"),
            hasher: RandomState::new(),
            tickets: 0,
            plain: Vec::with_capacity(BEFORE_MAX),
        }
    }
}

impl Reader {
    /// A reader of any logs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The frames of the next line of a machine, which may have its newline.
    ///
    /// To be read to the end: what the line says of the next one is kept there.
    pub fn line<'r, 'l>(
        &'r mut self,
        line: impl Into<Line<'l>>,
        machine: &'r mut Machine,
    ) -> Frames<'r, 'l> {
        let Line { bytes, mut sender } = line.into();
        if sender.head == 0 {
            sender = sender.with_record(bytes);
        }
        let end = bytes.trim_end_with(|c| matches!(c, '\n' | '\r')).len();
        if let Some(writer) = sender.writer {
            machine.switch(writer);
        }
        let start = sender.head.min(end);
        Frames {
            addresses: true,
            bare: 0,
            reader: self,
            machine,
            line: &bytes[..end],
            at: start,
            text: start,
            first: true,
        }
    }

    /// What the text before a frame says; `tail` is the end of the line before, for the first.
    fn means(&mut self, text: &[u8], tail: Option<&[u8]>) -> Means {
        let text = plain(text, &mut self.plain);
        let means = self.formats.before([b"", text]);
        match (means, tail) {
            (Means::Trace | Means::Named, Some(tail)) if continues(tail, text) => {
                self.formats.before([tail, text])
            }
            (means, _) => means,
        }
    }

    /// What a frame stands for; `behind` is what its marks say.
    fn kind(
        &mut self,
        context: &mut Context,
        words: &Words<'_>,
        id: FrameId,
        before: Means,
        behind: Option<Means>,
    ) -> (Kind, Option<(Ticket, Kind)>) {
        let start_or = |kind| if words.offset == 0 { Kind::Start } else { kind };
        let is_interrupted = std::mem::take(&mut context.interrupted_next) || context.interrupted;
        let mut is_trace = false;
        let kind = match (before, behind) {
            (Means::Data, _) => Kind::Data,
            (Means::Warning | Means::Exact, Some(Means::Return)) if words.offset > 0 => {
                Kind::Return
            }
            (Means::Warning, _) => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                context.warning = Some((id, ticket));
                return (Kind::Warning(ticket), None);
            }
            (Means::Pc, _) => {
                context.pc = Some(id);
                context.interrupted = false;
                Kind::Exact
            }
            (Means::List, _) => {
                context.list = true;
                Kind::Exact
            }
            (Means::Trace, _) if context.list && words.offset == 0 => Kind::Exact,
            (Means::Exact, _) => Kind::Exact,
            (Means::Interrupted, _) => {
                is_trace = true;
                Kind::Exact
            }
            (Means::Return, _) if words.offset == 0 => Kind::Exact,
            (Means::Return, _) => Kind::Return,
            (Means::Link, _) => start_or(Kind::Return),
            (Means::Unreliable, _) => start_or(Kind::Unreliable),
            (Means::Named, None) if words.offset == 0 => Kind::Exact,
            (
                Means::Trace
                | Means::Named
                | Means::Repeated
                | Means::Interrupts
                | Means::InterruptsNext,
                behind,
            ) => {
                if let (Some(Means::Repeated), Some((last, kind))) = (behind, context.last)
                    && last == id
                {
                    return (kind, None);
                }
                is_trace = true;
                match behind {
                    Some(Means::Exact) => Kind::Exact,
                    Some(Means::Link) => start_or(Kind::Return),
                    _ if is_interrupted || context.pc == Some(id) => Kind::Exact,
                    Some(Means::Unreliable) => start_or(Kind::Unreliable),
                    _ => start_or(Kind::Return),
                }
            }
        };
        if is_trace {
            context.pc = None;
            let entry = self.formats.entry(words.symbol);
            context.interrupted = entry == Some(Means::Interrupts);
            // What is perhaps no frame interrupts nothing.
            context.interrupted_next = entry == Some(Means::InterruptsNext) && kind == Kind::Return;
            context.last = Some((id, kind));
        }
        let decided = match context.warning {
            Some((warning, ticket)) if warning == id => match kind {
                Kind::Exact => Some((ticket, Kind::Trap)),
                Kind::Return => Some((ticket, Kind::Return)),
                // A word of the stack decides nothing.
                Kind::Unreliable | Kind::Start | Kind::Trap | Kind::Warning(_) | Kind::Data => None,
            },
            _ => None,
        };
        match decided {
            Some((_, kind)) => {
                context.warning = None;
                (kind, decided)
            }
            None => (kind, None),
        }
    }
}

/// The frames of a line.
#[derive(Debug)]
pub struct Frames<'r, 'l> {
    reader: &'r mut Reader,
    machine: &'r mut Machine,
    line: &'l [u8],
    /// Where the next frame is looked for.
    at: usize,
    /// Where the text that belongs to the next frame starts.
    text: usize,
    /// No frame was found yet.
    first: bool,
    /// Addresses alone are looked for, as no frame with a symbol was found.
    addresses: bool,
    /// Where the last of them ended.
    bare: usize,
}

impl<'l> Iterator for Frames<'_, 'l> {
    type Item = Frame<'l>;

    fn next(&mut self) -> Option<Frame<'l>> {
        while let Some(plus) = self.reader.plus.find(&self.line[self.at..]) {
            let plus = self.at + plus;
            self.at = plus + 3;
            if let Some(words) = Words::around(self.line, self.text, plus) {
                self.addresses = false;
                return Some(self.frame(&words));
            }
        }
        if self.addresses {
            self.skip_stamps(self.line.len());
            let from = self.text.max(self.bare);
            if let Some(bare) = address::find(self.line, from) {
                return Some(self.bare(&bare));
            }
            self.addresses = false;
            self.machine.context.sample &= self.bare > 0;
        }
        self.end();
        None
    }
}

impl<'l> Frames<'_, 'l> {
    fn frame(&mut self, words: &Words<'l>) -> Frame<'l> {
        let line = self.line;
        self.skip_stamps(words.start);
        let text = &line[self.text..words.start];
        let tail = self.first.then_some(&self.machine.context.tail[..]);
        let before = self.reader.means(text, tail);

        let mut end = words.end;
        let mut behind = None;
        let mut module = None;
        loop {
            // A colour may end between a frame and its mark.
            let at = match escape(line, end) {
                Some(Escape { end, byte: None }) => end,
                _ => end,
            };
            let rest = &line[at..];
            if !matches!(rest.first(), Some(b' ' | b'(' | b')')) {
                break;
            }
            if let Some((found, len)) = frame::module(rest).filter(|_| module.is_none()) {
                module = Some(found);
                end = at + len;
            } else if let Some(found) = self.reader.formats.behind(rest) {
                behind = Some(found.means);
                end = if found.len > 0 { at + found.len } else { end };
                if found.len == 0 {
                    break;
                }
            } else {
                break;
            }
        }

        let id = (words.symbol, words.offset, words.size);
        let id = self.reader.hasher.hash_one(id);
        let context = &mut self.machine.context;
        let (kind, decides) = self.reader.kind(context, words, id, before, behind);
        let printed = match before {
            Means::Warning => words_of(text)
                .filter(|word| word.contains(&b':') && *word != b"WARNING:")
                .last()
                .unwrap_or(b""),
            _ => b"",
        };
        self.first = false;
        self.at = end;
        self.text = end;
        Frame {
            symbol: words.symbol,
            offset: words.offset,
            size: words.size,
            module,
            kind,
            start: words.start,
            end,
            located: frame::is_located(&line[end..]),
            decides,
            text: &line[words.start..end],
            printed,
            address: None,
            id,
        }
    }

    /// A frame that is an address alone. No trace of a kernel has both kinds, so nothing else of the
    /// log speaks of it.
    fn bare(&mut self, bare: &Bare<'l>) -> Frame<'l> {
        let context = &mut self.machine.context;
        let kind = match bare.means {
            BareMeans::Return => Kind::Return,
            BareMeans::Unreliable => Kind::Unreliable,
            BareMeans::Sample if context.sample => Kind::Return,
            BareMeans::Exact | BareMeans::Sample => Kind::Exact,
        };
        context.sample = bare.means == BareMeans::Sample;
        self.bare = bare.end;
        Frame {
            symbol: bare.name,
            offset: bare.offset.unwrap_or_default(),
            size: 0,
            module: None,
            kind,
            start: bare.start,
            end: bare.end,
            located: frame::is_located(&self.line[bare.end..]),
            decides: None,
            text: &self.line[bare.start..bare.end],
            printed: b"",
            address: Some(bare.address),
            id: self.reader.hasher.hash_one((bare.address, bare.name)),
        }
    }

    /// Keeps how the line ended.
    fn end(&mut self) {
        self.skip_stamps(self.line.len());
        let rest = plain(&self.line[self.text..], &mut self.reader.plain);
        let rest = &rest[rest.len().saturating_sub(TAIL_MAX)..];
        self.machine.context.list &= !self.first;
        self.machine.context.interrupted_next &= !self.first;
        let tail = &mut self.machine.context.tail;
        tail.clear();
        if !rest.is_empty() {
            tail.extend_from_slice(rest);
            tail.push(b' ');
        }
        self.first = false;
        self.at = self.line.len();
        self.text = self.line.len();
    }

    /// Skips time stamps before `end`, and turns to who wrote what follows.
    fn skip_stamps(&mut self, end: usize) {
        while let Some(stamp) = Stamp::find(&self.line[self.text..end]) {
            self.text += stamp.end;
            self.machine.switch(stamp.writer);
        }
    }
}

/// A time stamp of printk, and who wrote what follows it.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    /// Where it ends, in bytes.
    end: usize,
    /// A CPU or thread, 0 if it does not say.
    writer: u64,
}

impl Stamp {
    /// The first in a text: `[    1.000000]`, with `[    C1]` or `[  T123]` behind it, the date of
    /// `dmesg -T`, `kernel:` of syslog, or what is before a string in JSON.
    fn find(text: &[u8]) -> Option<Self> {
        memchr::memchr3_iter(b'[', b'k', b'"', text).find_map(|at| {
            let rest = &text[at + 1..];
            if text[at] != b'[' {
                let heads: [&[u8]; 3] = [b"kernel: ", b"\":\"", b"\": \""];
                let head = heads.iter().find(|head| text[at..].starts_with(head))?;
                let end = at + head.len();
                return Some(Self { end, writer: 0 });
            }
            let len = rest[..rest.len().min(STAMP_MAX)].find_byte(b']')?;
            if !is_time(&rest[..len]) {
                return None;
            }
            let end = at + 1 + len + 1;
            Some(match caller(&text[end..]) {
                Some((writer, len)) => Self {
                    end: end + len,
                    writer,
                },
                None => Self { end, writer: 0 },
            })
        })
    }
}

/// What a time stamp has between its brackets: seconds since boot, or a date.
fn is_time(text: &[u8]) -> bool {
    // Mail programs make spaces that no line breaks at.
    let seconds = text.trim_start_with(|c| matches!(c, ' ' | '\u{a0}'));
    let is_seconds = seconds.split_once_str(".").is_some_and(|(whole, part)| {
        let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        is_number(whole) && is_number(part)
    });
    // `Wed Nov 25 12:58:43 2026`
    is_seconds || text.len() == 24 && text[13] == b':' && text[16] == b':'
}

/// Who writes, from `[    C1]` or `[  T123]`, and its length.
fn caller(text: &[u8]) -> Option<(u64, usize)> {
    let inner = text.strip_prefix(b"[")?;
    let len = inner[..inner.len().min(STAMP_MAX)].find_byte(b']')?;
    let writer = caller_of(inner[..len].trim_ascii_start())?;
    Some((writer, len + 2))
}

/// Who writes, from `C1` or `T123`.
fn caller_of(id: &[u8]) -> Option<u64> {
    let (&kind, number) = id.split_first()?;
    let number: u64 = number.to_str().ok()?.parse().ok()?;
    matches!(kind, b'C' | b'T').then_some(u64::from(kind) << 56 | number)
}

/// Whether the text before the first frame of a line goes on with a header that ended the line
/// before, as a mail program wraps it.
fn continues(tail: &[u8], text: &[u8]) -> bool {
    let is_filler = |byte: &u8| {
        byte.is_ascii_hexdigit()
            || byte.is_ascii_whitespace()
            || b"[]<>({\"'|x:\xc2\xa0".contains(byte)
    };
    !tail.is_empty()
        && (text.iter().all(is_filler)
            // `WARNING: CPU: 0 PID: 1 at` and the location on the next line.
            || tail.contains_str("WARNING: ") && words_of(text).filter(|word| !is_quote(word)).count() == 1)
}

/// The words of a text, between white space.
fn words_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

/// Whether a word is what mail programs put before lines.
fn is_quote(word: &[u8]) -> bool {
    word.iter().all(|byte| matches!(byte, b'>' | b'|'))
}

/// A text as its kernel wrote it, without colours and escapes; after the last line break that is
/// escaped.
fn plain<'a>(text: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    let text = &text[text.len().saturating_sub(BEFORE_MAX)..];
    if !may_have_escapes(text) {
        return text;
    }
    buffer.clear();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match escape(text, at) {
            Some(Escape { end, byte }) => {
                at = end;
                match byte {
                    Some(b'\n') => buffer.clear(),
                    byte => buffer.extend(byte),
                }
            }
            None => {
                buffer.push(*byte);
                at += 1;
            }
        }
    }
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logs of `tests/log`, which say what is right for each frame.
    #[test]
    fn every_row_of_the_table_is_in_the_corpus() {
        let mut reader = Reader::new();
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/log/corpus");
        for entry in std::fs::read_dir(corpus).expect("the corpus") {
            let log = std::fs::read(entry.expect("an entry").path()).expect("a log");
            let mut machine = Machine::default();
            for line in log.lines_with_terminator() {
                let mut plain = Vec::new();
                for (at, piece) in line.split_str("@@").enumerate() {
                    // The letter of a mark.
                    plain.extend_from_slice(&piece[usize::from(at > 0)..]);
                }
                reader.line(&plain[..], &mut machine).for_each(drop);
            }
        }
        let unused = reader.formats.unused();
        assert!(unused.is_empty(), "{unused:#?}");
    }
}
