//! `lineinfo.h` is what cbindgen makes of the C face and of `uapi`, and compilers see in it the
//! sizes, offsets and numbers that Rust sees.
//!
//! cbindgen does not see what macros make: the numbers of the enumerations and of the requests. They
//! are added from the values themselves. With `LINEINFO_HEADER=overwrite` the header is written.

use std::fmt::Write;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use lineinfo_c::device::{
    CALLER_MAY_LOAD, CALLER_MAY_SEE_ADDRESSES, DEVICE_WORDS, DeviceConfig, ExpectedImage,
    FILE_WORDS, FileCaller, LEVEL_ERROR, LEVEL_INFO, LEVEL_WARNING, MessagePart, PAGE_BYTES,
    POLICY_NEVER, POLICY_OFF, POLICY_ON, RawDevice, RawFile, RawSlot, SLOT_WORDS, TRUST_ANYBODY,
    TRUST_KEY, TRUST_NOBODY,
};
use lineinfo_c::table::{ADDRESS_UNRELIABLE, RawTable, RegionFacts, TABLE_WORDS, TableFacts};
use lineinfo_core::blob::{BUILD_ID_MAX, Encoding, FORMAT_VERSION, Profile, REGION_INIT};
use lineinfo_core::footer::Footer;
use lineinfo_core::uapi::{
    AddressBase, AddressKind, Direction, Errno, FUNCTION_BYTES, IOCTL_TYPE, Ioctl,
    LOOKUP_APPROXIMATE, LOOKUP_FOUND, Lookup, MODULE_NAME_MAX, MODULE_NAME_SIZE, REASON_BYTES,
    STATUS_TEXT_MAX, State, Status, Target, socket,
};

/// Compilers and the language they read the header as.
const COMPILERS: [(&str, &[&str]); 4] = [
    ("gcc", &["-xc", "-std=c11"]),
    ("clang", &["-xc", "-std=c11"]),
    ("g++", &["-xc++", "-std=c++17"]),
    ("clang++", &["-xc++", "-std=c++17"]),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if std::env::var_os("LINEINFO_HEADER").is_some_and(|value| value == "overwrite") {
        std::fs::write(path(), header()).expect("the header can be written");
    }
    let mut trials = vec![
        Trial::test("the_header_is_what_is_made_of_the_code", is_current),
        Trial::test("every_number_of_the_header_is_compared", is_complete),
    ];
    for (compiler, language) in COMPILERS {
        let missing = Command::new(compiler).arg("--version").output().is_err();
        let reason = if missing {
            " (it is not installed)"
        } else {
            ""
        };
        let name = format!("{compiler}_sees_what_rust_sees{reason}");
        let trial = Trial::test(name, move || compiles(compiler, language));
        trials.push(trial.with_ignored_flag(missing));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn core_face() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/c")
}

fn path() -> PathBuf {
    core_face().join("include/lineinfo.h")
}

fn is_current() -> Result<(), Failed> {
    let made = header();
    let found = std::fs::read_to_string(path())?;
    if found == made {
        return Ok(());
    }
    let same = found.lines().zip(made.lines());
    let same = same.take_while(|(found, made)| found == made).count();
    Err(format!(
        "core/c/include/lineinfo.h is not what the code says, from line {} on; \
         make it again with LINEINFO_HEADER=overwrite",
        same + 1
    )
    .into())
}

/// What the header defines has a prefix, and compilers are asked about it.
fn is_complete() -> Result<(), Failed> {
    let assertions = assertions();
    let asked: Vec<_> = assertions
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    for line in header().lines() {
        let macro_ = line.strip_prefix("#define ");
        let structure = || line.strip_prefix("struct ")?.strip_suffix(" {");
        let Some(defined) = macro_.or_else(structure) else {
            continue;
        };
        let name = defined.split(' ').next().unwrap_or(defined);
        if !name.to_lowercase().starts_with("lineinfo_") {
            return Err(format!("{name} has no prefix; rename it in core/c/cbindgen.toml").into());
        }
        if name != "LINEINFO_H" && !asked.contains(&name) {
            return Err(format!("no compiler is asked about {name}; add it to this test").into());
        }
    }
    Ok(())
}

fn header() -> String {
    let face = core_face();
    let config = face.join("cbindgen.toml");
    let mut config = cbindgen::Config::from_file(&config).expect("a configuration of cbindgen");
    config.after_includes = Some(numbers());
    let mut made = Vec::new();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in [
        "src/table.rs",
        "src/footer.rs",
        "src/device.rs",
        "src/status.rs",
        "src/port.rs",
    ] {
        builder = builder.with_src(face.join(source));
    }
    for source in ["../src/blob.rs", "../src/uapi.rs", "../src/footer.rs"] {
        builder = builder.with_src(face.join(source));
    }
    let bindings = builder.generate().expect("cbindgen reads the code");
    bindings.write(&mut made);
    let made = String::from_utf8(made).expect("a text");
    in_c(&made)
}

/// Documentation of Rust as one reads it in C: no links, and the names of C.
fn in_c(text: &str) -> String {
    let mut text = text.replace(" * # Safety\n *\n", " * The caller promises:\n *\n");
    for (rust, c) in [
        ("Errno", "LINEINFO_E*"),
        ("super::Errno", "LINEINFO_E*"),
        ("State", "LINEINFO_STATE_*"),
        ("Encoding", "LINEINFO_ENCODING_*"),
        ("Profile", "LINEINFO_PROFILE_*"),
        ("AddressKind", "LINEINFO_ADDRESS_*"),
        ("AddressBase", "LINEINFO_BASE_*"),
        ("Op", "LINEINFO_SOCKET_OP_*"),
        ("LOOKUP_FOUND", "LINEINFO_LOOKUP_FOUND"),
        ("LOOKUP_APPROXIMATE", "LINEINFO_LOOKUP_APPROXIMATE"),
        ("OPEN_READ", "LINEINFO_SOCKET_OPEN_READ"),
        ("OPEN_WRITE", "LINEINFO_SOCKET_OPEN_WRITE"),
        ("PAYLOAD_MAX", "LINEINFO_SOCKET_PAYLOAD_MAX"),
        ("Lookup", "struct lineinfo_lookup"),
        ("Status", "struct lineinfo_status"),
        ("super::Ioctl::code", "LINEINFO_IOC_*"),
    ] {
        text = text.replace(&format!("[`{rust}`]"), c);
    }
    for request in Ioctl::ALL {
        let name = request.name().to_uppercase();
        text = text.replace(
            &format!("[`Ioctl::{request:?}`]"),
            &format!("LINEINFO_IOC_{name}"),
        );
    }
    text.replace("[`crate::", "")
        .replace("[`", "")
        .replace("`]", "")
        .replace('`', "")
}

/// A comment.
fn comment(to: &mut String, text: &str) {
    *to += "/**\n";
    for line in text.lines() {
        *to += format!(" *{line}").trim_end();
        *to += "\n";
    }
    *to += " */\n";
}

/// Includes, and the numbers that macros make.
fn numbers() -> String {
    let mut to = String::from(
        "#ifdef __KERNEL__\n#include <linux/types.h>\n#else\n#include <stddef.h>\n#include <stdint.h>\n#endif\n",
    );
    macro_rules! numbers {
        ($type:ty, $prefix:literal) => {
            to += "\n";
            comment(&mut to, <$type>::ABOUT);
            for value in <$type>::ALL {
                to += "\n";
                comment(&mut to, value.about());
                let name = value.name().to_uppercase();
                let _ = writeln!(
                    to,
                    concat!("#define ", $prefix, "{} {}"),
                    name,
                    value.number()
                );
            }
        };
    }
    numbers!(Errno, "LINEINFO_");
    numbers!(State, "LINEINFO_STATE_");
    numbers!(Encoding, "LINEINFO_ENCODING_");
    numbers!(Profile, "LINEINFO_PROFILE_");
    numbers!(AddressKind, "LINEINFO_ADDRESS_");
    numbers!(AddressBase, "LINEINFO_BASE_");
    numbers!(socket::Op, "LINEINFO_SOCKET_OP_");

    to += "\n";
    let needs = " The numbers need <sys/ioctl.h>, or <linux/ioctl.h> in a kernel.";
    comment(&mut to, &[Ioctl::ABOUT, needs].concat());
    for request in Ioctl::ALL {
        to += "\n";
        comment(&mut to, request.about());
        let name = request.name().to_uppercase();
        let number = request.number();
        let argument = request.argument().to_lowercase();
        let value = match request.direction() {
            Direction::None => format!("_IO(LINEINFO_IOCTL_TYPE, {number})"),
            Direction::Read => {
                format!("_IOR(LINEINFO_IOCTL_TYPE, {number}, struct lineinfo_{argument})")
            }
            Direction::ReadWrite => {
                format!("_IOWR(LINEINFO_IOCTL_TYPE, {number}, struct lineinfo_{argument})")
            }
        };
        let _ = writeln!(to, "#define LINEINFO_IOC_{name} {value}");
    }
    to
}

/// Has a compiler compare the header with what this program knows.
fn compiles(compiler: &str, language: &[&str]) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let source = directory.path().join("layout.c");
    std::fs::write(&source, assertions())?;
    let output = Command::new(compiler)
        .args(language)
        .args([
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-fsyntax-only",
            "-I",
        ])
        .arg(core_face().join("include"))
        .arg(&source)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
}

/// The size of a field.
const fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// A program in C, and in C++, that compiles if it sees what this program sees.
fn assertions() -> String {
    let mut to = String::from(
        "#include <errno.h>\n#include <sys/ioctl.h>\n#include <lineinfo.h>\n\
         #ifndef __cplusplus\n#define static_assert _Static_assert\n#define alignof _Alignof\n#endif\n",
    );
    let mut equal = |c: &str, rust: usize| {
        let _ = writeln!(to, "static_assert({c} == {rust}u, \"{c} is {rust}\");");
    };
    macro_rules! layout {
        ($type:ty, $name:literal) => {
            equal(concat!("sizeof(struct ", $name, ")"), size_of::<$type>());
            equal(concat!("alignof(struct ", $name, ")"), align_of::<$type>());
        };
        ($type:ident, $name:literal, { $($field:ident),* }) => {
            layout!($type, $name);
            // Does not compile where a field is left out.
            let _all = |$type { $($field: _),* }: &$type| ();
            $(
                let field = concat!("struct ", $name, ", ", stringify!($field));
                equal(&format!("offsetof({field})"), offset_of!($type, $field));
                equal(
                    concat!("sizeof(((struct ", $name, " *)0)->", stringify!($field), ")"),
                    size_of_field(|value: &$type| &value.$field),
                );
            )*
        };
    }
    layout!(RawTable, "lineinfo_table");
    layout!(Footer, "lineinfo_footer");
    layout!(RawDevice, "lineinfo_device");
    layout!(RawFile, "lineinfo_file");
    layout!(RawSlot, "lineinfo_slot");
    layout!(MessagePart, "lineinfo_part", { bytes, size });
    layout!(DeviceConfig, "lineinfo_config", { max_bytes, idle_ms, policy, trust, key });
    layout!(FileCaller, "lineinfo_caller", { uid, pid, rights });
    layout!(ExpectedImage, "lineinfo_expected", {
        slide, machine, build_id_len, build_id, reserved
    });
    layout!(TableFacts, "lineinfo_facts", {
        text_start, text_len, size, rows, files, exact_files, machine, encoding, profile,
        build_id_len, build_id, reserved
    });
    layout!(RegionFacts, "lineinfo_region", { start, len, rows, flags, name_len, name });
    layout!(Status, "lineinfo_status", {
        state, rows, files, last_errno, bytes, memory, encoding, profile, build_id_len, reserved,
        build_id, last_reason
    });
    layout!(Lookup, "lineinfo_lookup", {
        address, kind, base, level, levels, checksum, result, line, file, function
    });
    layout!(Target, "lineinfo_target", { name });
    use socket::{Reply, Request};
    layout!(Request, "lineinfo_socket_request", { op, arg, len });
    layout!(Reply, "lineinfo_socket_reply", { error, value, len });

    macro_rules! numbers {
        ($type:ty, $prefix:literal) => {
            for value in <$type>::ALL {
                let name = format!(concat!($prefix, "{}"), value.name().to_uppercase());
                equal(&name, value.number() as usize);
            }
        };
    }
    numbers!(Errno, "LINEINFO_");
    numbers!(State, "LINEINFO_STATE_");
    numbers!(Encoding, "LINEINFO_ENCODING_");
    numbers!(Profile, "LINEINFO_PROFILE_");
    numbers!(AddressKind, "LINEINFO_ADDRESS_");
    numbers!(AddressBase, "LINEINFO_BASE_");
    numbers!(socket::Op, "LINEINFO_SOCKET_OP_");
    for request in Ioctl::ALL {
        let name = format!("LINEINFO_IOC_{}", request.name().to_uppercase());
        equal(&name, request.code() as usize);
    }
    for (name, number) in [
        ("LINEINFO_TABLE_WORDS", TABLE_WORDS),
        ("LINEINFO_DEVICE_WORDS", DEVICE_WORDS),
        ("LINEINFO_FILE_WORDS", FILE_WORDS),
        ("LINEINFO_SLOT_WORDS", SLOT_WORDS),
        ("LINEINFO_PAGE_BYTES", PAGE_BYTES),
        ("LINEINFO_POLICY_OFF", POLICY_OFF as usize),
        ("LINEINFO_POLICY_ON", POLICY_ON as usize),
        ("LINEINFO_POLICY_NEVER", POLICY_NEVER as usize),
        ("LINEINFO_TRUST_ANYBODY", TRUST_ANYBODY as usize),
        ("LINEINFO_TRUST_KEY", TRUST_KEY as usize),
        ("LINEINFO_TRUST_NOBODY", TRUST_NOBODY as usize),
        ("LINEINFO_LEVEL_ERROR", LEVEL_ERROR as usize),
        ("LINEINFO_LEVEL_WARNING", LEVEL_WARNING as usize),
        ("LINEINFO_LEVEL_INFO", LEVEL_INFO as usize),
        ("LINEINFO_CALLER_MAY_LOAD", CALLER_MAY_LOAD as usize),
        (
            "LINEINFO_CALLER_MAY_SEE_ADDRESSES",
            CALLER_MAY_SEE_ADDRESSES as usize,
        ),
        ("LINEINFO_ADDRESS_UNRELIABLE", ADDRESS_UNRELIABLE as usize),
        ("LINEINFO_REASON_BYTES", REASON_BYTES),
        ("LINEINFO_STATUS_TEXT_MAX", STATUS_TEXT_MAX),
        ("LINEINFO_BUILD_ID_MAX", BUILD_ID_MAX),
        ("LINEINFO_FORMAT_VERSION", FORMAT_VERSION.into()),
        ("LINEINFO_REGION_INIT", REGION_INIT.into()),
        ("LINEINFO_IOCTL_TYPE", IOCTL_TYPE.into()),
        ("LINEINFO_MODULE_NAME_MAX", MODULE_NAME_MAX),
        ("LINEINFO_MODULE_NAME_SIZE", MODULE_NAME_SIZE),
        ("LINEINFO_FUNCTION_BYTES", FUNCTION_BYTES),
        ("LINEINFO_LOOKUP_FOUND", LOOKUP_FOUND as usize),
        ("LINEINFO_LOOKUP_APPROXIMATE", LOOKUP_APPROXIMATE as usize),
        ("LINEINFO_SOCKET_OPEN_READ", socket::OPEN_READ as usize),
        ("LINEINFO_SOCKET_OPEN_WRITE", socket::OPEN_WRITE as usize),
        ("LINEINFO_SOCKET_PAYLOAD_MAX", socket::PAYLOAD_MAX as usize),
    ] {
        equal(name, number);
    }
    to
}
