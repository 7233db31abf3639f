use std::io::Write;
use std::path::PathBuf;

use super::print;
use crate::Error;
use crate::boot_image::BootImage;
use crate::error::exit;

/// Remove the table that is appended to a boot image.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The boot image; it becomes what it was before, to the byte.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let image = BootImage::open(&args.image)?;
    image.strip()?;
    print(|out| {
        writeln!(
            out,
            "{}: {} bytes of image, nothing appended",
            args.image.display(),
            image.image_len()
        )
    })?;
    Ok(exit::DONE)
}
