//! The core as a static library in a program without std, allocator, or a branch that panics.

use std::path::{Path, PathBuf};
use std::process::Command;

use lineinfo_core::Row;
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::writer::{Image, Region, encode};

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the command starts");
    assert!(
        output.status.success(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// The static library, built as a kernel would.
fn library() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("freestanding");
    run(Command::new(env!("CARGO"))
        .args(["build", "--offline", "--package", "lineinfo-freestanding"])
        .args(["--features", "kernel", "--profile", "freestanding"])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target));
    target.join("freestanding/liblineinfo.a")
}

#[test]
fn it_links_without_std_allocator_and_panics_and_answers() {
    let library = library();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("freestanding/main.c");
    let program = directory.path().join("program");
    // Without the C library: what is not in main.c does not exist.
    run(Command::new("cc")
        .args(["-O2", "-Wall", "-Werror", "-ffreestanding", "-fno-builtin"])
        .args(["-nostdlib", "-static", "-no-pie", "-Wl,--gc-sections"])
        .arg("-o")
        .arg(&program)
        .arg(source)
        .arg(&library));

    let rows = [
        Row {
            start: 0,
            file: 0,
            line: 1,
        },
        Row {
            start: 8,
            file: 1,
            line: 681,
        },
        Row {
            start: 16,
            file: 0,
            line: 0,
        },
    ];
    let regions = [Region {
        name: ".text",
        start: 0,
        len: 32,
        init: false,
        rows: &rows,
    }];
    let image = Image {
        machine: 62,
        build_id: &[1; 20],
        text_start: 0,
        profile: Profile::Full,
        files: &["init/main.c", "fs/read_write.c"],
        regions: &regions,
    };
    for &encoding in Encoding::ALL {
        let blob = directory.path().join("blob");
        std::fs::write(&blob, encode(&image, encoding).expect("a table")).expect("room");
        let ask = |offset: &str| run(Command::new(&program).arg(&blob).arg(offset));
        assert_eq!(ask("8"), " (init/main.c:1)\n");
        assert_eq!(ask("9"), " (fs/read_write.c:681)\n");
        assert_eq!(ask("17"), "\n");
    }
}
