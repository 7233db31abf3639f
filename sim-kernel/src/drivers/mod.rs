//! Devices.

pub(crate) mod console;
pub(crate) mod kmsg;
