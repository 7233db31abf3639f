//! Kernels to boot, and tables to load; what fails here fails the test.

use std::fs::{self, File};
use std::io::Write;
use std::ops::{Deref, DerefMut, Range};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use lineinfo_core::Row;
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::uapi::Status;
use lineinfo_core::uapi::socket::OPEN_READ;
use lineinfo_core::writer::{self, InlineChain, InlinedFunction, Inlines};
pub(crate) use lineinfo_harness::Client;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use tempfile::TempDir;
use zerocopy::IntoBytes;

pub(crate) const KERNEL: &str = env!("CARGO_BIN_EXE_sim-kernel");

/// A kernel that is running, with the directory of its files.
pub(crate) struct Kernel {
    kernel: lineinfo_harness::Kernel,
    _directory: TempDir,
}

impl Deref for Kernel {
    type Target = lineinfo_harness::Kernel;

    fn deref(&self) -> &Self::Target {
        &self.kernel
    }
}

impl DerefMut for Kernel {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.kernel
    }
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
        let kernel = lineinfo_harness::Kernel::boot(image, &socket, command_line);
        Self {
            kernel: kernel.expect("the kernel boots"),
            _directory: directory,
        }
    }

    /// Starts anything whose console is to be watched.
    pub(crate) fn start(mut command: Command, socket: PathBuf, directory: TempDir) -> Self {
        let kernel = lineinfo_harness::Kernel::spawn(&mut command, &socket);
        Self {
            kernel: kernel.expect("the kernel starts"),
            _directory: directory,
        }
    }

    /// Gives init a command.
    pub(crate) fn command(&mut self, line: &str) {
        self.kernel.send(line).expect("init reads");
    }

    /// Waits for a line that contains this, and returns it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let lines = self.kernel.wait_for(text).expect("the line comes");
        lines.last().expect("a line").clone()
    }

    /// Runs a command and returns what it printed, log lines included.
    pub(crate) fn output_of(&mut self, command: &str) -> Vec<String> {
        self.kernel.command(command).expect("init answers")
    }

    /// A new connection, nothing opened yet.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.socket())
    }

    /// A connection with the device open for loading.
    pub(crate) fn loader(&self) -> Client {
        Client::loader(self.socket())
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

    /// Waits for the end, and returns all that was printed.
    pub(crate) fn finish(self) -> (ExitStatus, Vec<String>) {
        self.kernel.finish().expect("the kernel ends")
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
        self.with_image(machine, build_id, |image| {
            writer::encode(image, encoding).expect("a table")
        })
    }

    /// A packed table as [`Image::blob`], in which `inner` is inlined into `outer` at line 8000, and that into
    /// every function at line 7000.
    pub(crate) fn blob_with_inlines(&self) -> Vec<u8> {
        let inlines = Inlines {
            functions: ["inner", "outer"]
                .map(|name| InlinedFunction::new(name, 0, 1))
                .to_vec(),
            chains: vec![InlineChain::new(0, &[(1, 7000), (0, 8000)])],
        };
        let chains = vec![Some(0); self.functions.len()];
        self.with_image(62, &self.build_id, |image| {
            writer::encode_with_inlines(image, &inlines, &[&chains], Encoding::Packed)
                .expect("a table")
        })
    }

    fn with_image<T>(
        &self,
        machine: u16,
        build_id: &[u8],
        then: impl FnOnce(&writer::Image<'_>) -> T,
    ) -> T {
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
        then(&image)
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
