//! The tree of files, mounted into the host's by FUSE: a second transport of the same operations.
//!
//! ```text
//!   cat x.lineinfo > DIR/dev/lineinfo
//!     └─ host: permissions ─ /dev/fuse ─> Tree::write ─> do_syscall_64 ─> vfs_write ─> driver
//! ```
//!
//! Each open file of a process is a task with the rights of the process that opened it and its
//! name; its requests are system calls like any other's.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, MountOption, OpenAccMode, OpenFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen,
    ReplyWrite, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use lineinfo_core::uapi::Ioctl;
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Gid, Uid};

use super::limit::{Complaints, Limit, Permit};
use super::loader::{self, Opener};
use crate::entry::{Syscall, do_syscall_64};
use crate::fs::cred::Credentials;
use crate::fs::namei::{self, DirectoryEntry};
use crate::fs::{OpenMode, Task};
use crate::kernel::task::{self, Current};
use crate::kernel::{cpu, lineinfo, reboot};
use crate::machine::frames::{keep_frame, stack_starts_here};
use crate::machine::trap::TrapStack;
use crate::printk;

/// The device through which a process serves files.
const FUSE_DEVICE: &str = "/dev/fuse";

/// How many requests are served at a time.
const THREADS: usize = 4;

/// How long to wait between two checks of whether a task has died.
const DEAD_PAUSE: Duration = Duration::from_millis(50);

/// Most bytes of one write; the host splits larger ones.
const WRITE_BYTES_MAX: u32 = 128 * 1024;

/// The host asks for names and attributes each time, for modules are loaded and unloaded.
const TTL: Duration = Duration::ZERO;

/// Open files at a time: of a user who may not load, of all those, and of all users.
static FILES: Limit = Limit::new(64, 256, 320);
static COMPLAINTS: Mutex<Complaints> = Mutex::new(Complaints::new());

/// What is mounted; dropping it unmounts it.
static SESSION: Mutex<Option<BackgroundSession>> = Mutex::new(None);

/// A directory that is to be a mountpoint.
#[derive(Debug)]
pub(crate) struct Mount {
    path: PathBuf,
}

impl Mount {
    /// Checks the directory; other errors can only be found when it is mounted.
    pub(crate) fn check(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        match fs::metadata(path) {
            Err(error) if is_stale(&error) => bail!(
                "the files of a process that has ended are still mounted on {shown}; unmount them: umount {shown} (or fusermount3 -u {shown})"
            ),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot mount files on {shown}"));
            }
            Ok(metadata) => ensure!(
                metadata.is_dir(),
                "cannot mount files on {shown}: it is not a directory; name one"
            ),
        }
        ensure!(
            !path.join("dev/lineinfo").exists(),
            "the files of another kernel are mounted on {shown}; choose another directory"
        );
        let path = fs::canonicalize(path).with_context(|| format!("cannot resolve {shown}"))?;
        Ok(Self { path })
    }

    /// Mounts the files; if the host does not permit it, logs why and returns `false`.
    pub(crate) fn open(self) -> bool {
        let shown = self.path.display();
        match self.serve() {
            Ok(()) => {
                printk!(Info, "mount: files on {shown}");
                true
            }
            Err(error) => {
                printk!(
                    Err,
                    "mount: no files on {shown}: {error:#}; the socket works without (--socket)"
                );
                false
            }
        }
    }

    fn serve(&self) -> anyhow::Result<()> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(FUSE_DEVICE)
            .context(FUSE_DEVICE)?;
        let session = self
            .session()
            .context("mounting needs root, or the program fusermount3")?;
        let path = CString::new(self.path.as_os_str().as_bytes())?;
        reboot::unmount_at_end(path, unmount_in_order);
        let session = session
            .spawn()
            .context("cannot start a thread for the files")?;
        *current_session() = Some(session);
        Ok(())
    }

    /// Mounts so that other users see the files, and that the host unmounts them however this process
    /// ends; without what the host does not permit.
    fn session(&self) -> io::Result<Session<Tree>> {
        let acl = if Uid::effective().is_root() {
            SessionACL::All
        } else {
            SessionACL::Owner
        };
        let mount = |acl, more: Option<MountOption>| {
            let mut config = Config::default();
            config.mount_options = vec![
                MountOption::FSName("sim-kernel".into()),
                MountOption::Subtype("sim-kernel".into()),
                MountOption::DefaultPermissions,
                MountOption::NoDev,
                MountOption::NoSuid,
                MountOption::NoExec,
            ];
            config.mount_options.extend(more);
            config.acl = acl;
            config.n_threads = Some(THREADS);
            Session::new(Tree::new(), &self.path, &config)
        };
        mount(SessionACL::All, Some(MountOption::AutoUnmount)).or_else(|_| mount(acl, None))
    }
}

/// Whether the process that serves the files has ended, or is about to.
fn is_stale(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOTCONN | libc::ECONNABORTED)
    )
}

fn current_session() -> MutexGuard<'static, Option<BackgroundSession>> {
    SESSION.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unmounts with the help of other programs, if only they may.
fn unmount_in_order() {
    drop(current_session().take());
}

/// A task of its own for each open file of the host.
struct OpenFile {
    pid: u32,
    calls: Sender<Call>,
    opener: Arc<Closing>,
    _permit: Permit,
}

/// A system call, which sends its result to the thread that asked for it.
type Call = Box<dyn FnOnce(&mut Task, usize) + Send>;

/// Whether the last request for a file was to close a descriptor of it.
#[derive(Debug, Default)]
struct Closing(AtomicBool);

/// The host reports that the last descriptor is closed only after `close` has returned.
impl Opener for Closing {
    fn has_gone(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl OpenFile {
    fn open(request: &Request, path: String, mode: OpenMode) -> Result<Self, Errno> {
        let process = request.pid();
        let comm = fs::read(format!("/proc/{process}/comm")).unwrap_or_default();
        // All but the newline at the end is the name, which may have some of its own.
        let comm = String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm));
        let credentials = Credentials {
            uid: Uid::from_raw(request.uid()),
            host_pid: process.cast_signed(),
        };
        let permit = FILES.take(credentials).inspect_err(|errno| {
            let mut complaints = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
            complaints.log(credentials, *errno, "open files");
        })?;
        let pid = task::next_pid();
        let cpu = pid as usize % cpu::online().max(1);
        let current = Current::new(cpu, pid, &comm);
        let opener = Arc::<Closing>::default();
        let (calls, queue) = mpsc::channel();
        let (opened, outcome) = mpsc::channel();
        let file = Self {
            pid,
            calls,
            opener: Arc::clone(&opener),
            _permit: permit,
        };
        thread::Builder::new()
            .name("mounted".into())
            .spawn(move || {
                let open = || {
                    let task = open(credentials, &path, mode, &opener);
                    let (task, result) = match task {
                        Ok(task) => (Some(task), Ok(())),
                        Err(errno) => (None, Err(errno)),
                    };
                    // The thread that asked waits for it.
                    let _heard = opened.send(result);
                    task
                };
                live(current, open, &queue);
                let opener: Arc<dyn Opener> = opener;
                loader::closed(&opener);
            })
            .map_err(|_| Errno::EAGAIN)?;
        file.wait(&outcome)?;
        Ok(file)
    }

    /// Makes the task make a system call, and returns its result.
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Task, usize) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        let (sender, outcome) = mpsc::channel();
        let call = move |task: &mut Task, fd: usize| {
            // The thread that asked waits for it.
            let _heard = sender.send(call(task, fd));
        };
        self.opener.0.store(false, Ordering::Release);
        self.calls.send(Box::new(call)).map_err(|_| Errno::EIO)?;
        self.wait(&outcome)
    }

    /// Waits for the task, or for its end: a task that a trap has ended does not answer.
    fn wait<T>(&self, outcome: &Receiver<Result<T, Errno>>) -> Result<T, Errno> {
        loop {
            match outcome.recv_timeout(DEAD_PAUSE) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if !task::is_dead(self.pid) => {}
                Err(_) => return Err(Errno::EIO),
            }
        }
    }
}

/// The life of one task; its file is closed with it.
#[inline(never)]
fn live(current: Current, open: impl FnOnce() -> Option<(Task, usize)>, queue: &Receiver<Call>) {
    stack_starts_here();
    current.make_current();
    // Without one, a trap here ends the process.
    let _trap_stack = TrapStack::install();
    if let Some((mut task, fd)) = open() {
        for call in queue {
            // Interrupts of the CPU reach the task while it is in the kernel.
            let _on_cpu = cpu::run_on(current.cpu);
            call(&mut task, fd);
        }
    }
    keep_frame(());
}

fn open(
    credentials: Credentials,
    path: &str,
    mode: OpenMode,
    opener: &Arc<Closing>,
) -> Result<(Task, usize), Errno> {
    let mut task = Task::new(credentials);
    let loads = mode.write && path == lineinfo::file::NODE.path;
    if loads {
        loader::wait_until_closed();
    }
    let fd = do_syscall_64(&mut task, Syscall::Open { path, mode })?;
    if loads {
        loader::opened(Arc::clone(opener) as Arc<dyn Opener>);
    }
    Ok((task, fd))
}

/// The tree as the host sees it.
struct Tree {
    /// The path of each inode that the host has heard of, from that of the root on.
    paths: Mutex<Vec<String>>,
    files: Mutex<HashMap<u64, Arc<OpenFile>>>,
    next_handle: AtomicU64,
    /// All files are as old as the machine.
    time: SystemTime,
}

impl Tree {
    fn new() -> Self {
        Self {
            paths: Mutex::new(vec![String::new()]),
            files: Mutex::default(),
            next_handle: AtomicU64::new(1),
            time: SystemTime::now(),
        }
    }

    fn paths(&self) -> MutexGuard<'_, Vec<String>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, HashMap<u64, Arc<OpenFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, inode: INodeNo) -> Result<String, Errno> {
        let position = usize::try_from(inode.0).ok().and_then(|n| n.checked_sub(1));
        let path = position.and_then(|position| self.paths().get(position).cloned());
        path.ok_or(Errno::ENOENT)
    }

    /// The number of a path, which is that of a file or directory.
    fn inode(&self, path: &str) -> INodeNo {
        let mut paths = self.paths();
        let known = paths.iter().position(|known| known == path);
        let position = known.unwrap_or_else(|| {
            paths.push(path.to_owned());
            paths.len() - 1
        });
        INodeNo(position as u64 + 1)
    }

    fn attributes(&self, path: &str) -> Result<FileAttr, Errno> {
        let entry = match path.rsplit_once('/') {
            None => DirectoryEntry::Directory,
            Some((parent, name)) => *namei::directory(parent).get(name).ok_or(Errno::ENOENT)?,
        };
        let (kind, perm, nlink) = match entry {
            DirectoryEntry::Directory => (FileType::Directory, 0o555, 2),
            DirectoryEntry::File(node) => (FileType::RegularFile, node.permissions, 1),
        };
        Ok(FileAttr {
            ino: self.inode(path),
            // The text of a file is made when it is read.
            size: 0,
            blocks: 0,
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
            crtime: self.time,
            kind,
            perm,
            nlink,
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn open_file(
        &self,
        request: &Request,
        inode: INodeNo,
        flags: OpenFlags,
    ) -> Result<FileHandle, Errno> {
        let (read, write) = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => (true, false),
            OpenAccMode::O_WRONLY => (false, true),
            OpenAccMode::O_RDWR => (true, true),
        };
        let file = OpenFile::open(request, self.path(inode)?, OpenMode { read, write })?;
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.files().insert(handle, Arc::new(file));
        Ok(FileHandle(handle))
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<OpenFile>, Errno> {
        let file = self.files().get(&handle.0).cloned();
        file.ok_or(Errno::EBADF)
    }

    fn entries(&self, inode: INodeNo) -> Result<Vec<(INodeNo, FileType, String)>, Errno> {
        let path = self.path(inode)?;
        let mut entries = vec![
            (inode, FileType::Directory, ".".to_owned()),
            (INodeNo::ROOT, FileType::Directory, "..".to_owned()),
        ];
        for (name, entry) in namei::directory(&path) {
            let kind = match entry {
                DirectoryEntry::Directory => FileType::Directory,
                DirectoryEntry::File(_) => FileType::RegularFile,
            };
            entries.push((self.inode(&format!("{path}/{name}")), kind, name));
        }
        Ok(entries)
    }
}

fn host_errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno as i32)
}

impl Filesystem for Tree {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // If the host takes less, its number is used.
        let _before = config.set_max_write(WRITE_BYTES_MAX);
        Ok(())
    }

    fn destroy(&mut self) {
        reboot::is_unmounted();
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let attributes = self.path(parent).and_then(|parent| {
            let name = name.to_str().ok_or(Errno::ENOENT)?;
            self.attributes(&format!("{parent}/{name}"))
        });
        match attributes {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(errno) => reply.error(host_errno(errno)),
        }
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.path(inode).and_then(|path| self.attributes(&path)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(errno) => reply.error(host_errno(errno)),
        }
    }

    /// `>` truncates, which changes nothing in a device; nothing else can be set.
    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if mode.is_some() || uid.is_some() || gid.is_some() {
            reply.error(fuser::Errno::EPERM);
        } else {
            self.getattr(request, inode, handle, reply);
        }
    }

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(fuser::Errno::EPERM);
    }

    fn unlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(fuser::Errno::EPERM);
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.entries(inode) {
            Ok(entries) => entries,
            Err(errno) => return reply.error(host_errno(errno)),
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (position, (inode, kind, name)) in entries.iter().enumerate().skip(offset) {
            if reply.add(*inode, position as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(request, inode, flags) {
            // The host must not cache: it does not know the size of a file.
            Ok(handle) => reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO),
            Err(errno) => reply.error(host_errno(errno)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        at: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = move |task: &mut Task, fd| {
            let mut bytes = vec![0; size as usize];
            let buffer = &mut bytes;
            let len = do_syscall_64(task, Syscall::Pread { fd, buffer, at })?;
            bytes.truncate(len);
            Ok(bytes)
        };
        match self.file(handle).and_then(|file| file.call(read)) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(host_errno(errno)),
        }
    }

    /// Devices write at the end of what was written, at any position of the process.
    fn write(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _at: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let bytes = bytes.to_vec();
        let write = move |task: &mut Task, fd| {
            let bytes = &bytes;
            do_syscall_64(task, Syscall::Write { fd, bytes })
        };
        match self.file(handle).and_then(|file| file.call(write)) {
            Ok(len) => reply.written(u32::try_from(len).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(host_errno(errno)),
        }
    }

    fn ioctl(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        input: &[u8],
        _output_size: u32,
        reply: ReplyIoctl,
    ) {
        let Some(request) = Ioctl::from_code(command) else {
            return reply.error(fuser::Errno::ENOTTY);
        };
        let mut bytes = input.to_vec();
        bytes.resize(request.size(), 0);
        let ioctl = move |task: &mut Task, fd| {
            let argument = &mut bytes;
            let call = Syscall::Ioctl {
                fd,
                request: command,
                argument,
            };
            do_syscall_64(task, call)?;
            Ok(bytes)
        };
        match self.file(handle).and_then(|file| file.call(ioctl)) {
            Ok(bytes) => reply.ioctl(0, &bytes),
            Err(errno) => reply.error(host_errno(errno)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let flush = |task: &mut Task, fd| do_syscall_64(task, Syscall::Flush { fd });
        let flushed = self.file(handle).and_then(|file| {
            let flushed = file.call(flush);
            file.opener.0.store(true, Ordering::Release);
            flushed
        });
        match flushed {
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(host_errno(errno)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // Its task ends when this is dropped.
        self.files().remove(&handle.0);
        reply.ok();
    }
}
