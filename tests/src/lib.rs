//! What the end-to-end tests and the tour share: the two binaries, and a kernel that is running.
//!
//! ```text
//!   test or tour ──stdin──> sim-kernel (a process) ──stdout──> its console, line by line
//!        └── lineinfo load --device SOCKET ──────> its /dev/lineinfo, also a file of its --mount
//! ```

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lineinfo_core::Table;

/// How long anything may take before it counts as hanging.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The binaries under test.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The loader.
    pub lineinfo: PathBuf,
    /// The simulated kernel, which is its own boot image and its own vmlinux.
    pub sim_kernel: PathBuf,
}

impl Binaries {
    /// Builds both with Cargo, optimized or not.
    ///
    /// # Errors
    ///
    /// What Cargo says.
    pub fn build(release: bool) -> Result<Self> {
        let build = |package: &str, bin: &str| {
            let mut build = escargot::CargoBuild::new()
                .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
                .package(package)
                .bin(bin);
            if release {
                build = build.release();
            }
            let built = build.run().with_context(|| format!("cargo build {bin}"))?;
            anyhow::Ok(built.path().to_owned())
        };
        Ok(Self {
            lineinfo: build("lineinfo-cli", "lineinfo")?,
            sim_kernel: build("sim-kernel", "sim-kernel")?,
        })
    }

    /// Runs the loader.
    ///
    /// # Errors
    ///
    /// If it cannot be started; its failure is in the output.
    pub fn lineinfo(&self, args: &[&str]) -> Result<Output> {
        let output = Command::new(&self.lineinfo).args(args).output();
        output.with_context(|| format!("start {}", self.lineinfo.display()))
    }
}

/// A simulated kernel that is running; killed when dropped.
#[derive(Debug)]
pub struct Kernel {
    child: Child,
    stdin: Option<ChildStdin>,
    console: Receiver<String>,
    socket: PathBuf,
    commands: u32,
    /// All lines that its console has printed so far.
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
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("boot {command:?}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (lines, console) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let mut kernel = Self {
            stdin: child.stdin.take(),
            child,
            console,
            socket: socket.to_owned(),
            commands: 0,
            log: Vec::new(),
        };
        kernel.wait_for("lineinfo: ready on ")?;
        Ok(kernel)
    }

    /// The path of its device.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command to init and returns what the console prints meanwhile.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn command(&mut self, command: &str) -> Result<Vec<String>> {
        self.commands += 1;
        let mark = format!("end of command {}", self.commands);
        self.send(&format!("{command}\necho {mark} > /dev/kmsg\n"))?;
        let mut lines = self.wait_for(&mark)?;
        lines.pop();
        Ok(lines)
    }

    /// Gives init its last command and waits for the end of the process.
    ///
    /// # Errors
    ///
    /// If the kernel does not end.
    pub fn last_command(mut self, command: &str) -> Result<(Vec<String>, ExitStatus)> {
        self.send(&format!("{command}\n"))?;
        self.stdin = None;
        let from = self.log.len();
        loop {
            match self.console.recv_timeout(TIMEOUT) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the kernel does not end:\n{}", self.tail())
                }
            }
        }
        let status = self.child.wait().context("wait for the kernel")?;
        Ok((self.log.split_off(from), status))
    }

    /// Gives init its last command and waits for the end of the process, whatever it prints.
    ///
    /// # Errors
    ///
    /// If the kernel does not end.
    pub fn end(&mut self, command: &str) -> Result<ExitStatus> {
        self.send(&format!("{command}\n"))?;
        self.wait()
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    ///
    /// If the kernel does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        let start = Instant::now();
        while start.elapsed() < TIMEOUT {
            if let Some(status) = self.child.try_wait().context("wait for the kernel")? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(1));
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
        loop {
            match self.console.recv_timeout(TIMEOUT) {
                Ok(line) => {
                    let found = line.contains(text);
                    self.log.push(line);
                    if found {
                        return Ok(self.log[from..].to_vec());
                    }
                }
                Err(_) => bail!("no {text:?} on the console:\n{}", self.tail()),
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

    fn send(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("init has no more input")?;
        stdin.write_all(text.as_bytes()).context("write to init")?;
        stdin.flush().context("write to init")
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

/// One frame of a stack trace on the console.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// `symbol+0xoff/0xsize`.
    pub symbol: String,
    /// The module it is in, if any.
    pub module: Option<String>,
    /// `file:line`, where it is annotated.
    pub location: Option<String>,
}

/// The frames among lines of a console: ` symbol+0xoff/0xsize [module] (file:line)`, the module and
/// the place only where there are any.
pub fn frames(lines: &[String]) -> Vec<Frame> {
    lines.iter().filter_map(|line| Frame::parse(line)).collect()
}

impl Frame {
    /// A frame of a trace, where the line is one.
    pub fn parse(line: &str) -> Option<Self> {
        let text = without_time(line).strip_prefix(' ')?;
        Self::parse_text(text.strip_prefix("? ").unwrap_or(text))
    }

    /// What stands behind `RIP:`, where the line has that and it is code with a name.
    pub fn parse_rip(line: &str) -> Option<Self> {
        Self::parse_text(without_time(line).strip_prefix("RIP: 0010:")?)
    }

    fn parse_text(text: &str) -> Option<Self> {
        let (text, location) = match text.rsplit_once(" (") {
            Some((symbol, rest)) => (symbol, Some(rest.strip_suffix(')')?.to_owned())),
            None => (text, None),
        };
        let (symbol, module) = match text.rsplit_once(" [") {
            Some((symbol, rest)) => (symbol, Some(rest.strip_suffix(']')?.to_owned())),
            None => (text, None),
        };
        let (_, extent) = symbol.rsplit_once("+0x")?;
        let (offset, size) = extent.split_once("/0x")?;
        let is_hex = |digits| u64::from_str_radix(digits, 16).is_ok();
        (is_hex(offset) && is_hex(size)).then(|| Self {
            symbol: symbol.to_owned(),
            module,
            location,
        })
    }
}

/// A line of the log without its time.
fn without_time(line: &str) -> &str {
    match line.split_once("] ") {
        Some((stamp, rest)) if stamp.starts_with('[') => rest,
        _ => line,
    }
}

/// A field of the meminfo among lines of a console, in kB.
///
/// # Errors
///
/// If it is not there.
pub fn meminfo_kb(lines: &[String], field: &str) -> Result<u64> {
    let line = lines.iter().find_map(|line| {
        let (_, rest) = line.split_once(&format!("{field}:"))?;
        rest.trim().strip_suffix(" kB")
    });
    let kb = line.with_context(|| format!("no {field} in:\n{}", lines.join("\n")))?;
    Ok(kb.trim().parse()?)
}

/// The resident set of a process in kB, as the host counts its pages.
///
/// # Errors
///
/// If the host does not say.
pub fn resident_kb(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    meminfo_kb(&lines, "Rss")
}

/// Size of the table in a file, in bytes, once it is in a kernel that has booted: without what it
/// says of init text, which is gone by then.
///
/// # Errors
///
/// If the file holds no table.
pub fn loaded_size_bytes(path: &Path) -> Result<u64> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(Table::parse(&bytes)?.size_without_init() as u64)
}

/// What it takes there, whole pages, in kB.
///
/// # Errors
///
/// If the file holds no table.
pub fn memory_of_table_kb(path: &Path) -> Result<u64> {
    const PAGE_BYTES: u64 = 4096;
    Ok(loaded_size_bytes(path)?.next_multiple_of(PAGE_BYTES) / 1024)
}

/// What a command printed on stdout, if it succeeded.
///
/// # Errors
///
/// What it printed on stderr, if it failed.
pub fn stdout_of(output: Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
