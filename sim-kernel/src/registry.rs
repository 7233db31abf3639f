//! What parts of the kernel have registered with another part: handlers, files, keys, commands.

use std::sync::OnceLock;

/// An array of entries that are added while the kernel boots and never removed.
///
/// Reading it takes no lock and allocates nothing, so interrupts and panics can do it.
pub(crate) struct Registry<T: 'static, const N: usize> {
    entries: [OnceLock<T>; N],
}

impl<T: Copy, const N: usize> Registry<T, N> {
    /// An empty registry.
    pub(crate) const fn new() -> Self {
        Self {
            entries: [const { OnceLock::new() }; N],
        }
    }

    /// Adds an entry after all earlier ones.
    ///
    /// # Panics
    ///
    /// If there are `N` entries already: each boot registers the same ones, so `N` is too small.
    pub(crate) fn register(&self, entry: T) {
        let added = self.entries.iter().any(|free| free.set(entry).is_ok());
        assert!(added, "a registry of {N} entries is full; make it larger");
    }

    /// All entries, in the order in which they were added; for any context.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        self.entries.iter().map_while(|entry| entry.get().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_in_the_order_of_registration() {
        let registry = Registry::<u32, 3>::new();
        assert_eq!(registry.iter().count(), 0);
        registry.register(2);
        registry.register(1);
        assert_eq!(registry.iter().collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    #[should_panic(expected = "a registry of 1 entries is full")]
    fn an_entry_too_many_is_a_bug() {
        let registry = Registry::<u32, 1>::new();
        registry.register(1);
        registry.register(2);
    }
}
