use std::io::Write;
use std::path::PathBuf;

use super::print;
use crate::Error;
use crate::boot_image::BootImage;
use crate::error::exit;
use crate::extract::elf::ElfFile;
use crate::files::BlobFile;
use crate::hex;

/// Append a table to a boot image, in place of one that is there.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The table.
    #[arg(value_name = "X")]
    blob: PathBuf,
    /// The boot image; it stays bootable.
    #[arg(long = "to", value_name = "IMAGE")]
    image: PathBuf,
    /// Append even if the image has another build-id than the table.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let blob = BlobFile::open(&args.blob)?;
    let image = BootImage::open(&args.image)?;
    if !args.force {
        check_build(args, &blob)?;
    }
    image.append(&args.blob, blob.bytes())?;
    print(|out| {
        writeln!(
            out,
            "{}: {} bytes appended behind {} bytes of image",
            args.image.display(),
            blob.bytes().len(),
            image.image_len()
        )
    })?;
    Ok(exit::DONE)
}

/// A boot image that is no ELF file, like a bzImage, has no build-id to compare.
fn check_build(args: &Args, blob: &BlobFile) -> Result<(), Error> {
    let file = ElfFile::open(&args.image)?;
    let Ok(elf) = file.parse() else {
        return Ok(());
    };
    let table = blob.table();
    let (of_blob, of_image) = (table.layout().build_id(), &elf.identity.build_id);
    if of_blob == of_image || of_image.is_empty() {
        return Ok(());
    }
    Err(Error::OtherBuild {
        blob_path: args.blob.clone(),
        blob: hex(of_blob),
        image_path: args.image.clone(),
        image: hex(of_image),
    })
}
