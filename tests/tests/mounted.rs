//! A kernel whose files are mounted, driven with what every machine has: cat, dd, echo, head, and a
//! Python client that knows nothing of us but the numbers of the ioctls.
//!
//! Where the host does not let a kernel mount its files, or has no python3, the tests are shown as
//! ignored, with the reason.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use lineinfo_tests::{Binaries, Kernel, build_module, frames, loaded_size_bytes, stdout_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// Twenty lines: the numbers are those of `lineinfo_core::uapi`, as a C header would give them.
const CLIENT: &str = r#"
import fcntl, struct, sys

def request(direction, number, size):
    return direction << 30 | size << 16 | 0xf7 << 8 | number

STATUS, UNLOAD, LOOKUP = request(2, 0, 232), request(0, 2, 0), request(3, 3, 800)
path, what, *address = sys.argv[1:]
with open(path, "r+b" if what == "unload" else "rb", buffering=0) as device:
    if what == "status":
        state, rows, files = struct.unpack_from("=3I", fcntl.ioctl(device, STATUS, bytes(232)))
        print(state, rows, files)
    elif what == "unload":
        fcntl.ioctl(device, UNLOAD)
    else:
        question = struct.pack("=QII784x", int(address[0], 16), 1, 0)
        answer = fcntl.ioctl(device, LOOKUP, question)
        found, line = struct.unpack_from("=2I", answer, 24)
        print(found, answer[32:].split(b"\0")[0].decode(), line)
"#;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let ready = Ready::find();
    let reason = ready.as_ref().err().map(|error| format!("{error:#}"));
    let trial = |name: &str, test: fn(&Ready) -> Result<()>| match (&ready, &reason) {
        (Ok(ready), _) => {
            let ready = ready.clone();
            Trial::test(name, move || Ok(test(&ready)?))
        }
        (Err(_), reason) => {
            let reason = reason.as_deref().unwrap_or("");
            Trial::test(format!("{name} (skipped: {reason})"), || Ok(())).with_ignored_flag(true)
        }
    };
    let trials = vec![
        trial("coreutils and an ioctl client can do it all", coreutils),
        trial("what is refused is an errno of write or close", refused),
        trial(
            "one writer at a time, whichever transport it came by",
            two_transports,
        ),
        trial("the loader takes the mounted device", loader),
        trial("the host checks the permissions", permissions),
        trial(
            "the name of a process does not forge a line of the log",
            names,
        ),
        trial("a shell can have it in the background", shell),
        trial("nothing stays mounted, however the machine ends", ends),
        trial("a module has a directory while it is loaded", modules),
        trial("an oops ends the task that wrote it", oops),
        trial("without the right to mount the socket works", without),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What the tests need: the binaries, and a table.
#[derive(Clone)]
struct Ready {
    binaries: Binaries,
    table: PathBuf,
    _directory: std::sync::Arc<TempDir>,
}

impl Ready {
    /// Looks whether the host lets a kernel mount its files.
    fn find() -> Result<Self> {
        let python = Command::new("python3").arg("--version").output();
        ensure!(python.is_ok(), "python3 is not installed");
        let directory = tempfile::tempdir()?;
        let binaries = Binaries::build(false)?;
        let table = directory.path().join("kernel.lineinfo");
        let kernel = binaries.sim_kernel.display().to_string();
        let path = table.display().to_string();
        stdout_of(binaries.lineinfo(&["build", "--no-symbols", &kernel, "-o", &path])?)?;
        let ready = Self {
            binaries,
            table,
            _directory: directory.into(),
        };
        let machine = ready.boot(&[])?;
        let said = machine.kernel.log.iter().find_map(|line| {
            let (_, reason) = line.split_once("mount: no files on ")?;
            Some(reason.to_owned())
        });
        match said {
            None => Ok(ready),
            Some(reason) => anyhow::bail!("{reason}"),
        }
    }

    fn boot(&self, command_line: &[&str]) -> Result<Machine> {
        Machine::boot(self, command_line, |_| {})
    }
}

/// A kernel with its files mounted.
struct Machine {
    kernel: Kernel,
    /// Unmounted before it is removed: the kernel is dropped first.
    directory: TempDir,
}

impl Machine {
    fn boot(
        ready: &Ready,
        command_line: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777))?;
        std::fs::create_dir(directory.path().join("mnt"))?;
        let socket = directory.path().join("sock");
        let mut command = Command::new(&ready.binaries.sim_kernel);
        command.arg("--socket").arg(&socket);
        command.arg("--mount").arg(directory.path().join("mnt"));
        command.arg("--").args(command_line);
        change(&mut command);
        Ok(Self {
            kernel: Kernel::start(&mut command, &socket)?,
            directory,
        })
    }

    fn mountpoint(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    /// A shell in the mounted directory, `$T` being the table.
    fn shell(&self, ready: &Ready, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .current_dir(self.mountpoint())
            .env("T", &ready.table)
            .env("C", CLIENT);
        command
    }

    /// What a script prints, which must succeed.
    fn run(&self, ready: &Ready, script: &str) -> Result<String> {
        let output = self.shell(ready, script).output()?;
        stdout_of(output).with_context(|| script.to_owned())
    }

    /// What a script says on stderr, which must fail.
    fn fails(&self, ready: &Ready, script: &str) -> Result<String> {
        let output = self.shell(ready, script).output()?;
        ensure!(!output.status.success(), "{script} did not fail");
        Ok(String::from_utf8(output.stderr)?)
    }

    fn expect(&self, ready: &Ready, script: &str, expected: &str) -> Result<()> {
        let found = self.run(ready, script)?;
        ensure!(found == expected, "{script}: {found:?}, not {expected:?}");
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A kernel that is killed cannot unmount; one that has ended has.
        let _unmounted = kill(
            Pid::from_raw(self.kernel.pid().cast_signed()),
            Signal::SIGTERM,
        );
        let _ended = self.kernel.wait();
    }
}

fn is_mounted(path: &Path) -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let path = path.display().to_string();
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(&path)))
}

fn coreutils(ready: &Ready) -> Result<()> {
    let mut machine = ready.boot(&["lineinfo=off", "maxcpus=3"])?;
    let m = |script: &str, expected: &str| machine.expect(ready, script, expected);
    m("ls", "dev\nproc\nsys\n")?;
    m("cat proc/cmdline", "lineinfo=off maxcpus=3\n")?;
    m("cat sys/kernel/lineinfo/state", "empty\n")?;
    m("stat -c %a dev/lineinfo proc/sysrq-trigger", "644\n200\n")?;
    m("ls sys/module", "")?;
    let meminfo = machine.run(ready, "head -n 1 proc/meminfo")?;
    ensure!(meminfo.starts_with("MemTotal:"), "{meminfo}");

    let size = loaded_size_bytes(&ready.table)?;
    m(
        "cat $T > dev/lineinfo && cat sys/kernel/lineinfo/bytes",
        &format!("{size}\n"),
    )?;
    let status = machine.run(ready, r#"python3 -c "$C" dev/lineinfo status"#)?;
    let entries = machine.run(ready, "cat sys/kernel/lineinfo/entries")?;
    let rows = status.split(' ').nth(1);
    ensure!(
        status.starts_with("1 ") && rows == Some(entries.trim()),
        "{status}"
    );
    let found = machine.run(
        ready,
        r#"A=$(grep ' sim_kernel::fs::read_write::vfs_write$' proc/kallsyms | cut -d' ' -f1)
           python3 -c "$C" dev/lineinfo lookup $(printf %x $((0x$A + 5)))"#,
    )?;
    ensure!(
        found.starts_with("1 sim-kernel/src/fs/read_write.rs "),
        "{found}"
    );
    m(
        "cat sys/kernel/lineinfo/lookups sys/kernel/lineinfo/misses",
        "1\n0\n",
    )?;
    m(
        r#"python3 -c "$C" dev/lineinfo unload && cat sys/kernel/lineinfo/state"#,
        "empty\n",
    )?;
    m(
        "dd bs=4k if=$T of=dev/lineinfo status=none && cat sys/kernel/lineinfo/state",
        "loaded\n",
    )?;
    m(
        "dd bs=7 skip=1 count=1 status=none if=dev/lineinfo",
        "loaded\n",
    )?;
    // Again and again: no load finds the device of the one before still open.
    m(
        "for i in 1 2 3 4 5 6 7 8 9; do cat $T > dev/lineinfo || exit 1; done",
        "",
    )?;

    m("echo from outside > dev/kmsg", "")?;
    m("tail -n 1 dev/kmsg | cut -d']' -f2", " from outside\n")?;
    m("echo w > proc/sysrq-trigger", "")?;
    machine.run(ready, "echo c > proc/sysrq-trigger || true")?;
    let lines = machine.kernel.wait_for("---[ end Kernel panic")?;
    let crash = frames(&lines);
    let annotated = |name: &str, file: &str| {
        crash.iter().any(|frame| {
            let location = frame.location.as_deref();
            frame.symbol.contains(name) && location.is_some_and(|found| found.starts_with(file))
        })
    };
    ensure!(
        annotated("vfs_write", "sim-kernel/src/fs/read_write.rs:"),
        "{crash:#?}"
    );
    ensure!(
        lines.iter().any(|line| line.contains(" Comm: sh ")),
        "{lines:#?}"
    );
    Ok(())
}

fn refused(ready: &Ready) -> Result<()> {
    let machine = ready.boot(&[])?;
    let says = |script: &str, expected: &str| {
        let said = machine.fails(ready, script)?;
        ensure!(said.contains(expected), "{script}: {said}");
        anyhow::Ok(())
    };
    machine.run(ready, "cat $T > dev/lineinfo")?;
    says("head -c 1000 $T > dev/lineinfo", "Exec format error")?;
    says(
        "head -c 100000 $T | cat > dev/lineinfo",
        "Exec format error",
    )?;
    says(
        "head -c 8192 /dev/zero | cat > dev/lineinfo",
        "Exec format error",
    )?;
    says(
        "(head -c 5000 $T; printf x; tail -c +5002 $T) | cat > dev/lineinfo",
        "Bad message",
    )?;
    machine.expect(
        ready,
        "cut -d: -f1 sys/kernel/lineinfo/last_error; cat sys/kernel/lineinfo/state",
        "EBADMSG\nloaded\n",
    )?;
    says(
        r#"python3 -c "$C" proc/uptime status"#,
        "Inappropriate ioctl",
    )?;
    machine.run(ready, r#"python3 -c "$C" dev/lineinfo unload"#)?;
    says(
        r#"python3 -c "$C" dev/lineinfo unload"#,
        "No data available",
    )?;
    says("cat proc/nothing", "No such file")?;
    says("touch dev/new", "not permitted")?;
    Ok(())
}

fn two_transports(ready: &Ready) -> Result<()> {
    let machine = ready.boot(&[])?;
    let socket = machine.kernel.socket().display().to_string();
    let table = ready.table.display().to_string();
    let mut holder = machine
        .shell(ready, "exec 3> dev/lineinfo; echo open; read end")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut open = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().context("piped")?, &mut open)?;
    let load = || {
        ready
            .binaries
            .lineinfo(&["load", &table, "--device", &socket])
    };
    let refused = load()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(said.contains("EBUSY"), "{said}");
    let said = machine.fails(ready, "cat $T > dev/lineinfo")?;
    ensure!(said.contains("busy"), "{said}");
    // What it closes is free for the next one, by the other transport.
    drop(holder.stdin.take());
    holder.wait()?;
    stdout_of(load()?)?;
    machine.run(ready, "cat $T > dev/lineinfo")?;
    stdout_of(load()?)?;
    Ok(())
}

fn loader(ready: &Ready) -> Result<()> {
    let machine = ready.boot(&[])?;
    let device = machine
        .mountpoint()
        .join("dev/lineinfo")
        .display()
        .to_string();
    let table = ready.table.display().to_string();
    let lineinfo = |args: &[&str]| {
        let output = ready
            .binaries
            .lineinfo(&[args, &["--device", &device]].concat());
        stdout_of(output?)
    };
    let loaded = lineinfo(&["load", &table])?;
    ensure!(
        loaded.starts_with(&format!("{device}: loaded: ")),
        "{loaded}"
    );
    machine.expect(ready, "cat dev/lineinfo", &lineinfo(&["status"])?)?;
    let unloaded = lineinfo(&["unload"])?;
    ensure!(unloaded.contains("bytes of memory freed"), "{unloaded}");
    let again = ready.binaries.lineinfo(&["unload", "--device", &device])?;
    let said = String::from_utf8(again.stderr)?;
    ensure!(said.contains("unload: ENODATA"), "{said}");
    let other = machine
        .mountpoint()
        .join("proc/uptime")
        .display()
        .to_string();
    let status = ready.binaries.lineinfo(&["status", "--device", &other])?;
    let said = String::from_utf8(status.stderr)?;
    ensure!(said.contains("it knows no lineinfo requests"), "{said}");
    Ok(())
}

fn permissions(ready: &Ready) -> Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let machine = ready.boot(&[])?;
    let as_nobody = |script: &str| {
        let mut command = machine.shell(ready, script);
        anyhow::Ok(command.uid(NOBODY).gid(NOBODY).output()?)
    };
    ensure!(stdout_of(as_nobody("cat sys/kernel/lineinfo/state")?)? == "empty\n");
    for script in [
        "echo c > proc/sysrq-trigger",
        "cat /dev/null > dev/lineinfo",
        "cat dev/console",
        "cat dev/kmsg",
        "cat sys/fs/pstore/dmesg",
        "echo 0 > proc/sys/kernel/kptr_restrict",
    ] {
        let output = as_nobody(script)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("Permission denied"), "{script}: {said}");
    }
    // Names, and zeros for addresses.
    let shown = "cut -d' ' -f1 proc/kallsyms | sort -u | head -n 2";
    ensure!(stdout_of(as_nobody(shown)?)? == "0000000000000000\n");
    ensure!(machine.run(ready, shown)?.lines().count() == 2);
    // So many open files, and the kernel has some left for who may load.
    let open = "import os, errno
files = []
try:
    while True: files.append(os.open('dev/lineinfo', os.O_RDONLY))
except OSError as error: print(len(files), errno.errorcode[error.errno])";
    let output = as_nobody(&format!("python3 -c \"{open}\""))?;
    let found = stdout_of(output)?;
    ensure!(found == "64 EMFILE\n", "{found}");
    machine.expect(ready, "cat sys/kernel/lineinfo/state", "empty\n")
}

/// A process that calls itself `a\nBUG: forged` makes the kernel log its name.
fn names(ready: &Ready) -> Result<()> {
    let machine = ready.boot(&[])?;
    let script = r"import ctypes, os
ctypes.CDLL(None).prctl(15, b'a\nBUG: forged', 0, 0, 0)
os.write(os.open('proc/sysrq-trigger', os.O_WRONLY), b'w')";
    machine.run(ready, &format!("python3 -c \"{script}\""))?;
    let log = machine.run(ready, "cat dev/kmsg")?;
    ensure!(log.contains(r" Comm: a\x0aBUG: forged "), "{log}");
    let forged = log
        .lines()
        .find(|line| line.contains("] BUG: forged") || line.starts_with("BUG: forged"));
    ensure!(forged.is_none(), "{forged:?}");
    Ok(())
}

/// An interactive shell starts a kernel in the background, and takes it to the foreground.
const SHELL: &str = r#"
import os, pty, select, sys, time

kernel, socket, mountpoint = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("bash", ["bash", "--norc", "-i"])

said = b""
def wait_for(text):
    global said
    end = time.time() + 30
    while text.encode() not in said:
        if not select.select([terminal], [], [], max(0, end - time.time()))[0]:
            sys.exit(f"no {text!r} in {said.decode(errors='replace')}")
        said += os.read(terminal, 4096)
    said = said.split(text.encode(), 1)[1]

def type(line):
    os.write(terminal, line.encode() + b"\n")

type(f"stty tostop; {kernel} --socket {socket} --mount {mountpoint} &")
wait_for("lineinfo: ready on")
time.sleep(0.5)
for _ in range(3):
    type("jobs")
    wait_for("Running")
print(open(f"{mountpoint}/sys/kernel/lineinfo/state").read().strip())
type("fg")
type("cat /proc/cmdline /nothing")
wait_for("No such file")
type("poweroff")
wait_for("power")
type("exit")
os.waitpid(pid, 0)
print("done")
"#;

fn shell(ready: &Ready) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mountpoint = directory.path().join("mnt");
    std::fs::create_dir(&mountpoint)?;
    let mut python = Command::new("timeout");
    python.args(["60", "python3", "-c", SHELL]);
    python.arg(&ready.binaries.sim_kernel);
    python.arg(directory.path().join("sock")).arg(&mountpoint);
    let said = stdout_of(python.output()?)?;
    ensure!(said == "empty\ndone\n", "{said}");
    ensure!(!is_mounted(&mountpoint)?);
    Ok(())
}

fn ends(ready: &Ready) -> Result<()> {
    for (end, status) in [("poweroff", Some(0)), ("sysrq c", Some(1))] {
        let mut machine = ready.boot(&[])?;
        let mountpoint = machine.mountpoint();
        ensure!(is_mounted(&mountpoint)?);
        // Somebody has a file open, and is in the directory.
        let mut user = machine
            .shell(ready, "exec 3< proc/uptime; echo; read end")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        std::io::Read::read_exact(user.stdout.as_mut().context("piped")?, &mut [0])?;
        let found = machine.kernel.end(end)?;
        ensure!(found.code() == status, "{end}: {found}");
        ensure!(!is_mounted(&mountpoint)?, "still mounted after {end}");
        drop(user.stdin.take());
        user.wait()?;
    }
    let machine = ready.boot(&[])?;
    let mountpoint = machine.mountpoint();
    let other = Command::new(&ready.binaries.sim_kernel)
        .arg("--mount")
        .arg(&mountpoint)
        .output()?;
    let said = String::from_utf8(other.stderr)?;
    ensure!(
        said.contains("the files of another kernel are mounted"),
        "{said}"
    );
    drop(machine);
    ensure!(!is_mounted(&mountpoint)?, "still mounted after SIGTERM");

    // Killed, it cannot unmount; the next one says what is to be done.
    let machine = ready.boot(&[])?;
    let mountpoint = machine.mountpoint();
    kill(
        Pid::from_raw(machine.kernel.pid().cast_signed()),
        Signal::SIGKILL,
    )?;
    let stale = || {
        let other = Command::new(&ready.binaries.sim_kernel)
            .arg("--mount")
            .arg(&mountpoint)
            .output()?;
        anyhow::Ok(String::from_utf8(other.stderr)?)
    };
    if is_mounted(&mountpoint)? {
        let said = stale()?;
        ensure!(
            said.contains("a process that has ended are still mounted"),
            "{said}"
        );
        Command::new("umount").arg("-l").arg(&mountpoint).status()?;
    }
    Ok(())
}

fn oops(ready: &Ready) -> Result<()> {
    let mut machine = ready.boot(&[])?;
    machine.run(
        ready,
        "echo EXCEPTION > sys/kernel/debug/provoke-crash/DIRECT",
    )?;
    machine
        .kernel
        .wait_for("BUG: kernel NULL pointer dereference")?;
    machine.kernel.wait_for("exited")?;
    machine.run(ready, "cat $T > dev/lineinfo")?;
    Ok(())
}

fn modules(ready: &Ready) -> Result<()> {
    let mut machine = ready.boot(&[])?;
    let module = build_module(machine.directory.path())?;
    machine
        .kernel
        .command(&format!("insmod {}", module.display()))?;
    machine.expect(
        ready,
        "ls sys/module sys/module/xor; cat sys/module/xor/initstate",
        "sys/module:\nxor\n\nsys/module/xor:\ncoresize\ninitstate\nlineinfo\nlive\n",
    )?;
    machine.expect(ready, "cut -d' ' -f1 proc/modules", "xor\n")?;
    machine.expect(ready, "head -n 1 sys/module/xor/lineinfo", "state: empty\n")?;
    let device = machine.mountpoint().join("dev/lineinfo");
    let device = device.display().to_string();
    let table = machine.directory.path().join("xor.lineinfo");
    let table = table.display().to_string();
    let module = module.display().to_string();
    for args in [
        &["build", "--no-symbols", &module, "-o", &table][..],
        &["load", "--module", "xor", &table, "--device", &device],
    ] {
        stdout_of(ready.binaries.lineinfo(args)?)?;
    }
    machine.expect(
        ready,
        "head -n 1 sys/module/xor/lineinfo; cat sys/kernel/lineinfo/state",
        "state: loaded\nempty\n",
    )?;
    let size = std::fs::metadata(&table)?.len();
    machine.expect(
        ready,
        "sed -n 's/^bytes: //p' sys/module/xor/lineinfo",
        &format!("{size}\n"),
    )?;
    let (root, tables) = (machine.mountpoint(), machine.directory.path());
    let (root, tables) = (root.display().to_string(), tables.display().to_string());
    let auto = ["load", "--auto", "--root", &root, "--dir", &tables];
    let auto = [&auto[..], &["--dry-run", "--device", &device]].concat();
    let auto = ready.binaries.lineinfo(&auto)?;
    // The build-id of a module is what the device says: there are no notes.
    let said = String::from_utf8_lossy(&auto.stdout);
    ensure!(
        auto.status.code() == Some(3) && said.contains(&format!("xor: would load {table}: ")),
        "{auto:?}"
    );
    machine.kernel.command("rmmod xor")?;
    machine.expect(ready, "ls sys/module", "")?;
    let said = machine.fails(ready, "cat sys/module/xor/lineinfo")?;
    ensure!(said.contains("No such file"), "{said}");
    Ok(())
}

fn without(ready: &Ready) -> Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    let image = directory.path().join("kernel");
    std::fs::copy(&ready.binaries.sim_kernel, &image)?;
    let mut copy = ready.clone();
    copy.binaries.sim_kernel = image;
    let machine = Machine::boot(&copy, &[], |command| {
        command.uid(NOBODY).gid(NOBODY);
    })?;
    let line = machine
        .kernel
        .log
        .iter()
        .find(|line| line.contains("mount: no files on "));
    ensure!(line.is_some(), "{:#?}", machine.kernel.log);
    let socket = machine.kernel.socket().display().to_string();
    let table = ready.table.display().to_string();
    let loaded = ready
        .binaries
        .lineinfo(&["load", &table, "--device", &socket])?;
    stdout_of(loaded)?;
    Ok(())
}
