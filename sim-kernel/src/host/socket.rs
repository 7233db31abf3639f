//! A Unix socket through which `/dev/lineinfo` can be used; the protocol is
//! [`lineinfo_core::uapi::socket`].
//!
//! Each connection is a task of its own, whose requests are system calls like any other's.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE, Op, PAYLOAD_MAX, Reply, Request};
use lineinfo_core::uapi::{Direction, Ioctl};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Uid;
use zerocopy::{FromZeros, IntoBytes};

use super::limit::{Complaints, Limit};
use super::loader::{self, Opener};
use crate::entry::{Syscall, do_syscall_64};
use crate::fs::cred::Credentials;
use crate::fs::{OpenMode, Task};
use crate::kernel::task::{self, Current};
use crate::kernel::{cpu, reboot};
use crate::machine::frames::{keep_frame, stack_starts_here};
use crate::machine::trap::TrapStack;
use crate::printk;

/// Longest path of a socket, in bytes (`sun_path`, with a zero at its end).
const PATH_BYTES_MAX: usize = 107;

/// Connections at a time: of a user who may not load, of all those, and of all users.
static CONNECTIONS: Limit = Limit::new(16, 48, 64);

/// How many connections that are turned away are kept open until the client can have read why.
const TURNED_AWAY_MAX: usize = 16;

/// How long to wait after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that is bound, and does not accept yet.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Makes the socket, before there are threads. The file of a process that has ended is replaced,
    /// nothing else is.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let bytes = path.as_os_str().as_bytes();
        ensure!(
            bytes.len() <= PATH_BYTES_MAX,
            "socket path {shown} has {} bytes, a socket can have {PATH_BYTES_MAX}; choose a shorter one",
            bytes.len()
        );
        remove_stale(path)?;
        // Everybody may connect: the credentials of the client decide what it may do. With the
        // permissions from the start nobody can put another file in its place before they are set.
        let before = umask(Mode::S_IXUSR | Mode::S_IXGRP | Mode::S_IXOTH);
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.with_context(|| format!("cannot make the socket {shown}"))?;
        let absolute = std::path::absolute(path)?;
        reboot::remove_at_end(CString::new(absolute.as_os_str().as_bytes())?);
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Starts to accept connections.
    pub(crate) fn open(self) {
        let Self { listener, path } = self;
        let accepting = thread::Builder::new()
            .name("listener".into())
            .spawn(move || accept(&listener));
        match accepting {
            Ok(_) => printk!(Info, "lineinfo: ready on {}", path.display()),
            Err(error) => printk!(
                Err,
                "lineinfo: cannot start a thread for {}: {error}",
                path.display()
            ),
        }
    }
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot inspect {shown}")),
        Ok(metadata) => ensure!(
            metadata.file_type().is_socket(),
            "{shown} exists and is not a socket; choose another path"
        ),
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another process serves the socket {shown}; choose another path"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("cannot replace the dead socket {shown}"))
        }
        Err(error) => Err(error).with_context(|| format!("cannot tell whether {shown} is in use")),
    }
}

fn accept(listener: &UnixListener) {
    // A client writes its request before it reads the answer, for which the connection must be open:
    // the last few that were turned away stay open.
    let mut turned_away = VecDeque::with_capacity(TURNED_AWAY_MAX);
    let mut complaints = Complaints::default();
    for connection in listener.incoming() {
        match connection.and_then(|stream| admit(stream, &mut complaints)) {
            Ok(None) => {}
            Ok(Some(stream)) => {
                if turned_away.len() == TURNED_AWAY_MAX {
                    turned_away.pop_front();
                }
                turned_away.push_back(stream);
            }
            Err(error) => {
                if complaints.admit() {
                    printk!(Warning, "lineinfo: a connection was not accepted: {error}");
                }
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Starts a task for a connection; a connection that is turned away gets the reason, and is returned.
fn admit(stream: UnixStream, complaints: &mut Complaints) -> io::Result<Option<UnixStream>> {
    let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
    let credentials = Credentials {
        uid: Uid::from_raw(peer.uid()),
        host_pid: peer.pid(),
    };
    let permit = match CONNECTIONS.take(credentials) {
        Ok(permit) => permit,
        Err(errno) => {
            complaints.log(credentials, errno, "connections");
            // It may have gone already.
            let _gone = reply(&stream, Err(errno), &[]);
            return Ok(Some(stream));
        }
    };
    thread::Builder::new()
        .name("syscall".into())
        .spawn(move || {
            serve(Arc::new(stream), credentials);
            drop(permit);
        })?;
    Ok(None)
}

/// The life of the task of one connection; its files are closed with it.
#[inline(never)]
fn serve(stream: Arc<UnixStream>, credentials: Credentials) {
    stack_starts_here();
    let pid = task::next_pid();
    let cpu = pid as usize % cpu::online().max(1);
    Current::new(cpu, pid, "syscall").make_current();
    // Without one, a trap here ends the process.
    let _trap_stack = TrapStack::install();
    let mut connection = Connection {
        task: Task::new(credentials),
        fd: None,
        payload: Vec::new(),
        stream: Arc::clone(&stream),
    };
    // A client that closes the connection closes its file, in the middle of a load, too.
    while let Ok(true) = connection.serve() {}
    drop(connection);
    let opener: Arc<dyn Opener> = stream;
    loader::closed(&opener);
    keep_frame(());
}

/// A client that has closed the connection has gone.
impl Opener for UnixStream {
    fn has_gone(&self) -> bool {
        let mut poll_fds = [PollFd::new(self.as_fd(), PollFlags::empty())];
        // Without an event to wait for, the host reports only that the client has hung up.
        poll(&mut poll_fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

struct Connection {
    stream: Arc<UnixStream>,
    task: Task,
    /// Its descriptor of the device, once it is open.
    fd: Option<usize>,
    payload: Vec<u8>,
}

impl Connection {
    /// Answers one request; returns whether there can be another one.
    fn serve(&mut self) -> io::Result<bool> {
        let mut request = Request::new_zeroed();
        (&*self.stream).read_exact(request.as_mut_bytes())?;
        if request.len > PAYLOAD_MAX {
            // It is not known where the next request begins.
            reply(&self.stream, Err(Errno::EINVAL), &[])?;
            return Ok(false);
        }
        self.resize(request.len as usize)?;
        (&*self.stream).read_exact(&mut self.payload)?;
        let result = self.answer(&request);
        let payload = match Op::from_number(request.op) {
            Some(Op::Read | Op::Ioctl) if result.is_ok() => &self.payload[..],
            _ => &[],
        };
        reply(&self.stream, result, payload)?;
        Ok(true)
    }

    fn answer(&mut self, request: &Request) -> Result<usize, Errno> {
        let op = Op::from_number(request.op).ok_or(Errno::EINVAL)?;
        // Interrupts of the CPU reach this thread during the system call.
        let _on_cpu = cpu::run_on(task::current().cpu);
        if op == Op::Open {
            return self.open(request.arg);
        }
        let fd = self.fd.ok_or(Errno::EBADF)?;
        let call = match op {
            Op::Open => return Err(Errno::EINVAL),
            Op::Write => Syscall::Write {
                fd,
                bytes: &self.payload,
            },
            Op::Read => {
                self.resize(PAYLOAD_MAX as usize)?;
                let buffer = &mut self.payload;
                let at = request.arg.into();
                let read = do_syscall_64(&mut self.task, Syscall::Pread { fd, buffer, at })?;
                self.payload.truncate(read);
                return Ok(read);
            }
            Op::Ioctl => {
                // An argument that only comes back need not be sent.
                let ioctl = Ioctl::from_code(request.arg).ok_or(Errno::ENOTTY)?;
                if ioctl.direction() == Direction::Read && self.payload.is_empty() {
                    self.resize(ioctl.size())?;
                }
                Syscall::Ioctl {
                    fd,
                    request: request.arg,
                    argument: &mut self.payload,
                }
            }
        };
        do_syscall_64(&mut self.task, call)
    }

    fn open(&mut self, flags: u32) -> Result<usize, Errno> {
        let known = flags & !(OPEN_READ | OPEN_WRITE) == 0;
        if self.fd.is_some() || flags == 0 || !known {
            return Err(Errno::EINVAL);
        }
        let mode = OpenMode {
            read: flags & OPEN_READ != 0,
            write: flags & OPEN_WRITE != 0,
        };
        if mode.write {
            loader::wait_until_closed();
        }
        let path = "/dev/lineinfo";
        self.fd = Some(do_syscall_64(&mut self.task, Syscall::Open { path, mode })?);
        if mode.write {
            loader::opened(Arc::clone(&self.stream) as Arc<dyn Opener>);
        }
        Ok(0)
    }

    /// Resizes the payload, if there is memory for it.
    fn resize(&mut self, len: usize) -> Result<(), Errno> {
        self.payload.clear();
        self.payload.try_reserve(len).map_err(|_| Errno::ENOMEM)?;
        self.payload.resize(len, 0);
        Ok(())
    }
}

fn reply(mut stream: &UnixStream, result: Result<usize, Errno>, payload: &[u8]) -> io::Result<()> {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let head = Reply {
        error: result.err().map_or(0, |errno| errno as u32),
        value: result.map_or(0, number),
        len: number(payload.len()),
    };
    stream.write_all(&[head.as_bytes(), payload].concat())
}
