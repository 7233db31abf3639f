//! All of the core that a trace needs, on a host: a table from a file, published in a slot, asked at
//! return addresses, unloaded.
//!
//! ```text
//! $ cargo run -p lineinfo-core --features alloc --example hosted -- kernel.lineinfo 0xffffffff81234567
//!  [<ffffffff81234567>] (fs/read_write.c:681)
//! ```

use std::error::Error;

use lineinfo_core::buffer::StrBuffer;
use lineinfo_core::slot::Slot;
use lineinfo_core::{Address, Table};

/// A kernel has its table here; what owns it is a `Box` where there is an allocator.
static LINEINFO: Slot<Table<'static>, Box<Table<'static>>> = Slot::empty();

/// Prints one line of a trace; the part that runs in any context.
fn show_frame(returns_to: u64, text: u64) {
    let mut buffer = [0; 600];
    let mut location = StrBuffer::new(&mut buffer);
    let reader = LINEINFO.read();
    let address = Address::Return(returns_to).relative_to(text);
    let found = reader.get().zip(address);
    if let Some(found) = found.and_then(|(table, address)| table.lookup(address)) {
        found.push_to(&mut location);
    }
    println!(" [<{returns_to:016x}>]{}", location.as_str());
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: hosted TABLE ADDRESS...")?;
    let blob = std::fs::read(path)?.leak();
    let table = Table::parse(blob)?;
    // A kernel that is not where it was linked adds its slide.
    let text = table.layout().text_start();
    LINEINFO.swap(Some(Box::new(table)), || true)?;
    for address in args {
        let digits = address.trim_start_matches("0x");
        show_frame(u64::from_str_radix(digits, 16)?, text);
    }
    // The old table comes back when its last reader has left.
    drop(LINEINFO.swap(None, || true)?);
    Ok(())
}
