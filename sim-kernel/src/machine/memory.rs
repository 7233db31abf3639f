//! The memory of the machine: a range of addresses, and pages that are mapped in it while they are allocated.
//!
//! A page that is not allocated is not mapped (`PROT_NONE`, never touched), so what the host
//! counts as resident in the range is what the allocator counts as used.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect};

use super::fault::should_fail;
use super::page_alloc::{PAGE_SIZE, PageAllocator};

/// Reports that the host keeps so many pages.
type Report = fn(usize, Errno);

static REPORT: OnceLock<Report> = OnceLock::new();

/// Sets what reports that the host does not unmap pages that are freed; the first call counts.
pub(crate) fn init(report: Report) {
    REPORT.get_or_init(|| report);
}

/// A range of addresses, reserved for the life of the process, and the allocator of its pages.
#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<u8>,
    size_bytes: usize,
    allocator: Mutex<PageAllocator>,
}

// SAFETY: `base` is an address that only `Pages` turn into references, each for its own pages.
unsafe impl Send for Arena {}
// SAFETY: as above; a lock guards the allocator.
unsafe impl Sync for Arena {}

impl Arena {
    /// Reserves addresses for `pages` pages, and no memory.
    pub(crate) fn reserve(pages: NonZeroUsize) -> Result<Self, Errno> {
        let guarded = pages
            .checked_add(2)
            .and_then(|pages| pages.checked_mul(const { NonZeroUsize::new(PAGE_SIZE).unwrap() }))
            .ok_or(Errno::ENOMEM)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping, where the host has room for it.
        let guard = unsafe { mmap_anonymous(None, guarded, ProtFlags::PROT_NONE, flags) }?;
        // SAFETY: the second page of the mapping, which has three or more.
        let base = unsafe { guard.byte_add(PAGE_SIZE) };
        let size_bytes = pages.get() * PAGE_SIZE;
        // SAFETY: the last page of the mapping.
        let behind = unsafe { base.byte_add(size_bytes) };
        // The host counts neighbours of one kind as one mapping; these are of another kind than all
        // of its neighbours, and never touched.
        for page in [guard, behind] {
            // SAFETY: a page of the new mapping, to which there is no reference yet.
            unsafe { mprotect(page, PAGE_SIZE, ProtFlags::PROT_READ) }?;
        }
        Ok(Self {
            base: base.cast(),
            size_bytes,
            allocator: Mutex::new(PageAllocator::new(pages.get())),
        })
    }

    /// The addresses, in bytes.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let base = self.base.addr().get();
        base..base + self.size_bytes
    }

    /// Number of pages that are allocated.
    pub(crate) fn used_pages(&self) -> usize {
        self.allocator().used()
    }

    /// Number of all pages.
    pub(crate) fn total_pages(&self) -> usize {
        self.allocator().total()
    }

    /// Pages for at least `size_bytes` bytes: zeros, resident, side by side.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there are not so many in a row, or the host has no memory for them.
    pub(crate) fn allocate(&'static self, size_bytes: usize) -> Result<Pages, Errno> {
        let count = NonZeroUsize::new(size_bytes.div_ceil(PAGE_SIZE)).ok_or(Errno::EINVAL)?;
        if should_fail("a run of pages") {
            return Err(Errno::ENOMEM);
        }
        let pages = self.allocator().allocate(count).ok_or(Errno::ENOMEM)?;
        // From here on, dropping it frees the pages.
        let pages = Pages { arena: self, pages };
        pages.protect(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        pages.populate()?;
        Ok(pages)
    }

    fn allocator(&self) -> MutexGuard<'_, PageAllocator> {
        // Each change is a single step, so it is consistent even after a panic.
        self.allocator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, page: usize) -> NonNull<c_void> {
        // SAFETY: the allocator has only pages of this arena, so this stays in its mapping.
        unsafe { self.base.byte_add(page * PAGE_SIZE) }.cast()
    }
}

/// Pages that can be written; dropping them frees them.
#[derive(Debug)]
pub(crate) struct Pages {
    arena: &'static Arena,
    pages: Range<usize>,
}

impl Pages {
    /// All their bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.start().cast::<u8>();
        // SAFETY: the allocator gave these pages to no other owner, they are mapped readable and writable
        // since `allocate`, the host filled them with zeros, and the borrow of `self` is unique.
        unsafe { NonNull::slice_from_raw_parts(start, self.size_bytes()).as_mut() }
    }

    /// Frees the pages after the first `size_bytes` bytes; the first page stays.
    pub(crate) fn truncate(&mut self, size_bytes: usize) {
        let end = self.pages.start + size_bytes.div_ceil(PAGE_SIZE).max(1);
        if end < self.pages.end
            && !should_fail("splitting a run of pages")
            && self.arena.allocator().split(&self.pages, end)
        {
            let tail = end..self.pages.end;
            self.pages.end = end;
            drop(Self {
                arena: self.arena,
                pages: tail,
            });
        }
    }

    /// Makes them read-only, for good.
    pub(crate) fn seal(self) -> Result<SealedPages, Errno> {
        if should_fail("making pages read-only") {
            return Err(Errno::ENOMEM);
        }
        self.protect(ProtFlags::PROT_READ)?;
        Ok(SealedPages(self))
    }

    fn start(&self) -> NonNull<c_void> {
        self.arena.at(self.pages.start)
    }

    fn size_bytes(&self) -> usize {
        self.pages.len() * PAGE_SIZE
    }

    fn protect(&self, protection: ProtFlags) -> Result<(), Errno> {
        // SAFETY: the pages are ours alone; no reference to their bytes outlives a borrow of
        // `self`, and the callers hold the only one.
        unsafe { mprotect(self.start(), self.size_bytes(), protection) }
    }

    /// Makes every page resident now: where memory is short, a load is refused, and no later
    /// access dies of it.
    fn populate(&self) -> Result<(), Errno> {
        if should_fail("pages of the host") {
            return Err(Errno::ENOMEM);
        }
        // SAFETY: advice that changes no contents. The host may know no huge pages.
        let _unknown =
            unsafe { madvise(self.start(), self.size_bytes(), MmapAdvise::MADV_NOHUGEPAGE) };
        // SAFETY: faults in pages that are mapped writable, without changing their contents.
        let populated = unsafe {
            madvise(
                self.start(),
                self.size_bytes(),
                MmapAdvise::MADV_POPULATE_WRITE,
            )
        };
        match populated {
            // Before Linux 5.14 a page is mapped when it is touched.
            Err(Errno::EINVAL) => {
                for page in 0..self.pages.len() {
                    // SAFETY: the first byte of a page that is ours and mapped.
                    let byte = unsafe { self.start().cast::<u8>().byte_add(page * PAGE_SIZE) };
                    // SAFETY: as above; there are zeros in it, so nothing changes.
                    unsafe { byte.write_volatile(0) };
                }
                Ok(())
            }
            populated => populated,
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
        let (Some(start), Some(size)) = (
            NonZeroUsize::new(self.start().addr().get()),
            NonZeroUsize::new(self.size_bytes()),
        ) else {
            return;
        };
        // SAFETY: replaces our own pages, to which no reference is left, by reserved addresses.
        let unmapped = unsafe { mmap_anonymous(Some(start), size, ProtFlags::PROT_NONE, flags) };
        match unmapped {
            Ok(_) => self.arena.allocator().free(&self.pages),
            // They are still mapped, so they stay allocated.
            Err(errno) => {
                if let Some(report) = REPORT.get() {
                    report(self.pages.len(), errno);
                }
            }
        }
    }
}

/// Pages that cannot be written any more; dropping them frees them.
#[derive(Debug)]
pub(crate) struct SealedPages(Pages);

impl SealedPages {
    /// All their bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        let start = self.0.start().cast::<u8>();
        // SAFETY: the allocator gave these pages to no other owner, they are mapped readable, the host
        // filled them with zeros, and nothing writes to them since `seal` took the only owner.
        unsafe { NonNull::slice_from_raw_parts(start, self.0.size_bytes()).as_ref() }
    }
}
