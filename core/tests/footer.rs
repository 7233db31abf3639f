//! A blob behind a boot image, as a boot loader leaves it.

use lineinfo_core::Error;
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::footer::{self, Footer, FooterError, PADDING_MAX, TAIL};
use lineinfo_core::writer::{Image, encode};
use zerocopy::IntoBytes;

fn blob() -> Vec<u8> {
    let image = Image {
        machine: 62,
        build_id: &[1; 20],
        text_start: 0,
        profile: Profile::Full,
        files: &[],
        exact_files: 0,
        regions: &[],
    };
    encode(&image, Encoding::Delta).expect("an empty table is a table")
}

fn appended(image: &[u8], blob: &[u8]) -> Vec<u8> {
    let (pad, footer) = footer::append(image.len() as u64, blob).expect("it is small");
    [image, pad, blob, footer.as_bytes()].concat()
}

fn find(file: &[u8]) -> Result<Option<Footer>, FooterError> {
    let tail = &file[file.len().saturating_sub(TAIL)..];
    Footer::find(tail, file.len() as u64)
}

#[test]
fn image_and_blob_come_apart_again_to_the_byte() {
    for image_len in [0, 1, 15, 16, 17, 4096, 100_000] {
        // An image may itself end in zeros.
        let image = vec![0; image_len];
        let file = appended(&image, &blob());
        for padding in [0, 1, 511, PADDING_MAX] {
            let padded = [&file[..], &vec![0; padding]].concat();
            let footer = find(&padded).unwrap().expect("a footer");
            assert_eq!(footer.image_len, image_len as u64);
            let payload = footer.payload();
            let payload = &padded[payload.start as usize..payload.end as usize];
            assert_eq!(footer.blob(payload).unwrap(), blob());
        }
    }
}

#[test]
fn what_has_no_footer_has_none() {
    let file = appended(b"image", &blob());
    let too_far = [&file[..], &vec![0; PADDING_MAX + 1]].concat();
    for file in [
        &b""[..],
        b"image",
        &[0; 100_000],
        &too_far,
        &file[..file.len() - 1],
    ] {
        assert_eq!(find(file), Ok(None));
    }
}

#[test]
fn a_size_that_points_before_the_file_is_an_error() {
    let file = appended(b"image", &blob());
    for cut in 1..file.len() - footer::SIZE {
        let found = find(&file[cut..]);
        let room = (file.len() - cut - footer::SIZE) as u64;
        let size = (file.len() - footer::SIZE - b"image".len()) as u32;
        if room < u64::from(size) {
            assert_eq!(found, Err(FooterError::Size { size, room }));
        }
    }
}

#[test]
fn a_damaged_payload_is_an_error() {
    let file = appended(b"image", &blob());
    let footer = find(&file).unwrap().expect("a footer");
    let payload = footer.payload();
    let payload = &file[payload.start as usize..payload.end as usize];
    for at in 0..payload.len() {
        let mut damaged = payload.to_vec();
        damaged[at] ^= 1;
        assert!(matches!(
            footer.blob(&damaged),
            Err(FooterError::Checksum { .. })
        ));
    }
}

#[test]
fn something_else_behind_the_image_is_no_blob() {
    let file = appended(b"image", b"not a blob, but long enough for a magic number");
    let footer = find(&file).unwrap().expect("a footer");
    let payload = footer.payload();
    let payload = &file[payload.start as usize..payload.end as usize];
    assert!(matches!(
        footer.blob(payload),
        Err(FooterError::Blob(Error::Magic { .. }))
    ));
}
