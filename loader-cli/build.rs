//! Says which commit the program is built from, in `LINEINFO_COMMIT`, where that can be known.
//!
//! A clone has it in git, and a crate of a registry in the file that `cargo package` puts there. Other
//! sources have none: the program then has the version of the package alone. Nothing else of the
//! machine gets into the program, so that two builds of one commit are the same.

use std::path::Path;
use std::process::Command;

/// What `cargo package` says of the repository.
const PACKAGED: &str = ".cargo_vcs_info.json";

/// Digits of a commit that are shown.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(commit) = packaged().or_else(of_clone) {
        println!("cargo::rustc-env=LINEINFO_COMMIT={commit}");
    }
}

/// The commit of a crate.
fn packaged() -> Option<String> {
    let text = std::fs::read(PACKAGED).ok()?;
    let info: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let commit = info.get("git")?.get("sha1")?.as_str()?;
    commit.get(..DIGITS).map(str::to_owned)
}

/// The commit of a clone of this repository, and not of one that has a copy of this package somewhere.
fn of_clone() -> Option<String> {
    (git(&["rev-parse", "--show-prefix"])? == "loader-cli/").then_some(())?;
    // A commit and a checkout are written to the first of these; a repository without logs has the others.
    for name in ["logs/HEAD", "HEAD", "packed-refs"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).is_file() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", &format!("--short={DIGITS}"), "HEAD"])
}

/// What git answers, if it is there and can.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| answer.trim_end().to_owned())
}
