use super::{DeviceArg, summarize};
use crate::Error;
use crate::device::Access;
use crate::error::exit;

/// Unload the table of a running kernel and free its memory.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    device: DeviceArg,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let mut device = args.device.open(Access::Write)?;
    let memory = device.status()?.memory;
    device.unload()?;
    let device = args.device.path.display();
    summarize(false, |out| {
        writeln!(out, "{device}: unloaded: {memory} bytes of memory freed")
    })?;
    Ok(exit::DONE)
}
