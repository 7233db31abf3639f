//! Memory as the kernel counts it and as the host sees it.

use std::fs;
use std::ops::Range;

use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::uapi::Errno;
use lineinfo_core::uapi::socket::OPEN_READ;
use lineinfo_core::{Row, writer};

use crate::support::{Client, Image, Kernel, append, open_directory};

/// Where the arena is, as the boot log says.
fn arena(kernel: &Kernel) -> Range<u64> {
    let line = kernel
        .log
        .iter()
        .find_map(|line| line.split_once("mm: arena "));
    let addresses = line
        .expect("a line in the log")
        .1
        .split(',')
        .next()
        .expect("addresses");
    let (start, end) = addresses.split_once('-').expect("a range");
    hex(start)..hex(end)
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal")
}

/// Resident set of the arena in kB, as the host sees it.
fn resident_kb(kernel: &Kernel) -> u64 {
    let arena = arena(kernel);
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", kernel.pid())).expect("smaps");
    let mut inside = false;
    let mut resident_kb = 0;
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap_or("");
        if let Some((start, end)) = first.split_once('-') {
            let mapping = hex(start)..hex(end);
            inside = arena.start < mapping.end && mapping.start < arena.end;
            // Neighbours that the host merged with it would spoil the sum.
            assert!(
                !inside || (arena.start <= mapping.start && mapping.end <= arena.end),
                "{line}"
            );
        } else if inside && let Some(rss) = line.strip_prefix("Rss:") {
            let kb = rss.trim().trim_end_matches(" kB");
            resident_kb += kb.parse::<u64>().expect("a number");
        }
    }
    resident_kb
}

/// A figure of meminfo in kB.
fn figure_kb(kernel: &mut Kernel, name: &str) -> u64 {
    let lines = kernel.output_of("meminfo");
    let line = lines
        .iter()
        .find_map(|line| line.strip_prefix(name))
        .expect("the figure");
    line.trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}

/// Checks that all books agree, and gives what is used in kB.
fn used_kb(kernel: &mut Kernel) -> u64 {
    let used = figure_kb(kernel, "VmallocUsed");
    assert_eq!(
        resident_kb(kernel),
        used,
        "what the host sees is what the books say"
    );
    let free = figure_kb(kernel, "MemFree");
    assert_eq!(figure_kb(kernel, "MemTotal"), free + used);
    used
}

#[test]
fn the_books_agree_with_the_host_to_the_page() {
    let blob = Image::read().blob(Encoding::Flat);
    let pages_kb = (blob.len() as u64).div_ceil(4096) * 4;
    let mut kernel = Kernel::boot(&["mem=8M"]);
    assert_eq!(used_kb(&mut kernel), 0);
    assert_eq!(figure_kb(&mut kernel, "MemTotal"), 8192);

    kernel.load(&blob).expect("a load");
    assert_eq!(used_kb(&mut kernel), pages_kb);
    assert_eq!(figure_kb(&mut kernel, "Lineinfo"), pages_kb);
    assert_eq!(kernel.status().memory, pages_kb * 1024);

    // Half-way in a second load there is room for both, and the first stays.
    let mut loader = kernel.loader();
    loader.write(&blob[..5000]).expect("a part");
    assert_eq!(used_kb(&mut kernel), 2 * pages_kb);
    assert_eq!(figure_kb(&mut kernel, "Lineinfo"), pages_kb);
    drop(loader);
    kernel.wait_for("before the end: discarded");
    assert_eq!(used_kb(&mut kernel), pages_kb);

    for _ in 0..20 {
        kernel.load(&blob).expect("replaces the one before");
    }
    assert_eq!(used_kb(&mut kernel), pages_kb);

    kernel.loader().unload().expect("unload");
    assert_eq!(used_kb(&mut kernel), 0);
    assert_eq!(figure_kb(&mut kernel, "Lineinfo"), 0);
}

#[test]
fn a_table_without_room_is_refused_and_leaves_nothing_behind() {
    let blob = Image::read().blob(Encoding::Flat);
    let pages_kb = (blob.len() as u64).div_ceil(4096) * 4;
    // Room for one, not for two.
    let mut kernel = Kernel::boot(&[&format!("mem={}K", pages_kb + 4)]);
    kernel.load(&blob).expect("the first");
    assert_eq!(kernel.load(&blob), Err(Errno::ENOMEM.number()));
    let status = kernel.status();
    assert_eq!(status.state, 1, "the old one is still there");
    assert!(
        status.last_reason().contains("boot with a larger mem="),
        "{}",
        status.last_reason()
    );
    assert_eq!(used_kb(&mut kernel), pages_kb);
    kernel.loader().unload().expect("unload");
    kernel.load(&blob).expect("now there is room");
    assert_eq!(used_kb(&mut kernel), pages_kb);
}

/// A table of the image that is half about init text.
fn blob_with_init(image: &Image) -> Vec<u8> {
    let rows = |first: u32| -> Vec<Row> {
        (0..4000)
            .map(|row| Row {
                start: row * 2,
                file: 0,
                line: first + row,
            })
            .collect()
    };
    let (text, init) = (rows(1), rows(10_000));
    let region = |name, start, init, rows| writer::Region {
        name,
        start,
        len: 8000,
        init,
        rows,
    };
    let blob = writer::encode(
        &writer::Image {
            machine: 62,
            build_id: &image.build_id,
            text_start: 0,
            profile: Profile::Full,
            files: &["sim.rs"],
            exact_files: 1,
            regions: &[
                region(".text", 0, false, &text),
                region(".init.text", 8192, true, &init),
            ],
        },
        Encoding::Flat,
    );
    blob.expect("a table")
}

#[test]
fn what_a_table_says_of_init_text_is_given_back_after_boot() {
    let blob = blob_with_init(&Image::read());
    let directory = open_directory();
    let image = append(&directory, &blob, |_| ());
    let mut kernel = Kernel::boot_image(&image, &["lineinfo=on", "nokaslr"]);
    let freed = "kB of the table: init text is gone";
    assert!(kernel.log.iter().any(|line| line.contains(freed)));
    let slide = kernel
        .log
        .iter()
        .find_map(|line| line.split_once("slid by "))
        .map(|(_, slide)| hex(slide))
        .expect("the log names the slide");
    let after_boot = used_kb(&mut kernel);
    assert!(
        after_boot < blob.len() as u64 / 1024 * 2 / 3,
        "{after_boot} kB"
    );

    // The same with a table that comes later.
    kernel.loader().unload().expect("unload");
    assert_eq!(used_kb(&mut kernel), 0);
    kernel.load(&blob).expect("a load");
    assert!(used_kb(&mut kernel).abs_diff(after_boot) <= 4);
    assert_eq!(kernel.status().rows, 4000);
    let mut client = kernel.connect();
    client.open(OPEN_READ).expect("open");
    let line = |client: &mut Client, offset| {
        let answer = client.lookup_return_address(slide + offset);
        (answer.result != 0).then_some(answer.line)
    };
    assert_eq!(line(&mut client, 101), Some(51));
    assert_eq!(line(&mut client, 8192 + 101), None, "that text is gone");
}

/// Memory for the table and no page more.
#[test]
fn what_a_table_says_of_init_text_takes_no_memory_to_free() {
    let blob = blob_with_init(&Image::read());
    let pages_kb = (blob.len() as u64).div_ceil(4096) * 4;
    let mem = format!("mem={pages_kb}K");

    // It comes after boot: it shrinks where it is, and what is left over is free.
    let mut kernel = Kernel::boot(&[&mem]);
    kernel.load(&blob).expect("a load");
    assert_eq!(kernel.status().rows, 4000);
    let after = used_kb(&mut kernel);
    assert!(after < pages_kb * 2 / 3, "{after} kB of {pages_kb} kB");

    // It comes with the image: there is no room for a smaller copy, so it stays, without an error.
    let directory = open_directory();
    let image = append(&directory, &blob, |_| ());
    let mut kernel = Kernel::boot_image(&image, &["lineinfo=on", &mem]);
    let status = kernel.status();
    assert_eq!((status.rows, status.last_errno), (8000, 0));
    assert_eq!(used_kb(&mut kernel), pages_kb);
    let warns = |line: &&String| line.contains("lineinfo: ") && line.contains("memory");
    assert_eq!(kernel.log.iter().find(warns), None);
}

/// As the kernel's own table is: little of it is about init text, and there is no room for two.
#[test]
fn a_load_does_not_fail_to_save_less_than_a_page() {
    let image = Image::read();
    let rows: Vec<Row> = (0..20_000)
        .map(|row| Row {
            start: row * 2,
            file: 0,
            line: row + 1,
        })
        .collect();
    let region = |name, start, init, rows| writer::Region {
        name,
        start,
        len: 40_000,
        init,
        rows,
    };
    let blob = writer::encode(
        &writer::Image {
            machine: 62,
            build_id: &image.build_id,
            text_start: 0,
            profile: Profile::Full,
            files: &["sim.rs"],
            exact_files: 1,
            regions: &[
                region(".text", 0, false, &rows),
                region(".init.text", 40_000, true, &rows[..76]),
            ],
        },
        Encoding::Flat,
    )
    .expect("a table");
    let mut kernel = Kernel::boot(&["mem=300K"]);
    kernel.load(&blob).expect("a load");
    assert_eq!(kernel.status().rows, 20_000);
    assert_eq!(kernel.status().last_errno, 0);
    assert_eq!(
        used_kb(&mut kernel),
        (blob.len() as u64 - 760).div_ceil(4096) * 4
    );
}

/// Which memory operation has failed, of those that `fail-nth` counts.
fn failed_operation(log: &[String]) -> Option<String> {
    let mut found = log.iter().filter_map(|line| {
        let (_, operation) = line.split_once("FAULT_INJECTION: forcing a failure: ")?;
        Some(operation.to_owned())
    });
    let operation = found.next();
    assert_eq!(found.next(), None, "one operation fails");
    operation
}

const RUN: &str = "a run of pages";
const HOST: &str = "pages of the host";
const SPLIT: &str = "splitting a run of pages";
const SEAL: &str = "making pages read-only";
const OWNER: &str = "the owner of a table";

#[test]
fn every_memory_operation_of_a_load_can_fail() {
    let image = Image::read();
    let (old, new) = (image.blob(Encoding::Delta), blob_with_init(&image));
    let mut kernel = Kernel::boot(&[]);
    kernel.load(&old).expect("a load");
    let old_kb = used_kb(&mut kernel);
    let mut operations = Vec::new();
    for nth in 1.. {
        let from = kernel.log.len();
        kernel.output_of(&format!("echo {nth} > /proc/fail-nth"));
        let loaded = kernel.load(&new);
        let status = kernel.status();
        kernel.output_of("echo 0 > /proc/fail-nth");
        let Some(operation) = failed_operation(&kernel.log[from..]) else {
            loaded.expect("nothing failed");
            break;
        };
        if operation == SPLIT {
            // The table is there, with pages that it does not need.
            loaded.expect("it takes more memory");
            let pages_kb = (new.len() as u64).div_ceil(4096) * 4;
            assert_eq!((status.rows, status.memory), (4000, pages_kb * 1024));
            assert_eq!(used_kb(&mut kernel), pages_kb);
        } else {
            assert_eq!(loaded, Err(Errno::ENOMEM.number()), "{operation}");
            assert_eq!(status.bytes, old.len() as u64, "{operation}: the old table");
            assert_eq!(status.last_errno, Errno::ENOMEM.number(), "{operation}");
            let reason = status.last_reason();
            assert!(
                reason.starts_with("no memory for "),
                "{operation}: {reason}"
            );
            assert_eq!(used_kb(&mut kernel), old_kb, "{operation}");
        }
        operations.push(operation.clone());
        kernel.load(&old).expect("the next load");
        assert_eq!(used_kb(&mut kernel), old_kb, "{operation}");
    }
    assert_eq!(operations, [RUN, HOST, SPLIT, SEAL, OWNER]);
}

#[test]
fn every_memory_operation_of_a_load_at_boot_can_fail() {
    let blob = blob_with_init(&Image::read());
    let directory = open_directory();
    let image = append(&directory, &blob, |_| ());
    let pages_kb = (blob.len() as u64).div_ceil(4096) * 4;
    let mut operations = Vec::new();
    let smaller_kb = loop {
        let nth = format!("fail_nth={}", operations.len() + 1);
        let mut kernel = Kernel::boot_image(&image, &["lineinfo=on", &nth]);
        let status = kernel.status();
        let used = used_kb(&mut kernel);
        assert_eq!(used * 1024, status.memory);
        let Some(operation) = failed_operation(&kernel.log) else {
            break used;
        };
        if operations.len() < 4 {
            assert_eq!((status.state, used), (0, 0), "{operation}");
            assert_eq!(status.last_errno, Errno::ENOMEM.number(), "{operation}");
        } else {
            // There was no memory for a copy without init text, so the table stays as it is.
            assert_eq!((status.rows, used), (8000, pages_kb), "{operation}");
            assert_eq!(status.last_errno, 0, "{operation}");
        }
        kernel.load(&blob).expect("the next load");
        assert_eq!(kernel.status().rows, 4000);
        operations.push(operation);
    };
    assert!(smaller_kb < pages_kb);
    assert_eq!(operations, [RUN, HOST, SEAL, OWNER, RUN, HOST, SEAL, OWNER]);
}

/// A table of about 8 MB: many rows, which take less time to check than one long name.
fn large_blob(image: &Image) -> Vec<u8> {
    const ROWS: u32 = 1 << 20;
    let rows: Vec<Row> = (0..ROWS)
        .map(|row| Row {
            start: row * 2,
            file: 0,
            line: row + 1,
        })
        .collect();
    let blob = writer::encode(
        &writer::Image {
            machine: 62,
            build_id: &image.build_id,
            text_start: 0,
            profile: Profile::Full,
            files: &["sim.rs"],
            exact_files: 1,
            regions: &[writer::Region {
                name: ".text",
                start: 0,
                len: ROWS * 2,
                init: false,
                rows: &rows,
            }],
        },
        Encoding::Flat,
    )
    .expect("a table");
    assert!(blob.len() >= 8_000_000, "{} bytes", blob.len());
    blob
}

/// `LINEINFO_CYCLES` says how often; without it, a few times.
///
/// What the process has besides its tables must not depend on how often that is. The one thing
/// that grows is the log, until its ring of 64 kB is full, so that is filled first.
#[test]
fn a_large_table_that_comes_and_goes_leaves_nothing_behind() {
    const LOG_BYTES: usize = 64 * 1024;
    /// After so many there is all that the first threads of connections bring.
    const WARM_UP: u32 = 10;
    /// Two stacks of connections, 72 kB each: how many of them libc keeps is a matter of timing.
    const SLACK_KB: u64 = 160;

    let cycles = std::env::var("LINEINFO_CYCLES");
    let cycles = cycles.map_or(50, |text| text.parse().expect("a number"));
    let blob = large_blob(&Image::read());
    let blob_kb = blob.len().div_ceil(4096) as u64 * 4;
    let mut kernel = Kernel::boot(&[]);
    let line = "x".repeat(500);
    for _ in 0..LOG_BYTES / line.len() {
        kernel.command(&format!("echo {line} > /dev/kmsg"));
    }
    assert_eq!(used_kb(&mut kernel), 0);
    let mut process_kb = 0;
    for cycle in 0..WARM_UP + cycles {
        if cycle == WARM_UP {
            process_kb = process_resident_kb(&kernel);
        }
        let mut loader = kernel.loader();
        loader.write_all(&blob).expect("it is taken");
        if cycle % 100 == 0 {
            assert_eq!(used_kb(&mut kernel), blob_kb);
        }
        loader.unload().expect("it was loaded");
    }
    assert_eq!(used_kb(&mut kernel), 0, "the kernel's and the host's books");
    let now_kb = process_resident_kb(&kernel);
    println!("{cycles} cycles: the process had {process_kb} kB and has {now_kb} kB");
    assert!(
        now_kb <= process_kb + SLACK_KB,
        "{process_kb} kB, {now_kb} kB"
    );
}

/// Resident set of the whole process in kB, as the host sees it.
fn process_resident_kb(kernel: &Kernel) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", kernel.pid());
    let text = fs::read_to_string(path).expect("smaps");
    let rss = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kb = rss.expect("a figure").trim().trim_end_matches(" kB");
    kb.parse().expect("a number")
}
