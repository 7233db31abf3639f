//! The binary `lineinfo`: see the library of this package.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use lineinfo_cli::cmd::Cli;
use lineinfo_cli::message;

fn main() -> ExitCode {
    match Cli::from_args().run() {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.is_closed_stdout() => ExitCode::SUCCESS,
        Err(error) => {
            message::error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
