use lineinfo_core::uapi::{Errno, State};

use super::{DeviceArg, KERNEL, RootArg, summarize};
use crate::device::Access;
use crate::error::exit;
use crate::{Error, message};

/// Unload the table of a running kernel and free its memory.
///
/// With --auto those of the running kernel and of all its modules are unloaded, as many as there are.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    device: DeviceArg,
    /// Unload the tables of the running kernel and of all its modules.
    #[arg(long, conflicts_with = "module", help_heading = KERNEL)]
    auto: bool,
    #[command(flatten)]
    root: RootArg,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    if args.auto {
        return unload_running(args);
    }
    let memory = unload(args, args.device.module.as_deref())?;
    let device = args.device.path.display();
    summarize(false, |out| {
        writeln!(out, "{device}: unloaded: {memory} bytes of memory freed")
    })?;
    Ok(exit::DONE)
}

/// Unloads the table of a module, or of the kernel, and gives the memory that it took, in bytes.
fn unload(args: &Args, module: Option<&str>) -> Result<u64, Error> {
    let mut device = args.device.open_for(module, Access::Write)?;
    let memory = device.status()?.memory;
    device.unload()?;
    Ok(memory)
}

/// Unloads the tables of the running kernel and of its modules, and gives the exit status.
fn unload_running(args: &Args) -> Result<u8, Error> {
    let (running, _) = args.root.read(&args.device)?;
    let modules = running.modules.iter().map(|module| Some(&*module.name));
    let (mut tables, mut bytes) = (0_usize, 0);
    let mut status = exit::DONE;
    for module in std::iter::once(None).chain(modules) {
        let unloaded = is_loaded(args, module)
            .and_then(|loaded| loaded.then(|| unload(args, module)).transpose());
        match unloaded {
            Ok(Some(memory)) => {
                tables += 1;
                bytes += memory;
            }
            Ok(None) => {}
            Err(error) => {
                message::error(&error);
                if status == exit::DONE {
                    status = error.exit_code();
                }
            }
        }
    }
    let device = args.device.path.display();
    summarize(false, |out| {
        writeln!(
            out,
            "{device}: tables unloaded: {tables}, {bytes} bytes of memory freed"
        )
    })?;
    Ok(status)
}

/// Whether a module, or the kernel, has a table; a module that went meanwhile has none.
fn is_loaded(args: &Args, module: Option<&str>) -> Result<bool, Error> {
    let status = args
        .device
        .open_for(module, Access::Read)
        .and_then(|mut device| device.status());
    match status {
        Ok(status) => Ok(State::from_number(status.state) == Some(State::Loaded)),
        Err(Error::Device { errno, .. }) if module.is_some() && errno == Errno::ENOENT.number() => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
