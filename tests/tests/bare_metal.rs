//! The kernel of `core/examples/bare-metal`, in QEMU: its trace without a table, with its own, and
//! with that of another build.
//!
//! `LINEINFO_QEMU=1` runs it; without it the test is shown as ignored. It needs `qemu-system-x86_64`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use lineinfo_tests::Binaries;

const SOURCE: &str = include_str!("../../core/examples/bare-metal/src/main.rs");

/// The calls of its panic, from the innermost, as its source has them.
const CALLS: [&str; 3] = [
    "    panic!(",
    "        open_device(device);",
    "    mount_root(",
];

fn main() -> ExitCode {
    let name = "a panic on bare metal has file and line";
    let trial = match std::env::var_os("LINEINFO_QEMU") {
        Some(_) => Trial::test(name, bare_metal),
        None => {
            let name = format!("{name} (skipped: LINEINFO_QEMU is not set)");
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        }
    };
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn bare_metal() -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let directory = tempfile::tempdir()?;
    let kernel = escargot::CargoBuild::new()
        .manifest_path(root.join("core/examples/bare-metal/Cargo.toml"))
        .target_dir(root.join("target/bare-metal"))
        .bin("bare-metal")
        .run()?;
    let kernel = kernel.path();
    let binaries = Binaries::build(false)?;
    let build = |image: &Path, name: &str| -> Result<PathBuf, Failed> {
        let table = directory.path().join(name);
        let mut lineinfo = Command::new(&binaries.lineinfo);
        let built = lineinfo
            .arg("build")
            .arg(image)
            .arg("-o")
            .arg(&table)
            .output()?;
        let errors = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{errors}");
        Ok(table)
    };
    let own = build(kernel, "own")?;
    let other = build(&binaries.sim_kernel, "other")?;

    let bare = boot(kernel, None)?;
    assert!(bare.starts_with("lineinfo: no initrd\n"), "{bare}");
    let foreign = boot(kernel, Some(&other))?;
    let reason = "lineinfo: the initrd is the table of another build\n";
    assert_eq!(foreign, bare.replace("lineinfo: no initrd\n", reason));

    let whole = boot(kernel, Some(&own))?;
    let frames: Vec<(&str, &str)> = trace(&bare).zip(trace(&whole)).collect();
    for (frame, annotated) in &frames {
        assert!(annotated.starts_with(frame), "{frame}\n{annotated}");
    }
    for (call, (_, frame)) in CALLS.iter().zip(&frames[1..]) {
        let line = SOURCE.lines().position(|line| line.starts_with(call));
        let line = line.ok_or(format!("no line {call}"))? + 1;
        let location = format!(" (examples/bare-metal/src/main.rs:{line})");
        assert!(frame.ends_with(&location), "{frame}: expected{location}");
    }
    Ok(())
}

fn trace(console: &str) -> impl Iterator<Item = &str> {
    console.lines().filter(|line| line.starts_with(" [<"))
}

/// What a boot prints on the serial port.
fn boot(kernel: &Path, initrd: Option<&Path>) -> Result<String, Failed> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
        "-m",
        "128M",
    ])
    .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
    .arg("-kernel")
    .arg(kernel);
    if let Some(initrd) = initrd {
        qemu.arg("-initrd").arg(initrd);
    }
    let output = qemu.output()?;
    // What the device makes of the 0 that it is given.
    if output.status.code() != Some(1) {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("QEMU: {}: {errors}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.replace('\r', ""))
}
