//! Boot, command line, traces, and the ways to end.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use lineinfo_core::blob::Encoding;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Image, KERNEL, Kernel, append, open_directory, run_script};

/// The functions between `sysrq c` and the panic, innermost first.
const CRASH: &[&str] = &[
    "dump_stack",
    "panic::panic",
    "sysrq_handle_crash",
    "handle_sysrq",
    "write_sysrq_trigger",
    "ProcFile as sim_kernel::fs::FileOperations>::write",
    "vfs_write",
    "ksys_write",
    "do_syscall_64",
    "process::write",
    "process::write_file",
    "process::run_command",
    "run_init_process",
    "kernel_init",
    "rest_init",
    "start_kernel",
];

/// The lines of the first trace on a console, without their times.
fn trace(console: &[String]) -> Vec<&str> {
    let text = |line: &'static str| move |found: &&str| *found != line;
    console
        .iter()
        .filter_map(|line| line.split_once("] ").map(|(_, text)| text))
        .skip_while(text(" <TASK>"))
        .skip(1)
        .take_while(text(" </TASK>"))
        .collect()
}

fn has(console: &[String], text: &str) -> bool {
    console.iter().any(|line| line.contains(text))
}

#[test]
fn a_crash_shows_every_call_that_led_to_it_and_halts() {
    let (status, console) = run_script("sysrq c\necho not any more\n", &[]);
    let trace = trace(&console);
    assert_eq!(trace.len(), CRASH.len(), "{trace:#?}");
    for (frame, function) in trace.iter().zip(CRASH) {
        let (name, extent) = frame.trim().rsplit_once('+').expect("an offset");
        assert!(name.ends_with(function), "{frame} is not {function}");
        let (offset, size) = extent.split_once('/').expect("a size");
        let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
        assert!(
            hex(offset).expect("hex") <= hex(size).expect("hex"),
            "{frame}"
        );
    }
    assert!(has(
        &console,
        "Kernel panic - not syncing: sysrq triggered crash"
    ));
    assert!(has(&console, "---[ end Kernel panic"));
    assert!(!has(&console, "not any more"));
    assert_eq!(status.code(), Some(1));
}

#[test]
fn after_a_panic_the_machine_does_what_panic_says() {
    let (status, console) = run_script("sysrq c", &["panic=1"]);
    assert!(has(&console, "Rebooting in 1 seconds.."));
    assert_eq!(status.code(), Some(3));
    let (status, console) = run_script("sysrq c", &["panic=-1"]);
    assert!(!has(&console, "Rebooting in"));
    assert_eq!(status.code(), Some(3));
}

#[test]
fn a_panic_is_shown_at_any_loglevel() {
    let (_, console) = run_script("sysrq c", &["loglevel=0"]);
    assert!(
        console
            .first()
            .is_some_and(|line| line.contains("sysrq: Trigger a crash"))
    );
    assert_eq!(trace(&console).len(), CRASH.len());
}

#[test]
fn every_cpu_shows_its_trace_in_their_order() {
    for key in ["l", "t", "w"] {
        let (status, console) = run_script(&format!("sysrq {key}"), &["maxcpus=4"]);
        let cpus: Vec<_> = console
            .iter()
            .filter_map(|line| line.split("CPU: ").nth(1)?.split(' ').next())
            .collect();
        assert_eq!(cpus, ["0", "1", "2", "3"], "{console:#?}");
        assert_eq!(
            console
                .iter()
                .filter(|line| line.contains("do_idle+"))
                .count(),
            3
        );
        assert_eq!(
            console
                .iter()
                .filter(|line| line.contains("start_secondary+"))
                .count(),
            3
        );
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn an_unknown_key_shows_the_keys() {
    for key in ["h", "?"] {
        let (_, console) = run_script(&format!("sysrq {key}"), &[]);
        assert!(has(&console, "sysrq: HELP : crash(c) "), "{console:#?}");
    }
}

#[test]
fn init_runs_commands_and_says_what_is_wrong_with_them() {
    let script = "# a comment\n\ncat /proc/cmdline\ncat /proc/nothing\nsleep long\nsleep 0\n\
                  frobnicate\nsysrq\necho x > /proc/meminfo\necho to the log > /dev/kmsg\n\
                  cat /proc/sysrq-trigger\npoweroff\necho not any more";
    let (status, console) = run_script(script, &["ro", "a=1", "--", "single"]);
    let expected = [
        "ro a=1 -- single",
        "init: /proc/nothing: ENOENT",
        "init: sleep: bad number of seconds 'long'",
        "init: unknown command 'frobnicate'; there are: ",
        "init: unknown command 'sysrq'; there are: ",
        "init: /proc/meminfo: EINVAL",
        "] to the log",
        "init: /proc/sysrq-trigger: EINVAL",
        "reboot: Power down",
    ];
    let mut lines = console.iter();
    for text in expected {
        assert!(
            lines.any(|line| line.contains(text)),
            "{text} in {console:#?}"
        );
    }
    assert!(!has(&console, "not any more"));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn what_is_wrong_with_the_command_line_is_in_the_log() {
    let (_, console) = run_script("", &["mem=lots", "ro", "lineinfo=maybe", "b=\"c d\""]);
    assert!(has(
        &console,
        "bad value in 'mem=lots': expected a size like 64M"
    ));
    assert!(has(
        &console,
        "bad value in 'lineinfo=maybe': expected on, off or never"
    ));
    let unknown =
        "Unknown kernel command line parameters \"ro b=\"c d\"\", will be passed to user space.";
    assert!(has(&console, unknown), "{console:#?}");
    assert!(has(&console, "65536 kB"));
}

#[test]
fn a_memory_that_the_host_cannot_give_does_not_stop_a_boot() {
    let (status, console) = run_script("meminfo", &["mem=4E"]);
    assert!(has(&console, "no addresses for it"), "{console:#?}");
    assert!(has(&console, "MemTotal:          65536 kB"));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn without_randomization_the_image_is_always_in_one_place() {
    let text = |console: Vec<String>| {
        console
            .into_iter()
            .find_map(|line| Some(line.split_once("KASLR: text")?.1.to_owned()))
    };
    let (_, first) = run_script("", &["nokaslr"]);
    if has(&first, "the host keeps its randomization") {
        return;
    }
    assert!(has(&first, "KASLR disabled"));
    let (_, second) = run_script("", &["nokaslr"]);
    assert_eq!(text(first), text(second));
}

#[test]
fn frame_pointers_are_there() {
    let (_, console) = run_script("", &[]);
    assert!(!has(&console, "without frame pointers"), "{console:#?}");
}

#[test]
fn an_appended_table_is_used_if_the_command_line_says_so() {
    let image = Image::read();
    for encoding in Encoding::ALL {
        let directory = open_directory();
        let path = append(&directory, &image.blob(*encoding), |_| {});
        let mut kernel = Kernel::boot_image(&path, &["lineinfo=on"]);
        assert!(has(&kernel.log, "lineinfo: loaded "), "{:#?}", kernel.log);
        kernel.command("sysrq c");
        let (_, console) = kernel.finish();
        let trace = trace(&console);
        assert_eq!(trace.len(), CRASH.len());
        for frame in trace {
            let name = frame.trim().rsplit_once('+').expect("an offset").0;
            let line = image.line_of(name).expect("a function of the image");
            assert!(
                frame.ends_with(&format!(" (sim.rs:{line})")),
                "{frame}, not {line}"
            );
        }

        let mut kernel = Kernel::boot_image(&path, &["lineinfo=off"]);
        assert!(
            !kernel
                .output_of("sysrq w")
                .iter()
                .any(|line| line.contains("sim.rs"))
        );
        kernel.load(&image.blob(*encoding)).expect("late load");
        assert!(
            kernel
                .output_of("sysrq w")
                .iter()
                .any(|line| line.contains("(sim.rs:"))
        );
    }
}

#[test]
fn inlined_functions_have_lines_of_their_own_unless_they_are_off() {
    let image = Image::read();
    let directory = open_directory();
    let path = append(&directory, &image.blob_with_inlines(), |_| {});
    let crash = |parameter: &str| {
        let mut kernel = Kernel::boot_image(&path, &["lineinfo=on", parameter]);
        let file = kernel.output_of("cat /sys/kernel/lineinfo/inlines");
        let expected = parameter.rsplit('=').next();
        assert_eq!(file.last().map(String::as_str), expected);
        kernel.command("sysrq c");
        kernel.finish().1
    };
    let console = crash("lineinfo.inlines=on");
    let with = trace(&console);
    assert_eq!(with.len(), 3 * CRASH.len(), "{with:#?}");
    for lines in with.chunks(3) {
        let [inner, outer, frame] = lines else {
            unreachable!("they are three");
        };
        let name = frame.trim().rsplit_once('+').expect("an offset").0;
        let line = image.line_of(name).expect("a function of the image");
        assert_eq!(*inner, format!(" inner (sim.rs:{line}) [inline]"));
        assert_eq!(*outer, " outer (sim.rs:8000) [inline]");
        assert!(frame.ends_with(" (sim.rs:7000)"), "{frame}");
    }

    let console = crash("lineinfo.inlines=off");
    let without = trace(&console);
    assert_eq!(without.len(), CRASH.len(), "{without:#?}");
    for frame in without {
        let name = frame.trim().rsplit_once('+').expect("an offset").0;
        let line = image.line_of(name).expect("a function of the image");
        assert!(frame.ends_with(&format!(" (sim.rs:{line})")), "{frame}");
    }

    let mut kernel = Kernel::boot_image(&path, &["lineinfo=on"]);
    let inlined = |kernel: &mut Kernel| has(&kernel.output_of("sysrq w"), "[inline]");
    assert!(inlined(&mut kernel));
    kernel.output_of("echo off > /sys/kernel/lineinfo/inlines");
    assert!(!inlined(&mut kernel));
}

#[test]
fn a_bad_footer_or_table_never_stops_a_boot() {
    let image = Image::read();
    let blob = image.blob(Encoding::Delta);
    let other = image.blob_for(62, &[1; 20], Encoding::Flat);
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(&[u8], Spoil, &str, &str); 6] = [
        (
            &blob,
            |image| image[..].reverse_last_byte_of_blob(),
            "checksum",
            "-EBADMSG",
        ),
        (
            &blob,
            |image| {
                let at = image.len() - 18;
                image[at..at + 4].fill(0xff);
            },
            "names a table of 4294967295 bytes",
            "-ENOEXEC",
        ),
        (b"no table", |_| {}, "not a lineinfo blob", "-ENOEXEC"),
        (b"", |_| {}, "truncated", "-ENOEXEC"),
        (
            &other,
            |_| {},
            "made for build-id 0101010101010101010101010101010101010101",
            "-ESTALE",
        ),
        (&blob[..blob.len() - 1], |_| {}, "truncated", "-ENOEXEC"),
    ];
    for (blob, spoil, reason, errno) in cases {
        let directory = open_directory();
        let path = append(&directory, blob, spoil);
        let mut kernel = Kernel::boot_image(&path, &["lineinfo=on"]);
        let refused: Vec<_> = kernel
            .log
            .iter()
            .filter(|line| line.contains("lineinfo: appended table refused"))
            .collect();
        assert_eq!(refused.len(), 1, "{reason}: {:#?}", kernel.log);
        assert!(
            refused[0].contains(reason) && refused[0].ends_with(errno),
            "{refused:?}"
        );
        assert!(
            kernel
                .output_of("meminfo")
                .iter()
                .any(|line| line.contains("VmallocUsed:           0 kB"))
        );
        assert_eq!(kernel.status().state, 0);
        kernel
            .load(&image.blob(Encoding::Flat))
            .expect("a good one can still be loaded");
    }
    // Too large, or none at all.
    let directory = open_directory();
    let path = append(&directory, &blob, |_| {});
    let kernel = Kernel::boot_image(&path, &["lineinfo=on", "lineinfo.max=64"]);
    assert!(
        has(&kernel.log, "lineinfo.max=64 allows less"),
        "{:#?}",
        kernel.log
    );
    let kernel = Kernel::boot(&["lineinfo=on"]);
    assert!(has(&kernel.log, "no table is appended"));
}

#[test]
fn a_table_is_found_before_padding_and_signatures() {
    let image = Image::read();
    let blob = image.blob(Encoding::Delta);
    // `struct module_signature` of a signature of 700 bytes, and the string after it.
    let mut signature = vec![0x30; 700];
    signature.extend([0, 0, 2, 0, 0, 0, 0, 0]);
    signature.extend(700_u32.to_be_bytes());
    signature.extend(b"~Module signature appended~\n");
    for after in [&[0xff; 4096][..], &[0; 1 << 20], &signature] {
        let directory = open_directory();
        let path = append(&directory, &blob, |image| image.extend_from_slice(after));
        let kernel = Kernel::boot_image(&path, &["lineinfo=on"]);
        assert!(has(&kernel.log, "lineinfo: loaded "), "{:#?}", kernel.log);
    }
}

/// Damages the blob, whose last byte is the one before the footer.
trait Damage {
    fn reverse_last_byte_of_blob(&mut self);
}

impl Damage for [u8] {
    fn reverse_last_byte_of_blob(&mut self) {
        let at = self.len() - 19;
        self[at] ^= 0xff;
    }
}

#[test]
fn with_a_socket_it_runs_until_it_is_told_to_stop() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut kernel = Kernel::boot(&[]);
        kernel.end_of_input();
        kernel.status();
        let socket = kernel.socket().to_owned();
        let pid = i32::try_from(kernel.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
        let (status, console) = kernel.finish();
        assert!(has(&console, "reboot: Power down"), "{console:#?}");
        assert_eq!(status.code(), Some(0));
        assert!(!socket.exists(), "the socket is removed");
    }
}

#[test]
fn a_panic_removes_the_socket_too() {
    let mut kernel = Kernel::boot(&[]);
    let socket = kernel.socket().to_owned();
    kernel.command("sysrq c");
    let (status, _) = kernel.finish();
    assert_eq!(status.code(), Some(1));
    assert!(!socket.exists());
}

#[test]
fn a_dead_socket_is_replaced() {
    let directory = open_directory();
    let socket = directory.path().join("socket");
    drop(UnixListener::bind(&socket).expect("a socket"));
    let mut command = Command::new(KERNEL);
    command.arg("--socket").arg(&socket);
    let mut kernel = Kernel::start(command, socket, directory);
    kernel.wait_for("lineinfo: ready on");
    kernel.status();
}

/// Starts a kernel that must not start; returns its exit status and its message.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(KERNEL)
        .args(arguments)
        .output()
        .expect("it starts");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn what_cannot_be_a_socket_is_an_error() {
    let directory = open_directory();
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();

    let live = directory.path().join("live");
    let _listener = UnixListener::bind(&live).expect("a socket");
    let (status, message) = refused(&["--socket", &text(&live)]);
    assert_eq!(status, Some(1));
    assert!(
        message.contains("another process serves the socket"),
        "{message}"
    );

    let file = directory.path().join("file");
    std::fs::write(&file, "precious").expect("a file");
    let (status, message) = refused(&["--socket", &text(&file)]);
    assert_eq!(status, Some(1));
    assert!(message.contains("is not a socket"), "{message}");
    assert_eq!(std::fs::read(&file).expect("still there"), b"precious");

    let long = directory.path().join("x".repeat(108));
    let (status, message) = refused(&["--socket", &text(&long)]);
    assert_eq!(status, Some(1));
    assert!(message.contains("a socket can have 107"), "{message}");

    let (status, message) = refused(&["--socket", "/nonexistent/socket"]);
    assert_eq!(status, Some(1));
    assert!(message.contains("/nonexistent/socket"), "{message}");
}

#[test]
fn bad_usage_of_the_host_options() {
    let (status, _) = refused(&["--frobnicate", "--", "lineinfo=on"]);
    assert_eq!(status, Some(2));
    let (status, message) = refused(&["--script", "/nonexistent/script"]);
    assert_eq!(status, Some(1));
    assert!(
        message.contains("cannot read script /nonexistent/script"),
        "{message}"
    );
    for option in ["--help", "--version"] {
        assert_eq!(refused(&[option]).0, Some(0));
    }
}
