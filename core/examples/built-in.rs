//! Makes what core has built in, from tables: the codes of rows, the grammar for the names of files, and the
//! codes and tokens for the names of functions.
//!
//! ```sh
//! lineinfo build --encoding delta -o vmlinux.lineinfo vmlinux
//! for module in $(find modules -name '*.ko'); do
//!     lineinfo build --inlines=no -o "tables/$(basename "$module").full" "$module"
//!     lineinfo build --profile calls -o "tables/$(basename "$module").calls" "$module"
//! done
//! built_in() { cargo run --release -p lineinfo-core --features write --example built-in -- "$@"; }
//! built_in codes core/src/encoding/packed/built-in.codes vmlinux.lineinfo
//! built_in grammar core/src/built-in.grammar tables/*
//! built_in names core/src/chain/built-in.names tables/*.calls
//! ```
//!
//! The codes in core were made so from the vmlinux of Debian's 6.12.117 cloud-amd64, and the others from the
//! modules of its 6.1.0-56 cloud-amd64.

use std::error::Error;

use lineinfo_core::writer::{Image, Region, built_in_codes, built_in_grammar, built_in_names};
use lineinfo_core::{Row, Table};

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: built-in codes|grammar|names OUTPUT BLOB...";
    let mut arguments = std::env::args_os().skip(1);
    let what = arguments.next().ok_or(usage)?;
    let output = arguments.next().ok_or(usage)?;
    let blobs: Vec<Vec<u8>> = arguments.map(std::fs::read).collect::<Result<_, _>>()?;
    let tables = blobs.iter().map(|blob| Table::parse(blob));
    let tables: Vec<Table<'_>> = tables.collect::<Result<_, _>>()?;
    let made = match (what.to_str(), &tables[..]) {
        (Some("codes"), [table]) => codes(table)?,
        (Some("codes"), _) => return Err("codes are made from one table".into()),
        (Some("grammar"), _) => {
            let lists = tables.iter().map(|table| strings(table.files()));
            built_in_grammar(&slices(&lists.collect::<Vec<_>>()))?
        }
        (Some("names"), _) => {
            let lists = tables.iter();
            let lists = lists.map(|table| strings(table.inlined_function_names()));
            built_in_names(&slices(&lists.collect::<Vec<_>>()))?
        }
        _ => return Err(usage.into()),
    };
    println!("{} bytes", made.len());
    std::fs::write(output, made)?;
    Ok(())
}

fn strings(names: impl Iterator<Item = impl ToString>) -> Vec<String> {
    names.map(|name| name.to_string()).collect()
}

fn slices(lists: &[Vec<String>]) -> Vec<Vec<&str>> {
    let slices = lists.iter().map(|names| names.iter().map(String::as_str));
    slices.map(Iterator::collect).collect()
}

/// The codes that fit the rows of a table.
fn codes(table: &Table<'_>) -> Result<Vec<u8>, Box<dyn Error>> {
    let names = strings(table.files());
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
    Ok(built_in_codes(&Image {
        machine: table.layout().machine(),
        build_id: table.layout().build_id(),
        text_start: table.layout().text_start(),
        profile: table.layout().profile(),
        files: &names,
        exact_files: names.len(),
        regions: &regions,
    })?)
}
