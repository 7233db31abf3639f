//! Makes the completions of shells and the pages of the manual, as packages install them.
//!
//! ```text
//! cargo run -p lineinfo-cli --example generate -- DIR
//!
//!   DIR/man/man1/lineinfo.1, lineinfo-build.1, …     a page for each command
//!   DIR/bash-completion/completions/lineinfo
//!   DIR/zsh/site-functions/_lineinfo
//!   DIR/fish/vendor_completions.d/lineinfo.fish
//! ```
//!
//! The directories are those below `/usr/share`. All is made from the definition of the command line in
//! `lineinfo_cli::cmd`. It is an example and no command of `lineinfo`, because who packages the program
//! needs it once, on the machine that builds, whatever machine the package is for; installed programs
//! do not carry the generators.

#![forbid(unsafe_code)]

mod files;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: generate DIR, the directory that is to be like /usr/share");
        return ExitCode::from(2);
    };
    match files::generate(&PathBuf::from(&directory)) {
        Ok(paths) => {
            for path in paths {
                println!("{}", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("generate: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
