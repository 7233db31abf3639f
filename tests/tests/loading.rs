//! The loader and a kernel: all tables at once, dry runs, and the status as JSON and as it changes.

#[path = "../../loader-cli/tests/schema/mod.rs"]
mod schema;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use lineinfo_tests::{Binaries, Kernel, build_module, stdout_of};
use nix::pty::openpty;
use serde_json::Value;
use tempfile::TempDir;

static BINARIES: LazyLock<Binaries> =
    LazyLock::new(|| Binaries::build(false).expect("the binaries build"));

/// Tables of the kernel and of a module, and the module.
struct Built {
    directory: TempDir,
    kernel: PathBuf,
    module: PathBuf,
    kernel_id: String,
    module_id: String,
}

static BUILT: LazyLock<Built> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let module = build_module(directory.path()).expect("it compiles");
    let kernel = directory.path().join("kernel.lineinfo");
    for (image, table) in [
        (&BINARIES.sim_kernel, &kernel),
        (&module, &directory.path().join("xor.lineinfo")),
    ] {
        // The smallest, for it is loaded many times.
        let what = ["--profile", "calls", "--inlines=no", "--no-symbols"];
        let (image, table) = (text(image), text(table));
        let built = lineinfo(&[&["build", &image, "-o", &table], &what[..]].concat());
        stdout_of(built).expect("it is built");
    }
    Built {
        kernel_id: build_id(&kernel),
        module_id: build_id(&directory.path().join("xor.lineinfo")),
        directory,
        kernel,
        module,
    }
});

impl Built {
    fn xor(&self) -> PathBuf {
        self.directory.path().join("xor.lineinfo")
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs the loader, with no files to find but those that are named.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(&BINARIES.lineinfo);
    command.args(args).env("XDG_CACHE_HOME", "/nowhere");
    command.env_remove("LINEINFO_PATH");
    command
}

fn lineinfo(args: &[&str]) -> Output {
    command(args).output().expect("lineinfo starts")
}

/// The build-id of a table, in hexadecimal.
fn build_id(table: &Path) -> String {
    let dump = stdout_of(lineinfo(&["dump", "--json", &text(table)])).expect("a dump");
    let dump: Value = serde_json::from_str(&dump).expect("JSON");
    dump["build_id"].as_str().expect("a build-id").to_owned()
}

/// A kernel that runs, with the module loaded, the `/sys` and `/proc` of one like it, and tables.
struct Machine {
    directory: TempDir,
    kernel: Kernel,
}

impl Machine {
    fn boot(command_line: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("kernel.sock");
        let kernel = Kernel::boot(&BINARIES.sim_kernel, &socket, command_line);
        let mut kernel = kernel.expect("the kernel boots");
        let insmod = format!("insmod {}", BUILT.module.display());
        kernel.command(&insmod).expect("it is loaded");
        let machine = Self { directory, kernel };
        machine.file("proc/sys/kernel/osrelease", b"6.99.0-test\n");
        machine.notes("sys/kernel/notes", &BUILT.kernel_id);
        machine.module("xor", &BUILT.module_id);
        machine.module("lost_one", &"ab".repeat(20));
        // Built in: it is not loaded.
        machine.file("sys/module/printk/parameters/time", b"Y\n");
        let (first, rest) = BUILT.kernel_id.split_at(2);
        let store = format!("tables/.build-id/{first}/{rest}.lineinfo");
        machine.file(&store, &fs::read(&BUILT.kernel).expect("a table"));
        let xor = fs::read(BUILT.xor()).expect("a table");
        machine.file("tables/extra/xor.lineinfo", &xor);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, contents: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("room");
        fs::write(path, contents).expect("room");
    }

    /// A file of notes, of which the second has a build-id.
    fn notes(&self, name: &str, build_id: &str) {
        let digits = build_id.as_bytes().chunks(2);
        let id: Vec<u8> = digits
            .map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("digits"))
            .collect();
        let mut notes = Vec::new();
        for (name, kind, description) in
            [(b"Xen\0", 6_u32, &b"linux\0\0\0"[..]), (b"GNU\0", 3, &id)]
        {
            for number in [4, description.len() as u32, kind] {
                notes.extend(number.to_ne_bytes());
            }
            notes.extend(name);
            notes.extend(description);
        }
        self.file(name, &notes);
    }

    fn module(&self, name: &str, build_id: &str) {
        self.file(&format!("sys/module/{name}/initstate"), b"live\n");
        let notes = format!("sys/module/{name}/notes/.note.gnu.build-id");
        self.notes(&notes, build_id);
    }

    /// Runs the loader on the device: its exit status, what it prints, and what it says.
    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let device = text(self.kernel.socket());
        let output = lineinfo(&[args, &["--device", &device]].concat());
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("UTF-8"),
            String::from_utf8(output.stderr).expect("UTF-8"),
        )
    }

    /// `load --auto` with what is in the directory.
    fn auto(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let (root, tables) = (text(self.directory.path()), text(&self.path("tables")));
        let auto = ["load", "--auto", "--root", &root, "--dir", &tables];
        self.run(&[&auto, more].concat())
    }

    /// The document of a command with `--json`, which is as its schema says.
    fn document(&self, args: &[&str]) -> Value {
        let (_, printed, said) = self.run(&[args, &["--json"]].concat());
        let documents = schema::check(args[0], printed.as_bytes());
        let mut documents = documents.unwrap_or_else(|error| panic!("{error} {said}"));
        assert_eq!(documents.len(), 1);
        documents.remove(0)
    }

    /// Nothing was sent that the kernel refused.
    fn was_not_asked(&self) {
        let status = self.document(&["status"]);
        assert_eq!(
            status["last_error"],
            Value::Null,
            "the kernel was not asked"
        );
    }

    fn state(&self, module: &[&str]) -> String {
        let status = self.document(&[&["status"], module].concat());
        status["state"].as_str().expect("a state").to_owned()
    }
}

#[test]
fn all_tables_of_a_kernel_are_loaded_and_those_missing_are_named() {
    let machine = Machine::boot(&[]);
    let (code, printed, said) = machine.auto(&[]);
    let device = text(machine.kernel.socket());
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(code, Some(3), "{printed}{said}");
    assert_eq!(lines.len(), 2, "{printed}");
    assert!(
        lines[0].starts_with(&format!("{device}: loaded: ")),
        "{printed}"
    );
    assert!(
        lines[1].starts_with(&format!("{device}: xor: loaded: ")),
        "{printed}"
    );
    assert!(said.contains("1 of 3 have no table in "), "{said}");
    assert!(said.contains(": lost_one; "), "{said}");
    assert_eq!(machine.state(&[]), "loaded");
    assert_eq!(machine.state(&["--module", "xor"]), "loaded");

    // Again, and all are there; nothing is said.
    fs::remove_dir_all(machine.path("sys/module/lost_one")).expect("it was there");
    assert_eq!(
        machine.auto(&["-q"]),
        (Some(0), String::new(), String::new())
    );
}

/// What `systemctl stop lineinfo-load` does.
#[test]
fn all_tables_of_a_kernel_are_unloaded() {
    let machine = Machine::boot(&[]);
    // It goes between the list of modules and the kernel.
    machine.module("gone", &"cd".repeat(20));
    assert_eq!(machine.auto(&[]).0, Some(3));
    let root = text(machine.directory.path());
    let unload = || machine.run(&["unload", "--auto", "--root", &root]);
    let memory = |module: &[&str]| {
        let status = machine.document(&[&["status"], module].concat());
        status["table"]["memory"].as_u64().expect("it is loaded")
    };
    let all = memory(&[]) + memory(&["--module", "xor"]);
    let device = text(machine.kernel.socket());
    let (code, printed, said) = unload();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let expected = format!("{device}: tables unloaded: 2, {all} bytes of memory freed\n");
    assert_eq!(printed, expected);
    assert_eq!(machine.state(&[]), "empty");
    assert_eq!(machine.state(&["--module", "xor"]), "empty");

    // Where there is none, there is nothing to do.
    let (code, printed, said) = unload();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(printed.contains("tables unloaded: 0, 0 bytes"), "{printed}");
    machine.was_not_asked();

    // Those of modules alone, of a kernel that has none of its own.
    let xor = text(&BUILT.xor());
    assert_eq!(machine.run(&["load", "--module", "xor", &xor]).0, Some(0));
    assert!(unload().1.contains("tables unloaded: 1, "));

    // Another kernel keeps its tables.
    assert_eq!(machine.auto(&[]).0, Some(3));
    machine.notes("sys/kernel/notes", &"cd".repeat(20));
    let (code, _, said) = unload();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("--root"), "{said}");
    assert_eq!(machine.state(&[]), "loaded");
}

#[test]
fn one_bar_is_for_all_tables() {
    let machine = Machine::boot(&[]);
    let (root, tables) = (
        text(machine.directory.path()),
        text(&machine.path("tables")),
    );
    let device = text(machine.kernel.socket());
    let terminal = openpty(None, None).expect("a terminal");
    let mut load = command(&["load", "--auto", "--root", &root, "--dir", &tables]);
    let loaded = load
        .args(["--device", &device])
        .env("TERM", "xterm")
        .stdout(Stdio::null())
        .stderr(terminal.slave)
        .status();
    drop(load);
    assert_eq!(loaded.expect("lineinfo starts").code(), Some(3));
    let mut shown = Vec::new();
    // At the end of all that was written there is an error (EIO).
    let _ = File::from(terminal.master).read_to_end(&mut shown);
    let shown = String::from_utf8(shown).expect("UTF-8");
    // The kernel and two modules; of bytes there is one bar for each table.
    assert!(shown.contains("/3 "), "{shown:?}");
    assert!(!shown.contains("iB/"), "{shown:?}");
}

#[test]
fn a_document_says_what_became_of_each_table() {
    let machine = Machine::boot(&[]);
    // A module that has a table, and of which this kernel knows nothing.
    machine.module("xor2", &BUILT.module_id);
    let xor = fs::read(BUILT.xor()).expect("a table");
    machine.file("tables/xor2.lineinfo", &xor);
    let (code, printed, said) = machine.auto(&["--json"]);
    assert_eq!(code, Some(1), "the first error counts: {said}");
    assert!(said.contains("ENOENT"), "{said}");
    let documents = schema::check("load", printed.as_bytes()).expect("a document");
    let images = documents[0]["images"].as_array().expect("a list");
    let outcomes: Vec<(&str, &str)> = images
        .iter()
        .map(|image| {
            let module = image["module"].as_str().unwrap_or("kernel");
            (module, image["status"].as_str().expect("a status"))
        })
        .collect();
    let expected = [
        ("kernel", "loaded"),
        ("lost_one", "no_table"),
        ("xor", "loaded"),
        ("xor2", "refused"),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(images[0]["build_id"], BUILT.kernel_id);

    let named = machine.document(&["load", &text(&BUILT.kernel)]);
    assert_eq!(named["images"][0]["status"], "loaded");
}

#[test]
fn a_dry_run_checks_all_and_loads_nothing() {
    let machine = Machine::boot(&[]);
    let table = text(&BUILT.kernel);
    let (code, printed, said) = machine.auto(&["--dry-run"]);
    assert_eq!(code, Some(3), "{said}");
    let xor = text(&machine.path("tables/extra/xor.lineinfo"));
    assert!(
        printed.contains(&format!("xor: would load {xor}: ")),
        "{printed}"
    );
    let named = machine.document(&["load", &table, "--dry-run"]);
    assert_eq!(named["images"][0]["status"], "checked");
    assert_eq!(named["dry_run"], true);

    // What the kernel would refuse.
    let xor = text(&BUILT.xor());
    let (code, _, said) = machine.run(&["load", "-n", &xor]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("name its module with --module"), "{said}");
    assert_eq!(
        machine.run(&["load", "-n", &xor, "--module", "xor"]).0,
        Some(0)
    );
    assert_eq!(
        machine.run(&["load", "-n", &table, "--module", "xor"]).0,
        Some(4)
    );
    assert_eq!(
        machine
            .run(&["load", "-n", &table, "--module", "nowhere"])
            .0,
        Some(1)
    );
    let mut damaged = fs::read(&BUILT.kernel).expect("a table");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    machine.file("damaged.lineinfo", &damaged);
    let damaged = text(&machine.path("damaged.lineinfo"));
    assert_eq!(machine.run(&["load", "-n", &damaged]).0, Some(4));

    assert_eq!(machine.state(&[]), "empty");
    assert_eq!(machine.state(&["--module", "xor"]), "empty");
    machine.was_not_asked();
}

#[test]
fn the_table_of_a_module_wants_its_name() {
    let machine = Machine::boot(&[]);
    // Relocatable, as the modules of Linux are.
    let module = machine.path("other.ko");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../sim-kernel/modules/xor.c");
    let built = Command::new("cc")
        .args(["-g", "-O2", "-fPIC", "-c", source, "-o"])
        .arg(&module)
        .status();
    assert!(built.expect("there is a C compiler").success());
    let table = text(&machine.path("other.lineinfo"));
    stdout_of(lineinfo(&["build", &text(&module), "-o", &table])).expect("a table");
    for more in [&[][..], &["--dry-run"]] {
        let (code, _, said) = machine.run(&[&["load", &table], more].concat());
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("is the table of the module other; add --module other"),
            "{said}"
        );
    }
    machine.was_not_asked();
}

#[test]
fn a_kernel_that_takes_no_table_is_said_to() {
    let machine = Machine::boot(&["lineinfo=never"]);
    let (code, _, said) = machine.run(&["load", "-n", &text(&BUILT.kernel)]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("EPERM"), "{said}");
    assert_eq!(machine.state(&[]), "never");
}

#[test]
fn the_device_of_another_kernel_is_noticed() {
    let machine = Machine::boot(&[]);
    machine.notes("sys/kernel/notes", &"cd".repeat(20));
    let (code, _, said) = machine.auto(&[]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("--root"), "{said}");
    assert_eq!(machine.state(&[]), "empty");
    // A user may not be told what the kernel is: then the device says it.
    fs::remove_file(machine.path("sys/kernel/notes")).expect("it was there");
    assert_eq!(machine.auto(&[]).0, Some(3));
    assert_eq!(machine.state(&[]), "loaded");
}

#[test]
fn verbose_says_where_was_looked_and_what_was_used() {
    let machine = Machine::boot(&[]);
    let (_, _, said) = machine.auto(&["-v", "--release", "7.0"]);
    let tables = text(&machine.path("tables"));
    let lost = format!(
        "{tables}/.build-id/ab/{}.lineinfo: no such file\n",
        "ab".repeat(19)
    );
    assert!(said.contains(&lost), "{said}");
    assert!(
        said.contains("/usr/lib/lineinfo/7.0/.build-id/ab/"),
        "{said}"
    );
    assert!(
        said.contains("/extra/xor.lineinfo: used for xor\n"),
        "{said}"
    );
}

#[test]
fn a_status_that_is_watched_is_printed_again_when_it_changes() {
    let machine = Machine::boot(&[]);
    let device = text(machine.kernel.socket());
    let args = ["status", "--watch", "0.05", "--json", "--device", &device];
    let mut watch = command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("lineinfo starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let mut next = || {
        let line = lines.next().expect("it goes on").expect("UTF-8");
        let documents = schema::check("status", line.as_bytes()).expect("a document");
        documents[0]["state"].as_str().expect("a state").to_owned()
    };
    assert_eq!(next(), "empty");
    assert_eq!(machine.run(&["load", &text(&BUILT.kernel)]).0, Some(0));
    assert_eq!(next(), "loaded");
    assert_eq!(machine.run(&["unload"]).0, Some(0));
    assert_eq!(next(), "empty");
    // The kernel goes, and so does its device.
    drop(machine);
    let status = watch.wait().expect("it ends");
    assert_eq!(status.code(), Some(1));
}
