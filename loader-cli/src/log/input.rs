//! A log as it comes in: lines, and whether more is there already.
//!
//! What is compressed is decompressed as it is read, from a pipe, too.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::compressed::{Compression, MAGIC_MAX};
use crate::error::Error;
use crate::files;
use crate::kind::{Foreign, HEAD_BYTES, Kind, Wanted};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 << 10;

/// Longest line that is looked at as a whole, in bytes.
const LINE_MAX: usize = 1 << 20;

/// How often the end of a file is looked at that may grow.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

/// A log that is read.
pub struct Input {
    path: PathBuf,
    file: File,
    /// What decompresses the file, if it is compressed.
    decoder: Option<Box<dyn Read>>,
    /// What is wrong with what is compressed: the log ends there.
    damage: Option<Error>,
    /// Nothing was read yet.
    is_new: bool,
    /// It begins with what is no text.
    is_binary: bool,
    /// What was read; the lines before `taken` were taken.
    bytes: Vec<u8>,
    taken: usize,
    /// How far there is no newline, in bytes.
    searched: usize,
    ended: bool,
}

impl Input {
    /// Opens a file, or stdin, which is `-` as well.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn open(path: Option<&Path>) -> Result<Self, Error> {
        let (path, file) = match path {
            Some(path) if !files::is_stdin(path) => (path.to_owned(), File::open(path)),
            Some(_) | None => {
                let stdin = io::stdin().as_fd().try_clone_to_owned();
                (PathBuf::from("stdin"), stdin.map(File::from))
            }
        };
        Ok(Self {
            file: file.map_err(Error::io(&path))?,
            path,
            decoder: None,
            damage: None,
            is_new: true,
            is_binary: false,
            bytes: Vec::new(),
            taken: 0,
            searched: 0,
            ended: false,
        })
    }

    /// What was read and not taken.
    pub fn peek(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// The next line, with its newline, and what was read after it; the last line may have no newline.
    /// `None` if more must be read.
    pub fn line(&mut self) -> Option<(&[u8], &[u8])> {
        let start = self.taken;
        let from = start.max(self.searched);
        let end = match memchr::memchr(b'\n', &self.bytes[from..]) {
            Some(at) => from + at + 1,
            None => {
                self.searched = self.bytes.len();
                let len = self.bytes.len() - start;
                if len == 0 || !(self.ended || len >= LINE_MAX) {
                    return None;
                }
                self.bytes.len()
            }
        };
        self.taken = end;
        Some(self.bytes[start..].split_at(end - start))
    }

    /// Whether there is more to read, or the end, within a time; forever without.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn is_ready(&self, within: Option<Duration>) -> Result<bool, Error> {
        let timeout = within.map_or(PollTimeout::NONE, |within| {
            PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX)
        });
        let mut descriptors = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut descriptors, timeout) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::io(&self.path)(errno.into())),
            }
        }
    }

    /// Reads what is there, and waits if nothing is; `false` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Foreign`] at the start of what is no log.
    pub fn read(&mut self) -> Result<bool, Error> {
        if self.is_new {
            return self.read_start();
        }
        self.bytes.drain(..self.taken);
        self.searched = self.searched.saturating_sub(self.taken);
        self.taken = 0;
        self.fill()
    }

    /// Reads the start of a log, and finds out what it is.
    fn read_start(&mut self) -> Result<bool, Error> {
        // A pipe may have less at first.
        while self.bytes.len() < MAGIC_MAX && !self.bytes.contains(&b'\n') {
            if !self.fill()? {
                break;
            }
        }
        if let Some(compression) = Compression::of_head(&self.bytes) {
            let rest = self.file.try_clone().map_err(Error::io(&self.path))?;
            let start = io::Cursor::new(std::mem::take(&mut self.bytes));
            let decoder = compression.reader(start.chain(rest));
            self.decoder = Some(decoder.map_err(Error::io(&self.path))?);
            self.fill()?;
        }
        self.is_new = self.bytes.is_empty();
        let kind = Kind::of_head(&self.bytes);
        let has_zeros = self.bytes.iter().take(HEAD_BYTES).any(|byte| *byte == 0);
        match kind {
            Kind::SymbolList | Kind::Text | Kind::Other => {
                self.is_binary = has_zeros;
                Ok(!self.is_new)
            }
            // What is known by bytes further on may be anything in a log.
            Kind::BzImage | Kind::Pe | Kind::BootImage(_) | Kind::Archive(_) if !has_zeros => {
                Ok(true)
            }
            kind => Err(Foreign::error(&self.path, kind, Wanted::Log)),
        }
    }

    fn fill(&mut self) -> Result<bool, Error> {
        let old = self.bytes.len();
        self.bytes.resize(old + READ_BYTES, 0);
        let into = &mut self.bytes[old..];
        let read = loop {
            let read = match &mut self.decoder {
                Some(decoder) => decoder.read(into),
                None => self.file.read(into),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.decoder.is_some() => {
                    self.damage = Some(Error::io(&self.path)(error));
                    break Ok(0);
                }
                read => break read.map_err(Error::io(&self.path)),
            }
        };
        self.bytes.truncate(old + read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }

    /// What is said of a log in which no frame was found: it is perhaps none.
    pub fn doubt(&self) -> Option<Error> {
        self.is_binary
            .then(|| Foreign::error(&self.path, Kind::Other, Wanted::Log))
    }

    /// What ended the log before its end.
    pub fn take_damage(&mut self) -> Option<Error> {
        self.damage.take()
    }

    /// Waits until a file may have grown.
    pub fn wait(&self) {
        std::thread::sleep(FOLLOW_INTERVAL);
    }

    /// Nothing more will come: what is left is a line.
    pub fn end(&mut self) {
        self.ended = true;
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
