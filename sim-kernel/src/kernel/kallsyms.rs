//! Symbols of an image: which function an address is in.

use std::fmt;

use object::{Object, ObjectSymbol, SymbolKind};

/// All functions of the image, by run-time address.
#[derive(Debug, Default)]
pub(crate) struct Kallsyms {
    functions: Vec<Function>,
    names: String,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    start: u64,
    size_bytes: u64,
    /// The end of its name in `names`; the name begins at the end of the previous one.
    name_end: usize,
    global: bool,
}

/// A function, and an address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol<'a> {
    /// Its name, demangled.
    pub(crate) name: &'a str,
    /// Its first byte, a run-time address.
    pub(crate) start: u64,
    /// Its size in bytes.
    pub(crate) size_bytes: u64,
    /// It has external linkage.
    pub(crate) global: bool,
}

/// A line in the form of `nm`: `T` is global, `t` is local.
impl fmt::Display for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.global { 'T' } else { 't' };
        write!(f, "{:016x} {kind} {}", self.start, self.name)
    }
}

impl Kallsyms {
    /// Reads the symbols of an image that was loaded `slide` bytes from where it was linked.
    pub(crate) fn read<'data>(elf: &impl Object<'data>, slide: u64) -> Self {
        let functions = elf
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
            .filter_map(|symbol| {
                let start = symbol.address().wrapping_add(slide);
                Some((
                    start,
                    symbol.size(),
                    symbol.is_global(),
                    symbol.name().ok()?.to_owned(),
                ))
            });
        Self::new(functions.collect())
    }

    /// From (start, size, global, mangled name); functions without a size cannot be looked up.
    fn new(mut functions: Vec<(u64, u64, bool, String)>) -> Self {
        functions.retain(|(_, size, _, _)| *size > 0);
        // Of several names for one address a global one is preferred.
        functions.sort_unstable_by(|a, b| (a.0, !a.2, &a.3).cmp(&(b.0, !b.2, &b.3)));
        functions.dedup_by_key(|(start, ..)| *start);
        let mut all = Self::default();
        for (start, size_bytes, global, name) in functions {
            all.names += &format!("{:#}", rustc_demangle::demangle(&name));
            all.functions.push(Function {
                start,
                size_bytes,
                name_end: all.names.len(),
                global,
            });
        }
        all
    }

    /// The function that the byte at `address` belongs to; for any context.
    pub(crate) fn lookup(&self, address: u64) -> Option<Symbol<'_>> {
        let after = self
            .functions
            .partition_point(|function| function.start <= address);
        let symbol = self.symbol(after.checked_sub(1)?)?;
        (address - symbol.start < symbol.size_bytes).then_some(symbol)
    }

    /// All functions, by ascending address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        (0..self.functions.len()).map_while(|position| self.symbol(position))
    }

    /// Number of functions.
    pub(crate) fn len(&self) -> usize {
        self.functions.len()
    }

    fn symbol(&self, position: usize) -> Option<Symbol<'_>> {
        let function = self.functions.get(position)?;
        let name_start = match position.checked_sub(1) {
            Some(before) => self.functions.get(before)?.name_end,
            None => 0,
        };
        Some(Symbol {
            name: self.names.get(name_start..function.name_end)?,
            start: function.start,
            size_bytes: function.size_bytes,
            global: function.global,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_function_or_in_none() {
        let symbols = Kallsyms::new(vec![
            (0x30, 8, false, "_ZN3sim4late17h0123456789abcdefE".into()),
            (0x10, 8, false, "local".into()),
            (0x10, 8, true, "global".into()),
            (0x20, 0, true, "label".into()),
        ]);
        let name = |address| symbols.lookup(address).map(|symbol| symbol.name);
        assert_eq!(name(0xf), None);
        assert_eq!(name(0x10), Some("global"));
        assert_eq!(name(0x17), Some("global"));
        assert_eq!(name(0x18), None, "after its end");
        assert_eq!(name(0x20), None, "a label has no size");
        assert_eq!(name(0x37), Some("sim::late"));
        assert_eq!(name(u64::MAX), None);
        assert_eq!(symbols.len(), 2);
    }
}
