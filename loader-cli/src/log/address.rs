//! Frames that are addresses alone, of kernels without kallsyms and of tools that print what a kernel
//! would not.
//!
//! | text | of |
//! |---|---|
//! | `[<ffffffff81234567>]` | a trace, of a kernel without CONFIG_KALLSYMS |
//! | `0xffffffff81234567` alone on a line, or after `?` or `RIP: 0010:` | the same since 4.11 |
//! | `ffffffff81234567 vfs_write+0xf8 ([kernel.kallsyms])`, or `[unknown]` | `perf script`: the sampled instruction, then return addresses |
//! | `#4 [ffffb1c0403bfc48] vfs_write at ffffffff81234567` | `bt` of crash |
//! | `RIP: ffffffff81234567  RSP:` | the same, of an exception |

use bstr::ByteSlice;

/// An address, and what the line says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bare<'a> {
    pub(super) address: u64,
    pub(super) means: BareMeans,
    /// The function that the log names, and an offset in it.
    pub(super) name: &'a [u8],
    pub(super) offset: Option<u64>,
    /// Where its text starts and ends in the line, in bytes; the annotation goes behind it.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BareMeans {
    Return,
    Unreliable,
    Exact,
    /// A frame of a sample: the first is the instruction, the others are return addresses.
    Sample,
}

/// The next address of a line at or after `from`, which is after the time stamp for the first.
pub(super) fn find(line: &[u8], from: usize) -> Option<Bare<'_>> {
    bracketed(line, from).or_else(|| of_whole_line(line, from))
}

/// `[<ffffffff81234567>]`.
fn bracketed(line: &[u8], from: usize) -> Option<Bare<'_>> {
    let mut at = from;
    loop {
        at += line[at..].find(b"[<")? + 2;
        let Some((address, len)) = address(&line[at..]) else {
            continue;
        };
        let end = at + len + 2;
        if !line[at + len..].starts_with(b">]") {
            continue;
        }
        let is_marked = |text: &[u8]| text.trim_ascii().ends_with(b"?");
        let means = if is_marked(&line[from..at - 2]) || line[end..].trim_ascii_start() == b"?" {
            BareMeans::Unreliable
        } else if line[from..at - 2].contains_str("IP: ")
            || line[from..at - 2].contains_str("PC is at")
        {
            BareMeans::Exact
        } else {
            BareMeans::Return
        };
        return Some(Bare {
            address,
            means,
            name: b"",
            offset: None,
            start: at - 2,
            end,
        });
    }
}

/// The other formats, of which a line has one.
fn of_whole_line(line: &[u8], from: usize) -> Option<Bare<'_>> {
    let text = &line[from..];
    let indent = text.len() - text.trim_ascii_start().len();
    let words = &text[indent..];
    let bare = |address, means, name, start: usize, len| Bare {
        address,
        means,
        name,
        offset: None,
        start: from + indent + start,
        end: from + indent + start + len,
    };
    // `? 0xffffffff81234567`, `RIP: 0010:0xffffffff81234567`
    let before = words.find(b"0x").unwrap_or(words.len());
    let means = match words[..before].trim_ascii() {
        b"" if indent > 0 => Some(BareMeans::Return),
        b"?" => Some(BareMeans::Unreliable),
        b"RIP: 0010:" => Some(BareMeans::Exact),
        _ => None,
    };
    if let (Some(means), Some((found, len))) = (means, words.get(before + 2..).and_then(address))
        && words[before + 2 + len..].trim_ascii().is_empty()
    {
        return Some(bare(found, means, b"", before, len + 2));
    }
    // `RIP: ffffffff81234567  RSP: …`
    if let Some(rest) = words.strip_prefix(b"RIP: ")
        && let Some((found, len)) = address(rest)
        && rest[len..].starts_with(b"  RSP: ")
    {
        return Some(bare(found, BareMeans::Exact, b"", 5, len));
    }
    // `#4 [ffffb1c0403bfc48] vfs_write at ffffffff81234567 [xfs]`
    if words.starts_with(b"#")
        && let Some((_, rest)) = words.split_once_str("] ")
        && let Some((name, rest)) = rest.split_once_str(" at ")
        && let Some((found, len)) = address(rest)
        && matches!(rest.get(len), None | Some(b' '))
    {
        let start = words.len() - rest.len();
        return Some(bare(found, BareMeans::Return, name, start, len));
    }
    // `ffffffff81234567 vfs_write+0xf8 ([kernel.kallsyms])`
    if indent > 0
        && let Some((found, len)) = address(words)
        && let Some((symbol, _)) = words.get(len + 1..)?.rsplit_once_str(" (")
        && words.ends_with(b")")
    {
        let mut sample = bare(found, BareMeans::Sample, b"", 0, len + 1 + symbol.len());
        if let Some((name, offset)) = symbol.rsplit_once_str("+0x") {
            sample.name = name;
            sample.offset = Some(u64::from_str_radix(offset.to_str().ok()?, 16).ok()?);
        } else if symbol != b"[unknown]" {
            return None;
        }
        return Some(sample);
    }
    None
}

/// Eight to sixteen digits at the start of a text, and how many they are.
fn address(text: &[u8]) -> Option<(u64, usize)> {
    let is_digit = |byte: &u8| byte.is_ascii_hexdigit();
    let len = text.iter().take_while(|byte| is_digit(byte)).count();
    let digits = text[..len].to_str().ok()?;
    let address = u64::from_str_radix(digits, 16).ok()?;
    (8..=16).contains(&len).then_some((address, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Meaning, name, offset, and the line up to where the annotation goes.
    fn found(line: &str) -> Option<(BareMeans, &str, Option<u64>, &str)> {
        let bare = find(line.as_bytes(), 0)?;
        assert_eq!(bare.address, 0xffff_ffff_8123_4567, "{line}");
        let name = bare.name.to_str().expect("text");
        Some((bare.means, name, bare.offset, &line[..bare.end]))
    }

    #[test]
    fn addresses_of_traces_and_tools() {
        use BareMeans::{Exact, Return, Sample, Unreliable};
        let cases = [
            (" [<ffffffff81234567>]", "", Some((Return, "", None))),
            (
                " [<ffffffff81234567>] ?",
                " ?",
                Some((Unreliable, "", None)),
            ),
            (" ? [<ffffffff81234567>]", "", Some((Unreliable, "", None))),
            (
                "RIP: 0010:[<ffffffff81234567>]",
                "",
                Some((Exact, "", None)),
            ),
            (" 0xffffffff81234567", "", Some((Return, "", None))),
            (" ? 0xffffffff81234567", "", Some((Unreliable, "", None))),
            ("RIP: 0010:0xffffffff81234567", "", Some((Exact, "", None))),
            (
                "    RIP: ffffffff81234567  RSP: ffffb1c0403bfe60",
                "  RSP: ffffb1c0403bfe60",
                Some((Exact, "", None)),
            ),
            (
                " #4 [ffffb1c0403bfc48] vfs_write at ffffffff81234567",
                "",
                Some((Return, "vfs_write", None)),
            ),
            (
                "#10 [ffffb1c0403bfc48] xfs_read at ffffffff81234567 [xfs]",
                " [xfs]",
                Some((Return, "xfs_read", None)),
            ),
            (
                "\tffffffff81234567 vfs_write+0xf8 ([kernel.kallsyms])",
                " ([kernel.kallsyms])",
                Some((Sample, "vfs_write", Some(0xf8))),
            ),
            (
                "\tffffffff81234567 [unknown] ([kernel.kallsyms])",
                " ([kernel.kallsyms])",
                Some((Sample, "", None)),
            ),
            ("RAX: ffffffff81234567 RBX: ffffffff81234567", "", None),
            ("R13: 0xffffffff81234567", "", None),
            ("0xffffffff81234567", "", None),
            (" 0xffffffff81234567 is bad", "", None),
            (" #4 [ffffb1c0403bfc48] vfs_write at", "", None),
            ("\tffffffff81234567", "", None),
            ("", "", None),
        ];
        for (line, rest, expected) in cases {
            let expected = expected.map(|(means, name, offset)| {
                (
                    means,
                    name,
                    offset,
                    line.strip_suffix(rest).expect("a rest"),
                )
            });
            assert_eq!(found(line), expected, "{line:?}");
        }
    }

    #[test]
    fn several_on_a_line() {
        let line = b"Call Trace: [<c0101234>] [<c0105678>]";
        let first = find(line, 0).expect("one");
        let second = find(line, first.end).expect("another");
        assert_eq!((first.address, second.address), (0xc010_1234, 0xc010_5678));
        assert_eq!(find(line, second.end), None);
    }
}
