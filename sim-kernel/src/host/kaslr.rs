//! `nokaslr`: the host loads the image where it always does.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::personality::{self, Persona};

use crate::kernel::image;

/// Starts this process once more without address space randomization, if it has one now.
///
/// Comes back only where there is none, or with what the host said against it.
pub(crate) fn disable(arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    let persona = personality::get()?;
    if persona.contains(Persona::ADDR_NO_RANDOMIZE) {
        return Ok(());
    }
    personality::set(persona | Persona::ADDR_NO_RANDOMIZE)?;
    execute_again(arguments).map(|never| match never {})
}

fn execute_again(mut arguments: impl Iterator<Item = OsString>) -> io::Result<Infallible> {
    let mut command = Command::new(image::PATH);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(command.args(arguments).exec())
}
