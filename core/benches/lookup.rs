//! Size and look-up time of every encoding and tuning, from the rows of one blob.
//!
//! ```sh
//! LINEINFO_BLOB=vmlinux.lineinfo cargo bench -p lineinfo-core --bench lookup
//! ```
//!
//! All tables take turns at the same random addresses in one process, so that what disturbs one
//! disturbs all: read the ratios to delta. Without `LINEINFO_BLOB` it says that it skips.

use std::hint::black_box;
use std::time::Instant;

use lineinfo_core::blob::{Encoding, SectionKind};
use lineinfo_core::writer::{Image, Options, Region, Tuning, encode};
use lineinfo_core::{Layout, Offset, Row, Table};

/// Addresses in a turn: so many that the tables push each other out of the caches.
const BATCH: usize = 1024;
const TURNS: usize = 200;

struct Candidate {
    name: String,
    blob: Vec<u8>,
    encode_s: f64,
    /// Of every turn, per look-up.
    batch_ns: Vec<f64>,
    /// Of single look-ups, the clock included.
    single_ns: Vec<f64>,
}

fn main() {
    let Some(path) = std::env::var_os("LINEINFO_BLOB") else {
        eprintln!("skipped: LINEINFO_BLOB names no table");
        return;
    };
    let blob = std::fs::read(path).expect("a file");
    let table = Table::parse(&blob).expect("a valid table");
    let mut candidates = candidates(&table);
    let text = table
        .regions()
        .max_by_key(|region| region.rows)
        .expect("a region");
    measure(&mut candidates, text.start.0, text.len);
    report(&mut candidates, table.layout().rows());
}

fn candidates(table: &Table<'_>) -> Vec<Candidate> {
    let names: Vec<String> = table.files().map(|name| name.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rows: Vec<Vec<Row>> = (0..table.regions().count())
        .map(|region| table.region_rows(region).collect())
        .collect();
    let regions: Vec<Region<'_>> = table
        .regions()
        .zip(&rows)
        .map(|(region, rows)| Region {
            name: region.name,
            start: region.start.0,
            len: region.len,
            init: region.init,
            rows,
        })
        .collect();
    let image = Image {
        machine: table.layout().machine(),
        build_id: table.layout().build_id(),
        text_start: table.layout().text_start(),
        profile: table.layout().profile(),
        files: &names,
        regions: &regions,
    };
    let packed = |block| Options {
        encoding: Encoding::Packed,
        tuning: Tuning { block },
    };
    let mut all = vec![
        ("flat".to_owned(), Options::from(Encoding::Flat)),
        ("delta".to_owned(), Options::from(Encoding::Delta)),
    ];
    for block in [12, 16, 24, 32, 48, 64, 80, 96] {
        let tuning = match (Tuning { block }) {
            Tuning::SPEED => " (speed)",
            Tuning::BALANCED => " (balanced)",
            Tuning::SIZE => " (size)",
            _ => "",
        };
        all.push((format!("packed {block}{tuning}"), packed(block)));
    }
    all.into_iter()
        .map(|(name, options)| {
            let start = Instant::now();
            let blob = encode(&image, options).expect("a table");
            Candidate {
                name,
                blob,
                encode_s: start.elapsed().as_secs_f64(),
                batch_ns: Vec::new(),
                single_ns: Vec::new(),
            }
        })
        .collect()
}

fn measure(candidates: &mut [Candidate], start: u64, len: u32) {
    // The generator of Lehmer.
    let mut state = 0x853c_49e6_748f_ea9b_u128;
    let mut random = || {
        state = state.wrapping_mul(0xda94_2042_e4dd_58b5);
        start + (state >> 64) as u64 % u64::from(len)
    };
    let layouts: Vec<Layout> = candidates
        .iter()
        .map(|candidate| {
            *Table::parse(&candidate.blob)
                .expect("a valid table")
                .layout()
        })
        .collect();
    for _ in 0..TURNS {
        let offsets: Vec<Offset> = (0..BATCH).map(|_| Offset(random())).collect();
        for (candidate, layout) in candidates.iter_mut().zip(&layouts) {
            let table = Table::from_layout(&candidate.blob, *layout);
            let before = Instant::now();
            for offset in &offsets {
                black_box(table.lookup(*offset));
            }
            let ns = before.elapsed().as_nanos() as f64;
            candidate.batch_ns.push(ns / BATCH as f64);
            for offset in offsets.iter().take(64) {
                let before = Instant::now();
                black_box(table.lookup(*offset));
                candidate.single_ns.push(before.elapsed().as_nanos() as f64);
            }
        }
    }
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part) as usize]
}

fn report(candidates: &mut [Candidate], rows: u32) {
    let delta = quantile(&mut candidates[1].batch_ns, 0.5);
    println!("{rows} rows");
    println!(
        "| encoding | bytes | names | B/row without names | median ns | ratio to delta | p99 ns, one | encode s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for candidate in candidates {
        let table = Table::parse(&candidate.blob).expect("a valid table");
        let mut sections = table.sections();
        let names = sections.find(|section| section.0 == Some(SectionKind::Files));
        let names = names.map_or(0, |section| section.2 as usize);
        let bytes = candidate.blob.len();
        let median = quantile(&mut candidate.batch_ns, 0.5);
        println!(
            "| {} | {bytes} | {names} | {:.3} | {median:.0} | {:.2} | {:.0} | {:.2} |",
            candidate.name,
            (bytes - names) as f64 / f64::from(rows),
            median / delta,
            quantile(&mut candidate.single_ns, 0.99),
            candidate.encode_s,
        );
    }
}
