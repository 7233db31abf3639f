//! The crash record: the log of one boot, shown by the next one.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{KERNEL, Kernel, open_directory};

/// Boots with a crash record, gives init a command, and returns what is printed.
fn boot(file: &Path, command: &str, command_line: &[&str]) -> Vec<String> {
    let mut kernel = Command::new(KERNEL);
    kernel
        .arg("--pstore")
        .arg(file)
        .arg("--")
        .args(command_line);
    let mut kernel = Kernel::start(kernel, PathBuf::new(), open_directory());
    kernel.command(command);
    kernel.finish().1
}

fn has(console: &[String], text: &str) -> bool {
    console.iter().any(|line| line.contains(text))
}

#[test]
fn the_log_of_a_panic_is_shown_at_the_next_boot() {
    let directory = open_directory();
    let file = directory.path().join("pstore");
    let first = boot(&file, "sysrq c", &["loglevel=0"]);
    assert!(!has(&first, "Linux") && !has(&first, "Kernel command line"));
    let second = boot(&file, "cat /sys/fs/pstore/dmesg", &[]);
    for text in [
        "pstore: the kernel crashed ",
        "Kernel panic - not syncing: sysrq triggered crash",
        "sysrq_handle_crash+",
    ] {
        assert!(has(&second, text), "{text}: {second:#?}");
    }
    // The file has all of it, what the console did not show as well.
    let line = |line: &String| line.ends_with("Kernel command line: loglevel=0");
    assert!(second.iter().any(line), "{second:#?}");

    // The newest of several.
    boot(&file, "echo second crash > /dev/kmsg\nsysrq c", &[]);
    let third = boot(&file, "cat /sys/fs/pstore/dmesg", &[]);
    assert!(has(&third, "second crash"));
    // An orderly end leaves no record.
    assert!(has(
        &boot(&file, "cat /sys/fs/pstore/dmesg", &[]),
        "second crash"
    ));
}

#[test]
fn whatever_is_wrong_with_the_file_the_kernel_boots() {
    let directory = open_directory();
    let path = directory.path().join("pstore");
    boot(&path, "sysrq c", &[]);
    let good = fs::read(&path).expect("a record");
    let up = |console: &[String]| has(console, "Run init as init process");

    for at in [9, 13, 20, 60, good.len() - 1] {
        let file = File::options().write(true).open(&path).expect("our file");
        file.write_all_at(&[good[at] ^ 0x40], at as u64)
            .expect("write");
        let console = boot(&path, "poweroff", &[]);
        assert!(
            up(&console) && has(&console, "pstore: record 0 is not used"),
            "byte {at}: {console:#?}"
        );
        fs::write(&path, &good).expect("as it was");
    }
    for len in [1, 39, 41, good.len() - 1] {
        fs::write(&path, &good[..len]).expect("write");
        assert!(up(&boot(&path, "poweroff", &[])), "{len} bytes");
    }
    // What is no record is never written over.
    for other in [
        &vec![0xff; 1 << 20],
        &good[1..].to_vec(),
        &b"precious".to_vec(),
    ] {
        fs::write(&path, other).expect("write");
        let console = boot(&path, "sysrq c", &[]);
        assert!(
            up(&console) && has(&console, "remove it, or name another file"),
            "{console:#?}"
        );
        assert!(fs::read(&path).expect("our file") == *other);
    }

    for wrong in [
        directory.path(),
        Path::new("/dev/null"),
        Path::new("/no/such/file"),
    ] {
        let console = boot(wrong, "poweroff", &[]);
        assert!(
            up(&console) && has(&console, "pstore: cannot use the file"),
            "{console:#?}"
        );
    }
}
