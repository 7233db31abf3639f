//! One command: the kernel is found by what the log says of it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use lineinfo_cli::symbols::Symbols;
use lineinfo_core::Table;
use lineinfo_core::blob::FORMAT_VERSION;
use lineinfo_core::writer::with_symbols;
use tempfile::TempDir;

use crate::synthetic::{lineinfo, write};

/// An image whose line table is known, with `vfs_write` and a build-id.
pub(crate) const DEMO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/cmd/lineinfo.in/demo.elf"
);
pub(crate) const BUILD_ID: &str = "0123456789abcdef0123456789abcdef01234567";

/// A machine with a home of its own.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            directory: TempDir::new().expect("a temporary directory"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Copies the image to a place.
    pub(crate) fn put(&self, name: &str) {
        let image = std::fs::read(DEMO).expect("the image");
        write(&self.directory.path().join(name), &image);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = lineinfo();
        command
            .args(arguments)
            .env("XDG_CACHE_HOME", self.path("cache"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary")
    }

    /// Decodes a log with more arguments.
    fn decode(&self, arguments: &[&str], log: &str) -> (String, i32, String) {
        self.decode_with(&[], arguments, log)
    }

    /// The same with variables of the environment.
    pub(crate) fn decode_with(
        &self,
        variables: &[(&str, String)],
        arguments: &[&str],
        log: &str,
    ) -> (String, i32, String) {
        let path = self.path("log");
        write(Path::new(&path), log.as_bytes());
        let output = self
            .command(&[&["decode", &path], arguments].concat())
            .envs(variables.iter().cloned())
            .output()
            .expect("the binary");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let status = output.status.code().expect("no signal");
        (text(output.stdout), status, text(output.stderr))
    }

    /// The tables that are kept.
    pub(crate) fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("cache/lineinfo/tables"));
        let names = entries.into_iter().flatten().flatten();
        names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

/// The name of the image's table among those that are kept.
pub(crate) fn kept_name() -> String {
    format!(
        "{BUILD_ID}-{}-{FORMAT_VERSION}.lineinfo",
        env!("CARGO_PKG_VERSION")
    )
}

/// A log of the kernel with the build-id of the image.
pub(crate) fn log() -> String {
    format!("CPU: 0 PID: 1 Comm: x Not tainted 6.1.0 #1 {BUILD_ID}\nRIP: 0010:vfs_write+0x1/0x6\n")
}

pub(crate) fn decoded() -> String {
    log().replace("/0x6", "/0x6 (include/linux/fs.h:70)")
}

#[test]
fn a_vmlinux_is_found_by_release_and_by_build_id_and_its_table_kept() {
    for place in [
        "dir/vmlinux-6.1.0".to_owned(),
        "dir/6.1.0/vmlinux".to_owned(),
        "dir/vmlinux".to_owned(),
        format!("dir/.build-id/{}/{}.debug", &BUILD_ID[..2], &BUILD_ID[2..]),
    ] {
        let home = Home::new();
        home.put(&place);
        let dir = home.path("dir");
        for _ in 0..2 {
            let (out, status, said) = home.decode(&["--dir", &dir], &log());
            assert_eq!((out, status), (decoded(), 0), "{place}: {said}");
            assert_eq!(home.kept(), [kept_name()], "{place}");
        }
    }
}

/// The table that is kept has the symbols, too.
#[test]
fn what_is_kept_needs_nothing_else() {
    let home = Home::new();
    home.put("dir/vmlinux");
    let (_, status, said) = home.decode(&["--vmlinux", &home.path("dir/vmlinux")], &log());
    assert_eq!((status, home.kept()), (0, vec![kept_name()]), "{said}");
    std::fs::remove_dir_all(home.path("dir")).expect("the directory");
    let (out, status, said) = home.decode(&[], &log());
    assert_eq!((out, status), (decoded(), 0), "{said}");
    // Of the release alone it is not known which build is meant.
    let release = log().replace(BUILD_ID, "");
    let (_, status, said) = home.decode(&[], &release);
    assert_eq!(status, 1, "{said}");
}

/// What a compressor makes of some bytes.
pub(crate) fn compressed(end: &str, bytes: &[u8]) -> Vec<u8> {
    let mut made = Vec::new();
    match end {
        ".gz" => {
            let mut to = flate2::write::GzEncoder::new(&mut made, flate2::Compression::default());
            to.write_all(bytes).expect("room");
            to.finish().expect("room");
        }
        ".xz" => {
            let mut to = liblzma::write::XzEncoder::new(&mut made, 6);
            to.write_all(bytes).expect("room");
            to.finish().expect("room");
        }
        _ => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress(bytes, &mut made, level);
        }
    }
    made
}

#[test]
fn a_compressed_vmlinux_is_found_and_taken() {
    for end in [".gz", ".xz", ".zst"] {
        let home = Home::new();
        let file = home.path(&format!("dir/vmlinux-6.1.0{end}"));
        let image = std::fs::read(DEMO).expect("the image");
        let packed = compressed(end, &image);
        write(Path::new(&file), &packed);
        for arguments in [["--dir", &home.path("dir")], ["--vmlinux", &file]] {
            let (out, status, said) = home.decode(&arguments, &log());
            assert_eq!((out, status), (decoded(), 0), "{end}: {said}");
        }
        let table = home.path("t");
        assert!(home.run(&["build", &file, "-o", &table]).status.success());
        let verify = home.run(&["verify", &table, "--against", DEMO]);
        assert_eq!(verify.status.code(), Some(0), "{end}");
        // Cut short, or damaged.
        let mut damaged = packed.clone();
        damaged[packed.len() / 2] ^= 0x55;
        for broken in [&packed[..packed.len() / 2], &damaged] {
            write(Path::new(&file), broken);
            let output = home.run(&["build", &file, "-o", &table]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{end}: {said}");
            assert!(said.contains(&file), "{end}: {said}");
        }
    }
}

/// A file that becomes much larger is refused before it has the memory.
#[test]
fn a_compressed_file_has_the_budget_of_its_size() {
    let home = Home::new();
    let mut image = std::fs::read(DEMO).expect("the image");
    image.resize(16 << 20, 0);
    for end in [".gz", ".xz", ".zst"] {
        let file = home.path(&format!("vmlinux{end}"));
        write(Path::new(&file), &compressed(end, &image));
        let table = home.path("t");
        let build = ["build", &file, "-o", &table, "--max-memory"];
        let output = home.run(&[&build[..], &["8"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("the decompressed file"), "{said}");
        assert!(home.run(&[&build[..], &["64"]].concat()).status.success());
    }
}

#[test]
fn a_table_that_is_found_is_not_made() {
    let home = Home::new();
    home.put("dir/vmlinux");
    let table = home.path("dir/vmlinux-6.1.0.lineinfo");
    let arguments = ["build", &home.path("dir/vmlinux"), "-o", &table];
    assert!(home.run(&arguments).status.success());
    let by_build_id = format!(
        "dir/.build-id/{}/{}.lineinfo",
        &BUILD_ID[..2],
        &BUILD_ID[2..]
    );
    let bytes = std::fs::read(&table).expect("a table");
    write(Path::new(&home.path(&by_build_id)), &bytes);
    let (out, ..) = home.decode(&["--dir", &home.path("dir")], &log());
    assert_eq!((out, home.kept().len()), (decoded(), 0));
}

#[test]
fn a_vmlinux_of_another_build_is_not_taken() {
    let home = Home::new();
    home.put("dir/vmlinux-6.1.0");
    let other = log().replace(BUILD_ID, &BUILD_ID.replace('0', "f"));
    let (out, status, said) = home.decode(&["--dir", &home.path("dir")], &other);
    assert_eq!((out.as_str(), status), ("", 1));
    assert!(
        said.contains("vmlinux-6.1.0: it is of another kernel"),
        "{said}"
    );
    assert!(said.contains("no vmlinux of 6.1.0 in"), "{said}");
    // Named, it is refused.
    let (out, status, said) = home.decode(&["--vmlinux", DEMO], &other);
    assert_eq!((out.as_str(), status), ("", 4), "{said}");
    assert!(
        said.contains("was written by the kernel of build-id"),
        "{said}"
    );
    let (out, status, _) = home.decode(&["--vmlinux", DEMO, "--force"], &other);
    assert!(
        out.contains("(include/linux/fs.h:70)") && status == 0,
        "{out}"
    );
}

#[test]
fn a_log_that_does_not_say_which_kernel_wrote_it() {
    let home = Home::new();
    let frame = "RIP: 0010:vfs_write+0x1/0x6\n";
    let (out, status, said) = home.decode(&[], frame);
    assert_eq!((out.as_str(), status), ("", 2));
    assert!(
        said.contains("does not say which kernel wrote it"),
        "{said}"
    );
    let (out, status, _) = home.decode(&["--vmlinux", DEMO], frame);
    assert_eq!(
        (out.as_str(), status),
        ("RIP: 0010:vfs_write+0x1/0x6 (include/linux/fs.h:70)\n", 0)
    );
}

#[test]
fn a_table_without_symbols_finds_its_vmlinux_or_says_what_to_do() {
    let home = Home::new();
    home.put("dir/vmlinux");
    let table = home.path("t");
    let build = ["build", DEMO, "-o", &table, "--no-symbols"];
    assert!(home.run(&build).status.success());
    let (out, status, said) = home.decode(&["--table", &table, "--dir", &home.path("dir")], &log());
    assert_eq!((out, status), (decoded(), 0), "{said}");
    let (out, status, said) = home.decode(&["--table", &table], &log());
    assert_eq!((out.as_str(), status), ("", 2));
    assert!(
        said.contains(&format!("no vmlinux of its build-id {BUILD_ID}")),
        "{said}"
    );
}

#[test]
fn a_table_with_symbols_is_all_that_is_needed() {
    for place in [
        "dir/6.1.0.lineinfo".to_owned(),
        "dir/vmlinux-6.1.0.lineinfo".to_owned(),
        "dir/6.1.0/vmlinux.lineinfo".to_owned(),
        format!(
            "dir/.build-id/{}/{}.lineinfo",
            &BUILD_ID[..2],
            &BUILD_ID[2..]
        ),
    ] {
        let home = Home::new();
        let table = home.path(&place);
        write(Path::new(&table), b"");
        assert!(home.run(&["build", DEMO, "-o", &table]).status.success());
        for arguments in [["--dir", &home.path("dir")], ["--table", &table]] {
            let (out, status, said) = home.decode(&arguments, &log());
            assert_eq!((out, status), (decoded(), 0), "{arguments:?}: {said}");
        }
        let other = log().replace(BUILD_ID, &BUILD_ID.replace('0', "f"));
        let (out, status, said) = home.decode(&["--table", &table], &other);
        assert_eq!((out.as_str(), status), ("", 4), "{said}");
        let (out, status, said) = home.decode(&["--dir", &home.path("dir")], &other);
        assert_eq!((out.as_str(), status), ("", 1), "{said}");
        assert_eq!(home.kept(), [""; 0]);
        // From its symbols, lookup knows functions.
        let output = home.run(&["lookup", &table, "vfs_write+0x1/0x6"]);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "vfs_write+0x1/0x6 0x401001 include/linux/fs.h:70\n"
        );
    }
}

/// The symbols that are named count before those of the table, and must be of its build.
#[test]
fn a_vmlinux_of_another_build_than_the_table_is_refused() {
    let home = Home::new();
    let table = home.path("t");
    assert!(home.run(&["build", DEMO, "-o", &table]).status.success());
    let mut other = std::fs::read(DEMO).expect("the image");
    let id: [u8; 4] = [0x01, 0x23, 0x45, 0x67];
    let at = other.windows(4).position(|bytes| bytes == id);
    other[at.expect("a build-id")] ^= 1;
    let vmlinux = home.path("vmlinux");
    write(Path::new(&vmlinux), &other);
    let (out, status, said) = home.decode(&["--table", &table, "--vmlinux", &vmlinux], &log());
    assert_eq!((out.as_str(), status), ("", 4), "{said}");
    assert!(said.contains("build the table from this image"), "{said}");
}

#[test]
fn damaged_symbols_are_refused() {
    let home = Home::new();
    let table = home.path("t");
    assert!(home.run(&["build", DEMO, "-o", &table]).status.success());
    let bytes = std::fs::read(&table).expect("a table");
    let parsed = Table::parse(&bytes).expect("a table");
    let mut symbols = parsed.symbols().expect("symbols").to_vec();
    let last = symbols.len() - 1;
    symbols[last] ^= 0x55;
    symbols.push(0);
    let damaged = with_symbols(&parsed, &symbols).expect("a table");
    write(Path::new(&table), &damaged);
    let (out, status, said) = home.decode(&["--table", &table], &log());
    assert_eq!((out.as_str(), status), ("", 4), "{said}");
    assert!(said.contains("malformed symbols at byte "), "{said}");
    let verify = home.run(&["verify", &table, "--against", DEMO]);
    assert_eq!(verify.status.code(), Some(4));
    // Whatever else is named: a damaged table is not trusted.
    let (out, status, said) = home.decode(&["--table", &table, "--vmlinux", DEMO], &log());
    assert_eq!((out.as_str(), status), ("", 4), "{said}");
}

#[test]
fn verify_compares_symbols() {
    let home = Home::new();
    let table = home.path("t");
    assert!(home.run(&["build", DEMO, "-o", &table]).status.success());
    let right = home.run(&["verify", &table, "--against", DEMO]);
    let said = String::from_utf8_lossy(&right.stdout).into_owned();
    assert_eq!(right.status.code(), Some(0), "{said}");
    assert!(said.contains(" symbols checked, 0 differences"), "{said}");
    // Those of the same functions elsewhere.
    let bytes = std::fs::read(&table).expect("a table");
    let parsed = Table::parse(&bytes).expect("a table");
    let symbols = Symbols::open(Path::new(DEMO)).expect("symbols");
    let moved = symbols.to_section(symbols.text_start() - 1);
    let moved = with_symbols(&parsed, &moved.expect("a section")).expect("a table");
    write(Path::new(&table), &moved);
    let wrong = home.run(&["verify", &table, "--against", DEMO]);
    let said = String::from_utf8_lossy(&wrong.stdout).into_owned();
    assert_eq!(wrong.status.code(), Some(4), "{said}");
    assert!(
        said.contains("(vfs_write/0x6): only in the image"),
        "{said}"
    );
}

#[test]
fn old_tables_make_room_for_new_ones() {
    let home = Home::new();
    // Sparse, and each larger than half of what is kept.
    for name in ["a", "b"] {
        let path = home.path(&format!("cache/lineinfo/tables/{name}.lineinfo"));
        write(Path::new(&path), b"");
        let file = std::fs::File::options()
            .write(true)
            .open(&path)
            .expect("a file");
        file.set_len(600 << 20).expect("a sparse file");
        let age = std::time::Duration::from_secs(if name == "a" { 200 } else { 100 });
        file.set_modified(std::time::SystemTime::now() - age)
            .expect("a time");
    }
    write(
        Path::new(&home.path("cache/lineinfo/tables/other")),
        b"no table",
    );
    home.decode(&["--vmlinux", DEMO], &log());
    let mut kept = home.kept();
    kept.sort();
    assert_eq!(
        kept,
        [kept_name(), "b.lineinfo".to_owned(), "other".to_owned()]
    );
}

#[test]
fn lookup_takes_symbols() {
    let home = Home::new();
    let look_up = |arguments: &[&str]| {
        let output = home.run(&[&["lookup", "--vmlinux", DEMO], arguments].concat());
        let text = String::from_utf8(output.stdout).expect("text");
        (text, output.status.code())
    };
    assert_eq!(
        look_up(&["vfs_write+0x1/0x6", "vfs_write+0x2", "0x401001"]),
        (
            "vfs_write+0x1/0x6 0x401001 include/linux/fs.h:70\n\
             vfs_write+0x2 0x401002 fs/read_write.c:691\n\
             0x401001 include/linux/fs.h:70\n"
                .to_owned(),
            Some(0)
        )
    );
    assert_eq!(
        look_up(&["vfs_write+0x1/0x7"]),
        ("vfs_write+0x1/0x7 ??\n".to_owned(), Some(3))
    );
    // Beyond the function, whatever is there; a call may be its last instruction.
    for (beyond, status) in [
        ("vfs_write+0x6/0x6", 3),
        ("vfs_write+0x6", 3),
        ("vfs_write+0x7", 3),
    ] {
        let expected = (format!("{beyond} ??\n"), Some(status));
        assert_eq!(look_up(&[beyond]), expected);
    }
    assert_eq!(
        look_up(&["-r", "vfs_write+0x6/0x6"]),
        (
            "vfs_write+0x6/0x6 0x401006 fs/read_write.c:700\n".to_owned(),
            Some(0)
        )
    );
    // Ranges, of addresses and in a function.
    let ranges = "0x401000-0x401001 fs/read_write.c:681\n\
                  0x401001-0x401002 include/linux/fs.h:70\n";
    assert_eq!(
        look_up(&["0x401000-0x401002"]),
        (ranges.to_owned(), Some(0))
    );
    assert_eq!(
        look_up(&["vfs_write+0x0-0x2/0x6"]),
        (
            ranges
                .replace("0x40", "vfs_write+0x0-0x2/0x6 0x40")
                .replace("-vfs_write+0x0-0x2/0x6 ", "-"),
            Some(0)
        )
    );
    assert_eq!(look_up(&["vfs_write+0x0-0x7"]).1, Some(3));
    for wrong in [
        "0x401002-0x401002",
        "0x2-0x1",
        "0-ffffffffffffffff",
        "vfs_write+0x2-0x1",
    ] {
        assert_eq!(look_up(&[wrong]).1, Some(2), "{wrong}");
    }
    let (json, _) = look_up(&["--json", "0x401000-0x401002", "x+0x1"]);
    let answers: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        (&answers[0]["address"], &answers[0]["end"]),
        (&"0x401000".into(), &"0x401001".into())
    );
    assert_eq!(
        (&answers[2]["address"], &answers[2]["symbol"]),
        (&().into(), &"x+0x1".into())
    );
    let (json, _) = look_up(&["--json", "-r", "vfs_write+0x1/0x6"]);
    let answer: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(answer["symbol"], "vfs_write+0x1/0x6");
    assert_eq!(answer["file"], "fs/read_write.c");
    assert_eq!(answer["line"], 681);
}
