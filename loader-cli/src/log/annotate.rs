//! Puts locations into a log, or lists its frames, as it comes in.

use std::collections::{BTreeSet, HashSet};

use serde::Serialize;

use super::code::{Code, Disassembled};
use super::{Frame, Kind, Line, Machine, Reader, Ticket};
use crate::error::Error;
use crate::json;
use crate::source::{FrameBuf, LocationBuf};

/// Version of the objects of [`Style::Json`].
const FORMAT_VERSION: u32 = 1;

/// Answers that are kept with the same low bits of their keys.
const WAYS: usize = 4;

/// How many answers are kept; a power of two.
const ANSWERS_MAX: usize = 1 << 14;

/// How far after an undecided frame the log is read for what decides it, in bytes.
const UNDECIDED_MAX: usize = 64 << 10;

/// What knows where frames are.
pub trait Resolve {
    /// The location of a frame, taken to be of `kind`.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with its tables or symbols; a miss is an [`Outcome`].
    fn resolve(&mut self, frame: &Frame<'_>, kind: Kind) -> Result<Outcome, Error>;
}

/// What is known of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its location.
    Found(LocationBuf),
    /// The function that an address alone is in, as a kernel would print it, and its location.
    Named(String, Option<LocationBuf>),
    /// The symbol is known, and there is no line there.
    NoLine,
    /// There is no such symbol.
    UnknownSymbol,
    /// The symbol has another size: the symbols are of another build than the log.
    OtherSize,
    /// As many functions of that name and size are at different locations.
    Ambiguous(usize),
    /// There is no table of its module.
    NoModule,
    /// There is no table of the kernel that wrote it.
    NoKernel,
    /// It is no code.
    Data,
}

impl Outcome {
    const fn status(&self) -> &'static str {
        match self {
            Self::Found(_) | Self::Named(_, Some(_)) => "found",
            Self::Named(_, None) => "no line",
            Self::NoLine => "no line",
            Self::UnknownSymbol => "unknown symbol",
            Self::OtherSize => "other size",
            Self::Ambiguous(_) => "ambiguous",
            Self::NoModule => "no table of the module",
            Self::NoKernel => "no table of the kernel",
            Self::Data => "data",
        }
    }
}

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The log, with locations.
    Plain,
    /// The log, with locations in colour.
    Colour,
    /// A JSON object for each frame.
    Json,
}

/// What was in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Frames of code.
    pub frames: u64,
    /// Those with a location, which the log had or now has.
    pub annotated: u64,
    /// Those whose symbol is unknown.
    pub unknown: u64,
    /// Those whose symbol has another size.
    pub other_size: u64,
    /// Those that several functions fit.
    pub ambiguous: u64,
    /// Those where there is no line.
    pub no_line: u64,
    /// Those of modules without a table.
    pub no_module: u64,
    /// Those of kernels without a table, in a stream from many machines.
    #[serde(skip_serializing_if = "is_zero")]
    pub no_kernel: u64,
    /// The names of these modules.
    pub modules: BTreeSet<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Summary {
    /// Frames that were left though there is a table for them.
    pub const fn left(&self) -> u64 {
        self.frames - self.annotated - self.no_module - self.no_kernel
    }

    fn count(&mut self, frame: &Frame<'_>, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Data => return,
            Outcome::Found(_) | Outcome::Named(_, Some(_)) => &mut self.annotated,
            Outcome::NoLine | Outcome::Named(_, None) => &mut self.no_line,
            Outcome::UnknownSymbol => &mut self.unknown,
            Outcome::OtherSize => &mut self.other_size,
            Outcome::Ambiguous(_) => &mut self.ambiguous,
            Outcome::NoModule => &mut self.no_module,
            Outcome::NoKernel => &mut self.no_kernel,
        };
        *counter += 1;
        self.frames += 1;
        if let (Outcome::NoModule, Some(module)) = (outcome, frame.module) {
            let name = String::from_utf8_lossy(module.name).into_owned();
            self.modules.insert(name);
        }
    }
}

/// One line of [`Style::Json`]; the field names are a promise.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Object<'a> {
    Frame {
        log_line: u64,
        #[serde(skip_serializing_if = "str::is_empty")]
        host: &'a str,
        symbol: &'a str,
        offset: u64,
        size: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        function: Option<&'a str>,
        module: Option<&'a str>,
        module_build_id: Option<&'a str>,
        kind: &'static str,
        status: &'static str,
        candidates: Option<usize>,
        file: Option<&'a str>,
        line: Option<u32>,
        approximate: bool,
        frames: &'a [FrameBuf],
    },
    Code {
        log_line: u64,
        instructions: &'a [Disassembled],
    },
    Summary {
        #[serde(flatten)]
        summary: &'a Summary,
    },
}

/// What comes out for a frame.
#[derive(Debug, Default)]
struct Text {
    /// Before its line: a line for each inlined function.
    lines: Vec<u8>,
    /// After it.
    location: Vec<u8>,
}

/// A frame that a later one decides.
#[derive(Debug)]
struct Undecided {
    ticket: Ticket,
    /// Where the lines of inlined functions go in what comes out, in bytes.
    lines_at: usize,
    /// Where its location goes.
    at: usize,
    /// What comes out for it if it is a trap, an instruction, a return address.
    texts: [(Kind, Text); 3],
    /// The log's own location is that of the return address.
    is_printed_return: bool,
}

/// Annotates a log, line by line.
#[derive(Debug)]
pub struct Annotator {
    reader: Reader,
    style: Style,
    /// Inlined functions have lines of their own.
    inlines: bool,
    /// Addresses alone are frames, too.
    addresses: bool,
    /// How many of them were left.
    addresses_left: u64,
    /// What comes out and was not taken yet.
    out: Vec<u8>,
    /// What comes out for a frame; empty between frames.
    text: Text,
    undecided: Vec<Undecided>,
    summary: Summary,
    log_line: u64,
}

impl Annotator {
    /// An annotator at the start of a log; `inlines`: a frame is the function of its symbol, and those
    /// that are inlined there have lines of their own before it. Otherwise it has the line of the
    /// innermost.
    pub fn new(style: Style, inlines: bool) -> Self {
        Self {
            reader: Reader::new(),
            style,
            inlines,
            addresses: false,
            addresses_left: 0,
            out: Vec::new(),
            text: Text::default(),
            undecided: Vec::new(),
            summary: Summary::default(),
            log_line: 0,
        }
    }

    /// What was in the log so far.
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// How many addresses without a symbol were no frames.
    pub const fn addresses_left(&self) -> u64 {
        self.addresses_left
    }

    /// Takes the next line, with its newline if it has one, of a machine.
    ///
    /// # Errors
    ///
    /// Those of [`Resolve::resolve`].
    pub fn line<'l, R: Resolve>(
        &mut self,
        line: impl Into<Line<'l>>,
        machine: &mut Machine,
        answers: &mut Answers<R>,
    ) -> Result<(), Error> {
        let line = line.into();
        let host = line.sender.name;
        self.log_line += 1;
        let mut copied = 0;
        let mut lines_at = self.out.len();
        let frames = self.reader.line(line, machine);
        let line = line.bytes;
        for frame in frames {
            if frame.address.is_some() && !self.addresses {
                self.addresses_left += 1;
                continue;
            }
            if self.style != Style::Json {
                self.out.extend_from_slice(&line[copied..frame.end]);
                copied = frame.end;
            }
            if let Some((ticket, kind)) = frame.decides {
                lines_at += decide(&mut self.undecided, &mut self.out, ticket, kind);
            }
            if frame.located && self.style != Style::Json {
                self.summary.frames += 1;
                self.summary.annotated += 1;
                continue;
            }
            let writer = TextWriter {
                style: self.style,
                inlines: self.inlines,
                line,
                log_line: self.log_line,
                host,
            };
            match frame.kind {
                Kind::Warning(ticket) => {
                    let mut is_printed = [false; 3];
                    let mut texts =
                        [Kind::Trap, Kind::Exact, Kind::Return].map(|kind| (kind, Text::default()));
                    for ((kind, text), is_printed) in texts.iter_mut().zip(&mut is_printed) {
                        let outcome = answers.of(&frame, *kind)?;
                        if let Outcome::Found(location) = outcome {
                            let is_it = |location: LocationBuf| {
                                let location = LocationBuf {
                                    approximate: false,
                                    ..location
                                };
                                location.to_bytes() == frame.printed
                            };
                            // A kernel prints that, too, if it prints inlined functions.
                            *is_printed = is_it(location.clone()) || is_it(location.physical());
                        }
                        writer.write(text, &frame, *kind, outcome);
                    }
                    self.summary.count(&frame, answers.of(&frame, Kind::Exact)?);
                    self.undecided.push(Undecided {
                        ticket,
                        lines_at,
                        at: self.out.len(),
                        texts,
                        is_printed_return: is_printed == [false, false, true],
                    });
                }
                kind => {
                    let outcome = answers.of(&frame, kind)?;
                    self.summary.count(&frame, outcome);
                    let text = &mut self.text;
                    writer.write(text, &frame, kind, outcome);
                    self.out.append(&mut text.location);
                    let len = text.lines.len();
                    self.out.splice(lines_at..lines_at, text.lines.drain(..));
                    // Those of the same line that are not decided yet.
                    for other in self
                        .undecided
                        .iter_mut()
                        .filter(|other| other.at > lines_at)
                    {
                        other.at += len;
                    }
                    lines_at += len;
                }
            }
        }
        if self.style != Style::Json {
            self.out.extend_from_slice(&line[copied..]);
        }
        while let Some(first) = self.undecided.first()
            && self.out.len() - first.lines_at > UNDECIDED_MAX
        {
            self.decide_first();
        }
        Ok(())
    }

    /// Puts out bytes that are no line of a log.
    pub fn pass(&mut self, bytes: &[u8]) {
        if self.style != Style::Json {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Says whether addresses without a symbol are frames, too.
    pub const fn take_addresses(&mut self, addresses: bool) {
        self.addresses = addresses;
    }

    /// Puts the instructions of the last line after it, if it is a `Code:` line of x86.
    pub fn code(&mut self, line: &[u8], bits: u32) {
        let Some(code) = Code::of_line(line) else {
            return;
        };
        let instructions = code.disassemble(bits);
        if self.style == Style::Json {
            let object = Object::Code {
                log_line: self.log_line,
                instructions: &instructions,
            };
            return write_object(&mut self.out, &object);
        }
        if !line.ends_with(b"\n") {
            self.out.push(b'\n');
        }
        let colour = anstyle::AnsiColor::Red.on_default();
        for one in instructions {
            match one.faulting && self.style == Style::Colour {
                true => {
                    let line = one.to_line();
                    let text = format!("{colour}{}{colour:#}\n", line.trim_end());
                    self.out.extend_from_slice(text.as_bytes());
                }
                false => self.out.extend_from_slice(one.to_line().as_bytes()),
            }
        }
    }

    /// Decides what nothing in the log will decide: it ends, or pauses.
    pub fn settle(&mut self) {
        while !self.undecided.is_empty() {
            self.decide_first();
        }
    }

    fn decide_first(&mut self) {
        if let Some(first) = self.undecided.first() {
            let kind = if first.is_printed_return {
                Kind::Return
            } else {
                Kind::Exact
            };
            let ticket = first.ticket;
            decide(&mut self.undecided, &mut self.out, ticket, kind);
        }
    }

    /// A last line for [`Style::Json`].
    pub fn summarize(&mut self) {
        if self.style == Style::Json {
            let object = Object::Summary {
                summary: &self.summary,
            };
            write_object(&mut self.out, &object);
        }
    }

    /// What can be printed.
    pub fn ready(&self) -> &[u8] {
        let end = self
            .undecided
            .first()
            .map_or(self.out.len(), |first| first.lines_at);
        &self.out[..end]
    }

    /// Whether there is anything that a later frame decides.
    pub const fn is_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }

    /// Drops what was [`Annotator::ready`].
    pub fn taken(&mut self) {
        let end = self.ready().len();
        self.out.drain(..end);
        for undecided in &mut self.undecided {
            undecided.lines_at -= end;
            undecided.at -= end;
        }
    }
}

/// Puts in the text of an undecided frame; gives how long it is.
fn decide(undecided: &mut Vec<Undecided>, out: &mut Vec<u8>, ticket: Ticket, kind: Kind) -> usize {
    let position = undecided.iter().position(|one| one.ticket == ticket);
    let Some(position) = position else {
        return 0;
    };
    let decided = undecided.remove(position);
    let text = decided.texts.into_iter().find(|(of, _)| *of == kind);
    let Text { lines, location } = text.map(|(_, text)| text).unwrap_or_default();
    for later in &mut undecided[position..] {
        // On the same line, the lines of inlined functions follow those of the frame before.
        let is_same_line = later.lines_at == decided.lines_at;
        later.lines_at += lines.len() + if is_same_line { 0 } else { location.len() };
        later.at += lines.len() + location.len();
    }
    let len = lines.len() + location.len();
    out.splice(decided.at..decided.at, location);
    out.splice(decided.lines_at..decided.lines_at, lines);
    len
}

/// What knows where frames are, and the answers it gave: logs repeat their frames.
///
/// Each frame has `WAYS` places for its answer, so a log with more frames than places costs no more
/// than it would without.
#[derive(Debug)]
pub struct Answers<R> {
    resolver: R,
    /// Hashes of frame and kind, by their low bits; empty until the first answer.
    keys: Vec<[u64; WAYS]>,
    /// The answers, in the same order.
    places: Vec<Option<Answer>>,
    /// Which of its places the next answer takes.
    next: usize,
    /// Frames of the kernel whose symbol has another size: the first [`OTHERS_MAX`].
    other_sizes: HashSet<u64>,
    /// How often one had the same.
    same_sizes: usize,
}

/// How many frames with another size are told apart.
const OTHERS_MAX: usize = 1024;

/// What was answered for a frame.
#[derive(Clone, Debug)]
struct Answer {
    kind: Kind,
    text: Vec<u8>,
    outcome: Outcome,
}

impl<R: Resolve> Answers<R> {
    /// No answers yet.
    pub fn new(resolver: R) -> Self {
        Self {
            resolver,
            keys: Vec::new(),
            places: Vec::new(),
            next: 0,
            other_sizes: HashSet::new(),
            same_sizes: 0,
        }
    }

    /// What knows where frames are.
    pub const fn resolver(&mut self) -> &mut R {
        &mut self.resolver
    }

    /// Different frames of the kernel whose symbols have another size than in the log, and the same.
    pub fn sizes(&self) -> (usize, usize) {
        (self.other_sizes.len(), self.same_sizes)
    }

    /// Forgets the answers, as the resolver will give others.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.places.clear();
    }

    fn of(&mut self, frame: &Frame<'_>, kind: Kind) -> Result<&Outcome, Error> {
        // A ticket makes no difference to the answer.
        let kind = match kind {
            Kind::Warning(_) => Kind::Exact,
            kind => kind,
        };
        if self.places.is_empty() {
            self.keys.resize(ANSWERS_MAX / WAYS, [0; WAYS]);
            self.places.resize(ANSWERS_MAX, None);
        }
        let number = match kind {
            Kind::Return => 0,
            Kind::Unreliable => 1,
            Kind::Exact | Kind::Warning(_) => 2,
            Kind::Trap => 3,
            Kind::Start => 4,
            Kind::Data => 5,
        };
        let key = frame.id ^ number;
        let set = key as usize % self.keys.len();
        let is_it = |place: &Option<Answer>| {
            let answer = place.as_ref();
            answer.is_some_and(|known| known.kind == kind && known.text == frame.text)
        };
        let mut known = (0..WAYS).filter(|way| self.keys[set][*way] == key);
        let known = known.find(|way| is_it(&self.places[set * WAYS + way]));
        let place = set * WAYS + known.unwrap_or(self.next);
        if known.is_none() {
            let outcome = match kind {
                Kind::Data => Outcome::Data,
                _ => self.resolver.resolve(frame, kind)?,
            };
            if frame.module.is_none() {
                match &outcome {
                    Outcome::OtherSize => {
                        // A `WARN` is asked for as each kind that it may be.
                        if self.other_sizes.len() < OTHERS_MAX {
                            self.other_sizes.insert(frame.id);
                        }
                    }
                    Outcome::Found(_) | Outcome::NoLine | Outcome::Ambiguous(_) => {
                        self.same_sizes += 1;
                    }
                    Outcome::Named(..)
                    | Outcome::UnknownSymbol
                    | Outcome::NoModule
                    | Outcome::NoKernel
                    | Outcome::Data => {}
                }
            }
            // What was allocated for the answer that was there serves again.
            let mut text = self.places[place].take().map_or(Vec::new(), |old| old.text);
            text.clear();
            text.extend_from_slice(frame.text);
            self.keys[set][self.next] = key;
            self.places[place] = Some(Answer {
                kind,
                text,
                outcome,
            });
            self.next = (self.next + 1) % WAYS;
        }
        let known = self.places[place].as_ref();
        Ok(known.map_or(&Outcome::Data, |known| &known.outcome))
    }
}

/// Writes what comes out for a frame.
#[derive(Clone, Copy, Debug)]
struct TextWriter<'a> {
    style: Style,
    inlines: bool,
    /// The line of the log.
    line: &'a [u8],
    log_line: u64,
    host: &'a [u8],
}

impl TextWriter<'_> {
    fn write(self, to: &mut Text, frame: &Frame<'_>, kind: Kind, outcome: &Outcome) {
        let location = match outcome {
            Outcome::Found(location) | Outcome::Named(_, Some(location)) => Some(location),
            _ => None,
        };
        let (before, after) = match self.style {
            Style::Colour => {
                let colour = anstyle::AnsiColor::Cyan.on_default();
                (format!("{colour}"), format!("{colour:#}"))
            }
            Style::Plain => Default::default(),
            Style::Json => {
                return self.write_frame(&mut to.location, frame, kind, outcome, location);
            }
        };
        if let Outcome::Named(function, _) = outcome
            && frame.symbol.is_empty()
        {
            to.location.push(b' ');
            to.location.extend_from_slice(function.as_bytes());
        }
        let Some(location) = location else {
            return;
        };
        let push = |to: &mut Vec<u8>, location: &LocationBuf| {
            to.extend_from_slice(b" ");
            to.extend_from_slice(before.as_bytes());
            to.push(b'(');
            location.push_to(to);
            to.push(b')');
            to.extend_from_slice(after.as_bytes());
        };
        // What is perhaps no return address is not taken apart.
        if !self.inlines || kind == Kind::Unreliable || location.frames.is_empty() {
            return push(&mut to.location, location);
        }
        for inlined in location.inlined() {
            to.lines.extend_from_slice(self.prefix(frame, kind));
            to.lines.push(b' ');
            to.lines.extend_from_slice(before.as_bytes());
            inlined.push_to(&mut to.lines);
            to.lines.extend_from_slice(after.as_bytes());
            to.lines.push(b'\n');
        }
        push(&mut to.location, &location.physical());
    }

    /// What the line of an inlined function begins with, but for a space: what that of the frame has before
    /// its symbol, or, where this is more than a time, the time.
    fn prefix(&self, frame: &Frame<'_>, kind: Kind) -> &[u8] {
        let before = &self.line[..frame.start];
        match kind {
            Kind::Return => before.strip_suffix(b" ").unwrap_or(before),
            _ => {
                let end = before.windows(2).rposition(|pair| pair == b"] ");
                &before[..end.map_or(0, |end| end + 2)]
            }
        }
    }

    fn write_frame(
        self,
        to: &mut Vec<u8>,
        frame: &Frame<'_>,
        kind: Kind,
        outcome: &Outcome,
        location: Option<&LocationBuf>,
    ) {
        let symbol = String::from_utf8_lossy(frame.symbol);
        let [module, module_build_id] = [
            frame.module.map(|module| module.name),
            frame
                .module
                .map(|module| module.build_id)
                .filter(|id| !id.is_empty()),
        ]
        .map(|word| word.map(String::from_utf8_lossy));
        let object = Object::Frame {
            log_line: self.log_line,
            host: &String::from_utf8_lossy(self.host),
            symbol: &symbol,
            offset: frame.offset,
            size: frame.size,
            address: frame.address.map(|address| format!("{address:#x}")),
            function: match outcome {
                Outcome::Named(function, _) => Some(function),
                _ => None,
            },
            module: module.as_deref(),
            module_build_id: module_build_id.as_deref(),
            kind: match kind {
                Kind::Return => "return",
                Kind::Unreliable => "unreliable",
                Kind::Exact => "exact",
                Kind::Trap => "trap",
                Kind::Start => "start",
                Kind::Warning(_) => "warning",
                Kind::Data => "data",
            },
            status: outcome.status(),
            candidates: match outcome {
                Outcome::Ambiguous(candidates) => Some(*candidates),
                _ => None,
            },
            file: location.map(|location| &*location.file),
            line: location.map(|location| location.line),
            approximate: location.is_some_and(|location| location.approximate),
            frames: location.map_or(&[], |location| &location.frames),
        };
        write_object(to, &object);
    }
}

fn write_object(to: &mut Vec<u8>, object: &Object<'_>) {
    json::write(to, FORMAT_VERSION, object).expect("strings and numbers are JSON");
}
