//! What the slot promises: models, which loom runs in every order that the memory model allows, and
//! plain tests.
//!
//! In a model a table's memory is a loom `UnsafeCell`: made, read and freed like any other memory,
//! so an ordering that is missing is a race that loom reports. `tests/slot_mutants.rs` checks
//! that these tests notice every ordering and every step that is taken out of the slot.

use std::boxed::Box;
use std::{mem, thread};

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use super::*;

type LoomPointer<T> = loom::sync::atomic::AtomicPtr<T>;
atomics!(loom::sync::atomic::AtomicUsize, LoomPointer);

struct Loom;

impl Atomics for Loom {
    type Word = loom::sync::atomic::AtomicUsize;
    type Pointer<T> = loom::sync::atomic::AtomicPtr<T>;
}

/// Memory that holds a table's number until it is freed.
///
/// It is leaked, so a reader that comes after the free is caught and does no harm.
struct Memory(UnsafeCell<Option<usize>>);

// SAFETY: loom reports every access to the cell that is not ordered with the others.
#[expect(unsafe_code, reason = "see the comment above")]
unsafe impl Sync for Memory {}

/// A table; dropping it frees its memory.
struct Table(&'static Memory);

impl Table {
    fn new(id: usize) -> Self {
        Self(Box::leak(Box::new(Memory(UnsafeCell::new(Some(id))))))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // After a failure, loom takes no more accesses.
        if !thread::panicking() {
            // SAFETY: `Table` is the only owner; loom reports a reader that is still there.
            #[expect(unsafe_code, reason = "see the comment above")]
            let freed = self.0.0.with_mut(|memory| unsafe { (*memory).take() });
            assert!(freed.is_some(), "freed twice");
        }
    }
}

// SAFETY: the memory is leaked, so it is always valid.
#[expect(unsafe_code, reason = "see the comment above")]
unsafe impl Owner for Table {
    type Target = Memory;

    fn into_raw(self) -> NonNull<Memory> {
        let raw = NonNull::from(self.0);
        mem::forget(self);
        raw
    }

    unsafe fn from_raw(raw: NonNull<Memory>) -> Self {
        // SAFETY: `raw` was made from a `&'static Memory` in `into_raw`.
        Self(unsafe { raw.as_ref() })
    }
}

/// How often a writer of a model tries.
const TRIES: usize = 3;

type LoomSlot = Slot<Memory, Table, Loom>;

impl Memory {
    /// The number of the table.
    fn id(&self) -> usize {
        // SAFETY: a shared read; loom reports one that is not ordered with a write.
        #[expect(unsafe_code, reason = "see the comment above")]
        let id = self.0.with(|memory| unsafe { *memory });
        id.expect("read after the free")
    }
}

fn look(slot: &LoomSlot) -> Option<usize> {
    slot.read().get().map(Memory::id)
}

/// Looks once, and inside that look once more; the outer reader leaves first.
fn look_nested(slot: &LoomSlot) -> (Option<usize>, Option<usize>) {
    let outer = slot.read();
    let inner = slot.read();
    let before = outer.get().map(Memory::id);
    drop(outer);
    (before, inner.get().map(Memory::id))
}

/// Waits as a kernel does: others run.
fn wait() -> bool {
    loom::thread::yield_now();
    true
}

/// Swaps, and tries again after [`SwapError::Busy`], but not for ever.
fn try_swap(slot: &LoomSlot, id: Option<usize>) -> Result<Option<Table>, SwapError<Table>> {
    let mut new = id.map(Table::new);
    for _ in 1..TRIES {
        match slot.swap(new, || false) {
            Err(SwapError::Busy(refused)) => {
                assert_eq!(refused.is_some(), id.is_some(), "a refused table was lost");
                new = refused;
            }
            done => return done,
        }
        loom::thread::yield_now();
    }
    slot.swap(new, || false)
}

/// The number of the table that a swap took out, or of the one that it refused.
fn id_of(
    swapped: &Result<Option<Table>, SwapError<Table>>,
) -> Result<Option<usize>, Option<usize>> {
    let id = |table: &Option<Table>| table.as_ref().map(|table| table.0.id());
    match swapped {
        Ok(old) => Ok(id(old)),
        Err(SwapError::Busy(refused)) => Err(id(refused)),
        Err(SwapError::Pending) => panic!("there are no readers"),
    }
}

/// Checks a model in every order with at most so many preemptions.
fn model(preemptions: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(check);
}

/// Runs `other` in a thread of the model.
fn spawn<T: 'static>(
    slot: &Arc<LoomSlot>,
    other: impl FnOnce(&LoomSlot) -> T + 'static,
) -> loom::thread::JoinHandle<T> {
    let slot = slot.clone();
    loom::thread::spawn(move || other(&slot))
}

#[test]
fn loom_a_table_is_freed_after_its_last_reader() {
    model(3, || {
        // The reader may enter before the first table is there.
        let slot = Arc::new(LoomSlot::new());
        let reader = spawn(&slot, |slot| {
            let (first, second) = (look(slot), look(slot));
            assert!(
                first <= second || second.is_none(),
                "the old table came back"
            );
        });
        for new in [Some(1), Some(2), None] {
            drop(slot.swap(new.map(Table::new), wait));
        }
        reader.join().unwrap();
    });
}

#[test]
fn loom_nested_readers() {
    model(3, || {
        let slot = Arc::new(LoomSlot::new());
        drop(slot.swap(Some(Table::new(1)), wait));
        let reader = spawn(&slot, |slot| {
            let (outer, inner) = look_nested(slot);
            assert!(outer <= inner || inner.is_none(), "the old table came back");
        });
        for new in [Some(2), None] {
            drop(slot.swap(new.map(Table::new), wait));
        }
        reader.join().unwrap();
    });
}

#[test]
fn loom_a_writer_that_gives_up_leaves_the_old_table_to_reclaim() {
    model(3, || {
        let slot = Arc::new(LoomSlot::new());
        drop(slot.swap(Some(Table::new(1)), wait));
        let reader = spawn(&slot, look);
        let swapped = slot.swap(None, || false);
        assert!(
            !matches!(swapped, Err(SwapError::Busy(_))),
            "no other writer"
        );
        reader.join().unwrap();
        let reclaimed = slot.reclaim(|| false).expect("the reader has left");
        assert_eq!(reclaimed.is_some(), swapped.is_err());
    });
}

#[test]
fn loom_a_writer_that_gives_up_leaves_the_old_table_to_the_next_writer() {
    model(3, || {
        let slot = Arc::new(LoomSlot::new());
        drop(slot.swap(Some(Table::new(1)), wait));
        let reader = spawn(&slot, |slot| {
            let (first, second) = look_nested(slot);
            assert!(first <= second, "the old table came back");
        });
        for new in 2..4 {
            // Where the readers of the last table are still there, this one is refused.
            drop(slot.swap(Some(Table::new(new)), || false));
        }
        reader.join().unwrap();
    });
}

#[test]
fn loom_reclaim_beside_a_writer_and_a_reader() {
    model(2, || {
        let slot = Arc::new(LoomSlot::new());
        drop(slot.swap(Some(Table::new(1)), wait));
        let reader = spawn(&slot, look);
        let reclaimer = spawn(&slot, |slot| slot.reclaim(|| false).map(drop));
        for new in [Some(2), None] {
            drop(slot.swap(new.map(Table::new), || false));
        }
        reader.join().unwrap();
        // A writer that is at work makes it wait like a reader does.
        let _pending = reclaimer.join().unwrap();
    });
}

#[test]
fn loom_two_writers_that_try_again_beside_a_reader() {
    model(2, || {
        let slot = Arc::new(LoomSlot::new());
        let reader = spawn(&slot, |slot| {
            look_nested(slot);
        });
        let writer = spawn(&slot, |slot| drop(try_swap(slot, Some(1))));
        for new in [Some(2), None] {
            drop(try_swap(&slot, new));
        }
        writer.join().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn loom_two_writers_lose_no_table() {
    model(3, || {
        let slot = Arc::new(LoomSlot::new());
        let other = spawn(&slot, |slot| try_swap(slot, Some(1)));
        let mine = try_swap(&slot, Some(2));
        let other = other.join().unwrap();
        match (id_of(&mine), id_of(&other), look(&slot)) {
            // One came first, and the other took its table out.
            (Ok(None), Ok(Some(2)), Some(1)) | (Ok(Some(1)), Ok(None), Some(2)) => {}
            // One was refused at every try.
            (Ok(None), Err(Some(1)), Some(2)) | (Err(Some(2)), Ok(None), Some(1)) => {}
            wrong => panic!("{wrong:?}"),
        }
    });
}

#[test]
fn a_writer_that_is_turned_away_changes_nothing() {
    let slot: Slot<usize, Box<usize>> = Slot::empty();
    slot.swap(Some(Box::new(1)), || false).unwrap();
    let mut old_reader = Some(slot.read());
    let mut new_reader = None;
    let mut asked = 0;
    let old = slot.swap(Some(Box::new(2)), || {
        asked += 1;
        if asked == 1 {
            assert!(matches!(
                slot.swap(Some(Box::new(3)), || false),
                Err(SwapError::Busy(Some(_)))
            ));
            new_reader = Some(slot.read());
            old_reader = None;
            // The first refusal did not let this one in.
            assert_eq!(slot.swap(None, || false), Err(SwapError::Busy(None)));
            assert_eq!(slot.reclaim(|| false), Err(Pending));
        }
        asked < 3
    });
    assert_eq!(old, Ok(Some(Box::new(1))));
    assert_eq!(new_reader.unwrap().get(), Some(&2));
}

#[test]
fn a_reader_inside_a_writer_and_inside_a_reader_does_not_wait() {
    let slot: Slot<usize, Box<usize>> = Slot::empty();
    slot.swap(Some(Box::new(1)), || false).unwrap();
    let outer = slot.read();
    let inner = slot.read();
    let mut asked = 0;
    let swapped = slot.swap(Some(Box::new(2)), || {
        // As an NMI does, in the middle of the publish.
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
fn each_epoch_counts_its_readers_anew() {
    let slot: Slot<usize, Box<usize>> = Slot::empty();
    for round in 1..6 {
        drop((slot.read(), slot.read()));
        let old = slot.swap(Some(Box::new(round)), || false);
        assert_eq!(old, Ok((round > 1).then(|| Box::new(round - 1))));
    }
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
