//! file:line tables for kernel stack traces: the part that runs inside a kernel.
#![no_std]
