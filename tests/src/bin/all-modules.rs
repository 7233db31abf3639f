//! Builds a table of every kernel image and module below the given paths, and compares it with one
//! reference after the other.
//!
//! ```text
//! cargo run --release --bin all-modules -- /usr/lib/debug/lib/modules/6.12.117+deb12-cloud-amd64 \
//!     --oracle llvm-symbolizer --oracle eu-addr2line --random 1000 --sample 20
//! ```
//!
//! With `--inlines` the tables have the inlined functions, and all functions at each address are compared.
//! Besides the addresses that `lineinfo verify` compares, no file name may lead out of the tree. Last
//! come the sizes of all tables in every encoding (`--sizes`: of each file as well).

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use comfy_table::{CellAlignment, Table as TextTable, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lineinfo_cli::extract::elf::{Elf, ElfFile};
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::verify::{Options, Program, Report, verify};
use lineinfo_core::Table;
use lineinfo_core::blob::{Encoding, Profile};
use rayon::prelude::*;

/// Compare the tables of all modules with what the references say of them.
#[derive(Debug, Parser)]
struct Args {
    /// Modules and images, or directories of *.ko files.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// A program to compare with, besides the addr2line crate; may be given several times.
    #[arg(long, value_name = "PROGRAM")]
    oracle: Vec<Program>,
    /// Make tables with the inlined functions, and compare the chains.
    #[arg(long)]
    inlines: bool,
    /// Make tables of the profile calls.
    #[arg(long)]
    calls: bool,
    /// Take only so many files, chosen at random.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Compare at so many random bytes of text of each file.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    random: u64,
    /// Choose other files and other bytes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print the size of the tables of each file, and not only of all of them.
    #[arg(long)]
    sizes: bool,
    /// Report so many differences of each file.
    #[arg(long, value_name = "N", default_value_t = 10)]
    show: usize,
}

/// What was found in one file, or in all of them.
#[derive(Default)]
struct Findings {
    files: u64,
    /// Of the tables that are compared.
    bytes: u64,
    /// One for the crate and one for each program.
    reports: Vec<Report>,
    /// Names that lead out of the tree.
    outside: BTreeSet<String>,
    complaints: Vec<String>,
    sizes: Vec<Sizes>,
}

/// The profiles and encodings whose sizes are compared.
const TABLES: [(&str, Encoding, Profile); 5] = [
    ("flat", Encoding::Flat, Profile::Full),
    ("delta", Encoding::Delta, Profile::Full),
    ("packed", Encoding::Packed, Profile::Full),
    ("calls, delta", Encoding::Delta, Profile::Calls),
    ("calls, packed", Encoding::Packed, Profile::Calls),
];

/// How large the tables of one file are.
struct Sizes {
    name: String,
    /// Rows of the profile `full`.
    rows: usize,
    /// By [`TABLES`].
    bytes: [usize; TABLES.len()],
}

impl Sizes {
    fn of(path: &Path, elf: &Elf<'_>) -> Result<Self> {
        let read = || extract(elf, &Naming::default(), &());
        let full = read()?;
        let mut calls = read()?;
        calls.reduce_to_calls(elf)?;
        let mut bytes = [0; TABLES.len()];
        for (bytes, (_, encoding, profile)) in bytes.iter_mut().zip(TABLES) {
            let extracted = if profile == Profile::Full {
                &full
            } else {
                &calls
            };
            *bytes = extracted.encode(encoding)?.len();
        }
        let name = path.file_name().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            rows: full.regions.iter().map(|region| region.rows.len()).sum(),
            bytes,
        })
    }
}

impl Findings {
    fn merge(mut self, other: Self) -> Self {
        self.files += other.files;
        self.bytes += other.bytes;
        if self.reports.is_empty() {
            self.reports = other.reports;
        } else {
            let pairs = self.reports.into_iter().zip(other.reports);
            self.reports = pairs.map(|(one, other)| one.merge(other, 0)).collect();
        }
        self.outside.extend(other.outside);
        self.complaints.extend(other.complaints);
        self.sizes.extend(other.sizes);
        self
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let files = choose(&args)?;
    let bar = ProgressBar::new(files.len() as u64).with_style(ProgressStyle::with_template(
        "[{bar:40}] {pos}/{len} {eta} {msg}",
    )?);
    if !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let found = files
        .par_iter()
        .map(|path| {
            let found = check(path, &args).unwrap_or_else(|error| Findings {
                complaints: vec![format!("{}: {error:#}", path.display())],
                ..Findings::default()
            });
            bar.inc(1);
            found
        })
        .reduce(Findings::default, Findings::merge);
    bar.finish_and_clear();
    print(&args, &found);
    let right = found.complaints.is_empty() && found.outside.is_empty();
    print_sizes(&args, found.sizes);
    Ok(if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn choose(args: &Args) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in &args.paths {
        if path.is_dir() {
            collect(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    if let Some(sample) = args.sample {
        fastrand::Rng::with_seed(args.seed).shuffle(&mut files);
        files.truncate(sample);
    }
    ensure!(!files.is_empty(), "no *.ko files below the given paths");
    Ok(files)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            files.push(path);
        }
    }
    Ok(())
}

fn check(path: &Path, args: &Args) -> Result<Findings> {
    let file = ElfFile::open(path)?.with_debug(&[])?;
    let elf = file.parse()?;
    let mut extracted = extract(&elf, &Naming::default(), &())?;
    if args.inlines {
        extracted.add_inlines(&elf, &Naming::default(), &())?;
    }
    if args.calls {
        extracted.reduce_to_calls(&elf)?;
    }
    let blob = extracted.encode(Encoding::Packed)?;
    let table = Table::parse(&blob)?;
    let mut found = Findings {
        files: 1,
        bytes: blob.len() as u64,
        sizes: vec![Sizes::of(path, &elf)?],
        outside: extracted
            .files
            .into_iter()
            .filter(|name| name.starts_with(['/', '<']) || name.starts_with("../"))
            .collect(),
        ..Findings::default()
    };
    let naming = Naming {
        root: Some(extracted.root),
        ..Naming::default()
    };
    let oracles = args.oracle.iter().cloned().map(Some);
    for oracle in std::iter::once(None).chain(oracles) {
        let options = Options {
            naming: naming.clone(),
            oracle,
            random: args.random,
            sample: None,
            seed: args.seed,
            show: args.show,
        };
        let report = verify(path, &table, &elf, &options, &())?;
        let reference = name_of(options.oracle.as_ref());
        found.complaints.extend(
            report
                .first
                .iter()
                .map(|difference| format!("{}: {reference}: {difference}", path.display())),
        );
        found.reports.push(report);
    }
    Ok(found)
}

fn name_of(oracle: Option<&Program>) -> String {
    oracle.map_or("addr2line crate".to_owned(), Program::to_string)
}

fn print(args: &Args, found: &Findings) {
    for complaint in &found.complaints {
        println!("{complaint}");
    }
    for name in &found.outside {
        println!("name outside the tree: {name}");
    }
    let mut table = TextTable::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "reference",
        "files",
        "bytes of tables",
        "ends of rows",
        "calls and traps",
        "random bytes",
        "addresses compared",
        "in inlined functions",
        "differences",
        "claimed by no unit",
    ]);
    let oracles = std::iter::once(None).chain(args.oracle.iter().map(Some));
    for (oracle, report) in oracles.zip(&found.reports) {
        let mut row = vec![name_of(oracle)];
        let numbers = [
            found.files,
            found.bytes,
            report.row_ends,
            report.call_sites.unwrap_or(0),
            report.random,
            report.checked,
            report.inlined.unwrap_or(0),
            report.differences,
            report.unclaimed,
        ];
        row.extend(numbers.map(|number| number.to_string()));
        table.add_row(row);
    }
    print_table(table);
}

/// The size of each file's tables, where that is asked for, and the sums.
fn print_sizes(args: &Args, mut sizes: Vec<Sizes>) {
    let mut table = TextTable::new();
    let header = ["tables of", "rows"]
        .into_iter()
        .chain(TABLES.iter().map(|(name, ..)| *name));
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    let mut sum = Sizes {
        name: format!("{} files", sizes.len()),
        rows: 0,
        bytes: [0; TABLES.len()],
    };
    for file in &sizes {
        sum.rows += file.rows;
        for (sum, bytes) in sum.bytes.iter_mut().zip(file.bytes) {
            *sum += bytes;
        }
    }
    if !args.sizes {
        sizes.clear();
    }
    sizes.sort_by_key(|file| file.rows);
    sizes.push(sum);
    for Sizes { name, rows, bytes } in sizes {
        let numbers = std::iter::once(rows).chain(bytes);
        table.add_row(std::iter::once(name).chain(numbers.map(|number| number.to_string())));
    }
    print_table(table);
}

/// Prints a table with its numbers, in all columns but the first, to the right.
fn print_table(mut table: TextTable) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}
