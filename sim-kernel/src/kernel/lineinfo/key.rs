//! The key that tables must be signed with (`lineinfo.key=`), and the verification of a signature.
//!
//! To verify takes neither std nor an allocator.

use std::fs::File;
use std::io::Read;

use ed25519_dalek::pkcs8::DecodePublicKey;
use ed25519_dalek::{Signature, VerifyingKey};
use lineinfo_core::Signed;

/// How much of a file with a key is read, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// What a key is expected to be.
const EXPECTED: &str = "expected 64 hexadecimal digits, or a file with an Ed25519 public key (`openssl pkey -in KEY -pubout`)";

/// The public key that the parameter's value is, or names.
///
/// # Errors
///
/// What was found instead, and what was expected.
pub(crate) fn read(value: &str) -> Result<[u8; 32], String> {
    let key = match from_hex(value.as_bytes()) {
        Some(key) => key,
        None => {
            let contents = read_file(value).map_err(|error| format!("{error}; {EXPECTED}"))?;
            from_contents(&contents).map_err(|found| format!("it is {found}; {EXPECTED}"))?
        }
    };
    // One of those verifies signatures that its owner did not make.
    let strong = VerifyingKey::from_bytes(&key).is_ok_and(|key| !key.is_weak());
    let checked = strong.then_some(key);
    checked.ok_or_else(|| format!("it is no point of the curve, or a weak one; {EXPECTED}"))
}

fn read_file(path: &str) -> Result<Vec<u8>, String> {
    let read = || {
        let mut contents = Vec::new();
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("it is not a regular file"));
        }
        File::open(path)?
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut contents)?;
        Ok(contents)
    };
    read().map_err(|error: std::io::Error| error.to_string())
}

fn from_contents(contents: &[u8]) -> Result<[u8; 32], String> {
    if let Ok(key) = contents.try_into() {
        return Ok(key);
    }
    if let Some(key) = from_hex(contents.trim_ascii()) {
        return Ok(key);
    }
    let text = String::from_utf8_lossy(contents);
    let key = VerifyingKey::from_public_key_pem(&text)
        .or_else(|_| VerifyingKey::from_public_key_der(contents));
    key.map(|key| key.to_bytes())
        .map_err(|_| match text.contains("PRIVATE KEY-----") {
            true => "a private key".to_owned(),
            false => format!("{} bytes of something else", contents.len()),
        })
}

fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    let (pairs, []) = text.as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != key.len() {
        return None;
    }
    for (byte, [high, low]) in key.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(key)
}

/// Whether a signature is right for its key and message.
pub(super) fn verify(signed: &Signed<'_>) -> bool {
    let signature = Signature::from_bytes(&signed.signature.signature);
    let verified = || {
        let key = VerifyingKey::from_bytes(&signed.signature.key)?;
        let mut verifier = key.verify_stream(&signature)?;
        for part in signed.message {
            verifier.update(part);
        }
        verifier.finalize_and_verify()
    };
    verified().is_ok()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use lineinfo_core::blob;

    use super::*;

    const HEX: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
    /// The example of RFC 8410.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn a_key_is_hexadecimal_or_in_a_file() {
        let key = read(HEX).expect("a key");
        assert_eq!(read(&HEX.to_uppercase()), Ok(key));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let path = path.to_str().expect("UTF-8");
        let of_file = |contents: &[u8]| {
            std::fs::write(path, contents).expect("our file");
            read(path)
        };
        assert_eq!(of_file(PEM.as_bytes()), Ok(key));
        assert_eq!(of_file(&key), Ok(key));
        assert_eq!(of_file(format!("{HEX}\n").as_bytes()), Ok(key));
        for (bad, found) in [
            (&b""[..], "0 bytes of something else"),
            (&[7; 4097], "4096 bytes of something else"),
            (b"-----BEGIN PRIVATE KEY-----\n", "a private key"),
            // Every signature of the neutral element's key is right for some message of anybody's.
            (&[&[1][..], &[0; 31]].concat(), "weak"),
        ] {
            let error = of_file(bad).expect_err("no key");
            assert!(error.contains(found) && error.contains("pubout"), "{error}");
        }
        for bad in ["", "/no/such/file", "/dev/zero", "/", &HEX[1..]] {
            let error = read(bad).expect_err("no key");
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
    }

    #[test]
    fn a_signature_is_right_for_one_key_and_one_message() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let message = b"in three parts".as_slice();
        let mut signature = blob::BlobSignature {
            key: key.verifying_key().to_bytes(),
            signature: key.sign(message).to_bytes(),
        };
        let right = |signature: &blob::BlobSignature, message: &[u8]| {
            let message = [&message[..2], &message[2..3], &message[3..]];
            verify(&Signed { signature, message })
        };
        assert!(right(&signature, message));
        assert!(!right(&signature, b"in three partz"));
        for bit in (0..8 * size_of::<blob::BlobSignature>()).step_by(7) {
            let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut signature);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!right(&signature, message), "bit {bit}");
            let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut signature);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
