//! The kernel's slot for a table: publish, look up, replace, unload.
//!
//! ```text
//!   readers (any context, NMI included)          writer (one at a time)
//!
//!   1. entered += 1  -> epoch e                  a. current <- new table or null
//!   2. load current                              b. entered <- (other epoch, 0); the old value
//!   3. look up                                      is (e, n): n readers entered in epoch e
//!   4. exited[e] += 1                            c. wait until exited[e] = n, with a bound
//!                                                d. exited[e] <- 0, free the old table
//! ```
//!
//! A reader makes two atomic read-modify-writes and one load. It has no loop, takes no lock and
//! waits for nobody, so it may interrupt another reader or the writer, on the same CPU too.
//!
//! No table is freed while a reader uses it: a reader whose step 1 comes after step b reads what b
//! wrote, and therefore also sees what a wrote. So a reader that holds the old pointer made step 1
//! before b, is one of the `n`, and c waits for its step 4. A reader that enters before b and loads
//! after a holds the *new* table in the old epoch. This does no harm, because the next writer flips
//! the epoch only after c.
//!
//! The epoch is the lowest bit of `entered`, and the count is above it, so a count that overflows
//! does not change the epoch. The comparison in c is modulo `2^(usize::BITS - 1)`.
//!
//! Every ordering is as weak as it can be; `core/tests/slot_mutants` weakens each of them and
//! checks that a test fails.
//!
//! The slot is generic over its atomics so that the tests can run it in a model checker.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// An owner of memory that a slot can keep as a pointer.
///
/// # Safety
///
/// The pointer that [`Owner::into_raw`] returns must be valid for shared reads, from any thread,
/// until [`Owner::from_raw`] takes it.
#[expect(
    unsafe_code,
    reason = "the slot dereferences the pointer that an implementation returns"
)]
pub unsafe trait Owner: Sized + Send {
    /// What readers see.
    type Target: Sync;

    /// Turns the owner into a pointer, and frees nothing.
    fn into_raw(self) -> NonNull<Self::Target>;

    /// Turns a pointer back into the owner; dropping the owner frees the memory.
    ///
    /// # Safety
    ///
    /// `raw` came from [`Owner::into_raw`], is passed here only once, and nobody reads through it
    /// any more.
    unsafe fn from_raw(raw: NonNull<Self::Target>) -> Self;
}

// SAFETY: a `&'static T` is valid for shared reads for ever, from any thread because `T: Sync`.
#[expect(unsafe_code, reason = "see the comment above")]
unsafe impl<T: Sync + 'static> Owner for &'static T {
    type Target = T;

    fn into_raw(self) -> NonNull<T> {
        NonNull::from(self)
    }

    unsafe fn from_raw(raw: NonNull<T>) -> Self {
        // SAFETY: `raw` was made from a `&'static T` in `into_raw`.
        unsafe { raw.as_ref() }
    }
}

#[cfg(feature = "alloc")]
// SAFETY: leaked memory of a box is valid for shared reads until it is a box again, from any thread
// because `T: Sync`.
#[expect(unsafe_code, reason = "see the comment above")]
unsafe impl<T: Send + Sync> Owner for alloc::boxed::Box<T> {
    type Target = T;

    fn into_raw(self) -> NonNull<T> {
        NonNull::from(Self::leak(self))
    }

    unsafe fn from_raw(raw: NonNull<T>) -> Self {
        // SAFETY: `raw` was made from a box in `into_raw`; by the contract of the trait nobody else
        // uses it.
        unsafe { Self::from_raw(raw.as_ptr()) }
    }
}

/// The atomics that a slot is made of.
pub trait Atomics {
    /// An atomic `usize`.
    type Word: Word;
    /// An atomic pointer.
    type Pointer<T>: Pointer<T>;
}

/// An atomic `usize`; the methods are those of [`AtomicUsize`].
pub trait Word {
    /// A word that holds `value`.
    fn new(value: usize) -> Self;
    /// [`AtomicUsize::load`].
    fn load(&self, ordering: Ordering) -> usize;
    /// [`AtomicUsize::store`].
    fn store(&self, value: usize, ordering: Ordering);
    /// [`AtomicUsize::swap`].
    fn swap(&self, value: usize, ordering: Ordering) -> usize;
    /// [`AtomicUsize::fetch_add`].
    fn fetch_add(&self, value: usize, ordering: Ordering) -> usize;
}

/// An atomic pointer; the methods are those of [`AtomicPtr`].
pub trait Pointer<T> {
    /// A pointer that holds `value`.
    fn new(value: *mut T) -> Self;
    /// [`AtomicPtr::load`].
    fn load(&self, ordering: Ordering) -> *mut T;
    /// [`AtomicPtr::store`].
    fn store(&self, value: *mut T, ordering: Ordering);
    /// [`AtomicPtr::swap`].
    fn swap(&self, value: *mut T, ordering: Ordering) -> *mut T;
}

/// Implements [`Word`] and [`Pointer`] for atomics with the methods of `core`'s.
///
/// Loads and stores are inlined: where the compiler sees the ordering, no branch that panics is left.
macro_rules! atomics {
    ($word:ty, $pointer:ident) => {
        impl Word for $word {
            fn new(value: usize) -> Self {
                Self::new(value)
            }
            #[inline]
            fn load(&self, ordering: Ordering) -> usize {
                self.load(ordering)
            }
            #[inline]
            fn store(&self, value: usize, ordering: Ordering) {
                self.store(value, ordering);
            }
            fn swap(&self, value: usize, ordering: Ordering) -> usize {
                self.swap(value, ordering)
            }
            fn fetch_add(&self, value: usize, ordering: Ordering) -> usize {
                self.fetch_add(value, ordering)
            }
        }

        impl<T> Pointer<T> for $pointer<T> {
            fn new(value: *mut T) -> Self {
                Self::new(value)
            }
            #[inline]
            fn load(&self, ordering: Ordering) -> *mut T {
                self.load(ordering)
            }
            #[inline]
            fn store(&self, value: *mut T, ordering: Ordering) {
                self.store(value, ordering);
            }
            fn swap(&self, value: *mut T, ordering: Ordering) -> *mut T {
                self.swap(value, ordering)
            }
        }
    };
}

/// The atomics of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Native;

impl Atomics for Native {
    type Word = AtomicUsize;
    type Pointer<T> = AtomicPtr<T>;
}

atomics!(AtomicUsize, AtomicPtr);

/// A slot for one table: readers in any context use it while a writer changes it.
///
/// ```
/// use lineinfo_core::slot::Slot;
///
/// static SLOT: Slot<&'static str> = Slot::empty();
/// static TABLE: &str = "a table";
///
/// assert_eq!(SLOT.read().get(), None);
/// assert_eq!(SLOT.swap(Some(&TABLE), || true)?, None); // publish into the empty slot
/// assert_eq!(SLOT.read().get(), Some(&TABLE));
/// assert_eq!(SLOT.swap(None, || true)?, Some(&TABLE)); // unload
/// # Ok::<(), lineinfo_core::slot::SwapError<&'static &'static str>>(())
/// ```
pub struct Slot<T: 'static, O = &'static T, A = Native>
where
    O: Owner<Target = T>,
    A: Atomics,
{
    current: A::Pointer<T>,
    /// `count << 1 | epoch`.
    entered: A::Word,
    /// Number of readers that have exited, by the epoch in which they entered.
    exited: (A::Word, A::Word),
    /// The table that was replaced and may still have readers. Only the writer uses it.
    retired: A::Pointer<T>,
    /// The value of `entered` before the epoch was flipped. Only the writer uses it.
    awaited: A::Word,
    /// 1 from the flip until the readers of the old epoch have exited. Only the writer uses it.
    draining: A::Word,
    /// 1 while there is a writer: a lock.
    writing: A::Word,
    owner: PhantomData<O>,
}

// SAFETY: all fields are atomics. Through a shared slot, a thread can get an `O`, which is `Send`,
// and a `&O::Target`, which is `Sync`.
#[expect(unsafe_code, reason = "see the comment above")]
unsafe impl<T, O: Owner<Target = T>, A: Atomics> Sync for Slot<T, O, A>
where
    A::Word: Sync,
    A::Pointer<T>: Sync,
{
}

const ONE_READER: usize = 2;
const EPOCH: usize = 1;

impl<T, O: Owner<Target = T>> Slot<T, O> {
    /// An empty slot.
    pub const fn empty() -> Self {
        Self {
            current: AtomicPtr::new(null_mut()),
            entered: AtomicUsize::new(0),
            exited: (AtomicUsize::new(0), AtomicUsize::new(0)),
            retired: AtomicPtr::new(null_mut()),
            awaited: AtomicUsize::new(0),
            draining: AtomicUsize::new(0),
            writing: AtomicUsize::new(0),
            owner: PhantomData,
        }
    }
}

impl<T, O: Owner<Target = T>, A: Atomics> Slot<T, O, A> {
    /// An empty slot over any atomics; see [`Slot::empty`] for a `static`.
    pub fn new() -> Self {
        Self {
            current: Pointer::new(null_mut()),
            entered: Word::new(0),
            exited: (Word::new(0), Word::new(0)),
            retired: Pointer::new(null_mut()),
            awaited: Word::new(0),
            draining: Word::new(0),
            writing: Word::new(0),
            owner: PhantomData,
        }
    }

    /// Enters the slot: the table that is in it now stays valid until the reader is dropped.
    ///
    /// May be called in any context: NMI, panic, inside another reader or inside the writer.
    pub fn read(&self) -> Reader<'_, T, O, A> {
        let epoch = self.entered.fetch_add(ONE_READER, Ordering::Acquire) & EPOCH;
        let current = NonNull::new(self.current.load(Ordering::Acquire));
        Reader {
            slot: self,
            epoch,
            current,
        }
    }

    /// Replaces the table by `new` (`None` empties the slot), and returns the old table.
    ///
    /// Readers that enter later see `new` at once. The old table is returned after its last reader
    /// has exited; until then `keep_waiting` is called in a loop. It pauses as the caller needs, and
    /// returns `false` to give up. In a context that may have interrupted a reader on the same CPU,
    /// `keep_waiting` must give up, because that reader cannot exit.
    ///
    /// # Errors
    ///
    /// [`SwapError::Busy`]: nothing was changed, and the error holds `new`. Another writer is at
    /// work, or a table that an earlier swap replaced still has readers.
    ///
    /// [`SwapError::Pending`]: `new` is in the slot, but `keep_waiting` gave up while the old table
    /// had readers. [`Slot::reclaim`] returns the old table later, or the next swap frees it.
    pub fn swap(
        &self,
        new: Option<O>,
        mut keep_waiting: impl FnMut() -> bool,
    ) -> Result<Option<O>, SwapError<O>> {
        let Some(writer) = self.lock() else {
            return Err(SwapError::Busy(new));
        };
        match writer.drain(&mut keep_waiting) {
            Ok(earlier) => drop(earlier),
            Err(Pending) => return Err(SwapError::Busy(new)),
        }
        writer.retire(new);
        writer
            .drain(keep_waiting)
            .map_err(|Pending| SwapError::Pending)
    }

    /// Returns the old table that an earlier [`Slot::swap`] left as [`SwapError::Pending`], if there
    /// is one.
    ///
    /// # Errors
    ///
    /// [`Pending`]: another writer is at work, or the old table still has readers.
    pub fn reclaim(&self, keep_waiting: impl FnMut() -> bool) -> Result<Option<O>, Pending> {
        self.lock().ok_or(Pending)?.drain(keep_waiting)
    }

    /// Takes the lock of writers, if it is free.
    fn lock(&self) -> Option<Writer<'_, T, O, A>> {
        // The `Writer` unlocks when it is dropped, so only the caller that took the lock makes one.
        let locked = self.writing.swap(1, Ordering::Acquire) == 0;
        locked.then(|| Writer { slot: self })
    }

    fn exited(&self, epoch: usize) -> &A::Word {
        if epoch == 0 {
            &self.exited.0
        } else {
            &self.exited.1
        }
    }
}

impl<T, O: Owner<Target = T>, A: Atomics> Default for Slot<T, O, A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, O: Owner<Target = T>, A: Atomics> Drop for Slot<T, O, A> {
    fn drop(&mut self) {
        for pointer in [&self.current, &self.retired] {
            if let Some(raw) = NonNull::new(pointer.swap(null_mut(), Ordering::Relaxed)) {
                // SAFETY: the slot holds only pointers that `into_raw` returned, `swap` has made
                // this the only copy, and no `Reader` outlives the slot, which it borrows. The
                // exclusive borrow orders all earlier uses of the slot before this.
                #[expect(unsafe_code, reason = "see the comment above")]
                drop(unsafe { O::from_raw(raw) });
            }
        }
    }
}

impl<T, O: Owner<Target = T>, A: Atomics> fmt::Debug for Slot<T, O, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("current", &self.current.load(Ordering::Relaxed))
            .field("entered", &self.entered.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// The one writer of a slot, which holds the lock until it is dropped.
struct Writer<'a, T: 'static, O: Owner<Target = T>, A: Atomics> {
    slot: &'a Slot<T, O, A>,
}

impl<T, O: Owner<Target = T>, A: Atomics> Writer<'_, T, O, A> {
    /// Steps a and b. The caller has drained the last epoch.
    fn retire(&self, new: Option<O>) {
        let slot = self.slot;
        let new = new.map_or(null_mut(), |owner| owner.into_raw().as_ptr());
        let old = slot.current.swap(new, Ordering::Release);
        // Only the writer flips the epoch, so no flip comes between this load and the swap.
        let epoch = slot.entered.load(Ordering::Relaxed) & EPOCH;
        let entered = slot.entered.swap(epoch ^ EPOCH, Ordering::Release);
        slot.awaited.store(entered, Ordering::Relaxed);
        slot.retired.store(old, Ordering::Relaxed);
        slot.draining.store(1, Ordering::Relaxed);
    }

    /// Steps c and d, which an earlier writer may have left to this one.
    ///
    /// It also waits where no table was replaced: a reader of the old epoch may hold the new table,
    /// so the epoch must not flip again before that reader has exited.
    fn drain(&self, mut keep_waiting: impl FnMut() -> bool) -> Result<Option<O>, Pending> {
        let slot = self.slot;
        if slot.draining.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        let awaited = slot.awaited.load(Ordering::Relaxed);
        let exited = slot.exited(awaited & EPOCH);
        while exited.load(Ordering::Acquire) << 1 != awaited & !EPOCH {
            if !keep_waiting() {
                return Err(Pending);
            }
        }
        exited.store(0, Ordering::Relaxed);
        slot.draining.store(0, Ordering::Relaxed);
        let Some(retired) = NonNull::new(slot.retired.swap(null_mut(), Ordering::Relaxed)) else {
            return Ok(None);
        };
        // SAFETY: `retired` came from `into_raw` in `retire`, and `swap` has made this the only
        // copy. All readers that could have loaded it have exited, as the module documentation
        // proves, and the acquiring load of `exited` orders their reads before this.
        #[expect(unsafe_code, reason = "see the comment above")]
        Ok(Some(unsafe { O::from_raw(retired) }))
    }
}

impl<T, O: Owner<Target = T>, A: Atomics> Drop for Writer<'_, T, O, A> {
    fn drop(&mut self) {
        self.slot.writing.store(0, Ordering::Release);
    }
}

/// A reader inside a [`Slot`], which exits when it is dropped.
pub struct Reader<'a, T: 'static, O: Owner<Target = T>, A: Atomics = Native> {
    slot: &'a Slot<T, O, A>,
    epoch: usize,
    current: Option<NonNull<T>>,
}

impl<T, O: Owner<Target = T>, A: Atomics> Reader<'_, T, O, A> {
    /// The table that was in the slot when this reader entered, if there was one.
    pub fn get(&self) -> Option<&T> {
        // SAFETY: the pointer came from `into_raw`. `from_raw` takes it only after this reader has
        // exited, as the module documentation proves, and it exits when it is dropped.
        #[expect(unsafe_code, reason = "see the comment above")]
        self.current.map(|raw| unsafe { raw.as_ref() })
    }
}

impl<T, O: Owner<Target = T>, A: Atomics> Drop for Reader<'_, T, O, A> {
    fn drop(&mut self) {
        self.slot.exited(self.epoch).fetch_add(1, Ordering::Release);
    }
}

impl<T: fmt::Debug, O: Owner<Target = T>, A: Atomics> fmt::Debug for Reader<'_, T, O, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.get()).finish()
    }
}

/// The old table cannot be freed yet: it has readers, or another writer is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending;

impl core::error::Error for Pending {}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the old table still has readers; try again later")
    }
}

/// Why a [`Slot::swap`] was not completed.
#[derive(Debug, PartialEq, Eq)]
pub enum SwapError<O> {
    /// Nothing was changed; this is the table that was refused.
    Busy(Option<O>),
    /// The new table is in the slot; the old one still has readers and is freed later.
    Pending,
}

impl<O: fmt::Debug> core::error::Error for SwapError<O> {}

impl<O> fmt::Display for SwapError<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(_) => f.write_str(
                "another writer is at work, or a replaced table still has readers; try again later",
            ),
            Self::Pending => Pending.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
