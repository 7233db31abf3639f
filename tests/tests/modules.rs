//! Modules with tables of their own: loaded and unloaded apart from that of the kernel.

mod oracle;

use std::path::PathBuf;
use std::sync::LazyLock;

use lineinfo_tests::{Binaries, Frame, Kernel, build_module, frames, meminfo_kb, stdout_of};
use oracle::Oracle;

static BINARIES: LazyLock<Binaries> =
    LazyLock::new(|| Binaries::build(false).expect("the binaries build"));

struct Setup {
    directory: tempfile::TempDir,
    module: PathBuf,
    table: String,
}

impl Setup {
    /// A module and its table.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let module = build_module(directory.path()).expect("it compiles");
        let table = directory.path().join("xor.lineinfo").display().to_string();
        run(&["build", &module.display().to_string(), "-o", &table]);
        Self {
            directory,
            module,
            table,
        }
    }

    fn boot(&self, command_line: &[&str]) -> Kernel {
        let socket = self.directory.path().join("kernel.sock");
        Kernel::boot(&BINARIES.sim_kernel, &socket, command_line).expect("the kernel boots")
    }
}

fn run(args: &[&str]) -> String {
    let output = BINARIES.lineinfo(args).expect("lineinfo starts");
    stdout_of(output).expect("lineinfo succeeds")
}

/// Runs the loader on a device; what it prints, or its exit status and complaint.
fn on_device(kernel: &Kernel, args: &[&str]) -> Result<String, (Option<i32>, String)> {
    let device = kernel.socket().display().to_string();
    let args = [args, &["--device", &device]].concat();
    let output = BINARIES.lineinfo(&args).expect("lineinfo starts");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    stdout_of(output).map_err(|_| (code, complaint))
}

/// The frames of the module in a trace, and those of the kernel.
fn trace(kernel: &mut Kernel) -> (Vec<Frame>, Vec<Frame>) {
    let lines = kernel.command("sysrq x").expect("a trace");
    let all = frames(&lines);
    all.into_iter().partition(|frame| frame.module.is_some())
}

fn annotated(frames: &[Frame]) -> bool {
    frames.iter().any(|frame| frame.location.is_some())
}

#[test]
fn a_module_has_a_table_of_its_own() {
    let setup = Setup::new();
    let mut kernel = setup.boot(&[]);
    let before = kernel.command("meminfo").expect("meminfo");
    let insmod = format!("insmod {}", setup.module.display());
    let said = kernel.command(&insmod).expect("it is loaded");
    let checksum = "xor: measuring software checksum speed";
    assert!(said.iter().any(|line| line.contains(checksum)), "{said:?}");
    let list = kernel.command("lsmod").expect("a list");
    assert!(list.iter().any(|line| line.starts_with("xor ")), "{list:?}");

    let (module, core) = trace(&mut kernel);
    assert!(module.len() >= 2, "{module:?}");
    assert!(!annotated(&module) && !annotated(&core));

    // A table for the module, and none for the kernel.
    on_device(&kernel, &["load", &setup.table, "--module", "xor"]).expect("it is taken");
    let (module, core) = trace(&mut kernel);
    assert!(!annotated(&core), "{core:?}");
    let mut oracle = Oracle::of(&setup.module);
    for frame in &module {
        assert_eq!(frame.module.as_deref(), Some("xor"));
        let question = Frame {
            module: None,
            location: None,
            ..frame.clone()
        };
        let expected = oracle.locations(&question, true);
        assert_eq!(frame.location.as_ref(), expected.first(), "{frame:?}");
        assert!(expected[0].contains("xor.c:"), "{expected:?}");
    }
    let status = on_device(&kernel, &["status", "--module", "xor"]).expect("a status");
    assert!(status.contains("state: loaded"), "{status}");
    let status = on_device(&kernel, &["status"]).expect("a status");
    assert!(status.contains("state: empty"), "{status}");

    // One for the kernel besides; the module's goes and the kernel's stays.
    let own = setup.directory.path().join("kernel.lineinfo");
    let own = own.display().to_string();
    let image = BINARIES.sim_kernel.display().to_string();
    run(&["build", &image, "-o", &own]);
    on_device(&kernel, &["load", &own]).expect("it is taken");
    let (module, core) = trace(&mut kernel);
    assert!(annotated(&module) && annotated(&core));
    on_device(&kernel, &["unload", "--module", "xor"]).expect("it was loaded");
    let (module, core) = trace(&mut kernel);
    assert!(!annotated(&module) && annotated(&core));
    on_device(&kernel, &["unload"]).expect("it was loaded");

    // A module's table goes with the module.
    on_device(&kernel, &["load", &setup.table, "--module", "xor"]).expect("it is taken");
    let loaded = kernel.command("meminfo").expect("meminfo");
    assert!(meminfo_kb(&loaded, "Lineinfo").expect("a figure") > 0);
    let said = kernel.command("rmmod xor").expect("it goes");
    assert!(
        said.iter()
            .any(|line| line.contains("xor goes with its table")),
        "{said:?}"
    );
    let after = kernel.command("meminfo").expect("meminfo");
    assert_eq!(
        meminfo_kb(&after, "MemFree").expect("a figure"),
        meminfo_kb(&before, "MemFree").expect("a figure")
    );
    assert_eq!(kernel.resident_ram_kb().expect("smaps"), 0);
    let (module, _) = trace(&mut kernel);
    assert!(module.is_empty());
}

#[test]
fn a_table_goes_to_the_image_it_was_made_from_only() {
    let setup = Setup::new();
    let mut kernel = setup.boot(&[]);
    let missing = on_device(&kernel, &["load", &setup.table, "--module", "xor"]);
    let (code, said) = missing.expect_err("there is no such module");
    assert!(code == Some(1) && said.contains("ENOENT"), "{said}");
    let insmod = format!("insmod {}", setup.module.display());
    kernel.command(&insmod).expect("it is loaded");
    let other = on_device(&kernel, &["load", &setup.table]);
    let (code, said) = other.expect_err("it is not the kernel's");
    assert!(code == Some(4) && said.contains("ESTALE"), "{said}");
    assert!(said.contains("add --module NAME"), "{said}");
    let twice = kernel.command(&insmod).expect("an answer");
    assert!(
        twice.iter().any(|line| line.contains("EEXIST")),
        "{twice:?}"
    );
    let unknown = kernel.command("rmmod zero").expect("an answer");
    assert!(
        unknown.iter().any(|line| line.contains("ENOENT")),
        "{unknown:?}"
    );
    let text = setup.directory.path().join("text.ko");
    std::fs::write(&text, "no module").expect("room for it");
    let no_module = format!("insmod {}", text.display());
    let refused = kernel.command(&no_module).expect("an answer");
    assert!(
        refused.iter().any(|line| line.contains("ENOEXEC")),
        "{refused:?}"
    );
}

#[test]
fn modules_come_and_go_under_load() {
    let setup = Setup::new();
    let mut kernel = setup.boot(&["maxcpus=4", "load=on"]);
    for _ in 0..20 {
        let insmod = format!("insmod {}", setup.module.display());
        kernel.command(&insmod).expect("it is loaded");
        on_device(&kernel, &["load", &setup.table, "--module", "xor"]).expect("it is taken");
        kernel.command("sysrq l").expect("a trace");
        kernel.command("rmmod xor").expect("it goes");
    }
    kernel
        .command("echo 0 > /proc/sys/kernel/load")
        .expect("an answer");
    let list = kernel.command("lsmod").expect("a list");
    assert!(
        !list.iter().any(|line| line.starts_with("xor ")),
        "{list:?}"
    );
}
