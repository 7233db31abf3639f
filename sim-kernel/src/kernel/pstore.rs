//! The crash record: the last lines of the log, which a panic writes to a file of the host.
//!
//! ```text
//!   panic ─ log ring ─ pwrite ─> FILE: record 0 | record 1 | record 2 | record 3
//!                                           next boot: the newest whole one ─> log, /sys/fs/pstore/dmesg
//! ```
//!
//! Each record has an area of fixed size; the next panic writes over the oldest one. The text is
//! written first and its header last, so that a record whose writing was cut off is invalid, and
//! the one before it is still there.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crc32fast::Hasher;
use nix::errno::Errno;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::{kmsg, printk};
use crate::fs::proc::open_text;
use crate::fs::{Node, namei};
use crate::machine::syscall;
use crate::printk;

const FILES: &[Node] = &[Node {
    path: DMESG,
    // It is a log, which has addresses.
    permissions: 0o400,
    driver_decides: false,
    open: |_, _, _| open_text(|| newest().to_owned()),
}];
/// The file with the newest record.
const DMESG: &str = "/sys/fs/pstore/dmesg";

/// The first bytes of each record, with the version of the layout.
const MAGIC: [u8; 8] = *b"SIMPST01";
/// How many records a file holds.
const RECORDS: u64 = 4;
/// Size of the area of one record in the file, in bytes.
const AREA_BYTES: u64 = (size_of::<RecordHeader>() + kmsg::SIZE_BYTES) as u64;

/// Most lines of a record that are logged at boot; all of them are in the file.
const LINES_MAX: usize = 60;
/// The line of a log at which the report of the panic begins.
const PANIC: &str = "Kernel panic - not syncing:";

/// The head of a record, 40 bytes, in the byte order of the host; the text follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RecordHeader {
    /// [`MAGIC`].
    magic: [u8; 8],
    /// CRC-32 of the header, with zeros here, and of the text.
    crc: u32,
    /// Length of the text in bytes.
    len: u32,
    /// How many records were written before.
    sequence: u64,
    /// Time of the crash, in seconds since 1970.
    time_s: u64,
    /// Time from that boot to the crash, in nanoseconds.
    uptime_ns: u64,
}

/// The file of the host, -1 if there is none; open until the end.
static FD: AtomicI32 = AtomicI32::new(-1);
/// The sequence number of the next record.
static NEXT: AtomicU64 = AtomicU64::new(0);
static WRITING: AtomicBool = AtomicBool::new(false);
/// The text of the newest record at boot.
static NEWEST: OnceLock<String> = OnceLock::new();

/// The log of the last crash, empty if none is known.
fn newest() -> &'static str {
    NEWEST.get().map_or("", String::as_str)
}

/// Registers `/sys/fs/pstore/dmesg`, empty until [`open`].
pub(crate) fn init() {
    namei::register(FILES);
}

/// Logs the newest record of a file, and keeps the file open for the next panic. A file that holds
/// anything else is left as it is.
///
/// An error in it is logged and does not stop the boot.
pub(crate) fn open(file: io::Result<File>) {
    let file = match file.and_then(make_ours) {
        Ok(file) => file,
        Err(error) => {
            return printk!(
                Err,
                "pstore: cannot use the file: {error}; a panic leaves no record"
            );
        }
    };
    let mut records: Vec<(RecordHeader, String)> = Vec::new();
    for area in 0..RECORDS {
        match read(&file, area) {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {}
            Err(error) => printk!(Warning, "pstore: record {area} is not used: {error}"),
        }
    }
    let newest = records
        .into_iter()
        .max_by_key(|(header, _)| header.sequence);
    if let Some((header, text)) = newest {
        show(&header, &text);
        NEXT.store(header.sequence.wrapping_add(1), Ordering::Relaxed);
        NEWEST.get_or_init(|| text);
    } else {
        printk!(Info, "pstore: no record of a crash");
    }
    FD.store(file.into_raw_fd(), Ordering::Release);
    kmsg::register_dumper(dump);
}

/// Checks that a file is for records, empty or with one that begins as records do, and closes it to
/// other users.
fn make_ours(file: File) -> io::Result<File> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let begins_here = |area: u64| {
        let mut magic = MAGIC.map(|_| 0);
        let read = file.read_exact_at(&mut magic, area * AREA_BYTES);
        read.is_ok() && magic == MAGIC
    };
    let len = metadata.len();
    if len > 0 && (len > RECORDS * AREA_BYTES || !(0..RECORDS).any(begins_here)) {
        return Err(io::Error::other(format!(
            "its {len} bytes are no crash records, and are left as they are; remove it, or name another file"
        )));
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Reads the record in an area; `None` if nothing was written there.
fn read(file: &File, area: u64) -> io::Result<Option<(RecordHeader, String)>> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let at = area * AREA_BYTES;
    let mut header = RecordHeader::new_zeroed();
    if file.metadata()?.len() <= at {
        return Ok(None);
    }
    file.read_exact_at(header.as_mut_bytes(), at)?;
    if header.as_bytes().iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if header.magic != MAGIC {
        return Err(bad("it is no record, or one of another version".into()));
    }
    let len = header.len as usize;
    if len > kmsg::SIZE_BYTES {
        return Err(bad(format!("{len} bytes do not fit into its area")));
    }
    let mut text = vec![0; len];
    file.read_exact_at(&mut text, at + size_of::<RecordHeader>() as u64)?;
    let mut checksum = header.begin_checksum();
    checksum.update(&text);
    let found = checksum.finalize();
    if found != header.crc {
        let expected = header.crc;
        return Err(bad(format!(
            "checksum {found:08x}, its header says {expected:08x}"
        )));
    }
    Ok(Some((header, String::from_utf8_lossy(&text).into_owned())))
}

fn show(header: &RecordHeader, text: &str) {
    let now = since_1970().as_secs();
    let ago_s = now.saturating_sub(header.time_s);
    let uptime = Duration::from_nanos(header.uptime_ns);
    let count = text.lines().count();
    printk!(
        Notice,
        "pstore: the kernel crashed {ago_s} s ago, {:.6} s after its boot; the last {count} lines of its log are in {DMESG}",
        uptime.as_secs_f64()
    );
    let lines: Vec<&str> = text.lines().collect();
    let panic = lines.iter().rposition(|line| line.contains(PANIC));
    let from = panic.unwrap_or(count.saturating_sub(LINES_MAX));
    for line in lines.iter().skip(from).take(LINES_MAX) {
        printk!(Notice, "pstore: {line}");
    }
}

fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock of the host before 1970 gives crashes of 1970.
    now.unwrap_or_default()
}

impl RecordHeader {
    /// The checksum of this header, to which the text is to be added.
    fn begin_checksum(mut self) -> Hasher {
        self.crc = 0;
        let mut checksum = Hasher::new();
        checksum.update(self.as_bytes());
        checksum
    }
}

/// Writes the log to the file; for any context.
fn dump() {
    let fd = FD.load(Ordering::Acquire);
    // A second CPU would write over the record of the first.
    if fd < 0 || WRITING.swap(true, Ordering::AcqRel) {
        return;
    }
    let sequence = NEXT.fetch_add(1, Ordering::Relaxed);
    if let Err(errno) = write(fd, sequence) {
        printk!(Err, "pstore: cannot write the record: {errno}");
    }
    WRITING.store(false, Ordering::Release);
}

fn write(fd: i32, sequence: u64) -> Result<(), Errno> {
    const PIECE_BYTES: usize = 4096;

    let log = kmsg::extent();
    let mut header = RecordHeader {
        magic: MAGIC,
        crc: 0,
        len: u32::try_from(log.len()).unwrap_or(u32::MAX),
        sequence,
        time_s: since_1970().as_secs(),
        uptime_ns: u64::try_from(printk::uptime().as_nanos()).unwrap_or(u64::MAX),
    };
    let mut checksum = header.begin_checksum();
    let start = sequence % RECORDS * AREA_BYTES;
    let mut at = start + size_of::<RecordHeader>() as u64;
    // The old header must not describe the new text, and the file must still be known as ours.
    let mut unfinished = RecordHeader::new_zeroed();
    unfinished.magic = MAGIC;
    syscall::pwrite_all(fd, unfinished.as_bytes(), start)?;
    let mut piece = [0; PIECE_BYTES];
    let mut bytes = kmsg::bytes(log);
    loop {
        let mut len = 0;
        for (free, byte) in piece.iter_mut().zip(&mut bytes) {
            *free = byte;
            len += 1;
        }
        if len == 0 {
            break;
        }
        checksum.update(&piece[..len]);
        syscall::pwrite_all(fd, &piece[..len], at)?;
        at += len as u64;
    }
    header.crc = checksum.finalize();
    syscall::pwrite_all(fd, header.as_bytes(), start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(file: &File, sequence: u64, text: &str) {
        use std::os::fd::AsRawFd;
        kmsg::push(text.as_bytes());
        write(file.as_raw_fd(), sequence).expect("a file takes it");
    }

    #[test]
    fn a_damaged_record_is_refused_and_the_others_stay() {
        let file = tempfile::tempfile().expect("a file");
        for sequence in 0..6 {
            record(&file, sequence, &format!("record {sequence}\n"));
        }
        for (area, sequence) in [(0, 4), (1, 5), (2, 2), (3, 3)] {
            let (header, text) = read(&file, area).expect("whole").expect("there");
            assert_eq!(header.sequence, sequence);
            let end = format!("record {sequence}");
            assert_eq!(text.lines().last(), Some(end.as_str()));
        }
        let inside = AREA_BYTES + size_of::<RecordHeader>() as u64 + 3;
        for at in (AREA_BYTES..AREA_BYTES + size_of::<RecordHeader>() as u64).chain([inside]) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("a byte");
            file.write_all_at(&[byte[0] ^ 1], at).expect("write");
            assert!(read(&file, 1).is_err(), "byte {at}");
            file.write_all_at(&byte, at).expect("write");
        }
        assert!(read(&file, 1).expect("as it was").is_some());
        file.set_len(inside).expect("cut");
        assert!(read(&file, 1).is_err());
        assert!(read(&file, 2).expect("nothing there").is_none());
        assert!(read(&file, 0).expect("whole").is_some());
    }

    #[test]
    fn only_a_file_of_records_is_written_to() {
        let file = || tempfile::tempfile().expect("a file");
        assert!(make_ours(file()).is_ok(), "empty");
        let ours = file();
        record(&ours, 5, "one\n");
        ours.write_all_at(&[0; 8], 2 * AREA_BYTES).expect("write");
        let ours = make_ours(ours).expect("one area begins as records do");
        let mode = ours.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        ours.set_len(RECORDS * AREA_BYTES + 1).expect("longer");
        assert!(make_ours(ours).is_err(), "too long");
        for foreign in [&b"x"[..], &[0; 40], &MAGIC[..7], &[0xff; 1 << 16]] {
            let other = file();
            other.write_all_at(foreign, 0).expect("write");
            let mode = other.metadata().expect("metadata").permissions().mode();
            let kept = other.try_clone().expect("the same file");
            let error = make_ours(other).expect_err("no records").to_string();
            assert!(error.contains("remove it, or name another"), "{error}");
            let after = kept.metadata().expect("metadata").permissions().mode();
            assert_eq!(after, mode);
        }
    }

    #[test]
    fn a_record_that_was_cut_off_is_known_as_ours_and_not_used() {
        let file = tempfile::tempfile().expect("a file");
        record(&file, 0, "cut\n");
        // As it is after the first write: no length, no checksum.
        file.write_all_at(&[0; size_of::<RecordHeader>() - 8], 8)
            .expect("write");
        let file = make_ours(file).expect("ours");
        assert!(read(&file, 0).is_err());
    }
}
