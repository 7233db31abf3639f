//! A blob at the end of a boot image, as boot loaders, flash and signing tools leave it.

use std::convert::Infallible;

use lineinfo_core::Error;
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::footer::{
    self, Ending, Footer, FooterError, PADDING_MAX, PE_ENTRY_SIZE, Signature,
};
use lineinfo_core::writer::{Image, encode};
use proptest::prelude::*;
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

/// What is found, and how many bytes are read for it.
fn find_counting(file: &[u8], buffer_len: usize) -> (Result<Ending, FooterError>, u64) {
    let mut bytes_read = 0;
    let mut buffer = vec![0; buffer_len];
    let found = Ending::find(file.len() as u64, &mut buffer, |at, bytes| {
        bytes_read += bytes.len() as u64;
        // Panics beyond the end.
        bytes.copy_from_slice(&file[at as usize..][..bytes.len()]);
        Ok::<_, Infallible>(())
    });
    let Ok(found) = found;
    let limit = PADDING_MAX + 2 * buffer_len as u64 + 256;
    assert!(bytes_read <= limit, "{bytes_read}");
    (found, bytes_read)
}

fn find(file: &[u8]) -> Result<Ending, FooterError> {
    let (found, _) = find_counting(file, 512);
    for buffer_len in [1, 1000, 4096] {
        // Byte by byte is slow.
        if buffer_len > 1 || file.len() < 5000 {
            assert_eq!(find_counting(file, buffer_len).0, found);
        }
    }
    found
}

/// The footer of a file that has one.
fn footer_of(file: &[u8]) -> Footer {
    find(file).unwrap().footer.expect("a footer")
}

fn payload(file: &[u8], footer: Footer) -> &[u8] {
    let payload = footer.payload();
    &file[payload.start as usize..payload.end as usize]
}

fn assert_table_of(file: &[u8], image_len: usize) {
    let footer = footer_of(file);
    assert_eq!(footer.image_len, image_len as u64);
    assert_eq!(footer.blob(payload(file, footer)).unwrap(), blob());
}

/// What `sign-file` appends, with a signature of `len` bytes.
fn module_signature(len: usize) -> Vec<u8> {
    let mut signature = vec![0x30; len];
    // algorithm, hash and type (PKCS#7) of the signature, signer_len, key_id_len, reserved.
    signature.extend([0, 0, 2, 0, 0, 0, 0, 0]);
    signature.extend((len as u32).to_be_bytes());
    signature.extend(b"~Module signature appended~\n");
    signature
}

const PE_OFFSET: usize = 0x80;
const PE32: u16 = 0x10b;
const PE32_PLUS: u16 = 0x20b;

/// A PE file of `len` bytes, and where its header names its certificates.
fn pe(kind: u16, len: usize) -> (Vec<u8>, usize) {
    let mut file = vec![0x90; len];
    file[..PE_OFFSET + 0x100].fill(0);
    file[..2].copy_from_slice(b"MZ");
    file[0x3c..0x40].copy_from_slice(&(PE_OFFSET as u32).to_le_bytes());
    file[PE_OFFSET..PE_OFFSET + 4].copy_from_slice(b"PE\0\0");
    let optional = PE_OFFSET + 24;
    file[optional..optional + 2].copy_from_slice(&kind.to_le_bytes());
    let directories = optional + if kind == PE32 { 96 } else { 112 };
    file[directories - 4..directories].copy_from_slice(&16_u32.to_le_bytes());
    (file, directories + 4 * 8)
}

/// Signs a PE file as `sbsign` does: zeros up to a multiple of 8, then the certificate table.
fn sign_pe(file: &mut Vec<u8>, entry: usize) {
    file.resize(file.len().next_multiple_of(8), 0);
    let start = file.len() as u32;
    let certificate = [
        &24_u32.to_le_bytes()[..],
        &[0, 2, 2, 0],
        &[0x30; 13],
        &[0; 3],
    ]
    .concat();
    file.extend(&certificate);
    file[entry..entry + 4].copy_from_slice(&start.to_le_bytes());
    file[entry + 4..entry + 8].copy_from_slice(&(certificate.len() as u32).to_le_bytes());
}

#[test]
fn image_and_blob_come_apart_again_to_the_byte() {
    for image_len in [0, 1, 15, 16, 17, 4096, 100_000] {
        // An image may itself end in zeros.
        let image = vec![0; image_len];
        let file = appended(&image, &blob());
        for filler in [0, 0xff] {
            for padding in [0, 1, 494, 511, 512, 513, 4096, PADDING_MAX as usize] {
                let padded = [&file[..], &vec![filler; padding]].concat();
                assert_table_of(&padded, image_len);
            }
        }
        // A boot loader fills a sector with zeros; the rest of the block is erased flash.
        let padded = [&file[..], &[0; 100], &[0xff; 100_000]].concat();
        assert_table_of(&padded, image_len);
    }
}

#[test]
fn a_search_reads_no_more_than_the_padding() {
    let file = appended(&[0x90; 100_000], &blob());
    for (padding, limit) in [(0, 512 + 18), (4096, 4096 + 512 + 18)] {
        let padded = [&file[..], &vec![0xff; padding]].concat();
        let (found, bytes_read) = find_counting(&padded, 512);
        assert!(found.unwrap().footer.is_some());
        assert!(bytes_read <= limit, "{bytes_read} bytes for {padding}");
    }
    // The bound of the documentation, reached and asserted in `find_counting`.
    let nothing = vec![0xff; 4 * PADDING_MAX as usize];
    let (found, bytes_read) = find_counting(&nothing, 4096);
    assert_eq!(found, Ok(Ending::default()));
    assert!(bytes_read > PADDING_MAX, "{bytes_read}");
    let (found, bytes_read) = find_counting(&file, 0);
    assert_eq!((found, bytes_read), (Ok(Ending::default()), 0));
}

#[test]
fn what_has_no_footer_has_none() {
    let file = appended(b"image", &blob());
    let too_far = [&file[..], &vec![0; PADDING_MAX as usize + 1]].concat();
    let unknown = [&file[..], b"something else"].concat();
    for file in [
        &b""[..],
        b"image",
        b"MZ",
        &[0; 100_000],
        &too_far,
        &unknown,
        &file[..file.len() - 1],
    ] {
        assert_eq!(find(file), Ok(Ending::default()));
    }
}

#[test]
fn a_table_is_found_before_the_signature_of_a_module() {
    for signature_len in [0, 1, 700, 100_000] {
        for padding in [0, 4096] {
            let signature = module_signature(signature_len);
            let mut file = appended(b"image", &blob());
            file.extend(&signature);
            file.resize(file.len() + padding, 0xff);
            assert_eq!(find(&file).unwrap().signature, Some(Signature::Module));
            assert_table_of(&file, 5);

            let mut signed = b"image".to_vec();
            signed.extend(&signature);
            let expected = Ending {
                footer: None,
                signature: Some(Signature::Module),
            };
            assert_eq!(find(&signed), Ok(expected));
            // A table after the signature ends the file, so the signature is part of the image.
            let both = appended(&signed, &blob());
            assert_eq!(find(&both).unwrap().signature, None);
            assert_table_of(&both, signed.len());
        }
    }
    // Of a signature that is longer than the file nothing is known.
    let mut file = module_signature(700);
    file.drain(..1);
    assert_eq!(find(&file), Ok(Ending::default()));
}

#[test]
fn a_table_is_found_before_the_certificates_of_a_pe_file() {
    for kind in [PE32, PE32_PLUS] {
        for image_len in [1000, 1001, 100_000] {
            let (image, entry) = pe(kind, image_len);
            assert_eq!(find(&image), Ok(Ending::default()));
            let signature = Some(Signature::Pe {
                entry: entry as u64,
            });

            let mut signed = image.clone();
            sign_pe(&mut signed, entry);
            let expected = Ending {
                footer: None,
                signature,
            };
            assert_eq!(find(&signed), Ok(expected));
            assert_table_of(&appended(&signed, &blob()), signed.len());

            for padding in [0, 4096] {
                let mut file = appended(&image, &blob());
                sign_pe(&mut file, entry);
                file.resize(file.len() + padding, 0xff);
                assert_eq!(find(&file).unwrap().signature, signature);
                assert_table_of(&file, image_len);
                // Certificates that are not at the end are no appended signature.
                file.extend(b"more");
                assert_eq!(find(&file), Ok(Ending::default()));
            }

            // A file of fewer directories has none for certificates.
            let count = entry - 4 * PE_ENTRY_SIZE - 4;
            signed[count..count + 4].copy_from_slice(&4_u32.to_le_bytes());
            assert_eq!(find(&signed), Ok(Ending::default()));
        }
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
    let footer = footer_of(&file);
    let payload = payload(&file, footer);
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
fn no_flipped_bit_moves_the_end_of_the_image() {
    let image = vec![0x90; 3 << 20];
    let file = appended(&image, &blob());
    let from = footer_of(&file).payload().start as usize;
    for at in from..file.len() {
        for bit in 0..8 {
            let mut damaged = file[from..].to_vec();
            damaged[at - from] ^= 1 << bit;
            let read = |offset: u64, buffer: &mut [u8]| {
                let offset = offset as usize;
                for (index, byte) in buffer.iter_mut().enumerate() {
                    let at = offset + index;
                    *byte = if at < from {
                        image[at]
                    } else {
                        damaged[at - from]
                    };
                }
                Ok::<_, Infallible>(())
            };
            let Ok(found) = Ending::find(file.len() as u64, &mut [0; 512], read);
            // Refused by its size, or not a footer any more, or refused by its checksum.
            if let Ok(Ending {
                footer: Some(footer),
                ..
            }) = found
            {
                let start = footer.image_len as usize;
                let payload = [image.get(start..from).unwrap_or_default(), &damaged].concat();
                let skip = start.saturating_sub(from);
                let len = footer.payload_size as usize;
                assert!(
                    footer.blob(&payload[skip..][..len]).is_err(),
                    "bit {bit} of byte {at}"
                );
            }
        }
    }
}

#[test]
fn something_else_after_the_image_is_no_blob() {
    let file = appended(b"image", b"not a blob, but long enough for a magic number");
    let footer = footer_of(&file);
    assert!(matches!(
        footer.blob(payload(&file, footer)),
        Err(FooterError::Blob(Error::Magic { .. }))
    ));
}

proptest! {
    /// `find_counting` asserts that nothing outside the file, and not too much of it, is read.
    #[test]
    fn any_file_is_searched_within_its_bounds(
        mut file in proptest::collection::vec(any::<u8>(), 0..600),
        pe_offset in 0_u32..700,
        end in prop::sample::select(vec![
            &b""[..], b"#LINEINFO\n", b"~Module signature appended~\n", b"\0\xff",
        ]),
    ) {
        if let Some(header) = file.get_mut(..64) {
            header[..2].copy_from_slice(b"MZ");
            header[60..].copy_from_slice(&pe_offset.to_le_bytes());
        }
        if let Some(magic) = file.get_mut(pe_offset as usize..).and_then(|rest| rest.get_mut(..26)) {
            magic[..4].copy_from_slice(b"PE\0\0");
            magic[24..].copy_from_slice(&PE32_PLUS.to_le_bytes());
        }
        file.extend(end);
        if let Ok(Ending { footer: Some(footer), .. }) = find(&file) {
            let range = footer.payload();
            prop_assert!(range.start <= range.end && range.end <= file.len() as u64);
        }
    }
}
