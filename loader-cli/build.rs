//! Says which commit the program is built from, in `LINEINFO_COMMIT`, where that can be known.
//!
//! A clone has it in git, and a crate of a registry in the file that `cargo package` puts there. Other
//! sources have none: the program then has the version of the package alone. Nothing else of the
//! machine gets into the program, so that two builds of one commit are the same.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo package` says of the repository.
const PACKAGED: &str = ".cargo_vcs_info.json";

/// Digits of a commit that are shown.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for log in logs(package) {
        println!("cargo::rerun-if-changed={}", log.display());
    }
    if let Some(commit) = commit(package) {
        println!("cargo::rustc-env=LINEINFO_COMMIT={commit}");
    }
}

/// The commit that the package in a directory is of.
pub(crate) fn commit(package: &Path) -> Option<String> {
    packaged(package).or_else(|| of_clone(package))
}

/// The commit of a crate.
fn packaged(package: &Path) -> Option<String> {
    let text = std::fs::read(package.join(PACKAGED)).ok()?;
    let info: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let commit = info.get("git")?.get("sha1")?.as_str()?;
    commit.get(..DIGITS).map(str::to_owned)
}

/// The commit of a clone of this repository, and not of one that has a copy of this package somewhere.
fn of_clone(package: &Path) -> Option<String> {
    let place = git(package, &["rev-parse", "--show-prefix"])?;
    (place == "loader-cli/").then(|| {
        git(
            package,
            &["rev-parse", &format!("--short={DIGITS}"), "HEAD"],
        )
    })?
}

/// What a commit or a checkout in a clone writes to.
fn logs(package: &Path) -> Vec<PathBuf> {
    // A repository without logs has the others.
    let names = ["logs/HEAD", "HEAD", "packed-refs"];
    let paths = names.map(|name| git(package, &["rev-parse", "--git-path", name]));
    let paths = paths.into_iter().flatten().map(|path| package.join(path));
    paths.filter(|path| path.is_file()).collect()
}

/// What git answers in a directory, if it is there and can.
fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    let output = git.current_dir(directory).args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| answer.trim_end().to_owned())
}
