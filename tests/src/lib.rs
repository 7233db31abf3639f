//! What the end-to-end tests and the tour share: the two binaries, and kernels that are running
//! ([`lineinfo_harness`]).

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use lineinfo_core::Table;
use lineinfo_core::writer::with_symbols;

/// The Rust in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

pub mod measured;

pub use lineinfo_harness::Kernel;
pub use lineinfo_harness::trace::{Frame, frames, meminfo_kb, resident_kb};

/// The binaries under test.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The loader.
    pub lineinfo: PathBuf,
    /// The simulated kernel, which is its own boot image and its own vmlinux.
    pub sim_kernel: PathBuf,
}

/// Builds the loader alone with Cargo, optimized or not.
///
/// # Errors
///
/// What Cargo says.
pub fn build_loader(release: bool) -> Result<PathBuf> {
    build("lineinfo-cli", "lineinfo", release)
}

fn build(package: &str, bin: &str, release: bool) -> Result<PathBuf> {
    let mut build = escargot::CargoBuild::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .package(package)
        .bin(bin);
    if release {
        build = build.release();
    }
    let built = build.run().with_context(|| format!("cargo build {bin}"))?;
    Ok(built.path().to_owned())
}

/// Compiles `xor.ko`, a module for simulated kernels, into a directory.
///
/// # Errors
///
/// If there is no C compiler, or it fails.
pub fn build_module(directory: &Path) -> Result<PathBuf> {
    let module = directory.join("xor.ko");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../sim-kernel/modules/xor.c");
    let flags = "-g -O2 -fno-omit-frame-pointer -shared -fPIC -Wl,--build-id=sha1";
    let status = Command::new("cc")
        .args(flags.split(' '))
        .args([Path::new("-o"), &module, Path::new(source)])
        .status();
    ensure!(status.context("start cc")?.success(), "cc failed");
    Ok(module)
}

impl Binaries {
    /// Builds both with Cargo, optimized or not.
    ///
    /// # Errors
    ///
    /// What Cargo says.
    pub fn build(release: bool) -> Result<Self> {
        Ok(Self {
            lineinfo: build_loader(release)?,
            sim_kernel: build("sim-kernel", "sim-kernel", release)?,
        })
    }

    /// Runs the loader.
    ///
    /// # Errors
    ///
    /// If it cannot be started; its failure is in the output.
    pub fn lineinfo(&self, args: &[&str]) -> Result<Output> {
        let output = Command::new(&self.lineinfo).args(args).output();
        output.with_context(|| format!("start {}", self.lineinfo.display()))
    }
}

/// Size of the table in a file, in bytes, once it is in a kernel that has booted: without its symbols,
/// which are not loaded, and what it says of init text, which is gone by then.
///
/// # Errors
///
/// If the file holds no table.
pub fn loaded_size_bytes(path: &Path) -> Result<u64> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let bytes = with_symbols(&Table::parse(&bytes)?, &[])?;
    Ok(Table::parse(&bytes)?.size_without_init() as u64)
}

/// What it takes there, whole pages, in kB.
///
/// # Errors
///
/// If the file holds no table.
pub fn memory_of_table_kb(path: &Path) -> Result<u64> {
    const PAGE_BYTES: u64 = 4096;
    Ok(loaded_size_bytes(path)?.next_multiple_of(PAGE_BYTES) / 1024)
}

/// What a command printed on stdout, if it succeeded.
///
/// # Errors
///
/// What it printed on stderr, if it failed.
pub fn stdout_of(output: Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
