//! Counts the steps of loops, for tests of the bounds that the documentation states (feature
//! `steps`, and this crate's own tests). Without either, counting is no code.

#[cfg(all(any(test, feature = "steps"), feature = "write"))]
pub mod craft;

#[cfg(any(test, feature = "steps"))]
std::thread_local! {
    static STEPS: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
}

/// What `run` returns, and the steps of this thread that it took.
#[cfg(any(test, feature = "steps"))]
pub fn measure<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let before = STEPS.get();
    let result = run();
    (result, STEPS.get().wrapping_sub(before))
}

/// Counts one step: a turn of a loop whose number of turns depends on a blob.
#[inline(always)]
pub(crate) fn step() {
    #[cfg(any(test, feature = "steps"))]
    STEPS.set(STEPS.get().wrapping_add(1));
}

#[cfg(all(test, feature = "write"))]
mod tests {
    use super::{craft, measure};
    use crate::buffer::StrBuffer;
    use crate::{Address, Offset, Table};

    #[test]
    fn no_hostile_blob_takes_more_steps_than_documented() {
        let mut buffer = [0; 2048];
        let mut most = [0; 3];
        for hostile in craft::all() {
            let name = hostile.name;
            let (parsed, steps) = measure(|| Table::parse(&hostile.blob));
            let bound = hostile.blob.len() * Table::PARSE_STEPS_PER_BYTE;
            assert!(steps <= bound as u64, "{name}: {steps} steps of parse");
            assert_eq!(
                parsed.is_err(),
                hostile.is_refused,
                "{name}: {:?}",
                parsed.err()
            );
            let Ok(table) = parsed else { continue };
            let (_, steps) = measure(|| {
                let location = table.lookup(Address::Exact(Offset(hostile.target)));
                location.map(|location| location.write(&mut buffer).len())
            });
            assert!(steps <= Table::LOOKUP_STEPS as u64, "{name}: {steps} steps");
            let (chain, of_chain) = measure(|| table.chain(Address::Exact(Offset(hostile.target))));
            assert!(
                of_chain <= Table::CHAIN_STEPS as u64,
                "{name}: {of_chain} steps of a chain"
            );
            let mut of_frame = 0;
            for frame in chain.into_iter().flatten() {
                let mut text = StrBuffer::new(&mut buffer);
                let ((), steps) = measure(|| frame.push_to(&mut text));
                assert!(
                    steps <= Table::FRAME_STEPS as u64,
                    "{name}: {steps} steps of a frame"
                );
                of_frame = steps.max(of_frame);
            }
            for (most, steps) in most.iter_mut().zip([steps, of_chain, of_frame]) {
                *most = steps.max(*most);
            }
        }
        // The bounds are not far from what can be reached.
        let bounds = [
            Table::LOOKUP_STEPS,
            Table::CHAIN_STEPS,
            // Of the two names of a frame no blob here has both.
            Table::FRAME_STEPS / 2,
        ];
        for (most, bound) in most.into_iter().zip(bounds) {
            assert!(most * 10 >= bound as u64 * 9, "{most} steps of {bound}");
        }
    }

    #[test]
    fn a_look_up_stops_where_the_buffer_is_full() {
        for hostile in craft::all().iter().filter(|hostile| !hostile.is_refused) {
            let table = Table::parse(&hostile.blob).unwrap();
            if let Some(location) = table.lookup(Address::Exact(Offset(hostile.target))) {
                let steps = |size: usize| {
                    let mut buffer = std::vec![0; size];
                    measure(|| location.write(&mut buffer).len()).1
                };
                assert!(steps(0) <= steps(600));
                assert!(steps(600).saturating_sub(steps(0)) <= 1024);
            }
        }
    }
}
