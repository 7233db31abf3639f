//! `build` of many images, of compressed ones, of stdin, and into a store.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use lineinfo_cli::files::BlobFile;
use lineinfo_cli::hex;
use tempfile::TempDir;

const DEMO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/cmd/lineinfo.in/demo.elf"
);

const BUILD_ID: [u8; 20] = [
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
    0x01, 0x23, 0x45, 0x67,
];

/// The demo with another build-id, which ends with `last`.
fn image(last: u8) -> Vec<u8> {
    let mut image = fs::read(DEMO).expect("the demo");
    let at = image
        .windows(BUILD_ID.len())
        .position(|bytes| bytes == BUILD_ID);
    image[at.expect("its build-id") + BUILD_ID.len() - 1] = last;
    image
}

fn build_id(last: u8) -> String {
    let mut build_id = BUILD_ID;
    build_id[BUILD_ID.len() - 1] = last;
    hex(&build_id)
}

/// Where a store has the table of [`image`].
fn stored(store: &Path, last: u8) -> PathBuf {
    let build_id = build_id(last);
    let (first, rest) = build_id.split_at(2);
    store.join(format!(".build-id/{first}/{rest}.lineinfo"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A directory like that of a release, with four images, and what is none.
fn release() -> TempDir {
    let release = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| {
        let path = release.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("room");
        fs::write(path, bytes).expect("room");
    };
    write("vmlinux", &image(1));
    write("kernel/fs/xfs/xfs.ko", &image(2));
    write("kernel/net/a.ko.gz", &gzip(&image(3)));
    write("kernel/net/b.ko.debug", &image(4));
    write("modules.dep", b"kernel/fs/xfs/xfs.ko:\n");
    write("vmlinux.o", b"no image");
    write("vmlinux.lineinfo", b"no image");
    write("arch/x86/boot/compressed/vmlinux", b"no image");
    release
}

fn lineinfo(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lineinfo"));
    command.stdin(Stdio::null());
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    command
}

fn run(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    lineinfo(arguments).output().expect("lineinfo runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The tables in a store.
fn tables(store: &Path) -> usize {
    let found = Command::new("find")
        .arg(store)
        .args(["-type", "f"])
        .output()
        .expect("find");
    text(&found.stdout).lines().count()
}

#[test]
fn a_directory_has_a_table_for_each_image_by_build_id() {
    let (release, store) = (release(), tempfile::tempdir().expect("a directory"));
    let store = store.path().join("new/store");
    let output = run(&[&"build", &release.path(), &"--store", &store]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("tables                      4\n"));
    assert_eq!(tables(&store), 4);
    for last in 1..=4 {
        let table = BlobFile::open(&stored(&store, last)).expect("a table");
        assert_eq!(hex(table.table().layout().build_id()), build_id(last));
    }
    // decode finds them by the build-id of the log.
    let log = store.join("log");
    let line = "CPU: 0 PID: 1 Comm: x Not tainted 6.1.0 #1 ";
    let frame = "RIP: 0010:vfs_write+0x1/0x6\n";
    fs::write(&log, format!("{line}{}\n{frame}", build_id(1))).expect("room");
    let output = run(&[&"decode", &"--dir", &store, &log]);
    assert!(
        text(&output.stdout).contains("vfs_write+0x1/0x6 (include/linux/fs.h:70)"),
        "{output:?}"
    );
}

/// A kernel has symbols of its own, and those of a table would take its memory.
#[test]
fn what_the_kernel_reads_itself_has_no_symbols() {
    let (release, places) = (release(), tempfile::tempdir().expect("a directory"));
    let (store, firmware) = (places.path().join("store"), places.path().join("firmware"));
    let one = release.path().join("vmlinux");
    // One image, and many; with a store, and without.
    for (images, last) in [(&one, 1), (&release.path().to_owned(), 4)] {
        for with_store in [true, false] {
            let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"build", images];
            arguments.extend([&"--firmware" as &dyn AsRef<_>, &firmware]);
            if with_store {
                arguments.extend([&"--store" as &dyn AsRef<_>, &store]);
            }
            let output = run(&arguments);
            assert!(output.status.success(), "{output:?}");
            assert!(
                text(&output.stdout).contains(&text(firmware.as_os_str().as_encoded_bytes())),
                "{output:?}"
            );
            assert_eq!(tables(&firmware), usize::from(last));
            assert_eq!(store.exists(), with_store);
            for last in 1..=last {
                let loaded = firmware.join(format!("{}.lineinfo", build_id(last)));
                let loaded = BlobFile::open(&loaded).expect("a table");
                assert_eq!(hex(loaded.table().layout().build_id()), build_id(last));
                assert_eq!(loaded.table().symbols(), None);
                if with_store {
                    let whole = BlobFile::open(&stored(&store, last)).expect("a table");
                    assert!(whole.table().symbols().is_some());
                    assert_eq!(
                        whole.without_symbols().expect("a table"),
                        loaded.bytes(),
                        "all else is the same"
                    );
                }
            }
            for directory in [&store, &firmware]
                .into_iter()
                .filter(|place| place.exists())
            {
                fs::remove_dir_all(directory).expect("it was there");
            }
        }
    }
}

#[test]
fn what_fails_is_named_and_the_rest_goes_on() {
    let (release, store) = (release(), tempfile::tempdir().expect("a directory"));
    let bad = release.path().join("kernel/bad.ko");
    let stripped = release.path().join("kernel/stripped.ko");
    let missing = release.path().join("missing.ko");
    fs::write(&bad, "text").expect("room");
    let stripped_elf = Path::new(DEMO).with_file_name("stripped.elf");
    fs::copy(stripped_elf, &stripped).expect("room");
    let output = run(&[
        &"build",
        &release.path(),
        &missing,
        &"--store",
        &store.path(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    for (path, said) in [
        (&bad, "it is a text file"),
        (&stripped, "no .debug_line section"),
        (&missing, "there is no such file"),
    ] {
        let line = format!("lineinfo: {}: {said}", path.display());
        assert!(stderr.contains(&line), "{stderr}");
    }
    assert!(stderr.ends_with("lineinfo: 3 of 7 images have no table, for the reasons above\n"));
    assert_eq!(tables(store.path()), 4);
}

#[test]
fn one_table_is_the_same_however_its_image_is_given() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    fs::write(at("vmlinux"), image(1)).expect("room");
    fs::write(at("vmlinux.gz"), gzip(&image(1))).expect("room");
    assert!(
        run(&[&"build", &at("vmlinux"), &"-o", &at("x")])
            .status
            .success()
    );
    let expected = fs::read(at("x")).expect("a table");
    let output = run(&[&"build", &at("vmlinux.gz"), &"-o", &at("gz")]);
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read(at("gz")).expect("a table") == expected);
    let output = run(&[&"build", &at("vmlinux"), &"--store", &at("store")]);
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read(stored(&at("store"), 1)).expect("a table") == expected);

    // From stdin to stdout, and on to another command.
    for image in ["vmlinux", "vmlinux.gz"] {
        let stdin = File::open(at(image)).expect("the image");
        let built = lineinfo(&[&"build", &"-", &"-o", &"-"])
            .stdin(stdin)
            .output();
        let built = built.expect("lineinfo runs");
        assert!(built.status.success(), "{built:?}");
        assert!(built.stdout == expected);
        assert!(
            text(&built.stderr).starts_with("-: packed, full\n"),
            "{built:?}"
        );
    }
    let stdin = File::open(at("x")).expect("the table");
    let dumped = lineinfo(&[&"dump", &"-"]).stdin(stdin).output();
    assert!(text(&dumped.expect("lineinfo runs").stdout).contains(&build_id(1)));
}

#[test]
fn an_image_without_a_build_id_has_no_place_in_a_store() {
    let store = tempfile::tempdir().expect("a directory");
    let image = store.path().join("image");
    fs::write(&image, image_without_build_id()).expect("room");
    for place in ["--store", "--firmware"] {
        let output = run(&[&"build", &image, &place, &store.path()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stderr).contains("it has no build-id"),
            "{output:?}"
        );
    }
}

/// The demo, whose note is of another type.
fn image_without_build_id() -> Vec<u8> {
    let mut image = image(1);
    let note = [4_u32, 20, 3].map(u32::to_le_bytes).concat();
    let at = image.windows(note.len()).position(|bytes| bytes == note);
    image[at.expect("a note") + 8] = 4;
    image
}

#[test]
fn a_table_is_not_written_to_a_terminal() {
    let terminal = nix::pty::openpty(None, None).expect("a terminal");
    let command = |output: &str, stdout: OwnedFd| {
        let mut command = lineinfo(&[&"build", &DEMO, &"-o", &output]);
        command.stdout(stdout).output().expect("lineinfo runs")
    };
    for output in ["-", "/dev/stdout"] {
        let stdout = terminal.slave.try_clone().expect("a descriptor");
        let output = command(output, stdout);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains("is a terminal"), "{output:?}");
    }
    drop(terminal.slave);
    let mut written = Vec::new();
    // At the end of all that was written there is an error (EIO).
    let _ = File::from(terminal.master).read_to_end(&mut written);
    assert_eq!(text(&written), "");
}

/// A picture has the parts that the table has, and no more markup than its own.
#[test]
fn a_picture_of_where_the_bytes_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let mut elf = fs::read(DEMO).expect("the demo");
    for start in 0..elf.len() - 9 {
        if elf[start..].starts_with(b"generated") {
            elf[start..start + 9].copy_from_slice(b"<b>&amp;x");
        }
    }
    fs::write(at("elf"), elf).expect("room");
    assert!(
        run(&[&"build", &at("elf"), &"-o", &at("x")])
            .status
            .success()
    );
    let output = run(&[&"dump", &at("x"), &"--svg", &at("x.svg")]);
    assert!(output.status.success(), "{output:?}");
    let svg = fs::read_to_string(at("x.svg")).expect("a picture");
    assert!(
        svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"),
        "{svg}"
    );
    for part in [
        "regions",
        "files",
        "rows",
        "fs",
        "include",
        "&lt;b&gt;&amp;amp;x",
    ] {
        assert!(svg.contains(&format!("\n{part}")), "{part}: {svg}");
    }
    assert!(!svg.contains("<b>"), "{svg}");
    let output = run(&[&"dump", &at("x"), &"--svg", &"-"]);
    assert!(text(&output.stdout) == svg);
}
