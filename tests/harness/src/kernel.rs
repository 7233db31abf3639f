//! A simulated kernel as a process.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{PAUSE, TIMEOUT};

/// A simulated kernel that is running; killed when dropped.
#[derive(Debug)]
pub struct Kernel {
    child: Child,
    stdin: Option<ChildStdin>,
    console: Receiver<String>,
    socket: PathBuf,
    commands: u32,
    /// All lines of its console that were read so far.
    pub log: Vec<String>,
}

impl Kernel {
    /// Boots an image with a command line, and waits until its device can be opened at `socket`.
    ///
    /// # Errors
    ///
    /// If it does not come up; the console is in the message.
    pub fn boot(image: &Path, socket: &Path, command_line: &[&str]) -> Result<Self> {
        let mut command = Command::new(image);
        command.arg("--socket").arg(socket).arg("--");
        Self::start(command.args(command_line), socket)
    }

    /// The same with a command that has `--socket`, and whatever else it has.
    ///
    /// # Errors
    ///
    /// If it does not come up; the console is in the message.
    pub fn start(command: &mut Command, socket: &Path) -> Result<Self> {
        let mut kernel = Self::spawn(command, socket)?;
        kernel.wait_for("lineinfo: ready on ")?;
        Ok(kernel)
    }

    /// Starts a command, and waits for nothing.
    ///
    /// # Errors
    ///
    /// If the host cannot execute it.
    pub fn spawn(command: &mut Command, socket: &Path) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let end = Instant::now() + TIMEOUT;
        let mut child = loop {
            match command.spawn() {
                // An image that was just written may still be open in a child of another test.
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy
                        && Instant::now() < end =>
                {
                    thread::sleep(PAUSE);
                }
                child => break child.with_context(|| format!("boot {command:?}"))?,
            }
        };
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (lines, console) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            console,
            socket: socket.to_owned(),
            commands: 0,
            log: Vec::new(),
        })
    }

    /// The path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a line to init, and waits for nothing.
    ///
    /// # Errors
    ///
    /// If init has no input any more.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("init has no more input")?;
        writeln!(stdin, "{line}").context("write to init")
    }

    /// Ends the input of init.
    pub fn end_of_input(&mut self) {
        self.stdin = None;
    }

    /// Gives a command to init and returns what the console prints meanwhile.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn command(&mut self, command: &str) -> Result<Vec<String>> {
        self.commands += 1;
        let mark = format!("end of command {}", self.commands);
        self.send(&format!("{command}\necho {mark}"))?;
        let mut lines = self.wait_for(&mark)?;
        lines.pop();
        Ok(lines)
    }

    /// Gives init its last command; waits for the end of the process, and returns what the console
    /// prints meanwhile.
    ///
    /// # Errors
    ///
    /// If the kernel does not end.
    pub fn last_command(mut self, command: &str) -> Result<(Vec<String>, ExitStatus)> {
        self.send(command)?;
        let from = self.log.len();
        let (status, mut lines) = self.finish()?;
        Ok((lines.split_off(from), status))
    }

    /// Ends the input of init; waits for the end of the process, and returns all that its console
    /// printed.
    ///
    /// # Errors
    ///
    /// If the kernel does not end.
    pub fn finish(mut self) -> Result<(ExitStatus, Vec<String>)> {
        self.end_of_input();
        let end = Instant::now() + TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.console.recv_timeout(left) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the kernel does not end:\n{}", self.tail())
                }
            }
        }
        let status = self.child.wait().context("wait for the kernel")?;
        Ok((status, std::mem::take(&mut self.log)))
    }

    /// Gives init its last command and waits for the end of the process, whatever it prints.
    ///
    /// # Errors
    ///
    /// If the kernel does not end.
    pub fn end(&mut self, command: &str) -> Result<ExitStatus> {
        self.send(command)?;
        self.wait()
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    ///
    /// If the kernel does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.end_of_input();
        let start = Instant::now();
        while start.elapsed() < TIMEOUT {
            if let Some(status) = self.child.try_wait().context("wait for the kernel")? {
                return Ok(status);
            }
            thread::sleep(PAUSE);
        }
        bail!("the kernel does not end:\n{}", self.tail())
    }

    /// Waits for a line that contains `text`; returns the lines up to it.
    ///
    /// # Errors
    ///
    /// If it does not come.
    pub fn wait_for(&mut self, text: &str) -> Result<Vec<String>> {
        let from = self.log.len();
        let end = Instant::now() + TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.console.recv_timeout(left) else {
                bail!("no {text:?} on the console:\n{}", self.tail());
            };
            let found = line.contains(text);
            self.log.push(line);
            if found {
                return Ok(self.log[from..].to_vec());
            }
        }
    }

    /// The resident pages of its RAM in kB, as the host counts them.
    ///
    /// The kernel logs where its RAM lies in the process; `/proc/PID/smaps` has what is mapped there.
    ///
    /// # Errors
    ///
    /// If either does not say.
    pub fn resident_ram_kb(&self) -> Result<u64> {
        let arena = self.log.iter().find_map(|line| {
            let (_, range) = line.split_once("mm: arena ")?;
            parse_range(range.split(',').next()?)
        });
        let (start, end) = arena.context("the boot log does not say where the RAM is")?;
        let path = format!("/proc/{}/smaps", self.pid());
        let smaps = std::fs::read_to_string(&path).context(path)?;
        let mut inside = false;
        let mut resident_kb = 0;
        for line in smaps.lines() {
            if let Some((first, last)) = line.split(' ').next().and_then(parse_range) {
                inside = first >= start && last <= end;
            } else if let Some(rss) = line.strip_prefix("Rss:").filter(|_| inside) {
                resident_kb += rss.trim().trim_end_matches(" kB").parse::<u64>()?;
            }
        }
        Ok(resident_kb)
    }

    fn tail(&self) -> String {
        self.log[self.log.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `start-end` in hexadecimal.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let address = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let (start, end) = text.split_once('-')?;
    Some((address(start)?, address(end)?))
}
