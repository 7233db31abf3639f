//! What is not annotated passes as it is, at once; and what is said of the log.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::search::compressed;
use crate::synthetic::{Function, Synthetic, decode, lineinfo};

/// A kernel with one function.
fn kernel() -> Synthetic {
    Synthetic::new(BTreeSet::from([Function::new("f", 0x40)]))
}

const FRAME: &str = " f+0x10/0x40";
const ANNOTATED: &str = " f+0x10/0x40 (s0.c:16)";

/// What comes out for a log.
fn out(kernel: &Synthetic, log: &[u8]) -> Vec<u8> {
    decode(&kernel.arguments(), log).stdout
}

#[test]
fn bytes_pass_as_they_are() {
    let kernel = kernel();
    let long = "x".repeat(100_000);
    for text in [
        "",
        "\n",
        "no newline",
        "\r\n\r\n",
        "a\0b\0\n",
        "+0x+0x/0x+0x1/0x\n",
        &long,
    ] {
        assert_eq!(out(&kernel, text.as_bytes()), text.as_bytes(), "{text:?}");
    }
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    assert_eq!(out(&kernel, &bytes), bytes);
}

#[test]
fn stdin_has_a_name_as_well() {
    let kernel = kernel();
    let decode = |more: &[&str]| {
        let more = more.iter().map(|&more| more.to_owned());
        let arguments: Vec<String> = kernel.arguments().into_iter().chain(more).collect();
        decode(&arguments, FRAME.as_bytes())
    };
    assert_eq!(decode(&["-"]).stdout, ANNOTATED.as_bytes());
    // It would wait for what never comes.
    assert_eq!(decode(&["--follow", "-"]).status.code(), Some(2));
}

#[test]
fn frames_among_any_bytes() {
    let kernel = kernel();
    let long = "x".repeat(100_000);
    for (before, after) in [
        ("", ""),
        ("", "\r\n"),
        ("caf\u{e9}: ", "\n"),
        ("\0", "\0\n"),
        (&long, "\n"),
        ("", &*format!(" {long}")),
    ] {
        let log = format!("{before}{FRAME}{after}");
        let expected = format!("{before}{ANNOTATED}{after}");
        assert!(
            out(&kernel, log.as_bytes()) == expected.as_bytes(),
            "{log:.80?}"
        );
    }
    let log = [b"\xff\xfe", FRAME.as_bytes(), b"\xe9\n"].concat();
    let expected = [b"\xff\xfe", ANNOTATED.as_bytes(), b"\xe9\n"].concat();
    assert_eq!(out(&kernel, &log), expected);
}

#[test]
fn a_compressed_log_is_decompressed() {
    let kernel = kernel();
    let log = format!("{FRAME}\n").repeat(50_000);
    let expected = format!("{ANNOTATED}\n").repeat(50_000);
    for end in [".gz", ".xz", ".zst"] {
        let packed = compressed(end, log.as_bytes());
        assert!(out(&kernel, &packed) == expected.as_bytes(), "{end}");
        // Cut short: what there is, and an error.
        let output = decode(&kernel.arguments(), &packed[..packed.len() - 6]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{end}: {said}");
        assert!(said.contains("lineinfo: stdin: "), "{end}: {said}");
        let whole = &output.stdout[..output.stdout.len() / 2];
        assert!(expected.as_bytes().starts_with(whole), "{end}");
    }
}

#[test]
fn what_is_no_log_is_refused() {
    let kernel = kernel();
    let utf16: Vec<u8> = FRAME.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [b"\xff\xfe", &utf16[..]].concat();
    let big: Vec<u8> = FRAME.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for (log, what) in [
        (&utf16[..], "text in UTF-16"),
        (&marked, "text in UTF-16"),
        (&big, "text in UTF-16"),
        (b"BZh91AY&SY", "compressed by bzip2"),
        (b"\x7fELF\x02\x01\x01\0", "an ELF file"),
        (b"LPKSHHRH\0\0\0\0", "a journal of systemd"),
        (b"KDUMP   \0\0\0\0", "a dump of a kernel"),
    ] {
        let output = decode(&kernel.arguments(), log);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let out = (output.status.code(), output.stdout.len());
        assert_eq!(out, (Some(1), 0), "{what}: {said}");
        assert!(said.contains(what), "{what}: {said}");
    }
    // Zeros and frames: a console; zeros and none: perhaps not.
    let output = decode(&kernel.arguments(), format!("\0\0{FRAME}").as_bytes());
    assert!(!String::from_utf8_lossy(&output.stderr).contains("unknown kind"));
    let output = decode(&kernel.arguments(), b"\x01\0\x02\0\0\0\0");
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown kind"));
}

#[test]
fn what_is_annotated_stays_as_it_is() {
    let kernel = kernel();
    let once = out(&kernel, FRAME.as_bytes());
    assert_eq!(out(&kernel, &once), once);
}

/// Waits for some bytes of a child's output.
fn expect(from: &mut impl Read, expected: &str) {
    let mut found = vec![0; expected.len()];
    from.read_exact(&mut found).expect("output");
    assert_eq!(String::from_utf8_lossy(&found), expected);
}

#[test]
fn a_line_comes_out_before_the_next_one_comes_in() {
    let kernel = kernel();
    let mut child = lineinfo()
        .arg("decode")
        .args(kernel.arguments())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = child.stdout.take().expect("a pipe");
    // The third line waits for what decides it, and not for ever.
    let warning = "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x10/0x40";
    for (line, expected) in [
        ("hello", "hello"),
        (FRAME, ANNOTATED),
        (
            warning,
            "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x10/0x40 (s0.c:17)",
        ),
        ("\u{fffd}", "\u{fffd}"),
    ] {
        writeln!(stdin, "{line}").expect("a reader");
        expect(&mut stdout, &format!("{expected}\n"));
    }
    drop(stdin);
    assert!(child.wait().expect("an end").success());
}

#[test]
fn a_file_that_grows_is_followed() {
    let kernel = kernel();
    let path = kernel.path("growing.log");
    std::fs::write(&path, "first\n").expect("a file");
    let mut child = lineinfo()
        .arg("decode")
        .args(kernel.arguments())
        .arg("--follow")
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary");
    let mut stdout = child.stdout.take().expect("a pipe");
    expect(&mut stdout, "first\n");
    let mut file = std::fs::File::options()
        .append(true)
        .open(&path)
        .expect("the file");
    writeln!(file, "{FRAME}").expect("room");
    expect(&mut stdout, &format!("{ANNOTATED}\n"));
    child.kill().expect("it runs");
    child.wait().expect("an end");
}

#[test]
fn a_warning_is_decided_by_what_follows() {
    let kernel = kernel();
    let header = "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x10/0x40";
    for (name, follows, line) in [
        ("a trap", "RIP: 0010:f+0x10/0x40", 17),
        ("a call", " f+0x10/0x40", 16),
        ("a word of the stack", " ? f+0x10/0x40", 17),
        ("another function", "RIP: 0010:g+0x10/0x40", 17),
        ("nothing", "", 17),
    ] {
        let found = out(&kernel, format!("{header}\n{follows}\n").as_bytes());
        let expected = format!("{header} (s0.c:{line})\n");
        let found = String::from_utf8_lossy(&found).into_owned();
        assert!(found.starts_with(&expected), "{name}: {found}");
    }
    // Where nothing follows, the log's own location tells a return address.
    let printed = "WARNING: CPU: 0 PID: 1 at s0.c:16 f+0x10/0x40";
    let found = out(&kernel, printed.as_bytes());
    assert_eq!(found, format!("{printed} (s0.c:16)").as_bytes());
    // What would decide it is too far away.
    let far = format!("{header}\n{}\n f+0x10/0x40\n", "x\n".repeat(40_000));
    let found = out(&kernel, far.as_bytes());
    assert!(found.starts_with(format!("{header} (s0.c:17)\n").as_bytes()));
}

#[test]
fn a_summary_and_an_exit_status() {
    let kernel = Synthetic::new(BTreeSet::from([
        Function::new("f", 0x40),
        Function::new("g", 0x20),
    ]));
    for (log, status, summary) in [
        ("", 0, "0 frames, 0 annotated"),
        (" f+0x10/0x40\n", 0, "1 frame, 1 annotated"),
        (
            " f+0x10/0x40\n g+0x10/0x40\n h+0x1/0x2\n m+0x1/0x2 [nvidia(POE)]\n",
            3,
            "4 frames, 1 annotated, 1 of unknown symbols, 1 of symbols with another size here, \
             1 of modules without a table (nvidia)",
        ),
        (
            " f+0x10/0x40\n m+0x1/0x2 [nvidia]\n",
            0,
            "2 frames, 1 annotated, 1 of modules without a table (nvidia)",
        ),
    ] {
        let output = decode(&kernel.arguments(), log.as_bytes());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{log}{stderr}");
        assert!(
            stderr.ends_with(&format!("lineinfo: {summary}\n")),
            "{stderr}"
        );
    }
}

#[test]
fn a_module_without_a_table_is_named_once() {
    let kernel = kernel();
    let log = " m+0x1/0x2 [nvidia]\n n+0x1/0x2 [nvidia]\n".repeat(3);
    let output = decode(&kernel.arguments(), log.as_bytes());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        stderr.matches("no table of the module nvidia").count(),
        1,
        "{stderr}"
    );
    assert_eq!(output.stdout, log.as_bytes());
}

#[test]
fn json_has_an_object_for_each_frame_and_one_for_the_summary() {
    let kernel = kernel();
    let log =
        "RIP: 0010:f+0x10/0x40\nhello\n ? f+0x8/0x40\n f+0x0/0x40\n m+0x1/0x2 [nvidia 0aff]\n";
    let mut arguments = kernel.arguments();
    arguments.push("--json".to_owned());
    let output = decode(&arguments, log.as_bytes());
    let text = String::from_utf8(output.stdout).expect("text");
    let objects: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let field = |object: usize, name: &str| objects[object][name].clone();
    assert_eq!(objects.len(), 5, "{text}");
    for (object, kind, line) in [(0, "exact", 17), (1, "unreliable", 8), (2, "start", 1)] {
        assert_eq!(field(object, "type"), "frame");
        assert_eq!(field(object, "format_version"), 1);
        assert_eq!(field(object, "kind"), kind);
        assert_eq!(field(object, "file"), "s0.c");
        assert_eq!(field(object, "line"), line);
        assert_eq!(field(object, "approximate"), kind == "start");
    }
    assert_eq!(field(1, "log_line"), 3);
    assert_eq!(field(3, "module"), "nvidia");
    assert_eq!(field(3, "module_build_id"), "0aff");
    assert_eq!(field(3, "status"), "no table of the module");
    assert_eq!(field(4, "type"), "summary");
    assert_eq!(field(4, "frames"), 4);
    assert_eq!(field(4, "annotated"), 3);
}

#[test]
fn locations_are_in_colour_where_it_is_wanted() {
    let kernel = kernel();
    let mut arguments = kernel.arguments();
    arguments.extend(["--color".to_owned(), "always".to_owned()]);
    let output = decode(&arguments, FRAME.as_bytes());
    assert_eq!(
        output.stdout,
        format!("{FRAME} \x1b[36m(s0.c:16)\x1b[0m").as_bytes()
    );
}

#[test]
fn a_long_log_is_read_in_time_and_memory_of_its_lines() {
    let kernel = kernel();
    let start = Instant::now();
    // A line without an end, and one of nothing but the beginnings of frames.
    for log in [
        "x".repeat(8 << 20),
        "+0x".repeat(1 << 20),
        "a::".repeat(1 << 20),
    ] {
        assert!(out(&kernel, log.as_bytes()) == log.as_bytes());
    }
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}

/// A `WARN` whose function has another size is one frame, and not one for each kind that it may be: the log is
/// not that of another kernel yet.
#[test]
fn one_warning_of_another_size_is_one_frame() {
    let log = b"WARNING: CPU: 0 PID: 1 at a.c:1 f+0x10/0x4f\n";
    assert_eq!(out(&kernel(), log), log);
}

/// What logs are made of.
const PIECES: [&[u8]; 18] = [
    b" f+0x10/0x40",
    b"WARNING: CPU: 0 PID: 1 at a.c:1 f+0x10/0x40",
    b"RIP: 0010:",
    b"[    1.000000][    C1] ",
    b"\n",
    b"\r\n",
    b"\x1b[31m",
    b"\xff",
    b" (P)",
    b" [xfs",
    b"]",
    b"+0x",
    b"::",
    b"<",
    b">",
    b"f",
    b"?",
    b"\0",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever a log is made of, taking out what was put in gives the log again.
    #[test]
    fn nothing_is_lost(pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..400)) {
        let log = pieces.concat();
        let mut found = out(&kernel(), &log);
        for location in ["16", "17", "~1", "1"].map(|line| format!(" (s0.c:{line})").into_bytes()) {
            while let Some(at) = found.windows(location.len()).position(|window| window == location) {
                found.drain(at..at + location.len());
            }
        }
        prop_assert_eq!(found, log);
    }
}
