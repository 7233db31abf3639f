use std::path::PathBuf;

use clap::ValueHint;

use super::summarize;
use crate::Error;
use crate::boot_image::{BootImage, Consent};
use crate::error::exit;

/// Remove the table that is appended to a boot image.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The boot image; it becomes what it was before, to the byte.
    #[arg(value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    image: PathBuf,
    /// Strip even if the image was signed after the table was appended (the signature is removed
    /// too), or if it has more names (hard links), which keep the old contents.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let image = BootImage::open(&args.image)?;
    image.strip(if args.force {
        Consent::Force
    } else {
        Consent::None
    })?;
    summarize(false, |out| {
        writeln!(
            out,
            "{}: {} bytes of image, nothing appended",
            args.image.display(),
            image.image_len()
        )
    })?;
    Ok(exit::DONE)
}
