//! The device against a model of it: processes that open it, write, make requests, stop, close it
//! and are killed, in any order, through the socket and through the mounted file.
//!
//! ```text
//!   steps (proptest) ──> Model: what each step must return, and what the status must be
//!         │                                         │ compared after each step
//!         └──> clients: processes of root and of nobody ──socket, file──> sim-kernel
//! ```
//!
//! Every step is possible at any time; the model knows what it is refused with. Only the clock is not
//! the test's: where a step takes place so close to the time-out that either answer is right, the
//! model adopts the one that came.
//!
//! `LINEINFO_MODEL_CASES` says how many sequences of steps are tried with each transport. Where the
//! host has no python3, does not let a kernel mount its files, or does not run a client as another
//! user, the tests are shown as ignored, with the reason.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use lineinfo_core::blob::{Encoding, Header, Profile};
use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE, Op};
use lineinfo_core::uapi::{AddressBase, Errno, Ioctl, State, Target};
use lineinfo_core::writer::{
    Image, InlineChain, InlinedFunction, Inlines, Region, encode, encode_with_inlines,
};
use lineinfo_core::{Address, Row, uapi};
use lineinfo_harness::Client as Observer;
use lineinfo_tests::{Binaries, Kernel, meminfo_kb};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

const NOBODY: u32 = 65534;
/// `EACCES`: the host turns away who may not write to the file, before the kernel hears of it.
const EACCES: u32 = 13;
/// `lineinfo.timeout=`.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Clocks of two processes, one of them in whole milliseconds.
const CLOCKS: Duration = Duration::from_millis(20);
/// How many sequences of steps are tried, and the most steps of one.
const CASES: u32 = 12;
const STEPS_MAX: usize = 50;
/// How long a failure is made smaller, in milliseconds: each attempt boots a kernel.
const SHRINK_MS_MAX: u32 = 60_000;
/// How long the kernel may take to see that a client has gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(30);

/// A client: one line is one operation, and is answered with an errno and what a request brought.
const CLIENT: &str = r#"
import fcntl, os, socket, struct, sys

OPEN, WRITE, IOCTL, READ_FLAG, WRITE_FLAG = map(int, sys.argv[1:])

class Socket:
    def __init__(self, path, writing):
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.connect(path)
        self.request(OPEN, READ_FLAG | (WRITE_FLAG if writing else 0), b"")
    def request(self, op, arg, payload):
        self.stream.sendall(struct.pack("=3I", op, arg, len(payload)) + payload)
        errno, _, size = struct.unpack("=3I", self.stream.recv(12, socket.MSG_WAITALL))
        answer = self.stream.recv(size, socket.MSG_WAITALL) if size else b""
        if errno:
            raise OSError(errno, "")
        return answer
    def write(self, data):
        self.request(WRITE, 0, data)
    def half(self, data):
        self.stream.sendall(struct.pack("=3I", WRITE, 0, len(data) + 1) + data)
    def ioctl(self, code, argument):
        return self.request(IOCTL, code, argument)
    def close(self):
        self.stream.close()

class File:
    def __init__(self, path, writing):
        self.file = os.open(path, os.O_RDWR if writing else os.O_RDONLY)
    def write(self, data):
        assert os.write(self.file, data) == len(data)
    def half(self, data):
        pass
    def ioctl(self, code, argument):
        return fcntl.ioctl(self.file, code, argument)
    def close(self):
        os.close(self.file)

device = None
for line in sys.stdin:
    what, *arguments = line.split(" ")
    errno, answer = 0, b""
    try:
        if what == "open":
            transport, writing, path = arguments
            device = (Socket if transport == "socket" else File)(path.strip(), writing == "1")
        elif what == "ioctl":
            answer = device.ioctl(int(arguments[0]), bytes.fromhex(arguments[1]))
        elif what == "close\n":
            device.close()
        else:
            getattr(device, what)(bytes.fromhex(arguments[0]))
    except OSError as error:
        errno = error.errno
    print(errno, answer.hex(), flush=True)
"#;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trial = |transport: Transport| {
        let name = format!("the device does what its model does, over the {transport:?}");
        match Setting::find(transport) {
            Ok(setting) => Trial::test(name, move || Ok(test(&setting)?)),
            Err(reason) => Trial::test(format!("{name} (skipped: {reason:#})"), || Ok(()))
                .with_ignored_flag(true),
        }
    };
    let trials = vec![trial(Transport::Socket), trial(Transport::File)];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What lies between a client and the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Socket,
    File,
}

/// What the test needs of the host.
struct Setting {
    binaries: Binaries,
    transport: Transport,
}

impl Setting {
    fn find(transport: Transport) -> Result<Self> {
        let python = Command::new("python3").arg("--version").output();
        ensure!(python.is_ok(), "python3 is not installed");
        ensure!(
            Uid::effective().is_root(),
            "only root runs a client as another user"
        );
        let setting = Self {
            binaries: Binaries::build(false)?,
            transport,
        };
        let machine = Machine::boot(&setting)?;
        let refused = machine.kernel.log.iter().find_map(|line| {
            let (_, reason) = line.split_once("mount: no files on ")?;
            Some(reason.to_owned())
        });
        match refused {
            None => Ok(setting),
            Some(reason) => anyhow::bail!("{reason}"),
        }
    }
}

fn test(setting: &Setting) -> Result<()> {
    let cases = std::env::var("LINEINFO_MODEL_CASES").ok();
    let cases = cases.map_or(Ok(CASES), |text| text.parse())?;
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_time: SHRINK_MS_MAX,
        ..Config::default()
    };
    let (steps_done, refused) = (Cell::new(0), Cell::new(0));
    let tested = TestRunner::new(config).run(&steps(), |steps| {
        let run = Run::new(setting).and_then(|mut run| {
            for step in &steps {
                run.step(step).with_context(|| format!("{step:?}"))?;
                steps_done.set(steps_done.get() + 1);
            }
            refused.set(refused.get() + run.refused);
            run.end()
        });
        run.map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    println!(
        "{cases} cases, {} steps, {} of them refused",
        steps_done.get(),
        refused.get()
    );
    Ok(tested?)
}

/// What a client does.
#[derive(Clone, Debug)]
enum Step {
    /// Opens the device, to write this table if it is for writing.
    Open { writing: bool, table: usize },
    /// Writes so many bytes of its table, from where it is.
    Write(usize),
    /// Writes all that is left of its table.
    WriteRest,
    /// Writes all that is left, and a byte more.
    WritePastEnd,
    /// Makes a request; if it is a look-up, this one.
    Ioctl(Ioctl, Question),
    /// Closes the device.
    Close,
    /// Is killed.
    Kill,
    /// Is killed after it has sent a part of a request.
    KillInRequest,
    /// Nobody does anything until the time is over.
    Wait,
}

/// A look-up.
#[derive(Clone, Copy, Debug)]
struct Question {
    base: AddressBase,
    level: u16,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let request = prop::sample::select(Ioctl::ALL);
    let question = || {
        (prop::sample::select(AddressBase::ALL), 0..5_u16)
            .prop_map(|(base, level)| Question { base, level })
    };
    let step = prop_oneof![
        6 => (prop::bool::weighted(0.8), prop_oneof![4 => 0..GOOD_TABLES, 1 => GOOD_TABLES..TABLES])
            .prop_map(|(writing, table)| Step::Open { writing, table }),
        6 => prop_oneof![1..97_usize, 96..2000_usize].prop_map(Step::Write),
        6 => Just(Step::WriteRest),
        1 => Just(Step::WritePastEnd),
        8 => (request, question()).prop_map(|(request, question)| Step::Ioctl(request, question)),
        3 => question().prop_map(|question| Step::Ioctl(Ioctl::Lookup, question)),
        3 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => Just(Step::KillInRequest),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec((0..CLIENTS, step), 1..STEPS_MAX)
}

/// The clients: two of root, and one of nobody.
const CLIENTS: usize = 3;
const CLIENT_OF_NOBODY: usize = 2;
/// Three tables of the kernel, the last of them with inlined functions; one with a wrong byte, one of another
/// kernel.
const TABLES: usize = 5;
const GOOD_TABLES: usize = 3;

/// What comes of a table when all of it is written.
const OUTCOMES: [Result<(), Errno>; TABLES] = [
    Ok(()),
    Ok(()),
    Ok(()),
    Err(Errno::EBADMSG),
    Err(Errno::ESTALE),
];

/// Where look-ups are, and what the good tables say of it: line and function, innermost first.
const OFFSET: u64 = 5;
const LOCATIONS: [&[(u32, &str)]; GOOD_TABLES] = [
    &[(2, "")],
    &[(2, "")],
    &[(7, "inner"), (8, "outer"), (9, "")],
];

fn tables(build_id: &[u8]) -> Result<[Vec<u8>; TABLES]> {
    let row = |start, line| Row {
        start,
        file: 0,
        line,
    };
    let table = |build_id: &[u8], count: u32| {
        let rows: Vec<Row> = (0..count).map(|n| row(n * 4, n + 1)).collect();
        with_image(build_id, &rows, |image| encode(image, Encoding::Flat)).context("a table")
    };
    let mut damaged = table(build_id, 30)?;
    *damaged.last_mut().context("a byte")? ^= 1;
    let inlines = Inlines {
        functions: ["inner", "outer"]
            .map(|name| InlinedFunction::new(name, 0, 1))
            .to_vec(),
        chains: vec![InlineChain::new(0, &[(1, 9), (0, 8)])],
    };
    let with_inlines = with_image(build_id, &[row(0, 7), row(8, 20)], |image| {
        encode_with_inlines(image, &inlines, &[&[Some(0), None]], Encoding::Packed)
    });
    Ok([
        table(build_id, 10)?,
        table(build_id, 700)?,
        with_inlines.context("a table")?,
        damaged,
        table(&[0xab; 20], 20)?,
    ])
}

fn with_image<T>(build_id: &[u8], rows: &[Row], then: impl FnOnce(&Image<'_>) -> T) -> T {
    let region = Region {
        name: ".text",
        start: 0,
        len: 0x10000,
        init: false,
        rows,
    };
    then(&Image {
        machine: 62,
        build_id,
        text_start: 0x1000,
        profile: Profile::Full,
        files: &["a.rs"],
        exact_files: 1,
        regions: &[region],
    })
}

/// What the device must be like.
#[derive(Debug, Default)]
struct Model {
    /// Which table is loaded.
    loaded: Option<usize>,
    /// What was last refused.
    last_refusal: Option<Errno>,
    /// The file that is open for writing.
    writer: Option<Writer>,
    files: [Option<File>; CLIENTS],
}

#[derive(Debug)]
struct Writer {
    client: usize,
    load: Load,
    /// Its last request was sent and answered between these.
    sent: Instant,
    answered: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Written(usize),
    Published,
    Refused(Errno),
}

impl Load {
    const fn is_begun(self) -> bool {
        matches!(self, Self::Written(1..))
    }
}

/// The file of a client.
#[derive(Debug)]
struct File {
    writing: bool,
    table: usize,
    /// Something was written that is not published, refused or discarded.
    begun: bool,
}

/// Whether the next opener can have the device.
enum Idle {
    No,
    Yes,
    /// It depends on microseconds.
    Perhaps,
}

impl Model {
    fn refuse(&mut self, errno: Errno) -> Result<(), Errno> {
        self.last_refusal = Some(errno);
        Err(errno)
    }

    /// The load of a client that has the device open for writing.
    fn load_of(&mut self, client: usize) -> Result<&mut Load, Errno> {
        if !self.files[client].as_ref().is_some_and(|file| file.writing) {
            return Err(Errno::EBADF);
        }
        match &mut self.writer {
            Some(writer) if writer.client == client => Ok(&mut writer.load),
            _ => {
                self.last_refusal = Some(Errno::ETIMEDOUT);
                Err(Errno::ETIMEDOUT)
            }
        }
    }

    fn set_load(&mut self, client: usize, load: Load) {
        if let Some(writer) = &mut self.writer {
            writer.load = load;
        }
        if let Some(file) = &mut self.files[client] {
            file.begun = load.is_begun();
        }
    }

    fn write(&mut self, client: usize, len: usize, size: usize) -> Result<(), Errno> {
        let outcome = self.files[client]
            .as_ref()
            .map_or(Ok(()), |file| OUTCOMES[file.table]);
        let load = *self.load_of(client)?;
        let done = match load {
            Load::Refused(errno) => return Err(errno),
            Load::Published => return self.refuse(Errno::EINVAL),
            Load::Written(before) if before + len < size => {
                self.set_load(client, Load::Written(before + len));
                return Ok(());
            }
            Load::Written(before) if before + len > size => Err(Errno::ENOEXEC),
            Load::Written(_) => outcome,
        };
        match done {
            Ok(()) => {
                self.set_load(client, Load::Published);
                self.loaded = self.files[client].as_ref().map(|file| file.table);
                Ok(())
            }
            Err(errno) => {
                self.set_load(client, Load::Refused(errno));
                self.refuse(errno)
            }
        }
    }

    fn ioctl(&mut self, client: usize, request: Ioctl, question: Question) -> Result<(), Errno> {
        match request {
            Ioctl::Status => Ok(()),
            Ioctl::Commit => match *self.load_of(client)? {
                Load::Refused(errno) => Err(errno),
                Load::Published => Ok(()),
                Load::Written(_) => {
                    self.set_load(client, Load::Refused(Errno::ENOEXEC));
                    self.refuse(Errno::ENOEXEC)
                }
            },
            Ioctl::Abort => {
                self.load_of(client)?;
                self.set_load(client, Load::Written(0));
                Ok(())
            }
            Ioctl::Unload => {
                self.load_of(client)?;
                match self.loaded.take() {
                    Some(_) => Ok(()),
                    None => self.refuse(Errno::ENODATA),
                }
            }
            Ioctl::Lookup
                if client == CLIENT_OF_NOBODY && question.base == AddressBase::RunTime =>
            {
                Err(Errno::EPERM)
            }
            Ioctl::Lookup => self.loaded.map(drop).ok_or(Errno::ENODATA),
            // No module of that name is loaded.
            Ioctl::Target => match &self.files[client] {
                Some(file) if file.begun => Err(Errno::EINVAL),
                _ => Err(Errno::ENOENT),
            },
        }
    }

    /// What is wrong with the answer to a look-up.
    fn check_answer(
        &self,
        question: Question,
        tables: &[Vec<u8>; TABLES],
        answer: &uapi::Lookup,
    ) -> Result<()> {
        let table = self.loaded.context("it was answered")?;
        let (header, _) = Header::ref_from_prefix(&tables[table])
            .ok()
            .context("a header")?;
        let checksum = header.crc32.get();
        let frames = match question.base {
            AddressBase::Text => LOCATIONS[table],
            // No text is at address 0.
            AddressBase::RunTime => &[],
        };
        let frame = frames.get(usize::from(question.level));
        let levels = match frames.len() {
            1 => 0,
            levels => levels,
        };
        let (line, function) = frame.copied().unwrap_or_default();
        let found = (answer.levels, answer.result, answer.line);
        let expected = (levels as u16, u32::from(frame.is_some()), line);
        ensure!(found == expected, "{found:?}, the model says {expected:?}");
        let found = answer.function().unwrap_or_default();
        ensure!(found == function, "{found:?} and not {function:?}");
        ensure!(answer.checksum == checksum, "the checksum of another table");
        Ok(())
    }

    /// What closing the file of a client returns, where the host asks the kernel.
    fn close(&mut self, client: usize) -> Result<(), Errno> {
        let Some(file) = self.files[client].take() else {
            return Ok(());
        };
        let mine = self.writer.take_if(|writer| writer.client == client);
        match mine {
            _ if !file.begun => Ok(()),
            Some(_) => Err(Errno::ENOEXEC),
            None => Err(Errno::ETIMEDOUT),
        }
    }

    fn idle(&self, from: Instant, to: Instant) -> Idle {
        let Some(writer) = &self.writer else {
            return Idle::Yes;
        };
        if to.saturating_duration_since(writer.sent) + CLOCKS < TIMEOUT {
            Idle::No
        } else if from.saturating_duration_since(writer.answered) > TIMEOUT + CLOCKS {
            Idle::Yes
        } else {
            Idle::Perhaps
        }
    }
}

/// A kernel, its clients, and the model.
struct Run {
    clients: [Option<Client>; CLIENTS],
    observer: Observer,
    model: Model,
    tables: [Vec<u8>; TABLES],
    /// How many steps were refused.
    refused: u32,
    transport: Transport,
    /// Dropped after its clients.
    machine: Machine,
}

impl Run {
    fn new(setting: &Setting) -> Result<Self> {
        let machine = Machine::boot(setting)?;
        let mut observer = Observer::connect(machine.kernel.socket());
        observer.open(OPEN_READ).ok().context("open for reading")?;
        Ok(Self {
            clients: [const { None }; CLIENTS],
            tables: tables(observer.status().build_id())?,
            observer,
            model: Model::default(),
            refused: 0,
            transport: setting.transport,
            machine,
        })
    }

    fn step(&mut self, (client, step): &(usize, Step)) -> Result<()> {
        let client = *client;
        match (step, &self.model.files[client]) {
            (Step::Wait, _) => thread::sleep(TIMEOUT + 2 * CLOCKS),
            (Step::Open { writing, table }, None) => self.open(client, *writing, *table)?,
            // What it has open already it does not open again, and nothing else without it.
            (Step::Open { .. }, Some(_)) | (_, None) => return Ok(()),
            (Step::Write(len), Some(_)) => self.write(client, *len, false)?,
            (Step::WriteRest, Some(_)) => self.write(client, usize::MAX, false)?,
            (Step::WritePastEnd, Some(_)) => self.write(client, usize::MAX, true)?,
            (Step::Ioctl(request, question), Some(_)) => self.ioctl(client, *request, *question)?,
            (Step::Close, Some(_)) => {
                let found = self.client(client)?.ask("close")?;
                let closed = self.model.close(client);
                // Closing a connection does not fail.
                let expected = match self.transport {
                    Transport::Socket => Ok(()),
                    Transport::File => closed,
                };
                self.compare(expected.map_err(Errno::number), found)?;
            }
            (Step::Kill, Some(_)) => self.kill(client)?,
            (Step::KillInRequest, Some(_)) => {
                self.client(client)?.ask("half 00ff")?;
                self.kill(client)?;
            }
        }
        self.check()
    }

    fn client(&mut self, client: usize) -> Result<&mut Client> {
        let slot = &mut self.clients[client];
        Ok(match slot {
            Some(running) => running,
            None => slot.insert(Client::start(client == CLIENT_OF_NOBODY)?),
        })
    }

    fn open(&mut self, client: usize, writing: bool, table: usize) -> Result<()> {
        let path = self.machine.device(self.transport);
        let transport = format!("{:?}", self.transport).to_lowercase();
        let line = format!("open {transport} {} {}", u8::from(writing), path.display());
        self.client(client)?;
        let sent = Instant::now();
        let found = self.client(client)?.ask(&line)?;
        let answered = Instant::now();
        let expected = match (writing, client) {
            (false, _) => Ok(()),
            (true, CLIENT_OF_NOBODY) if self.transport == Transport::File => Err(EACCES),
            // No slot is told of an open that is refused.
            (true, CLIENT_OF_NOBODY) => Err(Errno::EPERM.number()),
            (true, _) => {
                let busy = match self.model.idle(sent, answered) {
                    Idle::No => true,
                    Idle::Yes => false,
                    Idle::Perhaps => found == Errno::EBUSY.number(),
                };
                if busy {
                    Err(Errno::EBUSY.number())
                } else {
                    let load = Load::Written(0);
                    self.model.writer = Some(Writer {
                        client,
                        load,
                        sent,
                        answered,
                    });
                    Ok(())
                }
            }
        };
        if expected.is_ok() {
            self.model.files[client] = Some(File {
                writing,
                table,
                begun: false,
            });
        }
        self.compare(expected, found)
    }

    fn write(&mut self, client: usize, len: usize, past_end: bool) -> Result<()> {
        let table = self.model.files[client]
            .as_ref()
            .map_or(0, |file| file.table);
        let blob = &self.tables[table];
        let size = blob.len();
        // Where the load is not in the middle of a table, any bytes will do.
        let at = match &self.model.writer {
            Some(Writer {
                client: writer,
                load: Load::Written(at),
                ..
            }) if *writer == client => *at,
            _ => 0,
        };
        let mut bytes = blob[at..size.min(at.saturating_add(len))].to_vec();
        if past_end {
            bytes.push(0);
        }
        let line = format!("write {}", hex(&bytes));
        self.request(client, &line, |model| {
            model.write(client, bytes.len(), size)
        })
    }

    fn ioctl(&mut self, client: usize, request: Ioctl, question: Question) -> Result<()> {
        let argument = match request {
            Ioctl::Lookup => {
                let Question { base, level } = question;
                let address = match base {
                    AddressBase::Text => OFFSET,
                    AddressBase::RunTime => 0,
                };
                let lookup = uapi::Lookup::from_base(Address::Exact(address), base);
                uapi::Lookup { level, ..lookup }.as_bytes().to_vec()
            }
            Ioctl::Target => Target::module("none")
                .context("a name")?
                .as_bytes()
                .to_vec(),
            Ioctl::Status | Ioctl::Commit | Ioctl::Unload | Ioctl::Abort => {
                vec![0; request.size()]
            }
        };
        let line = format!("ioctl {} {}", request.code(), hex(&argument));
        self.request(client, &line, |model| {
            model.ioctl(client, request, question)
        })?;
        let answer = &self.client(client)?.answer;
        if request == Ioctl::Lookup && !answer.is_empty() {
            let answer = uapi::Lookup::read_from_bytes(answer);
            let answer = answer.ok().context("an answer of another size")?;
            self.model.check_answer(question, &self.tables, &answer)?;
        }
        Ok(())
    }

    /// A request of an open file, which shows that its client is still there.
    fn request(
        &mut self,
        client: usize,
        line: &str,
        expect: impl FnOnce(&mut Model) -> Result<(), Errno>,
    ) -> Result<()> {
        let sent = Instant::now();
        let found = self.client(client)?.ask(line)?;
        let answered = Instant::now();
        let writer = self.model.writer.as_mut();
        // The host turns away who writes to a file that is open for reading.
        if let Some(writer) = writer.filter(|writer| writer.client == client) {
            (writer.sent, writer.answered) = (sent, answered);
        }
        let expected = expect(&mut self.model);
        self.compare(expected.map_err(Errno::number), found)
    }

    fn kill(&mut self, client: usize) -> Result<()> {
        self.clients[client].take().context("a client")?.kill()?;
        // It does not hear of it.
        let _closed = self.model.close(client);
        Ok(())
    }

    fn compare(&mut self, expected: Result<(), u32>, found: u32) -> Result<()> {
        self.refused += u32::from(found != 0);
        let expected = expected.err().unwrap_or(0);
        ensure!(
            found == expected,
            "errno {found}, the model says {expected}: {:?}",
            self.model
        );
        Ok(())
    }

    /// Compares the status of the kernel with the model.
    fn check(&mut self) -> Result<()> {
        let status = self.observer.status();
        let (state, bytes) = match self.model.loaded {
            Some(table) => (State::Loaded, self.tables[table].len()),
            None => (State::Empty, 0),
        };
        let refusal = self.model.last_refusal.map_or(0, Errno::number);
        let expected = (state.number(), bytes as u64, refusal);
        let found = (status.state, status.bytes, status.last_errno);
        ensure!(
            found == expected,
            "state, bytes and last errno {found:?}, the model says {expected:?}: {:?}",
            self.model
        );
        Ok(())
    }

    /// Ends all clients: the memory in use is that of the table, and the device can be opened.
    fn end(mut self) -> Result<()> {
        for client in 0..CLIENTS {
            if self.clients[client].is_some() {
                self.kill(client)?;
            }
        }
        let table_kb = self.observer.status().memory / 1024;
        let end = Instant::now() + GONE_TIMEOUT;
        loop {
            let lines = self.machine.kernel.command("meminfo")?;
            let used_kb = meminfo_kb(&lines, "VmallocUsed")?;
            if used_kb == table_kb {
                break;
            }
            ensure!(
                Instant::now() < end,
                "{used_kb} kB in use for {table_kb} kB"
            );
            thread::sleep(Duration::from_millis(10));
        }
        let mut loader = Observer::loader(self.machine.kernel.socket());
        let loaded = loader.write_all(&self.tables[0]);
        ensure!(loaded.is_ok(), "the next load: {loaded:?}");
        Ok(())
    }
}

/// A process that uses the device; killed when dropped.
struct Client {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// What its last operation brought.
    answer: Vec<u8>,
}

impl Client {
    fn start(as_nobody: bool) -> Result<Self> {
        let mut command = Command::new("python3");
        command.args(["-c", CLIENT]);
        for op in [Op::Open, Op::Write, Op::Ioctl] {
            command.arg(op.number().to_string());
        }
        command.args([OPEN_READ, OPEN_WRITE].map(|flag| flag.to_string()));
        if as_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("start python3")?;
        Ok(Self {
            stdin: process.stdin.take().context("piped")?,
            stdout: BufReader::new(process.stdout.take().context("piped")?),
            answer: Vec::new(),
            process,
        })
    }

    /// Does an operation; returns its errno.
    fn ask(&mut self, line: &str) -> Result<u32> {
        writeln!(self.stdin, "{line}")?;
        let mut answer = String::new();
        self.stdout.read_line(&mut answer)?;
        let said = || format!("{line}: {answer:?}");
        let (errno, brought) = answer
            .trim_end()
            .split_once(' ')
            .unwrap_or((answer.trim_end(), ""));
        self.answer = unhex(brought).with_context(said)?;
        errno.parse().with_context(said)
    }

    fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A kernel with its socket and, if the clients use that, its mounted files.
struct Machine {
    kernel: Kernel,
    /// Unmounted before it is removed: the kernel is dropped first.
    directory: TempDir,
}

impl Machine {
    fn boot(setting: &Setting) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
        let socket = directory.path().join("sock");
        let mut command = Command::new(&setting.binaries.sim_kernel);
        command.arg("--socket").arg(&socket);
        if setting.transport == Transport::File {
            let mountpoint = directory.path().join("mnt");
            std::fs::create_dir(&mountpoint)?;
            command.arg("--mount").arg(&mountpoint);
        }
        command.args(["--", "lineinfo=off"]);
        command.arg(format!("lineinfo.timeout={}", TIMEOUT.as_secs()));
        Ok(Self {
            kernel: Kernel::start(&mut command, &socket)?,
            directory,
        })
    }

    fn device(&self, transport: Transport) -> PathBuf {
        match transport {
            Transport::Socket => self.kernel.socket().to_owned(),
            Transport::File => self.directory.path().join(Path::new("mnt/dev/lineinfo")),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A kernel that is killed cannot unmount; one that has ended has.
        let _unmounted = kill(
            Pid::from_raw(self.kernel.pid().cast_signed()),
            Signal::SIGTERM,
        );
        let _ended = self.kernel.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Result<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        anyhow::bail!("an odd number of digits");
    };
    let byte = |pair: &[u8; 2]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    pairs.iter().map(byte).collect()
}
