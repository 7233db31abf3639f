//! A stream of logs from many machines, as a collector of syslog, of netconsole or of journals has it.
//!
//! ```text
//!   line ─ Sender ─> Client: what this machine wrote before, its release and build-id
//!            │                                   │
//!            └─> Annotator <── Answers <── Kernel, one for each build-id
//! ```
//!
//! Each machine has a state of its own, and all machines of one kernel share its tables. A machine whose
//! kernel is not known yet is looked for in what was read already: a `WARN` names the kernel after its
//! first frame. Both are bounded: what was not used for the longest time goes first.
//!
//! An entry of a journal (`journalctl -o export`) is read as a whole, for its message may come before
//! the name of the machine.

use std::collections::HashMap;

use bstr::ByteSlice;

use crate::error::Error;
use crate::images::{Images, Options};
use crate::log::{
    Annotator, Answers, Facts, Frame, Kind, Line, Machine, Outcome, Resolve, Sender, Style,
};

/// Machines whose state is kept; at least the half of them that wrote last.
pub const CLIENTS_MAX: usize = 4096;

/// CPUs and threads of each that are kept apart.
const WRITERS_MAX: usize = 64;

/// Kernels whose tables are kept, with those of their modules.
pub const KERNELS_MAX: usize = 16;

/// Releases and build-ids that are remembered to be of a kernel, or of none.
const KNOWN_MAX: usize = 4096;

/// How far after a frame it is looked for what kernel the machine has, in bytes.
const AHEAD_MAX: usize = 64 << 10;

/// The largest entry of a journal that is read, in bytes; a larger one passes as it is.
const ENTRY_MAX: usize = 1 << 20;

/// What the entries of `journalctl -o export` begin with.
const ENTRY_START: &[u8] = b"__CURSOR=";

/// Names one of the kernels; none is used twice.
type KernelId = u64;

/// Annotates a stream from many machines.
#[derive(Debug)]
pub struct Fleet {
    annotator: Annotator,
    clients: HashMap<Box<[u8]>, Client>,
    kernels: HashMap<KernelId, Kernel>,
    /// For machines whose kernel is not known.
    no_kernel: Answers<NoKernel>,
    /// What kernel is of a release and build-id; `None` if none is found.
    known: HashMap<Facts, Option<KernelId>>,
    options: Options,
    /// `Code:` lines are disassembled.
    code: bool,
    entry: Option<Entry>,
    /// Counts lines, to know what was used last.
    now: u64,
    next: KernelId,
    notes: Vec<String>,
}

/// A machine.
#[derive(Debug)]
struct Client {
    machine: Machine,
    facts: Facts,
    kernel: Option<KernelId>,
    used: u64,
}

/// A kernel with its modules.
#[derive(Debug)]
struct Kernel {
    answers: Answers<Images>,
    used: u64,
}

/// Knows no frame.
#[derive(Debug)]
struct NoKernel;

impl Resolve for NoKernel {
    fn resolve(&mut self, _: &Frame<'_>, _: Kind) -> Result<Outcome, Error> {
        Ok(Outcome::NoKernel)
    }
}

impl Fleet {
    /// Nothing was read yet; `code` says whether `Code:` lines are disassembled, `inlines` whether inlined
    /// functions have lines of their own.
    pub fn new(options: Options, style: Style, code: bool, inlines: bool) -> Self {
        Self {
            annotator: Annotator::new(style, inlines),
            clients: HashMap::new(),
            kernels: HashMap::new(),
            no_kernel: Answers::new(NoKernel),
            known: HashMap::new(),
            options,
            code,
            entry: None,
            now: 0,
            next: 0,
            notes: Vec::new(),
        }
    }

    /// What comes out, and the counters.
    pub const fn annotator(&mut self) -> &mut Annotator {
        &mut self.annotator
    }

    /// What was said of files since the last call, for stderr.
    pub fn take_notes(&mut self) -> Vec<String> {
        let mut notes = std::mem::take(&mut self.notes);
        for kernel in self.kernels.values_mut() {
            notes.extend(kernel.answers.resolver().take_notes());
        }
        notes
    }

    /// Whether a kernel is of another build than the machines that say they have it: functions have other
    /// sizes, and none the same.
    pub fn has_other_build(&self) -> bool {
        let mut sizes = self.kernels.values().map(|kernel| kernel.answers.sizes());
        sizes.any(|(other, same)| other > 1 && same == 0)
    }

    /// Takes a line, with its newline if it has one; `rest` is what was read after it.
    ///
    /// # Errors
    ///
    /// Those of [`Resolve::resolve`].
    pub fn line(&mut self, line: &[u8], rest: &[u8]) -> Result<(), Error> {
        if let Some(mut entry) = self.entry.take() {
            let is_whole = entry.add(line);
            if entry.bytes.len() > ENTRY_MAX {
                self.annotator.pass(&entry.bytes);
                return Ok(());
            }
            if is_whole {
                return self.entry(&entry);
            }
            self.entry = Some(entry);
            return Ok(());
        }
        if line.starts_with(ENTRY_START) {
            let mut entry = Entry::default();
            entry.add(line);
            self.entry = Some(entry);
            return Ok(());
        }
        let sender = Sender::of_line(line);
        let line = Line {
            bytes: line,
            sender,
        };
        self.of_client(line, rest)
    }

    /// The stream ends: what is left of an entry passes as it is.
    pub fn end(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.annotator.pass(&entry.bytes);
        }
    }

    /// An entry of a journal.
    fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        let lines = entry.fields();
        let field = |name: &[u8]| {
            let values = lines.iter().filter_map(|line| line.strip_prefix(name));
            values
                .map(|value| value.trim_end_with(|c| c == '\n'))
                .next()
        };
        let name = field(b"_HOSTNAME=").unwrap_or_default();
        for line in &lines {
            let head = b"MESSAGE=".len();
            match line.starts_with(b"MESSAGE=") {
                true => self.of_client(
                    Line {
                        bytes: line,
                        sender: Sender {
                            name,
                            head,
                            ..Sender::default()
                        },
                    },
                    b"",
                )?,
                false => self.annotator.pass(line),
            }
        }
        Ok(())
    }

    fn of_client(&mut self, line: Line<'_>, rest: &[u8]) -> Result<(), Error> {
        self.now += 1;
        let name = line.sender.name;
        if !self.clients.contains_key(name) {
            self.make_room();
            let client = Client {
                machine: Machine::with_writers(WRITERS_MAX),
                facts: Facts::default(),
                kernel: None,
                used: self.now,
            };
            self.clients.insert(name.into(), client);
        }
        let mut facts = facts_of(&line);
        let Some(client) = self.clients.get_mut(name) else {
            return Ok(());
        };
        client.used = self.now;
        if client.facts == Facts::default()
            && facts == Facts::default()
            && line.bytes.contains_str("+0x")
        {
            facts = ahead(name, rest);
        }
        let is_new = client.learn(&facts);
        let is_gone = |kernel: &KernelId| !self.kernels.contains_key(kernel);
        if is_new || client.kernel.as_ref().is_some_and(is_gone) {
            let facts = client.facts.clone();
            let kernel = self.kernel_of(&facts);
            if let Some(client) = self.clients.get_mut(name) {
                client.kernel = kernel;
            }
        }
        let Some(client) = self.clients.get_mut(name) else {
            return Ok(());
        };
        match client
            .kernel
            .and_then(|kernel| self.kernels.get_mut(&kernel))
        {
            Some(kernel) => {
                kernel.used = self.now;
                let answers = &mut kernel.answers;
                self.annotator.line(line, &mut client.machine, answers)?;
                if self.code
                    && let Some(bits) = answers.resolver().x86_bits()
                {
                    self.annotator.code(line.bytes, bits);
                }
                Ok(())
            }
            None => {
                let answers = &mut self.no_kernel;
                self.annotator.line(line, &mut client.machine, answers)
            }
        }
    }

    /// The kernel of a release and build-id.
    fn kernel_of(&mut self, facts: &Facts) -> Option<KernelId> {
        match self.known.get(facts) {
            Some(Some(kernel)) if self.kernels.contains_key(kernel) => return Some(*kernel),
            Some(None) => return None,
            _ => {}
        }
        let kernel = match Images::open(self.options.clone(), facts) {
            Ok(images) => Some(self.add(images)),
            Err(error) => {
                self.notes.push(error.to_string());
                None
            }
        };
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(facts.clone(), kernel);
        kernel
    }

    /// Adds a kernel, unless it is there.
    fn add(&mut self, mut images: Images) -> KernelId {
        let build_id = |images: &mut Images| {
            let build_id = images.kernel()?.symbols().build_id()?;
            (!build_id.is_empty()).then(|| build_id.to_owned())
        };
        let own = build_id(&mut images);
        for (known, kernel) in &mut self.kernels {
            if own.is_some() && build_id(kernel.answers.resolver()) == own {
                return *known;
            }
        }
        let oldest = self.kernels.iter().min_by_key(|(_, kernel)| kernel.used);
        let oldest = oldest.map(|(kernel, _)| *kernel);
        if let Some(oldest) = oldest.filter(|_| self.kernels.len() >= KERNELS_MAX) {
            self.kernels.remove(&oldest);
        }
        self.next += 1;
        let kernel = Kernel {
            answers: Answers::new(images),
            used: self.now,
        };
        self.kernels.insert(self.next, kernel);
        self.next
    }

    /// Forgets the half of the machines that wrote nothing for longest, if there are too many.
    fn make_room(&mut self) {
        if self.clients.len() < CLIENTS_MAX {
            return;
        }
        let mut used: Vec<u64> = self.clients.values().map(|client| client.used).collect();
        let middle = used.len() / 2;
        let (_, oldest, _) = used.select_nth_unstable(middle);
        let oldest = *oldest;
        self.clients.retain(|_, client| client.used > oldest);
    }
}

impl Client {
    /// Takes what a line says of the kernel, and says whether that is new. One of another release is
    /// another kernel.
    fn learn(&mut self, facts: &Facts) -> bool {
        let is_other =
            |known: &Option<String>, said: &Option<String>| said.is_some() && known != said;
        if is_other(&self.facts.release, &facts.release) {
            self.facts = facts.clone();
        } else if is_other(&self.facts.build_id, &facts.build_id) {
            self.facts.build_id.clone_from(&facts.build_id);
        } else {
            return false;
        }
        true
    }
}

/// What a line says of the kernel that wrote it.
fn facts_of(line: &Line<'_>) -> Facts {
    let facts = Facts::of_line(line.bytes);
    match (line.sender.release, &facts.release) {
        (Some(release), None) => Facts {
            release: Some(release.to_owned()),
            ..facts
        },
        _ => facts,
    }
}

/// What a machine says of its kernel in what was read already.
fn ahead(name: &[u8], rest: &[u8]) -> Facts {
    let rest = &rest[..rest.len().min(AHEAD_MAX)];
    let lines = rest.lines_with_terminator().map(|bytes| Line {
        bytes,
        sender: Sender::of_line(bytes),
    });
    let mut facts = lines
        .filter(|line| line.sender.name == name)
        .map(|line| facts_of(&line))
        .filter(|facts| *facts != Facts::default());
    facts.next().unwrap_or_default()
}

/// An entry of a journal, as far as it was read (systemd's Journal Export Format).
#[derive(Debug, Default)]
struct Entry {
    bytes: Vec<u8>,
    /// Where its fields start, in bytes.
    starts: Vec<usize>,
    /// Where the size of a binary field starts, which was not read to its end.
    binary: Option<usize>,
}

impl Entry {
    /// Adds bytes up to a newline; `true` if they end the entry.
    fn add(&mut self, line: &[u8]) -> bool {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(line);
        if let Some(size_at) = self.binary {
            let size = self.bytes[size_at..].first_chunk().copied();
            let read = self.bytes.len() - size_at;
            // The size, the data, and a newline.
            let is_whole = size.is_some_and(|size| {
                let size = usize::try_from(u64::from_le_bytes(size)).unwrap_or(usize::MAX);
                read > size.saturating_add(8)
            });
            if is_whole {
                self.binary = None;
            }
            return false;
        }
        self.starts.push(start);
        let text = line.trim_end_with(|c| c == '\n');
        if !text.contains(&b'=') && !text.is_empty() {
            self.binary = Some(self.bytes.len());
        }
        text.is_empty()
    }

    /// The fields, each with the newline that ends it.
    fn fields(&self) -> Vec<&[u8]> {
        let ends = self.starts.iter().skip(1).copied();
        let ends = ends.chain([self.bytes.len()]);
        let fields = self.starts.iter().zip(ends);
        fields
            .map(|(start, end)| &self.bytes[*start..end])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Fleet {
        let options = Options {
            search: crate::images::search::Search::default(),
            ..Options::default()
        };
        Fleet::new(options, Style::Plain, false, true)
    }

    #[test]
    fn memory_is_bounded() {
        let mut fleet = fleet();
        for number in 0..3 * CLIENTS_MAX {
            let line =
                format!("Nov 25 12:58:43 host{number} kernel: Linux version 6.{number}.0 x\n");
            fleet.line(line.as_bytes(), b"").expect("a line");
            assert!(fleet.clients.len() <= CLIENTS_MAX);
            assert!(fleet.known.len() <= KNOWN_MAX);
            fleet.annotator().taken();
            fleet.take_notes();
        }
        // The last ones are known.
        let last = format!("host{}", 3 * CLIENTS_MAX - 1);
        assert!(fleet.clients.contains_key(last.as_bytes()));
        assert!(fleet.clients.len() >= CLIENTS_MAX / 2);
        for writer in 0..1000 {
            let line = format!("10.0.0.5 4,1,2,-,caller=T{writer}; x\n");
            fleet.line(line.as_bytes(), b"").expect("a line");
        }
        // A journal's entry without an end.
        fleet.line(b"__CURSOR=x\n", b"").expect("a line");
        for _ in 0..3 * ENTRY_MAX / 1000 {
            let line = [&[b'='; 999][..], b"\n"].concat();
            fleet.line(&line, b"").expect("a line");
            let entry = fleet.entry.as_ref().map_or(0, |entry| entry.bytes.len());
            assert!(entry <= ENTRY_MAX, "{entry}");
            fleet.annotator().taken();
        }
    }
}
