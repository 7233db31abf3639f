//! Makes the codes and tokens for the names of functions that core has built in, from the tables of many modules.
//!
//! ```sh
//! for module in $(find modules -name '*.ko'); do
//!     lineinfo build --profile calls -o "tables/$(basename "$module").calls" "$module"
//! done
//! cargo run --release -p lineinfo-core --features write --example built-in-names -- \
//!     core/src/chain/built-in.names tables/*
//! ```
//!
//! Those in core were made so from the modules of Debian's 6.1.0-56 cloud-amd64.

use std::error::Error;

use lineinfo_core::Table;
use lineinfo_core::writer::built_in_names;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let output = arguments
        .next()
        .ok_or("usage: built-in-names OUTPUT BLOB...")?;
    let mut lists: Vec<Vec<String>> = Vec::new();
    for blob in arguments {
        let blob = std::fs::read(blob)?;
        let table = Table::parse(&blob)?;
        let names = table.inlined_function_names();
        lists.push(names.map(|name| name.to_string()).collect());
    }
    let lists: Vec<Vec<&str>> = lists
        .iter()
        .map(|names| names.iter().map(String::as_str).collect())
        .collect();
    let names = built_in_names(&lists)?;
    println!("{} bytes", names.len());
    std::fs::write(output, names)?;
    Ok(())
}
