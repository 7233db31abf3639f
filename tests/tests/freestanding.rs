//! The core as a static library in a program without std, allocator, or a branch that panics.

use std::path::{Path, PathBuf};
use std::process::Command;

use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::extract::{Extracted, extract};
use lineinfo_core::blob::Encoding;
use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::{Address, Offset, Table};

/// What a look-up may take of the stack of an interrupt, in bytes.
const STACK_BYTES_MAX: u32 = 1024;

/// The same of a look-up with all inlined functions.
const STACK_BYTES_MAX_WITH_CHAIN: u32 = 2560;

/// Look-ups in each table.
const LOOK_UPS: usize = 50;

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the command starts");
    assert!(
        output.status.success(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// The static library, built as a kernel would.
fn library() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("freestanding");
    run(Command::new(env!("CARGO"))
        .args(["build", "--offline", "--package", "lineinfo-freestanding"])
        .args(["--features", "kernel", "--profile", "freestanding"])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target));
    target.join("freestanding/liblineinfo.a")
}

#[test]
fn it_links_without_std_allocator_and_panics_and_answers() {
    let library = library();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("freestanding/main.c");
    let program = directory.path().join("program");
    // Without the C library: what is not in main.c does not exist.
    run(Command::new("cc")
        .args(["-O2", "-Wall", "-Werror", "-ffreestanding", "-fno-builtin"])
        .args(["-nostdlib", "-static", "-no-pie", "-Wl,--gc-sections"])
        .arg("-o")
        .arg(&program)
        .arg(source)
        .arg(&library));

    let symbols = run(Command::new("nm").arg(&program));
    let formats = symbols.lines().find(|line| line.contains("4core3fmt"));
    assert_eq!(formats, None, "core::fmt is linked");

    // What it looks into is the table of this test, which is large enough to be like a kernel's.
    let this = std::env::current_exe().expect("this test has a file");
    let file = ElfFile::open(&this).expect("this test is a file");
    let elf = file.parse().expect("this test is an ELF file");
    let naming = Naming::default();
    let mut extracted = extract(&elf, &naming, &()).expect("it has line tables");
    let encode = |extracted: &Extracted, encoding: Encoding| {
        let blob = extracted.encode(encoding).expect("a table");
        (encoding.to_string(), blob)
    };
    let plain = Encoding::ALL
        .iter()
        .map(|encoding| encode(&extracted, *encoding));
    let mut blobs: Vec<(String, Vec<u8>)> = plain.collect();
    extracted
        .add_inlines(&elf, &naming, &())
        .expect("it has inlined functions");
    let (_, with_inlines) = encode(&extracted, Encoding::Packed);
    blobs.push(("packed with inlined functions".to_owned(), with_inlines));
    let mut inlined = 0;
    for (encoding, blob) in blobs {
        let path = directory.path().join("blob");
        std::fs::write(&path, &blob).expect("room for a table");
        let table = Table::parse(&blob).expect("a valid table");
        let step = usize::try_from(table.layout().text_len()).expect("text in memory") / LOOK_UPS;
        for offset in (0..table.layout().text_len()).step_by(step) {
            let said = run(Command::new(&program).arg(&path).arg(offset.to_string()));
            let (text, stack) = said.trim_end().rsplit_once('\n').expect("two lines");
            let address = Address::Return(Offset(offset));
            let mut buffer = [0; 128];
            let mut expected = StrBuffer::new(&mut buffer);
            match (table.chain(address), table.lookup(address)) {
                (Some(chain), _) => chain.for_each(|frame| {
                    frame.push_to(&mut expected);
                    expected.push_str(if frame.function.is_some() { "\n" } else { "" });
                }),
                (None, Some(location)) => location.push_to(&mut expected),
                (None, None) => {}
            }
            inlined += usize::from(expected.as_str().contains("[inline]"));
            assert_eq!(text, expected.as_str(), "{encoding} at {offset}");
            let stack_bytes: u32 = stack.trim().parse().expect("a number");
            let most = match table.layout().has_chains() {
                true => STACK_BYTES_MAX_WITH_CHAIN,
                false => STACK_BYTES_MAX,
            };
            assert!(
                (1..=most).contains(&stack_bytes),
                "{encoding} at {offset}: {stack_bytes} bytes of stack"
            );
        }
    }
    assert!(inlined > 0, "no inlined function was looked up");
}
