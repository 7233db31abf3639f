//! The kernel's empty place for a table: publish, look up, replace, unload.
//!
//! ```text
//!   readers (any context, NMI included)          writer (one at a time)
//!
//!   1. entered += 1  -> epoch e                  a. current <- new table or null
//!   2. load current                              b. entered <- (other epoch, 0), gives
//!   3. look up                                      n = readers that entered in epoch e
//!   4. left[e] += 1                              c. wait until left[e] = n, with a bound
//!                                                d. left[e] <- 0, give the old table back
//! ```
//!
//! A reader makes two atomic read-modify-writes and one load; it has no loop, takes no lock and
//! waits for nobody, so it may interrupt another reader or the writer itself, on the same CPU too.
//!
//! Why a table is never given back under a reader: whoever can hold the old pointer made step 1
//! before step b, for a reader whose step 1 comes after b reads what b wrote, and with it what a
//! wrote. So it is among the `n`, and c waits for its step 4. A reader that enters before b and
//! loads after a holds the *new* table in the old epoch; that does no harm, because the next
//! writer can flip the epoch only after c.
//!
//! The epoch is the lowest bit of `entered` and the count stands above it, so a count that
//! overflows leaves the epoch alone; the comparison in c is modulo `2^(usize::BITS - 1)`.
//!
//! The slot is generic over its atomics so that a model checker can run it (see the tests).

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// What a slot keeps: something that can be reached through a pointer until it is given back.
///
/// # Safety
///
/// The pointer that [`Owner::into_raw`] returns must be valid for shared reads, from any thread,
/// until it is given to [`Owner::from_raw`].
#[expect(
    unsafe_code,
    reason = "the slot dereferences what an implementation returns"
)]
pub unsafe trait Owner: Sized + Send {
    /// What readers see.
    type Target: Sync;

    /// Gives up the owner for a pointer.
    fn into_raw(self) -> NonNull<Self::Target>;

    /// Takes the owner back; dropping it gives the memory back.
    ///
    /// # Safety
    ///
    /// `raw` came from [`Owner::into_raw`], is given back only once, and nobody reads through it
    /// any more.
    unsafe fn from_raw(raw: NonNull<Self::Target>) -> Self;
}

// SAFETY: a shared reference is valid for shared reads for ever.
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
// SAFETY: a leaked box is valid for shared reads until it is made a box again.
#[expect(unsafe_code, reason = "see the comment above")]
unsafe impl<T: Send + Sync> Owner for alloc::boxed::Box<T> {
    type Target = T;

    fn into_raw(self) -> NonNull<T> {
        NonNull::from(Self::leak(self))
    }

    unsafe fn from_raw(raw: NonNull<T>) -> Self {
        // SAFETY: `raw` was made from a box in `into_raw`, and nobody else has it (the caller).
        unsafe { Self::from_raw(raw.as_ptr()) }
    }
}

/// The atomics a slot is made of.
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
macro_rules! atomics {
    ($word:ty, $pointer:ident) => {
        impl Word for $word {
            fn new(value: usize) -> Self {
                Self::new(value)
            }
            fn load(&self, ordering: Ordering) -> usize {
                self.load(ordering)
            }
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
            fn load(&self, ordering: Ordering) -> *mut T {
                self.load(ordering)
            }
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

/// A place for one table that readers in any context look into while a writer changes it.
///
/// ```
/// use lineinfo_core::slot::Slot;
///
/// static SLOT: Slot<&'static str> = Slot::empty();
/// static TABLE: &str = "a table";
///
/// assert_eq!(SLOT.read().get(), None);
/// assert_eq!(SLOT.swap(Some(&TABLE), || true)?, None); // publish; nothing was there
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
    /// Readers that left, by the epoch in which they entered.
    left: (A::Word, A::Word),
    /// What was taken out of `current` and may still have readers; belongs to the writer.
    retired: A::Pointer<T>,
    /// What `entered` was when the epoch was flipped; belongs to the writer.
    awaited: A::Word,
    /// 1 from the flip until the readers of the old epoch have left; belongs to the writer.
    draining: A::Word,
    /// 1 while there is a writer.
    writing: A::Word,
    owner: PhantomData<O>,
}

// SAFETY: the slot owns an `O`, which is `Send`, and hands out `&O::Target`, which is `Sync`; all
// its fields are atomics.
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
            left: (AtomicUsize::new(0), AtomicUsize::new(0)),
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
            left: (Word::new(0), Word::new(0)),
            retired: Pointer::new(null_mut()),
            awaited: Word::new(0),
            draining: Word::new(0),
            writing: Word::new(0),
            owner: PhantomData,
        }
    }

    /// Looks into the slot: what is there now stays valid while the guard lives.
    ///
    /// For any context: NMI, panic, inside another reader or inside the writer.
    pub fn read(&self) -> Reader<'_, T, O, A> {
        let epoch = self.entered.fetch_add(ONE_READER, Ordering::Acquire) & EPOCH;
        let current = NonNull::new(self.current.load(Ordering::Acquire));
        Reader {
            slot: self,
            epoch,
            current,
        }
    }

    /// Puts `new` (or, with `None`, nothing) into the slot and takes out what was there.
    ///
    /// Readers that come later see the new content at once. The old content is returned when its
    /// last reader has left; until then `keep_waiting` is asked, and where it pauses between two
    /// looks is its affair. Never call this from a context that may interrupt a reader on the same
    /// CPU with an unbounded `keep_waiting`.
    ///
    /// # Errors
    ///
    /// [`SwapError::Busy`] gives `new` back: another writer is at work, or the readers of what an
    /// earlier swap took out have still not left. [`SwapError::Pending`]: the slot has the new
    /// content, but `keep_waiting` gave up on the readers of the old; [`Slot::reclaim`] or the next
    /// swap will give it back.
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
            .drain(&mut keep_waiting)
            .map_err(|Pending| SwapError::Pending)
    }

    /// Takes out what an earlier [`Slot::swap`] left behind as [`SwapError::Pending`], if
    /// anything.
    ///
    /// # Errors
    ///
    /// [`Pending`] while there is another writer, or readers that have not left.
    pub fn reclaim(&self, mut keep_waiting: impl FnMut() -> bool) -> Result<Option<O>, Pending> {
        self.lock().ok_or(Pending)?.drain(&mut keep_waiting)
    }

    fn lock(&self) -> Option<Writer<'_, T, O, A>> {
        (self.writing.swap(1, Ordering::Acquire) == 0).then_some(Writer { slot: self })
    }

    fn left(&self, epoch: usize) -> &A::Word {
        if epoch == 0 {
            &self.left.0
        } else {
            &self.left.1
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
            if let Some(raw) = NonNull::new(pointer.swap(null_mut(), Ordering::Acquire)) {
                // SAFETY: the slot holds only what `into_raw` returned, `swap` has made this the
                // only copy, and no `Reader` outlives the slot that it borrows.
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

/// The one writer of a slot; releases that place when dropped.
struct Writer<'a, T: 'static, O: Owner<Target = T>, A: Atomics> {
    slot: &'a Slot<T, O, A>,
}

impl<T, O: Owner<Target = T>, A: Atomics> Writer<'_, T, O, A> {
    /// Steps a and b; the last flip must have been drained.
    fn retire(&self, new: Option<O>) {
        let slot = self.slot;
        let new = new.map_or(null_mut(), |owner| owner.into_raw().as_ptr());
        let old = slot.current.swap(new, Ordering::AcqRel);
        // Only writers change the epoch, so it can be read before the swap that flips it.
        let epoch = slot.entered.load(Ordering::Relaxed) & EPOCH;
        let entered = slot.entered.swap(epoch ^ EPOCH, Ordering::AcqRel);
        slot.awaited.store(entered, Ordering::Relaxed);
        slot.retired.store(old, Ordering::Relaxed);
        slot.draining.store(1, Ordering::Relaxed);
    }

    /// Steps c and d, once more if an earlier writer gave up in c.
    ///
    /// The readers of the last epoch are waited for even where it retired nothing: before they
    /// have left, the epoch must not flip again.
    fn drain(&self, keep_waiting: &mut dyn FnMut() -> bool) -> Result<Option<O>, Pending> {
        let slot = self.slot;
        if slot.draining.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        let awaited = slot.awaited.load(Ordering::Relaxed);
        let left = slot.left(awaited & EPOCH);
        while left.load(Ordering::Acquire) << 1 != awaited & !EPOCH {
            if !keep_waiting() {
                return Err(Pending);
            }
        }
        left.store(0, Ordering::Relaxed);
        slot.draining.store(0, Ordering::Relaxed);
        let Some(retired) = NonNull::new(slot.retired.swap(null_mut(), Ordering::Relaxed)) else {
            return Ok(None);
        };
        // SAFETY: `retired` came from `into_raw` in `retire`; `swap` has made this the only copy;
        // all readers that could have loaded it have left, as the head of this module proves, and
        // the acquiring load of `left` orders their reads before this.
        #[expect(unsafe_code, reason = "see the comment above")]
        Ok(Some(unsafe { O::from_raw(retired) }))
    }
}

impl<T, O: Owner<Target = T>, A: Atomics> Drop for Writer<'_, T, O, A> {
    fn drop(&mut self) {
        self.slot.writing.store(0, Ordering::Release);
    }
}

/// A look into a [`Slot`].
pub struct Reader<'a, T: 'static, O: Owner<Target = T>, A: Atomics = Native> {
    slot: &'a Slot<T, O, A>,
    epoch: usize,
    current: Option<NonNull<T>>,
}

impl<T, O: Owner<Target = T>, A: Atomics> Reader<'_, T, O, A> {
    /// What is in the slot, if anything.
    pub fn get(&self) -> Option<&T> {
        // SAFETY: the pointer came from `into_raw`, and is not given to `from_raw` before this
        // reader has left (the head of this module), which is when it is dropped.
        #[expect(unsafe_code, reason = "see the comment above")]
        self.current.map(|raw| unsafe { raw.as_ref() })
    }
}

impl<T, O: Owner<Target = T>, A: Atomics> Drop for Reader<'_, T, O, A> {
    fn drop(&mut self) {
        self.slot.left(self.epoch).fetch_add(1, Ordering::Release);
    }
}

impl<T: fmt::Debug, O: Owner<Target = T>, A: Atomics> fmt::Debug for Reader<'_, T, O, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.get()).finish()
    }
}

/// There are readers that have not left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending;

impl core::error::Error for Pending {}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("readers of the old table have not left yet; try again")
    }
}

/// Why a [`Slot::swap`] was not completed.
#[derive(Debug, PartialEq, Eq)]
pub enum SwapError<O> {
    /// Nothing was changed, and here is what should have been put in.
    Busy(Option<O>),
    /// The new content is in; the old one is still being read and will be given back later.
    Pending,
}

impl<O: fmt::Debug> core::error::Error for SwapError<O> {}

impl<O> fmt::Display for SwapError<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(_) => f.write_str("another writer is at work; try again"),
            Self::Pending => Pending.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use loom::sync::Arc;

    use super::*;

    type LoomPointer<T> = loom::sync::atomic::AtomicPtr<T>;
    atomics!(loom::sync::atomic::AtomicUsize, LoomPointer);

    struct Loom;

    impl Atomics for Loom {
        type Word = loom::sync::atomic::AtomicUsize;
        type Pointer<T> = loom::sync::atomic::AtomicPtr<T>;
    }

    /// Memory that notices when it is given back; it stays mapped so that a late reader is seen.
    struct Memory {
        given_back: loom::sync::atomic::AtomicUsize,
        id: usize,
    }

    struct Handle(&'static Memory);

    impl Handle {
        fn new(id: usize) -> Self {
            Self(Box::leak(Box::new(Memory {
                given_back: loom::sync::atomic::AtomicUsize::new(0),
                id,
            })))
        }
    }

    // SAFETY: the memory is leaked and so valid for ever.
    #[expect(unsafe_code, reason = "see the comment above")]
    unsafe impl Owner for Handle {
        type Target = Memory;

        fn into_raw(self) -> NonNull<Memory> {
            NonNull::from(self.0)
        }

        unsafe fn from_raw(raw: NonNull<Memory>) -> Self {
            // SAFETY: `raw` was made from a `&'static Memory` in `into_raw`.
            Self(unsafe { raw.as_ref() })
        }
    }

    type LoomSlot = Slot<Memory, Handle, Loom>;

    fn give_back(handle: Option<Handle>) {
        if let Some(Handle(memory)) = handle {
            memory.given_back.store(1, Ordering::Relaxed);
        }
    }

    fn look(slot: &LoomSlot) -> Option<usize> {
        let reader = slot.read();
        let memory = reader.get()?;
        assert_eq!(
            memory.given_back.load(Ordering::Relaxed),
            0,
            "read after it was given back"
        );
        Some(memory.id)
    }

    /// Waits as a kernel would, by letting others run.
    fn wait() -> bool {
        loom::thread::yield_now();
        true
    }

    #[test]
    fn loom_readers_never_see_memory_that_was_given_back() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let slot = Arc::new(LoomSlot::new());
            give_back(slot.swap(Some(Handle::new(1)), wait).ok().flatten());
            let reader = {
                let slot = slot.clone();
                loom::thread::spawn(move || {
                    let first = look(&slot);
                    let second = look(&slot);
                    // Once it was replaced nobody sees the old one again.
                    assert!(first.is_none_or(|first| second.is_none_or(|second| second >= first)));
                })
            };
            give_back(slot.swap(Some(Handle::new(2)), wait).ok().flatten());
            give_back(slot.swap(None, wait).ok().flatten());
            reader.join().unwrap();
        });
    }

    #[test]
    fn loom_a_writer_that_gave_up_leaves_the_old_table_to_the_next() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let slot = Arc::new(LoomSlot::new());
            give_back(slot.swap(Some(Handle::new(1)), wait).ok().flatten());
            let reader = {
                let slot = slot.clone();
                loom::thread::spawn(move || look(&slot))
            };
            let given_up = match slot.swap(None, || false) {
                Ok(old) => {
                    give_back(old);
                    false
                }
                Err(SwapError::Pending) => true,
                Err(SwapError::Busy(_)) => panic!("there is no other writer"),
            };
            reader.join().unwrap();
            let left = slot.reclaim(wait).expect("the reader has left");
            assert_eq!(left.is_some(), given_up);
            give_back(left);
        });
    }

    #[test]
    fn loom_two_writers_exclude_each_other() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let slot = Arc::new(LoomSlot::new());
            let other = {
                let slot = slot.clone();
                loom::thread::spawn(move || {
                    if let Ok(old) = slot.swap(Some(Handle::new(1)), wait) {
                        give_back(old);
                    }
                })
            };
            match slot.swap(Some(Handle::new(2)), wait) {
                Ok(old) => give_back(old),
                Err(SwapError::Busy(new)) => assert!(new.is_some(), "nothing is lost"),
                Err(SwapError::Pending) => panic!("nobody gives up"),
            }
            other.join().unwrap();
            assert!(look(&slot).is_some());
        });
    }

    #[test]
    fn a_reader_inside_a_writer_and_inside_a_reader_does_not_wait() {
        let slot: Slot<usize, Box<usize>> = Slot::empty();
        slot.swap(Some(Box::new(1)), || false).unwrap();
        let outer = slot.read();
        let inner = slot.read();
        let mut asked = 0;
        let swapped = slot.swap(Some(Box::new(2)), || {
            // As an NMI would, in the middle of the publish.
            assert_eq!(slot.read().get(), Some(&2));
            asked += 1;
            asked < 3
        });
        assert_eq!(swapped, Err(SwapError::Pending));
        assert_eq!((outer.get(), inner.get()), (Some(&1), Some(&1)));
        assert_eq!(slot.swap(None, || false), Err(SwapError::Busy(None)));
        drop((outer, inner));
        assert_eq!(slot.reclaim(|| false), Ok(Some(Box::new(1))));
        assert_eq!(slot.reclaim(|| false), Ok(None));
    }

    #[test]
    fn what_is_in_a_slot_is_dropped_with_it() {
        let value = std::sync::Arc::new(());
        let slot: Slot<_, Box<std::sync::Arc<()>>> = Slot::empty();
        slot.swap(Some(Box::new(value.clone())), || false).unwrap();
        let reader = slot.read();
        assert_eq!(
            slot.swap(Some(Box::new(value.clone())), || false),
            Err(SwapError::Pending)
        );
        drop(reader);
        drop(slot);
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    }

    #[test]
    fn threads_that_read_while_one_writes() {
        let slot: Slot<usize, Box<usize>> = Slot::empty();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(Ordering::Relaxed) {
                        let now = slot.read().get().copied().unwrap_or(last);
                        assert!(now >= last);
                        last = now;
                    }
                });
            }
            for version in 1..2000 {
                let new = (version % 5 != 0).then(|| Box::new(version));
                slot.swap(new, || {
                    thread::yield_now();
                    true
                })
                .unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
