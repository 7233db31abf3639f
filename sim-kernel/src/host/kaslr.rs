//! `nokaslr`: the host loads the image at its fixed address.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::personality::{self, Persona};

use crate::kernel::image;

/// Executes this process again without address space randomization, if it has one now.
///
/// Returns only if there is none, or with the error of the host.
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
