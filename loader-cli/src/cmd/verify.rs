use std::io::Write;
use std::path::PathBuf;

use clap::ValueHint;
use serde::Serialize;

use super::{Counts, ImageArgs, OUTPUT, print, progress_bar, summarize};
use crate::error::exit;
use crate::files::BlobFile;
use crate::symbols::Symbols;
use crate::verify::{Options, Program, Report, verify};
use crate::{Error, hex, json, machine_name};

/// The options that say with what a table is compared.
const HOW: &str = "Comparison";

/// Compare a table with what an independent decoder says of its image.
///
/// The decoder is the addr2line crate, or a program. It is asked at the first and the last byte of
/// every row, at every call and trap, and at random bytes of text; for a table of the profile calls
/// at calls and traps only. Where no unit of the DWARF claims an
/// address, in the padding between functions, it has no say. The symbols in a table are compared with
/// those of the image. Exit status 4 if there is a difference.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The table.
    #[arg(value_name = "X", value_hint = ValueHint::FilePath)]
    blob: PathBuf,
    /// The image that it was built from.
    #[arg(long, value_name = "VMLINUX", value_hint = ValueHint::FilePath)]
    against: PathBuf,
    /// Ask a program instead: llvm-symbolizer, eu-addr2line, or the path of one like them.
    #[arg(long, value_name = "PROGRAM", value_hint = ValueHint::CommandName, help_heading = HOW)]
    oracle: Option<Program>,
    /// Compare at so many random bytes of text as well.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = HOW)]
    random: u64,
    /// Compare at only so many of all these addresses, chosen at random.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = HOW)]
    sample: Option<u64>,
    /// Choose other random bytes, and another sample.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = HOW)]
    seed: u64,
    /// Report so many differences.
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = OUTPUT)]
    show: usize,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
    #[command(flatten)]
    image: ImageArgs,
}

/// Version of the document of `--json`.
const DOCUMENT_VERSION: u32 = 1;

/// The JSON document; the field names are a promise.
#[derive(Debug, Serialize)]
struct Document<'a> {
    image: String,
    build_id: String,
    /// What the table was compared with.
    decoder: String,
    #[serde(flatten)]
    report: &'a Report,
    /// `null` if the table has no symbols.
    symbols: Option<OfSymbols<'a>>,
}

/// How the symbols of the table differ from those of the image.
#[derive(Debug, Serialize)]
struct OfSymbols<'a> {
    checked: usize,
    differences: usize,
    first: &'a [String],
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let blob = BlobFile::open(&args.blob)?;
    let file = args.image.open(&args.against)?;
    let elf = file.parse()?;
    let bar = progress_bar("verify", Counts::Things);
    let options = Options {
        naming: args.image.naming(),
        oracle: args.oracle.clone(),
        random: args.random,
        sample: args.sample,
        seed: args.seed,
        show: args.show,
    };
    let report = verify(&args.blob, &blob.table(), &elf, &options, &bar)?;
    bar.finish_and_clear();
    let symbols = match Symbols::of_table(&args.blob, &blob.table())? {
        Some(own) => {
            let of_image = Symbols::of_image(&file)?;
            Some(own.compare(&of_image))
        }
        None => None,
    };
    let differing = symbols.as_ref().map_or(&[][..], |(_, differing)| differing);
    let status = match report.differences == 0 && differing.is_empty() {
        true => exit::DONE,
        false => exit::CORRUPT,
    };
    if args.json {
        let oracle = args.oracle.as_ref();
        let document = Document {
            image: args.against.display().to_string(),
            build_id: hex(&elf.identity.build_id),
            decoder: oracle.map_or_else(|| "addr2line".to_owned(), ToString::to_string),
            report: &report,
            symbols: symbols.as_ref().map(|(checked, differing)| OfSymbols {
                checked: *checked,
                differences: differing.len(),
                first: &differing[..differing.len().min(args.show)],
            }),
        };
        print(|out| json::write(out, DOCUMENT_VERSION, &document))?;
        return Ok(status);
    }
    print(|out| {
        for difference in &report.first {
            writeln!(out, "{difference}")?;
        }
        for difference in differing.iter().take(args.show) {
            writeln!(out, "{difference}")?;
        }
        Ok(())
    })?;
    let Report {
        row_ends,
        call_sites,
        random,
        inlined,
        checked,
        unclaimed,
        differences,
        first: _,
    } = report;
    let call_sites = match call_sites {
        Some(calls) => format!("{calls} calls and traps"),
        None => format!(
            "no calls and traps (no decoder for {})",
            machine_name(elf.identity.machine)
        ),
    };
    summarize(false, |out| {
        writeln!(
            out,
            "{row_ends} ends of rows, {call_sites}, {random} random bytes of text"
        )?;
        if let Some(inlined) = inlined {
            writeln!(
                out,
                "{inlined} of them in inlined functions, whose chains were compared"
            )?;
        }
        writeln!(
            out,
            "{checked} addresses checked, {differences} differences, {unclaimed} claimed by no unit"
        )?;
        if let Some((compared, differing)) = &symbols {
            let differences = differing.len();
            writeln!(out, "{compared} symbols checked, {differences} differences")?;
        }
        Ok(())
    })?;
    Ok(status)
}
