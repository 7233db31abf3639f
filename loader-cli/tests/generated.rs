//! Completions and the manual, as the example `generate` makes them.

#[path = "../examples/generate/files.rs"]
mod files;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use clap::CommandFactory;
use lineinfo_cli::cmd::Cli;
use tempfile::TempDir;

/// The names of the commands.
fn commands() -> Vec<String> {
    let program = Cli::command();
    let names = program.get_subcommands().map(|command| command.get_name());
    names.map(str::to_owned).collect()
}

fn generate() -> (TempDir, Vec<PathBuf>) {
    let directory = TempDir::new().expect("a directory");
    let paths = files::generate(directory.path()).expect("they are made");
    (directory, paths)
}

/// Whether a program is installed; says that a check is left out if not.
fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    there
}

fn pages(paths: &[PathBuf]) -> Vec<&PathBuf> {
    paths
        .iter()
        .filter(|path| path.extension() == Some("1".as_ref()))
        .collect()
}

#[test]
fn every_command_has_a_page_with_its_parts() {
    let (directory, paths) = generate();
    let mut names: Vec<String> = pages(&paths)
        .iter()
        .map(|path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    let mut expected = vec!["lineinfo.1".to_owned()];
    expected.extend(
        commands()
            .iter()
            .map(|command| format!("lineinfo-{command}.1")),
    );
    expected.sort();
    assert_eq!(names, expected);
    for command in commands() {
        let path = directory
            .path()
            .join(format!("man/man1/lineinfo-{command}.1"));
        let page = fs::read_to_string(path).expect("the page");
        for part in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "\"GLOBAL OPTIONS\"",
            "EXAMPLES",
            "\"SEE ALSO\"",
        ] {
            assert!(
                page.contains(&format!("\n.SH {part}\n")),
                "{command}: {part}"
            );
        }
        assert!(
            page.contains("\\-\\-color"),
            "{command}: the options of all commands"
        );
    }
}

#[test]
fn the_files_of_one_version_are_the_same() {
    let read = |paths: &[PathBuf]| -> Vec<String> {
        paths
            .iter()
            .map(|path| fs::read_to_string(path).expect("a file"))
            .collect()
    };
    let ((_first, one), (_second, other)) = (generate(), generate());
    let (one, other) = (read(&one), read(&other));
    assert_eq!(one, other);
    if let Some(commit) = option_env!("LINEINFO_COMMIT") {
        assert!(one.iter().all(|text| !text.contains(commit)));
    }
}

#[test]
fn the_formatters_of_the_manual_find_nothing_wrong() {
    let (_directory, paths) = generate();
    // Each with what it warns of, on stderr or, for mandoc, on stdout.
    let checks: [&[&str]; 2] = [
        &["groff", "-man", "-Tutf8", "-K", "utf-8", "-ww", "-z"],
        &["mandoc", "-T", "lint", "-W", "error"],
    ];
    for check in checks.into_iter().filter(|check| is_there(check[0])) {
        for page in pages(&paths) {
            let output = Command::new(check[0]).args(&check[1..]).arg(page).output();
            let output = output.expect("it runs");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(
                output.status.success() && said.is_empty(),
                "{}: {said}",
                page.display()
            );
        }
    }
}

#[test]
fn man_prints_a_page() {
    if !is_there("man") {
        return;
    }
    let (directory, _) = generate();
    let page = directory.path().join("man/man1/lineinfo-decode.1");
    let mut man = Command::new("man");
    let output = man
        .arg("-l")
        .arg(page)
        .env("MANWIDTH", "100")
        .env("LC_ALL", "C.UTF-8")
        .output();
    let output = output.expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.starts_with("lineinfo-decode(1)"), "{text}");
    assert!(text.contains("User Commands"), "{text}");
    assert!(
        text.contains("\n           tail -F /var/log/fleet.log | lineinfo decode --key host\n"),
        "{text}"
    );
}

#[test]
fn the_shells_take_their_completions() {
    let (directory, paths) = generate();
    for (script, shell, option) in [
        ("bash-completion/completions/lineinfo", "bash", "-n"),
        ("zsh/site-functions/_lineinfo", "zsh", "-n"),
        (
            "fish/vendor_completions.d/lineinfo.fish",
            "fish",
            "--no-execute",
        ),
    ] {
        let script = directory.path().join(script);
        assert!(paths.contains(&script), "{shell}");
        let text = fs::read_to_string(&script).expect("a script");
        for command in commands() {
            assert!(text.contains(&command), "{shell}: {command}");
        }
        if is_there(shell) {
            let output = Command::new(shell)
                .arg(option)
                .arg(&script)
                .output()
                .expect("it runs");
            assert!(
                output.status.success(),
                "{shell}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// What bash offers after some words, the last of which is to be completed.
fn completed(words: &[&str]) -> Vec<String> {
    let (directory, _) = generate();
    let script = directory
        .path()
        .join("bash-completion/completions/lineinfo");
    let program = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        _lineinfo lineinfo "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    let output = bash
        .args(["-c", program, "bash"])
        .arg(script)
        .args(words)
        .output();
    let output = output.expect("bash runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    if !is_there("bash") {
        return;
    }
    assert_eq!(completed(&["lineinfo", "dec"]), ["decode"]);
    assert_eq!(completed(&["lineinfo", "build", "--prof"]), ["--profile"]);
    assert_eq!(
        completed(&["lineinfo", "build", "--profile", ""]),
        ["full", "calls"]
    );
    assert_eq!(
        completed(&["lineinfo", "status", "--color", "al"]),
        ["always"]
    );
}
