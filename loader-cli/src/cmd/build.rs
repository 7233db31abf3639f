use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use lineinfo_core::blob::Encoding;

use super::{Counts, ImageArgs, print, progress_bar};
use crate::Error;
use crate::error::exit;
use crate::extract::extract;
use crate::files;

/// Build a table from an ELF file with DWARF.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image: a vmlinux, a module, or any ELF file with debug information.
    #[arg(value_name = "VMLINUX")]
    image: PathBuf,
    /// The table to write.
    #[arg(short, long, value_name = "X")]
    output: PathBuf,
    /// How to encode the rows.
    #[arg(long, default_value = "delta", value_parser = parse_encoding)]
    encoding: Encoding,
    #[command(flatten)]
    reading: ImageArgs,
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
    let start = Instant::now();
    let bar = progress_bar("rows", Counts::Bytes);
    let file = args.reading.open(&args.image)?;
    let elf = file.parse()?;
    let extracted = extract(&elf, &args.reading.naming(), &bar)?;
    bar.finish_and_clear();
    let blob = extracted
        .encode(args.encoding)
        .map_err(|source| Error::Encode {
            path: args.image.clone(),
            source,
        })?;
    files::replace(&args.output, None, |file| file.write_all(&blob))?;

    let entries: usize = extracted
        .regions
        .iter()
        .map(|region| region.rows.len())
        .sum();
    let bytes = blob.len() as f64;
    let time = start.elapsed().as_secs_f64();
    print(|out| {
        writeln!(out, "{}: {}", args.output.display(), args.encoding)?;
        writeln!(out, "rows read        {:>12}", extracted.counts.rows_read)?;
        writeln!(out, "entries          {entries:>12}")?;
        writeln!(out, "files            {:>12}", extracted.files.len())?;
        writeln!(out, "bytes            {:>12}", blob.len())?;
        writeln!(out, "bytes per entry  {:>12.3}", bytes / entries as f64)?;
        writeln!(
            out,
            "share of image   {:>11.2}%",
            100.0 * bytes / extracted.identity.size_bytes as f64
        )?;
        writeln!(out, "time             {:>11.2}s", time)?;
        Ok(())
    })?;
    Ok(exit::DONE)
}
