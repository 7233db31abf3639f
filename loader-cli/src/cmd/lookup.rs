use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use lineinfo_core::Address;
use serde::Serialize;

use crate::Error;
use crate::error::exit;
use crate::source::{LocationBuf, Source};

/// Look up file and line of addresses.
///
/// In a table addresses are those of the image as it was linked; on a device they are those of the
/// running kernel. Without ADDR they are read from stdin, separated by white space.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The table, unless there is a device, and addresses in hexadecimal.
    #[arg(value_name = "X|ADDR")]
    operands: Vec<String>,
    /// Ask a running kernel instead of a table.
    #[arg(long, value_name = "PATH")]
    device: Option<PathBuf>,
    /// The addresses are return addresses: look up the call before each.
    #[arg(short, long, conflicts_with = "traps")]
    return_addresses: bool,
    /// The addresses are those of traps: ud2, brk, ebreak.
    #[arg(short, long)]
    traps: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The kind of all addresses.
    const fn kind(&self) -> fn(u64) -> Address<u64> {
        if self.return_addresses {
            Address::Return
        } else if self.traps {
            Address::Trap
        } else {
            Address::Exact
        }
    }
}

/// One line of `--json`; the field names are a promise.
#[derive(Debug, Serialize)]
struct Answer {
    address: String,
    file: Option<String>,
    line: Option<u32>,
    approximate: bool,
}

impl Answer {
    fn new(address: u64, place: Option<LocationBuf>) -> Self {
        Self {
            address: format!("{address:#x}"),
            approximate: place.as_ref().is_some_and(|place| place.approximate),
            line: place.as_ref().map(|place| place.line),
            file: place.map(|place| place.file),
        }
    }
}

fn print(
    address: u64,
    place: Option<LocationBuf>,
    json: bool,
    to: &mut impl Write,
) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *to, &Answer::new(address, place))?;
        return writeln!(to);
    }
    match place {
        Some(place) => writeln!(to, "{address:#x} {place}"),
        None => writeln!(to, "{address:#x} ??"),
    }
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let (mut source, addresses) = match (&args.device, args.operands.split_first()) {
        (Some(device), _) => (Source::device(device)?, &args.operands[..]),
        (None, Some((blob, addresses))) => (Source::table(Path::new(blob))?, addresses),
        (None, None) => {
            return Err(Error::Usage(
                "name a table, or a device with --device".to_owned(),
            ));
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut status = exit::DONE;
    let mut one = |text: &str| {
        let address = parse_address(text)?;
        let place = source.lookup(args.kind()(address))?;
        if place.is_none() {
            status = exit::UNRESOLVED;
        }
        print(address, place, args.json, &mut out).map_err(Error::Stdout)
    };
    if addresses.is_empty() {
        for line in io::stdin().lock().lines() {
            let line = line.map_err(Error::io("stdin"))?;
            line.split_whitespace().try_for_each(&mut one)?;
        }
    } else {
        addresses.iter().try_for_each(|address| one(address))?;
    }
    out.flush().map_err(Error::Stdout)?;
    Ok(status)
}

fn parse_address(text: &str) -> Result<u64, Error> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    // `from_str_radix` would take a sign as well.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return Err(Error::Address {
            text: text.to_owned(),
        });
    }
    u64::from_str_radix(digits, 16).map_err(|_| Error::Address {
        text: text.to_owned(),
    })
}
