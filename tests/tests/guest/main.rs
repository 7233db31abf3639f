//! The module for unpatched Linux in stock kernels under QEMU: every frame on the console against
//! llvm-symbolizer.
//!
//! `LINEINFO_GUEST_KERNELS` names directories that `.ci/guest-kernel` prints, with a space between
//! them; without it, or without QEMU or llvm-symbolizer, the tests are shown as ignored. The test of the
//! Debian package needs root as well, and `LINEINFO_GUEST_ROOT`, a directory that `.ci/guest-root`
//! prints. What a guest printed is in `target/tmp/guest/RELEASE/BOOT.log`. `LINEINFO_GUEST_CYCLES` says
//! how often tables and the module are loaded anew, 5 times where nothing is said; `LINEINFO_GUEST_MODULES`
//! names the modules that come and go with their tables, or all of them by `all`.

mod code;
mod console;
mod machine;
mod oracle;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::code::Code;
use crate::console::{Frame, Kind, Part, frames, parts};
use crate::machine::{GuestKernel, loader};
use crate::oracle::{Answer, Oracle, symbolizer};

/// Modules of the kernel that must be in traces, at least.
const MODULES_MIN: usize = 5;

/// The directories of the kernels, or why there are none.
fn kernels() -> Result<Vec<PathBuf>, String> {
    let named = std::env::var("LINEINFO_GUEST_KERNELS")
        .map_err(|_| "LINEINFO_GUEST_KERNELS names no kernels".to_owned())?;
    let arm64 = named.split_whitespace().any(|name| name.ends_with("arm64"));
    let qemu_arm64 = arm64.then_some("qemu-system-aarch64");
    for program in ["qemu-system-x86_64", "cpio"].into_iter().chain(qemu_arm64) {
        if Command::new(program).arg("--version").output().is_err() {
            return Err(format!("{program} is not installed"));
        }
    }
    symbolizer().ok_or("llvm-symbolizer is not installed")?;
    Ok(named.split_whitespace().map(PathBuf::from).collect())
}

/// The root file system for a kernel, or why there is none.
fn root_for(kernel: &Path) -> Result<PathBuf, String> {
    let named = std::env::var_os("LINEINFO_GUEST_ROOT")
        .ok_or_else(|| "LINEINFO_GUEST_ROOT names no root file system".to_owned())?;
    let root = PathBuf::from(named);
    let name = kernel.file_name().unwrap_or_default().to_string_lossy();
    let release = name.trim_start_matches("linux-image-");
    if !root.join("lib/modules").join(release).exists() {
        return Err(format!("{} is for another kernel", root.display()));
    }
    Ok(root)
}

/// A kernel, prepared when the first test needs it.
struct Lazy {
    directory: PathBuf,
    kernel: OnceLock<Result<GuestKernel, String>>,
}

impl Lazy {
    fn get(&self) -> Result<&GuestKernel> {
        let prepare =
            || GuestKernel::prepare(&self.directory).map_err(|error| format!("{error:#}"));
        let kernel = self.kernel.get_or_init(prepare);
        kernel.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }
}

type Test = fn(&GuestKernel, &[Arc<Lazy>]) -> Result<()>;

const TESTS: [(&str, Test); 8] = [
    ("its object has what Linux allows itself", object),
    ("every frame of every trace equals llvm-symbolizer", traces),
    (
        "modules get their tables when they come, and give them back when they go",
        modules,
    ),
    ("frames of a panic are annotated", panics),
    ("frames of a stack that overflows are annotated", overflows),
    (
        "loads and exchanges under NMI backtraces leave nothing behind",
        cycles,
    ),
    ("what cannot be done is refused, with the reason", refusals),
    ("a kernel under lockdown takes no unsigned module", lockdown),
];

fn main() -> ExitCode {
    let mut trials = Vec::new();
    match kernels() {
        Ok(directories) => {
            let kernels: Vec<Arc<Lazy>> = directories
                .into_iter()
                .map(|directory| {
                    let kernel = OnceLock::new();
                    Arc::new(Lazy { directory, kernel })
                })
                .collect();
            for kernel in &kernels {
                let name = kernel.directory.file_name().unwrap_or_default();
                let root = root_for(&kernel.directory);
                let (kernel_of_root, what) =
                    (kernel.clone(), "its Debian package does what README says");
                trials.push(match root {
                    Ok(root) => {
                        Trial::test(format!("{}: {what}", name.to_string_lossy()), move || {
                            let done = kernel_of_root
                                .get()
                                .and_then(|kernel| package(kernel, &root));
                            done.map_err(|error| Failed::from(format!("{error:#}")))
                        })
                    }
                    Err(reason) => {
                        let name =
                            format!("{}: {what} (skipped: {reason})", name.to_string_lossy());
                        Trial::test(name, || Ok(())).with_ignored_flag(true)
                    }
                });
                for (what, test) in TESTS {
                    let (kernel, kernels) = (kernel.clone(), kernels.clone());
                    let name = format!("{}: {what}", name.to_string_lossy());
                    trials.push(Trial::test(name, move || {
                        let done = kernel.get().and_then(|kernel| test(kernel, &kernels));
                        done.map_err(|error| Failed::from(format!("{error:#}")))
                    }));
                }
            }
        }
        Err(reason) => {
            for (what, _) in TESTS {
                let name = format!("{what} (skipped: {reason})");
                trials.push(Trial::test(name, || Ok(())).with_ignored_flag(true));
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// What is expected of the frames of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// None has a location.
    Bare,
    /// All have one, that llvm-symbolizer has one for.
    Full,
    /// The same, but some are marked as approximate.
    Calls,
    /// Those that have one have that; tables come and go.
    Changing,
    /// The same of a log that `decode` has annotated, frames that may be none too.
    Decoded,
}

/// Whether frames come with the functions that are inlined there, if there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inlines {
    /// They do, and are themselves at the line of the function of their symbol.
    Shown,
    /// They do not, and are at the line of the innermost function.
    Hidden,
}

#[derive(Debug, Default)]
struct Counts {
    frames: usize,
    annotated: usize,
    approximate: usize,
    distinct: BTreeSet<String>,
    /// Frames with inlined functions, and how many of these they have.
    with_inlined: usize,
    inlined: usize,
    modules: BTreeMap<String, usize>,
}

/// Compares all frames of some lines, with inlined functions where there are any.
fn check(oracle: &Oracle, lines: &[String], expected: Expected) -> Result<Counts> {
    check_with(oracle, lines, expected, Inlines::Shown)
}

fn check_with(
    oracle: &Oracle,
    lines: &[String],
    expected: Expected,
    inlines: Inlines,
) -> Result<Counts> {
    let frames = frames(lines)?;
    let truth = match expected {
        Expected::Bare => vec![Vec::new(); frames.len()],
        Expected::Full | Expected::Calls | Expected::Changing | Expected::Decoded => {
            oracle.answers(&frames)?
        }
    };
    let mut counts = Counts::default();
    for (frame, truth) in frames.iter().zip(&truth) {
        counts.frames += 1;
        counts.add(frame, truth, expected, inlines)?;
    }
    Ok(counts)
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames, {} annotated, {} distinct, {} approximate, {} with {} inlined functions, modules {:?}",
            self.frames,
            self.annotated,
            self.distinct.len(),
            self.approximate,
            self.with_inlined,
            self.inlined,
            self.modules
        )
    }
}

impl Counts {
    fn add(
        &mut self,
        frame: &Frame,
        truth: &[Option<Answer>],
        expected: Expected,
        inlines: Inlines,
    ) -> Result<()> {
        if frame.kind == Kind::Unreliable && expected != Expected::Decoded {
            ensure!(
                frame.location.is_none(),
                "{frame:?}: a frame that may be none"
            );
            return Ok(());
        }
        let may_be_bare = match expected {
            Expected::Changing | Expected::Decoded => true,
            Expected::Bare | Expected::Full | Expected::Calls => frame.kind == Kind::FirstOops,
        };
        let Some(location) = &frame.location else {
            // The table may have gone since the line of the first inlined function.
            ensure!(
                frame.inlined.is_empty() || expected == Expected::Changing,
                "{frame:?}: inlined in nothing"
            );
            // Memory that was a module's init text, and has another use, is still named by its functions
            // (`ftrace_mod_address_lookup` in kernel/trace/ftrace.c).
            let was_init = truth.iter().flatten().all(|answer| answer.init);
            let may_be_bare = may_be_bare || truth.contains(&None);
            ensure!(
                was_init || may_be_bare,
                "{frame:?}: bare, expected one of {truth:?}"
            );
            return Ok(());
        };
        self.annotated += 1;
        let (file, line) = location.rsplit_once(':').context("a line")?;
        if let Some(line) = line.strip_prefix('~') {
            ensure!(
                matches!(expected, Expected::Calls | Expected::Changing),
                "{frame:?}: approximate"
            );
            ensure!(line.parse::<u32>().is_ok(), "{frame:?}: no line");
            ensure!(
                frame.inlined.is_empty(),
                "{frame:?}: inlined at an approximate line"
            );
            self.approximate += 1;
            return Ok(());
        }
        let found = format!("{file}:{line}");
        // What a register or a word on the stack holds is not taken apart.
        let is_whole = inlines == Inlines::Shown
            && !matches!(frame.kind, Kind::LinkRegister | Kind::Unreliable);
        let inlined = |answer: &Answer| match expected {
            // The table may have come since.
            Expected::Changing => (frame.inlined.iter()).all(|one| answer.inlined.contains(one)),
            Expected::Bare | Expected::Full | Expected::Calls | Expected::Decoded => {
                answer.inlined == frame.inlined
            }
        };
        // While the module comes or goes, frames have locations and no lines of inlined functions.
        let may_be_innermost = !is_whole || expected == Expected::Changing;
        let is_it = |answer: &Answer| {
            is_whole && answer.physical == found && inlined(answer)
                || may_be_innermost && answer.innermost == found && frame.inlined.is_empty()
        };
        ensure!(
            truth.iter().flatten().any(is_it),
            "{frame:?}: expected one of {truth:?}"
        );
        self.with_inlined += usize::from(!frame.inlined.is_empty());
        self.inlined += frame.inlined.len();
        self.distinct.insert(found);
        if !frame.module.is_empty() {
            *self.modules.entry(frame.module.clone()).or_default() += 1;
        }
        Ok(())
    }
}

/// The lines of all parts whose names begin so.
fn lines_of(parts: &[Part], name: &str) -> Vec<String> {
    let parts = parts.iter().filter(|part| part.name.starts_with(name));
    parts.flat_map(|part| part.lines.clone()).collect()
}

/// The guest did all that it was to do, and the kernel complained of nothing that it should not.
fn completed(parts: &[Part]) -> Result<()> {
    let last = parts.last().map(|part| &*part.name);
    ensure!(last == Some("over"), "the log ends in part {last:?}");
    Ok(())
}

/// No more files in a guest than each has.
fn no_more(_: &Path) -> Result<()> {
    Ok(())
}

/// What the hooks may take of the stack of an NMI at most, in bytes, without the functions of the kernel.
const STACK_BYTES_MAX: u64 = 1664;

fn object(kernel: &GuestKernel, _: &[Arc<Lazy>]) -> Result<()> {
    let code = Code::read(kernel.module("lineinfo")?, kernel.is_arm64())?;
    ensure!(code.instructions > 10_000, "{}", code.instructions);
    let mut said = String::new();
    for hook in ["look", "look_kprobe", "print_frame", "print_symbol"] {
        let bytes = code.stack_of(hook)?;
        said += &format!(" {hook} {bytes}");
        // Less would mean that its calls are not seen.
        ensure!(
            (512..=STACK_BYTES_MAX).contains(&bytes),
            "{hook}: {bytes} bytes of stack"
        );
    }
    println!(
        "{}: {} instructions, bytes of stack:{said}",
        kernel.release, code.instructions
    );
    Ok(())
}

fn traces(kernel: &GuestKernel, _: &[Arc<Lazy>]) -> Result<()> {
    let log = kernel.boot("traces", "", no_more)?;
    let parts = parts(&log);
    completed(&parts)?;
    let oracle = kernel.oracle()?;
    for name in ["bare ", "removed "] {
        let counts = check(oracle, &lines_of(&parts, name), Expected::Bare);
        let counts = counts.context(name)?;
        ensure!(
            counts.frames > 100 && counts.annotated == 0,
            "{name}: {counts:?}"
        );
    }
    decoded(kernel, oracle, &log, &lines_of(&parts, "bare "))?;
    for (name, expected) in [
        ("full ", Expected::Full),
        ("calls ", Expected::Calls),
        ("kprobes ", Expected::Full),
    ] {
        let counts = check(oracle, &lines_of(&parts, name), expected).context(name)?;
        println!("{}: {name}: {counts}", kernel.release);
        ensure!(counts.annotated > 100, "{name}: {counts:?}");
        ensure!(counts.with_inlined > 20, "{name}: {counts:?}");
        if expected == Expected::Calls {
            // Of assembly alone, and of instructions that are no calls.
            ensure!(
                counts.approximate * 10 < counts.annotated,
                "{name}: {counts:?}"
            );
        }
    }
    for line in lines_of(&parts, "enabled") {
        if line.contains("own bytes") {
            println!("{}: {}", kernel.release, console::without_time(&line));
        }
    }
    let hidden = check_with(
        oracle,
        &lines_of(&parts, "without inlined functions"),
        Expected::Full,
        Inlines::Hidden,
    )?;
    ensure!(hidden.annotated > 100, "{hidden:?}");
    let modules = check(oracle, &lines_of(&parts, "full modules"), Expected::Full)?.modules;
    let of_kernel = modules.keys().filter(|name| *name != "provoke").count();
    ensure!(of_kernel >= MODULES_MIN, "frames of {modules:?} alone");
    // Init text, of the table that is there before the module is live.
    let init = lines_of(&parts, "full init");
    // On arm64, who calls a function that has no frame yet, where the probe is, is not in a trace.
    let functions = ["provoke_init", "ovl_init"];
    let functions = &functions[..if kernel.is_arm64() { 1 } else { 2 }];
    for function in functions {
        let annotated = frames(&init)?
            .iter()
            .any(|frame| frame.symbol == *function && frame.location.is_some());
        ensure!(annotated, "no frame of {function} is annotated: {init:?}");
    }
    // Another ABI.
    let stack = lines_of(&parts, "stack of a process");
    let frames = stack.iter().filter(|line| line.contains("[<0>]"));
    ensure!(frames.clone().count() > 3, "{stack:?}");
    for line in frames {
        ensure!(!line.contains(')'), "{line}");
    }
    for name in ["lookups", "bytes", "state:loaded", "last_error:none"] {
        ensure!(
            stack.iter().any(|line| line.contains(name)),
            "{name}: {stack:?}"
        );
    }
    // A guest of another architecture has no loader.
    if !kernel.is_arm64() {
        let all = lines_of(&parts, "all tables").join("\n");
        for words in [
            // The module itself has none.
            "have no table in /tmp/store, ",
            ": lineinfo; build them",
            "/dev/lineinfo: provoke: would load /tmp/store/.build-id/",
            "checked: 3, state: empty",
            "/dev/lineinfo: loaded: ",
            "/dev/lineinfo: provoke: loaded: ",
            "loaded: 3, state: loaded",
        ] {
            ensure!(all.contains(words), "{words}: {all}");
        }
    }
    Ok(())
}

/// What `decode` makes of the log of the kernel without the module.
fn decoded(kernel: &GuestKernel, oracle: &Oracle, log: &str, bare: &[String]) -> Result<()> {
    let version = log.lines().find(|line| line.contains("] Linux version "));
    let version = version.and_then(|line| line.find("[ ").map(|at| &line[at..]));
    let text = [
        version.context("the kernel's version")?,
        "\n",
        &bare.join("\n"),
    ]
    .concat();
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(text.as_bytes())?;
    let mut decode = Command::new(loader());
    let cache = tempfile::tempdir()?;
    decode
        .env("XDG_CACHE_HOME", cache.path())
        .arg("decode")
        .arg(file.path());
    for path in kernel.dwarf().values() {
        decode.arg("--vmlinux").arg(path);
    }
    let output = decode.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<String> = said.lines().map(str::to_owned).collect();
    let counts = check(oracle, &lines, Expected::Decoded).context("decode")?;
    println!(
        "{}: decode: {} frames, {} annotated: {}",
        kernel.release,
        counts.frames,
        counts.annotated,
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(counts.annotated * 10 > counts.frames * 8, "{counts:?}");
    Ok(())
}

fn modules(kernel: &GuestKernel, _: &[Arc<Lazy>]) -> Result<()> {
    let loaded = kernel.modules_of_system()?;
    let log = kernel.boot_modules(&loaded)?;
    let parts = parts(&log);
    completed(&parts)?;
    let count_of = |part: &str| -> Result<usize> {
        let lines = lines_of(&parts, part);
        let counts = lines.iter().find_map(|line| {
            let counts = console::without_time(line).strip_prefix("modules: ")?;
            counts.split_once(", tables: ")
        });
        let (modules, tables) = counts.with_context(|| format!("{part}: {lines:#?}"))?;
        ensure!(
            modules == tables,
            "{part}: {tables} tables of {modules} modules"
        );
        Ok(modules.parse()?)
    };
    let (all, left) = (count_of("tables")?, count_of("going")?);
    ensure!(all > 50 && left < all / 2, "{all}, {left}");
    let lines = lines_of(&parts, "frames");
    let counts = check(kernel.oracle()?, &lines, Expected::Full)?;
    println!(
        "{}: {all} modules with tables, {left} left: {counts}",
        kernel.release
    );
    // One with data alone has no frames, one with a function of a few bytes no lines for them.
    let annotated = counts.modules.len();
    ensure!(
        annotated > all - all / 10,
        "locations in {annotated} of {all} modules"
    );
    Ok(())
}

fn panics(kernel: &GuestKernel, _: &[Arc<Lazy>]) -> Result<()> {
    let log = kernel.boot("panic", "", no_more)?;
    let lines = lines_of(&parts(&log), "panic");
    let counts = check(kernel.oracle()?, &lines, Expected::Full)?;
    ensure!(counts.annotated > 5, "{counts:?}: {lines:#?}");
    ensure!(log.contains("Kernel panic - not syncing"), "{log}");
    Ok(())
}

fn overflows(kernel: &GuestKernel, _: &[Arc<Lazy>]) -> Result<()> {
    let log = kernel.boot("overflow", "oops=panic", no_more)?;
    let lines = lines_of(&parts(&log), "overflow");
    let counts = check(kernel.oracle()?, &lines, Expected::Full)?;
    ensure!(counts.annotated > 20, "{counts:?}: {lines:#?}");
    Ok(())
}

fn cycles(kernel: &GuestKernel, _: &[Arc<Lazy>]) -> Result<()> {
    let cycles = std::env::var("LINEINFO_GUEST_CYCLES").unwrap_or_else(|_| "5".to_owned());
    let log = kernel.boot("cycles", &format!("cycles={cycles}"), no_more)?;
    let parts = parts(&log);
    completed(&parts)?;
    let after = lines_of(&parts, &format!("loads: {cycles}, modprobes: {cycles}"));
    let said = |line: &str| {
        after
            .iter()
            .any(|found| console::without_time(found) == line)
    };
    ensure!(said("failed: "), "{after:?}");
    // Neither W nor D nor L: only modules that are not the kernel's own.
    ensure!(said("tainted: 12288"), "{after:?}");
    let lines = lines_of(&parts, "frames of the storm");
    let counts = check(kernel.oracle()?, &lines, Expected::Changing)?;
    println!(
        "{}: {} of the last frames while tables came and went, {} annotated",
        kernel.release, counts.frames, counts.annotated
    );
    ensure!(counts.annotated > 20, "{counts:?}");
    let used = |when: &str| {
        let label = format!("VmallocUsed {when}: ");
        let line = log.lines().find_map(|line| line.split(&*label).nth(1));
        let kb = line.and_then(|line| line.split(' ').next()?.parse::<i64>().ok());
        kb.with_context(|| label.clone())
    };
    let (before, loaded, after) = (used("before")?, used("loaded")?, used("after")?);
    println!(
        "{}: VmallocUsed {before}, {loaded}, {after} kB",
        kernel.release
    );
    let table = fs::metadata(kernel.table_path("calls"))?.len() as i64 / 1024;
    ensure!(
        loaded - before >= table,
        "{before}, {loaded} kB: the table has {table}"
    );
    // Of the stacks of kernel threads that came meanwhile.
    ensure!((after - before).abs() < 256, "{before}, {after} kB");
    Ok(())
}

fn refusals(kernel: &GuestKernel, kernels: &[Arc<Lazy>]) -> Result<()> {
    let mut others = Vec::new();
    for other in kernels {
        others.push(other.get()?);
    }
    let other = others
        .iter()
        .find(|other| other.build_id != kernel.build_id && other.is_arm64() == kernel.is_arm64());
    let other = other.map(|other| other.table_path("calls"));
    let log = kernel.boot("refusals", "", |root| {
        fs::create_dir_all(root.join("other"))?;
        if let Some(other) = &other {
            fs::copy(other, root.join("other/kernel.lineinfo"))?;
        }
        Ok(())
    })?;
    let parts = parts(&log);
    completed(&parts)?;
    for (name, reason) in [
        (
            "held",
            "sprint_symbol is redirected already, by a livepatch or another module",
        ),
        ("late", "the module was loaded with late=0"),
        ("max", "lineinfo.max=4096 allows less"),
        ("max of files", "is larger than lineinfo.max=4096"),
    ] {
        let part = parts.iter().position(|part| part.name == name);
        let part = part.with_context(|| format!("no part {name}"))?;
        let lines = &parts[part].lines;
        ensure!(
            lines.iter().any(|line| line.contains(reason)),
            "{name}: {reason}: {lines:#?}"
        );
        if name != "max of files" {
            ensure!(parts[part + 1].name == "refused", "{name} is not refused");
        }
    }
    if other.is_some() {
        let lines = lines_of(&parts, "other build");
        ensure!(
            lines.iter().any(|line| line.contains("-ESTALE")),
            "{lines:#?}"
        );
    }
    // What is hooked stays hooked.
    let counts = check(
        kernel.oracle()?,
        &lines_of(&parts, "frames"),
        Expected::Full,
    )?;
    ensure!(counts.annotated > 5, "{counts:?}");
    Ok(())
}

fn package(kernel: &GuestKernel, root: &Path) -> Result<()> {
    let log = kernel.boot_package(root)?;
    let parts = parts(&log);
    completed(&parts)?;
    let mut lines = parts.iter().flat_map(|part| &part.lines);
    let failed = lines.find(|line| console::without_time(line).starts_with("failed: "));
    ensure!(failed.is_none(), "{failed:?}");
    let oracle = kernel.oracle()?;
    for (name, expected) in [
        ("bare", Expected::Bare),
        ("annotated", Expected::Calls),
        ("removed", Expected::Bare),
    ] {
        let counts = check(oracle, &lines_of(&parts, name), expected).context(name)?;
        println!("{}: package, {name}: {counts}", kernel.release);
        ensure!(counts.frames > 100, "{name}: {counts:?}");
        if expected == Expected::Calls {
            ensure!(counts.with_inlined > 20, "{name}: {counts:?}");
            ensure!(counts.modules.contains_key("xfs"), "{name}: {counts:?}");
        }
    }
    let said = |part: &str, words: &str| {
        let lines = lines_of(&parts, part);
        ensure!(
            lines.iter().any(|line| line.contains(words)),
            "{words}: {lines:#?}"
        );
        Ok(())
    };
    said("installed", "/updates/dkms/lineinfo.ko")?;
    said("loading xfs", "state: loaded")?;
    said("removed", "no module")?;
    let left = lines_of(&parts, "removed");
    let left = left
        .iter()
        .find(|line| console::without_time(line).starts_with('/'));
    ensure!(left.is_none(), "{left:?}");
    Ok(())
}

fn lockdown(kernel: &GuestKernel, _: &[Arc<Lazy>]) -> Result<()> {
    let log = kernel.boot("lockdown", "lockdown=integrity", no_more)?;
    let parts = parts(&log);
    completed(&parts)?;
    ensure!(parts.iter().any(|part| part.name == "refused"), "{log}");
    ensure!(
        log.contains("Lockdown: modprobe: unsigned module loading is restricted"),
        "{log}"
    );
    Ok(())
}
