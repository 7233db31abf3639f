//! Writing files so that nothing is lost.
//!
//! A regular file is replaced, never changed. Whatever fails, and if the power fails, its old contents
//! or the new ones are there, complete:
//!
//! ```text
//!  leftovers ─> temporary file ─> owner, mode, xattrs ─> fsync ─> rename ─> fsync of the directory
//!  removed      beside the file   of the old file
//! ```
//!
//! - Symbolic links are followed and stay.
//! - Of a file with several names (hard links) the others would keep the old contents, so it is
//!   refused, unless the caller says that this is wanted.
//! - A character device that is no terminal, a FIFO with a reader, and stdout are written to. Anything
//!   else that is no regular file is refused.
//! - A signal or a limit leaves no temporary file. What SIGKILL leaves is removed by the next run
//!   that writes in the same directory: a temporary file is locked (flock) while its run lives.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tempfile::NamedTempFile;
use xattr::FileExt;

use crate::error::Error;
use crate::files::same_file;
use crate::interrupt::Hold;

/// The name of stdout as an output.
const STDOUT: &str = "-";

const TEMPORARY_PREFIX: &str = ".lineinfo-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// What is to be done with a file that has more names than the one given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardLinks {
    /// Refuse to replace it.
    Refuse,
    /// Replace it under this name alone.
    Break,
}

/// Why something is not written, or not known to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The command reads it.
    #[error("is an input of this command; name another file")]
    Input,
    /// A FIFO whose other end is not open.
    #[error("is a FIFO that no process reads; start the reader first, or name a file")]
    NoReader,
    /// The directory that it would be in is missing.
    #[error("its directory does not exist; make it with `mkdir -p {}`", directory.display())]
    NoDirectory {
        /// The directory.
        directory: PathBuf,
    },
    /// A terminal.
    #[error(
        "is a terminal, and the output is no text to read; redirect it to a file or a pipe, or name a file"
    )]
    Terminal,
    /// A file with several names.
    #[error(
        "has {names} names (hard links), and the others would keep the old contents; remove this name first, or add --force to append or strip"
    )]
    HardLinks {
        /// How many.
        names: u64,
    },
    /// A step before the new file takes the old one's place failed.
    #[error("cannot be written: {source}; nothing was changed")]
    Write {
        /// What the system said.
        source: io::Error,
    },
    /// The new file cannot have what the old one has.
    #[error(
        "cannot keep its {attribute}: {source}; nothing was changed; run as root, or work on a copy"
    )]
    Attribute {
        /// What the old one has.
        attribute: String,
        /// What the system said.
        source: io::Error,
    },
    /// Some other program changed it.
    #[error("was changed by another program meanwhile; nothing was written; run the command again")]
    Changed,
    /// The new file is there, but a power failure may bring the old one back.
    #[error(
        "was replaced, but its directory was not flushed to disk: {source}; after a power failure the old file may be back; run sync"
    )]
    NotFlushed {
        /// What the system said.
        source: io::Error,
    },
}

/// A file, or something like one, that is going to be written.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    destination: Destination,
}

#[derive(Debug)]
enum Destination {
    Stdout(File),
    /// Written to as it is.
    Stream(File),
    /// Replaced, or made.
    File(Replacement),
}

/// The name of a file that is going to be replaced or made.
#[derive(Debug)]
struct Replacement {
    /// Without symbolic links.
    target: PathBuf,
    directory: PathBuf,
    /// What is there must still be this one.
    expected: Option<Version>,
}

/// A state of a file: every change of contents or attributes makes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Version {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Output {
    /// Finds out how to write to a path, or with `-` to stdout, and whether that can be done; writes
    /// nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::NotAFile`], [`Error::Output`] or [`Error::Io`].
    pub fn at(path: &Path, hard_links: HardLinks) -> Result<Self, Error> {
        let failed = |source| Error::Output {
            path: path.to_owned(),
            source,
        };
        let refused = |found| Error::NotAFile {
            path: path.to_owned(),
            found,
        };
        if path == Path::new(STDOUT) {
            return Self::stdout();
        }
        let found = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io(path)(error)),
        };
        let open = |flags: OFlag| {
            OpenOptions::new()
                .append(true)
                .custom_flags((flags | OFlag::O_NOCTTY).bits())
                .open(path)
        };
        let stream = match &found {
            Some(metadata) if metadata.is_dir() => return Err(refused("a directory")),
            Some(metadata) if metadata.file_type().is_block_device() => {
                return Err(refused("a block device"));
            }
            Some(metadata) if metadata.file_type().is_char_device() => {
                let device = open(OFlag::empty()).map_err(Error::io(path))?;
                if device.is_terminal() {
                    return Err(failed(OutputError::Terminal));
                }
                Some(device)
            }
            Some(metadata) if is_stdout(metadata) => return Self::stdout(),
            Some(metadata) if metadata.file_type().is_fifo() => {
                // Without a reader this fails, where a blocking open would wait for one.
                match open(OFlag::O_NONBLOCK) {
                    Ok(fifo) => {
                        fcntl(&fifo, FcntlArg::F_SETFL(OFlag::O_APPEND))
                            .map_err(|errno| Error::io(path)(errno.into()))?;
                        Some(fifo)
                    }
                    Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
                        return Err(failed(OutputError::NoReader));
                    }
                    Err(error) => return Err(Error::io(path)(error)),
                }
            }
            Some(metadata) if metadata.file_type().is_socket() => {
                return Err(refused("a socket"));
            }
            Some(_) | None => None,
        };
        let resolved = resolve(path).map_err(|(found, error)| match error.kind() {
            io::ErrorKind::NotFound => failed(OutputError::NoDirectory { directory: found }),
            _ => Error::io(path)(error),
        })?;
        let destination = match (stream, resolved) {
            (Some(stream), _) => Destination::Stream(stream),
            (None, Resolved::OpenFile) => {
                Destination::Stream(open(OFlag::empty()).map_err(Error::io(path))?)
            }
            (None, Resolved::Name { directory, target }) => {
                if let (Some(metadata), HardLinks::Refuse) = (&found, hard_links)
                    && metadata.nlink() > 1
                {
                    let names = metadata.nlink();
                    return Err(failed(OutputError::HardLinks { names }));
                }
                Destination::File(Replacement {
                    target,
                    directory,
                    expected: None,
                })
            }
        };
        Ok(Self {
            path: path.to_owned(),
            destination,
        })
    }

    fn stdout() -> Result<Self, Error> {
        let path = PathBuf::from("stdout");
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let stdout = File::from(stdout.map_err(Error::Stdout)?);
        if stdout.is_terminal() {
            let source = OutputError::Terminal;
            return Err(Error::Output { path, source });
        }
        let destination = Destination::Stdout(stdout);
        Ok(Self { path, destination })
    }

    /// As [`Output::at`], to replace a file that was opened, and only as it was then.
    ///
    /// # Errors
    ///
    /// Those of [`Output::at`].
    pub fn in_place_of(
        path: &Path,
        opened: &fs::Metadata,
        hard_links: HardLinks,
    ) -> Result<Self, Error> {
        let mut output = Self::at(path, hard_links)?;
        if let Destination::File(replacement) = &mut output.destination {
            replacement.expected = Some(Version::of(opened));
        }
        Ok(output)
    }

    /// Whether the bytes go to stdout, so that nothing else may.
    pub const fn is_stdout(&self) -> bool {
        matches!(self.destination, Destination::Stdout(_))
    }

    /// Refuses to write what the command reads.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] if `input` is the same file, by whatever name.
    pub fn differs_from(&self, input: &Path) -> Result<(), Error> {
        match &self.destination {
            Destination::File(replacement) if same_file(&replacement.target, input) => {
                Err(Error::Output {
                    path: self.path.clone(),
                    source: OutputError::Input,
                })
            }
            Destination::File(_) | Destination::Stdout(_) | Destination::Stream(_) => Ok(()),
        }
    }

    /// Writes it, complete or not at all; a stream may be left with a part.
    ///
    /// # Errors
    ///
    /// [`Error::Output`], and a file is then as it was, except for [`OutputError::NotFlushed`].
    /// [`Error::Io`] or [`Error::Stdout`] for a stream.
    pub fn write(self, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
        match self.destination {
            Destination::Stdout(mut file) => write(&mut file).map_err(Error::Stdout),
            Destination::Stream(mut file) => write(&mut file).map_err(Error::io(self.path)),
            Destination::File(replacement) => {
                replacement.write(write).map_err(|source| Error::Output {
                    path: self.path,
                    source,
                })
            }
        }
    }
}

impl Replacement {
    fn write(&self, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), OutputError> {
        let failed = |source| OutputError::Write { source };
        // Opened first: what cannot be flushed later is not begun.
        let directory = File::open(&self.directory).map_err(failed)?;
        remove_leftovers(&self.directory);
        let hold = Hold::new().map_err(failed)?;
        let old = self.check_target()?;

        // Nobody else may read what may be a copy of a file that they may not read. A new file
        // is as any other: the umask takes away from its mode.
        let mode = if old.is_some() { 0o600 } else { 0o666 };
        let mut temporary = create_temporary(&self.directory, mode).map_err(failed)?;
        write(temporary.as_file_mut()).map_err(failed)?;
        hold.check().map_err(failed)?;
        if let Some(old) = &old {
            keep_attributes(&self.target, old, temporary.as_file())
                .map_err(|(attribute, source)| OutputError::Attribute { attribute, source })?;
        }
        temporary.as_file().sync_all().map_err(failed)?;
        hold.check().map_err(failed)?;
        self.check_target()?;
        fs::rename(temporary.path(), &self.target).map_err(failed)?;
        temporary.disable_cleanup(true);
        directory
            .sync_all()
            .map_err(|source| OutputError::NotFlushed { source })
    }

    /// What is to be replaced, if anything; refuses what another program has put there.
    fn check_target(&self) -> Result<Option<fs::Metadata>, OutputError> {
        let found = match fs::symlink_metadata(&self.target) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(OutputError::Write { source }),
        };
        let is_file = found.as_ref().is_none_or(fs::Metadata::is_file);
        let version = found.as_ref().map(Version::of);
        if !is_file || self.expected.is_some() && version != self.expected {
            return Err(OutputError::Changed);
        }
        Ok(found)
    }
}

fn is_stdout(metadata: &fs::Metadata) -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.and_then(|stdout| File::from(stdout).metadata());
    stdout.is_ok_and(|stdout| (stdout.dev(), stdout.ino()) == (metadata.dev(), metadata.ino()))
}

enum Resolved {
    /// A name in a directory, where there is a file or nothing, and no symbolic link.
    Name { directory: PathBuf, target: PathBuf },
    /// A file that some process has open, like `/dev/fd/3`: it has no name of its own.
    OpenFile,
}

/// Follows symbolic links, also to where there is nothing yet.
///
/// # Errors
///
/// What the system said, and of which path.
fn resolve(path: &Path) -> Result<Resolved, (PathBuf, io::Error)> {
    /// As Linux has it.
    const LINKS_MAX: usize = 40;

    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Some(name) = path.file_name() else {
            return Err((path, io::ErrorKind::IsADirectory.into()));
        };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let directory = parent.canonicalize();
        let directory = directory.map_err(|error| (parent.to_owned(), error))?;
        let target = directory.join(name);
        if !target.is_symlink() {
            return Ok(Resolved::Name { directory, target });
        }
        if directory.starts_with("/proc") {
            return Ok(Resolved::OpenFile);
        }
        let link = fs::read_link(&target).map_err(|error| (target, error))?;
        path = directory.join(link);
    }
    Err((path, Errno::ELOOP.into()))
}

/// Makes a temporary file that is locked as long as it is open.
fn create_temporary(directory: &Path, mode: u32) -> io::Result<NamedTempFile> {
    loop {
        let temporary = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .suffix(TEMPORARY_SUFFIX)
            .make_in(directory, |path| {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .mode(mode)
                    .open(path)
            })?;
        // Where the file system has no locks, nobody can lock a leftover either, and it stays.
        let _ = temporary.as_file().lock();
        // Before it was locked, another run may have taken it for a leftover.
        if temporary.as_file().metadata()?.nlink() > 0 {
            return Ok(temporary);
        }
    }
}

/// Removes the temporary files of runs that were killed. What cannot be removed is no reason to fail.
fn remove_leftovers(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if is_temporary(&entry.file_name()) {
            let _ = remove_leftover(&entry.path());
        }
    }
}

fn is_temporary(name: &OsStr) -> bool {
    name.as_bytes()
        .strip_prefix(TEMPORARY_PREFIX.as_bytes())
        .and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX.as_bytes()))
        .is_some_and(|random| !random.is_empty() && random.iter().all(u8::is_ascii_alphanumeric))
}

fn remove_leftover(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(());
    }
    // Fails while the run that made it lives.
    file.try_lock()?;
    // It may have been renamed before it was locked here.
    let now = fs::symlink_metadata(path)?;
    if (now.dev(), now.ino()) == (metadata.dev(), metadata.ino()) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Gives a new file the owner, the mode and the extended attributes (with them ACLs, labels and
/// capabilities) of the old one. An error names what cannot be kept.
///
/// In this order, because a change of owner takes away set-user-ID and capabilities, and a change of
/// mode changes an ACL.
fn keep_attributes(path: &Path, old: &fs::Metadata, new: &File) -> Result<(), (String, io::Error)> {
    /// Bound to the inode; the kernel makes it again.
    const NOT_COPIED: &str = "security.evm";

    let of = |attribute: &str| {
        let attribute = attribute.to_owned();
        |source| (attribute, source)
    };
    let own = new.metadata().map_err(of("attributes"))?;
    let (uid, gid) = (old.uid(), old.gid());
    if (own.uid(), own.gid()) != (uid, gid) {
        fchown(new, Some(uid), Some(gid)).map_err(of(&format!("owner {uid}:{gid}")))?;
    }
    let mode = old.permissions().mode() & 0o7777;
    let own = new.metadata().map_err(of("attributes"))?;
    if own.permissions().mode() & 0o7777 != mode {
        new.set_permissions(old.permissions())
            .map_err(of(&format!("mode {mode:04o}")))?;
    }
    let all = "extended attributes";
    let wanted: Vec<OsString> = supported(xattr::list(path))
        .map_err(of(all))?
        .into_iter()
        .flatten()
        .filter(|name| name != NOT_COPIED)
        .collect();
    let present: Vec<OsString> = supported(new.list_xattr())
        .map_err(of(all))?
        .into_iter()
        .flatten()
        .collect();
    for name in &wanted {
        let this = format!("extended attribute {}", name.display());
        let value = xattr::get(path, name).map_err(of(&this))?;
        if let Some(value) = value
            && new.get_xattr(name).ok().flatten().as_ref() != Some(&value)
        {
            new.set_xattr(name, &value).map_err(of(&this))?;
        }
    }
    // A default ACL of the directory gives the new file what the old one may not have.
    for name in &present {
        if !wanted.contains(name) && name.as_bytes().starts_with(b"system.posix_acl_") {
            let this = format!("lack of the extended attribute {}", name.display());
            new.remove_xattr(name).map_err(of(&this))?;
        }
    }
    Ok(())
}

/// Nothing, where the file system has no extended attributes.
fn supported<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(None),
        result => result.map(Some),
    }
}
