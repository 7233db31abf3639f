//! Builds, loads and inspects lineinfo tables.
