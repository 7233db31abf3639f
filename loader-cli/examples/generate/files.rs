//! The files, each made from the definition of the command line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::{Generator, Shell};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use lineinfo_cli::cmd::Cli;

/// The section of the manual: programs.
const SECTION: &str = "1";

/// The shells, and where each looks for completions.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/lineinfo"),
    (Shell::Zsh, "zsh/site-functions/_lineinfo"),
    (Shell::Fish, "fish/vendor_completions.d/lineinfo.fish"),
];

/// Makes all files below a directory, and gives their paths.
///
/// # Errors
///
/// Those of making directories and files.
pub(crate) fn generate(directory: &Path) -> io::Result<Vec<PathBuf>> {
    // The commit is not in them: two packages of one version have the same files.
    let mut command = Cli::command()
        .bin_name("lineinfo")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true);
    command.build();
    let mut paths = Vec::new();
    let mut write = |path: PathBuf, contents: &[u8]| {
        fs::create_dir_all(path.parent().unwrap_or(directory))?;
        fs::write(&path, contents)?;
        paths.push(path);
        io::Result::Ok(())
    };
    for (shell, path) in SHELLS {
        let mut script = Vec::new();
        shell.generate(&command, &mut script);
        write(directory.join(path), &script)?;
    }
    let commands: Vec<&Command> = command.get_subcommands().collect();
    for one in [&command].into_iter().chain(commands.iter().copied()) {
        let name = one.get_display_name().unwrap_or(one.get_name());
        let path = directory.join(format!("man/man{SECTION}/{name}.{SECTION}"));
        write(path, &page(one, &commands)?)?;
    }
    Ok(paths)
}

/// A page of the manual.
fn page(command: &Command, commands: &[&Command]) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .section(SECTION)
        .source(concat!("lineinfo ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands")
        // It would be when the page was made, and `TH` wants an argument.
        .date(" ");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let is_whole_program = command.has_subcommands();
    if is_whole_program {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    let mut rest = Roff::new();
    if let Some(examples) = command.get_after_long_help() {
        push_examples(&mut rest, &examples.to_string());
    }
    rest.control("SH", ["SEE ALSO"]);
    let others = commands.iter().filter(|_| is_whole_program);
    let names = others.filter_map(|other| other.get_display_name());
    let names = names.chain((!is_whole_program).then_some("lineinfo"));
    let mut references = Vec::new();
    for name in names {
        if !references.is_empty() {
            references.push(roman(", "));
        }
        references.extend([bold(name), roman(format!("({SECTION})"))]);
    }
    rest.text(references);
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// The examples of a command: what is done, then the commands, which are indented more.
fn push_examples(to: &mut Roff, examples: &str) {
    to.control("SH", ["EXAMPLES"]);
    for line in examples.lines().skip(1) {
        match line.strip_prefix("    ") {
            Some(command) => {
                to.control("RS", ["4"]);
                to.control("EX", []);
                to.text([roman(command)]);
                to.control("EE", []);
                to.control("RE", []);
            }
            None => {
                to.control("PP", []);
                to.text([roman(line.trim_start())]);
            }
        }
    }
}
