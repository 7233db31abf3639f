//! The kernel command line as Linux splits it (`lib/cmdline.c`, `kernel/params.c`).

/// One parameter: `name`, `name=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameter<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The text after `=`, without the quotes around it.
    pub(crate) value: Option<&'a str>,
    /// All of it, as it was written, without the quotes around it.
    pub(crate) text: &'a str,
}

/// The first parameter of a command line, and the rest; `None` if there is none.
///
/// White space separates parameters except between quotes; quotes around a whole parameter or a
/// whole value are taken off, others stay (`next_arg`).
pub(crate) fn next_arg(line: &str) -> Option<(Parameter<'_>, &str)> {
    let line = line.trim_start();
    if line.is_empty() {
        return None;
    }
    let mut in_quote = false;
    let end = line.find(|character: char| {
        in_quote ^= character == '"';
        character.is_ascii_whitespace() && !in_quote
    });
    let (text, rest) = line.split_at(end.unwrap_or(line.len()));
    let text = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').unwrap_or(quoted),
        None => text,
    };
    // A parameter has a name: `=` at its start is a part of that.
    let equals = text.find('=').filter(|at| *at > 0);
    let parameter = match equals {
        None => Parameter {
            name: text,
            value: None,
            text,
        },
        Some(at) => {
            let value = &text[at + 1..];
            Parameter {
                name: &text[..at],
                value: Some(match value.strip_prefix('"') {
                    Some(quoted) => quoted.strip_suffix('"').unwrap_or(quoted),
                    None => value,
                }),
                text,
            }
        }
    };
    Some((parameter, rest))
}

/// Two names are one if they differ only in `-` and `_` (`parameq`).
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    let underscore = |byte: u8| if byte == b'-' { b'_' } else { byte };
    a.bytes().map(underscore).eq(b.bytes().map(underscore))
}

/// A size in bytes: decimal, `0x…` or octal `0…`, then K, M, G, T, P or E (`memparse`).
///
/// Where Linux would ignore what follows the number, this is `None`.
pub(crate) fn memparse(text: &str) -> Option<u64> {
    let shift = match text.bytes().last()?.to_ascii_uppercase() {
        // Hexadecimal has an E of its own.
        b'E' if radix(text).0 == 16 => 0,
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        b'P' => 50,
        b'E' => 60,
        _ => 0,
    };
    let digits = if shift == 0 {
        text
    } else {
        &text[..text.len() - 1]
    };
    let number = unsigned(digits)?;
    number.checked_mul(1 << shift)
}

/// A whole number with a sign, in the same three bases (`kstrtol` with base 0).
pub(crate) fn integer(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(digits) => 0_i64.checked_sub_unsigned(unsigned(digits)?),
        None => i64::try_from(unsigned(text.strip_prefix('+').unwrap_or(text))?).ok(),
    }
}

fn unsigned(text: &str) -> Option<u64> {
    let (radix, digits) = radix(text);
    // The library would accept a sign, which was parsed already.
    let all = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    all.then(|| u64::from_str_radix(digits, radix).ok())?
}

fn radix(text: &str) -> (u32, &str) {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if text.len() > 1 && text.starts_with('0') => (8, &text[1..]),
        None => (10, text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Split<'a> = (&'a str, Option<&'a str>);

    fn split(line: &str) -> Vec<Split<'_>> {
        let mut all = Vec::new();
        let mut rest = line;
        while let Some((parameter, after)) = next_arg(rest) {
            all.push((parameter.name, parameter.value));
            rest = after;
        }
        all
    }

    #[test]
    fn a_line_is_split_as_linux_splits_it() {
        let cases: &[(&str, &[Split<'_>])] = &[
            ("", &[]),
            ("  quiet\tro ", &[("quiet", None), ("ro", None)]),
            ("a=b c=", &[("a", Some("b")), ("c", Some(""))]),
            ("a=b=c", &[("a", Some("b=c"))]),
            ("=a", &[("=a", None)]),
            ("a=\"b c\" d", &[("a", Some("b c")), ("d", None)]),
            ("\"a=b c\" d", &[("a", Some("b c")), ("d", None)]),
            ("a=b\"c d\"e", &[("a", Some("b\"c d\"e"))]),
            ("a=\"b c", &[("a", Some("b c"))]),
            ("\"", &[("", None)]),
            ("-- a=b", &[("--", None), ("a", Some("b"))]),
        ];
        for (line, expected) in cases {
            assert_eq!(split(line), *expected, "{line:?}");
        }
    }

    #[test]
    fn dashes_and_underscores_are_equal_in_names() {
        assert!(same_name("a-b_c", "a_b-c"));
        assert!(!same_name("a-b", "ab"));
        assert!(!same_name("a", "A"));
    }

    #[test]
    fn sizes() {
        let cases = [
            ("64M", Some(64 << 20)),
            ("64m", Some(64 << 20)),
            ("0x10", Some(16)),
            ("0x1k", Some(1024)),
            ("0x1e", Some(0x1e)),
            ("1e", Some(1 << 60)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("16E", None),
            ("", None),
            ("M", None),
            ("0x", None),
            ("-1", None),
            ("+1", None),
            ("08", None),
            ("64MB", None),
            ("18446744073709551616", None),
            ("ä", None),
        ];
        for (text, expected) in cases {
            assert_eq!(memparse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn integers() {
        let cases = [
            ("-1", Some(-1)),
            ("+7", Some(7)),
            ("0x10", Some(16)),
            ("-", None),
            ("--1", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
        ];
        for (text, expected) in cases {
            assert_eq!(integer(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_split_to_its_end(line in "[a=\" \\-é]{0,40}") {
            let mut rest = line.as_str();
            while let Some((_, after)) = next_arg(rest) {
                prop_assert!(after.len() < rest.len());
                rest = after;
            }
            memparse(&line);
            integer(&line);
        }
    }
}
