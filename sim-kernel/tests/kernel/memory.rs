//! Memory as the kernel counts it and as the host sees it.

use std::fs;
use std::ops::Range;

use lineinfo_core::blob::Encoding;
use lineinfo_core::uapi::Errno;

use crate::support::{Image, Kernel};

/// Where the arena is, as the boot log says.
fn arena(kernel: &Kernel) -> Range<u64> {
    let line = kernel
        .console
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
