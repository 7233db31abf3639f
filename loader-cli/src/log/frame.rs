//! The words of a frame: `symbol+0xOFFSET/0xSIZE`, and `[module BUILDID]` after it; and the bytes that
//! a kernel did not write as they are in the log ([`escape`]).

use bstr::ByteSlice;

/// Longest symbol that is looked for; KSYM_NAME_LEN is 512.
const SYMBOL_MAX: usize = 512;

/// A module's name and build-id as a frame has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its build-id in hexadecimal, empty where the kernel does not print it.
    pub build_id: &'a [u8],
}

/// The words that are the same in every format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a> {
    pub(super) symbol: &'a [u8],
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Where the symbol starts in the line, in bytes.
    pub(super) start: usize,
    /// Where the size ends in the line, in bytes.
    pub(super) end: usize,
}

impl<'a> Words<'a> {
    /// The words around a `+0x` at `plus`; nothing before `from` belongs to them.
    pub(super) fn around(line: &'a [u8], from: usize, plus: usize) -> Option<Self> {
        let (offset, at) = hexadecimal(line, plus + 3)?;
        if !line[at..].starts_with(b"/0x") {
            return None;
        }
        let (size, end) = hexadecimal(line, at + 3)?;
        if line.get(end).copied().is_some_and(is_word) {
            return None;
        }
        let start = symbol_start(line, from.max(plus.saturating_sub(SYMBOL_MAX)), plus);
        let start = start + cookie_len(&line[start..plus]);
        let symbol = &line[start..plus];
        // No name begins with a digit; what does is an address without a symbol.
        if symbol.first().is_none_or(u8::is_ascii_digit) {
            return None;
        }
        Some(Self {
            symbol,
            offset,
            size,
            start,
            end,
        })
    }
}

/// What a C name, with the suffixes of compilers, is made of.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$')
}

/// The number at `at`, and where it ends.
fn hexadecimal(line: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    let mut end = at;
    while let Some(digit) = line
        .get(end)
        .and_then(|byte| char::from(*byte).to_digit(16))
    {
        value = value.checked_mul(16)? | u64::from(digit);
        end += 1;
    }
    (end > at).then_some((value, end))
}

/// Where the symbol that ends at `end` starts.
fn symbol_start(line: &[u8], from: usize, end: usize) -> usize {
    let mut start = word_start(line, from, end);
    let ends_in_group = start == end && end > from && matches!(line[end - 1], b'>' | b'}');
    if ends_in_group || line[from..start].ends_with(b"::") {
        start = path_start(line, from, end).unwrap_or(start);
    }
    // A colour or an escaped byte ends where the name begins: `ESC [ 1 m do_exit`, `\tdo_exit`.
    let first = from.max(start.saturating_sub(ESCAPE_MAX));
    if !may_have_escapes(&line[first..end]) {
        return start;
    }
    let ends = (first..end).filter_map(|at| Some(escape(line, at)?.end));
    ends.filter(|at| (start..=end).contains(at))
        .max()
        .unwrap_or(start)
}

/// How long the number is that `async_schedule` puts before a function: `calling  1_f+0x0/0x10 @ 7`.
fn cookie_len(symbol: &[u8]) -> usize {
    let digits = symbol.iter().take_while(|byte| byte.is_ascii_digit());
    match digits.count() {
        0 => 0,
        len if symbol.get(len) == Some(&b'_') => len + 1,
        _ => 0,
    }
}

fn word_start(line: &[u8], from: usize, end: usize) -> usize {
    let before = line[from..end].iter().rposition(|byte| !is_word(*byte));
    before.map_or(from, |before| from + before + 1)
}

/// Where a path of Rust starts, as in `<a::B<C> as d::E>::f::{closure#0}`; `None` if its brackets do
/// not match.
fn path_start(line: &[u8], from: usize, end: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = end;
    while at > from {
        match line[at - 1] {
            // `->` of a function's type is no bracket.
            b'>' if at - 1 > from && line[at - 2] == b'-' && depth > 0 => at -= 1,
            b'>' | b')' | b']' | b'}' => depth += 1,
            b'<' | b'(' | b'[' | b'{' if depth > 0 => depth -= 1,
            byte if depth > 0 || is_word(byte) => {}
            b':' if line[from..at].ends_with(b"::") => at -= 1,
            _ => break,
        }
        at -= 1;
    }
    (depth == 0).then_some(at)
}

/// Longest escape that is looked for, in bytes.
const ESCAPE_MAX: usize = 32;

/// Bytes of a log that are one byte of the kernel's, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Escape {
    /// Where they end, in bytes.
    pub(super) end: usize,
    /// The byte; `None` for a colour.
    pub(super) byte: Option<u8>,
}

/// Whether a text has a byte that starts what [`escape`] knows.
pub(super) fn may_have_escapes(text: &[u8]) -> bool {
    memchr::memchr3(0x1b, b'\\', b'&', text).is_some()
        || memchr::memchr2(b'#', b'^', text).is_some()
}

/// The escape that starts at `at`.
///
/// | text | of |
/// |---|---|
/// | `ESC [ 1 ; 31 m`, `ESC [ K`, with any `ESC` of below | a terminal |
/// | `\t`, `\n`, `\"`, `\u003c` | JSON |
/// | `\x09` | `/dev/kmsg`, `dmesg` |
/// | `#011` | rsyslog |
/// | `^I` | syslogd, `cat -v` |
/// | `&lt;` | HTML |
pub(super) fn escape(line: &[u8], at: usize) -> Option<Escape> {
    let rest = line.get(at..)?;
    let number = |digits: &[u8], radix| {
        let value = u32::from_str_radix(digits.to_str().ok()?, radix).ok()?;
        u8::try_from(value).ok()
    };
    let (byte, len) = match rest {
        [0x1b, ..] => (0x1b, 1),
        [b'\\', b'u', digits @ ..] => (number(digits.get(..4)?, 16)?, 6),
        [b'\\', b'x', digits @ ..] => (number(digits.get(..2)?, 16)?, 4),
        [b'\\', b'n', ..] => (b'\n', 2),
        [b'\\', b'r', ..] => (b'\r', 2),
        [b'\\', b't', ..] => (b'\t', 2),
        [b'\\', byte @ (b'"' | b'\\' | b'/'), ..] => (*byte, 2),
        [b'#', digits @ ..] if digits.starts_with(b"0") => (number(digits.get(..3)?, 8)?, 4),
        [b'^', b'I', ..] => (b'\t', 2),
        [b'^', b'[', b'[', ..] => (0x1b, 2),
        [b'&', ..] => ENTITIES
            .iter()
            .find_map(|(name, byte)| rest.starts_with(name).then_some((*byte, name.len())))?,
        _ => return None,
    };
    let end = at + len;
    if byte != 0x1b {
        return Some(Escape {
            end,
            byte: Some(byte),
        });
    }
    let rest = line[end..].strip_prefix(b"[")?;
    let len = rest
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    matches!(rest[len], b'm' | b'K').then_some(Escape {
        end: end + 1 + len + 1,
        byte: None,
    })
}

/// What HTML has for bytes of a log.
const ENTITIES: [(&[u8], u8); 6] = [
    (b"&lt;", b'<'),
    (b"&gt;", b'>'),
    (b"&amp;", b'&'),
    (b"&quot;", b'"'),
    (b"&#39;", b'\''),
    (b"&nbsp;", b' '),
];

/// A module's mark at the start of a text, and its length: ` [xfs]`, ` [xfs(OE)]`, ` [xfs c0ffee…]`.
pub(super) fn module(text: &[u8]) -> Option<(Module<'_>, usize)> {
    let inner = text.strip_prefix(b" [")?;
    let inner = &inner[..inner.find_byte(b']')?];
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let name_len = inner
        .iter()
        .position(|byte| !is_name(byte))
        .unwrap_or(inner.len());
    let (name, mut rest) = inner.split_at(name_len);
    // Taint flags: `(OE)`, and `(OE+)` while it is being loaded.
    if let Some(flags) = rest.strip_prefix(b"(") {
        let end = flags.find_byte(b')')?;
        let is_flag = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'+' | b'-');
        if !flags[..end].iter().all(is_flag) {
            return None;
        }
        rest = &flags[end + 1..];
    }
    let build_id = match rest.strip_prefix(b" ") {
        Some(build_id) if !build_id.is_empty() && build_id.iter().all(u8::is_ascii_hexdigit) => {
            build_id
        }
        None if rest.is_empty() => rest,
        _ => return None,
    };
    // `f+0x1/0x2 [00000000a1b2c3d4]` is where that is.
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let is_address = matches!(name.len(), 8 | 16)
        && name.iter().all(u8::is_ascii_hexdigit)
        && name.iter().any(is_digit);
    (!name.is_empty() && !is_address).then_some((Module { name, build_id }, inner.len() + 3))
}

/// Whether a frame has its location already: ` (fs/read_write.c:681)`.
pub(super) fn is_located(text: &[u8]) -> bool {
    let Some(inner) = text.strip_prefix(b" (") else {
        return false;
    };
    let end = inner.find_byteset(b" ()\n").unwrap_or(inner.len());
    let Some(colon) = inner[..end].rfind_byte(b':') else {
        return false;
    };
    let line = &inner[colon + 1..end];
    let line = line.strip_prefix(b"~").unwrap_or(line);
    colon > 0 && !line.is_empty() && line.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(line: &str) -> Option<&str> {
        let plus = line.find("+0x")?;
        let words = Words::around(line.as_bytes(), 0, plus)?;
        words.symbol.to_str().ok()
    }

    #[test]
    fn symbols_of_c_and_rust() {
        let cases = [
            (" vfs_write+0xf8/0x450", Some("vfs_write")),
            ("(f.isra.0+0x1/0x2)", Some("f.isra.0")),
            ("<f+0x1/0x2>", Some("f")),
            ("RIP: 0010:f+0x1/0x2", Some("f")),
            ("call_site=f+0x1/0x2", Some("f")),
            ("\u{a0}f+0x1/0x2", Some("f")),
            ("\x1b[1mf+0x1/0x2", Some("f")),
            ("\x1b[1;31mf::g+0x1/0x2", Some("f::g")),
            ("\x1b[38:5:1mf+0x1/0x2", Some("f")),
            (r"\u001b[1;31mf+0x1/0x2", Some("f")),
            (r#"{"log":"\tf+0x1/0x2"#, Some("f")),
            (r"x\nf+0x1/0x2", Some("f")),
            (r"\u0009f+0x1/0x2", Some("f")),
            (r"\x09f+0x1/0x2", Some("f")),
            ("#011f+0x1/0x2", Some("f")),
            ("^If+0x1/0x2", Some("f")),
            ("&gt;f+0x1/0x2", Some("f")),
            ("calling  1_f+0x0/0x10", Some("f")),
            ("calling  17_f_2+0x0/0x10", Some("f_2")),
            (" .do_exit+0x1/0x2", Some(".do_exit")),
            (" a::b::c+0x1/0x2", Some("a::b::c")),
            (
                " <a::B<C> as d::E>::f+0x1/0x2",
                Some("<a::B<C> as d::E>::f"),
            ),
            (
                "(<a as b>::f::{closure#0}+0x1/0x2)",
                Some("<a as b>::f::{closure#0}"),
            ),
            (
                " a::f::<fn(u8) -> u8>+0x1/0x2",
                Some("a::f::<fn(u8) -> u8>"),
            ),
            ("RIP: 0010:a::f+0x1/0x2", Some("a::f")),
            ("> > > +0x1/0x2", None),
            (" 0xffffffff81000000+0x1/0x2", None),
            (" f+0x1", None),
            (" f+0x/0x2", None),
            (" f+0x1/0x2z", None),
            (" f+0x11112222333344445/0x2", None),
        ];
        for (line, expected) in cases {
            assert_eq!(symbol(line), expected, "{line:?}");
        }
    }

    #[test]
    fn marks_of_modules() {
        let of = |text: &'static str| {
            module(text.as_bytes()).map(|(module, len)| {
                let words = [module.name, module.build_id].map(|word| word.to_str().expect("text"));
                (words, len)
            })
        };
        assert_eq!(of(" [xfs]"), Some((["xfs", ""], 6)));
        assert_eq!(of(" [xfs(OE+)] x"), Some((["xfs", ""], 11)));
        assert_eq!(of(" [xfs 0aff]"), Some((["xfs", "0aff"], 11)));
        assert_eq!(of(" [xfs(OE) 0aff]"), Some((["xfs", "0aff"], 15)));
        assert_eq!(of(" [<ffffffff81000000>]"), None);
        assert_eq!(of(" [00000000a1b2c3d4]"), None);
        assert_eq!(of(" [c0ffee01]"), None);
        assert_eq!(of(" [facade]"), Some((["facade", ""], 9)));
        assert_eq!(of(" [xfs"), None);
        assert_eq!(of(" [xfs says no]"), None);
    }

    #[test]
    fn locations_that_are_there() {
        for text in [
            " (fs/read_write.c:681)",
            " (a.c:~1)",
            " (a.c:12 (discriminator 3))",
        ] {
            assert!(is_located(text.as_bytes()), "{text}");
        }
        for text in [
            " (P)",
            " (target: f+0x0/0x10)",
            " (unreliable)",
            " (a.c:)",
            "",
        ] {
            assert!(!is_located(text.as_bytes()), "{text}");
        }
    }
}
