use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{ArgGroup, ValueHint};
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::writer::{Options, Tuning};

use super::{Counts, IMAGE, ImageArgs, progress_bar, summarize};
use crate::build::{self, Built, Recipe};
use crate::error::{Error, exit};
use crate::extract::elf::ElfFile;
use crate::files::{self, TABLE_EXTENSION};
use crate::output::{HardLinks, Output};
use crate::{hex, message};

/// The options that say what is in the table.
const TABLE: &str = "Table";

/// Build tables from ELF files with DWARF.
///
/// Of many images each gets a table in a directory (--store, --firmware), and those that cannot have one
/// are named.
/// They are worked on in parallel, and take together at most 512 MiB of memory for each CPU, or what the
/// largest of them may take alone.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("place").args(["output", "store", "firmware"]).required(true).multiple(true)))]
pub(super) struct Args {
    /// The images: a vmlinux, a module, or any ELF file with debug information, also compressed (.xz,
    /// .zst, .gz); - is stdin. Of a directory, the modules (.ko) and kernels (vmlinux) below it.
    #[arg(value_name = "VMLINUX", value_hint = ValueHint::FilePath, required = true)]
    images: Vec<PathBuf>,
    /// The table to write; - is stdout.
    #[arg(
        short,
        long,
        value_name = "X",
        value_hint = ValueHint::FilePath,
        conflicts_with_all = ["store", "firmware"]
    )]
    output: Option<PathBuf>,
    /// Write tables into this directory, which is made if it is missing, by build-id:
    /// .build-id/ab/cdef.lineinfo. decode --dir finds them there.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    store: Option<PathBuf>,
    /// Write tables without symbols into this directory, which is made if it is missing, as
    /// BUILDID.lineinfo. In /lib/firmware/lineinfo the module for stock kernels finds them.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    firmware: Option<PathBuf>,
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
    /// Exact at calls and traps, approximate elsewhere; less than half as large, and a fifth with --inlines=no.
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

    fn recipe(&self) -> Result<Recipe, Error> {
        Ok(Recipe {
            options: self.options(),
            profile: match self.profile {
                ProfileName::Full => Profile::Full,
                ProfileName::Calls => Profile::Calls,
            },
            inlines: self.inlines()?,
            // A table for a kernel has none.
            symbols: !self.no_symbols && (self.output.is_some() || self.store.is_some()),
            strict: self.strict,
            naming: self.reading.naming(),
        })
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

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let recipe = args.recipe()?;
    match (&args.images[..], &args.output) {
        ([image], Some(path)) if !image.is_dir() => {
            // What cannot be written is known before stdin is read, and minutes are spent.
            let output = Output::at(path, HardLinks::Refuse)?;
            output.differs_from(image)?;
            let file = args.reading.open(image)?;
            if let Some(debug_path) = file.debug_path() {
                output.differs_from(debug_path)?;
            }
            build_one(
                &recipe,
                &file,
                vec![Place {
                    path: path.clone(),
                    output,
                    symbols: true,
                }],
            )
        }
        ([image], None) if !image.is_dir() => {
            let file = args.reading.open(image)?;
            build_one(&recipe, &file, places(args, &file)?)
        }
        (_, None) => build_many(args, &recipe),
        _ => Err(Error::Usage(
            "-o names the table of one image; add --store DIR instead, for tables that are named by build-id"
                .to_owned(),
        )),
    }
}

/// Where a table is written.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    output: Output,
    /// With the symbols that it has.
    symbols: bool,
}

/// The files for the table of an image in the directories that are named.
fn places(args: &Args, image: &ElfFile) -> Result<Vec<Place>, Error> {
    let build_id = hex(&image.parse()?.identity.build_id);
    let stored = |store: &PathBuf| files::by_build_id(store, &build_id, TABLE_EXTENSION);
    let loaded = |firmware: &PathBuf| {
        (!build_id.is_empty()).then(|| firmware.join(format!("{build_id}.{TABLE_EXTENSION}")))
    };
    let paths = [
        (args.store.as_ref().map(stored), true),
        (args.firmware.as_ref().map(loaded), false),
    ];
    let named = paths
        .into_iter()
        .filter_map(|(path, symbols)| Some((path?, symbols)));
    named
        .map(|(path, symbols)| {
            let path = path.ok_or_else(|| Error::NoBuildId {
                path: image.path().to_owned(),
            })?;
            let directory = path.parent().unwrap_or(Path::new(""));
            fs::create_dir_all(directory).map_err(Error::io(directory))?;
            let output = Output::at(&path, HardLinks::Refuse)?;
            Ok(Place {
                path,
                output,
                symbols,
            })
        })
        .collect()
}

/// Writes a table to its places, and gives the files.
fn write(built: &Built, image: &Path, places: Vec<Place>) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for place in places {
        match place.symbols {
            true => place.output.write(|file| file.write_all(&built.bytes))?,
            false => {
                let bytes = built.without_symbols();
                let bytes = bytes.map_err(|source| Error::Encode {
                    path: image.to_owned(),
                    source,
                })?;
                place.output.write(|file| file.write_all(&bytes))?;
            }
        }
        paths.push(place.path);
    }
    Ok(paths)
}

fn build_one(recipe: &Recipe, file: &ElfFile, places: Vec<Place>) -> Result<u8, Error> {
    let start = Instant::now();
    let bar = progress_bar("build", Counts::Bytes);
    let built = recipe.build(file, &bar)?;
    bar.finish_and_clear();
    built.warnings.iter().for_each(message::warning);
    let is_stdout = places.iter().any(|place| place.output.is_stdout());
    let paths = write(&built, file.path(), places)?;
    let seconds = start.elapsed().as_secs_f64();
    summarize(is_stdout, |out| print_built(&paths, &built, seconds, out))?;
    Ok(exit::DONE)
}

fn print_built(
    paths: &[PathBuf],
    built: &Built,
    seconds: f64,
    out: &mut dyn Write,
) -> io::Result<()> {
    let line_bytes = built.bytes.len() - built.symbol_bytes;
    for path in paths {
        writeln!(
            out,
            "{}: {}, {}",
            path.display(),
            built.encoding,
            built.profile
        )?;
    }
    writeln!(out, "rows read        {:>12}", built.rows_read)?;
    writeln!(out, "entries          {:>12}", built.entries)?;
    writeln!(out, "files            {:>12}", built.files)?;
    if let Some((functions, chains)) = built.inlines {
        writeln!(out, "inlined functions{functions:>12}")?;
        writeln!(out, "chains           {chains:>12}")?;
    }
    writeln!(out, "bytes            {line_bytes:>12}")?;
    writeln!(out, "bytes of symbols {:>12}", built.symbol_bytes)?;
    let per_entry = line_bytes as f64 / built.entries.max(1) as f64;
    writeln!(out, "bytes per entry  {per_entry:>12.3}")?;
    let share = 100.0 * line_bytes as f64 / built.image_bytes as f64;
    writeln!(out, "share of image   {share:>11.2}%")?;
    writeln!(out, "time             {seconds:>11.2}s")
}

/// What many images came to.
#[derive(Debug, Default)]
struct Totals {
    /// The tables; images of one build-id have one.
    tables: BTreeSet<Vec<PathBuf>>,
    bytes: usize,
    symbol_bytes: usize,
    failed: usize,
}

fn build_many(args: &Args, recipe: &Recipe) -> Result<u8, Error> {
    let start = Instant::now();
    let mut totals = Totals::default();
    let images = images(&args.images, |error| {
        message::error(error);
        totals.failed += 1;
    });
    if images.is_empty() {
        return Ok(exit::FAILED);
    }
    let bar = progress_bar("images", Counts::Things);
    bar.set_length(images.len() as u64);
    let build = |_: &Path, file: &ElfFile| {
        let places = places(args, file)?;
        let built = recipe.build(file, &())?;
        let paths = write(&built, file.path(), places)?;
        let Built {
            bytes,
            symbol_bytes,
            warnings,
            ..
        } = built;
        Ok((paths, bytes.len(), symbol_bytes, warnings))
    };
    build::all(
        &images,
        |image| args.reading.open(image),
        build,
        |image, outcome| {
            bar.suspend(|| match outcome {
                Ok((paths, bytes, symbol_bytes, warnings)) => {
                    warnings.iter().for_each(message::warning);
                    for path in &paths {
                        message::detail(format_args!("{}: {}", image.display(), path.display()));
                    }
                    if totals.tables.insert(paths) {
                        totals.bytes += bytes;
                        totals.symbol_bytes += symbol_bytes;
                    }
                }
                Err(error) => {
                    message::error(of_image(image, &error));
                    totals.failed += 1;
                }
            });
            bar.inc(1);
        },
    );
    bar.finish_and_clear();
    let (tables, seconds) = (totals.tables.len(), start.elapsed().as_secs_f64());
    summarize(false, |out| {
        for directory in [&args.store, &args.firmware].into_iter().flatten() {
            writeln!(out, "{}: by build-id", directory.display())?;
        }
        writeln!(out, "tables           {tables:>12}")?;
        writeln!(
            out,
            "bytes            {:>12}",
            totals.bytes - totals.symbol_bytes
        )?;
        writeln!(out, "bytes of symbols {:>12}", totals.symbol_bytes)?;
        writeln!(out, "time             {seconds:>11.2}s")
    })?;
    if totals.failed == 0 {
        return Ok(exit::DONE);
    }
    message::error(format_args!(
        "{} of {} images have no table, for the reasons above",
        totals.failed,
        images.len().max(totals.failed)
    ));
    Ok(exit::FAILED)
}

/// An error with the name of its image, which the name of a debug file does not tell.
fn of_image(image: &Path, error: &Error) -> String {
    let (image, error) = (image.display().to_string(), error.to_string());
    match error.starts_with(&image) {
        true => error,
        false => format!("{image}: {error}"),
    }
}

/// The images that are named, and those in directories, the largest first, so that none of them is left
/// for the end.
fn images(named: &[PathBuf], mut failed: impl FnMut(Error)) -> Vec<PathBuf> {
    let mut images = Vec::new();
    for path in named {
        if !path.is_dir() {
            images.push(path.clone());
            continue;
        }
        let mut found = files::below(path, &mut failed);
        found.retain(|file| files::is_image(file));
        if found.is_empty() {
            failed(Error::NoImages { path: path.clone() });
        }
        images.append(&mut found);
    }
    images.sort_by_key(|image| Reverse(fs::metadata(image).map_or(0, |metadata| metadata.len())));
    images
}
