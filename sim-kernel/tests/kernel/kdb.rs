//! kdb, with commands as they are typed.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use crate::support::{KERNEL, Kernel, open_directory};

/// What a kernel prints that reads these lines.
fn typed(options: &[&str], lines: &str, command_line: &[&str]) -> (ExitStatus, Vec<String>) {
    let mut command = Command::new(KERNEL);
    command.args(options).arg("--").args(command_line);
    let mut kernel = Kernel::start(command, PathBuf::new(), open_directory());
    for line in lines.lines() {
        kernel.command(line);
    }
    kernel.finish()
}

/// The lines that a command printed.
fn answer<'a>(console: &'a [String], command: &str) -> Vec<&'a str> {
    let prompt = |line: &&String| line.contains("]kdb> ");
    console
        .iter()
        .skip_while(|line| !line.ends_with(&format!("]kdb> {command}")))
        .skip(1)
        .take_while(|line| !prompt(line))
        .map(String::as_str)
        .collect()
}

#[test]
fn all_commands_answer_and_the_machine_goes_on() {
    let lines = "sysrq g\nbt\nbta\nbtc\nid vfs_write\nid 0x1\nid nobody\nlsmod\ndmesg\nsummary\n\
        lineinfo\nhelp\nwhat\ngo\necho gone on\ncat /proc/sys/kernel/atomic_allocations\n";
    let (status, console) = typed(&[], lines, &["maxcpus=3", "load=on"]);
    assert_eq!(status.code(), Some(0), "{console:#?}");
    let has = |command: &str, text: &str| {
        let answer = answer(&console, command);
        assert!(
            answer.iter().any(|line| line.contains(text)),
            "{command}: no {text:?} in {answer:#?}"
        );
    };
    has("bt", "sysrq_handle_dbg+");
    has("bt", "kernel_init+");
    for cpu in 0..3 {
        has("btc", &format!("CPU: {cpu} PID: "));
    }
    has("bta", "CPU: 0 PID: 1 Comm: init");
    has(
        "id vfs_write",
        "sim_kernel::fs::read_write::vfs_write+0x0/0x",
    );
    has("id 0x1", "is in no function");
    has("id nobody", "'nobody' is neither a function nor an address");
    has("lsmod", "no modules are loaded");
    has("dmesg", "Run init as init process");
    has("summary", "cpus       3");
    has("lineinfo", "state: empty");
    has("help", "go             leave kdb");
    has("what", "unknown kdb command: 'what'");
    let end: Vec<_> = console
        .iter()
        .skip_while(|line| !line.ends_with("kdb> go"))
        .skip(1)
        .take(2)
        .collect();
    assert_eq!(end, ["gone on", "0"], "and nothing was allocated");
}

#[test]
fn a_panic_and_an_oops_enter_it_where_it_is_asked_for() {
    let (status, console) = typed(&["--kdb"], "sysrq c\nbtc\ngo\n", &["maxcpus=2"]);
    assert_eq!(status.code(), Some(1), "{console:#?}");
    let traces = answer(&console, "btc").join("\n");
    assert!(traces.contains("sysrq_handle_crash+"), "{traces}");
    assert!(traces.contains("CPU: 1 PID: 0 Comm: swapper/1"), "{traces}");

    let (status, console) = typed(&["--kdb"], "lkdtm EXCEPTION\nbt\ngo\necho alive\n", &[]);
    assert_eq!(status.code(), Some(0), "{console:#?}");
    let trace = answer(&console, "bt").join("\n");
    assert!(trace.contains("lkdtm_exception+"), "{trace}");
    assert!(console.iter().any(|line| line == "alive"));

    let (status, console) = typed(&["--kdb"], "sysrq c\nreboot\n", &[]);
    assert_eq!(status.code(), Some(3), "{console:#?}");
    let (_, console) = typed(&[], "sysrq c\n", &[]);
    assert!(!console.iter().any(|line| line.contains("kdb")));
    let (status, _) = typed(&["--kdb"], "sysrq c\n", &[]);
    assert_eq!(status.code(), Some(1), "the end of the input goes on");
}
