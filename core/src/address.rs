use core::fmt;

/// A distance from `_text`, in bytes; never an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset of an address, given the address of `_text`; `None` below it.
    pub const fn of(address: u64, text: u64) -> Option<Self> {
        match address.checked_sub(text) {
            Some(offset) => Some(Self(offset)),
            None => None,
        }
    }
}

/// An address in machine code together with its kind, which says what instruction it stands for.
///
/// An `Address` is relative to `_text`, as [`crate::Table::lookup`] takes it; an `Address<u64>` is
/// one at run time or link time ([`Address::relative_to`]).
///
/// Only this type subtracts one from a return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address<T = Offset> {
    /// A call returns to it: the call's last byte is meant.
    Return(T),
    /// The instruction itself: an interrupted RIP, a pc, the start of a function.
    Exact(T),
    /// An instruction that traps by design: `ud2`, `brk`.
    Trap(T),
}

impl<T: Copy> Address<T> {
    /// The address without its kind.
    pub const fn value(self) -> T {
        match self {
            Self::Return(value) | Self::Exact(value) | Self::Trap(value) => value,
        }
    }
}

impl Address<u64> {
    /// The same address relative to `_text`, given the address of `_text`; `None` below it.
    pub const fn relative_to(self, text: u64) -> Option<Address> {
        let Some(offset) = Offset::of(self.value(), text) else {
            return None;
        };
        Some(match self {
            Self::Return(_) => Address::Return(offset),
            Self::Exact(_) => Address::Exact(offset),
            Self::Trap(_) => Address::Trap(offset),
        })
    }

    /// A byte of the instruction that is meant; `None` for a return to address 0.
    pub const fn byte(self) -> Option<u64> {
        match self {
            Self::Return(value) => value.checked_sub(1),
            Self::Exact(value) | Self::Trap(value) => Some(value),
        }
    }

    /// The same instruction without the claim that a call or a trap is there: for a word that was
    /// found on a stack and may be no return address (`?` in a trace of x86).
    ///
    /// `None` for a return to address 0.
    pub const fn unreliable(self) -> Option<Self> {
        match self.byte() {
            Some(byte) => Some(Self::Exact(byte)),
            None => None,
        }
    }
}

impl Address {
    /// A byte of the instruction that is meant; `None` for a return to offset 0, where no call can
    /// be before.
    pub const fn byte(self) -> Option<Offset> {
        match self {
            Self::Return(Offset(value)) => match value.checked_sub(1) {
                Some(byte) => Some(Offset(byte)),
                None => None,
            },
            Self::Exact(value) | Self::Trap(value) => Some(value),
        }
    }
}

impl<T: fmt::LowerHex> fmt::LowerHex for Address<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Return(value) | Self::Exact(value) | Self::Trap(value) => value.fmt(f),
        }
    }
}
