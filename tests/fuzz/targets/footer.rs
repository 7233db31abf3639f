//! Any bytes as the end of a boot image. What is found does not depend on the buffer, is within the
//! file, and takes no more reading than documented. A table that is appended to them is found, after
//! any padding.
//!
//! The first two bytes are the length of the padding.
#![no_main]

use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use lineinfo_core::footer::{self, Ending, FooterError, PADDING_MAX, PE_ENTRY_SIZE, Signature};
use zerocopy::IntoBytes;

/// An empty table.
const BLOB: &[u8] = include_bytes!("../seeds/blob/empty");

fuzz_target!(|input: &[u8]| {
    let Some((padding, image)) = input.split_first_chunk::<2>() else {
        return;
    };
    let found = find(image);
    if let Ok(Ending { footer, signature }) = found {
        if let Some(footer) = footer {
            let payload = footer.payload();
            assert!(payload.start <= payload.end && payload.end <= image.len() as u64);
            let payload = &image[payload.start as usize..payload.end as usize];
            match footer.blob(payload) {
                Ok(blob) => assert!(payload.ends_with(blob)),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        if let Some(Signature::Pe { entry }) = signature {
            assert!(entry + PE_ENTRY_SIZE as u64 <= image.len() as u64);
        }
    }

    let (pad, raw) = footer::append(image.len() as u64, BLOB).expect("a small blob");
    let mut file = [image, pad, BLOB, raw.as_bytes()].concat();
    let [count, byte] = *padding;
    let byte = if byte & 1 == 0 { 0 } else { 0xff };
    file.resize(file.len() + usize::from(count), byte);
    let footer = find(&file)
        .expect("a footer that is right")
        .footer
        .expect("a footer");
    assert_eq!(footer.image_len, image.len() as u64);
    let payload = footer.payload();
    let payload = &file[payload.start as usize..payload.end as usize];
    assert_eq!(footer.blob(payload), Ok(BLOB));
});

fn find(file: &[u8]) -> Result<Ending, FooterError> {
    let find = |buffer_len: usize| {
        let mut bytes_read = 0;
        let mut buffer = vec![0; buffer_len];
        let found = Ending::find(file.len() as u64, &mut buffer, |at, bytes| {
            bytes_read += bytes.len() as u64;
            bytes.copy_from_slice(&file[at as usize..][..bytes.len()]);
            Ok::<_, Infallible>(())
        });
        assert!(bytes_read <= PADDING_MAX + 2 * buffer_len as u64 + 256);
        let Ok(found) = found;
        found
    };
    let found = find(512);
    for buffer_len in [1, 7, 4096] {
        assert_eq!(find(buffer_len), found);
    }
    found
}
