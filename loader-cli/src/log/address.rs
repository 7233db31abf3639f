//! Frames that are addresses alone, of kernels without kallsyms and of tools that print what a kernel
//! would not.
//!
//! | text | of |
//! |---|---|
//! | `[<ffffffff81234567>]` | a trace, of a kernel without CONFIG_KALLSYMS |
//! | `0xffffffff81234567` alone on a line, or after `?` or `RIP: 0010:` | the same since 4.11 |
//! | `[<0>] 0xffffffff81234567` | `/proc/PID/stack`, of a kernel without CONFIG_KALLSYMS |
//! | `ffffffff81234567 vfs_write+0xf8 ([kernel.kallsyms])`, or `[unknown]` | `perf script`: the sampled instruction, then return addresses |
//! | `cycles: ffffffff81234567 vfs_write+0xf8 ([kernel.kallsyms])` | the same, without callers |
//! | `#4 [ffffb1c0403bfc48] vfs_write at ffffffff81234567`, `vfs_write+248 at` | `bt` of crash |
//! | `RIP: ffffffff81234567  RSP:` | the same, of an exception |
//! | `PC: ffffffff81234567  [vfs_write+248]`, `LR: …` | the same, of arm64 |
//! | `#1  0xffffffff81234567 in vfs_write ()` | `bt` of gdb |
//! | `=> vfs_write (ffffffff81234567)` | a stack of `trace-cmd report` |

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
        at += line[at..].find_byte(b'<')? + 1;
        if !line[from..at].ends_with(b"[<") {
            continue;
        }
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

/// Longest text before an address with `0x`, with it, in bytes: `RIP: 0010:0x`.
const HEAD_MAX: usize = 12;

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
    let head = &words[..words.len().min(HEAD_MAX)];
    let before = head.windows(2).position(|pair| pair == b"0x");
    let before = before.unwrap_or(words.len());
    let means = match words[..before].trim_ascii() {
        b"" if indent > 0 => Some(BareMeans::Return),
        b"[<0>]" | b"lr :" => Some(BareMeans::Return),
        b"?" => Some(BareMeans::Unreliable),
        b"RIP: 0010:" | b"pc :" => Some(BareMeans::Exact),
        _ => None,
    };
    if let (Some(means), Some((found, len))) = (means, words.get(before + 2..).and_then(address))
        && words[before + 2 + len..].trim_ascii().is_empty()
    {
        return Some(bare(found, means, b"", before, len + 2));
    }
    // `RIP: ffffffff81234567  RSP: …`, `PC: ffff800080123456  [vfs_write+248]`
    for (header, means) in [
        (b"RIP: ", BareMeans::Exact),
        (b" PC: ", BareMeans::Exact),
        (b" LR: ", BareMeans::Return),
    ] {
        let Some(rest) = words.strip_prefix(header.trim_ascii_start()) else {
            continue;
        };
        let Some((found, len)) = address(rest) else {
            continue;
        };
        let after = &rest[len..];
        let start = words.len() - rest.len();
        if after.starts_with(b"  RSP: ") {
            return Some(bare(found, means, b"", start, len));
        }
        if let Some(inner) = after.strip_prefix(b"  [")
            && let Some(name) = inner.strip_suffix(b"]")
        {
            return Some(bare(found, means, b"", start, len + after.len()).named(name));
        }
    }
    if let Some(rest) = words.strip_prefix(b"#") {
        // `#4 [ffffb1c0403bfc48] vfs_write at ffffffff81234567 [xfs]`
        if let Some((_, rest)) = rest.split_once_str("] ")
            && let Some((name, rest)) = rest.split_once_str(" at ")
            && let Some((found, len)) = address(rest)
            && matches!(rest.get(len), None | Some(b' '))
        {
            let start = words.len() - rest.len();
            return Some(bare(found, BareMeans::Return, b"", start, len).named(name));
        }
        // `#1  0xffffffff81234567 in vfs_write ()`
        if let Some((number, rest)) = rest.split_once_str("  0x").or(rest.split_once_str(" 0x"))
            && number.iter().all(u8::is_ascii_digit)
            && let Some((found, len)) = address(rest)
            && let Some(name) = rest[len..].strip_prefix(b" in ")
            && let Some(name) = name.strip_suffix(b" ()")
        {
            let means = match number {
                b"0" => BareMeans::Exact,
                _ => BareMeans::Return,
            };
            let start = words.len() - rest.len() - 2;
            return Some(bare(found, means, b"", start, words.len() - start).named(name));
        }
    }
    let inner = words.strip_suffix(b")")?;
    let (before, inner) = inner.rsplit_once_str(" (")?;
    // `=> vfs_write (ffffffff81234567)`
    if let Some(name) = before.strip_prefix(b"=> ") {
        let (found, len) = address(inner)?;
        let is_all = len == inner.len();
        return is_all.then(|| bare(found, BareMeans::Return, b"", 0, words.len()).named(name));
    }
    // `ffffffff81234567 vfs_write+0xf8 ([kernel.kallsyms])`, alone or after the words of an event
    let (before, symbol) = before.rsplit_once_str(" ")?;
    let (event, digits) = before.rsplit_once_str(" ").unwrap_or((b"", before));
    let (found, len) = address(digits)?;
    let means = match event.trim_ascii().last() {
        None if indent > 0 => BareMeans::Sample,
        Some(b':') => BareMeans::Exact,
        _ => return None,
    };
    let start = before.len() - digits.len();
    let name = if symbol == b"[unknown]" { b"" } else { symbol };
    (len == digits.len())
        .then(|| bare(found, means, b"", start, len + 1 + symbol.len()).named(name))
}

impl<'a> Bare<'a> {
    /// The same with a name, and with the offset that follows it: `+0xf8`, `+248`.
    fn named(self, name: &'a [u8]) -> Self {
        let number = |digits: &[u8]| {
            let digits = digits.to_str().ok()?;
            match digits.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => digits.parse().ok(),
            }
        };
        let named = name
            .rsplit_once_str("+")
            .and_then(|(name, digits)| Some((name, number(digits)?)));
        match named {
            Some((name, offset)) => Self {
                name,
                offset: Some(offset),
                ..self
            },
            None => Self { name, ..self },
        }
    }
}

/// Eight to sixteen digits at the start of a text, and how many they are.
fn address(text: &[u8]) -> Option<(u64, usize)> {
    let is_digit = |byte: &u8| byte.is_ascii_hexdigit();
    let len = text.iter().take_while(|byte| is_digit(byte)).count();
    let digits = text[..len].to_str().ok()?;
    let address = u64::from_str_radix(digits, 16).ok()?;
    // The end of a stack is no address.
    let is_one = (8..=16).contains(&len) && address != u64::MAX;
    is_one.then_some((address, len))
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
            (
                "\tffffffff81234567 vfs_write ([kernel.kallsyms])",
                " ([kernel.kallsyms])",
                Some((Sample, "vfs_write", None)),
            ),
            (
                "bash 123 [000] 12.5:  1 cycles:P:  ffffffff81234567 vfs_write+0xf8 (/boot/vmlinux)",
                " (/boot/vmlinux)",
                Some((Exact, "vfs_write", Some(0xf8))),
            ),
            (
                " #4 [ffffb1c0403bfc48] vfs_write+248 at ffffffff81234567",
                "",
                Some((Return, "vfs_write", Some(248))),
            ),
            (
                "     PC: ffffffff81234567  [vfs_write+248]",
                "",
                Some((Exact, "vfs_write", Some(248))),
            ),
            (
                "     LR: ffffffff81234567  [vfs_write+248]",
                "",
                Some((Return, "vfs_write", Some(248))),
            ),
            (
                "#0  0xffffffff81234567 in vfs_write ()",
                "",
                Some((Exact, "vfs_write", None)),
            ),
            (
                "#10 0xffffffff81234567 in vfs_write ()",
                "",
                Some((Return, "vfs_write", None)),
            ),
            (
                " => vfs_write (ffffffff81234567)",
                "",
                Some((Return, "vfs_write", None)),
            ),
            ("[<0>] 0xffffffff81234567", "", Some((Return, "", None))),
            ("pc : 0xffffffff81234567", "", Some((Exact, "", None))),
            ("lr : 0xffffffff81234567", "", Some((Return, "", None))),
            (
                "#1  0xffffffff81234567 in vfs_write (file=0x0) at fs/read_write.c:681",
                "",
                None,
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
