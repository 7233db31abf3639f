//! Mutations of the slot, each of which a test of the slot must notice.
//!
//! With `LINEINFO_MUTANTS=1` each mutation of the list is applied to a copy of this crate in the target
//! directory, and the test that the list names must fail there; ThreadSanitizer must report some of
//! them too, in the stress tests of the slot and of the device. Without it, those trials are shown as ignored, and only the list itself is checked: every
//! mutation applies to the source as it is, and there is one for every ordering.

mod list;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use list::{MUTATIONS, Mutation};

const SLOT: &str = include_str!("../../src/slot.rs");

/// What the copy consists of, relative to the root of the workspace.
const COPIED: &[&str] = &["Cargo.toml", "Cargo.lock", ".ci", "core"];

/// The tests that run under ThreadSanitizer.
const STRESS: [&str; 2] = ["slot_stress", "device_stress"];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // All work in one copy.
    arguments.test_threads = Some(1);
    let enabled = std::env::var_os("LINEINFO_MUTANTS").is_some();
    let skipped = if enabled {
        ""
    } else {
        " (skipped: LINEINFO_MUTANTS is not set)"
    };
    let slow = |name: String, test: Box<dyn FnOnce() -> Result<(), Failed> + Send>| {
        Trial::test(format!("{name}{skipped}"), test).with_ignored_flag(!enabled)
    };

    let mut trials = vec![
        Trial::test("every mutation applies", every_mutation_applies),
        Trial::test(
            "every ordering has a mutation",
            every_ordering_has_a_mutation,
        ),
    ];
    for mutation in MUTATIONS {
        let (name, by) = (mutation.name, mutation.killed_by);
        trials.push(slow(
            format!("{name}: {by}"),
            Box::new(|| is_killed(mutation)),
        ));
    }
    for test in STRESS {
        trials.push(slow(
            format!("ThreadSanitizer is silent: {test}"),
            Box::new(|| is_silent(test)),
        ));
        for mutation in MUTATIONS.iter().filter(|mutation| mutation.is_race) {
            trials.push(slow(
                format!("{}: ThreadSanitizer, {test}", mutation.name),
                Box::new(|| is_reported(mutation, test)),
            ));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn every_mutation_applies() -> Result<(), Failed> {
    for mutation in MUTATIONS {
        mutation.apply(SLOT)?;
    }
    Ok(())
}

fn every_ordering_has_a_mutation() -> Result<(), Failed> {
    let weakens = |mutation: &Mutation, line: &str| match mutation.edits {
        [(find, replacement)] => line.contains(find) && replacement.contains("Ordering::Relaxed"),
        _ => false,
    };
    let strong = ["Acquire", "Release", "AcqRel", "SeqCst"].map(|name| format!("Ordering::{name}"));
    for line in SLOT.lines() {
        if strong.iter().any(|ordering| line.contains(ordering))
            && !MUTATIONS.iter().any(|mutation| weakens(mutation, line))
        {
            return Err(format!("no mutation weakens this ordering: {line}").into());
        }
    }
    Ok(())
}

/// The test that the list names fails on the mutant. That it passes on the slot is for the suite to
/// say.
fn is_killed(mutation: &Mutation) -> Result<(), Failed> {
    let test = format!("slot::tests::{}", mutation.killed_by);
    let output = run(
        Command::new(env!("CARGO"))
            .args(["test", "--offline", "--package", "lineinfo-core", "--lib"])
            .args(["--", "--exact", &test])
            .env("CARGO_TARGET_DIR", directory().join("target")),
        mutation,
    )?;
    if output.contains(&format!("test {test} ... FAILED")) {
        Ok(())
    } else {
        Err(format!("{test} does not fail:\n{output}").into())
    }
}

fn is_reported(mutation: &Mutation, test: &str) -> Result<(), Failed> {
    let output = stress(mutation, test)?;
    if output.contains("SUMMARY: ThreadSanitizer: data race") {
        Ok(())
    } else {
        Err(format!("ThreadSanitizer reports no race:\n{output}").into())
    }
}

fn is_silent(test: &str) -> Result<(), Failed> {
    let output = stress(&Mutation::NONE, test)?;
    if output.contains("test result: ok. 1 passed") && !output.contains("ThreadSanitizer") {
        Ok(())
    } else {
        Err(format!("the stress test is not clean:\n{output}").into())
    }
}

/// Runs a stress test with a mutant under ThreadSanitizer.
fn stress(mutation: &Mutation, test: &str) -> Result<String, Failed> {
    run(
        Command::new(copy().join(".ci/tsan"))
            .args(["--offline", "--package", "lineinfo-core"])
            .args(["--test", test])
            .env("CARGO_TARGET_DIR", directory().join("target"))
            .env("LINEINFO_STRESS_SECONDS", "2"),
        mutation,
    )
}

/// What a command says about a mutant; whether it succeeds is for the caller to see.
fn run(command: &mut Command, mutation: &Mutation) -> Result<String, Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let copy = copy();
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    fs::create_dir_all(&copy)?;
    for name in COPIED {
        copy_tree(&root.join(name), &copy.join(name))?;
    }
    // The other members of the workspace are not there.
    let manifest = copy.join("Cargo.toml");
    let lines: Vec<String> = fs::read_to_string(&manifest)?
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some(("members", _)) => r#"members = ["core"]"#.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    fs::write(&manifest, lines.join("\n"))?;
    fs::write(copy.join("core/src/slot.rs"), mutation.apply(SLOT)?)?;

    let output = command
        .current_dir(&copy)
        .env("RUST_BACKTRACE", "0")
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Where all of this happens; it stays there, for the next time.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("slot_mutants")
}

fn copy() -> PathBuf {
    directory().join("copy")
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), Failed> {
    if !from.is_dir() {
        fs::copy(from, to)?;
        return Ok(());
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_tree(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
