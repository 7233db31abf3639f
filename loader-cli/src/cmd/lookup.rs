use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use lineinfo_core::Address;
use serde::Serialize;

use crate::Error;
use crate::error::exit;
use crate::source::{LocationBuf, Source};

/// Look up file and line of addresses.
///
/// Where functions were inlined, and the table has them, a line for each of them comes first, innermost
/// first, as in a trace; file and line of the address are then those in the function around them all.
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
    /// The functions there, innermost first; empty if the table has no inlined functions.
    frames: Vec<Frame>,
}

/// One function of `frames`; the field names are a promise.
#[derive(Debug, Serialize)]
struct Frame {
    /// `null` is the physical function: its name is that of the symbol.
    function: Option<String>,
    file: String,
    line: u32,
}

impl Answer {
    fn new(address: u64, place: Option<LocationBuf>, frames: Vec<Frame>) -> Self {
        Self {
            frames,
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
    frames: Vec<Frame>,
    json: bool,
    to: &mut impl Write,
) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *to, &Answer::new(address, place, frames))?;
        return writeln!(to);
    }
    for Frame {
        function,
        file,
        line,
    } in &frames
    {
        match function {
            Some(function) => writeln!(to, " {function} ({file}:{line}) [inline]")?,
            None => return writeln!(to, "{address:#x} {file}:{line}"),
        }
    }
    match place {
        Some(place) => writeln!(to, "{address:#x} {place}"),
        None => writeln!(to, "{address:#x} ??"),
    }
}

/// The functions at an address, innermost first, if the table knows.
fn frames(source: &Source, address: Address<u64>) -> Vec<Frame> {
    let Source::Table(blob) = source else {
        return Vec::new();
    };
    let table = blob.table();
    let chain = address
        .relative_to(table.layout().text_start())
        .and_then(|address| table.chain(address));
    let frame = |frame: lineinfo_core::Frame<'_>| Frame {
        function: frame.function.map(|function| function.to_string()),
        file: frame.location.file.to_string(),
        line: frame.location.line,
    };
    chain.into_iter().flatten().map(frame).collect()
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
        let frames = frames(&source, args.kind()(address));
        print(address, place, frames, args.json, &mut out).map_err(Error::Stdout)
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
