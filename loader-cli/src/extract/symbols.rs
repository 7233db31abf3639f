//! The symbol table of an ELF file, read at once.
//!
//! The object crate looks up the name of each symbol by itself, and a cached reader then keeps a copy
//! of each.

use std::fs::File;

use object::elf;
use object::read::elf::{ElfFile, FileHeader, Sym};
use object::read::{Object, ObjectSection, ReadCache};

use super::elf::Parsed;
use crate::error::ElfError;

/// A symbol of code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol<'a> {
    /// The string table from its name on.
    name: &'a [u8],
    /// Link-time address.
    pub(super) address: u64,
    /// Bytes, 0 where that is not known.
    pub(super) size: u64,
}

impl Symbol<'_> {
    /// Whether it is a function of this name, or a part that the compiler made of it, like
    /// `name.cold`.
    pub(super) fn is_part_of(&self, name: &str) -> bool {
        let rest = self.name.strip_prefix(name.as_bytes());
        matches!(rest.and_then(<[u8]>::first), Some(0 | b'.'))
    }
}

/// Link-time address of `_text`, if there is such a symbol.
pub(super) fn text_start(file: &Parsed<'_>) -> Result<Option<u64>, ElfError> {
    let mut found = None;
    each_symbol(file, |symbol, _| {
        if found.is_none() && symbol.name.starts_with(b"_text\0") {
            found = Some(symbol.address);
        }
    })?;
    Ok(found)
}

/// The functions of a file.
pub(super) fn functions<'a>(file: &Parsed<'a>) -> Result<Vec<Symbol<'a>>, ElfError> {
    let mut functions = Vec::new();
    each_symbol(file, |symbol, kind| {
        if kind == elf::STT_FUNC {
            functions.push(symbol);
        }
    })?;
    Ok(functions)
}

fn each_symbol<'a>(
    file: &Parsed<'a>,
    each: impl FnMut(Symbol<'a>, elf::SymbolType),
) -> Result<(), ElfError> {
    match file {
        object::File::Elf32(file) => each_of_elf(file, each),
        object::File::Elf64(file) => each_of_elf(file, each),
        _ => Ok(()),
    }
}

fn each_of_elf<'a, Elf: FileHeader>(
    file: &ElfFile<'a, Elf, &'a ReadCache<File>>,
    mut each: impl FnMut(Symbol<'a>, elf::SymbolType),
) -> Result<(), ElfError> {
    let table = file.elf_symbol_table();
    if table.is_empty() {
        return Ok(());
    }
    let strings = file.section_by_index(table.string_section())?.data()?;
    let endian = file.endian();
    for symbol in table.symbols() {
        if let Some(name) = strings.get(symbol.st_name(endian) as usize..) {
            let symbol_of_code = Symbol {
                name,
                address: symbol.st_value(endian).into(),
                size: symbol.st_size(endian).into(),
            };
            each(symbol_of_code, symbol.st_type());
        }
    }
    Ok(())
}
