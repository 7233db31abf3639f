//! The C face as a kernel links it: without std, allocator, a branch that panics, or an instruction
//! that Linux does not allow itself; and what it answers to C.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_cli::source::Source;
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::footer;
use lineinfo_core::uapi::{AddressKind, Errno};
use lineinfo_core::writer::{
    Image, InlineChain, InlinedFunction, Inlines, Region, encode, encode_with_inlines,
};
use lineinfo_core::{Address, Row, Table};
use object::read::archive::ArchiveFile;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind};
use zerocopy::IntoBytes;

/// What a look-up may take of the stack of an interrupt, in bytes.
const STACK_BYTES_MAX: u64 = 1024;

/// Look-ups in each table, for each kind of address.
const LOOK_UPS: u64 = 1000;

/// What instructions may need of a CPU: no vector, floating-point or other register that belongs to
/// user space.
const INTEGER: [&str; 9] = [
    "INTEL8086",
    "INTEL186",
    "INTEL286",
    "INTEL386",
    "INTEL486",
    "X64",
    "CMOV",
    "CX8",
    "MULTIBYTENOP",
];

/// `LINEINFO_ADDRESS_UNRELIABLE`.
const UNRELIABLE: u32 = lineinfo_c::table::ADDRESS_UNRELIABLE;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn try_run(command: &mut Command) -> Output {
    command.output().expect("the command starts")
}

fn run(command: &mut Command) -> String {
    let output = try_run(command);
    assert!(
        output.status.success(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// The static library, built as Linux would.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c_library");
        run(Command::new(env!("CARGO"))
            .current_dir(root())
            // They would come before the flags of the configuration.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .args(["rustc", "--offline", "--package", "lineinfo-c"])
            .args(["--crate-type", "staticlib", "--features", "kernel"])
            .args([
                "--profile",
                "freestanding",
                "--config",
                "core/c/linux-x86_64.toml",
            ])
            .args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"])
            .arg(&target));
        target.join("x86_64-unknown-linux-gnu/freestanding/liblineinfo_c.a")
    })
}

/// A program in C with the library.
fn program(directory: &Path, source: &str, flags: &[&str]) -> PathBuf {
    let program = directory.join("program");
    run(Command::new("cc")
        .args([
            "-std=gnu11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-static",
            "-no-pie",
        ])
        .args(flags)
        .arg("-I")
        .arg(root().join("core/c/include"))
        .arg("-o")
        .arg(&program)
        .arg(root().join(source))
        .arg(library()));
    program
}

fn address(kind: u32, offset: u64) -> Option<Address> {
    let address = AddressKind::from_number(kind & !UNRELIABLE)?.address(offset);
    let address = if kind & UNRELIABLE == 0 {
        address
    } else {
        address.unreliable()?
    };
    address.relative_to(0)
}

/// What the program is to say of an address: what `lineinfo lookup` says.
fn texts(source: &mut Source, address: Option<Address>) -> Vec<String> {
    let offset = address.map(|address| match address {
        Address::Return(at) => Address::Return(at.0),
        Address::Exact(at) => Address::Exact(at.0),
        Address::Trap(at) => Address::Trap(at.0),
    });
    let found = offset.and_then(|at| source.lookup_offset(at).expect("a table answers"));
    let Some(found) = found else {
        return vec![String::new(); 2];
    };
    let mark = if found.approximate { ":~" } else { ":" };
    let location = format!(" ({}{mark}{})", found.file, found.line);
    let physical = match found.frames.is_empty() {
        true => String::new(),
        false => format!(" ({})", found.physical()),
    };
    let inlined = found.inlined().map(|frame| format!(" {frame}"));
    [location, physical].into_iter().chain(inlined).collect()
}

#[test]
fn it_links_without_std_allocator_and_panics_and_answers_on_little_stack() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // Without the C library: what is not in the program does not exist.
    let flags = [
        "-ffreestanding",
        "-fno-builtin",
        "-nostdlib",
        "-Wl,--gc-sections",
    ];
    let program = program(directory.path(), "tests/fixtures/c_library.c", &flags);

    // What it looks into is the table of this test, which is large enough to be like a kernel's.
    let this = std::env::current_exe().expect("this test has a file");
    let file = ElfFile::open(&this).expect("this test is a file");
    let elf = file.parse().expect("this test is an ELF file");
    let mut extracted = extract(&elf, &Naming::default(), &()).expect("it has line tables");
    let mut blobs: Vec<_> = (Encoding::ALL.iter())
        .map(|&encoding| {
            let blob = extracted.encode(encoding).expect("a table");
            (encoding.name().to_owned(), blob)
        })
        .collect();
    let read = extracted.add_inlines(&elf, &Naming::default(), &());
    read.expect("it has inlined functions");
    let blob = extracted.encode(Encoding::Packed).expect("a table");
    blobs.push(("with inlined functions".to_owned(), blob));
    let mut most = BTreeMap::new();
    for (name, blob) in &blobs {
        let path = directory.path().join("blob");
        std::fs::write(&path, blob).expect("room for a table");
        let table = Table::parse(blob).expect("a valid table");
        let mut source = Source::table(&path).expect("a valid table");
        let step = (table.layout().text_len() / LOOK_UPS).max(1);
        let said = run(Command::new(&program).arg(&path).arg(step.to_string()));
        let mut lines = said.lines().map(Line::of).peekable();
        let (mut found, mut inlined) = (0, 0);
        while let Some(Line { offset, kind, .. }) = lines.peek().copied() {
            let expected = texts(&mut source, address(kind, offset));
            let what = ["location", "physical"].into_iter();
            let what = what.chain(std::iter::repeat("inlined"));
            let same = |line: &Line<'_>| (line.offset, line.kind) == (offset, kind);
            let mut answers = Vec::new();
            while let Some(line) = lines.next_if(same) {
                answers.push(line);
            }
            let said: Vec<&str> = answers.iter().map(|line| line.text).collect();
            assert_eq!(said, expected, "{name} at {offset}, kind {kind}");
            for (line, what) in answers.iter().zip(what) {
                for (holder, stack) in [("table", line.in_table), ("slot", line.in_slot)] {
                    assert!(
                        (1..=STACK_BYTES_MAX).contains(&stack),
                        "{name} at {offset}, kind {kind}, {what} in the {holder}: {stack} bytes of stack"
                    );
                    let most = most.entry((holder, name, what)).or_insert(0);
                    *most = stack.max(*most);
                }
            }
            found += u64::from(!said[0].is_empty());
            inlined += said.len() - 2;
        }
        assert!(found > 2 * LOOK_UPS, "{name}: {found} found");
        let has_chains = table.layout().has_chains();
        assert_eq!(
            inlined > 100,
            has_chains,
            "{name}: {inlined} inlined functions"
        );
    }
    println!("most bytes of stack, by table and text: {most:?}");
}

/// A line that the program prints.
#[derive(Clone, Copy)]
struct Line<'a> {
    offset: u64,
    kind: u32,
    in_table: u64,
    in_slot: u64,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        let (question, text) = line.split_once('\t').expect("a tab");
        let numbers: Vec<u64> = (question.split(' '))
            .map(|number| number.parse().expect("a number"))
            .collect();
        let &[offset, kind, in_table, in_slot] = &numbers[..] else {
            panic!("{line}");
        };
        Self {
            offset,
            kind: kind as u32,
            in_table,
            in_slot,
            text,
        }
    }
}

/// The objects that were made of the sources; `compiler_builtins` is beside them.
fn with_objects(mut check: impl FnMut(&object::File<'_>)) {
    let data = std::fs::read(library()).expect("the library is there");
    let archive = ArchiveFile::parse(&data[..]).expect("an archive");
    let mut objects = 0;
    for member in archive.members() {
        let member = member.expect("a member");
        if member.name().starts_with(b"lineinfo_c-") {
            let data = member.data(&data[..]).expect("its data");
            check(&object::File::parse(data).expect("an object"));
            objects += 1;
        }
    }
    assert!(objects > 1, "{objects} objects");
}

#[test]
fn its_symbols_are_those_of_the_header_and_of_any_kernel() {
    let header = root().join("core/c/include/lineinfo.h");
    let header = std::fs::read_to_string(header).expect("the header is there");
    let mut functions = BTreeSet::new();
    for (at, _) in header.match_indices("lineinfo_") {
        let rest = &header[at..];
        let name = rest
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next();
        let name = name.expect("a name");
        if rest[name.len()..].starts_with('(') {
            functions.insert(name.to_owned());
        }
    }

    let (mut defined, mut wanted) = (BTreeSet::new(), BTreeSet::new());
    with_objects(|object| {
        for symbol in object.symbols() {
            let name = symbol.name().expect("a name");
            let readable = format!("{:#}", rustc_demangle::demangle(name));
            for refused in ["core::fmt", "core::panicking", "panic", "alloc::"] {
                assert!(!readable.contains(refused), "{readable}");
            }
            if symbol.is_undefined() {
                wanted.insert(name.to_owned());
            } else if symbol.is_global() {
                defined.insert(name.to_owned());
            }
        }
    });
    let exported: BTreeSet<_> = (defined.iter())
        .filter(|name| name.starts_with("lineinfo_"))
        .cloned()
        .collect();
    let (ports, functions): (BTreeSet<_>, BTreeSet<_>) =
        (functions.into_iter()).partition(|name: &String| name.starts_with("lineinfo_port_"));
    assert_eq!(exported, functions, "what is exported, what is declared");
    let of_kernels = ["", "bcmp", "memcmp", "memcpy", "memmove", "memset"];
    let asked: BTreeSet<_> = (wanted.difference(&defined))
        .filter(|name| !of_kernels.contains(&name.as_str()))
        .cloned()
        .collect();
    assert_eq!(asked, ports, "what a kernel defines, what is declared");
}

#[test]
fn its_instructions_are_those_that_linux_allows_itself() {
    let (mut instructions, mut bytes, mut rodata) = (0, 0, 0);
    with_objects(|object| {
        for section in object.sections() {
            let name = section.name().expect("a name");
            match section.kind() {
                SectionKind::Text => {
                    let code = section.uncompressed_data().expect("its code");
                    bytes += code.len();
                    instructions += check_function(name, &code);
                }
                SectionKind::ReadOnlyData | SectionKind::ReadOnlyString
                    if !name.starts_with(".eh_frame") =>
                {
                    rodata += section.size();
                }
                SectionKind::Data | SectionKind::UninitializedData => {
                    assert_eq!(section.size(), 0, "{name} can be written to");
                }
                _ => {}
            }
        }
    });
    assert!(instructions > 1000, "{instructions} instructions");
    println!("{bytes} bytes of code, {rodata} bytes of read-only data");
}

/// Checks the code of a section, which is that of one function; gives the number of instructions.
fn check_function(name: &str, code: &[u8]) -> usize {
    let mut instructions = 0;
    walk(code, |instruction, stack| {
        instructions += 1;
        let at = || format!("{name}+{:#x}: {:?}", instruction.ip(), instruction.code());
        assert!(!instruction.is_invalid(), "{}", at());
        let indirect = matches!(
            instruction.flow_control(),
            FlowControl::IndirectBranch | FlowControl::IndirectCall
        );
        assert!(!indirect, "{} is indirect", at());
        for feature in instruction.cpuid_features() {
            let feature = format!("{feature:?}");
            assert!(INTEGER.contains(&&feature[..]), "{} needs {feature}", at());
        }
        // Only accesses; `lea` has none.
        let access = (0..instruction.op_count())
            .any(|operand| instruction.op_kind(operand) == OpKind::Memory)
            && instruction.mnemonic() != Mnemonic::Lea;
        let displacement = instruction.memory_displacement64() as i64;
        let below = match instruction.memory_base() {
            Register::RSP => displacement < 0,
            Register::RBP => displacement < -stack.below_frame_pointer,
            _ => false,
        };
        assert!(!(access && below), "{} is below the stack pointer", at());
    });
    instructions
}

/// What a function has taken of the stack so far, in bytes.
#[derive(Clone, Copy, Default)]
struct Taken {
    all: i64,
    below_frame_pointer: i64,
}

/// Visits the instructions of a function with what it has taken of the stack, all of which it takes
/// at its beginning. Gives what it takes at most.
fn walk(code: &[u8], mut visit: impl FnMut(&Instruction, Taken)) -> i64 {
    let mut taken = Taken::default();
    for instruction in Decoder::new(64, code, DecoderOptions::NONE) {
        let more = match instruction.mnemonic() {
            Mnemonic::Push => 8,
            Mnemonic::Sub if instruction.op0_register() == Register::RSP => {
                instruction.immediate(1) as i64
            }
            _ => 0,
        };
        taken.all += more;
        taken.below_frame_pointer += more;
        if is_move(&instruction, Register::RBP, Register::RSP) {
            taken.below_frame_pointer = 0;
        }
        visit(&instruction, taken);
    }
    taken.all
}

fn is_move(instruction: &Instruction, to: Register, from: Register) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_register() == to
        && instruction.op1_register() == from
}

/// What a function takes of the stack, with its return address, and what it calls.
#[derive(Default)]
struct Frame {
    bytes: i64,
    callees: BTreeSet<String>,
}

/// The functions of the library, by the names of their sections, of which each holds one.
fn frames() -> BTreeMap<String, Frame> {
    let mut frames = BTreeMap::<String, Frame>::new();
    with_objects(|object| {
        for section in object.sections() {
            if section.kind() != SectionKind::Text {
                continue;
            }
            let code = section.uncompressed_data().expect("its code");
            let frame = (frames.entry(function(section.name().expect("a name")))).or_default();
            frame.bytes = 8 + walk(&code, |_, _| {});
            for (_, relocation) in section.relocations() {
                let RelocationTarget::Symbol(symbol) = relocation.target() else {
                    continue;
                };
                let symbol = object.symbol_by_index(symbol).expect("a symbol");
                let name = match symbol.section_index() {
                    Some(index) => object.section_by_index(index).and_then(|s| s.name()),
                    None => symbol.name(),
                };
                frame.callees.insert(function(name.expect("a name")));
            }
        }
    });
    frames
}

/// The name of the function in a section.
fn function(section: &str) -> String {
    let name = section.strip_prefix(".text.").unwrap_or(section);
    name.strip_prefix("unlikely.").unwrap_or(name).to_owned()
}

/// The most that a function and what it calls can take of the stack, in bytes.
fn stack_of(frames: &BTreeMap<String, Frame>, name: &str, callers: &[&str]) -> i64 {
    assert!(!callers.contains(&name), "{name} calls itself");
    // What a kernel defines takes nothing here, and neither does data.
    let Some(frame) = frames.get(name) else {
        return 0;
    };
    let callers = [callers, &[name]].concat();
    let callees = frame.callees.iter();
    let most = callees
        .map(|callee| stack_of(frames, callee, &callers))
        .max();
    frame.bytes + most.unwrap_or(0)
}

#[test]
fn no_path_of_a_look_up_takes_much_stack() {
    let frames = frames();
    for name in [
        "lineinfo_text",
        "lineinfo_slot_text",
        "lineinfo_inlined_text",
        "lineinfo_physical_text",
        "lineinfo_slot_inlined_text",
        "lineinfo_slot_physical_text",
    ] {
        let stack = stack_of(&frames, name, &[]);
        println!("{name}: at most {stack} bytes of stack");
        // Less would mean that its calls are not seen.
        assert!(
            (512..=STACK_BYTES_MAX as i64).contains(&stack),
            "{name}: {stack} bytes of stack"
        );
    }
}

/// A table of two sections, one of them init text.
fn small_table() -> Vec<u8> {
    with_small_image(|image| encode(image, Encoding::Flat).expect("a table"))
}

/// The same with functions: at the start of the text `inner` is inlined into `outer` at line 6, and that
/// at line 5.
fn small_table_with_inlines() -> Vec<u8> {
    let inlines = Inlines {
        functions: ["inner", "outer"]
            .map(|name| InlinedFunction::new(name, 0, 1))
            .to_vec(),
        chains: vec![InlineChain::new(0, &[(1, 5), (0, 6)])],
    };
    let chains: [&[Option<u32>]; 2] = [&[Some(0), None], &[None; 3]];
    with_small_image(|image| {
        encode_with_inlines(image, &inlines, &chains, Encoding::Packed).expect("a table")
    })
}

fn with_small_image<T>(then: impl FnOnce(&Image<'_>) -> T) -> T {
    let row = |start, line| Row {
        start,
        file: u32::from(line > 9),
        line,
    };
    let (text, init) = ([row(0, 7), row(4, 9)], [row(0, 10), row(8, 0), row(12, 11)]);
    let region = |name, start, init, rows| Region {
        name,
        start,
        len: 16,
        init,
        rows,
    };
    then(&Image {
        machine: 62,
        build_id: &[0xab; 20],
        text_start: 0x1000,
        profile: Profile::Calls,
        files: &["a.c", "b.c"],
        exact_files: 1,
        regions: &[
            region(".text", 0, false, &text),
            region(".init.text", 32, true, &init),
        ],
    })
}

/// An image that ends with a table.
fn appended(blob: &[u8]) -> Vec<u8> {
    let image = b"an image";
    let (pad, footer) = footer::append(image.len() as u64, blob).expect("a small table");
    [image, pad, blob, footer.as_bytes()].concat()
}

/// What `c_face.c` prints of the device, with `small_table_with_inlines` at the end of its boot image.
const DEVICE_SAYS: &str = "\
no such policy: 22
init: 0
log: lineinfo: loaded 5 entries, 2 files, 215 bytes in 4 kB, packed, calls
slot: 8: (a.c:7), 4096 bytes, 1 look-ups, 0 misses, pending 0
free init: 0
open: 0
log: lineinfo: open refused: somebody else has the device open for writing (process 1 of user 0); try again: -EBUSY
open again: 16
log: lineinfo: open refused: user 7 is neither root nor the owner of this kernel; ask one of them: -EPERM
no right: 1
to read: 0
write: 9
no request: 25
lookup: 0, 0 of 3, 1 a.c:7 inner
lookup: 0, 1 of 3, 1 a.c:6 outer
lookup: 0, 2 of 3, 1 a.c:5 
lookup: 0, 3 of 3, 0 :0 
lookup: 0, 0 of 1, 1 a.c:9 
lookup: 0, 1 of 1, 0 :0 
write: 0
flush: 8
log: lineinfo: load refused: truncated: 50 of 60 bytes; copy or build it again: -ENOEXEC
commit: 8
status: 0
212
state: loaded
build_id: abababababababababababababababababababab
encoding: packed
profile: calls
entries: 5
files: 2
bytes: 215
memory: 4096
last_error: ENOEXEC: truncated: 50 of 60 bytes; copy or build it again
log: lineinfo: unloaded, 4 kB freed
unload: 0
slot: 0:, 0 bytes, 3 look-ups, 0 misses, pending 0
log: lineinfo: loaded 2 entries, 2 files, 209 bytes in 4 kB, packed, calls
left: 0 bytes, 0 pins
";

#[test]
fn every_function_answers_c() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = program(directory.path(), "tests/fixtures/c_face.c", &[]);
    let blob = small_table();
    let path = directory.path().join("blob");
    std::fs::write(&path, &blob).expect("room for a table");
    let image_path = directory.path().join("image");
    let with_inlines = small_table_with_inlines();
    std::fs::write(&image_path, appended(&with_inlines)).expect("room for an image");

    let table = Table::parse(&blob).expect("a valid table");
    let mut smaller = vec![0; table.size_without_init()];
    let layout = table.copy_without_init(&mut smaller).expect("room for it");
    let size = blob.len();
    let (enoexec, ebadmsg) = (Errno::ENOEXEC.number(), Errno::EBADMSG.number());
    let (enoent, enomem) = (Errno::ENOENT.number(), Errno::ENOMEM.number());
    let einval = Errno::EINVAL.number();
    let facts = |size: usize, rows: u32, init_rows: u32| {
        format!(
            "machine 62, text 0x1000+0x30, size {size}, rows {rows}, files 1/2, encoding 1, \
             profile 2, build-id 20:ab..ab\n\
             .text 0x0+0x10, rows 2, flags 0\n\
             .init.text 0x20+0x10, rows {init_rows}, flags 1\n\
             no more: {enoent}\n"
        )
    };
    let expected = [
        format!(
            "cut: {enoexec}, truncated: {} of {size} bytes; copy or build it again\n",
            size - 1
        ),
        format!("nothing: {enoexec}\ndamaged: {ebadmsg}\nchecksum\n"),
        "parse: 0\ncheck: 0\n".to_owned(),
        facts(size, 5, 3),
        "9 of 60: (a.c:~9), nothing after it\n\
         8 of 60: (a.c:7), nothing after it\n\
         9 of 60: (a.c:~7), nothing after it\n\
         7 of 8: (a.c:9, nothing after it\n\
         0 of 1:, nothing after it\n\
         0 of 0:, nothing after it\n\
         0 of 60:, nothing after it\n\
         0 of 60:, nothing after it\n"
            .to_owned(),
        format!(
            "without init: {}\nno room: {enomem}\ncopy: 0\n",
            smaller.len()
        ),
        facts(smaller.len(), layout.rows(), 0),
        "9 of 60: (a.c:~9), nothing after it\n".to_owned(),
        format!("another blob: {einval}\nremove: 0\nsame: 0\n"),
        facts(smaller.len(), layout.rows(), 0),
    ];
    let said = run(Command::new(&program).args([&path, &image_path]));
    let device = said.find("no such policy").expect("it uses the device");
    let (of_table, of_device) = said.split_at(device);
    assert_eq!(of_table, expected.concat());
    assert_eq!(of_device, DEVICE_SAYS);
}

#[test]
fn the_example_prints_locations_from_a_blob_and_from_an_image() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = program(
        directory.path(),
        "core/c/examples/locate.c",
        &["-Wpedantic", "-Wl,--gc-sections"],
    );
    let path = directory.path().join("file");
    let locate = || {
        let mut command = Command::new(&program);
        command.arg(&path).args(["0x1004", "1024", "ffff"]);
        command
    };
    let blob = small_table();
    let mut appended = appended(&blob);
    for contents in [&blob, &appended] {
        std::fs::write(&path, contents).expect("room for a table");
        assert_eq!(
            run(&mut locate()),
            "0x1004 (a.c:7)\n0x1024 (b.c:~10)\n0xffff\n"
        );
    }

    appended[100] ^= 1;
    std::fs::write(&path, &appended).expect("room for a table");
    let refused = try_run(&mut locate());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("damaged table or footer: checksum"), "{said}");
}
