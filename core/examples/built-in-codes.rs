//! Makes the codes that the packed encoding has built in, from the rows of a blob.
//!
//! ```sh
//! lineinfo build --encoding delta -o vmlinux.lineinfo vmlinux
//! cargo run --release -p lineinfo-core --features write --example built-in-codes -- \
//!     vmlinux.lineinfo core/src/encoding/packed/built-in.codes
//! ```
//!
//! The file beside the encoding was made so from the vmlinux of Debian's 6.12.117 cloud-amd64.

use std::error::Error;

use lineinfo_core::writer::{Image, Region, built_in_codes};
use lineinfo_core::{Row, Table};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(blob), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: built-in-codes BLOB OUTPUT".into());
    };
    let blob = std::fs::read(blob)?;
    let table = Table::parse(&blob)?;
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
    let codes = built_in_codes(&Image {
        machine: table.layout().machine(),
        build_id: table.layout().build_id(),
        text_start: table.layout().text_start(),
        profile: table.layout().profile(),
        files: &names,
        exact_files: names.len(),
        regions: &regions,
    })?;
    println!("{} bytes", codes.len());
    std::fs::write(output, codes)?;
    Ok(())
}
