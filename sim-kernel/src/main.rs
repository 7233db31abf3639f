//! A simulated kernel with an empty lineinfo slot.
fn main() {}
