//! JSON documents are as their schemas say, and every command that prints some has a schema.

mod schema;

use std::process::Command;

use clap::CommandFactory;
use lineinfo_cli::cmd::Cli;
use serde_json::Value;

const DEMO: &str = "tests/cmd/lineinfo.in/demo.elf";

/// What a command prints, which is checked against its schema.
fn documents(command: &str, arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_lineinfo"))
        .arg(command)
        .arg("--json")
        .args(arguments)
        .output()
        .expect("lineinfo runs");
    match schema::check(command, &output.stdout) {
        Ok(documents) => documents,
        Err(error) => panic!("{error} {output:?}"),
    }
}

/// A table of the demo, with more arguments for `build`.
fn table(more: &[&str]) -> tempfile::TempPath {
    let table = tempfile::NamedTempFile::new()
        .expect("room")
        .into_temp_path();
    let status = Command::new(env!("CARGO_BIN_EXE_lineinfo"))
        .args(["build", DEMO, "-o"])
        .arg(&table)
        .args(more)
        .output()
        .expect("lineinfo runs")
        .status;
    assert!(status.success());
    table
}

/// Every object of a schema names all of its fields, so that no field comes or goes unnoticed.
fn assert_is_strict(command: &str, schema: &Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") {
                let closed = ["additionalProperties", "unevaluatedProperties"];
                let is_closed = |name| fields.get(name) == Some(&Value::Bool(false));
                assert!(closed.into_iter().any(is_closed), "{command}: {schema}");
            }
            fields
                .values()
                .for_each(|value| assert_is_strict(command, value));
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| assert_is_strict(command, value)),
        _ => {}
    }
}

#[test]
fn commands_with_json_have_a_schema() {
    let cli = Cli::command();
    let with_json: Vec<&str> = cli
        .get_subcommands()
        .filter(|command| {
            command
                .get_arguments()
                .any(|argument| argument.get_id() == "json")
        })
        .map(clap::Command::get_name)
        .collect();
    assert!(with_json.contains(&"dump"));
    for command in with_json {
        match schema::of(command) {
            Ok(schema) => assert_is_strict(command, &schema),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_document_that_is_not_as_its_schema_says_is_found() {
    assert!(schema::check("dump", b"{\"format_version\":1}\n").is_err());
    assert!(schema::check("dump", b"").is_err());
    assert!(schema::check("nothing", b"{}\n").is_err());
}

#[test]
fn dump() {
    let table = table(&["--encoding=packed", "--inlines"]);
    let path = table.to_str().expect("UTF-8");
    let documents = documents("dump", &[path]);
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0]["encoding"], "packed");

    let documents = self::documents("dump", &["--tree", path]);
    let directories = documents[0]["directories"].as_array().expect("an array");
    let paths: Vec<_> = directories.iter().map(|one| &one["path"]).collect();
    assert_eq!(paths.len(), 7, "{paths:?}");
    let text_bytes = directories
        .iter()
        .filter(|one| !one["path"].as_str().is_some_and(|path| path.contains('/')))
        .map(|one| one["text_bytes"].as_u64().expect("a number"));
    assert_eq!(text_bytes.sum::<u64>(), 8);
}

#[test]
fn footer() {
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    std::fs::copy(DEMO, &image).expect("room");
    let path = image.to_str().expect("UTF-8");
    let sound = |documents: &[Value]| documents[0]["sound"].as_bool().expect("whether");
    let plain = documents("footer", &[path]);
    assert!(!sound(&plain) && plain[0]["appended"].is_null());

    let table = table(&[]);
    let status = Command::new(env!("CARGO_BIN_EXE_lineinfo"))
        .arg("append")
        .arg(&table)
        .args(["--to", path])
        .output()
        .expect("lineinfo runs")
        .status;
    assert!(status.success());
    assert!(sound(&documents("footer", &[path])));

    // A bit of the table.
    let mut bytes = std::fs::read(&image).expect("the image");
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    std::fs::write(&image, &bytes).expect("room");
    let damaged = documents("footer", &[path]);
    assert!(!sound(&damaged));
    assert_eq!(damaged[0]["problems"].as_array().map(Vec::len), Some(1));
}

#[test]
fn lookup() {
    let table = table(&[]);
    let path = table.to_str().expect("UTF-8");
    let asked = [
        "0x401000",
        "0x401000-0x401002",
        "0x1",
        "vfs_write+0x1/0x6",
        "nothing+0x1/0x2",
    ];
    let documents = documents("lookup", &[&[path], &asked[..]].concat());
    assert_eq!(documents.len(), 6);
}

#[test]
fn decode() {
    let table = table(&[]);
    let path = table.to_str().expect("UTF-8");
    let log = "tests/cmd/lineinfo.in";
    let of_log = |name: &str, more: &[&str]| {
        let log = format!("{log}/{name}");
        documents("decode", &[&["--table", path], more, &[&log]].concat())
    };
    let oops = of_log("oops.txt", &[]);
    assert_eq!(oops.last().expect("a summary")["type"], "summary");
    let bare = of_log("bare.txt", &["--slide", "0x1000", "--code"]);
    assert!(bare.iter().any(|document| document["type"] == "code"));
    let stream = of_log("stream.txt", &["--key", "host"]);
    assert!(stream.iter().any(|document| document["host"] == "web2"));
}

#[test]
fn verify() {
    let table = table(&["--inlines"]);
    let path = table.to_str().expect("UTF-8");
    let asked = ["--against", DEMO, "--random", "100"];
    let same = documents("verify", &[&[path], &asked[..]].concat());
    assert_eq!(same[0]["differences"], 0);
    assert_eq!(same[0]["symbols"]["differences"], 0);
    let root = ["--source-root", "/src", "--show", "2"];
    let other = documents("verify", &[&[path], &asked[..], &root].concat());
    assert_eq!(other[0]["first"].as_array().expect("a list").len(), 2);
    assert_eq!(other[0]["first"][0]["address"], "0x401000");
}
