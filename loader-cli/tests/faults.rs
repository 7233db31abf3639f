//! Faults on purpose: every operation that changes files fails, is cut short, or is the last before
//! the program is killed or the power fails; in each case the old file or the new one is there, complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use nix::libc::{EIO, ENOSPC, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};
use tempfile::TempDir;

const LINEINFO: &str = env!("CARGO_BIN_EXE_lineinfo");

/// `faults/shim.c`, compiled; the compiler is there, because Rust links with it.
fn shim() -> &'static Path {
    static SHIM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, shim) = SHIM.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let shim = directory.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
        let compiled = Command::new("cc")
            .args([
                "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O1", "-o",
            ])
            .args([&shim, &source])
            .status()
            .expect("cc");
        assert!(compiled.success());
        (directory, shim)
    });
    shim
}

/// A command that changes the file `name`, and what is in that before and after.
struct Scene {
    directory: TempDir,
    arguments: &'static [&'static str],
    name: &'static str,
    old: Option<Vec<u8>>,
    new: Vec<u8>,
}

/// A name, and how to set it up.
type Case = (&'static str, fn() -> Scene);

const SCENES: [Case; 5] = [
    ("append", || {
        Scene::new(&["append", "t", "--to", "image"], "image", &[])
    }),
    ("append in place of a table", || {
        let first: &[&[&str]] = &[&["append", "u", "--to", "image"]];
        Scene::new(&["append", "t", "--to", "image"], "image", first)
    }),
    ("strip", || {
        let first: &[&[&str]] = &[&["append", "t", "--to", "image"]];
        Scene::new(&["strip", "image"], "image", first)
    }),
    ("build", || {
        Scene::new(&["build", "demo.elf", "-o", "x"], "x", &[])
    }),
    ("build over a table", || {
        let first: &[&[&str]] = &[&["build", "demo.elf", "-o", "x", "--encoding", "flat"]];
        Scene::new(&["build", "demo.elf", "-o", "x"], "x", first)
    }),
];

impl Scene {
    fn new(arguments: &'static [&'static str], name: &'static str, first: &[&[&str]]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd/lineinfo.in/demo.elf");
        let demo = fs::read(demo).expect("the image");
        // Large enough for several writes.
        let image = [&demo[..], &b"some machine code".repeat(5000)].concat();
        fs::write(directory.path().join("demo.elf"), demo).expect("room");
        let path = directory.path().join("image");
        fs::write(&path, image).expect("room");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our file");
        let mut scene = Self {
            directory,
            arguments,
            name,
            old: None,
            new: Vec::new(),
        };
        let tables: [&[&str]; 2] = [
            &["build", "demo.elf", "-o", "t"],
            &["build", "demo.elf", "-o", "u", "--encoding", "flat"],
        ];
        for arguments in tables.iter().chain(first) {
            assert!(scene.command(arguments).status().expect("runs").success());
        }
        scene.old = scene.contents();
        assert!(scene.run().status.success());
        scene.new = scene.contents().expect("the command writes it");
        assert_ne!(scene.old.as_ref(), Some(&scene.new));
        scene.reset();
        scene
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(LINEINFO);
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .stdout(std::process::Stdio::null());
        command
    }

    fn run(&self) -> Output {
        self.command(self.arguments).output().expect("runs")
    }

    /// Runs it with a fault; gives the operation that was spoiled, or `None` if there are fewer.
    fn run_with(&self, at: usize, fault: &str) -> (Output, Option<String>) {
        let outside = tempfile::tempdir().expect("a directory");
        let hit = outside.path().join("hit");
        // In the background of a script these tests are told to ignore SIGINT and SIGQUIT.
        let output = Command::new("env")
            .args(["--default-signal=HUP,INT,QUIT,TERM", LINEINFO])
            .args(self.arguments)
            .current_dir(self.directory.path())
            .stdout(std::process::Stdio::null())
            .env("LD_PRELOAD", shim())
            .env("FAULT_AT", at.to_string())
            .env("FAULT", fault)
            .env("FAULT_HIT", &hit)
            .output()
            .expect("runs");
        (output, fs::read_to_string(hit).ok())
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(self.name)
    }

    fn contents(&self) -> Option<Vec<u8>> {
        fs::read(self.path()).ok()
    }

    /// Puts back the old file.
    fn reset(&self) {
        match &self.old {
            Some(old) => fs::write(self.path(), old).expect("room"),
            None => fs::remove_file(self.path()).unwrap_or_default(),
        }
    }

    fn is_new(&self) -> bool {
        let contents = self.contents();
        let new = contents.as_ref() == Some(&self.new);
        assert!(new || contents == self.old, "a mixture, or nothing");
        new
    }

    fn temporary_files(&self) -> Vec<String> {
        fs::read_dir(self.directory.path())
            .expect("our directory")
            .map(|entry| entry.expect("our directory").file_name())
            .map(|name| name.into_string().expect("names of ours"))
            .filter(|name| name.starts_with(".lineinfo-"))
            .collect()
    }

    /// Spoils each operation in turn; gives the names of them all.
    fn for_each_operation(
        &self,
        fault: &str,
        mut check: impl FnMut(&str, &Output),
    ) -> BTreeSet<String> {
        let mut operations = BTreeSet::new();
        for at in 0.. {
            self.reset();
            let (output, hit) = self.run_with(at, fault);
            let Some(operation) = hit else {
                assert!(output.status.success(), "{output:?}");
                assert!(self.is_new());
                break;
            };
            check(&operation, &output);
            operations.insert(operation);
        }
        operations
    }
}

const DIRECTORY: &str = "fsync of the directory";

#[test]
fn an_operation_that_fails_leaves_the_old_file_or_the_new_one() {
    for (what, scene) in SCENES {
        let scene = scene();
        for errno in [EIO, ENOSPC] {
            let operations =
                scene.for_each_operation(&format!("error {errno}"), |operation, output| {
                    let context = format!("{what}: {operation}: {output:?}");
                    assert_eq!(output.status.code(), Some(1), "{context}");
                    let said = String::from_utf8_lossy(&output.stderr);
                    let error = std::io::Error::from_raw_os_error(errno).to_string();
                    assert!(said.contains(scene.name), "{context}");
                    assert!(said.contains(&error), "{context}");
                    let unchanged = said.contains("nothing was changed");
                    assert_eq!(unchanged, !scene.is_new(), "{context}");
                    assert_eq!(scene.is_new(), operation == DIRECTORY, "{context}");
                    assert_eq!(scene.temporary_files(), [""; 0], "{context}");
                });
            let copied = if what == "build" || what == "build over a table" {
                "write"
            } else {
                "copy_file_range"
            };
            for operation in ["create", copied, "fsync", "rename", DIRECTORY] {
                assert!(operations.contains(operation), "{what}: {operations:?}");
            }
        }
    }
}

#[test]
fn a_short_write_is_continued() {
    for (what, scene) in SCENES {
        let scene = scene();
        for at in 0..12 {
            scene.reset();
            let (output, _) = scene.run_with(at, "short");
            // What is no write is spoiled by nothing.
            assert!(output.status.success(), "{what}: {output:?}");
            assert!(scene.is_new());
        }
    }
}

#[test]
fn a_signal_leaves_no_temporary_file() {
    for (what, scene) in SCENES {
        let scene = scene();
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            let operations =
                scene.for_each_operation(&format!("signal {signal}"), |operation, output| {
                    let context = format!("{what}: {operation}: {output:?}");
                    assert_eq!(output.status.signal(), Some(signal), "{context}");
                    assert_eq!(scene.temporary_files(), [""; 0], "{context}");
                    // Too late to stop is the rename alone, and what follows.
                    let late = ["rename", DIRECTORY].contains(&operation);
                    assert_eq!(scene.is_new(), late, "{context}");
                });
            assert!(operations.len() >= 5, "{operations:?}");
        }
    }
}

#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let scene = SCENES[0].1();
    let program = format!("trap '' HUP; exec {LINEINFO} append t --to image");
    let output = Command::new("sh")
        .args(["-c", &program])
        .current_dir(scene.directory.path())
        .env("LD_PRELOAD", shim())
        .env("FAULT_AT", "1")
        .env("FAULT", format!("signal {SIGHUP}"))
        .output()
        .expect("sh");
    assert!(output.status.success(), "{output:?}");
    assert!(scene.is_new());
}

#[test]
fn the_next_run_removes_what_sigkill_left() {
    for (what, scene) in SCENES {
        let scene = scene();
        let mut left = 0;
        scene.for_each_operation(&format!("signal {SIGKILL}"), |operation, output| {
            let context = format!("{what}: {operation}: {output:?}");
            assert_eq!(output.status.signal(), Some(SIGKILL), "{context}");
            assert_eq!(scene.is_new(), operation == DIRECTORY, "{context}");
            left += scene.temporary_files().len();
            scene.reset();
            assert!(scene.run().status.success(), "{context}");
            assert_eq!(scene.temporary_files(), [""; 0], "{context}");
        });
        assert!(left > 0, "{what}: nothing was left to remove");
    }
}

#[test]
fn a_temporary_file_that_another_run_removes_is_made_again() {
    for (what, scene) in SCENES {
        let scene = scene();
        let (output, hit) = scene.run_with(0, "vanish");
        assert_eq!(hit.as_deref(), Some("flock"), "{what}: {output:?}");
        assert!(
            output.status.success() && scene.is_new(),
            "{what}: {output:?}"
        );
        assert_eq!(scene.temporary_files(), [""; 0], "{what}");
    }
}

/// One operation, as `shim.c` records it.
#[derive(Clone, Debug, PartialEq)]
enum Operation {
    Create {
        inode: u64,
        path: PathBuf,
    },
    Write {
        inode: u64,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        inode: u64,
        len: usize,
    },
    Fsync {
        inode: u64,
    },
    FsyncDirectory,
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
}

fn parse(mut record: &[u8]) -> Vec<Operation> {
    let mut operations = Vec::new();
    while let Some(end) = record.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&record[..end]).expect("a line");
        record = &record[end + 1..];
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().expect("a number");
        let path = |at: usize| PathBuf::from(words[at]);
        operations.push(match words[0] {
            "create" => Operation::Create {
                inode: number(1) as u64,
                path: path(2),
            },
            "write" => {
                let (bytes, rest) = record.split_at(number(3));
                record = rest;
                Operation::Write {
                    inode: number(1) as u64,
                    at: number(2),
                    bytes: bytes.to_vec(),
                }
            }
            "truncate" => Operation::Truncate {
                inode: number(1) as u64,
                len: number(2),
            },
            "fsync" => Operation::Fsync {
                inode: number(1) as u64,
            },
            "fsync-directory" => Operation::FsyncDirectory,
            "rename" => Operation::Rename {
                from: path(1),
                to: path(2),
            },
            "unlink" => Operation::Unlink { path: path(1) },
            other => panic!("{other}"),
        });
    }
    operations
}

/// A change of names: those that go, and those that come.
type Names = (Vec<PathBuf>, Vec<(PathBuf, u64)>);

/// A disk that keeps as little as it may: of a file only what was fsynced is sure to be there, and
/// names change in the order of the operations, any number of them, with or without the data.
#[derive(Clone, Debug, Default)]
struct Disk {
    names: BTreeMap<PathBuf, u64>,
    /// What need not have reached the disk.
    pending: Vec<Names>,
    /// By inode: what is sure to be there.
    durable: BTreeMap<u64, Vec<u8>>,
    /// By inode: every state since, the last is what a program reads.
    states: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Disk {
    /// The inode that a program finds under a name.
    fn inode(&self, path: &Path) -> u64 {
        let mut names = self.names.clone();
        for (remove, add) in &self.pending {
            names.retain(|name, _| !remove.contains(name));
            names.extend(add.iter().cloned());
        }
        names[path]
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { inode, path } => {
                self.durable.insert(*inode, Vec::new());
                self.states.insert(*inode, vec![Vec::new()]);
                self.pending.push((vec![], vec![(path.clone(), *inode)]));
            }
            Operation::Write { inode, at, bytes } => {
                let states = self.states.get_mut(inode).expect("created");
                let mut contents = states.last().expect("at least one").clone();
                contents.resize(contents.len().max(at + bytes.len()), 0);
                // The size may be there before the data, or half of the data.
                let mut half = contents.clone();
                half[*at..][..bytes.len() / 2].copy_from_slice(&bytes[..bytes.len() / 2]);
                states.push(contents.clone());
                states.push(half);
                contents[*at..][..bytes.len()].copy_from_slice(bytes);
                states.push(contents);
            }
            Operation::Truncate { inode, len } => {
                let states = self.states.get_mut(inode).expect("created");
                let mut contents = states.last().expect("at least one").clone();
                contents.resize(*len, 0);
                states.push(contents);
            }
            Operation::Fsync { inode } => {
                let states = self.states.get_mut(inode).expect("created");
                let last = states.pop().expect("at least one");
                *states = vec![last.clone()];
                self.durable.insert(*inode, last);
            }
            Operation::FsyncDirectory => {
                for (remove, add) in self.pending.drain(..) {
                    self.names.retain(|name, _| !remove.contains(name));
                    self.names.extend(add);
                }
            }
            Operation::Rename { from, to } => {
                let inode = self.inode(from);
                let change = (vec![from.clone()], vec![(to.clone(), inode)]);
                self.pending.push(change);
            }
            Operation::Unlink { path } => self.pending.push((vec![path.clone()], vec![])),
        }
    }

    /// What may be under a name after a power failure; `None` for no file.
    fn after_power_failure(&self, path: &Path) -> BTreeSet<Option<Vec<u8>>> {
        let mut found = BTreeSet::new();
        let mut names = self.names.clone();
        for change in std::iter::once(None).chain(self.pending.iter().map(Some)) {
            if let Some((remove, add)) = change {
                names.retain(|name, _| !remove.contains(name));
                names.extend(add.iter().cloned());
            }
            match names.get(path) {
                Some(inode) => {
                    found.insert(Some(self.durable[inode].clone()));
                    found.extend(self.states[inode].iter().cloned().map(Some));
                }
                None => {
                    found.insert(None);
                }
            }
        }
        found
    }
}

/// Whether after a power failure at any point of these operations there is the old file or the new
/// one; and after the last, the new one.
fn survives_power_failures(scene: &Scene, operations: &[Operation]) -> bool {
    let path = scene.path().canonicalize().expect("it was written");
    let mut disk = Disk::default();
    if let Some(old) = &scene.old {
        disk.names.insert(path.clone(), 0);
        disk.durable.insert(0, old.clone());
        disk.states.insert(0, vec![old.clone()]);
    }
    let new = Some(scene.new.clone());
    let whole = |disk: &Disk| {
        let found = disk.after_power_failure(&path);
        found.iter().all(|file| *file == scene.old || *file == new)
    };
    let held = operations.iter().all(|operation| {
        disk.apply(operation);
        whole(&disk)
    });
    held && disk.after_power_failure(&path) == BTreeSet::from([new.clone()])
}

#[test]
fn after_a_power_failure_the_old_file_or_the_new_one_is_there() {
    for (what, scene) in SCENES {
        let scene = scene();
        let outside = tempfile::tempdir().expect("a directory");
        let record = outside.path().join("record");
        let output = scene
            .command(scene.arguments)
            .env("LD_PRELOAD", shim())
            .env("FAULT_RECORD", &record)
            .output()
            .expect("runs");
        assert!(output.status.success() && scene.is_new(), "{output:?}");
        let operations = parse(&fs::read(record).expect("a record"));
        assert!(
            survives_power_failures(&scene, &operations),
            "{what}: {operations:?}"
        );

        // The model tells: without either fsync, or with the rename too early, something is lost.
        let without = |left_out: fn(&Operation) -> bool| {
            let mut operations = operations.clone();
            operations.retain(|operation| !left_out(operation));
            operations
        };
        let no_fsync = without(|operation| matches!(operation, Operation::Fsync { .. }));
        let no_flush = without(|operation| matches!(operation, Operation::FsyncDirectory));
        let mut early = operations.clone();
        let rename = |operation: &Operation| matches!(operation, Operation::Rename { .. });
        let fsync = |operation: &Operation| matches!(operation, Operation::Fsync { .. });
        early.swap(
            operations.iter().position(rename).expect("a rename"),
            operations.iter().position(fsync).expect("an fsync"),
        );
        for spoiled in [no_fsync, no_flush, early] {
            assert!(!survives_power_failures(&scene, &spoiled), "{what}");
        }
    }
}
