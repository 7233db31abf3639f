//! How long a look-up takes in each encoding: the same random addresses, one process.
//!
//! ```sh
//! LINEINFO_VMLINUX=… cargo bench --bench lookup
//! ```
//!
//! These machines are noisy: read the ratios. Without `LINEINFO_VMLINUX` it says that it skips.

use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use indicatif::ProgressBar;
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_core::blob::Encoding;
use lineinfo_core::{Offset, Table};

/// Look-ups in one iteration.
///
/// So many that the table they touch does not stay in the processor's caches.
const LOOKUPS: usize = 1 << 16;

fn lookups(criterion: &mut Criterion) {
    let Some(vmlinux) = std::env::var_os("LINEINFO_VMLINUX") else {
        eprintln!("skipped: LINEINFO_VMLINUX names no vmlinux");
        return;
    };
    let file = ElfFile::open(Path::new(&vmlinux)).expect("a file");
    let elf = file.parse().expect("an ELF file");
    let extracted = extract(&elf, &Naming::default(), &ProgressBar::hidden()).expect("rows");
    let offsets = random_offsets(extracted.regions[0].section.len.into());
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(LOOKUPS as u64));
    group.sample_size(20);
    for &encoding in Encoding::ALL {
        let blob = extracted.encode(encoding).expect("a table");
        let table = Table::parse(&blob).expect("a valid table");
        group.bench_with_input(
            BenchmarkId::from_parameter(encoding),
            &table,
            |bench, table| {
                bench.iter(|| {
                    for offset in &offsets {
                        black_box(table.lookup(Offset(*offset)));
                    }
                });
            },
        );
    }
    group.finish();

    let mut group = criterion.benchmark_group("parse");
    group.sample_size(20);
    for &encoding in Encoding::ALL {
        let blob = extracted.encode(encoding).expect("a table");
        group.bench_with_input(
            BenchmarkId::from_parameter(encoding),
            &blob,
            |bench, blob| {
                bench.iter(|| black_box(Table::parse(blob)));
            },
        );
    }
    group.finish();
}

/// Offsets in the main text, by the generator of Lehmer.
fn random_offsets(text_len: u64) -> Vec<u64> {
    let mut state = 0x853c_49e6_748f_ea9b_u128;
    let mut next = || {
        state = state.wrapping_mul(0xda94_2042_e4dd_58b5);
        (state >> 64) as u64
    };
    (0..LOOKUPS).map(|_| next() % text_len).collect()
}

criterion_group!(benches, lookups);
criterion_main!(benches);
