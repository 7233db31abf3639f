//! Building tables: that of one image, and those of many at once.
//!
//! ```text
//!   ElfFile ─ parse ─> rows ─ inlined functions ─ calls alone? ─ encode ─┐
//!      └───────────────── symbols ──────────────────────────────────────┴─> Built: bytes of a table
//! ```
//!
//! Many images are worked on by a thread for each CPU. All of them together may take as much memory as
//! [`MEMORY_PER_CPU`] for each of these threads; an image that may take more than that is worked on
//! alone, within its own limit ([`ElfFile::memory_limit`]).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::{panic, thread};

use lineinfo_core::Table;
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::writer::{EncodeError, Options, with_symbols};

use crate::error::Error;
use crate::extract::elf::{Elf, ElfFile};
use crate::extract::paths::Naming;
use crate::extract::{Extracted, extract};
use crate::progress::Progress;
use crate::symbols::{Symbols, SymbolsError};

/// The memory for each CPU that images may take which are worked on at once, in bytes.
pub const MEMORY_PER_CPU: u64 = 512 << 20;

/// What is wanted of a table.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How the rows are encoded.
    pub options: Options,
    /// What the table is exact for.
    pub profile: Profile,
    /// It has the inlined functions at each address.
    pub inlines: bool,
    /// It has the symbols of its image, if there are any.
    pub symbols: bool,
    /// An image of which something would be left out is refused.
    pub strict: bool,
    /// How files are named.
    pub naming: Naming,
}

/// All that a reader of logs can use.
impl Default for Recipe {
    fn default() -> Self {
        Self {
            options: Encoding::Packed.into(),
            profile: Profile::Full,
            inlines: true,
            symbols: true,
            strict: false,
            naming: Naming::default(),
        }
    }
}

/// A table that was built.
#[derive(Debug)]
pub struct Built {
    /// The table.
    pub bytes: Vec<u8>,
    /// How many of them are symbols.
    pub symbol_bytes: usize,
    /// The build-id of the image, empty if there is none.
    pub build_id: Vec<u8>,
    /// How its rows are encoded.
    pub encoding: Encoding,
    /// What it is exact for.
    pub profile: Profile,
    /// Rows in the line programs of the image.
    pub rows_read: u64,
    /// Rows of the table.
    pub entries: u32,
    /// Names of files.
    pub files: usize,
    /// Functions that are inlined somewhere, and chains of them.
    pub inlines: Option<(usize, usize)>,
    /// Bytes that the image takes in memory.
    pub image_bytes: u64,
    /// What the table is without.
    pub warnings: Vec<String>,
}

impl Built {
    /// The table as a kernel wants it, which has symbols of its own.
    ///
    /// # Errors
    ///
    /// What [`with_symbols`] says.
    pub fn without_symbols(&self) -> Result<Vec<u8>, EncodeError> {
        let table = Table::parse(&self.bytes).map_err(EncodeError::Invalid)?;
        with_symbols(&table, &[])
    }
}

impl Recipe {
    /// Builds the table of an image.
    ///
    /// # Errors
    ///
    /// What is wrong with the image or its debug file; with [`Recipe::strict`] also what would be a
    /// warning.
    pub fn build(&self, file: &ElfFile, progress: &dyn Progress) -> Result<Built, Error> {
        let elf = file.parse()?;
        let mut extracted = extract(&elf, &self.naming, progress)?;
        if self.inlines {
            extracted.add_inlines(&elf, &self.naming, progress)?;
        }
        let mut warnings = lacking(&elf, &extracted, self.strict)?;
        if self.profile == Profile::Calls {
            extracted.reduce_to_calls(&elf)?;
        }
        let failed = |source| Error::Encode {
            path: file.path().to_owned(),
            source,
        };
        let text_start = elf.identity.text_start;
        // A file is read by one thread at a time.
        let (lines, symbols) = thread::scope(|scope| {
            let lines = scope.spawn(|| extracted.encode(self.options));
            let symbols = self.section_of_symbols(file, text_start, &mut warnings);
            let lines = lines.join();
            (
                lines.unwrap_or_else(|cause| panic::resume_unwind(cause)),
                symbols,
            )
        });
        let (lines, symbols) = (lines.map_err(failed)?, symbols?);
        let table = Table::parse(&lines).map_err(|source| failed(EncodeError::Invalid(source)))?;
        let bytes = with_symbols(&table, &symbols).map_err(failed)?;
        Ok(Built {
            symbol_bytes: bytes.len() - lines.len(),
            bytes,
            encoding: self.options.encoding,
            profile: extracted.profile,
            rows_read: extracted.counts.rows_read,
            entries: table.layout().rows(),
            files: extracted.files.len(),
            inlines: extracted
                .inlines
                .map(|inlines| (inlines.functions.len(), inlines.chains.len())),
            image_bytes: extracted.identity.size_bytes,
            build_id: extracted.identity.build_id,
            warnings,
        })
    }

    /// The symbols of an image for its table: none, and a warning, if it has none.
    fn section_of_symbols(
        &self,
        file: &ElfFile,
        text_start: u64,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<u8>, Error> {
        if !self.symbols {
            return Ok(Vec::new());
        }
        match Symbols::of_image(file) {
            Ok(symbols) => symbols.to_section(text_start),
            Err(Error::Symbols {
                source: SymbolsError::Stripped,
                ..
            }) => {
                warnings.push(format!(
                    "{}: it was stripped of symbols, and the table has none: decode will want a vmlinux or a list",
                    file.path().display()
                ));
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

/// What a table is without; an error if it must be complete.
fn lacking(elf: &Elf<'_>, extracted: &Extracted, strict: bool) -> Result<Vec<String>, Error> {
    let path = elf.dwarf_path();
    let mut warnings = Vec::new();
    if let Some(supplement) = elf.missing_supplement() {
        let missing = Error::Supplement {
            path: path.to_owned(),
            supplement: supplement.to_owned(),
        };
        if strict {
            return Err(missing);
        }
        warnings.push(missing.to_string());
    }
    if let [first, ..] = elf.identity.overlapping.as_slice() {
        let overlapping = Error::OverlappingText {
            path: elf.path().to_owned(),
            name: first.name.clone(),
            address: first.address,
            count: elf.identity.overlapping.len(),
        };
        if strict {
            return Err(overlapping);
        }
        warnings.push(format!("{overlapping}; --strict refuses such a file"));
    }
    for (bad, lacking) in [
        (&extracted.bad_units, "rows"),
        (&extracted.bad_inlines, "inlined functions"),
    ] {
        if bad.count == 0 {
            continue;
        }
        if strict {
            return Err(Error::BadUnits {
                path: path.to_owned(),
                bad: bad.clone(),
            });
        }
        let of_unit = |unit| format!("{}: {unit}", path.display());
        warnings.extend(bad.first.iter().map(of_unit));
        warnings.push(format!(
            "{}: {} of {} units are damaged, and the table has no {lacking} of them; --strict refuses such a file",
            path.display(),
            bad.count,
            bad.of
        ));
    }
    Ok(warnings)
}

/// Works on many images at once: `open` opens one, `build` works on it, and `done` is told the outcome,
/// in the order in which they are done. The images that are named first are begun first.
///
/// See the head of this module for the memory that they take.
pub fn all<T: Send>(
    images: &[PathBuf],
    open: impl Fn(&Path) -> Result<ElfFile, Error> + Sync,
    build: impl Fn(&Path, &ElfFile) -> Result<T, Error> + Sync,
    done: impl FnMut(&Path, Result<T, Error>) + Send,
) {
    let threads = rayon::current_num_threads().min(images.len());
    let memory = Memory::new(MEMORY_PER_CPU.saturating_mul(threads as u64));
    let waiting: Mutex<VecDeque<&PathBuf>> = Mutex::new(images.iter().collect());
    let done = Mutex::new(done);
    let next = || lock(&waiting).pop_front();
    let work = || {
        while let Some(image) = next() {
            let outcome = open(image).and_then(|file| {
                let _taken = memory.take(file.memory_limit());
                build(image, &file)
            });
            lock(&done)(image, outcome);
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory that several threads may take, in bytes.
#[derive(Debug)]
struct Memory {
    all: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

impl Memory {
    const fn new(all: u64) -> Self {
        Self {
            all,
            free: Mutex::new(all),
            freed: Condvar::new(),
        }
    }

    /// Waits until there is so much, or, for more than there can be, until nobody else has any.
    fn take(&self, bytes: u64) -> Taken<'_> {
        let bytes = bytes.min(self.all);
        let free = lock(&self.free);
        let free = self.freed.wait_while(free, |free| *free < bytes);
        *free.unwrap_or_else(PoisonError::into_inner) -= bytes;
        Taken {
            memory: self,
            bytes,
        }
    }
}

/// Memory that is free again when this is dropped.
#[derive(Debug)]
struct Taken<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.memory.free) += self.bytes;
        self.memory.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_what_is_larger_is_alone() {
        let memory = Memory::new(100);
        let (taken, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (memory, taken, most) = (&memory, &taken, &most);
                scope.spawn(move || {
                    for turn in 0..50 {
                        let bytes = match (thread + turn) % 4 {
                            0 => 1000,
                            other => other * 30,
                        };
                        let held = memory.take(bytes);
                        let sum = taken.fetch_add(held.bytes, Ordering::SeqCst) + held.bytes;
                        most.fetch_max(sum, Ordering::SeqCst);
                        thread::yield_now();
                        taken.fetch_sub(held.bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 100);
        assert_eq!(*lock(&memory.free), 100);
    }
}
