use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueHint;
use lineinfo_core::Table;
use lineinfo_core::blob::Encoding;
use lineinfo_core::writer::{EncodeError, Options, Tuning, with_symbols};

use super::{Counts, IMAGE, ImageArgs, progress_bar, summarize};
use crate::Error;
use crate::error::exit;
use crate::extract::elf::Elf;
use crate::extract::{Extracted, extract};
use crate::message;
use crate::output::{HardLinks, Output};
use crate::symbols::{Symbols, SymbolsError};

/// The options that say what is in the table.
const TABLE: &str = "Table";

/// Build a table from an ELF file with DWARF.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image: a vmlinux, a module, or any ELF file with debug information.
    #[arg(value_name = "VMLINUX", value_hint = ValueHint::FilePath)]
    image: PathBuf,
    /// The table to write.
    #[arg(short, long, value_name = "X", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// How to encode the rows.
    #[arg(long, default_value = "packed", value_parser = parse_encoding, help_heading = TABLE)]
    encoding: Encoding,
    /// What the table is exact for: full, every byte of text; calls, what stack traces look up.
    #[arg(long, value_enum, default_value = "full", help_heading = TABLE)]
    profile: ProfileName,
    /// What a packed table trades: look-ups take longer the smaller it is.
    #[arg(long, value_enum, default_value = "balanced", help_heading = TABLE)]
    tune: Tune,
    /// Entries in a block of a packed table, instead of --tune: 1 to 96.
    #[arg(long, value_name = "N", conflicts_with = "tune", value_parser = clap::value_parser!(u32).range(1..=96), help_heading = TABLE)]
    block: Option<u32>,
    /// Whether the table has the inlined functions at each address: by default a packed one for calls
    /// has, and others have not.
    #[arg(long, value_enum, value_name = "WHETHER", num_args = 0..=1, require_equals = true, default_missing_value = "yes", help_heading = TABLE)]
    inlines: Option<Choice>,
    /// Refuse an image of which something would be left out: a unit with a damaged line table, text
    /// that shares addresses with other text, names in a supplementary file that is not there.
    #[arg(long, help_heading = IMAGE)]
    strict: bool,
    /// Leave out the symbols of the image, with which decode needs neither the image nor a list of
    /// symbols. They are never loaded nor appended.
    #[arg(long, help_heading = TABLE)]
    no_symbols: bool,
    #[command(flatten)]
    reading: ImageArgs,
}

/// Whether something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// The names of [`lineinfo_core::blob::Profile`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ProfileName {
    /// Exact at every byte of text.
    Full,
    /// Exact at calls and traps, approximate elsewhere; several times smaller.
    Calls,
}

/// The names of [`Tuning`]s.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Tune {
    /// The smallest table.
    Size,
    /// Small, and look-ups at most twice as long as with delta.
    Balanced,
    /// Look-ups as fast as with delta.
    Speed,
}

impl Args {
    /// Whether inlined functions are wanted, which only packed tables can have.
    fn inlines(&self) -> Result<bool, Error> {
        let packed = self.encoding == Encoding::Packed;
        match self.inlines {
            Some(Choice::Yes) if !packed => Err(Error::Usage(format!(
                "a {} table has no room for inlined functions; add --encoding packed, or leave out --inlines",
                self.encoding
            ))),
            Some(choice) => Ok(choice == Choice::Yes),
            None => Ok(packed && self.profile == ProfileName::Calls),
        }
    }

    fn options(&self) -> Options {
        let tuning = match (self.block, self.tune) {
            (Some(block), _) => Tuning { block },
            (None, Tune::Size) => Tuning::SIZE,
            (None, Tune::Balanced) => Tuning::BALANCED,
            (None, Tune::Speed) => Tuning::SPEED,
        };
        Options {
            encoding: self.encoding,
            tuning,
        }
    }
}

fn parse_encoding(name: &str) -> Result<Encoding, String> {
    let known = Encoding::ALL;
    known
        .iter()
        .find(|encoding| encoding.name() == name)
        .copied()
        .ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|encoding| encoding.name()).collect();
            format!("choose one of {}", names.join(", "))
        })
}

/// Says on stderr what the table is without, or refuses to build it.
fn complain(elf: &Elf<'_>, extracted: &Extracted, strict: bool) -> Result<(), Error> {
    let path = elf.dwarf_path();
    if let Some(supplement) = elf.missing_supplement() {
        let missing = Error::Supplement {
            path: path.to_owned(),
            supplement: supplement.to_owned(),
        };
        if strict {
            return Err(missing);
        }
        message::warning(missing);
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
        message::warning(format_args!("{overlapping}; --strict refuses such a file"));
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
        for unit in &bad.first {
            message::warning(format_args!("{}: {unit}", path.display()));
        }
        message::warning(format_args!(
            "{}: {} of {} units are damaged, and the table has no {lacking} of them; --strict refuses such a file",
            path.display(),
            bad.count,
            bad.of
        ));
    }
    Ok(())
}

/// The symbols of the image for its table: none, and a warning, if it has none.
fn section_of_symbols(image: &Path, dwarf: &Path, text_start: u64) -> Result<Vec<u8>, Error> {
    match Symbols::of_image(image, Some(dwarf)) {
        Ok(symbols) => symbols.to_section(text_start),
        Err(Error::Symbols {
            source: SymbolsError::Stripped,
            ..
        }) => {
            message::warning(format_args!(
                "{}: it was stripped of symbols, and the table has none: decode will want a vmlinux or a list",
                image.display()
            ));
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let start = Instant::now();
    let with_inlines = args.inlines()?;
    let bar = progress_bar("rows", Counts::Bytes);
    let output = Output::at(&args.output, HardLinks::Refuse)?;
    output.differs_from(&args.image)?;
    let file = args.reading.open(&args.image)?;
    if let Some(debug_path) = file.debug_path() {
        output.differs_from(debug_path)?;
    }
    let elf = file.parse()?;
    let mut extracted = extract(&elf, &args.reading.naming(), &bar)?;
    bar.finish_and_clear();
    if with_inlines {
        let bar = progress_bar("inlined functions", Counts::Bytes);
        extracted.add_inlines(&elf, &args.reading.naming(), &bar)?;
        bar.finish_and_clear();
    }
    complain(&elf, &extracted, args.strict)?;
    if args.profile == ProfileName::Calls {
        extracted.reduce_to_calls(&elf)?;
    }
    let failed = |source| Error::Encode {
        path: args.image.clone(),
        source,
    };
    let (dwarf, text_start) = (elf.dwarf_path(), elf.identity.text_start);
    let symbols = || match args.no_symbols {
        true => Ok(Vec::new()),
        false => section_of_symbols(&args.image, dwarf, text_start),
    };
    let (blob, symbols) = rayon::join(|| extracted.encode(args.options()), symbols);
    let (blob, symbols) = (blob.map_err(failed)?, symbols?);
    let table = Table::parse(&blob).map_err(|source| failed(EncodeError::Invalid(source)))?;
    let whole = with_symbols(&table, &symbols).map_err(failed)?;
    let is_stdout = output.is_stdout();
    output.write(|file| file.write_all(&whole))?;

    let entries: usize = extracted
        .regions
        .iter()
        .map(|region| region.rows.len())
        .sum();
    let bytes = blob.len() as f64;
    let time = start.elapsed().as_secs_f64();
    summarize(is_stdout, |out| {
        writeln!(
            out,
            "{}: {}, {}",
            args.output.display(),
            args.encoding,
            extracted.profile
        )?;
        writeln!(out, "rows read        {:>12}", extracted.counts.rows_read)?;
        writeln!(out, "entries          {entries:>12}")?;
        writeln!(out, "files            {:>12}", extracted.files.len())?;
        if let Some(inlines) = &extracted.inlines {
            writeln!(out, "inlined functions{:>12}", inlines.functions.len())?;
            writeln!(out, "chains           {:>12}", inlines.chains.len())?;
        }
        writeln!(out, "bytes            {:>12}", blob.len())?;
        writeln!(out, "bytes of symbols {:>12}", whole.len() - blob.len())?;
        writeln!(
            out,
            "bytes per entry  {:>12.3}",
            bytes / entries.max(1) as f64
        )?;
        writeln!(
            out,
            "share of image   {:>11.2}%",
            100.0 * bytes / extracted.identity.size_bytes as f64
        )?;
        writeln!(out, "time             {:>11.2}s", time)
    })?;
    Ok(exit::DONE)
}
