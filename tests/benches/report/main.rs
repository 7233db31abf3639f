//! One report of speed and size: look-ups, load, build and decoding, of every encoding and of what
//! else there is.
//!
//! ```sh
//! LINEINFO_VMLINUX=$(.ci/vmlinux) cargo bench --bench report
//! ```
//!
//! writes `report.md` and its pictures into the directory that `LINEINFO_REPORT` names, by default
//! `target/report`. Without `LINEINFO_VMLINUX` it is about this executable, which has DWARF as well.
//!
//! ```text
//!   subject   an image, its rows, and where to ask
//!   peers     who answers: tables, the addr2line crate, blazesym on GSYM, symbolic's symcache
//!   lookups   asks all of them, in turns       commands   runs the commands, in turns
//!                         └────────> page (Markdown), picture (SVG) <───────┘
//! ```
//!
//! All that is compared is measured in turns in one run, so the noise of the machine falls on all
//! alike: read the ratios. What is not installed is left out, and the report says so.
#![forbid(unsafe_code)]

mod commands;
mod lookups;
mod page;
mod peers;
mod picture;
mod subject;

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use lineinfo_tests::{Binaries, measured};

use crate::subject::Subject;

/// The target directory of the workspace.
const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target");

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, command @ ..] = arguments.as_slice()
        && flag == measured::OPTION
    {
        return measured::main(command);
    }
    let directory =
        env::var_os("LINEINFO_REPORT").map_or(PathBuf::from(TARGET).join("report"), PathBuf::from);
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let image = match env::var_os("LINEINFO_VMLINUX") {
        Some(vmlinux) => PathBuf::from(vmlinux),
        None => env::current_exe()?,
    };
    eprintln!("report: {}", image.display());
    let binaries = Binaries::build(true)?;
    let subject = Subject::read(&image)?;
    let temporary = tempfile::tempdir()?;
    let commands = commands::run(&subject, &binaries.lineinfo, temporary.path())?;
    let lookups = lookups::run(&subject, temporary.path())?;

    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    write("look-ups.svg", &picture::lookups(&lookups)?)?;
    write("builds.svg", &picture::builds(&commands)?)?;
    let page = page::page(&subject, &lookups, &commands)?;
    write("report.md", &page)?;
    print!("{page}");
    eprintln!("report: written to {}", directory.display());
    Ok(())
}
