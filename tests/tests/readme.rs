//! The commands of README.md and of the READMEs of loader-cli and sim-kernel, run as a reader runs them.
//!
//! The blocks of `sh` of a section are run by one shell, in their order, and none may fail. The words
//! after `sh` say where:
//!
//! | block | is run | if |
//! |---|---|---|
//! | `sh` | in a directory that looks like the top of the repository after `cargo build --release`, with a small kernel `vmlinux` and its `oops.txt` | always |
//! | `sh terminal` | beside the blocks after it, in another terminal, with what `# then type:` says as input | always |
//! | `sh root` | as `sh` | `LINEINFO_ROOT` is set |
//! | `sh build` | at the top of the repository, and what it installs is thrown away | `LINEINFO_BUILD` is set |
//! | `sh debian` | in a Debian root, in which `lineinfo_*.deb` is | `LINEINFO_DEBIAN` names its directory |
//!
//! What is not run is shown as ignored. What needs a stock kernel is no block of `sh`: the test `guest`
//! does the same.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use lineinfo_tests::Binaries;

const FILES: [&str; 3] = ["README.md", "loader-cli/README.md", "sim-kernel/README.md"];

/// What the commands of a section must print.
const PRINTED: [(&str, &str, &str); 7] = [
    ("README.md", "Decode a log", "vmlinux.c:19)"),
    ("README.md", "In the simulator", "/kernel/stacktrace.rs:"),
    ("loader-cli/README.md", "decode", "vmlinux.c:19)"),
    (
        "sim-kernel/README.md",
        "Load, unload, boot with it",
        "unloaded",
    ),
    (
        "sim-kernel/README.md",
        "Its files",
        "before the end: discarded",
    ),
    ("sim-kernel/README.md", "Modules", "xor: loaded"),
    ("sim-kernel/README.md", "Another kernel", "vmlinux.c:19)"),
];

/// How long the commands of a section may take, in seconds.
const SECONDS_MAX: &str = "600";

static BINARIES: LazyLock<Binaries> =
    LazyLock::new(|| Binaries::build(false).expect("the binaries build"));

/// Where blocks are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Setting {
    Scratch,
    Root,
    Repository,
    Debian,
}

impl Setting {
    /// The variable that must be set.
    const fn variable(self) -> Option<&'static str> {
        match self {
            Self::Scratch => None,
            Self::Root => Some("LINEINFO_ROOT"),
            Self::Repository => Some("LINEINFO_BUILD"),
            Self::Debian => Some("LINEINFO_DEBIAN"),
        }
    }
}

#[derive(Clone, Debug)]
struct Block {
    line: usize,
    terminal: bool,
    text: String,
}

/// The blocks of a section that are run together.
#[derive(Clone, Debug)]
struct Section {
    file: &'static str,
    heading: String,
    setting: Setting,
    blocks: Vec<Block>,
}

fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the repository")
}

fn main() -> ExitCode {
    let sections: Vec<Section> = FILES.iter().flat_map(|file| sections(file)).collect();
    for (file, heading, _) in PRINTED {
        let is_there = |section: &Section| section.file == file && section.heading == heading;
        assert!(sections.iter().any(is_there), "{file} has no {heading:?}");
    }
    let trials = sections.into_iter().map(|section| {
        let name = format!(
            "{}: {} ({:?})",
            section.file, section.heading, section.setting
        );
        match section.setting.variable() {
            Some(variable) if std::env::var_os(variable).is_none() => {
                let name = format!("{name} (skipped: {variable} is not set)");
                Trial::test(name, || Ok(())).with_ignored_flag(true)
            }
            _ => {
                let section = Arc::new(section);
                Trial::test(name, move || {
                    run(&section).map_err(|error| Failed::from(format!("{error:#}")))
                })
            }
        }
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// The sections of a file that have blocks of commands.
fn sections(file: &'static str) -> Vec<Section> {
    let text = fs::read_to_string(repository().join(file)).expect(file);
    let mut sections = Vec::new();
    let mut heading = "";
    let mut open: BTreeMap<Setting, Section> = BTreeMap::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title;
            sections.extend(std::mem::take(&mut open).into_values());
        }
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let inside = lines.by_ref().map(|(_, line)| line);
        let text: String = inside
            .take_while(|line| *line != "```")
            .flat_map(|line| [line, "\n"])
            .collect();
        let mut words = info.split_whitespace();
        match words.next() {
            Some("sh") => {}
            Some("rust" | "text") => continue,
            _ => panic!("{file}:{}: what is in this block?", number + 1),
        }
        let mut setting = Setting::Scratch;
        let mut terminal = false;
        for word in words {
            match word {
                "root" => setting = Setting::Root,
                "build" => setting = Setting::Repository,
                "debian" => setting = Setting::Debian,
                "terminal" => terminal = true,
                _ => panic!("{file}:{}: unknown word {word:?}", number + 1),
            }
        }
        let section = open.entry(setting).or_insert_with(|| Section {
            file,
            heading: heading.to_owned(),
            setting,
            blocks: Vec::new(),
        });
        section.blocks.push(Block {
            line: number + 1,
            terminal,
            text,
        });
    }
    sections.extend(open.into_values());
    sections
}

/// The blocks as one script.
fn script(section: &Section) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    let mut has_terminal = false;
    for block in &section.blocks {
        let Block { line, text, .. } = block;
        writeln!(script, "echo '=== {}:{line}' >&2", section.file).expect("a string");
        if !block.terminal {
            writeln!(script, "set -x\n{text}{{ set +x; }} 2>/dev/null").expect("a string");
            continue;
        }
        has_terminal = true;
        // `ready` comes when all that was typed is done.
        writeln!(
            script,
            "mkfifo .typed\n(\n{text}) <.typed >.console 2>&1 &\nexec 9>.typed"
        )
        .expect("a string");
        for typed in text.split("# then type: ").skip(1) {
            let typed = typed.lines().next().unwrap_or_default();
            writeln!(script, "echo '{typed}' >&9").expect("a string");
        }
        script.push_str(
            "echo 'echo ready > /dev/kmsg' >&9\n\
             until grep -q '] ready$' .console; do\n\
             \tkill -0 $! || { cat .console; exit 1; }\n\
             \tsleep 0.1\n\
             done\n",
        );
    }
    if has_terminal {
        script.push_str("echo poweroff >&9\nwait\ncat .console\n");
    }
    script
}

fn run(section: &Section) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let scratch = directory.path();
    let script = script(section);
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", SECONDS_MAX]);
    match section.setting {
        Setting::Scratch | Setting::Root => {
            furnish(scratch)?;
            let path = std::env::var("PATH").unwrap_or_default();
            let bin = scratch.join("target/release");
            command
                .arg("bash")
                .current_dir(scratch)
                .env("PATH", format!("{}:{path}", bin.display()))
                .env("HOME", scratch)
                .env("XDG_CACHE_HOME", scratch.join("cache"))
                .env("LINEINFO_PATH", scratch);
        }
        Setting::Repository => {
            command
                .arg("bash")
                .current_dir(repository())
                .env("CARGO_INSTALL_ROOT", scratch)
                .env("CARGO_TARGET_DIR", repository().join("target"));
        }
        Setting::Debian => {
            let root = std::env::var_os("LINEINFO_DEBIAN").context("LINEINFO_DEBIAN")?;
            command.arg("chroot").arg(root).args(["bash", "-c"]);
            command.arg(format!("cd /root\n{script}"));
        }
    }
    if section.setting != Setting::Debian {
        let path = scratch.join(".script");
        fs::write(&path, &script)?;
        command.arg(path);
    }
    let output = command.stdin(Stdio::null()).output().context("timeout")?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    for (file, heading, printed) in PRINTED {
        if (file, heading) == (section.file, section.heading.as_str())
            && !said.contains(printed)
            && section.setting <= Setting::Root
        {
            bail!("expected {printed:?}, found {said}");
        }
    }
    Ok(())
}

/// Makes a directory look like the top of the repository after a build, with a small kernel and a log.
fn furnish(scratch: &Path) -> Result<()> {
    let repository = repository();
    for entry in fs::read_dir(&repository)? {
        let entry = entry?;
        if entry.file_name() != "target" && entry.file_name() != ".git" {
            symlink(entry.path(), scratch.join(entry.file_name()))?;
        }
    }
    let bin = scratch.join("target/release");
    fs::create_dir_all(&bin)?;
    symlink(&BINARIES.lineinfo, bin.join("lineinfo"))?;
    symlink(&BINARIES.sim_kernel, bin.join("sim-kernel"))?;
    let made = Command::new("tests/fixtures/small-kernel/make")
        .current_dir(&repository)
        .args(["6.12.0-small".as_ref(), scratch])
        .output()?;
    let errors = String::from_utf8_lossy(&made.stderr);
    ensure!(made.status.success(), "no small kernel: {errors}");
    Ok(())
}
