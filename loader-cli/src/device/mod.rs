//! A kernel's lineinfo device, reached as a file or through its Unix socket.
//!
//! ```text
//!   load: open for writing ─ write, write, … ─ commit ─ status
//!                                   │             │
//!                              the kernel refuses with an errno, and says why in its status
//! ```

#[expect(unsafe_code, reason = "ioctls; the only module with such code")]
mod file;
mod socket;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use lineinfo_core::Address;
use lineinfo_core::uapi::{AddressBase, Errno, Ioctl, LOOKUP_FOUND, Lookup, Status, Target};
use zerocopy::{FromZeros, IntoBytes};

use crate::error::Error;

/// How much of a blob is written at a time, in bytes.
const PIECE_BYTES: usize = lineinfo_core::uapi::socket::PAYLOAD_MAX as usize;

/// How often an address is looked up whose table is replaced meanwhile.
const LOOKUPS_MAX: u32 = 16;

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Status and look-ups.
    Read,
    /// Load and unload; exclusive, and for root or the owner of the kernel.
    Write,
}

/// An open device; dropping it closes it, and discards a blob that was not written to its end.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    transport: Box<dyn Transport>,
}

/// The operations of the device, whatever lies between.
trait Transport: fmt::Debug {
    /// Writes what comes next of a blob; gives the number of bytes taken.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Refusal>;
    /// Makes a request; the argument has the size that belongs to it.
    fn ioctl(&mut self, request: Ioctl, argument: &mut [u8]) -> Result<(), Refusal>;
}

/// Asks for the status.
fn status(transport: &mut dyn Transport) -> Result<Status, Refusal> {
    let mut status = Status::new_zeroed();
    transport.ioctl(Ioctl::Status, status.as_mut_bytes())?;
    Ok(status)
}

/// Why a request was not answered with success.
#[derive(Debug)]
enum Refusal {
    /// The device says so.
    Errno(u32),
    /// There is no device to say anything.
    Io(io::Error),
}

impl Device {
    /// Opens a device.
    ///
    /// # Errors
    ///
    /// [`Error::NotADevice`] if there is no device at that path, [`Error::Device`] if it refuses:
    /// `EBUSY` while somebody else loads, `EPERM` without the right to.
    pub fn open(path: &Path, access: Access) -> Result<Self, Error> {
        let not_a_device = |found: &str| Error::NotADevice {
            path: path.to_owned(),
            found: format!(
                "{found}; name that of a running kernel (sim-kernel --socket PATH, or DIR/dev/lineinfo of --mount DIR)"
            ),
        };
        let kind = match path.metadata() {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(not_a_device(
                    "it does not exist: this kernel has no lineinfo, or its module is not loaded: load it with `modprobe lineinfo`",
                ));
            }
            Err(error) => return Err(Error::io(path)(error)),
        };
        let refused = |refusal| match refusal {
            Refusal::Errno(errno) => Error::Device {
                path: path.to_owned(),
                operation: "open",
                errno,
                reason: String::new(),
            },
            Refusal::Io(source) => Error::io(path)(source),
        };
        let transport: Box<dyn Transport> = if kind.is_socket() {
            let stream = UnixStream::connect(path).map_err(Error::io(path))?;
            Box::new(socket::open(stream, access).map_err(refused)?)
        } else if kind.is_char_device() || kind.is_file() {
            let opened = File::options()
                .read(true)
                .write(access == Access::Write)
                .open(path);
            let mut device = opened.map_err(|error| refused(error.into()))?;
            // Only a device knows its requests; writing to anything else would damage it.
            match status(&mut device) {
                Err(Refusal::Errno(errno)) if errno == Errno::ENOTTY.number() => {
                    return Err(not_a_device("it knows no lineinfo requests"));
                }
                answer => drop(answer.map_err(refused)?),
            }
            Box::new(device)
        } else if kind.is_dir() {
            return Err(not_a_device("it is a directory"));
        } else {
            return Err(not_a_device("it is neither a device nor a socket"));
        };
        Ok(Self {
            path: path.to_owned(),
            transport,
        })
    }

    /// What follows is about the table of this module.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], with `ENOENT` where no such module is loaded.
    pub fn target(&mut self, module: &str) -> Result<(), Error> {
        let mut target = Target::module(module)
            .ok_or_else(|| Error::Usage(format!("{module:?} is too long for a module's name")))?;
        let done = self.transport.ioctl(Ioctl::Target, target.as_mut_bytes());
        self.explain("module", done).map_err(|error| match error {
            Error::Device {
                path,
                operation,
                errno,
                ..
            } if errno == Errno::ENOENT.number() => Error::Device {
                path,
                operation,
                errno,
                reason: format!(
                    "the kernel has no module {module}; `lsmod` lists those that it has"
                ),
            },
            other => other,
        })
    }

    /// Loads a blob: streams it and asks whether it is live.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] with the kernel's errno and reason; the table that was loaded before is
    /// untouched.
    pub fn load(&mut self, blob: &[u8], mut written: impl FnMut(u64)) -> Result<(), Error> {
        let mut rest = blob;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(PIECE_BYTES)];
            let taken = self.transport.write(piece);
            let taken = self.explain("load", taken)?;
            rest = rest
                .get(taken..)
                .filter(|_| taken > 0)
                .ok_or_else(|| self.broken(format!("it took {taken} of {} bytes", piece.len())))?;
            written((blob.len() - rest.len()) as u64);
        }
        let published = self.transport.ioctl(Ioctl::Commit, &mut []);
        self.explain("load", published)
    }

    /// Empties the slot.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], with `ENODATA` where nothing is loaded.
    pub fn unload(&mut self) -> Result<(), Error> {
        let done = self.transport.ioctl(Ioctl::Unload, &mut []);
        self.explain("unload", done)
    }

    /// What the slot holds.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::NotADevice`] for a device that does not answer.
    pub fn status(&mut self) -> Result<Status, Error> {
        let status = status(&mut *self.transport);
        self.explain("status", status)
    }

    /// What the device says of an address, counted from a base: an answer for each function there, the
    /// innermost first, or one for the location alone, or for a miss.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], with `ENODATA` where nothing is loaded, and `EPERM` for a run-time address
    /// and who may not see those.
    pub fn lookup(
        &mut self,
        address: Address<u64>,
        base: AddressBase,
    ) -> Result<Vec<Lookup>, Error> {
        // Another table can be published between two levels: then all of them are asked for again.
        for _ in 0..LOOKUPS_MAX {
            let innermost = self.lookup_level(address, base, 0)?;
            let Lookup {
                checksum, levels, ..
            } = innermost;
            let mut answers = vec![innermost];
            for level in 1..levels {
                let answer = self.lookup_level(address, base, level)?;
                if answer.checksum != checksum {
                    break;
                }
                if answer.result & LOOKUP_FOUND == 0 {
                    return Err(self.broken(format!("it has no level {level} of {levels}")));
                }
                answers.push(answer);
            }
            if answers.len() >= usize::from(levels) {
                return Ok(answers);
            }
        }
        Err(self.broken(format!(
            "its table was replaced during each of {LOOKUPS_MAX} look-ups of one address; look it up again when nobody loads tables"
        )))
    }

    fn lookup_level(
        &mut self,
        address: Address<u64>,
        base: AddressBase,
        level: u16,
    ) -> Result<Lookup, Error> {
        let mut question = Lookup::from_base(address, base);
        question.level = level;
        let answered = self.transport.ioctl(Ioctl::Lookup, question.as_mut_bytes());
        self.explain("lookup", answered)?;
        Ok(question)
    }

    /// Turns a refusal into an error; for an errno the kernel's reason is in its status.
    fn explain<T>(
        &mut self,
        operation: &'static str,
        outcome: Result<T, Refusal>,
    ) -> Result<T, Error> {
        match outcome {
            Ok(value) => Ok(value),
            Err(Refusal::Errno(errno)) => {
                let hidden = operation == "lookup" && errno == Errno::EPERM.number();
                let reason = if operation == "load" {
                    let status = status(&mut *self.transport).ok();
                    status.map_or_else(String::new, |status| status.last_reason().to_owned())
                } else if hidden {
                    "only root and the owner of the kernel may look up run-time addresses; look up offsets from _text (--offsets), or use a table instead of the device".to_owned()
                } else if errno == Errno::ENODATA.number() {
                    "no table is loaded; load one with `lineinfo load`".to_owned()
                } else {
                    String::new()
                };
                Err(Error::Device {
                    path: self.path.clone(),
                    operation,
                    errno,
                    reason,
                })
            }
            Err(Refusal::Io(error)) => Err(self.broken(error.to_string())),
        }
    }

    fn broken(&self, found: String) -> Error {
        Error::NotADevice {
            path: self.path.clone(),
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes;

    use super::*;

    /// A device whose table has two functions at each address. Another table is published before each of
    /// these requests.
    #[derive(Debug)]
    struct Swapped {
        before: Vec<u32>,
        requests: u32,
        table: u32,
    }

    impl Transport for Swapped {
        fn write(&mut self, _bytes: &[u8]) -> Result<usize, Refusal> {
            Err(Refusal::Errno(Errno::EBADF.number()))
        }

        fn ioctl(&mut self, request: Ioctl, argument: &mut [u8]) -> Result<(), Refusal> {
            assert_eq!(request, Ioctl::Lookup);
            let mut lookup = Lookup::read_from_bytes(argument).expect("a look-up");
            self.table += u32::from(self.before.contains(&self.requests));
            self.requests += 1;
            lookup.levels = 2;
            lookup.checksum = self.table;
            lookup.result = LOOKUP_FOUND;
            lookup.line = self.table * 10 + u32::from(lookup.level);
            argument.copy_from_slice(lookup.as_bytes());
            Ok(())
        }
    }

    fn lines(before: Vec<u32>) -> Result<Vec<u32>, Error> {
        let transport = Swapped {
            before,
            requests: 0,
            table: 0,
        };
        let mut device = Device {
            path: "dev".into(),
            transport: Box::new(transport),
        };
        let answers = device.lookup(Address::Exact(0), AddressBase::Text)?;
        Ok(answers.iter().map(|answer| answer.line).collect())
    }

    #[test]
    fn all_levels_are_those_of_one_table() {
        for (before, expected) in [
            (vec![], [0, 1]),
            (vec![0], [10, 11]),
            (vec![1], [10, 11]),
            (vec![1, 3], [20, 21]),
            (vec![2], [0, 1]),
        ] {
            let found = lines(before.clone()).expect("an answer");
            assert_eq!(found, expected, "{before:?}");
        }
        let error = lines((0..100).collect()).expect_err("no two of one table");
        assert!(
            error.to_string().contains("replaced during each of 16"),
            "{error}"
        );
    }
}
