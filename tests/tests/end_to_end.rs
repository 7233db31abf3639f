//! The two binaries together: what is loaded is what traces say, and what is wrong is refused.

mod oracle;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::writer::{
    Image, InlineChain, InlinedFunction, Inlines, Region, encode_with_inlines,
};
use lineinfo_core::{Row, Table};
use lineinfo_tests::{Binaries, Frame, Kernel, frames, meminfo_kb, memory_of_table_kb, stdout_of};
use oracle::Oracle;

static BINARIES: LazyLock<Binaries> =
    LazyLock::new(|| Binaries::build(false).expect("the binaries build"));

/// A table of the kernel, in a directory of its own.
struct Setup {
    directory: tempfile::TempDir,
    table: PathBuf,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let table = directory.path().join("kernel.lineinfo");
        let (kernel, output) = (text(&BINARIES.sim_kernel), text(&table));
        run(&["build", &kernel, "-o", &output]);
        Self { directory, table }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, bytes).expect("room in the temporary directory");
        path
    }

    fn boot(&self, image: &Path, command_line: &[&str]) -> Kernel {
        let socket = self.directory.path().join("kernel.sock");
        Kernel::boot(image, &socket, command_line).expect("the kernel boots")
    }

    /// A copy of the kernel with this behind it.
    fn image(&self, behind: &[u8]) -> PathBuf {
        let image = self.directory.path().join("vmlinuz");
        fs::copy(&BINARIES.sim_kernel, &image).expect("room for the image");
        let mut bytes = fs::read(&image).expect("the image");
        bytes.extend_from_slice(behind);
        // Written in place, so that it stays executable.
        fs::write(&image, bytes).expect("room for the image");
        image
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs the loader, which must succeed, and gives what it prints.
fn run(args: &[&str]) -> String {
    let output = BINARIES.lineinfo(args).expect("lineinfo starts");
    stdout_of(output).expect("lineinfo succeeds")
}

/// Runs the loader on a device, and gives its exit status and what it says on stderr.
fn on_device(kernel: &Kernel, args: &[&str]) -> (Option<i32>, String) {
    let device = text(kernel.socket());
    let args = [args, &["--device", &device]].concat();
    let output = BINARIES.lineinfo(&args).expect("lineinfo starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

fn status(kernel: &Kernel) -> String {
    run(&["status", "--device", &text(kernel.socket())])
}

/// What `meminfo` prints, without the log.
fn meminfo(kernel: &mut Kernel) -> Vec<String> {
    let mut lines = kernel.command("meminfo").expect("meminfo");
    lines.retain(|line| !line.starts_with('['));
    lines
}

#[test]
fn every_frame_of_a_trace_says_what_addr2line_says() {
    let setup = Setup::new();
    let mut kernel = setup.boot(&BINARIES.sim_kernel, &["maxcpus=3"]);
    assert_eq!(
        on_device(&kernel, &["load", &text(&setup.table)]).0,
        Some(0)
    );
    let trace = kernel.command("sysrq w").expect("a trace");
    let frames = frames(&trace);

    let mut oracle = Oracle::of(&BINARIES.sim_kernel);
    let mut compared = 0;
    for frame in &frames {
        let question = Frame {
            location: None,
            ..frame.clone()
        };
        // A function that shares its name may be any of them.
        if let [expected] = oracle.locations(&question, true) {
            assert_eq!(frame.location.as_ref(), Some(expected), "{}", frame.symbol);
            compared += 1;
        }
    }
    assert!(compared >= 15, "{compared} of {} frames", frames.len());
    assert!(
        frames.iter().any(|frame| {
            let location = frame.location.as_deref().unwrap_or_default();
            location.starts_with("sim-kernel/src/fs/read_write.rs:")
        }),
        "names are relative to the root of the sources"
    );
}

#[test]
fn every_encoding_loads_and_unloads_and_gives_its_pages_back() {
    let setup = Setup::new();
    let mut kernel = setup.boot(&BINARIES.sim_kernel, &["lineinfo=off"]);
    let before = meminfo(&mut kernel);
    for encoding in Encoding::ALL {
        let table = text(&setup.directory.path().join(encoding.name()));
        let image = text(&BINARIES.sim_kernel);
        run(&["build", &image, "-o", &table, "--encoding", encoding.name()]);
        assert_eq!(on_device(&kernel, &["load", &table]).0, Some(0));
        let memory_kb = memory_of_table_kb(Path::new(&table)).expect("the table");
        let loaded = meminfo(&mut kernel);
        assert_eq!(meminfo_kb(&loaded, "Lineinfo").unwrap(), memory_kb);
        assert_eq!(kernel.resident_ram_kb().unwrap(), memory_kb, "{encoding}");
        assert_eq!(on_device(&kernel, &["unload"]).0, Some(0));
        assert_eq!(meminfo(&mut kernel), before);
        assert_eq!(kernel.resident_ram_kb().unwrap(), 0);
    }
    let (code, said) = on_device(&kernel, &["unload"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("ENODATA"), "{said}");
}

#[test]
fn look_ups_through_the_device_are_those_of_the_table() {
    let setup = Setup::new();
    let kernel = setup.boot(&BINARIES.sim_kernel, &["nokaslr"]);
    on_device(&kernel, &["load", &text(&setup.table)]);
    let slide = kernel.log.iter().find_map(|line| {
        let (_, slide) = line.split_once("slid by 0x")?;
        u64::from_str_radix(slide.trim(), 16).ok()
    });
    let name = "sim_kernel::fs::read_write::vfs_write";
    let oracle = Oracle::of(&BINARIES.sim_kernel);
    let [start] = oracle.functions[name][..] else {
        panic!("there is one {name}");
    };
    let in_file = run(&["lookup", &text(&setup.table), &format!("{start:#x}")]);
    let slide = slide.expect("the log names the slide");
    let at_run_time = run(&[
        "lookup",
        "--device",
        &text(kernel.socket()),
        &format!("{:#x}", start + slide),
    ]);
    let location = |line: &str| line.split(' ').nth(1).unwrap_or_default().to_owned();
    assert_eq!(location(&at_run_time), location(&in_file), "{name}");
    assert!(location(&in_file).starts_with("sim-kernel/src/fs/read_write.rs:"));
    // By offset, of both.
    let blob = fs::read(&setup.table).expect("the table");
    let layout = *Table::parse(&blob).expect("a table").layout();
    let offset = format!("{:#x}", start - layout.text_start());
    let of_table = run(&["lookup", "--offsets", &text(&setup.table), &offset]);
    let device = text(kernel.socket());
    let of_device = run(&["lookup", "--offsets", "--device", &device, &offset]);
    assert_eq!(of_device, of_table);
    assert_eq!(location(&of_device), location(&in_file), "{name}");
}

/// A table of the kernel of the setup in which each two of three rows are of functions that were inlined, and so
/// is the last row, which has most of the text.
fn with_inlines(setup: &Setup) -> Vec<u8> {
    let blob = fs::read(&setup.table).expect("the table");
    let table = Table::parse(&blob).expect("a table");
    let text = table.region(0).expect("text");
    let rows: Vec<Row> = (0..99)
        .map(|n| Row {
            start: n * 8,
            file: n % 2,
            line: if n % 10 == 9 { 0 } else { 100 + n },
        })
        .map(|row| match row.line {
            0 => Row { file: 0, ..row },
            _ => row,
        })
        .collect();
    let chains: Vec<Option<u32>> = rows
        .iter()
        .map(|row| [None, Some(0), Some(1)][row.start as usize / 8 % 3].filter(|_| row.line != 0))
        .collect();
    let function = |name, file| InlinedFunction::new(name, file, 1);
    let chain = |levels| InlineChain::new(1, levels);
    let inlines = Inlines {
        functions: vec![function("inner", 0), function("outer", 1)],
        chains: vec![chain(&[(0, 50)]), chain(&[(1, 60), (0, 70)])],
    };
    let image = Image {
        machine: table.layout().machine(),
        build_id: table.layout().build_id(),
        text_start: table.layout().text_start(),
        profile: Profile::Full,
        files: &["include/inner.rs", "outer.rs"],
        exact_files: 2,
        regions: &[Region {
            name: ".text",
            start: text.start.0,
            len: text.len,
            init: false,
            rows: &rows,
        }],
    };
    encode_with_inlines(&image, &inlines, &[&chains], Encoding::Packed).expect("a table")
}

#[test]
fn inlined_functions_through_the_device_are_those_of_the_table() {
    let setup = Setup::new();
    let table = text(&setup.file("inlines", &with_inlines(&setup)));
    let mut kernel = setup.boot(&BINARIES.sim_kernel, &["maxcpus=1"]);
    let device = text(kernel.socket());
    let trace = kernel.command("sysrq w").expect("a trace");
    let (loaded, said) = on_device(&kernel, &["load", &table]);
    assert_eq!(loaded, Some(0), "{said}");

    for options in [&["--json"][..], &["--json", "-r"], &[]] {
        let ask = |source: &[&str]| {
            let args = [&["lookup", "--offsets"], options, source, &["0x1-0x400"]].concat();
            let output = BINARIES.lineinfo(&args).expect("lineinfo starts");
            // There are gaps.
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            String::from_utf8(output.stdout).expect("a text")
        };
        let of_device = ask(&["--device", &device]);
        assert_eq!(of_device, ask(&["--table", &table]));
        let functions = of_device.matches("outer").count();
        assert!(functions > 100, "{of_device}");
    }

    let log = text(&setup.file("oops.txt", trace.join("\n").as_bytes()));
    let vmlinux = text(&BINARIES.sim_kernel);
    let decode = |source: [&str; 2]| {
        let args = [&["decode", &log, "--vmlinux", &vmlinux], &source[..]].concat();
        let output = BINARIES.lineinfo(&args).expect("lineinfo starts");
        // Frames of functions are left that padding follows: Linux would print other sizes.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
        String::from_utf8(output.stdout).expect("a text")
    };
    let of_device = decode(["--device", &device]);
    assert_eq!(of_device, decode(["--table", &table]));
    let inlined = of_device.matches(" inner (include/inner.rs:198) [inline]\n");
    assert!(inlined.count() >= 3, "{of_device}");
}

/// `LINEINFO_DEVICE` is the device of every command: of `decode` and `lookup`, too.
#[test]
fn the_device_of_the_environment_decodes_logs() {
    let setup = Setup::new();
    let mut kernel = setup.boot(&BINARIES.sim_kernel, &["maxcpus=1"]);
    on_device(&kernel, &["load", &text(&setup.table)]);
    let trace = kernel.command("sysrq w").expect("a trace");
    // As a kernel without a table prints it.
    let frames = trace
        .iter()
        .filter(|line| line.contains("/0x") && line.contains(" ("));
    let frames: Vec<(&str, &str)> = frames.filter_map(|line| line.rsplit_once(" (")).collect();
    assert!(frames.len() >= 4, "{trace:#?}");
    let log: String = frames
        .iter()
        .map(|(frame, _)| format!("{frame}\n"))
        .collect();
    let log = setup.file("oops.txt", log.as_bytes());
    let vmlinux = text(&BINARIES.sim_kernel);
    let asked = |args: &[&str]| {
        let output = std::process::Command::new(&BINARIES.lineinfo)
            .args(args)
            .env("LINEINFO_DEVICE", kernel.socket())
            .output()
            .expect("lineinfo starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let (decoded, said) = asked(&["decode", "--vmlinux", &vmlinux, &text(&log)]);
    assert_eq!(decoded.lines().count(), frames.len(), "{said}");
    // The kernel prints the sizes of its ELF symbols; where padding follows, Linux would print others.
    let mut annotated = 0;
    for (line, (frame, location)) in decoded.lines().zip(&frames) {
        if line == *frame {
            continue;
        }
        assert_eq!(line, format!("{frame} ({location}"), "{said}");
        annotated += 1;
        // A function of a name, and its size, by the same device.
        let after_time = frame.split_once("] ").map_or(*frame, |(_, symbol)| symbol);
        let symbol = after_time.trim_start();
        let (found, said) = asked(&["lookup", "-r", "--vmlinux", &vmlinux, symbol]);
        let found = found.lines().next().unwrap_or_default();
        assert!(
            found.ends_with(location.trim_end_matches(')')),
            "{found}{said}"
        );
    }
    assert!(annotated >= 3, "{decoded}{said}");
}

#[test]
fn what_is_wrong_is_refused_and_the_old_table_stays() {
    let setup = Setup::new();
    let blob = fs::read(&setup.table).expect("the table");
    let kernel = setup.boot(&BINARIES.sim_kernel, &["lineinfo.max=2M"]);
    assert_eq!(
        on_device(&kernel, &["load", &text(&setup.table)]).0,
        Some(0)
    );
    let entries = |status: &str| {
        let line = status.lines().find(|line| line.starts_with("entries:"));
        line.expect("a table is loaded").to_owned()
    };
    let loaded = entries(&status(&kernel));

    let mut flipped = blob.clone();
    flipped[blob.len() / 2] ^= 0x10;
    let mut version = blob.clone();
    version[8] = 200;
    lineinfo_core::writer::seal(&mut version);
    let mut other_build = blob.clone();
    other_build[40] ^= 1;
    lineinfo_core::writer::seal(&mut other_build);
    let mut too_large = blob.clone();
    too_large[12..16].copy_from_slice(&(3_u32 << 20).to_le_bytes());
    let trailing = [&blob[..], b"more"].concat();
    let refused: [(&str, &[u8], i32, &str); 8] = [
        ("flipped", &flipped, 4, "EBADMSG"),
        ("truncated", &blob[..blob.len() - 1], 4, "ENOEXEC"),
        ("header", &blob[..50], 4, "ENOEXEC"),
        ("text", b"this is no table, but longer than a header is: ninety-six bytes, and then some more bytes after it", 4, "name a table"),
        ("version", &version, 4, "version 200"),
        ("build", &other_build, 4, "ESTALE"),
        ("large", &too_large, 1, "EFBIG"),
        ("trailing", &trailing, 4, "ENOEXEC"),
    ];
    for (name, bytes, exit_status, says) in refused {
        let file = text(&setup.file(name, bytes));
        let (code, said) = on_device(&kernel, &["load", &file]);
        assert_eq!(code, Some(exit_status), "{name}: {said}");
        assert!(said.contains(says), "{name}: {said}");
        assert_eq!(entries(&status(&kernel)), loaded, "{name}");
    }
    let directory = text(setup.directory.path());
    assert_eq!(on_device(&kernel, &["load", &directory]).0, Some(1));
    assert_eq!(entries(&status(&kernel)), loaded);
    // And it still takes what is right.
    assert_eq!(
        on_device(&kernel, &["load", &text(&setup.table)]).0,
        Some(0)
    );
}

#[test]
fn never_means_never() {
    let setup = Setup::new();
    let kernel = setup.boot(&BINARIES.sim_kernel, &["lineinfo=never"]);
    let (code, said) = on_device(&kernel, &["load", &text(&setup.table)]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("EPERM"), "{said}");
    assert!(status(&kernel).contains("state: never"));
}

#[test]
fn a_damaged_footer_never_stops_a_boot() {
    let setup = Setup::new();
    let blob = fs::read(&setup.table).expect("the table");
    let image = setup.image(b"");
    run(&["append", &text(&setup.table), "--to", &text(&image)]);
    let whole = fs::read(&image).expect("the image");
    let image_len = fs::metadata(&BINARIES.sim_kernel)
        .expect("the kernel")
        .len() as usize;
    let behind = &whole[image_len..];

    let mut flipped = behind.to_vec();
    flipped[blob.len() / 2] ^= 1;
    let mut huge = behind.to_vec();
    let size_at = huge.len() - lineinfo_core::footer::SIZE;
    huge[size_at..size_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let padded = [behind, &[0; 5000]].concat();
    for (name, behind, expected) in [
        ("whole", behind, "state: loaded"),
        ("padded by a boot loader", &padded[..], "state: loaded"),
        ("flipped", &flipped[..], "state: empty"),
        ("huge", &huge[..], "state: empty"),
        ("cut", &behind[..behind.len() - 1], "state: empty"),
        ("nothing", b"", "state: empty"),
    ] {
        let image = setup.image(behind);
        let kernel = setup.boot(&image, &["lineinfo=on"]);
        assert!(status(&kernel).contains(expected), "{name}");
        if expected == "state: empty" {
            let why = kernel.log.iter().any(|line| line.contains("lineinfo: "));
            assert!(why, "{name}: the log says why");
        }
    }
}
