use std::io::Write;
use std::path::PathBuf;

use super::{print, progress_bar};
use crate::Error;
use crate::error::exit;
use crate::extract::elf::ElfFile;
use crate::extract::paths::SourceRoot;
use crate::files::BlobFile;
use crate::verify::{Report, verify};

/// Compare a table with what an independent decoder says of its image.
///
/// The decoder is the addr2line crate, asked at the first and the last byte of every row. Where no
/// unit of the DWARF claims an address, in the padding between functions, it has no say.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The table.
    #[arg(value_name = "X")]
    blob: PathBuf,
    /// The image that it was built from.
    #[arg(long, value_name = "VMLINUX")]
    against: PathBuf,
    /// The directory to which file names are relative, as it was given to build.
    #[arg(long, value_name = "DIR")]
    source_root: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let blob = BlobFile::open(&args.blob)?;
    let file = ElfFile::open(&args.against)?;
    let elf = file.parse()?;
    let bar = progress_bar("verify");
    let root = args.source_root.as_deref().map(SourceRoot::new);
    let report = verify(&args.blob, &blob.table(), &elf, root, &bar)?;
    bar.finish_and_clear();
    let Report {
        checked,
        unclaimed,
        differences,
        first,
    } = report;
    print(|out| {
        for difference in &first {
            writeln!(out, "{difference}")?;
        }
        writeln!(
            out,
            "{checked} addresses checked, {differences} differences, {unclaimed} claimed by no unit"
        )
    })?;
    Ok(if differences == 0 {
        exit::DONE
    } else {
        exit::CORRUPT
    })
}
