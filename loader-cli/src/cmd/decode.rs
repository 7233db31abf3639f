use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use lineinfo_core::Address;
use object::{Object, ObjectSymbol};

use crate::Error;
use crate::error::{ElfError, exit};
use crate::files;
use crate::source::{LocationBuf, Source};

/// Annotate the frames of a kernel log with file and line.
///
/// `vfs_write+0xf8/0x450` becomes `vfs_write+0xf8/0x450 (fs/read_write.c:681)`; all else stays as it
/// is, frames of modules too. A symbol that several functions of this size share is left alone
/// where they have different lines.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The log [default: stdin].
    #[arg(value_name = "FILE")]
    log: Option<PathBuf>,
    /// Ask a running kernel.
    #[arg(
        long,
        value_name = "PATH",
        required_unless_present = "table",
        conflicts_with = "table"
    )]
    device: Option<PathBuf>,
    /// Ask a table.
    #[arg(long, value_name = "X")]
    table: Option<PathBuf>,
    /// Where functions are: a vmlinux, or a copy of its kernel's /proc/kallsyms.
    #[arg(
        long,
        value_name = "VMLINUX|KALLSYMS",
        default_value = "/proc/kallsyms"
    )]
    against: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let mut source = match (&args.table, &args.device) {
        (Some(table), _) => Source::table(table)?,
        (None, Some(device)) => Source::device(device)?,
        (None, None) => return Err(Error::Usage("name a table or a device".to_owned())),
    };
    let symbols = Symbols::read(&args.against)?;
    let log: Box<dyn BufRead> = match &args.log {
        Some(path) => Box::new(BufReader::new(
            std::fs::File::open(path).map_err(Error::io(path))?,
        )),
        None => Box::new(io::stdin().lock()),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    for line in log.split(b'\n') {
        let line = line.map_err(Error::io("the log"))?;
        let line = String::from_utf8_lossy(&line);
        let annotated = match Frame::find(&line) {
            Some(frame) => frame.annotate(&line, &symbols, &mut source)?,
            None => line.into_owned(),
        };
        writeln!(out, "{annotated}").map_err(Error::Stdout)?;
    }
    out.flush().map_err(Error::Stdout)?;
    Ok(exit::DONE)
}

/// A `symbol+0xoffset/0xsize` in a line.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    symbol: &'a str,
    offset: u64,
    size: u64,
    /// It is the instruction behind `RIP:` or the like, and not where a call returns to.
    is_instruction: bool,
    /// Where it ends in the line, in bytes.
    end: usize,
}

impl<'a> Frame<'a> {
    /// The frame of a line, unless it has a place already or is one of a module.
    fn find(line: &'a str) -> Option<Self> {
        let plus = line.find("+0x")?;
        let start = line[..plus]
            .rfind([' ', ':', '\t'])
            .map_or(0, |before| before + 1);
        let symbol = &line[start..plus];
        let (offset, rest) = hexadecimal(&line[plus + 3..])?;
        let (size, rest) = hexadecimal(rest.strip_prefix("/0x")?)?;
        if symbol.is_empty() || rest.starts_with(" [") || rest.starts_with(" (") {
            return None;
        }
        // x86 writes `RIP: 0010:f+…`, arm64 `pc : f+…`, riscv `epc : f+…`.
        let before = line[..start].trim_end();
        let is_instruction = before.contains("RIP:") || before.ends_with("pc :");
        Some(Self {
            symbol,
            offset,
            size,
            is_instruction,
            end: line.len() - rest.len(),
        })
    }

    fn annotate(
        &self,
        line: &str,
        symbols: &Symbols,
        source: &mut Source,
    ) -> Result<String, Error> {
        let mut found: Option<Option<LocationBuf>> = None;
        for address in symbols.addresses(self) {
            let address = if self.is_instruction {
                Address::Exact(address)
            } else {
                Address::Return(address)
            };
            let place = source.lookup(address)?;
            if found.as_ref().is_some_and(|found| *found != place) {
                return Ok(line.to_owned());
            }
            found = Some(place);
        }
        let (frame, rest) = line.split_at(self.end);
        Ok(match found.flatten() {
            Some(place) => format!("{frame} ({place}){rest}"),
            None => line.to_owned(),
        })
    }
}

/// The number at the start of a text, and what follows it.
fn hexadecimal(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_hexdigit());
    let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
    Some((u64::from_str_radix(digits, 16).ok()?, rest))
}

/// Where functions begin.
struct Symbols {
    /// By name: address, and size in bytes where it is known.
    by_name: HashMap<String, Vec<(u64, Option<u64>)>>,
}

impl Symbols {
    fn read(path: &std::path::Path) -> Result<Self, Error> {
        let bytes = files::read(path)?;
        let mut by_name: HashMap<String, Vec<(u64, Option<u64>)>> = HashMap::new();
        if bytes.starts_with(b"\x7fELF") {
            let failed = |source| Error::Elf {
                path: path.to_owned(),
                source: ElfError::Structure(source),
            };
            let file = object::File::parse(&*bytes).map_err(failed)?;
            for symbol in file.symbols().filter(ObjectSymbol::is_definition) {
                let name = symbol.name().map_err(failed)?.to_owned();
                let known = (symbol.address(), Some(symbol.size()));
                by_name.entry(name).or_default().push(known);
            }
        } else {
            // `address type name`, and `[module]` behind those that are no business of ours.
            for line in String::from_utf8_lossy(&bytes).lines() {
                let (address, rest) = line.split_once(' ').unwrap_or((line, ""));
                let name = rest.split_once(' ').map_or("", |(_, name)| name);
                let address = u64::from_str_radix(address, 16);
                if let (Ok(address), false) = (address, name.is_empty() || name.contains('\t')) {
                    let entry = by_name.entry(name.to_owned()).or_default();
                    entry.push((address, None));
                }
            }
        }
        Ok(Self { by_name })
    }

    /// The addresses that a frame can stand for.
    fn addresses(&self, frame: &Frame<'_>) -> impl Iterator<Item = u64> {
        let known = self
            .by_name
            .get(frame.symbol)
            .map_or(&[][..], Vec::as_slice);
        let fits = |size: Option<u64>| size.is_none_or(|size| size <= frame.size);
        // Symbols without a size, and those that padding follows, are shorter than the frame says.
        let exact = known.iter().any(|(_, size)| *size == Some(frame.size));
        let (size, offset) = (frame.size, frame.offset);
        known
            .iter()
            .filter(move |(_, found)| {
                if exact {
                    *found == Some(size)
                } else {
                    fits(*found)
                }
            })
            .filter_map(move |(address, _)| address.checked_add(offset))
            .collect::<Vec<_>>()
            .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_where_a_log_has_them() {
        let frame = |line| Frame::find(line).map(|frame| (frame.symbol, frame.is_instruction));
        let cases = [
            (
                "[    1.0]  vfs_write+0xf8/0x450",
                Some(("vfs_write", false)),
            ),
            (" ? ksys_write+0x6f/0xf0", Some(("ksys_write", false))),
            ("RIP: 0010:do_idle+0x1/0x2", Some(("do_idle", true))),
            ("pc : do_idle+0x1/0x2", Some(("do_idle", true))),
            ("lr : do_idle+0x1/0x2", Some(("do_idle", false))),
            (" xfs_read+0x1/0x2 [xfs]", None),
            (" vfs_write+0xf8/0x450 (fs/read_write.c:1)", None),
            ("RIP: 0033:0x7f0000000000", None),
            ("Code: 00+0x", None),
        ];
        for (line, expected) in cases {
            assert_eq!(frame(line), expected, "{line}");
        }
    }
}
