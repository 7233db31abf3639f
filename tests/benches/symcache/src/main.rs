//! Times look-ups in symbolic's symcache, for the benchmark of lineinfo.
//!
//! `lineinfo-symcache IMAGE CACHE` makes a symcache of the image's DWARF, writes it to a file, and
//! prints its size in bytes. Then it reads from stdin lines of addresses, hexadecimal and separated by
//! spaces, looks up each, and answers each line by one of as many `NANOSECONDS:LINE`; the line is 0
//! where the cache has none.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, BufRead, BufWriter, Write};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use symbolic_common::ByteView;
use symbolic_debuginfo::Object;
use symbolic_symcache::{SymCache, SymCacheConverter};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [image, cache_path] = arguments.as_slice() else {
        bail!("usage: lineinfo-symcache IMAGE CACHE");
    };
    let image = ByteView::open(image).context("open the image")?;
    let object = Object::parse(&image).context("parse the image")?;
    let base = object.load_address();
    let mut converter = SymCacheConverter::new();
    converter.process_object(&object).context("read the DWARF")?;
    let mut file = BufWriter::new(File::create(cache_path)?);
    converter.serialize(&mut file)?;
    file.flush()?;
    drop(file);
    // What it took to make the cache is not to be in memory while it is asked.
    drop(object);
    drop(image);
    let bytes = fs::read(cache_path)?;
    let cache = SymCache::parse(&bytes).context("parse the cache")?;
    println!("{}", bytes.len());

    for line in io::stdin().lock().lines() {
        let mut answers = String::new();
        for address in line?.split_ascii_whitespace() {
            let address = u64::from_str_radix(address, 16).context("an address")?;
            let start = Instant::now();
            let found = black_box(&cache).lookup(black_box(address - base)).next();
            let location = found.map(|found| (found.line(), found.file().map(|file| file.full_path())));
            let time = start.elapsed();
            let line = black_box(location).map_or(0, |(line, _)| line);
            write!(answers, "{}:{line} ", time.as_nanos())?;
        }
        println!("{answers}");
        io::stdout().flush()?;
    }
    Ok(())
}
