//! The command line as users see it, failures included.

use std::any::Any;
use std::path::PathBuf;

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
