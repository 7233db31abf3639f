use std::path::PathBuf;

use clap::ValueHint;
use lineinfo_core::Table;
use lineinfo_core::writer::with_symbols;

use super::{Counts, DeviceArg, progress_bar, summarize};
use crate::Error;
use crate::device::Access;
use crate::error::exit;
use crate::files;

/// Load a table into a running kernel.
///
/// The symbols in a table are left out: a kernel has its own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The table.
    #[arg(value_name = "X", value_hint = ValueHint::FilePath)]
    blob: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let mut blob = files::read(&args.blob)?;
    // The kernel refuses what does not parse, and says why. It does not look at the rows.
    if let Ok(table) = Table::parse(&blob) {
        table.check_rows().map_err(|source| Error::Blob {
            path: args.blob.clone(),
            source,
        })?;
        let without = with_symbols(&table, &[]);
        blob = without.map_err(|source| Error::Encode {
            path: args.blob.clone(),
            source,
        })?;
    }
    let mut device = args.device.open(Access::Write)?;
    let bar = progress_bar("load", Counts::Bytes);
    bar.set_length(blob.len() as u64);
    device.load(&blob, |written| bar.set_position(written))?;
    bar.finish_and_clear();
    let status = device.status()?;
    summarize(false, |out| {
        writeln!(
            out,
            "{}: loaded: {} entries, {} files, {} bytes in {} bytes of memory",
            args.device.path.display(),
            status.rows,
            status.files,
            status.bytes,
            status.memory
        )
    })?;
    Ok(exit::DONE)
}
