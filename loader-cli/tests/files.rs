//! What happens to files that `build`, `append` and `strip` write, and to what is no regular file.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lineinfo_cli::error::exit;
use lineinfo_cli::output::{self, HardLinks, OutputError};
use lineinfo_core::footer::{self, PADDING_MAX};
use tempfile::TempDir;

const LINEINFO: &str = env!("CARGO_BIN_EXE_lineinfo");

/// A directory with `image`, `plain` (the same) and the tables `t` and `u` of it.
struct Scene {
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let scene = Self { directory };
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd/lineinfo.in/demo.elf");
        fs::copy(&demo, scene.path("image")).expect("room");
        fs::copy(&demo, scene.path("plain")).expect("room");
        scene.succeeds(&["build", "plain", "-o", "t"]);
        scene.succeeds(&["build", "plain", "-o", "u", "--encoding", "flat"]);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("it is there")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("room");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(LINEINFO);
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs lineinfo, which must not wait for anything.
    fn run(&self, arguments: &[&str]) -> Output {
        finish(self.command(arguments).spawn().expect("runs"))
    }

    fn succeeds(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    }

    /// It fails with this exit status, says this, and changes nothing.
    fn refuses(&self, arguments: &[&str], status: u8, said: &str) {
        let before = self.state();
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(status.into()),
            "{arguments:?}: {output:?}"
        );
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        assert_eq!(self.state(), before, "{arguments:?}");
    }

    /// Names, inodes and contents.
    fn state(&self) -> Vec<(PathBuf, u64, Vec<u8>)> {
        let mut state: Vec<_> = fs::read_dir(self.directory.path())
            .expect("our directory")
            .map(|entry| entry.expect("our directory").path())
            .map(|path| {
                let metadata = fs::symlink_metadata(&path).expect("it is there");
                let contents = if metadata.is_file() {
                    fs::read(&path).expect("our file")
                } else {
                    Vec::new()
                };
                (path, metadata.ino(), contents)
            })
            .collect();
        state.sort();
        state
    }

    fn temporary_files(&self) -> usize {
        let entries = fs::read_dir(self.directory.path()).expect("our directory");
        entries
            .map(|entry| entry.expect("our directory").file_name())
            .filter(|name| name.to_string_lossy().starts_with(".lineinfo-"))
            .count()
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(made.success());
        path
    }

    fn append_and_strip(&self, image: &str) {
        let before = self.read(image);
        self.succeeds(&["append", "t", "--to", image]);
        self.succeeds(&["strip", image]);
        assert!(self.read(image) == before);
    }
}

fn finish(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().expect("our child").is_none() {
        if start.elapsed() > Duration::from_secs(20) {
            child.kill().expect("our child");
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("our child")
}

/// Says on stderr what is not tested, unless `LINEINFO_ROOT` demands it.
fn skip(why: &str) {
    assert!(
        std::env::var_os("LINEINFO_ROOT").is_none(),
        "LINEINFO_ROOT is set, but {why}"
    );
    let mut stderr = std::io::stderr();
    writeln!(stderr, "skipped: {why}").expect("stderr");
}

#[test]
fn one_flipped_bit_after_the_image_and_nothing_is_done() {
    let scene = Scene::new();
    scene.succeeds(&["append", "t", "--to", "image"]);
    let whole = scene.read("image");
    let table_at = scene.read("plain").len();
    let footer_at = whole.len() - footer::SIZE;
    // Each bit of the footer, and some of the table; one in the magic makes it no footer at all.
    for at in (table_at..footer_at)
        .step_by(37)
        .chain(footer_at..whole.len())
    {
        for bit in [0, 3, 7] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            scene.write("image", &damaged);
            let (status, said) = if at < footer_at + 8 {
                (exit::CORRUPT, "copy the image again")
            } else {
                (exit::FAILED, "nothing is appended")
            };
            scene.refuses(&["strip", "image"], status, said);
            if status == exit::CORRUPT {
                scene.refuses(&["append", "u", "--to", "image"], status, said);
            }
        }
    }
}

#[test]
fn a_table_of_another_version_can_be_stripped() {
    let scene = Scene::new();
    let plain = scene.read("plain");
    let mut table = scene.read("t");
    // The version, after the magic number.
    table[8] ^= 0x40;
    let (pad, footer) = footer::append(plain.len() as u64, &table).expect("small");
    let footer = zerocopy::IntoBytes::as_bytes(&footer);
    scene.write("image", &[&plain, pad, &table[..], footer].concat());
    scene.succeeds(&["strip", "image"]);
    assert!(scene.read("image") == plain);
}

#[test]
fn symbols_are_not_appended() {
    let scene = Scene::new();
    let demo = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/cmd/lineinfo.in/demo.elf"
    );
    scene.succeeds(&["build", demo, "-o", "with"]);
    scene.succeeds(&["build", demo, "-o", "without", "--no-symbols"]);
    let (with, without) = (scene.read("with"), scene.read("without"));
    assert!(with.len() > without.len());
    let plain = scene.read("image");
    scene.succeeds(&["append", "with", "--to", "image", "--force"]);
    let (pad, footer) = footer::append(plain.len() as u64, &without).expect("small");
    let footer = zerocopy::IntoBytes::as_bytes(&footer);
    let expected = [&plain[..], pad, &without, footer].concat();
    assert!(scene.read("image") == expected);
}

#[test]
fn appending_again_replaces_and_stripping_restores_whatever_pads_the_file() {
    let scene = Scene::new();
    let plain = scene.read("plain");
    scene.succeeds(&["append", "u", "--to", "image"]);
    let expected = scene.read("image");
    for filler in [0, 0xff] {
        for padding in [0, 1, 4096, PADDING_MAX as usize] {
            scene.write("image", &plain);
            scene.succeeds(&["append", "t", "--to", "image"]);
            let pad = |scene: &Scene| {
                let mut padded = scene.read("image");
                padded.resize(padded.len() + padding, filler);
                scene.write("image", &padded);
            };
            pad(&scene);
            scene.succeeds(&["append", "u", "--to", "image"]);
            assert!(scene.read("image") == expected);
            pad(&scene);
            scene.succeeds(&["strip", "image"]);
            assert!(scene.read("image") == plain);
        }
        let too_far = [&expected[..], &vec![filler; PADDING_MAX as usize + 1]].concat();
        scene.write("image", &too_far);
        scene.refuses(
            &["strip", "image"],
            exit::FAILED,
            "nor before at most 1 MiB of padding",
        );
    }
}

/// As `sign-file` makes it.
fn module_signature() -> Vec<u8> {
    let mut signature = vec![0x30; 700];
    signature.extend([0, 0, 2, 0, 0, 0, 0, 0]);
    signature.extend(700_u32.to_be_bytes());
    signature.extend(b"~Module signature appended~\n");
    signature
}

#[test]
fn a_signed_module_is_refused_unless_forced() {
    let scene = Scene::new();
    let plain = scene.read("plain");
    let signed = [plain.clone(), module_signature()].concat();
    scene.write("image", &signed);
    let append = ["append", "t", "--to", "image"];
    scene.refuses(&append, exit::FAILED, "a module signature at its end");
    scene.succeeds(&[&append[..], &["--force"]].concat());
    // The signature is valid again.
    scene.succeeds(&["strip", "image"]);
    assert!(scene.read("image") == signed);

    // Signed after the table was appended.
    scene.write("image", &plain);
    scene.succeeds(&append);
    let both = [scene.read("image"), module_signature()].concat();
    scene.write("image", &both);
    scene.refuses(&append, exit::FAILED, "would become invalid");
    scene.refuses(&["strip", "image"], exit::FAILED, "would become invalid");
    scene.succeeds(&["strip", "image", "--force"]);
    assert!(scene.read("image") == plain);
}

/// A PE file with the header of an EFI stub, and where it names its certificates.
fn pe() -> (Vec<u8>, usize) {
    const PE_OFFSET: usize = 0x40;
    let mut file = vec![0; 0x400];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = PE_OFFSET as u8;
    file[PE_OFFSET..][..4].copy_from_slice(b"PE\0\0");
    let optional = PE_OFFSET + 24;
    file[optional..][..2].copy_from_slice(&0x20b_u16.to_le_bytes());
    file[optional + 108] = 16;
    file.extend(b"machine code ".repeat(77));
    (file, optional + 112 + 4 * 8)
}

/// As `sbsign` makes it.
fn sign_pe(file: &mut Vec<u8>, entry: usize) {
    file.resize(file.len().next_multiple_of(8), 0);
    let start = file.len() as u32;
    let size = 1016_u32;
    file.extend([&size.to_le_bytes()[..], &[0, 2, 2, 0], &[0x30; 1008]].concat());
    file[entry..][..4].copy_from_slice(&start.to_le_bytes());
    file[entry + 4..][..4].copy_from_slice(&size.to_le_bytes());
}

#[test]
fn a_signed_pe_file_is_refused_unless_forced() {
    let scene = Scene::new();
    let (plain, entry) = pe();
    let mut signed = plain.clone();
    sign_pe(&mut signed, entry);
    scene.write("image", &signed);
    let append = ["append", "t", "--to", "image"];
    scene.refuses(&append, exit::FAILED, "a PE certificate table at its end");
    let output = scene.succeeds(&[&append[..], &["--force"]].concat());
    assert!(output.stderr.is_empty(), "a PE file is of a known kind");
    scene.succeeds(&["strip", "image"]);
    assert!(scene.read("image") == signed);

    scene.write("image", &plain);
    scene.succeeds(&append);
    let mut both = scene.read("image");
    sign_pe(&mut both, entry);
    scene.write("image", &both);
    scene.refuses(&append, exit::FAILED, "would become invalid");
    scene.refuses(&["strip", "image"], exit::FAILED, "would become invalid");
    scene.succeeds(&["strip", "image", "--force"]);
    // The header does not name the certificates that are gone.
    assert!(scene.read("image") == plain);
}

#[test]
fn what_is_no_boot_image_is_said_to_be_none() {
    let scene = Scene::new();
    let mut bzimage = vec![0x90; 4096];
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    for (image, known) in [
        (&scene.read("plain")[..], true),
        (&bzimage, true),
        (&pe().0, true),
        (&b"MZ, and nothing else"[..], false),
        (b"\x1f\x8b a kernel that is compressed", false),
    ] {
        scene.write("image", image);
        let output = scene.succeeds(&["append", "t", "--to", "image"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let warned = stderr.contains("warning: image: is no ELF file, PE file or bzImage");
        assert_eq!(warned, !known, "{stderr}");
        scene.succeeds(&["strip", "image"]);
        assert!(scene.read("image") == image);
    }
}

#[test]
fn mode_and_extended_attributes_are_kept() {
    let scene = Scene::new();
    for file in ["image", "t"] {
        let path = scene.path(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).expect("our file");
        if xattr::set(&path, "user.label", b"a value").is_err() {
            return skip("this file system has no extended attributes");
        }
    }
    let check = || {
        for file in ["image", "t"] {
            let path = scene.path(file);
            let mode = fs::metadata(&path).expect("it is there").mode();
            assert_eq!(mode & 0o7777, 0o4751, "{file}");
            let label = xattr::get(&path, "user.label").expect("our file");
            assert_eq!(label.as_deref(), Some(&b"a value"[..]), "{file}");
        }
    };
    scene.succeeds(&["build", "plain", "-o", "t"]);
    check();
    scene.succeeds(&["append", "t", "--to", "image"]);
    check();
    scene.succeeds(&["strip", "image"]);
    check();
}

/// Version 2, then (tag, permissions, id), as in include/uapi/linux/posix_acl_xattr.h.
fn acl(named_user: u16) -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let entries = [
        (1_u16, 6_u16, NO_ID),
        (2, named_user, 12345),
        (4, 4, NO_ID),
        (0x10, 6, NO_ID),
        (0x20, 0, NO_ID),
    ];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

#[test]
fn an_acl_is_kept_and_that_of_the_directory_is_not_taken() {
    const ACL: &str = "system.posix_acl_access";
    let scene = Scene::new();
    if xattr::set(scene.path("image"), ACL, &acl(6)).is_err() {
        return skip("this file system has no ACLs");
    }
    fs::copy(scene.path("plain"), scene.path("private")).expect("room");
    fs::set_permissions(scene.path("private"), fs::Permissions::from_mode(0o600))
        .expect("our file");
    xattr::set(scene.directory.path(), "system.posix_acl_default", &acl(4)).expect("our directory");
    for image in ["image", "private"] {
        scene.succeeds(&["append", "t", "--to", image]);
    }
    let of = |name: &str| xattr::get(scene.path(name), ACL).expect("our file");
    assert_eq!(of("image"), Some(acl(6)));
    assert_eq!(of("private"), None);
    let mode = fs::metadata(scene.path("private"))
        .expect("it is there")
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn owner_and_capabilities_are_kept() {
    // VFS_CAP_REVISION_2, effective; CAP_NET_RAW permitted.
    const CAPABILITY: [u8; 20] = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    const NAME: &str = "security.capability";
    let scene = Scene::new();
    let image = scene.path("image");
    if !nix::unistd::Uid::effective().is_root() || chown(&image, Some(12345), Some(23456)).is_err()
    {
        return skip("to give files away needs root");
    }
    let has_capabilities = xattr::set(&image, NAME, &CAPABILITY).is_ok();
    scene.append_and_strip("image");
    let metadata = fs::metadata(&image).expect("it is there");
    assert_eq!((metadata.uid(), metadata.gid()), (12345, 23456));
    if !has_capabilities {
        return skip("this file system has no capabilities");
    }
    let found = xattr::get(&image, NAME).expect("our file");
    assert_eq!(found.as_deref(), Some(&CAPABILITY[..]));
}

#[test]
fn what_cannot_be_kept_is_a_refusal() {
    let scene = Scene::new();
    if !nix::unistd::Uid::effective().is_root() {
        return skip("to work on the file of another user needs root");
    }
    // The directory is of that user, the image is not.
    const USER: u32 = 12345;
    chown(scene.directory.path(), Some(USER), Some(USER)).expect("we are root");
    // The binary may be where that user cannot go.
    fs::copy(LINEINFO, scene.path("lineinfo")).expect("room");
    let mut command = Command::new("setpriv");
    command
        .args([
            &format!("--reuid={USER}"),
            &format!("--regid={USER}"),
            "--clear-groups",
        ])
        .args(["./lineinfo", "append", "t", "--to", "image"])
        .current_dir(scene.directory.path());
    let before = scene.state();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return skip(&format!("setpriv: {error}")),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot keep its owner 0:0"), "{stderr}");
    assert_eq!(scene.state(), before);
}

#[test]
fn a_hard_link_is_refused_and_with_force_only_this_name_changes() {
    let scene = Scene::new();
    fs::hard_link(scene.path("image"), scene.path("other")).expect("hard links");
    let append = ["append", "t", "--to", "image"];
    scene.refuses(&append, exit::FAILED, "has 2 names (hard links)");
    scene.refuses(
        &["build", "plain", "-o", "image"],
        exit::FAILED,
        "has 2 names (hard links)",
    );
    scene.succeeds(&[&append[..], &["--force"]].concat());
    assert!(scene.read("other") == scene.read("plain"));
    fs::remove_file(scene.path("other")).expect("our file");
    fs::hard_link(scene.path("image"), scene.path("other")).expect("hard links");
    scene.refuses(&["strip", "image"], exit::FAILED, "has 2 names");
    scene.succeeds(&["strip", "image", "--force"]);
    assert!(scene.read("image") == scene.read("plain"));
    assert!(scene.read("other") != scene.read("plain"));
}

#[test]
fn holes_stay_holes() {
    const HOLE: u64 = 64 << 20;
    let scene = Scene::new();
    let file = OpenOptions::new().append(true).open(scene.path("image"));
    let mut file = file.expect("our file");
    file.set_len(HOLE).expect("room");
    file.write_all(b"the end").expect("room");
    file.set_len(2 * HOLE).expect("room");
    drop(file);
    let used = |name: &str| {
        fs::metadata(scene.path(name))
            .expect("it is there")
            .blocks()
            * 512
    };
    if used("image") > HOLE / 2 {
        return skip("this file system has no holes");
    }
    scene.succeeds(&["append", "t", "--to", "image"]);
    assert!(used("image") < HOLE / 2, "{} bytes", used("image"));
    scene.succeeds(&["strip", "image"]);
    assert!(used("image") < HOLE / 2, "{} bytes", used("image"));
    let mut expected = scene.read("plain");
    expected.resize(HOLE as usize, 0);
    expected.extend(b"the end");
    expected.resize(2 * HOLE as usize, 0);
    assert!(scene.read("image") == expected);
}

#[test]
fn symbolic_links_are_followed_and_stay() {
    let scene = Scene::new();
    fs::create_dir(scene.path("d")).expect("our directory");
    symlink("../image", scene.path("d/first")).expect("links");
    symlink("d/first", scene.path("second")).expect("links");
    scene.succeeds(&["append", "t", "--to", "second"]);
    assert!(scene.read("image").len() > scene.read("plain").len());
    scene.succeeds(&["strip", "second"]);
    assert!(scene.read("image") == scene.read("plain"));
    // To where there is nothing yet.
    symlink("d/table", scene.path("new")).expect("links");
    scene.succeeds(&["build", "plain", "-o", "new"]);
    assert!(scene.read("d/table") == scene.read("t"));
    symlink("loop", scene.path("loop")).expect("links");
    scene.refuses(
        &["build", "plain", "-o", "loop"],
        exit::FAILED,
        "symbolic link",
    );
    for link in ["second", "d/first", "new"] {
        assert!(scene.path(link).is_symlink(), "{link}");
    }
}

#[test]
fn a_fifo_never_hangs_and_is_never_replaced() {
    let scene = Scene::new();
    let fifo = scene.fifo("fifo");
    let pipe = "is a device, socket or pipe; name a file";
    scene.refuses(&["append", "t", "--to", "fifo"], exit::FAILED, pipe);
    scene.refuses(&["append", "fifo", "--to", "image"], exit::FAILED, pipe);
    scene.refuses(&["strip", "fifo"], exit::FAILED, pipe);
    scene.refuses(&["build", "fifo", "-o", "x"], exit::FAILED, pipe);
    // With no log.
    scene.refuses(&["decode", "--vmlinux", "fifo"], exit::FAILED, pipe);
    scene.refuses(
        &["build", "plain", "-o", "fifo"],
        exit::FAILED,
        "is a FIFO that no process reads",
    );
    // Opened for both, so that it does not wait for a writer.
    let reader = OpenOptions::new().read(true).write(true).open(&fifo);
    let reader = reader.expect("our FIFO");
    scene.succeeds(&["build", "plain", "-o", "fifo"]);
    let mut got = vec![0; scene.read("t").len()];
    std::io::Read::read_exact(&mut &reader, &mut got).expect("it was written");
    assert!(got == scene.read("t"));
    let kind = fs::symlink_metadata(&fifo)
        .expect("it is there")
        .file_type();
    assert!(kind.is_fifo());
}

#[test]
fn what_others_have_open_is_written_to() {
    let scene = Scene::new();
    let table = scene.read("t");
    // A pipe: all that is on stdout is the table.
    let output = scene.succeeds(&["build", "plain", "-o", "/dev/stdout"]);
    assert!(output.stdout == table);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("/dev/stdout: packed, full"), "{stderr}");

    // Files, under the shell's rules.
    let shell = |script: &str| {
        let program = Command::new("sh")
            .args(["-c", script])
            .env("LINEINFO", LINEINFO)
            .current_dir(scene.directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let output = finish(program.expect("sh"));
        assert!(output.status.success(), "{script}: {output:?}");
    };
    for (script, before, after) in [
        ("$LINEINFO build plain -o /dev/stdout > x", "", ""),
        ("$LINEINFO build plain -o /proc/self/fd/1 > x", "", ""),
        ("$LINEINFO build plain -o x > x", "", ""),
        ("$LINEINFO build plain -o /dev/fd/3 3> x", "", ""),
        (
            "{ echo before; $LINEINFO build plain -o /dev/stdout; echo after; } > x",
            "before\n",
            "after\n",
        ),
        (
            "rm x; { echo before >&3; $LINEINFO build plain -o /dev/fd/3; echo after >&3; } 3>> x",
            "before\n",
            "after\n",
        ),
        (
            "echo before > x; $LINEINFO build plain -o /dev/stdout >> x",
            "before\n",
            "",
        ),
    ] {
        shell(script);
        let expected = [before.as_bytes(), &table, after.as_bytes()].concat();
        assert!(scene.read("x") == expected, "{script}");
    }
}

#[test]
fn a_device_is_written_to_and_never_replaced() {
    let scene = Scene::new();
    // Never a device of this machine: replaced, it would be lost.
    for (name, minor) in [("null", "3"), ("full", "7")] {
        let device = scene.path(name);
        let made = Command::new("mknod")
            .arg(&device)
            .args(["c", "1", minor])
            .stderr(Stdio::null())
            .status();
        if !made.is_ok_and(|made| made.success())
            || OpenOptions::new().write(true).open(&device).is_err()
        {
            return skip("to make a device needs root, and a file system with devices");
        }
    }
    scene.succeeds(&["build", "plain", "-o", "null"]);
    scene.refuses(
        &["build", "plain", "-o", "full"],
        exit::FAILED,
        "No space left on device",
    );
    symlink("null", scene.path("link")).expect("links");
    scene.succeeds(&["build", "plain", "-o", "link"]);
    for device in ["null", "full", "link"] {
        let kind = fs::metadata(scene.path(device))
            .expect("it is there")
            .file_type();
        assert!(kind.is_char_device(), "{device}");
        scene.refuses(
            &["append", "t", "--to", device],
            exit::FAILED,
            "is a device",
        );
        scene.refuses(&["strip", device], exit::FAILED, "is a device");
    }
}

#[test]
fn the_input_is_never_the_output() {
    let scene = Scene::new();
    symlink("image", scene.path("link")).expect("links");
    for output in ["image", "./image", "link"] {
        scene.refuses(
            &["build", "image", "-o", output],
            exit::USAGE,
            "is an input of this command",
        );
    }
    scene.refuses(
        &["append", "t", "--to", "t"],
        exit::USAGE,
        "is an input of this command",
    );
}

#[test]
fn a_limit_of_file_size_leaves_everything_as_it_was() {
    let scene = Scene::new();
    let mut image = scene.read("plain");
    image.resize(1 << 20, 0x90);
    scene.write("image", &image);
    let before = scene.state();
    // Half a megabyte, in blocks of 512 bytes: SIGXFSZ, or EFBIG where that is ignored.
    for trap in ["", "trap '' XFSZ;"] {
        let script = format!("{trap} ulimit -f 1024; exec {LINEINFO} append t --to image");
        let program = Command::new("sh")
            .args(["-c", &script])
            .current_dir(scene.directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let output = finish(program.expect("sh"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            stderr.contains("image: cannot be written: File too large"),
            "{stderr}"
        );
        assert_eq!(scene.state(), before);
    }
}

#[test]
fn leftovers_are_removed_and_nothing_else() {
    let scene = Scene::new();
    scene.write(".lineinfo-abc123.tmp", b"left by a run that was killed");
    // Not a name of ours, or not a file.
    let others = [
        ".lineinfo-",
        ".lineinfo-.tmp",
        ".lineinfo-a.b.tmp",
        ".lineinfo-abc123",
        "lineinfo-abc123.tmp",
    ];
    for other in others {
        scene.write(other, b"of somebody else");
    }
    fs::create_dir(scene.path(".lineinfo-directory.tmp")).expect("our directory");
    scene.fifo(".lineinfo-fifo.tmp");
    symlink("plain", scene.path(".lineinfo-link.tmp")).expect("links");
    // Of a run that lives.
    scene.write(".lineinfo-alive.tmp", b"half");
    let alive = File::open(scene.path(".lineinfo-alive.tmp")).expect("our file");
    alive.lock().expect("flock");

    scene.succeeds(&["append", "t", "--to", "image"]);
    assert!(!scene.path(".lineinfo-abc123.tmp").exists());
    let stays = ["directory", "fifo", "link", "alive"].map(|name| format!(".lineinfo-{name}.tmp"));
    for name in others.into_iter().chain(stays.iter().map(String::as_str)) {
        assert!(fs::symlink_metadata(scene.path(name)).is_ok(), "{name}");
    }
    drop(alive);
    scene.succeeds(&["strip", "image"]);
    assert!(!scene.path(".lineinfo-alive.tmp").exists());
}

#[test]
fn runs_at_the_same_time_do_not_hurt_each_other() {
    let scene = Scene::new();
    let plain = scene.read("plain");
    scene.succeeds(&["append", "t", "--to", "image"]);
    let appended = scene.read("image");
    for _ in 0..10 {
        let children: Vec<Child> = (0..6)
            .map(|number| {
                let arguments: &[&str] = match number % 3 {
                    0 => &["append", "t", "--to", "image"],
                    1 => &["strip", "image"],
                    _ => &["build", "plain", "-o", "x"],
                };
                scene.command(arguments).spawn().expect("runs")
            })
            .collect();
        for child in children {
            let output = finish(child);
            let stderr = String::from_utf8_lossy(&output.stderr);
            let refused = ["was changed by another program", "nothing is appended"];
            let expected = refused.iter().any(|words| stderr.contains(words));
            assert!(output.status.success() || expected, "{output:?}");
        }
        let image = scene.read("image");
        assert!(image == plain || image == appended);
        assert!(scene.read("x") == scene.read("t"));
        assert_eq!(scene.temporary_files(), 0);
    }
}

#[test]
fn a_file_that_another_program_changes_meanwhile_is_left_alone() {
    let scene = Scene::new();
    let path = scene.path("image");
    let opened = fs::metadata(&path).expect("it is there");
    let output = output::Output::in_place_of(&path, &opened, HardLinks::Refuse).expect("a file");
    // Time that the file system's clock can see.
    std::thread::sleep(Duration::from_millis(20));
    let result = output.write(|to| {
        // A package manager installs another kernel.
        fs::write(scene.path("new"), b"another kernel").expect("room");
        fs::rename(scene.path("new"), &path).expect("our directory");
        to.write_all(b"a copy of the old kernel")
    });
    assert!(matches!(
        result,
        Err(lineinfo_cli::Error::Output {
            source: OutputError::Changed,
            ..
        })
    ));
    assert!(scene.read("image") == b"another kernel");
    assert_eq!(scene.temporary_files(), 0);
}

#[test]
fn what_becomes_a_device_or_directory_meanwhile_is_left_alone() {
    let scene = Scene::new();
    let path = scene.path("x");
    let output = output::Output::at(&path, HardLinks::Refuse).expect("a new file");
    let result = output.write(|to| {
        scene.fifo("x");
        to.write_all(b"a table")
    });
    assert!(result.is_err());
    let kind = fs::symlink_metadata(&path)
        .expect("it is there")
        .file_type();
    assert!(kind.is_fifo());
    assert_eq!(scene.temporary_files(), 0);
}

#[test]
fn nobody_else_reads_what_is_being_written() {
    let scene = Scene::new();
    let path = scene.path("image");
    let output = output::Output::at(&path, HardLinks::Refuse).expect("a file");
    output
        .write(|to| {
            let mode = to.metadata()?.mode() & 0o7777;
            assert_eq!(mode, 0o600);
            to.write_all(b"x")
        })
        .expect("it is written");
}

/// A name that is not UTF-8 comes out as it is in DWARF, to the byte, and is what the reference says.
#[test]
fn file_names_keep_their_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let mut elf = fs::read("tests/cmd/lineinfo.in/demo.elf").expect("the demo");
    let (name, new) = (&b"read_write.c"[..], &b"read\xe9write.c"[..]);
    let found: Vec<usize> = (0..elf.len())
        .filter(|at| elf[*at..].starts_with(name))
        .collect();
    assert!(!found.is_empty());
    for start in found {
        elf[start..start + new.len()].copy_from_slice(new);
    }
    fs::write(at("elf"), elf).expect("room");
    let run = |arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(LINEINFO)
            .args(arguments)
            .output()
            .expect("lineinfo");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let (elf, table) = (at("elf"), at("table"));
    run(&[
        "build".as_ref(),
        elf.as_ref(),
        "-o".as_ref(),
        table.as_ref(),
    ]);
    run(&[
        "verify".as_ref(),
        table.as_ref(),
        "--against".as_ref(),
        elf.as_ref(),
    ]);
    let rows = run(&["dump".as_ref(), table.as_ref(), "--rows".as_ref()]);
    let row = rows
        .split(|byte| *byte == b'\n')
        .find(|row| row.windows(new.len()).any(|bytes| bytes == new))
        .expect("a row of that file");
    let address = row.split(|byte| *byte == b' ').next().expect("an address");
    let address = std::str::from_utf8(address).expect("digits");
    let said = run(&["lookup".as_ref(), table.as_ref(), address.as_ref()]);
    assert_eq!(said.trim_ascii_end(), row);
}
