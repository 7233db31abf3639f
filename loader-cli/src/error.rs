//! Why a command fails, and with which exit status.

use std::io;
use std::path::PathBuf;

use lineinfo_core::footer::Signature;
use lineinfo_core::uapi::Errno;

use crate::extract::BadUnits;
use crate::kind::{Foreign, Wanted};
use crate::output::OutputError;
use crate::symbols::SymbolsError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation on a file failed.
    #[error("{}: {}", path.display(), io_words(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Results could not be printed.
    #[error("stdout: {0}")]
    Stdout(#[source] io::Error),
    /// What should be a regular file is something else.
    #[error("{}: is {found}; name {}", path.display(), match *found {
        "a directory" => "a file in it",
        "an empty file" => "another one",
        _ => "a file",
    })]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file is of another kind than is expected.
    #[error("{0}")]
    Foreign(Foreign),
    /// A file is not ELF, or damaged.
    #[error("{}: not a usable ELF file: {source}", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ElfError,
    },
    /// Executable sections of a file share addresses.
    #[error(
        "{}: {count} executable sections share addresses with another, first {name} at {address:#x}: a table has no rows of them",
        path.display()
    )]
    OverlappingText {
        /// The file.
        path: PathBuf,
        /// Name of the first.
        name: String,
        /// Its address.
        address: u64,
        /// How many there are.
        count: usize,
    },
    /// The DWARF of a file is damaged or of an unknown kind.
    #[error("{}: debug information: {source}", path.display())]
    Dwarf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: gimli::Error,
    },
    /// A file would take more memory than it may.
    #[error("{}: {source}", path.display())]
    Budget {
        /// The file.
        path: PathBuf,
        /// For what, and how much.
        source: BudgetError,
    },
    /// Units of the debug information are damaged.
    #[error(
        "{}: {} of {} units are damaged: {}; build it again, or leave them out by building without --strict",
        path.display(),
        bad.count,
        bad.of,
        bad.first.first().map(ToString::to_string).unwrap_or_default()
    )]
    BadUnits {
        /// The file.
        path: PathBuf,
        /// Which.
        bad: BadUnits,
    },
    /// The file with the strings that dwz has moved out of a debug file is missing.
    #[error(
        "{}: its supplementary file {} is missing, which has directories of source files; install it beside, or below --debug-dir",
        path.display(),
        supplement.display()
    )]
    Supplement {
        /// The debug file.
        path: PathBuf,
        /// What it calls the other.
        supplement: PathBuf,
    },
    /// A file is not a private key that can sign.
    #[error(
        "{}: no Ed25519 private key: it is {found}; make one with `openssl genpkey -algorithm ed25519 -out key.pem`, or name a file of 32 bytes",
        path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The signature of a table is not that of the key that it names.
    #[error(
        "{}: its signature does not match key {key}: the table was changed after it was signed, or the signature is forged; copy it again, or sign it with `lineinfo sign`",
        path.display()
    )]
    Signature {
        /// The table.
        path: PathBuf,
        /// The key that it names.
        key: String,
    },
    /// A directory of an option is missing.
    #[error("{option} {}: there is no such directory; name one that exists", path.display())]
    NoDirectory {
        /// The option.
        option: &'static str,
        /// What was given.
        path: PathBuf,
    },
    /// No file of an image is below the root of the sources that was given.
    #[error(
        "{}: none of its files is below --source-root {root}: {}; leave --source-root out",
        path.display(),
        match found.as_str() {
            "" => "their names are relative".to_owned(),
            found => format!("they are below {found}"),
        }
    )]
    SourceRoot {
        /// The image.
        path: PathBuf,
        /// What was given.
        root: String,
        /// What is found from the DWARF.
        found: String,
    },
    /// An image has no build-id to name its table by.
    #[error(
        "{}: it has no build-id, by which --store and --firmware name tables; link it with --build-id=sha1, or name its table with -o",
        path.display()
    )]
    NoBuildId {
        /// The image.
        path: PathBuf,
    },
    /// A directory has no image in it.
    #[error(
        "{}: no module (.ko) and no vmlinux is below this directory; name one that has some, like /lib/modules/$(uname -r), or an image itself",
        path.display()
    )]
    NoImages {
        /// The directory.
        path: PathBuf,
    },
    /// An ELF file has no line tables.
    #[error(
        "{}: no .debug_line section: build it with debug information (CONFIG_DEBUG_INFO, -g), or name the file that has it (a -dbg package)",
        path.display()
    )]
    NoDebugInformation {
        /// The file.
        path: PathBuf,
    },
    /// A separate debug file belongs to another image.
    #[error(
        "{}: is not the debug file of {}: {source}; install the one of this build, or name its directory with --debug-dir",
        path.display(),
        image_path.display()
    )]
    DebugFile {
        /// The debug file.
        path: PathBuf,
        /// The image.
        image_path: PathBuf,
        /// How that is known.
        source: DebugFileError,
    },
    /// A program that was to be compared with did not do its work.
    #[error(
        "{}: answered {answers} of {questions} addresses of {}: {}; run it by hand, or compare without --oracle",
        program.display(),
        image_path.display(),
        if said.is_empty() { "it says nothing" } else { said }
    )]
    Oracle {
        /// The program.
        program: PathBuf,
        /// The image that it was to read.
        image_path: PathBuf,
        /// Addresses that it was given.
        questions: usize,
        /// Answers that came back.
        answers: usize,
        /// What it printed as an error.
        said: String,
    },
    /// There is no instruction decoder for a machine, so calls and traps cannot be found.
    #[error(
        "{}: no instruction decoder for {}: its calls are not known; build with --profile full",
        path.display(),
        crate::machine_name(*machine)
    )]
    NoDecoder {
        /// The image.
        path: PathBuf,
        /// ELF machine number (`e_machine`).
        machine: u16,
    },
    /// The rows do not fit the format.
    #[error("{}: {source}", path.display())]
    Encode {
        /// The file they came from.
        path: PathBuf,
        /// What does not fit.
        source: lineinfo_core::writer::EncodeError,
    },
    /// A blob was refused.
    #[error("{}: {source}", path.display())]
    Blob {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: lineinfo_core::Error,
    },
    /// The blob at the end of an image is damaged.
    #[error("{}: {source}", path.display())]
    Footer {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        source: lineinfo_core::footer::FooterError,
    },
    /// An image has no appended blob.
    #[error(
        "{}: no lineinfo footer at its end, nor before at most 1 MiB of padding or a signature: nothing is appended to it",
        path.display()
    )]
    NothingAppended {
        /// The image.
        path: PathBuf,
    },
    /// A file cannot be written, or is not known to be.
    #[error("{}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OutputError,
    },
    /// An image is signed.
    #[error(
        "{}: has {} at its end, which would become invalid; append or strip before you sign, or add --force and sign again",
        path.display(),
        match signature {
            Signature::Module => "a module signature",
            Signature::Pe { .. } => "a PE certificate table",
        }
    )]
    Signed {
        /// The image.
        path: PathBuf,
        /// Its kind.
        signature: Signature,
    },
    /// A blob is too large for a footer.
    #[error("{}: a blob of {size_bytes} bytes is too large to append", path.display())]
    TooLarge {
        /// The blob.
        path: PathBuf,
        /// Its size.
        size_bytes: usize,
    },
    /// A blob and an image belong to different builds.
    #[error(
        "{}: build-id {blob} is not that of {}, {image}; build the table from this image, or add --force",
        blob_path.display(),
        image_path.display()
    )]
    OtherBuild {
        /// The blob.
        blob_path: PathBuf,
        /// Its build-id in hexadecimal.
        blob: String,
        /// The image.
        image_path: PathBuf,
        /// Its build-id in hexadecimal.
        image: String,
    },
    /// A table is not of the kernel, or the module, that it is to be loaded for.
    #[error(
        "{}: its build-id is {table}, and {} takes tables of {running}; build it from the image that runs, or name its module with --module",
        path.display(),
        device.display()
    )]
    NotRunning {
        /// The table.
        path: PathBuf,
        /// Its build-id in hexadecimal.
        table: String,
        /// The device.
        device: PathBuf,
        /// The build-id of what runs, in hexadecimal.
        running: String,
    },
    /// A device and a directory with `sys` are of different kernels.
    #[error(
        "{}: its kernel has the build-id {device_build}, and that of {}sys/kernel/notes is {root_build}; name the directory of its sys and proc with --root, or its device with --device",
        device.display(),
        root.join("").display()
    )]
    OtherRoot {
        /// The device.
        device: PathBuf,
        /// What it says.
        device_build: String,
        /// The directory.
        root: PathBuf,
        /// What is said there.
        root_build: String,
    },
    /// A file gives no symbols.
    #[error("{}: {source}", path.display())]
    Symbols {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SymbolsError,
    },
    /// There is no file of the kernel that wrote a log.
    #[error(
        "no vmlinux of {kernel} in {places}: install its -dbg package, name its directory with --dir, or the file with --vmlinux{others}"
    )]
    NoKernel {
        /// Its release or build-id.
        kernel: String,
        /// Where it was looked for.
        places: String,
        /// What is there instead, a line for each file.
        others: String,
    },
    /// A log was not written by the kernel that it is to be decoded with.
    #[error("the log {log}, and {}: {kernel}; {remedy}, or add --force", path.display())]
    OtherKernel {
        /// What the log says.
        log: String,
        /// The file of the kernel.
        path: PathBuf,
        /// What the file says.
        kernel: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The device refused an operation.
    #[error("{}: {operation}: {}{}", path.display(), errno_name(*errno), reason_suffix(reason))]
    Device {
        /// The device.
        path: PathBuf,
        /// What was asked for.
        operation: &'static str,
        /// Its answer.
        errno: u32,
        /// The reason it gives, if any.
        reason: String,
    },
    /// The device does not speak the protocol.
    #[error("{}: not a lineinfo device: {found}", path.display())]
    NotADevice {
        /// The path.
        path: PathBuf,
        /// What it is or did.
        found: String,
    },
    /// Something that should be an address is not.
    #[error(
        "{text:?} is not an address: give it in hexadecimal, like 0xffffffff81000000, or as symbol+0x10"
    )]
    Address {
        /// What was given.
        text: String,
    },
    /// Arguments do not fit together.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// Wraps what the system said of a path.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// The reader of stdout went away, as `head` does when it has seen enough.
    pub fn is_closed_stdout(&self) -> bool {
        matches!(self, Self::Stdout(source) if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit status: 1 failed, 2 usage, 4 corrupt, wrong version or wrong build.
    pub fn exit_code(&self) -> u8 {
        let corrupt = [Errno::EBADMSG, Errno::ENOEXEC, Errno::ESTALE].map(Errno::number);
        match self {
            Self::Address { .. }
            | Self::Usage(_)
            | Self::NoDirectory { .. }
            | Self::SourceRoot { .. }
            | Self::Output {
                source: OutputError::Input | OutputError::Terminal,
                ..
            } => exit::USAGE,
            Self::Foreign(Foreign {
                wanted: Wanted::Table,
                ..
            })
            | Self::Blob { .. }
            | Self::Footer { .. }
            | Self::OtherBuild { .. }
            | Self::NotRunning { .. }
            | Self::OtherRoot { .. }
            | Self::Signature { .. }
            | Self::OtherKernel { .. } => exit::CORRUPT,
            Self::Device { errno, .. } if corrupt.contains(errno) => exit::CORRUPT,
            _ => exit::FAILED,
        }
    }
}

/// How it is known that a debug file belongs to another image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebugFileError {
    /// The build-ids differ.
    #[error("its build-id is {found:?}, the image's {expected:?}")]
    BuildId {
        /// That of the image, in hexadecimal.
        expected: String,
        /// That of the debug file.
        found: String,
    },
    /// The checksum is not the one in `.gnu_debuglink`.
    #[error("its CRC-32 is {found:08x}, the image's .gnu_debuglink says {expected:08x}")]
    Checksum {
        /// What the image says.
        expected: u32,
        /// That of the debug file.
        found: u32,
    },
    /// The executable sections differ.
    #[error("it has no such executable section {name}")]
    Sections {
        /// One that differs.
        name: String,
    },
}

/// Something that grows with what a file says would take more memory than the file may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "{what}: {bytes} bytes of memory besides {used}, and the limit is {limit}, for files of {files} bytes; if the file is not damaged, raise it with --max-memory"
)]
pub struct BudgetError {
    /// What would take it.
    pub what: &'static str,
    /// How much it would take, in bytes.
    pub bytes: u64,
    /// What all else takes.
    pub used: u64,
    /// The limit.
    pub limit: u64,
    /// Size of the image and its debug files.
    pub files: u64,
}

/// What is wrong with an ELF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// Its structure is damaged.
    #[error(transparent)]
    Structure(#[from] object::read::Error),
    /// An executable section is too large for a table, or beyond the end of the address space.
    #[error(
        "executable section {name} of {size} bytes at {address:#x}; a table holds 4 GiB of text"
    )]
    TextSection {
        /// Name of the section.
        name: String,
        /// Its address.
        address: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// The name of an executable section cannot be printed.
    #[error(
        "executable section {name:?}: a table takes names of 1 to 512 bytes without control characters; rename it with objcopy --rename-section"
    )]
    SectionName {
        /// The name.
        name: String,
    },
    /// It would take too much memory.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// Sections share bytes of the file.
    #[error("its sections have {sections} bytes, and the file {file}: they overlap; copy it again")]
    Overlap {
        /// Sum of their sizes in the file.
        sections: u64,
        /// Size of the file.
        file: u64,
    },
    /// A relocation of debug information is of an unknown kind or outside its section.
    #[error("relocation {relocation} at byte {at} of {section} is not one of debug information")]
    Relocation {
        /// Name of the section.
        section: String,
        /// Where it applies, in bytes from the start of the section.
        at: u64,
        /// Its type.
        relocation: String,
    },
}

/// The exit statuses.
pub mod exit {
    /// All went well.
    pub const DONE: u8 = 0;
    /// Something failed.
    pub const FAILED: u8 = 1;
    /// The arguments do not make sense.
    pub const USAGE: u8 = 2;
    /// Some addresses have no line.
    pub const UNRESOLVED: u8 = 3;
    /// A blob is corrupt, of another version or build, or differs from its image.
    pub const CORRUPT: u8 = 4;
}

/// What the system says of a file, and what to do.
fn io_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file; check its name".to_owned(),
        io::ErrorKind::NotADirectory => {
            "a part of its path is a file, not a directory; check its name".to_owned()
        }
        io::ErrorKind::IsADirectory => "it is a directory; name a file in it".to_owned(),
        io::ErrorKind::PermissionDenied => format!("{error}; run as a user who may, or as root"),
        _ => error.to_string(),
    }
}

fn errno_name(errno: u32) -> String {
    match Errno::from_number(errno) {
        Some(errno) => errno.name().to_owned(),
        None => io::Error::from_raw_os_error(errno as i32).to_string(),
    }
}

fn reason_suffix(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}
