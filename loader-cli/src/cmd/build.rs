use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use lineinfo_core::blob::Encoding;

use super::{print, progress_bar};
use crate::Error;
use crate::error::exit;
use crate::extract::elf::ElfFile;
use crate::extract::extract;
use crate::extract::paths::SourceRoot;
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
    /// The directory to which file names become relative [default: found from the DWARF].
    #[arg(long, value_name = "DIR")]
    source_root: Option<String>,
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
    let bar = progress_bar("rows");
    let file = ElfFile::open(&args.image)?;
    let elf = file.parse()?;
    let root = args.source_root.as_deref().map(SourceRoot::new);
    let extracted = extract(&elf, root, &bar)?;
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
