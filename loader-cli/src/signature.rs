//! Keys and signatures: Ed25519 (RFC 8032), in the files that openssl makes.

use std::path::Path;

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use lineinfo_core::{KeyId, Signed, writer};

use crate::error::Error;
use crate::files;

/// How PEM files of any kind begin.
const PEM: &[u8] = b"-----BEGIN ";

/// Reads a private key: PEM or DER of PKCS #8, or the 32 bytes themselves.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::Key`], which says what the file is instead.
pub fn read_private_key(path: &Path) -> Result<SigningKey, Error> {
    let bytes = files::read(path)?;
    let bad = |found: String| Error::Key {
        path: path.to_owned(),
        found,
    };
    if let Ok(seed) = <&[u8; 32]>::try_from(&bytes[..]) {
        return Ok(SigningKey::from_bytes(seed));
    }
    let key = if let Some(rest) = bytes.strip_prefix(PEM) {
        let label = rest.split(|byte| *byte == b'-').next().unwrap_or_default();
        let label = String::from_utf8_lossy(label);
        let text = String::from_utf8_lossy(&bytes);
        if label != "PRIVATE KEY" {
            return Err(bad(format!("a PEM file of {label}")));
        }
        SigningKey::from_pkcs8_pem(&text)
    } else {
        SigningKey::from_pkcs8_der(&bytes)
    };
    key.map_err(|error| bad(format!("{} bytes of something else: {error}", bytes.len())))
}

/// The same blob with a signature of this key.
///
/// # Errors
///
/// [`Error::Encode`] where it becomes too large.
pub fn sign(path: &Path, blob: &[u8], key: &SigningKey) -> Result<Vec<u8>, Error> {
    let public = key.verifying_key().to_bytes();
    let signed = writer::sign(blob, public, |message| key.sign(message).to_bytes());
    signed.map_err(|source| Error::Encode {
        path: path.to_owned(),
        source,
    })
}

/// Checks that the signature of a blob is that of the key that it names. Whether that key is to be
/// trusted is for a kernel to say.
///
/// # Errors
///
/// [`Error::Signature`].
pub fn check(path: &Path, signed: &Signed<'_>) -> Result<(), Error> {
    let key = &signed.signature.key;
    let signature = Signature::from_bytes(&signed.signature.signature);
    let verified = VerifyingKey::from_bytes(key)
        .and_then(|key| key.verify_strict(&signed.message.concat(), &signature));
    verified.map_err(|_| Error::Signature {
        path: path.to_owned(),
        key: KeyId::of(key).to_string(),
    })
}
