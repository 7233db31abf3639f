//! The crash record: the last log, kept over a panic in a file of the host.
//!
//! ```text
//!   panic ─ log ring ─ pwrite ─> FILE: record 0 | record 1 | record 2 | record 3
//!                                           next boot: the newest whole one ─> log, /sys/fs/pstore/dmesg
//! ```
//!
//! Each record has a place of fixed size; the next panic takes the place of the oldest one. The
//! text is written first and its header last, so that a record that was cut off is not whole, and
//! the one before it is still there.

use std::fs::File;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crc32fast::Hasher;
use nix::errno::Errno;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::kmsg;
use crate::fs::Node;
use crate::fs::proc::{open_text, text_file};
use crate::machine::syscall;
use crate::printk;

/// The file with the newest record.
pub(crate) const NODES: &[Node] = &[text_file(DMESG, |_, _, _| {
    open_text(|| newest().to_owned())
})];
const DMESG: &str = "/sys/fs/pstore/dmesg";

/// Where each record begins, with the version of the layout.
const MAGIC: [u8; 8] = *b"SIMPST01";
/// How many records a file holds.
const RECORDS: u64 = 4;
/// The place of one record in the file, in bytes.
const PLACE_BYTES: u64 = (size_of::<Header>() + kmsg::SIZE_BYTES) as u64;

/// Most lines of a record that are logged at boot; all of them are in the file.
const LINES_MAX: usize = 60;
/// Where the part of a log begins that says why it is the last one.
const PANIC: &str = "Kernel panic - not syncing:";

/// The head of a record, 40 bytes, in the byte order of the host; the text follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    /// [`MAGIC`].
    magic: [u8; 8],
    /// CRC-32 of the header, with zeros here, and of the text.
    crc: u32,
    /// Length of the text in bytes.
    len: u32,
    /// How many records were written before.
    sequence: u64,
    /// When, in seconds since 1970.
    time_s: u64,
    /// Time since that boot, in nanoseconds.
    uptime_ns: u64,
}

/// The file of the host, -1 if there is none; open until the end.
static FD: AtomicI32 = AtomicI32::new(-1);
/// The sequence number of the next record.
static NEXT: AtomicU64 = AtomicU64::new(0);
static WRITING: AtomicBool = AtomicBool::new(false);
/// The text of the newest record at boot.
static NEWEST: OnceLock<String> = OnceLock::new();

/// The log of the last crash, empty where none is known.
fn newest() -> &'static str {
    NEWEST.get().map_or("", String::as_str)
}

/// Takes the file over: shows what it has, and keeps it open for the next panic.
///
/// Whatever is wrong with it is said in the log and does not stop the boot.
pub(crate) fn init(file: io::Result<File>) {
    let regular = |file: File| {
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::other("it is no regular file"))
    };
    let file = match file.and_then(regular) {
        Ok(file) => file,
        Err(error) => {
            return printk!(
                Err,
                "pstore: cannot use the file: {error}; nothing is kept over a panic"
            );
        }
    };
    let mut records: Vec<(Header, String)> = Vec::new();
    for place in 0..RECORDS {
        match read(&file, place) {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {}
            Err(error) => printk!(Warning, "pstore: record {place} is not used: {error}"),
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
}

/// Reads the record at a place; `None` where nothing was written.
fn read(file: &File, place: u64) -> io::Result<Option<(Header, String)>> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let at = place * PLACE_BYTES;
    let mut header = Header::new_zeroed();
    if file.metadata()?.len() <= at {
        return Ok(None);
    }
    file.read_exact_at(header.as_mut_bytes(), at)?;
    if header.as_bytes().iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if header.magic != MAGIC {
        return Err(bad("it is none, or of another version".into()));
    }
    let len = header.len as usize;
    if len > kmsg::SIZE_BYTES {
        return Err(bad(format!("{len} bytes do not fit into its place")));
    }
    let mut text = vec![0; len];
    file.read_exact_at(&mut text, at + size_of::<Header>() as u64)?;
    let mut checksum = header.begin_checksum();
    checksum.update(&text);
    let found = checksum.finalize();
    if found != header.crc {
        let expected = header.crc;
        return Err(bad(format!(
            "checksum {found:08x} where it says {expected:08x}"
        )));
    }
    Ok(Some((header, String::from_utf8_lossy(&text).into_owned())))
}

fn show(header: &Header, text: &str) {
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
    // A host whose clock stands before 1970 gets crashes of 1970.
    now.unwrap_or_default()
}

impl Header {
    /// The checksum of this header; that of the text is to be added.
    fn begin_checksum(mut self) -> Hasher {
        self.crc = 0;
        let mut checksum = Hasher::new();
        checksum.update(self.as_bytes());
        checksum
    }
}

/// Writes the log down; for any context, allocates nothing and takes no lock.
pub(crate) fn kmsg_dump() {
    let fd = FD.load(Ordering::Acquire);
    // Whoever comes second would write over the first.
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
    let mut header = Header {
        magic: MAGIC,
        crc: 0,
        len: u32::try_from(log.len()).unwrap_or(u32::MAX),
        sequence,
        time_s: since_1970().as_secs(),
        uptime_ns: u64::try_from(super::printk::uptime().as_nanos()).unwrap_or(u64::MAX),
    };
    let mut checksum = header.begin_checksum();
    let start = sequence % RECORDS * PLACE_BYTES;
    let mut at = start + size_of::<Header>() as u64;
    // The old header must not describe the new text.
    syscall::pwrite_all(fd, Header::new_zeroed().as_bytes(), start)?;
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
        for (place, sequence) in [(0, 4), (1, 5), (2, 2), (3, 3)] {
            let (header, text) = read(&file, place).expect("whole").expect("there");
            assert_eq!(header.sequence, sequence);
            let end = format!("record {sequence}");
            assert_eq!(text.lines().last(), Some(end.as_str()));
        }
        let inside = PLACE_BYTES + size_of::<Header>() as u64 + 3;
        for at in (PLACE_BYTES..PLACE_BYTES + size_of::<Header>() as u64).chain([inside]) {
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
}
