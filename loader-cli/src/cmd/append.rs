use std::path::PathBuf;

use clap::ValueHint;

use super::summarize;
use crate::Error;
use crate::boot_image::{BootImage, Consent};
use crate::error::exit;
use crate::extract::elf::ElfFile;
use crate::files::BlobFile;
use crate::hex;
use crate::message;

/// Append a table to a boot image, in place of one that is there.
///
/// The symbols in a table are left out: a kernel has its own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The table.
    #[arg(value_name = "X", value_hint = ValueHint::FilePath)]
    blob: PathBuf,
    /// The boot image; it stays bootable.
    #[arg(long = "to", value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    image: PathBuf,
    /// Append even if the image has another build-id than the table, if it is signed (the signature
    /// becomes invalid), or if it has more names (hard links), which keep the old contents.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let blob = BlobFile::open(&args.blob)?;
    let image = BootImage::open(&args.image)?;
    let consent = if args.force {
        Consent::Force
    } else {
        check_build(args, &blob)?;
        Consent::None
    };
    let is_known_kind = image.is_known_kind()?;
    let bytes = blob.without_symbols().map_err(|source| Error::Encode {
        path: args.blob.clone(),
        source,
    })?;
    image.append(&args.blob, &bytes, consent)?;
    if !is_known_kind {
        message::warning(format_args!(
            "{}: is no ELF file, PE file or bzImage; whether it still boots with a table after it is not known",
            args.image.display()
        ));
    }
    summarize(false, |out| {
        writeln!(
            out,
            "{}: {} bytes appended after {} bytes of image",
            args.image.display(),
            bytes.len(),
            image.image_len()
        )
    })?;
    Ok(exit::DONE)
}

/// A boot image that is no ELF file, like a bzImage, has no build-id to compare.
fn check_build(args: &Args, blob: &BlobFile) -> Result<(), Error> {
    let file = ElfFile::open_as_is(&args.image)?;
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
