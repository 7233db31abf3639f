//! `lineinfo sign`: what it signs with, what stays signed, and what is noticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lineinfo_cli::error::exit;
use lineinfo_core::{Table, writer};
use tempfile::TempDir;

/// The example of RFC 8410, and its public key.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
const PUBLIC: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";

/// A directory with the table `t`, the image `image` that it is of, and the key `key`.
struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().expect("a directory"));
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd/lineinfo.in/demo.elf");
        fs::copy(&demo, scene.path("image")).expect("room");
        fs::write(scene.path("key"), PEM).expect("room");
        scene.succeeds(&["build", "image", "-o", "t"]);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("it is there")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lineinfo"));
        command.args(arguments).current_dir(self.0.path());
        command.output().expect("it starts")
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn fails(&self, arguments: &[&str], status: u8) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status.into()), "{said}");
        said
    }
}

#[test]
fn a_key_of_openssl_signs_and_the_table_says_by_whom() {
    let scene = Scene::new();
    let said = scene.succeeds(&["sign", "t", "--key", "key", "-o", "s"]);
    assert!(said.contains("signed by key 19bf44096984cdfe; "), "{said}");
    assert!(said.contains(&format!("lineinfo.key={PUBLIC}")), "{said}");
    assert!(!scene.succeeds(&["dump", "t"]).contains("signed"));
    let dump = scene.succeeds(&["dump", "s"]);
    assert!(
        dump.contains(&format!("signed by key    {PUBLIC}\n")),
        "{dump}"
    );
    let json = scene.succeeds(&["dump", "--json", "s"]);
    assert!(
        json.contains(&format!("\"signed_by\":\"{PUBLIC}\"")),
        "{json}"
    );
    // The answers are those of the table.
    let rows = |name| scene.succeeds(&["dump", "--rows", name]);
    assert_eq!(rows("s"), rows("t"));
    scene.succeeds(&["verify", "s", "--against", "image"]);

    // In place, and once more: the signature is replaced. Ed25519 has one for each message.
    scene.succeeds(&["sign", "t", "--key", "key"]);
    scene.succeeds(&["sign", "t", "--key", "key"]);
    assert_eq!(scene.read("t"), scene.read("s"));
    // The 32 bytes, and DER.
    let der = "302e020100300506032b657004220420d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842";
    let der: Vec<u8> = (0..der.len() / 2)
        .map(|at| u8::from_str_radix(&der[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect();
    for key in [&der[..], &der[16..]] {
        fs::write(scene.path("key"), key).expect("room");
        scene.succeeds(&["sign", "t", "--key", "key", "-o", "u"]);
        assert_eq!(scene.read("u"), scene.read("s"));
    }
    // A boot image carries it as it is.
    scene.succeeds(&["append", "s", "--to", "image"]);
    let (image, signed) = (scene.read("image"), scene.read("s"));
    assert!(image.windows(signed.len()).any(|window| window == signed));
}

#[test]
fn a_table_that_was_changed_is_noticed() {
    let scene = Scene::new();
    scene.succeeds(&["sign", "t", "--key", "key"]);
    let good = scene.read("t");
    let mut noticed = 0;
    for at in (20..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        writer::seal(&mut bad);
        if Table::parse(&bad)
            .and_then(|table| table.check_rows())
            .is_err()
        {
            continue;
        }
        fs::write(scene.path("bad"), &bad).expect("room");
        let said = scene.fails(&["dump", "bad"], exit::CORRUPT);
        assert!(said.contains("its signature does not match key "), "{said}");
        assert!(said.contains("`lineinfo sign`"), "{said}");
        noticed += 1;
    }
    assert!(noticed > 10, "{noticed}");
}

#[test]
fn what_is_no_private_key_is_named() {
    let scene = Scene::new();
    let before = scene.read("t");
    for (contents, found) in [
        (&b""[..], "0 bytes of something else"),
        (b"-----BEGIN PUBLIC KEY-----\n", "a PEM file of PUBLIC KEY"),
        (
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            "a PEM file of ENCRYPTED PRIVATE KEY",
        ),
        (&[0x30; 48], "48 bytes of something else"),
    ] {
        fs::write(scene.path("key"), contents).expect("room");
        let said = scene.fails(&["sign", "t", "--key", "key"], exit::FAILED);
        assert!(said.contains(found), "{said}");
        assert!(
            said.contains("openssl genpkey -algorithm ed25519"),
            "{said}"
        );
    }
    fs::write(scene.path("key"), PEM).expect("room");
    scene.fails(&["sign", "t", "--key", "none"], exit::FAILED);
    let said = scene.fails(&["sign", "t", "--key", "key", "-o", "key"], exit::USAGE);
    assert!(said.contains("is an input of this command"), "{said}");
    scene.fails(&["sign", "image", "--key", "key"], exit::CORRUPT);
    assert_eq!(scene.read("t"), before);
    assert_eq!(scene.read("key"), PEM.as_bytes());
}
