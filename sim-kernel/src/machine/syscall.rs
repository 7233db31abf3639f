//! System calls of the host, made with an instruction of our own.
//!
//! Threads of CPUs wait in these: libc is built without frame pointers, and a CPU that is
//! interrupted in there could not be traced. They are also what is left in a panic: no lock, no
//! allocation, no buffer.

use std::arch::asm;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

use super::frames::keep_frame;

/// The console: standard output of the process.
pub(crate) const CONSOLE: i32 = libc::STDOUT_FILENO;

/// A system call with up to four arguments.
///
/// # Safety
///
/// What the host does with these arguments must be sound.
#[inline(always)]
unsafe fn syscall(number: i64, arguments: [usize; 4]) -> Result<usize, Errno> {
    let result: i64;
    // The address of a thread that is interrupted in the call is that after the instruction: with
    // the second instruction that address has the line of this call, and not that of the code after
    // it.
    // SAFETY: the instructions change rax, rcx and r11 only; what the host does is the caller's
    // promise.
    unsafe {
        asm!(
            "syscall",
            "nop",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    };
    usize::try_from(result)
        .map_err(|_| Errno::from_raw(i32::try_from(-result).unwrap_or(libc::EINVAL)))
}

/// Reads from a descriptor of the host; from a terminal, once this process is in its foreground.
#[inline(never)]
pub(crate) fn read(fd: i32, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        let address = buffer.as_mut_ptr().expose_provenance();
        // SAFETY: the host writes at most `buffer.len()` bytes into `buffer`.
        let read = unsafe { syscall(libc::SYS_read, [fd as usize, address, buffer.len(), 0]) };
        if read != Err(Errno::EIO) || !is_in_background(fd) {
            return keep_frame(read);
        }
        wait_for_foreground(fd);
    }
}

/// How long to sleep between two checks of whether this process is in the foreground.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(100);

/// Waits until this process is in the foreground of a terminal; not at all for what is none.
#[inline(never)]
pub(crate) fn wait_for_foreground(fd: i32) {
    while is_in_background(fd) {
        safe_halt(BACKGROUND_PAUSE);
    }
    keep_frame(());
}

/// Whether a descriptor is this process's terminal, and another process group is in its foreground.
fn is_in_background(fd: i32) -> bool {
    let mut foreground: libc::pid_t = 0;
    let address = (&raw mut foreground).expose_provenance();
    let arguments = [fd as usize, libc::TIOCGPGRP as usize, address, 0];
    // SAFETY: the host writes one `pid_t`.
    let asked = unsafe { syscall(libc::SYS_ioctl, arguments) };
    // SAFETY: it only returns a number.
    let own = unsafe { syscall(libc::SYS_getpgrp, [0; 4]) };
    asked.is_ok() && own.is_ok_and(|own| usize::try_from(foreground) != Ok(own))
}

/// Reads one line from a descriptor of the host, without its end; `None` at the end of the input.
///
/// A line that is too long is returned in pieces. Nothing is read ahead: the next line may be for
/// another reader of the descriptor.
#[inline(never)]
pub(crate) fn read_line(fd: i32, buffer: &mut [u8]) -> Result<Option<&[u8]>, Errno> {
    let mut len = 0;
    let mut ended = false;
    while let Some(free) = buffer.get_mut(len..len + 1) {
        match read(fd, free) {
            Ok(0) if len == 0 => return keep_frame(Ok(None)),
            Ok(_) if free[0] == b'\n' => ended = true,
            Ok(0) => ended = true,
            Ok(_) => len += 1,
            Err(Errno::EINTR) => {}
            Err(errno) => return keep_frame(Err(errno)),
        }
        if ended {
            break;
        }
    }
    keep_frame(Ok(Some(&buffer[..len])))
}

/// Writes all bytes to a descriptor of the host.
#[inline(never)]
pub(crate) fn write_all(fd: i32, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let address = bytes.as_ptr().expose_provenance();
        // SAFETY: the host reads `bytes.len()` bytes from `bytes`.
        match unsafe { syscall(libc::SYS_write, [fd as usize, address, bytes.len(), 0]) } {
            Ok(written) => bytes = bytes.get(written..).unwrap_or(&[]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes all bytes to a position of a file of the host, in bytes from its start.
pub(crate) fn pwrite_all(fd: i32, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let address = bytes.as_ptr().expose_provenance();
        let arguments = [fd as usize, address, bytes.len(), at as usize];
        // SAFETY: the host reads `bytes.len()` bytes from `bytes`.
        match unsafe { syscall(libc::SYS_pwrite64, arguments) } {
            Ok(0) => return Err(Errno::EIO),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or(&[]);
                at += written as u64;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Waits until `timeout` has passed or an interrupt came.
#[inline(never)]
pub(crate) fn safe_halt(timeout: Duration) {
    let time = libc::timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    let address = (&raw const time).expose_provenance();
    // An interrupt is one of the two ways to wake up, not a failure.
    // SAFETY: the host reads one `timespec`, and with a null pointer writes no remainder.
    let _interrupted = unsafe { syscall(libc::SYS_nanosleep, [address, 0, 0, 0]) };
}

/// Waits until `duration` has passed, interrupts or not.
#[inline(never)]
pub(crate) fn sleep(duration: Duration) {
    let start = Instant::now();
    while let Some(left) = duration
        .checked_sub(start.elapsed())
        .filter(|left| !left.is_zero())
    {
        safe_halt(left);
    }
}

/// Ends the process at once, with all its threads.
pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: this does not return.
        let _refused = unsafe { syscall(libc::SYS_exit_group, [status as usize, 0, 0, 0]) };
    }
}

/// Ends this thread at once; nothing that it owns is freed.
pub(crate) fn exit_thread() -> ! {
    loop {
        // SAFETY: this does not return, and the memory of the thread, its stack included, stays.
        let _refused = unsafe { syscall(libc::SYS_exit, [0, 0, 0, 0]) };
    }
}
