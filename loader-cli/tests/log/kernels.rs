//! Which kernel a log is of: builds, releases, sizes, slides, names.

use std::process::Output;

use lineinfo_core::blob::Profile;
use tempfile::TempDir;

use crate::search::compressed;
use crate::synthetic::{BUILD_ID, Function, decode, list, table, write};

const TEXT: u64 = 0xffff_ffff_8100_0000;

/// Files of one kernel, as a test wants them.
struct Files {
    directory: TempDir,
}

impl Files {
    /// A table of some functions, each in a file `NAME.c`, or `NAME.N.c` for the Nth of a name.
    fn new(functions: &[(&str, u64)], profile: Profile) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let functions = all(functions);
        let functions: Vec<&Function> = functions.iter().collect();
        let names: Vec<String> = (0..functions.len())
            .map(|at| {
                let name = &functions[at].name;
                let before = functions[..at]
                    .iter()
                    .filter(|other| other.name == *name)
                    .count();
                match before {
                    0 => format!("{name}.c"),
                    before => format!("{name}.{before}.c"),
                }
            })
            .collect();
        let table = table(&names, &functions, &BUILD_ID, TEXT, profile);
        write(&directory.path().join("table"), &table);
        write(
            &directory.path().join("kallsyms"),
            list(&functions, TEXT).as_bytes(),
        );
        Self { directory }
    }

    fn put(&self, name: &str, text: &str) {
        write(&self.directory.path().join(name), text.as_bytes());
    }

    /// Decodes with the table, these symbols and more arguments.
    fn decode(&self, symbols: &str, more: &[&str], log: &str) -> Output {
        let path = |name| self.directory.path().join(name).display().to_string();
        let mut arguments = vec![
            "--table".to_owned(),
            path("table"),
            "--against".to_owned(),
            path(symbols),
        ];
        arguments.extend(more.iter().map(|&more| more.to_owned()));
        decode(&arguments, log.as_bytes())
    }
}

fn all(functions: &[(&str, u64)]) -> Vec<Function> {
    let functions = functions.iter();
    functions
        .map(|(name, size)| Function::new(name, *size))
        .collect()
}

/// What comes out, the exit status, and what is said.
fn of(output: &Output) -> (String, i32, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status.code().expect("no signal");
    (text(&output.stdout), status, text(&output.stderr))
}

const LOG: &str = " f+0x10/0x40\n g+0x8/0x20\n";
const DECODED: &str = " f+0x10/0x40 (f.c:16)\n g+0x8/0x20 (g.c:8)\n";

fn two() -> Files {
    Files::new(&[("f", 0x40), ("g", 0x20)], Profile::Full)
}

#[test]
fn a_list_of_a_kernel_that_was_moved() {
    let files = two();
    let functions = all(&[("f", 0x40), ("g", 0x20)]);
    let functions: Vec<&Function> = functions.iter().collect();
    for slide in [0, 0x10_0000, 0x20_0000, 0x3fc0_0000] {
        files.put("slid", &list(&functions, TEXT + slide));
        assert_eq!(of(&files.decode("slid", &[], LOG)).0, DECODED, "{slide:#x}");
    }
}

#[test]
fn a_list_may_be_compressed_and_a_table_is_none() {
    let files = two();
    let list = std::fs::read(files.directory.path().join("kallsyms")).expect("the list");
    for end in [".gz", ".xz", ".zst"] {
        let packed = compressed(end, &list);
        write(&files.directory.path().join("packed"), &packed);
        assert_eq!(of(&files.decode("packed", &[], LOG)).0, DECODED, "{end}");
    }
    let (out, status, said) = of(&files.decode("table", &[], LOG));
    assert_eq!((out.as_str(), status), ("", 1));
    assert!(said.contains("name it with --table"), "{said}");
}

#[test]
fn a_list_without_addresses_is_refused_with_the_remedy() {
    let files = two();
    let zeros = "0000000000000000 T _text\n0000000000000000 t f\n0000000000000000 t g\n";
    // Those of modules may be there.
    for more in ["", "ffffffffc0000000 t h\t[xfs]\n"] {
        files.put("zeros", &format!("{zeros}{more}"));
        let (out, status, said) = of(&files.decode("zeros", &[], LOG));
        assert_eq!((out.as_str(), status), ("", 1));
        assert!(said.contains("kernel.kptr_restrict"), "{said}");
    }
}

#[test]
fn a_list_without_text_or_of_nothing_is_refused() {
    let files = two();
    for (list, expected) in [
        (
            "ffffffff81000000 t f\nffffffff81000040 t g\n",
            "no symbol _text",
        ),
        ("hello\nworld\n", "it is a text file, and should be an ELF"),
        ("", "it is a file of an unknown kind, and should be an ELF"),
    ] {
        files.put("bad", list);
        let (out, status, said) = of(&files.decode("bad", &[], LOG));
        assert_eq!((out.as_str(), status), ("", 1), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn symbols_of_another_kernel_are_refused_and_nothing_is_printed() {
    let files = two();
    let other = all(&[("f", 0x50), ("g", 0x30)]);
    files.put("other", &list(&other.iter().collect::<Vec<_>>(), TEXT));
    let log = format!("hello\n{LOG}");
    let (out, status, said) = of(&files.decode("other", &[], &log));
    assert_eq!((out.as_str(), status), ("", 4), "{said}");
    assert!(said.contains("2 functions with other sizes"), "{said}");
    let (out, status, _) = of(&files.decode("other", &["--force"], &log));
    assert_eq!((out, status), (log, 3));
}

#[test]
fn a_frame_of_another_size_or_beyond_the_function_is_left() {
    let files = two();
    let log =
        " f+0x10/0x50\n f+0x41/0x40\n f+0x40/0x40\n f+0x900/0x40\n g+0x8/0x10\n f+0x10/0x40\n";
    let (out, status, _) = of(&files.decode("kallsyms", &[], log));
    let expected = " f+0x10/0x50\n f+0x41/0x40\n f+0x40/0x40 (f.c:64)\n f+0x900/0x40\n g+0x8/0x10\n f+0x10/0x40 (f.c:16)\n";
    assert_eq!((out.as_str(), status), (expected, 3));
}

#[test]
fn functions_of_one_name_are_told_by_their_size_or_left() {
    let functions = [("f", 0x40), ("f", 0x20), ("f", 0x40), ("g", 0x20)];
    let files = Files::new(&functions, Profile::Full);
    let (out, status, said) =
        of(&files.decode("kallsyms", &[], " f+0x8/0x20\n f+0x10/0x40\n f+0x8/0x30\n"));
    let expected = " f+0x8/0x20 (f.1.c:8)\n f+0x10/0x40\n f+0x8/0x30\n";
    assert_eq!((out.as_str(), status), (expected, 3));
    assert!(said.contains("1 ambiguous"), "{said}");
}

#[test]
fn suffixes_of_compilers() {
    let functions = [
        ("mid.llvm.123", 0x40),
        ("f.isra.0", 0x20),
        ("f", 0x30),
        ("f.cold", 0x10),
        ("other.llvm.1", 0x40),
        ("other.llvm.2", 0x40),
    ];
    let files = Files::new(&functions, Profile::Full);
    let log = " mid+0x10/0x40\n mid.llvm.123+0x10/0x40\n f.isra.0+0x10/0x20\n f+0x10/0x20\n f+0x10/0x10\n \
               f.cold+0x8/0x10\n other+0x10/0x40\n";
    let expected = " mid+0x10/0x40 (mid.llvm.123.c:16)\n mid.llvm.123+0x10/0x40 (mid.llvm.123.c:16)\n \
                    f.isra.0+0x10/0x20 (f.isra.0.c:16)\n f+0x10/0x20\n f+0x10/0x10\n \
                    f.cold+0x8/0x10 (f.cold.c:8)\n other+0x10/0x40\n";
    assert_eq!(of(&files.decode("kallsyms", &[], log)).0, expected);
    // The kernel's list lacks the suffix, the log has it.
    let cut = all(&[("mid", 0x40), ("f.isra.0", 0x20), ("f", 0x30)]);
    files.put("cut", &list(&cut.iter().collect::<Vec<_>>(), TEXT));
    let (out, ..) = of(&files.decode("cut", &[], " mid.llvm.123+0x10/0x40\n"));
    assert_eq!(out, " mid.llvm.123+0x10/0x40 (mid.llvm.123.c:16)\n");
}

#[test]
fn names_of_rust_are_demangled_or_not() {
    let legacy = "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE";
    let mangled = "_RNvCs1234_4core5panic";
    let files = Files::new(&[(legacy, 0x40), (mangled, 0x20)], Profile::Full);
    let log = format!(
        " {legacy}+0x10/0x40\n core::fmt::Write::write_fmt+0x10/0x40\n \
         core::fmt::Write::write_fmt::h0123456789abcdef+0x10/0x40\n core::panic+0x8/0x20\n \
         core::panic+0x8/0x30\n core::nothing+0x8/0x20\n"
    );
    let (out, ..) = of(&files.decode("kallsyms", &[], &log));
    let found: Vec<bool> = out.lines().map(|line| line.ends_with(')')).collect();
    assert_eq!(found, [true, true, true, true, false, false], "{out}");
}

#[test]
fn labels_and_data_hide_nothing() {
    let files = two();
    // `g` is data first; a label in the list ends `f`, as it does in the kernel's own.
    files.put(
        "labels",
        "ffffffff81000000 T _text\nffffffff81000000 t f\nffffffff81000020 t label\n\
         ffffffff81000040 t g\nffffffff81000060 T _etext\nffffffff82000000 d g\nffffffff82000020 D _end\n",
    );
    let log = " f+0x10/0x20\n label+0x8/0x20\n g+0x8/0x20\n";
    let (out, ..) = of(&files.decode("labels", &[], log));
    assert_eq!(
        out,
        " f+0x10/0x20 (f.c:16)\n label+0x8/0x20 (f.c:40)\n g+0x8/0x20 (g.c:8)\n"
    );
}

#[test]
fn modules_in_a_list_are_no_functions_of_the_kernel() {
    let files = two();
    let functions = all(&[("f", 0x40), ("g", 0x20)]);
    let list = list(&functions.iter().collect::<Vec<_>>(), TEXT);
    files.put(
        "loaded",
        &format!("{list}ffffffffc0000000 t m\t[xfs]\nffffffffc0000040 t g\t[xfs]\nffffffffc0000060 t n\t[xfs]\n"),
    );
    let (out, ..) = of(&files.decode("loaded", &[], " m+0x10/0x40\n g+0x8/0x20\n"));
    assert_eq!(out, " m+0x10/0x40\n g+0x8/0x20 (g.c:8)\n");
}

#[test]
fn a_table_of_calls_marks_what_it_is_not_exact_for() {
    let files = Files::new(&[("f", 0x40)], Profile::Calls);
    let log = " f+0x10/0x40\n ? f+0x10/0x40\nRIP: 0010:f+0x10/0x40\n f+0x0/0x40\ninitcall f+0x0/0x40 returned\n";
    let (out, ..) = of(&files.decode("kallsyms", &[], log));
    assert_eq!(
        out,
        " f+0x10/0x40 (f.c:16)\n ? f+0x10/0x40 (f.c:~16)\nRIP: 0010:f+0x10/0x40 (f.c:~17)\n \
         f+0x0/0x40 (f.c:~1)\ninitcall f+0x0/0x40 (f.c:~1) returned\n"
    );
    // A WARN that the registers say is a trap.
    let log = "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x10/0x40\nRIP: 0010:f+0x10/0x40\n";
    let (out, ..) = of(&files.decode("kallsyms", &[], log));
    assert_eq!(out, log.replace("0x40\n", "0x40 (f.c:17)\n"));
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let arguments = [
        "--device".to_owned(),
        "nowhere".to_owned(),
        "--against".to_owned(),
        "nothing".to_owned(),
    ];
    let (out, status, said) = of(&decode(&arguments, LOG.as_bytes()));
    assert_eq!((out.as_str(), status), ("", 1));
    assert!(said.contains("nothing: there is no such file"), "{said}");
}
