//! The command line as users see it, failures included.

use std::any::Any;
use std::path::PathBuf;
use std::process::{self, Output};

use clap::{Arg, Command, CommandFactory, ValueHint};
use lineinfo_cli::cmd::Cli;

#[test]
fn commands_say_what_their_golden_files_say() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}

/// The command lines of the examples, with what runs before or after `lineinfo` in a pipe left out.
fn examples(command: &Command) -> Vec<Vec<String>> {
    let examples = command
        .get_after_long_help()
        .expect("each command has examples");
    let examples = examples.to_string();
    let lines = examples
        .lines()
        .filter_map(|line| line.strip_prefix("    "));
    let parts = lines.flat_map(|line| line.split('|'));
    let words = parts.map(|part| part.split_whitespace().map(str::to_owned).collect());
    words
        .filter(|words: &Vec<String>| words[0] == "lineinfo")
        .collect()
}

#[test]
fn the_examples_are_of_their_command_and_are_understood() {
    let program = Cli::command();
    for command in [&program].into_iter().chain(program.get_subcommands()) {
        let examples = examples(command);
        assert!(!examples.is_empty(), "{}", command.get_name());
        for words in examples {
            let parsed = program.clone().try_get_matches_from(&words);
            let matches = parsed.unwrap_or_else(|error| panic!("{words:?}: {error}"));
            let own = matches.subcommand_name();
            assert!(
                command.has_subcommands() || own == Some(command.get_name()),
                "{words:?}"
            );
        }
    }
}

#[test]
fn shells_know_what_is_a_file_and_what_a_directory() {
    let program = Cli::command();
    let arguments = program.get_subcommands().flat_map(Command::get_arguments);
    let is_path = |arg: &&Arg| arg.get_value_parser().type_id() == PathBuf::new().type_id();
    let paths: Vec<&Arg> = arguments.filter(is_path).collect();
    assert!(paths.len() > 20, "{paths:?}");
    for arg in paths {
        let expected = match arg.get_value_names().map(|names| names[0].as_str()) {
            Some("DIR") => ValueHint::DirPath,
            _ => ValueHint::FilePath,
        };
        assert_eq!(arg.get_value_hint(), expected, "{arg}");
    }
}

const INPUTS: &str = "tests/cmd/lineinfo.in";

/// The program, without a terminal, whose choice of colours depends on these variables alone.
fn lineinfo(variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut program = process::Command::new(env!("CARGO_BIN_EXE_lineinfo"));
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        program.env_remove(variable);
    }
    program.envs(variables.iter().copied()).current_dir(INPUTS);
    program.args(args).output().expect("lineinfo runs")
}

#[test]
fn colours_are_for_terminals_unless_they_are_asked_for_or_forbidden() {
    let directory = tempfile::tempdir().expect("a directory");
    let table = directory.path().join("demo.lineinfo");
    let table = table.to_str().expect("UTF-8");
    assert!(
        lineinfo(&[], &["build", "demo.elf", "-o", table])
            .status
            .success()
    );
    let force = ("CLICOLOR_FORCE", "1");
    let none = ("NO_COLOR", "1");
    for (variables, color, expected) in [
        (&[][..], &[][..], false),
        (&[force], &[], true),
        (&[force, none], &[], false),
        (&[none], &["--color", "always"], true),
        (&[], &["--color=always"], true),
        (&[force], &["--color", "never"], false),
        (&[force], &["--color", "auto"], true),
    ] {
        let is_coloured = |bytes: &[u8]| bytes.contains(&b'\x1b');
        // A location, a note, an error, an error of usage, and help.
        for (args, is_on_stdout) in [
            (&["decode", "--table", table, "oops.txt"][..], true),
            (&["decode", "--table", table, "oops.txt"], false),
            (&["dump", "nowhere"], false),
            (&["dump", "--nothing"], false),
            (&["dump", "--help"], true),
        ] {
            let args = [args, color].concat();
            let output = lineinfo(variables, &args);
            let printed = if is_on_stdout {
                &output.stdout
            } else {
                &output.stderr
            };
            assert_eq!(is_coloured(printed), expected, "{variables:?} {args:?}");
        }
    }
}

/// What was not printed is no success, be it help; what nobody reads on stderr changes nothing.
#[test]
fn a_full_disk_is_noticed() {
    let run = |args: &[&str], stdout: &str, stderr: &str| {
        let open = |path| {
            std::fs::File::options()
                .write(true)
                .open(path)
                .expect("a device")
        };
        let mut command = process::Command::new(env!("CARGO_BIN_EXE_lineinfo"));
        command.args(args).current_dir(INPUTS);
        command.stdout(open(stdout)).stderr(open(stderr));
        command.status().expect("lineinfo runs").code()
    };
    for args in [
        &["--help"][..],
        &["--version"],
        &["help", "build"],
        &["build", "--help"],
        &["footer", "demo.elf"],
        &["build", "demo.elf", "-o", "-"],
    ] {
        assert_eq!(run(args, "/dev/full", "/dev/null"), Some(1), "{args:?}");
    }
    let build = ["build", "demo.elf", "-o", "-"];
    assert_eq!(run(&build, "/dev/null", "/dev/full"), Some(0));
    assert_eq!(run(&["frob"], "/dev/null", "/dev/full"), Some(2));
}

#[test]
fn quiet_leaves_results_and_errors() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (table, image) = (path("demo.lineinfo"), path("demo.elf"));
    std::fs::copy(format!("{INPUTS}/demo.elf"), &image).expect("room");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let quiet = |args: &[&str]| {
        let output = lineinfo(&[], &[args, &["--quiet"]].concat());
        let (printed, said) = (text(output.stdout), text(output.stderr));
        (output.status.code().expect("a status"), printed, said)
    };
    let nothing = (0, String::new(), String::new());
    for args in [
        &["build", "demo.elf", "-o", &table][..],
        &["verify", &table, "--against", "demo.elf"],
        &["append", &table, "--to", &image],
        &["strip", &image],
    ] {
        assert_eq!(quiet(args), nothing, "{args:?}");
    }
    // A warning is no error.
    let other = ["build", "overlapping.elf", "-o", &path("other.lineinfo")];
    assert_eq!(quiet(&other), nothing);
    let (code, printed, said) = quiet(&["decode", "--table", &table, "oops.txt"]);
    assert!(
        code == 3 && printed.contains("(include/linux/fs.h:70)") && said.is_empty(),
        "{said}"
    );
    let differing = [
        "verify",
        &table,
        "--against",
        "demo.elf",
        "--source-root",
        "/src",
    ];
    let (code, printed, said) = quiet(&differing);
    assert!(
        code == 4 && printed.lines().count() == 7 && said.is_empty(),
        "{printed}{said}"
    );
    let (code, printed, said) = quiet(&["dump", "nowhere"]);
    assert!(
        code == 1 && printed.is_empty() && said.starts_with("lineinfo: nowhere: "),
        "{said}"
    );
}

#[test]
fn verbose_names_the_files_that_were_looked_for_and_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let table = directory.path().join("demo.lineinfo").display().to_string();
    let verbose = |args: &[&str]| {
        let output = lineinfo(&[], &[args, &["--verbose"]].concat());
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let said = verbose(&["build", "demo.elf", "-o", &table]);
    assert!(
        said.contains("lineinfo: demo.elf: has debug information itself\n"),
        "{said}"
    );
    let said = verbose(&["build", "stripped.elf", "-o", &table]);
    let debug = "/usr/lib/debug/.build-id/01/23456789abcdef0123456789abcdef01234567.debug";
    assert!(
        said.contains(&format!("lineinfo: {debug}: no such file\n")),
        "{said}"
    );
    let said = verbose(&["decode", "--table", &table, "oops.txt"]);
    let used = format!("lineinfo: {table}: used for the kernel, with lines of {table}\n");
    assert!(said.contains(&used), "{said}");
    let of_table = format!("lineinfo: {table}: a table of build-id 0123456789abcdef");
    for args in [
        &["dump", &table][..],
        &["lookup", &table, "0x401000"],
        &["verify", &table, "--against", "demo.elf"],
        &["sign", &table, "--key", "nowhere"],
        &["append", &table, "--to", "nowhere"],
        &["load", &table, "--dry-run", "--device", "nowhere"],
    ] {
        let said = verbose(args);
        assert!(said.contains(&of_table), "{args:?}: {said}");
    }
}
