//! The life of a load: what a kernel does with its device `/dev/lineinfo`, whatever the kernel.
//!
//! A port brings memory, a clock, a log and the names of its modules ([`Port`]), passes the
//! operations of its device on, and says who the caller is ([`Caller`]). Everything else is here:
//! who may open, what is checked, when a table is published, why something is refused.
//!
//! ```text
//!  open(writing) ──> Header ── 96 bytes ──> Body ── last byte: parse, identity, publish ──> Published
//!       │               │     size limit,     │                                               │
//!       │               │     allocate        │                                               │
//!       │               └──────────┬──────────┘                                               │
//!       │                 anything refused: Refused, until the file is closed                 │
//!       │                    (ABORT: from anywhere back to Header)                            │
//!  boot: load_appended ── read into memory, check the footer ── publish ──> TableSlot <───────┘
//!                                                                              ^
//!                                          stack traces, any context: push_location
//! ```
//!
//! A [`Device`] is behind a lock of the port; its methods may sleep (in [`Port::allocate`] and while
//! they wait for readers) and are for process context. A [`TableSlot`] is beside it: what is
//! documented "for any context" takes no lock, allocates nothing and never waits, in an NMI and in a
//! panic too. There is one for the kernel and one for each module.
//!
//! One file at a time is open for writing. If it makes no request for [`Config::idle_ms`], the next
//! opener takes the device over: what was written is discarded and its memory freed at once, and
//! every later request of the old file that needs the device is refused with `ETIMEDOUT`. Without a
//! next opener nothing is taken away.
//!
//! Nothing here panics, allocates (but through the port), or uses `core::fmt` except in
//! implementations of `Display`.

mod ratelimit;
mod refusal;
mod table_slot;

use zerocopy::{FromBytes, IntoBytes};

use crate::blob::{HEADER_SIZE, Header};
use crate::buffer::StrBuffer;
use crate::error::Error;
use crate::footer::{ALIGN, Ending, Footer};
use crate::signature::{KeyId, Signed};
use crate::slot::Owner;
use crate::table::Layout;
use crate::uapi::{AddressBase, Ioctl, Lookup, Status, Target, Who};
use crate::{index, wide};

pub use ratelimit::RateLimit;
pub use refusal::{BuildId, Refusal};
pub use table_slot::{LoadedTable, TableSlot};

/// What a kernel brings.
pub trait Port: Sized + 'static {
    /// Memory that a blob is written to.
    type Memory: Memory;
    /// What a slot keeps; with an allocator, a `Box`.
    type Owner: Owner<Target = LoadedTable<SealedOf<Self>>>;

    /// Memory for at least `size` bytes, at least one page; it may sleep.
    fn allocate(&self, size: usize) -> Option<Self::Memory>;

    /// Puts a table where a slot can keep it; `None` where there is no memory for that.
    fn own(&self, table: LoadedTable<SealedOf<Self>>) -> Option<Self::Owner>;

    /// A clock that never goes back, in milliseconds.
    fn now_ms(&self) -> u64;

    /// Writes one line to the log.
    fn log(&self, level: Level, line: &str);

    /// Whether the signature of a blob is right for its key and message (Ed25519, RFC 8032). The key is
    /// the trusted one.
    ///
    /// A port without cryptography, as this is, finds none right.
    fn verify(&self, _signed: &Signed<'_>) -> bool {
        false
    }

    /// Makes what pauses between two looks at the readers of an old table, and says when it is time
    /// to give up.
    fn keep_waiting(&self) -> impl FnMut() -> bool;

    /// Does something with the slot of a module, or with that of the kernel if the name is empty;
    /// `None` if no such module is loaded.
    fn with_slot<T>(
        &self,
        name: &str,
        act: impl FnOnce(&TableSlot<Self>, &Expected) -> T,
    ) -> Option<T>;

    /// Does something with the slot of the module that a run-time address is in, or with that of the
    /// kernel.
    fn with_slot_at<T>(&self, address: u64, act: impl FnMut(&TableSlot<Self>) -> T) -> T;
}

/// Memory that a blob is written to; dropping it frees it.
pub trait Memory: Sized {
    /// What [`Memory::seal`] makes.
    type Sealed: Sealed;

    /// The size of a page, in bytes.
    const PAGE_SIZE: usize;

    /// All bytes.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Frees the pages after the first `size` bytes, as far as possible.
    fn truncate(&mut self, size: usize);

    /// Makes it read-only, for good; `None` where that failed, and it is freed.
    fn seal(self) -> Option<Self::Sealed>;
}

/// Memory that nobody can write any more; dropping it frees it.
pub trait Sealed: Send + Sync + 'static {
    /// All bytes, whole pages.
    fn bytes(&self) -> &[u8];
}

/// The sealed memory of a port.
pub type SealedOf<P> = <<P as Port>::Memory as Memory>::Sealed;

/// How urgent a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something that was asked for is refused.
    Error,
    /// Something is not as it should be.
    Warning,
    /// What goes on.
    Info,
}

/// When a table may come, as the boot argument `lineinfo=` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// At boot, from the image, and later.
    On,
    /// Only later.
    Off,
    /// At no time.
    Never,
}

/// Whose tables are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Anybody's, signed or not.
    Anybody,
    /// Those that this Ed25519 public key has signed.
    Key([u8; 32]),
    /// Nobody's: signatures are demanded, and there is no key to verify them with.
    Nobody,
}

impl Trust {
    fn check<P: Port>(&self, port: &P, signed: Option<Signed<'_>>) -> Result<(), Refusal> {
        let trusted = match self {
            Self::Anybody => return Ok(()),
            Self::Nobody => return Err(Refusal::NoKey),
            Self::Key(key) => key,
        };
        let expected = KeyId::of(trusted);
        let signed = signed.ok_or(Refusal::Unsigned { expected })?;
        if signed.signature.key != *trusted {
            let found = KeyId::of(&signed.signature.key);
            return Err(Refusal::OtherKey { found, expected });
        }
        match port.verify(&signed) {
            true => Ok(()),
            false => Err(Refusal::Signature { key: expected }),
        }
    }
}

/// What the device was told at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// When a table may come.
    pub policy: Policy,
    /// The largest blob taken, in bytes.
    pub max_bytes: u64,
    /// Whose tables are taken.
    pub trust: Trust,
    /// How long a file that is open for writing may make no request before the next opener can
    /// take the device over, in milliseconds.
    pub idle_ms: u64,
}

/// [`Config::idle_ms`] where nothing else is said.
pub const IDLE_MS_DEFAULT: u64 = 30_000;
/// In pieces of how many bytes the end of a boot image is searched for a footer.
const ENDING_BUFFER: usize = 512;

impl Config {
    /// Nothing is taken.
    pub const NEVER: Self = Self {
        policy: Policy::Never,
        max_bytes: 0,
        trust: Trust::Nobody,
        idle_ms: IDLE_MS_DEFAULT,
    };
}

/// What a table of an image must be, and where the image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Build-id of the image; an image without one takes no table.
    pub build_id: BuildId,
    /// ELF machine number of the image.
    pub machine: u16,
    /// Run-time minus link-time addresses, in bytes.
    pub slide: u64,
}

impl Expected {
    fn check(&self, layout: &Layout) -> Result<(), Refusal> {
        if layout.machine() != self.machine {
            return Err(Refusal::Machine {
                found: layout.machine(),
                expected: self.machine,
            });
        }
        let found = BuildId::new(layout.build_id());
        // An image without a build-id cannot tell its own table from another's.
        if self.build_id.bytes().is_empty() || found != self.build_id {
            return Err(Refusal::OtherImage {
                found,
                expected: self.build_id,
            });
        }
        Ok(())
    }
}

/// Who opens the device, and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// Its process; 0 for the kernel itself.
    pub pid: u32,
    /// It may load and unload.
    pub may_load: bool,
    /// It may ask for the location of run-time addresses, which tells where the kernel is.
    pub may_see_addresses: bool,
}

impl Caller {
    fn push_to(self, text: &mut StrBuffer<'_>) {
        text.push_str("process ");
        text.push_u32(self.pid);
        text.push_str(" of user ");
        text.push_u32(self.uid);
    }
}

/// An open file of the device, beside it; to be given to [`Device::close`] at its end.
#[derive(Debug)]
pub struct File {
    caller: Caller,
    /// Whose table it is about.
    target: Target,
    /// Which writer it is, if it is one: another may have taken the device over.
    writer: Option<u64>,
    /// Something was written that is not published, refused or discarded.
    begun: bool,
}

/// The file that is open for writing.
struct Writer<P: Port> {
    number: u64,
    caller: Caller,
    /// When it made its last request.
    last_ms: u64,
    load: Load<P::Memory>,
}

/// How far a load has come.
enum Load<M> {
    /// The header is not complete.
    Header {
        bytes: [u8; HEADER_SIZE],
        len: usize,
    },
    /// The memory is filling up.
    Body { memory: M, size: usize, len: usize },
    /// The table was published.
    Published,
    /// It was refused, and so is everything that follows.
    Refused(Refusal),
}

impl<M> Load<M> {
    const fn new() -> Self {
        Self::Header {
            bytes: [0; HEADER_SIZE],
            len: 0,
        }
    }

    /// The bytes of a load that has not come to its end.
    const fn written(&self) -> usize {
        match self {
            Self::Header { len, .. } | Self::Body { len, .. } => *len,
            Self::Published | Self::Refused(_) => 0,
        }
    }

    /// What is missing, where more should have come.
    fn incomplete(&self) -> Option<Error> {
        match self {
            Self::Published | Self::Refused(_) => None,
            Self::Header { bytes, len } => Header::peek(bytes.get(..*len).unwrap_or(&[])).err(),
            Self::Body { size, len, .. } => Some(Error::Truncated {
                expected: wide(*size),
                found: wide(*len),
            }),
        }
    }
}

/// The device; a port keeps it behind a lock that may sleep.
pub struct Device<P: Port> {
    port: P,
    config: Config,
    writer: Option<Writer<P>>,
    /// How many writers there were.
    writers: u64,
    /// What is logged of refusals to those who may load, and to all others.
    refusals: RateLimit,
    refusals_of_others: RateLimit,
}

impl<P: Port> Device<P> {
    /// A device that refuses every load until it is told what to do ([`Device::configure`]).
    pub const fn new(port: P) -> Self {
        Self {
            port,
            config: Config::NEVER,
            writer: None,
            writers: 0,
            refusals: RateLimit::new(),
            refusals_of_others: RateLimit::new(),
        }
    }

    /// Tells the device what to do.
    pub const fn configure(&mut self, config: Config) {
        self.config = config;
    }

    /// What it was told.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Opens a file of the device.
    ///
    /// # Errors
    ///
    /// For writing: [`Refusal::Never`], [`Refusal::NotPermitted`], [`Refusal::Writing`].
    pub fn open(&mut self, caller: Caller, writing: bool) -> Result<File, Refusal> {
        let writer = if writing {
            let number = self.open_for_writing(caller);
            // It was refused to nobody's slot, so no slot's last refusal is replaced.
            Some(number.inspect_err(|refusal| {
                self.log_limited("open", &Target::default(), *refusal, caller.may_load);
            })?)
        } else {
            None
        };
        Ok(File {
            caller,
            target: Target::default(),
            writer,
            begun: false,
        })
    }

    fn open_for_writing(&mut self, caller: Caller) -> Result<u64, Refusal> {
        if self.config.policy == Policy::Never {
            return Err(Refusal::Never);
        }
        if !caller.may_load {
            return Err(Refusal::NotPermitted { uid: caller.uid });
        }
        let now_ms = self.port.now_ms();
        if let Some(other) = &self.writer {
            let idle_ms = now_ms.saturating_sub(other.last_ms);
            if idle_ms < self.config.idle_ms {
                return Err(Refusal::Writing { by: other.caller });
            }
            log(&self.port, Level::Warning, |text| {
                caller.push_to(text);
                text.push_str(" takes the device over from ");
                other.caller.push_to(text);
                text.push_str(", which made no request for ");
                text.push_u64(idle_ms / 1000);
                text.push_str(" s; ");
                text.push_u64(wide(other.load.written()));
                text.push_str(" bytes discarded");
            });
        }
        self.writers = self.writers.wrapping_add(1);
        self.writer = Some(Writer {
            number: self.writers,
            caller,
            last_ms: now_ms,
            load: Load::new(),
        });
        Ok(self.writers)
    }

    /// Takes the next bytes of a blob, which are all taken; with the last one the table is
    /// published.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the blob; everything that follows is refused for the same reason.
    pub fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), Refusal> {
        let Self {
            port,
            config,
            writer,
            ..
        } = self;
        let load = match current(port, config, writer, file) {
            Ok(writer) => &mut writer.load,
            Err(refusal) => return Err(self.refuse_lost(file, refusal)),
        };
        match load {
            Load::Refused(refusal) => return Err(*refusal),
            Load::Published if bytes.is_empty() => return Ok(()),
            Load::Published => {
                let found = wide(bytes.len());
                return Err(self.refuse("write", &file.target, Refusal::PastEnd { found }));
            }
            Load::Header { .. } | Load::Body { .. } => {}
        }
        let taken = take(port, config, load, &file.target, bytes);
        if let Err(refusal) = taken {
            *load = Load::Refused(refusal);
        }
        file.begun = load.written() > 0;
        taken.map_err(|refusal| self.refuse("load", &file.target, refusal))
    }

    /// Makes a request; the argument has the size that the number says, and goes where it says.
    ///
    /// # Errors
    ///
    /// Those of the request; [`Refusal::NoSuchIoctl`], [`Refusal::Argument`],
    /// [`Refusal::NotWriter`], [`Refusal::TakenOver`].
    pub fn ioctl(
        &mut self,
        file: &mut File,
        code: u32,
        argument: &mut [u8],
    ) -> Result<(), Refusal> {
        let request = Ioctl::from_code(code).ok_or(Refusal::NoSuchIoctl { code })?;
        if argument.len() != request.size() {
            return Err(Refusal::Argument);
        }
        // Whatever it asks for, it is still there.
        let writer = current(&self.port, &self.config, &mut self.writer, file).map(|_| ());
        match request.who() {
            Who::Anybody => {}
            Who::Writer => writer.map_err(|refusal| self.refuse_lost(file, refusal))?,
        }
        match request {
            Ioctl::Status => put(argument, &self.status(file)?),
            Ioctl::Commit => self.commit(file),
            Ioctl::Unload => self.unload(file),
            Ioctl::Lookup => self.lookup(file, argument),
            Ioctl::Target => self.aim(file, argument),
            Ioctl::Abort => self.abort(file),
        }
    }

    /// What the slot of a file's target holds.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoModule`] if the module has gone.
    pub fn status(&self, file: &File) -> Result<Status, Refusal> {
        self.status_of(file.target.name())
    }

    /// What the slot of a module holds, or that of the kernel if the name is empty.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoModule`] if there is no such module.
    pub fn status_of(&self, name: &str) -> Result<Status, Refusal> {
        let policy = self.config.policy;
        let status = |slot: &TableSlot<P>, expected: &Expected| slot.status(expected, policy);
        self.port.with_slot(name, status).ok_or(Refusal::NoModule)
    }

    /// Says whether what was written is published; if it is not complete, it never will be.
    fn commit(&mut self, file: &mut File) -> Result<(), Refusal> {
        let writer = current(&self.port, &self.config, &mut self.writer, file)?;
        if let Load::Refused(refusal) = writer.load {
            return Err(refusal);
        }
        let Some(error) = writer.load.incomplete() else {
            return Ok(());
        };
        writer.load = Load::Refused(error.into());
        file.begun = false;
        Err(self.refuse("load", &file.target, error.into()))
    }

    /// Discards what was written, and frees its memory; the file can begin again.
    fn abort(&mut self, file: &mut File) -> Result<(), Refusal> {
        let writer = current(&self.port, &self.config, &mut self.writer, file)?;
        let caller = writer.caller;
        let written = core::mem::replace(&mut writer.load, Load::new()).written();
        file.begun = false;
        if written > 0 {
            log_discarded(&self.port, caller, "aborted", written);
        }
        Ok(())
    }

    fn unload(&mut self, file: &File) -> Result<(), Refusal> {
        let port = &self.port;
        let unload = |slot: &TableSlot<P>, _: &Expected| slot.unload(port);
        let unloaded = port.with_slot(file.target.name(), unload);
        unloaded
            .unwrap_or(Err(Refusal::NoModule))
            .map_err(|refusal| self.refuse_limited("unload", &file.target, refusal))
    }

    fn lookup(&self, file: &File, argument: &mut [u8]) -> Result<(), Refusal> {
        let mut question = Lookup::read_from_bytes(argument).map_err(|_| Refusal::Argument)?;
        let address = question.address().ok_or(Refusal::Argument)?;
        let base = question.base().ok_or(Refusal::Argument)?;
        let mut answer = |slot: &TableSlot<P>| slot.answer(&mut question, address, base);
        match base {
            AddressBase::RunTime => {
                let Caller { uid, .. } = file.caller;
                if !file.caller.may_see_addresses {
                    return Err(Refusal::AddressesHidden { uid });
                }
                let byte = address.byte().unwrap_or(0);
                self.port.with_slot_at(byte, answer)?;
            }
            AddressBase::Text => {
                let answered = self
                    .port
                    .with_slot(file.target.name(), |slot, _| answer(slot));
                answered.unwrap_or(Err(Refusal::NoModule))?;
            }
        }
        put(argument, &question)
    }

    /// Makes a file be about another target.
    fn aim(&self, file: &mut File, argument: &[u8]) -> Result<(), Refusal> {
        let target = Target::read_from_bytes(argument).map_err(|_| Refusal::Argument)?;
        // What was written is for the old one.
        if file.begun {
            return Err(Refusal::TargetLate);
        }
        let found = self.port.with_slot(target.name(), |_, _| ());
        found.ok_or(Refusal::NoModule)?;
        file.target = target;
        Ok(())
    }

    /// What is wrong with what was written so far: the error of closing a descriptor of the file,
    /// though more may come through another one.
    ///
    /// # Errors
    ///
    /// [`Refusal::Blob`] if it is not complete, [`Refusal::TakenOver`] if it is lost.
    pub fn flush(&self, file: &File) -> Result<(), Refusal> {
        if !file.begun {
            return Ok(());
        }
        let idle_ms = self.config.idle_ms;
        let writer = self.writer.as_ref();
        let writer = writer.filter(|writer| file.writer == Some(writer.number));
        let writer = writer.ok_or(Refusal::TakenOver { idle_ms })?;
        let error = writer.load.incomplete();
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Closes a file; what was written and is not published is discarded.
    pub fn close(&mut self, file: &File) {
        let mine = |writer: &mut Writer<P>| file.writer == Some(writer.number);
        // Its memory is free before the next writer can come.
        let Some(Writer { caller, load, .. }) = self.writer.take_if(mine) else {
            return;
        };
        let written = load.written();
        drop(load);
        if written > 0 {
            log_discarded(&self.port, caller, "closed", written);
        }
    }

    /// Fills the slot of the kernel from the end of its boot image, where the policy says so.
    /// Whatever is wrong there is logged, and the boot goes on.
    ///
    /// `read` fills a slice with the bytes of the image at a position, or fails.
    pub fn load_appended<E>(
        &mut self,
        image_size: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) {
        if self.config.policy != Policy::On {
            return;
        }
        let mut buffer = [0; ENDING_BUFFER];
        let loaded = match Ending::find(image_size, &mut buffer, &mut read) {
            Ok(Ok(Ending {
                footer: Some(footer),
                ..
            })) => self.load_footer(&footer, read).map(Some),
            Ok(Ok(Ending { footer: None, .. })) => Ok(None),
            Ok(Err(error)) => Err(Refusal::Footer(error)),
            Err(_unreadable) => Err(Refusal::Blob(Error::Truncated {
                expected: image_size,
                found: 0,
            })),
        };
        match loaded {
            Ok(Some(())) => {}
            Ok(None) => log(&self.port, Level::Warning, |text| {
                text.push_str("no table is appended to this image, the slot is empty; append one with `lineinfo append`");
            }),
            Err(refusal) => {
                self.refuse("appended table", &Target::default(), refusal);
            }
        }
    }

    fn load_footer<E>(
        &self,
        footer: &Footer,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), Refusal> {
        let size = u64::from(footer.payload_size);
        let max = self.config.max_bytes;
        // Of the payload only the pad, which is shorter than what it aligns to, may be more.
        if size >= max.saturating_add(ALIGN.into()) {
            return Err(Refusal::TooLarge { size, max });
        }
        // Straight into the memory that will be the table.
        let bytes = index(footer.payload_size);
        let memory = self.port.allocate(bytes);
        let mut memory = memory.ok_or(Refusal::NoMemory { size })?;
        let payload = memory.bytes_mut().get_mut(..bytes).unwrap_or(&mut []);
        read(footer.payload().start, payload).map_err(|_unreadable| {
            Refusal::Blob(Error::Truncated {
                expected: size,
                found: 0,
            })
        })?;
        let blob = footer.blob(payload)?.len();
        if wide(blob) > max {
            let size = wide(blob);
            return Err(Refusal::TooLarge { size, max });
        }
        // The blob comes first in its memory, and the pad before it goes.
        let pad = bytes.saturating_sub(blob);
        // Always: said where the compiler sees that nothing can panic.
        if pad <= payload.len() {
            payload.copy_within(pad.., 0);
        }
        let load = |slot: &TableSlot<P>, expected: &Expected| {
            slot.load(&self.port, &self.config, expected, memory, blob)
        };
        let loaded = self.port.with_slot("", load);
        loaded.unwrap_or(Err(Refusal::NoModule))
    }

    /// The init text of an image is gone: frees what its table says of it, if that saves pages, and
    /// takes it out of tables that come.
    pub fn free_init(&mut self, name: &str) {
        let free = |slot: &TableSlot<P>, expected: &Expected| slot.free_init(&self.port, expected);
        // A module that has gone has no table.
        let _gone = self.port.with_slot(name, free);
    }

    /// Frees an old table of a slot whose readers have left by now ([`TableSlot::is_pending`]).
    pub fn reclaim(&mut self, slot: &TableSlot<P>) {
        slot.reclaim(&self.port);
    }

    /// Writes down why something was refused to a slot: in its status, and in the log.
    ///
    /// Only who may load has something refused to a slot.
    fn refuse(&self, what: &str, target: &Target, refusal: Refusal) -> Refusal {
        self.record(target, refusal);
        self.log_refusal(what, target, refusal);
        refusal
    }

    /// The same for what can come in a loop: in the log only so often.
    fn refuse_limited(&mut self, what: &str, target: &Target, refusal: Refusal) -> Refusal {
        self.record(target, refusal);
        self.log_limited(what, target, refusal, true);
        refusal
    }

    fn record(&self, target: &Target, refusal: Refusal) {
        // A module that has gone has no status.
        let _gone = self
            .port
            .with_slot(target.name(), |slot, _| slot.record(refusal));
    }

    /// The same for a file that is no writer: that another one has the device now is news.
    fn refuse_lost(&mut self, file: &File, refusal: Refusal) -> Refusal {
        if matches!(refusal, Refusal::TakenOver { .. }) {
            self.refuse_limited("load", &file.target, refusal);
        }
        refusal
    }

    /// Logs a refusal, but only so often: what those bring about who may not load, which is
    /// anybody, does not suppress what others do.
    fn log_limited(&mut self, what: &str, target: &Target, refusal: Refusal, may_load: bool) {
        let limit = match may_load {
            true => &mut self.refusals,
            false => &mut self.refusals_of_others,
        };
        let Some(suppressed) = limit.admit(self.port.now_ms()) else {
            return;
        };
        if suppressed > 0 {
            log(&self.port, Level::Warning, |text| {
                text.push_u32(suppressed);
                text.push_str(" refusals suppressed");
            });
        }
        self.log_refusal(what, target, refusal);
    }

    fn log_refusal(&self, what: &str, target: &Target, refusal: Refusal) {
        log(&self.port, Level::Error, |text| {
            text.push_str(what);
            if !target.name().is_empty() {
                text.push_str(" of module ");
                text.push_str(target.name());
            }
            text.push_str(" refused: ");
            refusal.push_to(text);
            text.push_str(": -");
            text.push_str(refusal.errno().name());
        });
    }
}

fn log_discarded<P: Port>(port: &P, caller: Caller, how: &str, written: usize) {
    log(port, Level::Warning, |text| {
        text.push_str("load by ");
        caller.push_to(text);
        text.push_str(" ");
        text.push_str(how);
        text.push_str(" after ");
        text.push_u64(wide(written));
        text.push_str(" bytes, before the end: discarded");
    });
}

/// The writer that a file is, as long as nobody has taken the device over.
fn current<'a, P: Port>(
    port: &P,
    config: &Config,
    writer: &'a mut Option<Writer<P>>,
    file: &File,
) -> Result<&'a mut Writer<P>, Refusal> {
    let number = file.writer.ok_or(Refusal::NotWriter)?;
    let writer = writer.as_mut().filter(|writer| writer.number == number);
    let writer = writer.ok_or(Refusal::TakenOver {
        idle_ms: config.idle_ms,
    })?;
    writer.last_ms = port.now_ms();
    Ok(writer)
}

/// Takes bytes in; with the last one the table is published.
fn take<P: Port>(
    port: &P,
    config: &Config,
    load: &mut Load<P::Memory>,
    target: &Target,
    mut bytes: &[u8],
) -> Result<(), Refusal> {
    if let Load::Header { bytes: header, len } = load {
        let room = header.get_mut(*len..).unwrap_or(&mut []);
        let now = bytes.len().min(room.len());
        copy(room, bytes);
        *len = len.saturating_add(now);
        if *len < HEADER_SIZE {
            return Ok(());
        }
        bytes = bytes.get(now..).unwrap_or(&[]);
        *load = begin(port, config, header)?;
    }
    let Load::Body { memory, size, len } = load else {
        return Ok(());
    };
    let end = len.saturating_add(bytes.len());
    let blob = memory.bytes_mut().get_mut(..*size).unwrap_or(&mut []);
    let room = blob.get_mut(*len..end).ok_or(Error::Trailing {
        expected: wide(*size),
        found: wide(end),
    })?;
    copy(room, bytes);
    *len = end;
    if len < size {
        return Ok(());
    }
    let Load::Body { memory, size, .. } = core::mem::replace(load, Load::Published) else {
        return Ok(());
    };
    let publish =
        |slot: &TableSlot<P>, expected: &Expected| slot.load(port, config, expected, memory, size);
    let published = port.with_slot(target.name(), publish);
    published.unwrap_or(Err(Refusal::NoModule))
}

/// Makes room for the blob that this header announces.
fn begin<P: Port>(
    port: &P,
    config: &Config,
    header: &[u8; HEADER_SIZE],
) -> Result<Load<P::Memory>, Refusal> {
    let size = Header::peek(header)?.total_size.get();
    let max = config.max_bytes;
    if u64::from(size) > max {
        let size = size.into();
        return Err(Refusal::TooLarge { size, max });
    }
    let memory = port.allocate(index(size));
    let mut memory = memory.ok_or(Refusal::NoMemory { size: size.into() })?;
    copy(memory.bytes_mut(), header);
    Ok(Load::Body {
        memory,
        size: index(size),
        len: HEADER_SIZE,
    })
}

/// Copies as many bytes as both have; `copy_from_slice` would leave a branch that panics.
fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// Puts an answer into the argument of an ioctl.
fn put<T: IntoBytes + zerocopy::Immutable>(argument: &mut [u8], answer: &T) -> Result<(), Refusal> {
    answer.write_to(argument).map_err(|_| Refusal::Argument)
}

/// Longest line of the log, in bytes; the rest of a longer one is left out.
const LINE_BYTES: usize = 400;

/// Composes a line and writes it to the log.
fn log<P: Port>(port: &P, level: Level, compose: impl FnOnce(&mut StrBuffer<'_>)) {
    let mut buffer = [0; LINE_BYTES];
    let mut line = StrBuffer::new(&mut buffer);
    line.push_str("lineinfo: ");
    compose(&mut line);
    port.log(level, line.as_str());
}

#[cfg(test)]
mod tests;
