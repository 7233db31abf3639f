//! Structures of C that hold a value of Rust.

use core::mem::MaybeUninit;
use core::ptr;

/// A structure whose contents are not for C, which gives it a place.
///
/// # Safety
///
/// It has no constructor in Rust, so that one comes only from C, whose contract is that [`put`] has
/// filled it. It is as interior-mutable as the value.
pub(crate) unsafe trait Holder: Sized {
    /// What it holds.
    type Value: 'static;

    /// The header states a size; it must be the right one.
    const FITS: () = {
        let (value, holder) = (size_of::<Self::Value>(), size_of::<Self>());
        assert!(value == holder || value < holder && usize::BITS < 64);
        assert!(align_of::<Self::Value>() <= align_of::<Self>());
    };
}

/// Fills a structure of C.
pub(crate) const fn put<H: Holder>(place: &mut MaybeUninit<H>, value: H::Value) {
    const { H::FITS };
    let place = place.as_mut_ptr().cast::<H::Value>();
    // SAFETY: the place is valid for writes, large and aligned enough.
    unsafe { place.write(value) };
}

/// What a structure of C holds.
pub(crate) const fn get<H: Holder>(holder: &H) -> &H::Value {
    const { H::FITS };
    // SAFETY: the size and the alignment are right, `put` has written a value there (the contract of
    // `Holder`), and it is shared as long as the holder is.
    unsafe { &*ptr::from_ref(holder).cast() }
}

/// The same, to be changed.
pub(crate) const fn get_mut<H: Holder>(holder: &mut H) -> &mut H::Value {
    const { H::FITS };
    // SAFETY: as in `get`; and it is borrowed exclusively as long as the holder is.
    unsafe { &mut *ptr::from_mut(holder).cast() }
}
