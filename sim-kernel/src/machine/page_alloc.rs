//! A page allocator: first fit over runs of pages.

use std::num::NonZeroUsize;
use std::ops::Range;

/// The size of a page, in bytes.
pub(crate) const PAGE_SIZE: usize = 4096;

/// Which pages of `0..total` are in use.
///
/// A page is in at most one run that was allocated and not freed (the test below).
#[derive(Debug)]
pub(crate) struct PageAllocator {
    total: usize,
    /// Runs in use, by ascending start, none touching another's pages.
    used: Vec<Range<usize>>,
}

impl PageAllocator {
    /// All pages free.
    pub(crate) const fn new(total: usize) -> Self {
        Self {
            total,
            used: Vec::new(),
        }
    }

    /// The first run of `count` free pages, now in use; `None` where there is no such run.
    pub(crate) fn allocate(&mut self, count: NonZeroUsize) -> Option<Range<usize>> {
        self.used.try_reserve(1).ok()?;
        let mut start = 0;
        let mut position = 0;
        for run in &self.used {
            if run.start - start >= count.get() {
                break;
            }
            start = run.end;
            position += 1;
        }
        let end = start
            .checked_add(count.get())
            .filter(|end| *end <= self.total)?;
        self.used.insert(position, start..end);
        Some(start..end)
    }

    /// Frees a run that [`PageAllocator::allocate`] or [`PageAllocator::split`] made; any other run
    /// changes nothing.
    pub(crate) fn free(&mut self, run: &Range<usize>) {
        self.used.retain(|used| used != run);
    }

    /// Makes two runs of one, the second from page `at` on; returns whether there was room for that.
    pub(crate) fn split(&mut self, run: &Range<usize>, at: usize) -> bool {
        let position = self.used.iter().position(|used| used == run);
        let Some(position) = position.filter(|_| run.start < at && at < run.end) else {
            return false;
        };
        if self.used.try_reserve(1).is_err() {
            return false;
        }
        self.used[position].end = at;
        self.used.insert(position + 1, at..run.end);
        true
    }

    /// Number of pages in use.
    pub(crate) fn used(&self) -> usize {
        self.used.iter().map(Range::len).sum()
    }

    /// Number of all pages.
    pub(crate) const fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pages(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).expect("a count of pages")
    }

    #[test]
    fn the_first_gap_that_fits_is_taken() {
        let mut allocator = PageAllocator::new(10);
        let runs: Vec<_> = [3, 2, 3]
            .into_iter()
            .filter_map(|count| allocator.allocate(pages(count)))
            .collect();
        assert_eq!(runs, [0..3, 3..5, 5..8]);
        allocator.free(&runs[1]);
        assert_eq!(allocator.allocate(pages(3)), None, "2 free here, 2 there");
        assert_eq!(allocator.allocate(pages(1)), Some(3..4));
        assert_eq!(allocator.allocate(pages(2)), Some(8..10));
    }

    #[test]
    fn a_run_of_any_length_is_refused_without_overflow() {
        let mut allocator = PageAllocator::new(10);
        assert_eq!(allocator.allocate(pages(1)), Some(0..1));
        assert_eq!(allocator.allocate(pages(usize::MAX)), None);
    }

    proptest! {
        #[test]
        fn no_page_is_allocated_twice(steps in prop::collection::vec((1_usize..9, any::<bool>(), any::<prop::sample::Index>()), 0..64)) {
            let mut allocator = PageAllocator::new(32);
            let mut mine: Vec<Range<usize>> = Vec::new();
            for (count, free, which) in steps {
                if free && !mine.is_empty() {
                    let run = mine.swap_remove(which.index(mine.len()));
                    // Sometimes only its end, sometimes all of it.
                    let at = run.start + count;
                    if allocator.split(&run, at) {
                        mine.push(run.start..at);
                        allocator.free(&(at..run.end));
                    } else {
                        prop_assert!(at >= run.end);
                        allocator.free(&run);
                    }
                } else if let Some(run) = allocator.allocate(pages(count)) {
                    prop_assert_eq!(run.len(), count);
                    prop_assert!(run.end <= 32);
                    prop_assert!(mine.iter().all(|other| run.end <= other.start || other.end <= run.start));
                    mine.push(run);
                } else {
                    let mut free = [true; 32];
                    for run in &mine {
                        free[run.clone()].fill(false);
                    }
                    prop_assert!(free.windows(count).all(|window| window.contains(&false)), "there was room");
                }
                prop_assert_eq!(allocator.used(), mine.iter().map(Range::len).sum::<usize>());
            }
        }
    }
}
