//! `--key host`: one stream from many machines.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use crate::synthetic::{Function, lineinfo, list, table, with_symbols_of, write};
use lineinfo_core::blob::Profile;

/// Kernels of two releases in a directory: `do_x` is in another file in each.
struct Kernels(TempDir);

impl Kernels {
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        for (number, release) in [(1_u8, "6.1.0"), (2, "6.2.0")] {
            // Its symbols do not say the release; the name of the file does.
            let function = Function::new("do_x", 0x20);
            let list = format!(
                "{}ffffffff81000020 T linux_banner\n",
                list(&[&function], 0xffff_ffff_8100_0000)
            );
            let files = [format!("of-{release}.c")];
            let table = table(
                &files,
                &[&function],
                &[number; 20],
                0xffff_ffff_8100_0000,
                Profile::Full,
            );
            let list_path = directory.path().join("list");
            write(&list_path, list.as_bytes());
            let table = with_symbols_of(&list_path, &table);
            let id = format!("{number:02x}");
            let path = format!(".build-id/{id}/{}.lineinfo", id.repeat(19));
            write(&directory.path().join(path), &table);
        }
        Self(directory)
    }

    /// Decodes a stream: output, status, messages.
    fn decode(&self, arguments: &[&str], stream: &[u8]) -> (String, i32, String) {
        let log = self.0.path().join("log");
        write(&log, stream);
        let output = lineinfo()
            .args(["decode", "--key", "host", "--dir"])
            .arg(self.0.path())
            .args(arguments)
            .arg(&log)
            .env("XDG_CACHE_HOME", self.0.path().join("cache"))
            .stdin(Stdio::null())
            .output()
            .expect("the binary");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let status = output.status.code().expect("no signal");
        (text(output.stdout), status, text(output.stderr))
    }
}

/// The line that names a kernel.
fn tainted(number: u8) -> String {
    let id = format!("{number:02x}").repeat(20);
    format!("CPU: 0 PID: 1 Comm: x Not tainted 6.{number}.0 #1 {id}")
}

const FRAME: &str = " do_x+0x5/0x20";

/// A stream in which `WHO:` stands for the head of a line.
fn stream(lines: &[(&str, &str)], head: impl Fn(&str) -> String) -> String {
    let lines = lines.iter().map(|(who, text)| head(who) + text + "\n");
    lines.collect()
}

#[test]
fn each_machine_has_its_kernel() {
    let kernels = Kernels::new();
    let (one, two) = (tainted(1), tainted(2));
    // The first frame is before its kernel is named, as in a WARN.
    let warn = "WARNING: CPU: 0 PID: 1 at x.c:1 do_x+0x5/0x20";
    let rip = "RIP: 0010:do_x+0x5/0x20";
    let sent = [
        ("web1", warn),
        ("db", FRAME),
        ("web1", one.as_str()),
        ("db", two.as_str()),
        ("db", FRAME),
        ("web1", rip),
        ("web1", FRAME),
        ("db", FRAME),
        // A machine boots another kernel.
        ("web1", two.as_str()),
        ("web1", FRAME),
        ("db", FRAME),
    ];
    let expected = [
        (
            "web1",
            "WARNING: CPU: 0 PID: 1 at x.c:1 do_x+0x5/0x20 (of-6.1.0.c:6)",
        ),
        ("db", " do_x+0x5/0x20 (of-6.2.0.c:5)"),
        ("web1", one.as_str()),
        ("db", two.as_str()),
        ("db", " do_x+0x5/0x20 (of-6.2.0.c:5)"),
        ("web1", "RIP: 0010:do_x+0x5/0x20 (of-6.1.0.c:6)"),
        ("web1", " do_x+0x5/0x20 (of-6.1.0.c:5)"),
        ("db", " do_x+0x5/0x20 (of-6.2.0.c:5)"),
        ("web1", two.as_str()),
        ("web1", " do_x+0x5/0x20 (of-6.2.0.c:5)"),
        ("db", " do_x+0x5/0x20 (of-6.2.0.c:5)"),
    ];
    let heads: [fn(&str) -> String; 5] = [
        |who| format!("Nov 25 12:58:43 {who} kernel: [    1.000000] "),
        |who| format!("2026-11-25T12:58:43.5+01:00 {who} kernel: "),
        |who| format!("<4>1 2026-11-25T12:58:43Z {who} kernel - - - "),
        |who| format!("{who} [    1.000000] "),
        |who| format!("{who} 4,12,1000000,-;"),
    ];
    for head in heads {
        let (out, status, said) = kernels.decode(&[], stream(&sent, head).as_bytes());
        assert_eq!(out, stream(&expected, head), "{said}");
        assert_eq!(status, 0, "{said}");
        assert!(said.contains("8 frames, 8 annotated"), "{said}");
    }
}

/// Two CPUs of a machine, whose messages netconsole tells apart.
#[test]
fn the_state_of_a_machine_is_that_of_its_callers() {
    let kernels = Kernels::new();
    let line =
        |caller, text: &str| format!("10.0.0.5 6.1.0,4,12,1000000,-,caller={caller};{text}\n");
    let sent = [
        line("C1", &tainted(1)),
        line("C1", "pc : do_x+0x5/0x20"),
        line("C2", FRAME),
        line("C1", FRAME),
    ];
    let (out, ..) = kernels.decode(&[], sent.concat().as_bytes());
    // The frame that is the program counter, on the CPU that has it.
    let lines: Vec<&str> = out
        .lines()
        .filter_map(|line| line.rsplit(".c:").next())
        .collect();
    assert_eq!(lines[1..], ["6)", "5)", "6)"], "{out}");
}

#[test]
fn entries_of_a_journal() {
    let kernels = Kernels::new();
    let entry = |who: &str, text: &str, end: &str| {
        format!(
            "__CURSOR=s=1\n_TRANSPORT=kernel\nMESSAGE={text}{end}\nPRIORITY=4\n_HOSTNAME={who}\n\n"
        )
    };
    let binary = |data: &[u8]| {
        let len = (data.len() as u64).to_le_bytes();
        [
            b"__CURSOR=s=2\nMESSAGE\n",
            &len[..],
            data,
            b"\n_HOSTNAME=a\n\n",
        ]
        .concat()
    };
    // With newlines, an empty line, and what looks like a frame.
    let odd = binary(b"x\n\n__CURSOR=y\n do_x+0x5/0x20\n\xff");
    // Its size has a newline in it.
    let long = binary(&[b'z'; 0x0a]);
    let sent = [
        entry("a", &tainted(1), "").into_bytes(),
        odd.clone(),
        entry("b", &tainted(2), "").into_bytes(),
        long.clone(),
        entry("a", FRAME, "").into_bytes(),
        entry("b", FRAME, "").into_bytes(),
        b"__CURSOR=without an end\n".to_vec(),
    ];
    let expected = [
        sent[0].clone(),
        odd,
        sent[2].clone(),
        long,
        entry("a", FRAME, " (of-6.1.0.c:5)").into_bytes(),
        entry("b", FRAME, " (of-6.2.0.c:5)").into_bytes(),
        sent[6].clone(),
    ];
    let (out, status, said) = kernels.decode(&[], &sent.concat());
    assert_eq!(out, String::from_utf8_lossy(&expected.concat()), "{said}");
    assert_eq!(status, 0, "{said}");
}

#[test]
fn a_machine_without_a_table_does_not_stop_the_others() {
    let kernels = Kernels::new();
    let (one, other) = (tainted(1), tainted(9));
    let sent = [
        ("a", other.as_str()),
        ("a", FRAME),
        ("b", one.as_str()),
        ("b", FRAME),
        ("a", FRAME),
    ];
    let head = |who: &str| format!("Nov 25 12:58:43 {who} kernel: ");
    let (out, status, said) = kernels.decode(&[], stream(&sent, head).as_bytes());
    assert_eq!(out.matches(".c:").count(), 1, "{out}");
    assert_eq!(status, 3, "{said}");
    // Once, and not for each frame.
    assert_eq!(said.matches("no vmlinux of 6.9.0").count(), 1, "{said}");
    assert!(said.contains("2 of kernels without a table"), "{said}");
    let (out, ..) = kernels.decode(&["--json"], stream(&sent, head).as_bytes());
    let objects: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    assert_eq!(objects.len(), 4);
    assert_eq!(objects[1]["host"], "b");
    assert_eq!(objects[1]["file"], "of-6.1.0.c");
    assert_eq!(objects[2]["status"], "no table of the kernel");
    assert_eq!(objects[3]["no_kernel"], 2);
}

/// A release whose functions have other sizes was built again.
#[test]
fn another_build_of_the_release_is_reported() {
    let kernels = Kernels::new();
    let table = format!(".build-id/01/{}.lineinfo", "01".repeat(19));
    let table = kernels.0.path().join(table);
    let named = ["--table", table.to_str().expect("text")];
    let head = |who: &str| format!("Nov 25 12:58:43 {who} kernel: ");
    let release = "CPU: 0 PID: 1 Comm: x Not tainted 6.1.0 #1";
    let sent = [
        ("a", release),
        ("a", " do_x+0x5/0x30"),
        ("a", " do_x+0x6/0x30"),
    ];
    let sent = stream(&sent, head);
    let (out, status, said) = kernels.decode(&named, sent.as_bytes());
    assert_eq!((out, status), (sent, 4), "{said}");
    assert!(said.contains("another build of a kernel"), "{said}");
    assert!(Path::new(&table).exists());
}
