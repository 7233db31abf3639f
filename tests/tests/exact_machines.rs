//! Tables of the same small kernel on every machine, by every compiler, against the references.
//!
//! The sources and the script that makes them into modules and images are in `fixtures/machines`.
//! What a compiler or a reference is missing for is shown as ignored, with the reason.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use indicatif::ProgressBar;
use libtest_mimic::{Arguments, Failed, Trial};
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::extract::{Extracted, extract};
use lineinfo_cli::verify::calls::Instructions;
use lineinfo_cli::verify::{Options, Program, verify};
use lineinfo_core::blob::Encoding;
use lineinfo_core::{Row, Table};

/// Debian's names of the machines, as they begin the names of cross compilers.
const MACHINES: [&str; 7] = [
    "x86_64-linux-gnu",
    "i686-linux-gnu",
    "aarch64-linux-gnu",
    "arm-linux-gnueabihf",
    "riscv64-linux-gnu",
    "powerpc64le-linux-gnu",
    "s390x-linux-gnu",
];

/// All bytes of these small texts, with near certainty.
const RANDOM_BYTES: u64 = 20_000;

#[derive(Clone, Debug)]
struct Fixture {
    machine: &'static str,
    kind: &'static str,
    dwarf: &'static str,
    compiler: Vec<String>,
}

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for machine in MACHINES {
        let gcc = vec![format!("{machine}-gcc")];
        let clang = vec!["clang".to_owned(), format!("--target={machine}")];
        for compiler in [gcc, clang] {
            for (kind, dwarf) in [
                ("module", "4"),
                ("module", "5"),
                ("image", "4"),
                ("image", "5"),
            ] {
                let fixture = Fixture {
                    machine,
                    kind,
                    dwarf,
                    compiler: compiler.clone(),
                };
                trials.push(fixture.trial(None));
                trials.push(fixture.trial(Some("llvm-symbolizer")));
                // Without .debug_aranges, which clang does not make, it knows nothing.
                if compiler.len() == 1 {
                    trials.push(fixture.trial(Some("eu-addr2line")));
                }
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

impl Fixture {
    fn trial(&self, oracle: Option<&'static str>) -> Trial {
        let reference = oracle.unwrap_or("the addr2line crate");
        let name = format!(
            "{} of {}, DWARF {}, by {} equals {reference}",
            self.kind, self.machine, self.dwarf, self.compiler[0]
        );
        let linker = self.linker();
        let needed = [Some(self.compiler[0].as_str()), Some(&linker), oracle];
        let missing = needed
            .into_iter()
            .flatten()
            .find(|program| !is_installed(program));
        if let Some(program) = missing {
            let name = format!("{name} (skipped: {program} is not installed)");
            return Trial::test(name, || Ok(())).with_ignored_flag(true);
        }
        let fixture = self.clone();
        Trial::test(name, move || fixture.check(oracle))
    }

    fn linker(&self) -> String {
        format!("{}-ld", self.machine)
    }

    fn build(&self, to: &Path) -> Result<(), Failed> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/machines");
        let output = Command::new(sources.join("build"))
            .arg(to)
            .args([self.kind, self.dwarf, &self.linker()])
            .args(&self.compiler)
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
    }

    fn check(&self, oracle: Option<&str>) -> Result<(), Failed> {
        let directory = tempfile::tempdir()?;
        let path: PathBuf = directory.path().join("kernel");
        self.build(&path)?;
        let file = ElfFile::open(&path)?;
        let elf = file.parse()?;
        let extracted = extract(&elf, &Naming::default(), &ProgressBar::hidden())?;
        has_what_it_is_for(&extracted)?;

        let blob = extracted.encode(Encoding::Delta)?;
        let options = Options {
            oracle: oracle.map(str::parse::<Program>).transpose()?,
            random: RANDOM_BYTES,
            show: 10,
            ..Options::default()
        };
        let table = Table::parse(&blob)?;
        let report = verify(&path, &table, &elf, &options, &ProgressBar::hidden())?;
        if report.differences > 0 || report.checked < 300 {
            return Err(format!("{report:#?}").into());
        }
        let decoder = Instructions::of(elf.identity.machine, elf.address_size());
        if decoder.is_some() && report.call_sites.is_none_or(|calls| calls < 10) {
            return Err(format!("few calls: {:?}", report.call_sites).into());
        }
        Ok(())
    }
}

/// That no compiler has made the fixture pointless.
fn has_what_it_is_for(extracted: &Extracted) -> Result<(), Failed> {
    for expected in [
        "kernel.c",
        "kernel.h",
        "entry.S",
        "generated/lines.c",
        "/elsewhere/lib/outside.c",
    ] {
        if !extracted.files.iter().any(|file| file == expected) {
            return Err(format!("no {expected} among {:?}", extracted.files).into());
        }
    }
    let regions = &extracted.regions;
    let names: Vec<_> = regions
        .iter()
        .map(|region| &region.section.name[..])
        .collect();
    for expected in [
        ".text",
        ".noinstr.text",
        ".init.text",
        ".exit.text",
        ".entry.text",
    ] {
        if !names.contains(&expected) {
            return Err(format!("no {expected} among {names:?}").into());
        }
    }
    if !regions
        .iter()
        .any(|region| region.rows.iter().any(Row::is_gap))
    {
        return Err("no gap for the assembly without rows".into());
    }
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}
