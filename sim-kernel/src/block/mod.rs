//! The block layer: requests go into a queue, and the disk serves them one after the other.
//!
//! ```text
//!   vfs_read ─ blkdev_read_iter ─ submit_bio_wait ─ blk_mq_submit_bio ─> queue
//!                                       │                                  │
//!                                  io_schedule <── complete ── brd_submit <┘
//! ```

mod brd;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use brd::SECTOR_BYTES;

use crate::fs::{FileOperations, Node};
use crate::machine::frames::keep_frame;
use crate::machine::syscall;

/// How long a request takes at least.
const LATENCY: Duration = Duration::from_micros(100);

/// The disk.
pub(crate) const FILES: &[Node] = &[Node {
    path: "/dev/ram0",
    permissions: 0o660,
    driver_decides: false,
    open: |_, _, _| Ok(Box::new(BlockDevice { next: 0 })),
}];

/// A request: one sector of the disk.
#[derive(Debug)]
struct Bio {
    sector: usize,
    /// What to write; empty to read.
    write: Vec<u8>,
    read: Mutex<Vec<u8>>,
    done: AtomicBool,
}

/// Requests that are not served yet.
static QUEUE: Mutex<VecDeque<Arc<Bio>>> = Mutex::new(VecDeque::new());

struct BlockDevice {
    /// The sector of the next write.
    next: usize,
}

impl FileOperations for BlockDevice {
    #[inline(never)]
    fn read(&mut self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        let sector = usize::try_from(at).map_err(|_| Errno::EINVAL)? / SECTOR_BYTES;
        if sector >= brd::SECTORS {
            return Ok(0);
        }
        let found = submit_bio_wait(sector, Vec::new());
        let len = found.len().min(buffer.len());
        buffer[..len].copy_from_slice(&found[..len]);
        keep_frame(Ok(len))
    }

    #[inline(never)]
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let len = bytes.len().min(SECTOR_BYTES);
        if self.next >= brd::SECTORS || len == 0 {
            return Err(Errno::ENOSPC);
        }
        submit_bio_wait(self.next, bytes[..len].to_vec());
        self.next += 1;
        keep_frame(Ok(len))
    }
}

/// Makes a request, waits until it is served, and returns what was read.
#[inline(never)]
fn submit_bio_wait(sector: usize, write: Vec<u8>) -> Vec<u8> {
    let bio = Arc::new(Bio {
        sector,
        write,
        read: Mutex::default(),
        done: AtomicBool::new(false),
    });
    blk_mq_submit_bio(Arc::clone(&bio));
    io_schedule(&bio);
    let read = std::mem::take(&mut *bio.read.lock().unwrap_or_else(PoisonError::into_inner));
    keep_frame(read)
}

#[inline(never)]
fn blk_mq_submit_bio(bio: Arc<Bio>) {
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    queue.push_back(bio);
    drop(queue);
    blk_mq_run_hw_queue();
    keep_frame(());
}

/// Serves all requests in the queue, those of other tasks included.
#[inline(never)]
fn blk_mq_run_hw_queue() {
    loop {
        let next = QUEUE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(bio) = next else {
            break;
        };
        let read = brd::submit(bio.sector, &bio.write);
        *bio.read.lock().unwrap_or_else(PoisonError::into_inner) = read;
        bio.done.store(true, Ordering::Release);
    }
    keep_frame(());
}

/// Waits until a request has been served.
#[inline(never)]
fn io_schedule(bio: &Bio) {
    loop {
        syscall::safe_halt(LATENCY);
        if bio.done.load(Ordering::Acquire) {
            break;
        }
    }
    keep_frame(());
}
