use std::io::{self, BufRead, BufWriter, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueHint;
use lineinfo_core::Address;
use serde::Serialize;

use super::OUTPUT;
use super::decode::KernelArgs;
use crate::Error;
use crate::error::exit;
use crate::images::Images;
use crate::json;
use crate::log::{Facts, Kind};
use crate::source::{FrameBuf, LocationBuf, Source};

/// The options that say what the addresses are.
const ADDRESSES: &str = "Addresses";

/// Look up file and line of addresses and of symbols.
///
/// Where functions were inlined, and the table has them, a line for each of them comes first, innermost
/// first, as in a trace; file and line of the address are then those in the function around them all.
///
/// In a table addresses are those of the image as it was linked; on a device they are those of the
/// running kernel; with --offsets they are relative to _text in both. Without ADDR they are read from stdin, separated by white space.
///
/// `0xffffffff81000000-0xffffffff81000040` is a range: one line is printed for each run of addresses
/// with one location.
///
/// With symbols, of the table or from --vmlinux, `vfs_write+0xf8/0x450` or `vfs_write+0xf8` names an
/// address, too, and `vfs_write+0x0-0x40` a range: every function of that name and size is shown.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The table, unless one is named by an option or there is a device; and addresses in
    /// hexadecimal, or symbols.
    #[arg(value_name = "X|ADDR", value_hint = ValueHint::FilePath)]
    operands: Vec<String>,
    #[command(flatten)]
    kernel: KernelArgs,
    /// The addresses are return addresses: look up the call before each.
    #[arg(short, long, conflicts_with = "traps", help_heading = ADDRESSES)]
    return_addresses: bool,
    /// The addresses are offsets from _text, which a device tells anybody; run-time addresses are for
    /// root and the owner of the kernel.
    #[arg(short, long, conflicts_with = "vmlinux", help_heading = ADDRESSES)]
    offsets: bool,
    /// The addresses are those of traps: ud2, brk, ebreak.
    #[arg(short, long, help_heading = ADDRESSES)]
    traps: bool,
    /// Print one JSON object a line.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Args {
    /// The kind of all addresses.
    const fn kind(&self) -> Kind {
        if self.return_addresses {
            Kind::Return
        } else if self.traps {
            Kind::Trap
        } else {
            Kind::Exact
        }
    }
}

/// Version of the JSON documents.
const JSON_VERSION: u32 = 1;

/// One answer, as text and as a JSON document.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    /// `null` if there is no such symbol.
    address: Option<String>,
    /// Where the range of addresses ends that have this location, exclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    symbol: Option<&'a str>,
    file: Option<Arc<str>>,
    line: Option<u32>,
    approximate: bool,
    /// The functions there, innermost first; empty if the table has no inlined functions.
    frames: Vec<FrameBuf>,
}

impl<'a> Answer<'a> {
    /// For an address, or a range with its end; without one for a symbol that is not there.
    fn new(
        address: Option<(u64, Option<u64>)>,
        symbol: Option<&'a str>,
        location: Option<LocationBuf>,
    ) -> Self {
        let (file, line, approximate, frames) = match location {
            Some(location) => (
                Some(location.file),
                Some(location.line),
                location.approximate,
                location.frames,
            ),
            None => (None, None, false, Vec::new()),
        };
        Self {
            address: address.map(|(address, _)| format!("{address:#x}")),
            end: address.and_then(|(_, end)| Some(format!("{:#x}", end?))),
            symbol,
            file,
            line,
            approximate,
            frames,
        }
    }

    fn print(self, is_json: bool, to: &mut impl Write) -> io::Result<()> {
        if is_json {
            return json::write(to, JSON_VERSION, &self);
        }
        let location = match (self.file, self.line) {
            (Some(file), Some(line)) => Some(LocationBuf {
                file,
                line,
                approximate: self.approximate,
                frames: self.frames,
            }),
            _ => None,
        };
        for inlined in location.iter().flat_map(LocationBuf::inlined) {
            to.write_all(b" ")?;
            to.write_all(&inlined.to_bytes())?;
            writeln!(to)?;
        }
        if let Some(symbol) = self.symbol {
            write!(to, "{symbol} ")?;
        }
        match (&self.address, &self.end) {
            (Some(address), Some(end)) => write!(to, "{address}-{end} ")?,
            (Some(address), None) => write!(to, "{address} ")?,
            (None, _) => {}
        }
        match location {
            Some(location) => to.write_all(&location.physical().to_bytes())?,
            None => to.write_all(b"??")?,
        }
        writeln!(to)
    }
}

/// What answers.
#[derive(Debug)]
enum Answering {
    /// A table or a device; it knows no symbols.
    Source(Source),
    /// A kernel, modules, or both.
    Images(Box<Images>),
}

impl Answering {
    /// What the arguments name, and the operands that are addresses.
    fn open(args: &Args) -> Result<(Self, &[String]), Error> {
        let operands = &args.operands[..];
        let kernel = &args.kernel;
        // A table may be the first operand; addresses are no files.
        let first = operands.first().map(PathBuf::from);
        let first = first.filter(|first| kernel.table.is_empty() && first.is_file());
        let addresses = &operands[usize::from(first.is_some())..];
        let table = kernel.table.first().or(first.as_ref());
        let wants_symbols = match (addresses, table) {
            // What stdin has is not known yet.
            ([], Some(table)) => Source::table(table)?.symbols()?.is_some(),
            (_, table) => {
                (table.is_some() || kernel.device.is_some())
                    && addresses.iter().any(|address| is_symbol(address))
            }
        };
        if !kernel.vmlinux.is_empty() || wants_symbols {
            let mut options = kernel.options()?;
            options.tables.extend(first);
            let images = Images::open(options, &Facts::default())?;
            return Ok((Self::Images(Box::new(images)), addresses));
        }
        match (&kernel.table[..], &kernel.device, operands.split_first()) {
            ([table, ..], _, _) => Ok((Self::Source(Source::table(table)?), operands)),
            ([], Some(device), _) if first.is_none() => {
                Ok((Self::Source(Source::device(device)?), operands))
            }
            ([], _, Some((table, addresses))) => {
                let table = Source::table(table.as_ref())?;
                Ok((Self::Source(table), addresses))
            }
            ([], _, None) => Err(Error::Usage(
                "name a table, or a device with --device".to_owned(),
            )),
        }
    }

    /// Prints what an operand stands for; `false` if any of it has no location.
    fn answer(&mut self, text: &str, args: &Args, to: &mut impl Write) -> Result<bool, Error> {
        let kind = args.kind();
        let mut answers = Vec::new();
        match (Operand::parse(text)?, &mut *self) {
            (Operand::Addresses(addresses), Self::Source(source)) => {
                let mut lookup = |address| {
                    let place = match kind {
                        Kind::Return => Address::Return(address),
                        Kind::Trap => Address::Trap(address),
                        _ => Address::Exact(address),
                    };
                    match args.offsets {
                        true => source.lookup_offset(place),
                        false => source.lookup(place),
                    }
                };
                add(&mut answers, addresses, None, &mut lookup)?;
            }
            (Operand::Addresses(addresses), Self::Images(images)) => {
                if let Some(image) = images.all().next() {
                    let lookup = |address| image.lookup_named(address, kind);
                    add(&mut answers, addresses, None, lookup)?;
                }
            }
            (
                Operand::Symbol {
                    name,
                    offsets,
                    size,
                },
                Self::Images(images),
            ) => {
                // A call may be the last instruction of a function.
                let last = match kind {
                    Kind::Return => offsets.end().saturating_sub(1),
                    _ => *offsets.end(),
                };
                for image in images.all() {
                    for start in image.symbols().all_of(name.as_bytes(), size, last) {
                        let addresses = start.wrapping_add(*offsets.start())
                            ..=start.wrapping_add(*offsets.end());
                        let lookup = |address| image.lookup(address, kind);
                        add(&mut answers, addresses, Some(text), lookup)?;
                    }
                }
                if answers.is_empty() {
                    let unknown = Answer::new(None, Some(text), None);
                    unknown.print(args.json, to).map_err(Error::Stdout)?;
                    return Ok(false);
                }
            }
            (Operand::Symbol { .. }, Self::Source(_)) => {
                return Err(Error::Usage(format!(
                    "{text:?} is a symbol, and there are no symbols: name the vmlinux, or a copy of /proc/kallsyms, with --vmlinux"
                )));
            }
        }
        let mut found = true;
        for answer in answers {
            found &= answer.file.is_some();
            answer.print(args.json, to).map_err(Error::Stdout)?;
        }
        Ok(found)
    }
}

/// Adds the answers for some addresses: one for each run of addresses with the same location.
fn add<'a>(
    answers: &mut Vec<Answer<'a>>,
    addresses: RangeInclusive<u64>,
    symbol: Option<&'a str>,
    mut lookup: impl FnMut(u64) -> Result<Option<LocationBuf>, Error>,
) -> Result<(), Error> {
    let (start, end) = (*addresses.start(), *addresses.end());
    if start == end {
        answers.push(Answer::new(Some((start, None)), symbol, lookup(start)?));
        return Ok(());
    }
    let mut run = (start, lookup(start)?);
    for address in start + 1..=end {
        let location = lookup(address)?;
        if location != run.1 {
            let (from, before) = std::mem::replace(&mut run, (address, location));
            answers.push(Answer::new(Some((from, Some(address))), symbol, before));
        }
    }
    let (from, location) = run;
    let after = end.wrapping_add(1);
    answers.push(Answer::new(Some((from, Some(after))), symbol, location));
    Ok(())
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let (mut answering, addresses) = Answering::open(args)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut status = exit::DONE;
    let mut one = |text: &str| {
        if !answering.answer(text, args, &mut out)? {
            status = exit::UNRESOLVED;
        }
        Ok(())
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

/// Whether an operand can only be a symbol.
fn is_symbol(operand: &str) -> bool {
    operand.contains("+0x")
}

/// A number in hexadecimal, which is a part of `text`.
fn parse_number(number: &str, text: &str) -> Result<u64, Error> {
    let digits = number
        .strip_prefix("0x")
        .or_else(|| number.strip_prefix("0X"))
        .unwrap_or(number);
    let failed = || Error::Address {
        text: text.to_owned(),
    };
    // `from_str_radix` would take a sign as well.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return Err(failed());
    }
    u64::from_str_radix(digits, 16).map_err(|_| failed())
}

/// What is looked up.
#[derive(Debug)]
enum Operand<'a> {
    /// An address, or all from one to another.
    Addresses(RangeInclusive<u64>),
    /// The same in a function.
    Symbol {
        name: &'a str,
        offsets: RangeInclusive<u64>,
        size: Option<u64>,
    },
}

/// The largest range, in bytes: more than the text of any kernel.
const RANGE_MAX: u64 = 256 << 20;

impl<'a> Operand<'a> {
    /// `ADDRESS`, `ADDRESS-END`, `symbol+0xoffset`, `symbol+0xoffset-0xend`, and `/0xsize` after a symbol.
    fn parse(text: &'a str) -> Result<Self, Error> {
        let Some((name, rest)) = text.rsplit_once("+0x") else {
            return Ok(Self::Addresses(parse_range(text, text)?));
        };
        let (offsets, size) = match rest.split_once('/') {
            Some((offsets, size)) => (offsets, Some(parse_number(size, text)?)),
            None => (rest, None),
        };
        Ok(Self::Symbol {
            name,
            offsets: parse_range(offsets, text)?,
            size,
        })
    }
}

/// A number, or the numbers from one up to another.
fn parse_range(range: &str, text: &str) -> Result<RangeInclusive<u64>, Error> {
    let Some((start, end)) = range.split_once('-') else {
        let number = parse_number(range, text)?;
        return Ok(number..=number);
    };
    let (start, end) = (parse_number(start, text)?, parse_number(end, text)?);
    match end.checked_sub(start) {
        Some(1..=RANGE_MAX) => Ok(start..=end - 1),
        _ => Err(Error::Usage(format!(
            "{text:?}: a range has its start, - and its end, which is after it, at most {} MiB",
            RANGE_MAX >> 20
        ))),
    }
}
