//! A disk in memory.

use std::sync::{Mutex, PoisonError};

use crate::machine::frames::keep_frame;

/// The unit of a request, in bytes.
pub(super) const SECTOR_BYTES: usize = 512;

/// Its size, in sectors.
pub(super) const SECTORS: usize = 128;

static DISK: [Mutex<[u8; SECTOR_BYTES]>; SECTORS] =
    [const { Mutex::new([0; SECTOR_BYTES]) }; SECTORS];

/// Writes a sector, or reads it if there is nothing to write.
#[inline(never)]
pub(super) fn submit(sector: usize, write: &[u8]) -> Vec<u8> {
    keep_frame(brd_do_bvec(sector, write))
}

#[inline(never)]
fn brd_do_bvec(sector: usize, write: &[u8]) -> Vec<u8> {
    let Some(stored) = DISK.get(sector) else {
        return Vec::new();
    };
    let mut bytes = stored.lock().unwrap_or_else(PoisonError::into_inner);
    if write.is_empty() {
        return bytes.to_vec();
    }
    for (stored, byte) in bytes.iter_mut().zip(write) {
        *stored = *byte;
    }
    keep_frame(Vec::new())
}
