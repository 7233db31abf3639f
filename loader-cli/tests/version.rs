//! Where the commit in `lineinfo --version` comes from, as the build script finds it.

#[expect(dead_code, reason = "what only Cargo calls")]
#[path = "../build.rs"]
mod build;

use std::fs;
use std::path::Path;
use std::process::Command;

fn run(directory: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    let identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
    let output = git
        .current_dir(directory)
        .args(identity)
        .args(arguments)
        .output();
    let output = output.expect("git is there");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn sources_without_a_repository_have_no_commit() {
    let directory = tempfile::tempdir().expect("a directory");
    assert_eq!(build::commit(directory.path()), None);
}

#[test]
fn a_crate_says_which_commit_it_is_of() {
    let directory = tempfile::tempdir().expect("a directory");
    let info = directory.path().join(".cargo_vcs_info.json");
    let text = r#"{"git": {"sha1": "0123456789abcdef0123456789abcdef01234567"}, "path_in_vcs": "loader-cli"}"#;
    fs::write(&info, text).expect("room");
    let commit = build::commit(directory.path());
    assert_eq!(commit.as_deref(), Some("0123456789ab"));
    fs::write(&info, "{}").expect("room");
    assert_eq!(build::commit(directory.path()), None);
}

#[test]
fn a_clone_has_its_commit_and_a_copy_elsewhere_has_none() {
    if Command::new("git").arg("--version").output().is_err() {
        eprintln!("skipped: git is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let package = directory.path().join("loader-cli");
    let copy = directory.path().join("vendor/lineinfo-cli");
    for place in [&package, &copy] {
        fs::create_dir_all(place).expect("room");
        fs::write(place.join("Cargo.toml"), "").expect("room");
    }
    run(directory.path(), &["init", "-q"]);
    assert_eq!(build::commit(&package), None, "nothing is committed");
    run(directory.path(), &["add", "."]);
    run(directory.path(), &["commit", "-qm", "x"]);
    let commit = build::commit(&package).expect("a commit");
    assert_eq!(commit.len(), 12, "{commit}");
    assert_eq!(build::commit(&copy), None);
}

#[test]
fn the_version_has_package_commit_and_format() {
    let output = Command::new(env!("CARGO_BIN_EXE_lineinfo"))
        .arg("--version")
        .output();
    let said = String::from_utf8(output.expect("it runs").stdout).expect("UTF-8");
    let commit = build::commit(Path::new(env!("CARGO_MANIFEST_DIR")));
    let commit = commit.map_or_else(String::new, |commit| format!("{commit}, "));
    let (package, format) = (
        env!("CARGO_PKG_VERSION"),
        lineinfo_core::blob::FORMAT_VERSION,
    );
    assert_eq!(
        said,
        format!("lineinfo {package} ({commit}table format {format})\n")
    );
}
