//! The mutations, and the test that kills each.
//!
//! None of them is equivalent to the slot: where a weaker ordering is as good, the slot has it.

/// A change of the slot's source.
pub(crate) struct Mutation {
    pub(crate) name: &'static str,
    /// The test of `slot::tests` that must fail.
    pub(crate) killed_by: &'static str,
    /// Whether ThreadSanitizer must report a race too.
    pub(crate) is_race: bool,
    /// What is found, exactly once, and what replaces it, one after the other.
    pub(crate) edits: &'static [Edit],
}

type Edit = (&'static str, &'static str);

impl Mutation {
    /// Changes nothing.
    pub(crate) const NONE: Self = Self {
        name: "",
        killed_by: "",
        is_race: false,
        edits: &[],
    };

    const fn new(name: &'static str, killed_by: &'static str, edits: &'static [Edit]) -> Self {
        Self {
            name,
            killed_by,
            is_race: false,
            edits,
        }
    }

    /// The same, which ThreadSanitizer must report too.
    const fn race(self) -> Self {
        Self {
            is_race: true,
            ..self
        }
    }

    /// The mutated source.
    pub(crate) fn apply(&self, source: &str) -> Result<String, String> {
        let mut source = source.to_owned();
        for (find, replacement) in self.edits {
            let found = source.matches(find).count();
            if found != 1 {
                let name = self.name;
                return Err(format!(
                    "mutation \"{name}\": `{find}` is in the source {found} times, not once; update core/tests/slot_mutants/list.rs"
                ));
            }
            source = source.replace(find, replacement);
        }
        Ok(source)
    }
}

const ENTER: Edit = (
    "entered.fetch_add(ONE_READER, Ordering::Acquire)",
    "entered.fetch_add(ONE_READER, Ordering::Relaxed)",
);
const LOAD: Edit = (
    "NonNull::new(self.current.load(Ordering::Acquire))",
    "NonNull::new(self.current.load(Ordering::Relaxed))",
);
const EXIT: Edit = (
    "exited(self.epoch).fetch_add(1, Ordering::Release)",
    "exited(self.epoch).fetch_add(1, Ordering::Relaxed)",
);
const WAIT: Edit = (
    "while exited.load(Ordering::Acquire)",
    "while exited.load(Ordering::Relaxed)",
);
const FLIP: Edit = (
    "entered.swap(epoch ^ EPOCH, Ordering::Release)",
    "entered.swap(epoch ^ EPOCH, Ordering::Relaxed)",
);
const PUBLISH: Edit = (
    "current.swap(new, Ordering::Release)",
    "current.swap(new, Ordering::Relaxed)",
);
const LOCK: Edit = (
    "writing.swap(1, Ordering::Acquire)",
    "writing.swap(1, Ordering::Relaxed)",
);
const UNLOCK: Edit = (
    "writing.store(0, Ordering::Release)",
    "writing.store(0, Ordering::Relaxed)",
);

const FREED: &str = "loom_a_table_is_freed_after_its_last_reader";
const NESTED: &str = "loom_nested_readers";
const TO_NEXT: &str = "loom_a_writer_that_gives_up_leaves_the_old_table_to_the_next_writer";
const RECLAIM: &str = "loom_reclaim_beside_a_writer_and_a_reader";
const TWO_WRITERS: &str = "loom_two_writers_that_try_again_beside_a_reader";
const LOSE_NO_TABLE: &str = "loom_two_writers_lose_no_table";
const TURNED_AWAY: &str = "a_writer_that_is_turned_away_changes_nothing";
const ANEW: &str = "each_epoch_counts_its_readers_anew";
const DROPPED: &str = "what_is_in_a_slot_is_dropped_with_it";

pub(crate) const MUTATIONS: &[Mutation] = &[
    // Orderings.
    Mutation::new("a reader enters without Acquire", FREED, &[ENTER]),
    Mutation::new("a reader loads without Acquire", FREED, &[LOAD]),
    Mutation::new("a reader exits without Release", FREED, &[EXIT]).race(),
    Mutation::new("the writer waits without Acquire", FREED, &[WAIT]).race(),
    Mutation::new("the flip is Relaxed", FREED, &[FLIP]),
    Mutation::new(
        "the flip is Acquire",
        FREED,
        &[(FLIP.0, "entered.swap(epoch ^ EPOCH, Ordering::Acquire)")],
    ),
    Mutation::new("the publish is Relaxed", FREED, &[PUBLISH]),
    Mutation::new(
        "the publish is Acquire",
        FREED,
        &[(PUBLISH.0, "current.swap(new, Ordering::Acquire)")],
    ),
    Mutation::new("a writer locks without Acquire", LOSE_NO_TABLE, &[LOCK]),
    Mutation::new("a writer unlocks without Release", LOSE_NO_TABLE, &[UNLOCK]),
    Mutation::new(
        "the lock of writers orders nothing",
        LOSE_NO_TABLE,
        &[LOCK, UNLOCK],
    ),
    Mutation::new(
        "everything is Relaxed",
        FREED,
        &[ENTER, LOAD, EXIT, WAIT, FLIP, PUBLISH, LOCK, UNLOCK],
    ),
    // Readers.
    Mutation::new(
        "a reader loads before it enters",
        FREED,
        &[
            (
                "let current = NonNull::new(self.current.load(Ordering::Acquire));",
                "",
            ),
            (
                "let epoch = self.entered.fetch_add(",
                "let current = NonNull::new(self.current.load(Ordering::Acquire));
                 let epoch = self.entered.fetch_add(",
            ),
        ],
    ),
    Mutation::new(
        "a reader exits in the epoch of now, not in its own",
        FREED,
        &[(
            "exited(self.epoch)",
            "exited(self.slot.entered.load(Ordering::Relaxed) & EPOCH)",
        )],
    ),
    // Steps of the writer.
    Mutation::new(
        "the epoch flips before the publish",
        FREED,
        &[
            ("let old = slot.current.swap(new, Ordering::Release);", ""),
            (
                "slot.awaited.store(entered, ",
                "let old = slot.current.swap(new, Ordering::Release);
                 slot.awaited.store(entered, ",
            ),
        ],
    ),
    Mutation::new(
        "the epoch does not flip",
        FREED,
        &[("epoch ^ EPOCH, ", "epoch, ")],
    ),
    Mutation::new(
        "a swap does not drain what an earlier one left",
        TO_NEXT,
        &[(
            "match writer.drain(&mut keep_waiting) {",
            "match Ok::<Option<O>, Pending>(None) {",
        )],
    ),
    Mutation::new(
        "only an epoch that retired a table is drained",
        FREED,
        &[(
            "draining.store(1, Ordering::Relaxed)",
            "draining.store(usize::from(!old.is_null()), Ordering::Relaxed)",
        )],
    ),
    Mutation::new(
        "the writer waits for all readers but one",
        NESTED,
        &[(
            "<< 1 != awaited & !EPOCH",
            "<< 1 < (awaited & !EPOCH).saturating_sub(ONE_READER)",
        )],
    ),
    Mutation::new(
        "the writer waits for the readers of the other epoch",
        FREED,
        &[(
            "slot.exited(awaited & EPOCH)",
            "slot.exited((awaited & EPOCH) ^ EPOCH)",
        )],
    ),
    Mutation::new(
        "the count of exits is not reset",
        ANEW,
        &[("exited.store(0, Ordering::Relaxed);", "")],
    ),
    // Guards and owners.
    Mutation::new(
        "a writer that is turned away unlocks",
        TURNED_AWAY,
        &[(
            "then(|| Writer { slot: self })",
            "then_some(Writer { slot: self })",
        )],
    ),
    Mutation::new(
        "a writer that is turned away unlocks, beside a reader",
        TWO_WRITERS,
        &[(
            "then(|| Writer { slot: self })",
            "then_some(Writer { slot: self })",
        )],
    ),
    Mutation::new(
        "reclaim does not lock",
        RECLAIM,
        &[("self.lock().ok_or(Pending)?", "Writer { slot: self }")],
    ),
    Mutation::new(
        "a slot that is dropped forgets the retired table",
        DROPPED,
        &[("[&self.current, &self.retired]", "[&self.current]")],
    ),
];
