//! Shows what parsing and looking up in hostile blobs takes, or writes them into a directory.
//!
//! ```sh
//! cargo run --release -p lineinfo-core --features steps --example hostile [DIRECTORY]
//! ```

use std::error::Error;
use std::path::Path;

use lineinfo_core::steps::{craft, measure};
use lineinfo_core::{Address, Offset, Table};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1);
    println!(
        "{:>9} {:>11} {:>6} {:>8}  blob",
        "bytes", "parse", "/byte", "look-up"
    );
    for (number, hostile) in craft::all().into_iter().enumerate() {
        let bytes = hostile.blob.len();
        let (parsed, parse) = measure(|| Table::parse(&hostile.blob));
        let mut buffer = [0; 1024];
        let (outcome, look_up) = match parsed {
            Err(error) => (error.to_string(), 0),
            Ok(table) => measure(|| {
                let location = table.lookup(Address::Exact(Offset(hostile.target)));
                let written = location.map(|location| location.write(&mut buffer).len());
                written.map_or("a miss".to_owned(), |len| format!("{len} bytes of text"))
            }),
        };
        println!(
            "{bytes:9} {parse:11} {:6.1} {look_up:8}  {}: {outcome}",
            parse as f64 / bytes as f64,
            hostile.name
        );
        if let Some(directory) = &directory {
            let name = format!("{number:02}-{}.lineinfo", hostile.target);
            std::fs::write(Path::new(directory).join(name), &hostile.blob)?;
        }
    }
    Ok(())
}
