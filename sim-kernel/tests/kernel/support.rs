//! Kernels to boot, a client of the socket, and tables to load.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE, Op, Reply, Request};
use lineinfo_core::uapi::{Errno, Ioctl, Lookup, Status};
use lineinfo_core::writer;
use lineinfo_core::{Address, Row};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use tempfile::TempDir;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

pub(crate) const KERNEL: &str = env!("CARGO_BIN_EXE_sim-kernel");

/// Nothing takes so long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kernel that is running; killed where a test forgets it.
pub(crate) struct Kernel {
    child: Child,
    lines: Receiver<String>,
    /// All lines of its console that were looked at.
    pub(crate) console: Vec<String>,
    stdin: Option<ChildStdin>,
    socket: PathBuf,
    _directory: TempDir,
}

impl Kernel {
    /// Boots with a socket, and commands from the test; waits until it is ready.
    pub(crate) fn boot(command_line: &[&str]) -> Self {
        Self::boot_image(Path::new(KERNEL), command_line)
    }

    /// The same with another image.
    pub(crate) fn boot_image(image: &Path, command_line: &[&str]) -> Self {
        let directory = open_directory();
        let socket = directory.path().join("lineinfo.sock");
        let mut command = Command::new(image);
        command
            .arg("--socket")
            .arg(&socket)
            .arg("--")
            .args(command_line);
        let mut kernel = Self::start(command, socket, directory);
        kernel.wait_for("lineinfo: ready on");
        kernel
    }

    /// Starts anything whose console is to be watched.
    pub(crate) fn start(mut command: Command, socket: PathBuf, directory: TempDir) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command);
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
            console: Vec::new(),
            socket,
            _directory: directory,
        }
    }

    /// Gives init a command.
    pub(crate) fn command(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        writeln!(stdin, "{line}").expect("init reads");
    }

    /// Closes init's input.
    pub(crate) fn end_of_input(&mut self) {
        self.stdin = None;
    }

    /// Waits for a line that contains this, and gives it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {text:?} after\n{}", self.console.join("\n"));
            };
            self.console.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Runs a command and gives what it printed, log lines included.
    pub(crate) fn output_of(&mut self, command: &str) -> Vec<String> {
        let start = self.console.len();
        self.command(command);
        self.command("echo --done--");
        self.wait_for("--done--");
        let mut lines = self.console.split_off(start);
        lines.pop();
        lines
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A new connection, nothing opened yet.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// A connection with the device open for loading.
    pub(crate) fn loader(&self) -> Client {
        Client::loader(&self.socket)
    }

    /// Loads a table, all of it at once.
    pub(crate) fn load(&self, blob: &[u8]) -> Result<(), u32> {
        let mut client = self.loader();
        client.write_all(blob)?;
        client.commit()
    }

    pub(crate) fn status(&self) -> Status {
        let mut client = self.connect();
        client.open(OPEN_READ).expect("open for reading");
        client.status()
    }

    /// Waits for the end, and gives all that was printed.
    pub(crate) fn finish(mut self) -> (ExitStatus, Vec<String>) {
        self.end_of_input();
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.console.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("{error} after\n{}", self.console.join("\n")),
            }
        }
        let status = self.child.wait().expect("it was started");
        (status, std::mem::take(&mut self.console))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // It may be gone, and has nothing to lose.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Starts a process. An image that was just written may still be open in a child of another test.
pub(crate) fn spawn(command: &mut Command) -> Child {
    let end = Instant::now() + PATIENCE;
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < end =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            child => return child.expect("the kernel starts"),
        }
    }
}

/// A temporary directory that other users can look into.
pub(crate) fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
        .expect("it is our directory");
    directory
}

/// Runs a script to its end.
pub(crate) fn run_script(script: &str, command_line: &[&str]) -> (ExitStatus, Vec<String>) {
    let directory = open_directory();
    let path = directory.path().join("script");
    fs::write(&path, script).expect("write the script");
    let mut command = Command::new(KERNEL);
    command
        .arg("--script")
        .arg(&path)
        .arg("--")
        .args(command_line);
    Kernel::start(command, PathBuf::new(), directory).finish()
}

/// The client of the socket.
pub(crate) struct Client(pub(crate) UnixStream);

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the socket accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self(stream)
    }

    /// A connection with the device open for loading.
    ///
    /// A child that another test is starting has the connections of this process until it executes
    /// its program, and so may keep the last loader's open a moment longer.
    pub(crate) fn loader(socket: &Path) -> Self {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut client = Self::connect(socket);
            match client.open(OPEN_READ | OPEN_WRITE) {
                Err(errno) if errno == Errno::EBUSY.number() && Instant::now() < end => {
                    thread::sleep(Duration::from_millis(10));
                }
                opened => {
                    opened.expect("open for writing");
                    return client;
                }
            }
        }
    }

    /// The reply's value and payload, or its errno.
    pub(crate) fn request(
        &mut self,
        op: u32,
        arg: u32,
        payload: &[u8],
    ) -> Result<(u32, Vec<u8>), u32> {
        let len = u32::try_from(payload.len()).expect("a small payload");
        let request = Request { op, arg, len };
        self.0
            .write_all(&[request.as_bytes(), payload].concat())
            .expect("it listens");
        self.reply()
    }

    pub(crate) fn reply(&mut self) -> Result<(u32, Vec<u8>), u32> {
        let mut reply = Reply::new_zeroed();
        self.0.read_exact(reply.as_mut_bytes()).expect("it answers");
        let mut payload = vec![0; reply.len as usize];
        self.0.read_exact(&mut payload).expect("it answers");
        match reply.errno {
            0 => Ok((reply.value, payload)),
            errno => Err(errno),
        }
    }

    pub(crate) fn open(&mut self, flags: u32) -> Result<(), u32> {
        self.request(Op::Open.number(), flags, &[]).map(drop)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), u32> {
        let (taken, _) = self.request(Op::Write.number(), 0, bytes)?;
        assert_eq!(taken as usize, bytes.len());
        Ok(())
    }

    /// Writes in pieces of the largest size.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<(), u32> {
        bytes
            .chunks(64 * 1024)
            .try_for_each(|piece| self.write(piece))
    }

    pub(crate) fn ioctl(&mut self, request: Ioctl, argument: &[u8]) -> Result<Vec<u8>, u32> {
        let (_, payload) = self.request(Op::Ioctl.number(), request.code(), argument)?;
        Ok(payload)
    }

    pub(crate) fn commit(&mut self) -> Result<(), u32> {
        self.ioctl(Ioctl::Commit, &[]).map(drop)
    }

    pub(crate) fn unload(&mut self) -> Result<(), u32> {
        self.ioctl(Ioctl::Unload, &[]).map(drop)
    }

    pub(crate) fn status(&mut self) -> Status {
        let bytes = self.ioctl(Ioctl::Status, &[]).expect("the status");
        Status::read_from_bytes(&bytes).expect("a status")
    }

    pub(crate) fn lookup_return_address(&mut self, address: u64) -> Lookup {
        let question = Lookup::new(Address::Return(address));
        let bytes = self
            .ioctl(Ioctl::Lookup, question.as_bytes())
            .expect("an answer");
        Lookup::read_from_bytes(&bytes).expect("an answer")
    }

    pub(crate) fn read(&mut self, at: u32) -> Result<Vec<u8>, u32> {
        self.request(Op::Read.number(), at, &[])
            .map(|(_, text)| text)
    }
}

/// What a test knows about the image.
pub(crate) struct Image {
    pub(crate) build_id: Vec<u8>,
    text: Range<u64>,
    /// Functions by link-time address, names demangled.
    pub(crate) functions: Vec<(u64, String)>,
}

impl Image {
    pub(crate) fn read() -> Self {
        let bytes = fs::read(KERNEL).expect("the image");
        let elf = object::File::parse(&*bytes).expect("an ELF file");
        let text = elf.section_by_name(".text").expect("text");
        let text = text.address()..text.address() + text.size();
        let mut functions: Vec<(u64, String)> = elf
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && text.contains(&symbol.address()))
            .map(|symbol| {
                let name = rustc_demangle::demangle(symbol.name().expect("a name"));
                (symbol.address(), format!("{name:#}"))
            })
            .collect();
        functions.sort();
        functions.dedup_by_key(|(address, _)| *address);
        let build_id = elf.build_id().expect("notes").expect("a build-id");
        Self {
            build_id: build_id.to_vec(),
            text,
            functions,
        }
    }

    /// The line of the n-th function in the tables below: from 1.
    pub(crate) fn line_of(&self, function: &str) -> Option<usize> {
        let found = self.functions.iter().position(|(_, name)| name == function);
        found.map(|position| position + 1)
    }

    /// A table in which every function is one line of one file.
    pub(crate) fn blob(&self, encoding: Encoding) -> Vec<u8> {
        self.blob_for(62, &self.build_id, encoding)
    }

    pub(crate) fn blob_for(&self, machine: u16, build_id: &[u8], encoding: Encoding) -> Vec<u8> {
        let offset = |address: u64| u32::try_from(address - self.text.start).expect("small text");
        let rows: Vec<Row> = self
            .functions
            .iter()
            .zip(1..)
            .map(|((address, _), line)| Row {
                start: offset(*address),
                file: 0,
                line,
            })
            .collect();
        let region = writer::Region {
            name: ".text",
            start: 0,
            len: offset(self.text.end),
            init: false,
            rows: &rows,
        };
        let image = writer::Image {
            machine,
            build_id,
            text_start: self.text.start,
            profile: Profile::Full,
            files: &["sim.rs"],
            exact_files: 1,
            regions: &[region],
        };
        writer::encode(&image, encoding).expect("a table")
    }
}

/// The image with a blob behind it, as `lineinfo append` makes it.
pub(crate) fn append(
    directory: &TempDir,
    blob: &[u8],
    spoil: impl FnOnce(&mut Vec<u8>),
) -> PathBuf {
    let mut bytes = fs::read(KERNEL).expect("the image");
    let (pad, footer) = lineinfo_core::footer::append(bytes.len() as u64, blob).expect("small");
    bytes.extend_from_slice(pad);
    bytes.extend_from_slice(blob);
    bytes.extend_from_slice(footer.as_bytes());
    spoil(&mut bytes);
    let path = directory.path().join("image");
    let mut file = File::create(&path).expect("a file");
    file.write_all(&bytes).expect("write the image");
    file.set_permissions(fs::Permissions::from_mode(0o755))
        .expect("our file");
    path
}
