//! What the signature of a blob is over ([`BlobSignature`]). Nothing here computes one: this crate has no
//! cryptography, and a kernel brings its own.

use core::mem::offset_of;

use zerocopy::FromBytes;

use crate::blob::{BlobSignature, Header};
use crate::buffer::StrBuffer;

/// A blob with a signature that nobody has verified yet.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The key and the signature.
    pub signature: &'a BlobSignature,
    /// What was signed: the concatenation of these.
    pub message: [&'a [u8]; 3],
}

impl<'a> Signed<'a> {
    /// The parts of a blob that ends with a signature.
    pub(crate) fn of(blob: &'a [u8]) -> Option<Self> {
        const CRC: usize = offset_of!(Header, crc32);
        const AFTER_CRC: usize = CRC.saturating_add(size_of::<u32>());

        let (_, signature) = BlobSignature::ref_from_suffix(blob).ok()?;
        let end = blob.len().checked_sub(signature.signature.len())?;
        Some(Self {
            signature,
            message: [
                blob.get(..CRC)?,
                &[0; size_of::<u32>()],
                blob.get(AFTER_CRC..end)?,
            ],
        })
    }
}

/// An Ed25519 public key as text is shown of it: the first 8 bytes, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// The name of a key.
    pub fn of(key: &[u8; 32]) -> Self {
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(key) {
            *to = *from;
        }
        Self(id)
    }

    /// Appends it, without `core::fmt`.
    pub fn push_to(self, text: &mut StrBuffer<'_>) {
        text.push_hex(&self.0);
    }
}

impl core::fmt::Display for KeyId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        crate::buffer::display(f, |text| self.push_to(text))
    }
}
