//! A store has tables by build-id, and the log says a release alone.

use std::io::Write;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use lineinfo_core::Table;
use lineinfo_core::blob::Profile;
use lineinfo_core::writer::with_symbols;
use tempfile::TempDir;

use crate::synthetic::{Function, lineinfo, table, write};

const SIZE: u64 = 0x20;

/// A store, in a directory of its own.
struct Store(TempDir);

impl Store {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    /// Adds a table of a kernel, or of a module, with one function; its build-id is a byte twenty times.
    fn add(&self, function: &str, module: &str, release: &str, build_id: u8) {
        let functions = [&Function::new(function, SIZE)];
        let file = format!("of-{build_id:02x}.c");
        let text_start = if module.is_empty() { 0x1000 } else { 0 };
        let table = table(
            &[file],
            &functions,
            &[build_id; 20],
            text_start,
            Profile::Full,
        );
        let mut contents = format!("{module}\0{release}\0\u{1}{function}\0").into_bytes();
        contents.extend([0, SIZE as u8, 0]);
        let mut section = (contents.len() as u32).to_le_bytes().to_vec();
        let mut encoder = DeflateEncoder::new(&mut section, Compression::best());
        encoder.write_all(&contents).expect("room");
        encoder.finish().expect("room");
        let parsed = Table::parse(&table).expect("a table");
        let table = with_symbols(&parsed, &section).expect("a table");
        let id = format!("{build_id:02x}");
        let path = format!(".build-id/{id}/{}.lineinfo", id.repeat(19));
        write(&self.0.path().join(path), &table);
    }

    /// Decodes a log of a release: output, status, messages.
    fn decode(&self, release: &str, frames: &str) -> (String, i32, String) {
        self.decode_with(&[], release, frames)
    }

    /// The same with more arguments.
    fn decode_with(
        &self,
        arguments: &[&str],
        release: &str,
        frames: &str,
    ) -> (String, i32, String) {
        let log = self.0.path().join("log");
        let head = format!("CPU: 0 PID: 1 Comm: x Not tainted {release} #1\n");
        write(&log, (head.clone() + frames).as_bytes());
        let output = lineinfo()
            .args(["decode", "--dir"])
            .args([self.0.path(), &log])
            .args(arguments)
            .env("XDG_CACHE_HOME", self.0.path().join("cache"))
            .stdin(Stdio::null())
            .output()
            .expect("the binary");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let status = output.status.code().expect("no signal");
        let out = text(output.stdout);
        let out = out.strip_prefix(&head).unwrap_or(&out).to_owned();
        (out, status, text(output.stderr))
    }
}

#[test]
fn a_kernel_and_its_modules_are_found_by_release() {
    let store = Store::new();
    store.add("do_x", "", "6.1.0", 1);
    store.add("do_x", "", "6.2.0", 2);
    store.add("m_x", "nf_x", "6.1.0", 3);
    store.add("m_x", "nf_x", "6.2.0", 4);
    // What is no table, or has no symbols, is no obstacle.
    write(&store.0.path().join(".build-id/05/05.lineinfo"), b"short");
    for (release, kernel, module) in [("6.1.0", 1, 3), ("6.2.0", 2, 4)] {
        let (out, status, said) = store.decode(release, " do_x+0x5/0x20\n m_x+0x5/0x20 [nf_x]\n");
        let expected = format!(
            " do_x+0x5/0x20 (of-{kernel:02x}.c:5)\n m_x+0x5/0x20 [nf_x] (of-{module:02x}.c:5)\n"
        );
        assert_eq!((out, status), (expected, 0), "{said}");
    }
    let (out, status, said) = store.decode("6.3.0", " do_x+0x5/0x20\n");
    assert_eq!((out.as_str(), status), ("", 1), "{said}");
}

#[test]
fn several_builds_of_a_release_are_refused() {
    let store = Store::new();
    store.add("do_x", "", "6.1.0", 1);
    store.add("m_x", "nf_x", "6.1.0", 3);
    store.add("m_x", "nf_x", "6.1.0", 4);
    let frames = " do_x+0x5/0x20\n m_x+0x5/0x20 [nf_x]\n";
    let (out, status, said) = store.decode("6.1.0", frames);
    let expected = " do_x+0x5/0x20 (of-01.c:5)\n m_x+0x5/0x20 [nf_x]\n";
    assert_eq!(out, expected, "{said}");
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("module nf_x of release 6.1.0 is there in several builds"),
        "{said}"
    );
    store.add("do_x", "", "6.1.0", 2);
    let (out, status, said) = store.decode("6.1.0", frames);
    assert_eq!((out.as_str(), status), ("", 2), "{said}");
    for words in [
        "several builds",
        &"01".repeat(20),
        &"02".repeat(20),
        "--table",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// A kernel that kexec started, or the next boot, goes on in the same log.
#[test]
fn a_log_of_several_kernels_is_refused_or_read_by_key() {
    let store = Store::new();
    store.add("do_x", "", "6.1.0", 1);
    store.add("do_x", "", "6.2.0", 2);
    let frame = " do_x+0x5/0x20";
    let frames = format!("{frame}\nLinux version 6.2.0 (x@y) #1\n{frame}\n");
    let (out, status, said) = store.decode("6.1.0", &frames);
    assert_eq!((out.as_str(), status), ("", 4), "{said}");
    assert!(said.contains("--key host"), "{said}");
    let (out, status, said) = store.decode_with(&["--key", "host"], "6.1.0", &frames);
    let expected =
        format!("{frame} (of-01.c:5)\nLinux version 6.2.0 (x@y) #1\n{frame} (of-02.c:5)\n");
    assert_eq!((out, status), (expected, 0), "{said}");
}
