//! A small kernel on every machine: `fixtures/machines`, and the compilers that make it.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

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

/// One way to make the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    machine: &'static str,
    kind: &'static str,
    dwarf: &'static str,
    /// The program and its arguments.
    pub(crate) compiler: Vec<String>,
}

/// All of them.
pub(crate) fn fixtures() -> Vec<Fixture> {
    let mut fixtures = Vec::new();
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
                fixtures.push(Fixture {
                    machine,
                    kind,
                    dwarf,
                    compiler: compiler.clone(),
                });
            }
        }
    }
    fixtures
}

impl Fixture {
    /// A test that gets the fixture as a file; ignored, with the reason in its name, where one of
    /// the programs is not installed.
    pub(crate) fn trial(
        &self,
        what: &str,
        program: Option<&str>,
        test: impl Fn(&Path) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let name = format!(
            "{} of {}, DWARF {}, by {} {what}",
            self.kind, self.machine, self.dwarf, self.compiler[0]
        );
        let linker = self.linker();
        let needed = [Some(self.compiler[0].as_str()), Some(&linker), program];
        let missing = needed
            .into_iter()
            .flatten()
            .find(|program| !is_installed(program));
        if let Some(program) = missing {
            let name = format!("{name} (skipped: {program} is not installed)");
            return Trial::test(name, || Ok(())).with_ignored_flag(true);
        }
        let fixture = self.clone();
        Trial::test(name, move || {
            let directory = tempfile::tempdir()?;
            let path = directory.path().join("kernel");
            fixture.build(&path)?;
            test(&path)
        })
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
}

fn is_installed(program: &str) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}
