//! What the loader says when a running kernel refuses, or has nothing to say: to the letter.

use std::process::{Command, Output};

use lineinfo_tests::{Binaries, Kernel, build_module};

/// A kernel with the module `xor`, and the tables of both.
struct Scene {
    directory: tempfile::TempDir,
    binaries: Binaries,
    _kernel: Kernel,
}

impl Scene {
    fn boot() -> Self {
        let binaries = Binaries::build(false).expect("the binaries build");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let module = build_module(directory.path()).expect("it compiles");
        let socket = directory.path().join("dev");
        let kernel = Kernel::boot(&binaries.sim_kernel, &socket, &[]);
        let mut kernel = kernel.expect("the kernel boots");
        let insmod = format!("insmod {}", module.display());
        kernel.command(&insmod).expect("it is loaded");
        Self {
            directory,
            binaries,
            _kernel: kernel,
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(&self.binaries.lineinfo)
            .args(arguments)
            .current_dir(self.directory.path())
            .env("LINEINFO_DEVICE", "dev")
            .output()
            .expect("lineinfo starts")
    }

    fn succeeds(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// It prints nothing but this, with `[ID]` for a build-id, and has this exit status.
    fn says(&self, arguments: &[&str], status: i32, expected: &str) {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let words = stderr.split_inclusive([' ', ',', ';']).map(|word| {
            let digits = word.chars().take_while(char::is_ascii_hexdigit).count();
            match digits {
                40 => format!("[ID]{}", &word[40..]),
                _ => word.to_owned(),
            }
        });
        let said: String = words.collect();
        assert_eq!(said, format!("lineinfo: {expected}\n"), "{arguments:?}");
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn each_names_what_was_expected_and_what_to_do() {
    let scene = Scene::boot();
    let nothing = "no table is loaded; load one with `lineinfo load`";
    for (arguments, operation) in [
        (&["unload"][..], "unload"),
        (&["unload", "--module", "xor"], "unload"),
        (&["lookup", "--offsets", "0x0"], "lookup"),
    ] {
        scene.says(
            arguments,
            1,
            &format!("dev: {operation}: ENODATA: {nothing}"),
        );
    }
    scene.says(
        &["status", "--module", "xfs"],
        1,
        "dev: module: ENOENT: the kernel has no module xfs; `lsmod` lists those that it has",
    );
    scene.says(
        &["load", "xor.ko"],
        4,
        "xor.ko: it is an ELF file, and should be a lineinfo table; build its table with `lineinfo build xor.ko -o xor.lineinfo`",
    );

    // The table of a module, for the kernel.
    scene.succeeds(&["build", "xor.ko", "-o", "xor.lineinfo"]);
    scene.says(
        &["load", "xor.lineinfo"],
        4,
        "dev: load: ESTALE: made for build-id [ID], this kernel has [ID]; build it from this image; if it is the table of a module, add --module NAME",
    );
    scene.says(
        &["load", "xor.lineinfo", "--dry-run"],
        4,
        "xor.lineinfo: its build-id is [ID], and dev takes tables of [ID]; build it from the image that runs, or name its module with --module",
    );
    scene.succeeds(&["load", "xor.lineinfo", "--module", "xor"]);
}
