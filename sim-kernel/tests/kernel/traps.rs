//! Faults in the kernel itself: oopses, panics of them, and CPUs that hang.

use std::process::ExitStatus;

use crate::support::run_script;

fn text_of(script: &str, command_line: &[&str]) -> (ExitStatus, String) {
    let (status, console) = run_script(script, command_line);
    (status, console.join("\n"))
}

#[track_caller]
fn assert_in_order(text: &str, expected: &[&str]) {
    let mut rest = text;
    for part in expected {
        let Some((_, after)) = rest.split_once(part) else {
            panic!("no {part:?} where it should be in\n{text}");
        };
        rest = after;
    }
}

const ALIVE: &str = "\necho still alive\ncat /proc/sys/kernel/atomic_allocations";

#[test]
fn a_null_pointer_is_an_oops_and_the_machine_goes_on() {
    let (status, text) = text_of(&format!("lkdtm EXCEPTION{ALIVE}"), &[]);
    assert_in_order(
        &text,
        &[
            "BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "#PF: supervisor read access in kernel mode",
            "#PF: error_code(0x0004) - not-present page",
            "Oops: 0004 [#1] SMP",
            "Comm: lkdtm Tainted: G      D",
            "RIP: 0010:sim_kernel::machine::trap::dereference_null+0x",
            "RSP: 0018:",
            "RAX: 0000000000000000",
            "R15: ",
            "Call Trace:",
            "lkdtm::lkdtm_exception+0x",
            "lkdtm::lkdtm_do_action+0x",
            "lkdtm::ret_from_fork+0x",
            "CR2: 0000000000000000",
            "---[ end trace",
            "note: lkdtm[",
            "still alive",
            "\n0",
        ],
    );
    assert_eq!(status.code(), Some(0));
}

#[test]
fn an_instruction_that_is_none_is_an_oops() {
    let (status, text) = text_of(&format!("lkdtm BUG{ALIVE}"), &[]);
    let expected = [
        "Oops: invalid opcode: 0000 [#1] SMP",
        "RIP: 0010:sim_kernel::machine::trap::bug+0x",
        "still alive",
    ];
    assert_in_order(&text, &expected);
    assert!(!text.contains("#PF"));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_stack_that_overflows_is_an_oops_with_a_trace() {
    let (status, text) = text_of(&format!("lkdtm EXHAUST_STACK\nlkdtm EXCEPTION{ALIVE}"), &[]);
    assert_in_order(
        &text,
        &[
            "BUG: stack guard page was hit at",
            "Oops: 0006 [#1] SMP",
            "RIP: 0010:",
            "recursive_loop+0x",
            "Oops: 0004 [#2] SMP",
            "still alive",
            "\n0",
        ],
    );
    assert_eq!(status.code(), Some(0));
}

#[test]
fn an_oops_is_a_panic_where_the_command_line_says_so() {
    for parameter in ["oops=panic", "panic_on_oops=1"] {
        let script = "lkdtm EXCEPTION\necho not any more";
        let (status, text) = text_of(script, &[parameter, "panic=-1"]);
        let end = "Kernel panic - not syncing: Fatal exception";
        assert_in_order(&text, &["Oops: 0004 [#1]", "Call Trace:", end]);
        assert_eq!(
            text.matches("Call Trace:").count(),
            1,
            "one trace is enough"
        );
        assert!(!text.contains("not any more"));
        assert!(!text.contains("atomic context"), "{text}");
        assert_eq!(status.code(), Some(3));
    }
}

#[test]
fn a_crash_that_is_unknown_is_refused() {
    let (_, text) = text_of(
        "lkdtm NOTHING\ncat /sys/kernel/debug/provoke-crash/DIRECT",
        &[],
    );
    assert_in_order(
        &text,
        &["DIRECT: EINVAL", "Available crash types:", "HARDLOCKUP"],
    );
}

#[test]
fn a_cpu_that_hangs_is_found_by_the_watchdog() {
    let (status, text) = text_of(
        "lkdtm HARDLOCKUP\nsleep 4\necho still alive",
        &["watchdog_thresh=1", "maxcpus=3"],
    );
    assert_in_order(
        &text,
        &[
            "watchdog: Watchdog detected hard LOCKUP on cpu 2",
            "CPU: 2 PID: 0 Comm: swapper/2",
            "RIP: 0010:sim_kernel::machine::syscall::safe_halt+0x",
            "lkdtm_hardlockup+0x",
            "start_secondary+0x",
            "still alive",
        ],
    );
    assert_eq!(text.matches("hard LOCKUP").count(), 1, "it is told once");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_cpu_that_hangs_ends_the_machine_where_the_command_line_says_so() {
    let (status, text) = text_of(
        "lkdtm HARDLOCKUP\nsleep 30",
        &["watchdog_thresh=1", "nmi_watchdog=panic", "panic=-1"],
    );
    let end = "Kernel panic - not syncing: Hard LOCKUP";
    assert_in_order(&text, &["hard LOCKUP on cpu 1", end]);
    assert!(!text.contains("atomic context"), "{text}");
    assert_eq!(status.code(), Some(3));
}

#[test]
fn without_a_watchdog_nobody_looks() {
    for parameter in ["nowatchdog", "watchdog_thresh=0"] {
        let (_, text) = text_of("lkdtm HARDLOCKUP\nsleep 1", &[parameter]);
        assert!(!text.contains("watchdog:"), "{text}");
    }
}

#[test]
fn cpus_under_load_are_found_in_different_places() {
    let script = "sleep 0.3\nsysrq l\nsleep 0.05\nsysrq l\nsleep 0.05\nsysrq l\necho 0 > /proc/sys/kernel/load\n\
                  cat /proc/sys/kernel/atomic_allocations";
    let (status, text) = text_of(script, &["maxcpus=5", "load=on"]);
    assert!(text.contains("Comm: load/1"), "{text}");
    let mut places: Vec<_> = text
        .lines()
        .filter(|line| line.contains("RIP: 0010:") || line.contains("FileOperations>::"))
        .collect();
    places.sort_unstable();
    places.dedup();
    assert!(places.len() >= 3, "{places:#?}");
    assert_eq!(text.lines().rev().nth(1), Some("0"), "no allocation");
    assert_eq!(status.code(), Some(0));
}
