//! The binary `lineinfo`: see the library of this package.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match lineinfo_cli::cmd::Cli::parse().run() {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.is_closed_stdout() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lineinfo: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
