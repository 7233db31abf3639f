//! The table that comes with the boot image, behind its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use lineinfo_core::footer::{ALIGN, Ending};

use super::file::no_memory;
use super::{Config, LINEINFO, LoadedTable, Refusal};
use crate::mm::vmalloc::vmalloc;
use crate::printk;

/// Fills the slot from the image. Whatever is wrong there is logged, and the boot goes on.
pub(crate) fn load_from_image(image: &File) {
    match try_load(image) {
        Ok(true) => {}
        Ok(false) => printk!(
            Warning,
            "lineinfo: no table is appended to this image, the slot is empty; append one with `lineinfo append`"
        ),
        Err(Failure::Refused(refusal)) => {
            LINEINFO.refuse("appended table", refusal);
        }
        Err(Failure::Io(error)) => {
            printk!(
                Err,
                "lineinfo: cannot read the image: {error}; the slot is empty"
            );
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Says whether there was a table.
fn try_load(image: &File) -> Result<bool, Failure> {
    let file_len = image.metadata()?.len();
    let mut page = [0; 4096];
    let ending = Ending::find(file_len, &mut page, |at, bytes| {
        image.read_exact_at(bytes, at)
    })?;
    let Some(footer) = ending.map_err(Refusal::from)?.footer else {
        return Ok(false);
    };

    let Config { max_bytes, .. } = *LINEINFO.config()?;
    let size_bytes = u64::from(footer.payload_size);
    if size_bytes > max_bytes.saturating_add(ALIGN.into()) {
        return Err(Refusal::TooLarge {
            size_bytes,
            max_bytes,
        }
        .into());
    }
    // Straight into the pages that will be the table; even nothing takes one.
    let size = footer.payload_size as usize;
    let mut pages = vmalloc(size.max(1)).map_err(|errno| no_memory(size, errno))?;
    image.read_exact_at(&mut pages.bytes_mut()[..size], footer.payload().start)?;
    let pages = pages.seal().map_err(|errno| no_memory(size, errno))?;
    let blob = footer.blob(&pages.bytes()[..size]).map_err(Refusal::from)?;
    let blob = size - blob.len()..size;
    let table = LoadedTable::check(pages, blob, &LINEINFO.config()?.kernel)?;
    LINEINFO.kernel.publish(table)?;
    Ok(true)
}
