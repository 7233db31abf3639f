use std::io::Write;

use super::{DeviceArg, print};
use crate::Error;
use crate::device::Access;
use crate::error::exit;

/// Show what a running kernel has loaded, and why it last refused something.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    device: DeviceArg,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let status = args.device.open(Access::Read)?.status()?;
    print(|out| write!(out, "{status}"))?;
    Ok(exit::DONE)
}
