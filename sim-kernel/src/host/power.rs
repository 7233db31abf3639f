//! The power button: SIGTERM and SIGINT.

use std::io;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use crate::kernel::reboot;
use crate::printk;

/// Makes the signals power the machine off in order; call it before there are threads.
pub(crate) fn install_button() -> io::Result<()> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block()?;
    thread::Builder::new()
        .name("power-button".into())
        .spawn(move || {
            if let Ok(signal) = signals.wait() {
                printk!(Info, "power button: {signal}");
                reboot::kernel_power_off();
            }
        })?;
    Ok(())
}
