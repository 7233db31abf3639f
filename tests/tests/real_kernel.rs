//! A real kernel's tables: Debian's vmlinux, against the addr2line crate and the programs.
//!
//! `LINEINFO_VMLINUX` names a vmlinux with DWARF (`.ci/vmlinux` fetches one); without it, or
//! without the program that is asked, the tests are shown as ignored.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use indicatif::ProgressBar;
use libtest_mimic::{Arguments, Failed, Trial};
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::verify::{Options, Program, verify};
use lineinfo_core::Table;
use lineinfo_core::blob::{Encoding, Profile};

/// Addresses that a comparison must at least have had, so that it means something.
const CHECKED_MIN: u64 = 200_000;

fn main() -> ExitCode {
    let vmlinux = std::env::var_os("LINEINFO_VMLINUX").map(PathBuf::from);
    let vmlinux = vmlinux.ok_or("LINEINFO_VMLINUX names no vmlinux");
    let mut trials = Vec::new();
    for &encoding in Encoding::ALL {
        for &profile in Profile::ALL {
            let name = format!("{encoding} table, profile {profile}, equals the addr2line crate");
            trials.push(trial(name, vmlinux.clone(), move |path| {
                compare(path, encoding, profile, None)
            }));
        }
    }
    for names in [
        &[
            "llvm-symbolizer-22",
            "llvm-symbolizer-19",
            "llvm-symbolizer",
        ][..],
        &["eu-addr2line"],
    ] {
        let installed = names
            .iter()
            .find(|name| Command::new(name).arg("--version").output().is_ok());
        let needs = vmlinux.clone().and_then(|path| {
            let program = installed.ok_or("it is not installed")?;
            Ok((path, *program))
        });
        let name = format!("packed table equals {} at all calls and traps", names[0]);
        trials.push(trial(name, needs, |(path, program)| {
            let program: Program = program.parse()?;
            compare(path, Encoding::Packed, Profile::Calls, Some(program))
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test that is ignored, with the reason in its name, where what it needs is not there.
fn trial<N: Send + 'static>(
    name: String,
    needs: Result<N, &'static str>,
    test: impl Fn(&N) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    match needs {
        Ok(needs) => Trial::test(name, move || test(&needs)),
        Err(reason) => {
            Trial::test(format!("{name} (skipped: {reason})"), || Ok(())).with_ignored_flag(true)
        }
    }
}

fn compare(
    vmlinux: &Path,
    encoding: Encoding,
    profile: Profile,
    oracle: Option<Program>,
) -> Result<(), Failed> {
    let file = ElfFile::open(vmlinux)?;
    let elf = file.parse()?;
    let mut extracted = extract(&elf, &Naming::default(), &ProgressBar::hidden())?;
    if profile == Profile::Calls {
        extracted.reduce_to_calls(&elf)?;
    }
    let blob = extracted.encode(encoding)?;
    let options = Options {
        naming: Naming {
            root: Some(extracted.root),
            ..Naming::default()
        },
        oracle,
        random: 100_000,
        show: 10,
        ..Options::default()
    };
    let report = verify(
        Path::new("the table"),
        &Table::parse(&blob)?,
        &elf,
        &options,
        &ProgressBar::hidden(),
    )?;
    if report.differences > 0 || report.checked < CHECKED_MIN {
        return Err(format!("{report:#?}").into());
    }
    Ok(())
}
