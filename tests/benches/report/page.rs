//! The report as Markdown.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use comfy_table::{Table as TextTable, presets};
use lineinfo_cli::hex;

use crate::commands::{Commands, Run};
use crate::lookups::{Lookups, Measured};
use crate::subject::Subject;

/// All of it.
pub(crate) fn page(subject: &Subject, lookups: &Lookups, commands: &Commands) -> Result<String> {
    let name = subject
        .path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let identity = &subject.full.identity;
    let sections = [
        "# lineinfo: speed and size\n".to_owned(),
        format!(
            "{}\n\nAbout `{name}`, build-id {}: {} bytes in memory, {} DWARF rows, {} return addresses and traps.\n",
            machine(),
            hex(&identity.build_id),
            identity.size_bytes,
            subject.full.counts.rows_read,
            subject.points(),
        ),
        "All figures are of one run, in which all that is compared had its turn. On other machines they \
         are others: read the ratios.\n"
            .to_owned(),
        "## Look-ups\n\n![Size and time of look-ups](look-ups.svg)\n".to_owned(),
        "Each look-up is timed by itself, at random return addresses and traps, which is what traces look \
         up, and at random bytes that have a line. The time is the mean of the middle half, and the first \
         line is what an empty measurement takes, which is not taken off. \"Worst\" is the longest of the \
         slowest look-ups when each is repeated and counted at its best. \"Agree\" is the share of lines \
         that are those of the addr2line crate; a table of `calls` is compared at return addresses and \
         traps. \"Printed\" includes the name of the file, which is as long a way with every encoding.\n"
            .to_owned(),
        table_of_lookups(lookups),
        absent(lookups),
        "## Load\n".to_owned(),
        "`parse` is what a kernel does with a table, `check_rows` what `build` and `verify` do besides.\n".to_owned(),
        table_of_loads(lookups),
        "## Build\n\n![Time and memory of builds](builds.svg)\n".to_owned(),
        "The best of several turns: wall time, time of all processors, and the peak of memory.\n".to_owned(),
        table_of_builds(&commands.builds),
        "## Decode\n".to_owned(),
        "`lineinfo decode --table`, with the table opened and checked each time.\n".to_owned(),
        table_of_decodes(&commands.decodes),
    ];
    let sections: Vec<&str> = sections
        .iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty())
        .collect();
    Ok(sections.join("\n"))
}

/// What it was measured on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "{} processors of {}, memory {}, Linux {}, lineinfo {}.",
        processors,
        field(&read("/proc/cpuinfo"), "model name"),
        field(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim(),
        env!("CARGO_PKG_VERSION"),
    )
}

fn table<const N: usize>(header: [&str; N]) -> TextTable {
    let mut table = TextTable::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn or_empty<T: ToString>(value: Option<T>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

fn table_of_lookups(lookups: &Lookups) -> String {
    let mut table = table([
        "look-up",
        "bytes",
        "bytes/entry",
        "at points, ns",
        "x delta",
        "p99",
        "worst",
        "at random bytes, ns",
        "x delta",
        "p99",
        "worst",
        "agree",
    ]);
    for peer in &lookups.peers {
        let ratio = |figures: fn(&Measured) -> crate::lookups::Figures| {
            or_empty(
                lookups
                    .ratio(figures, peer)
                    .map(|ratio| format!("{ratio:.2}")),
            )
        };
        let entry = peer.bytes.zip(peer.rows);
        let entry = entry.map(|(bytes, rows)| format!("{:.3}", bytes as f64 / f64::from(rows)));
        table.add_row([
            peer.name.clone(),
            or_empty(peer.bytes),
            or_empty(entry),
            format!("{:.0}", peer.points.typical),
            ratio(|peer| peer.points),
            peer.points.p99.to_string(),
            peer.points.worst.to_string(),
            format!("{:.0}", peer.random.typical),
            ratio(|peer| peer.random),
            peer.random.p99.to_string(),
            peer.random.worst.to_string(),
            match peer.name.starts_with('(') {
                true => String::new(),
                false => format!("{:.2} %", peer.agree * 100.0),
            },
        ]);
    }
    format!("{table}\n")
}

fn absent(lookups: &Lookups) -> String {
    let lines: Vec<String> = lookups
        .absent
        .iter()
        .map(|reason| format!("Left out: {reason}\n"))
        .collect();
    lines.concat()
}

fn table_of_loads(lookups: &Lookups) -> String {
    let mut table = table(["load", "parse, ms", "check_rows, ms"]);
    for peer in lookups
        .peers
        .iter()
        .filter(|peer| !peer.name.ends_with("printed"))
    {
        if let Some(load) = peer.load {
            let check = peer.check.map(milliseconds);
            table.add_row([peer.name.clone(), milliseconds(load), or_empty(check)]);
        }
    }
    format!("{table}\n")
}

fn table_of_builds(runs: &[Run]) -> String {
    let mut table = table([
        "build",
        "wall, s",
        "x GSYM",
        "processors, s",
        "x GSYM",
        "peak, MB",
        "bytes",
    ]);
    let gsym = runs.iter().find(|run| run.name.contains("gsymutil"));
    for run in runs {
        let ratio = |time: fn(&Run) -> Duration| {
            let ratio = gsym.map(|gsym| time(run).as_secs_f64() / time(gsym).as_secs_f64());
            or_empty(ratio.map(|ratio| format!("{ratio:.2}")))
        };
        table.add_row([
            run.name.clone(),
            format!("{:.2}", run.wall.as_secs_f64()),
            ratio(|run| run.wall),
            format!("{:.2}", run.cpu.as_secs_f64()),
            ratio(|run| run.cpu),
            (run.peak_kb / 1024).to_string(),
            run.bytes.to_string(),
        ]);
    }
    format!("{table}\n")
}

fn table_of_decodes(runs: &[Run]) -> String {
    let mut table = table(["log", "wall, ms", "peak, MB", "MB/s"]);
    for run in runs {
        let rate = run.bytes as f64 / run.wall.as_secs_f64() / 1e6;
        table.add_row([
            run.name.clone(),
            milliseconds(run.wall),
            (run.peak_kb / 1024).to_string(),
            format!("{rate:.1}"),
        ]);
    }
    table.to_string() + "\n"
}
