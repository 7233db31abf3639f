//! Eight CPUs under load, traced every 10 ms, while tables come, change and go.
//!
//! `LINEINFO_STRESS_SECONDS` says for how long; without it, for a moment.

mod oracle;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lineinfo_cli::device::{Access, Device};
use lineinfo_core::blob::Encoding;
use lineinfo_tests::{Binaries, Frame, Kernel, stdout_of};
use oracle::Oracle;

const SECONDS: u64 = 5;
const LOADS_MIN: usize = 8;
/// How much longer to wait for so many loads.
const PATIENCE: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_millis(10);

/// What was seen, to be sure that there was something to see.
#[derive(Debug, Default)]
struct Seen {
    traces: usize,
    right: usize,
    bare: usize,
    syscalls: usize,
}

#[test]
fn every_frame_is_right_or_bare_whatever_happens() {
    let seconds = std::env::var("LINEINFO_STRESS_SECONDS");
    let seconds = seconds.map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let binaries = Binaries::build(false).expect("the binaries build");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tables: Vec<Vec<u8>> = Encoding::ALL
        .iter()
        .map(|encoding| {
            let path = directory.path().join(encoding.name());
            let (image, table) = (&binaries.sim_kernel.display(), &path.display());
            let output = binaries.lineinfo(&[
                "build",
                &image.to_string(),
                "-o",
                &table.to_string(),
                "--encoding",
                encoding.name(),
            ]);
            stdout_of(output.expect("lineinfo starts")).expect("a table");
            std::fs::read(&path).expect("the table")
        })
        .collect();
    let mut oracle = Oracle::of(&binaries.sim_kernel);
    let socket = directory.path().join("kernel.sock");
    let mut kernel = Kernel::boot(
        &binaries.sim_kernel,
        &socket,
        &["maxcpus=8", "load=on", "watchdog_thresh=60"],
    )
    .expect("the kernel boots");

    let stop = AtomicBool::new(false);
    let mut seen = Seen::default();
    let loads = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| load_and_unload(&socket, &tables, &stop, &loads));
        let end = Instant::now() + Duration::from_secs(seconds);
        // However slow the host is, there is something to see.
        let patience = end + PATIENCE;
        while Instant::now() < end
            || (loads.load(Ordering::Relaxed) < LOADS_MIN && Instant::now() < patience)
        {
            let start = Instant::now();
            let lines = kernel.command("sysrq l").expect("it answers");
            check(&lines, &mut oracle, &mut seen);
            kernel.log.clear();
            thread::sleep(PERIOD.saturating_sub(start.elapsed()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let loads = loads.into_inner();
    println!("{loads} loads, {seen:?}");
    assert!(loads >= LOADS_MIN, "{loads} loads");
    assert!(seen.traces > 100, "{seen:?}");
    assert!(seen.right > 100 && seen.bare > 100, "{seen:?}");
    assert!(seen.syscalls > 0, "no load was interrupted: {seen:?}");
    let allocations = "cat /proc/sys/kernel/atomic_allocations";
    let lines = kernel.command(allocations).expect("it answers");
    assert!(lines.iter().any(|line| line == "0"), "{lines:?}");
}

/// Loads one table after the other, empties the slot now and then; counts the loads.
fn load_and_unload(socket: &Path, tables: &[Vec<u8>], stop: &AtomicBool, loads: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let mut device = Device::open(socket, Access::Write).expect("nobody else loads");
        let count = loads.load(Ordering::Relaxed);
        let table = &tables[count % tables.len()];
        device.load(table, |_| ()).expect("it is taken");
        loads.store(count + 1, Ordering::Relaxed);
        if count % 4 == 3 {
            device.unload().expect("it was loaded");
            thread::sleep(PERIOD);
        }
    }
}

fn check(lines: &[String], oracle: &mut Oracle, seen: &mut Seen) {
    for line in lines {
        assert!(!line.contains("does not answer"), "{line}");
        seen.traces += usize::from(line.contains("CPU: "));
        seen.syscalls += usize::from(line.contains("Comm: syscall"));
        let (frame, is_return_address) = match (Frame::parse(line), Frame::parse_rip(line)) {
            (Some(frame), _) => (frame, true),
            (None, Some(frame)) => (frame, false),
            (None, None) => continue,
        };
        match frame.location.clone() {
            None => seen.bare += 1,
            Some(location) => {
                let question = Frame {
                    location: None,
                    ..frame
                };
                let expected = oracle.locations(&question, is_return_address);
                assert!(
                    expected.contains(&location),
                    "{line}: should be {expected:?}"
                );
                seen.right += 1;
            }
        }
    }
}
