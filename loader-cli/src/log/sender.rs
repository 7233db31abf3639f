//! Who sent a line, in a stream that a collector gathers from many machines.
//!
//! | text | of |
//! |---|---|
//! | `Nov 25 12:58:43 web1 kernel: …`, with `<4>` before it or without | syslog (RFC 3164), `journalctl` |
//! | `2026-11-25T12:58:43.5+01:00 web1 kernel: …` | rsyslog |
//! | `<4>1 2026-11-25T12:58:43.5Z web1 kernel - - - …` | syslog (RFC 5424) |
//! | `10.0.0.5 [  12.345678] …`, `10.0.0.5 6.12.0,4,1234,5678901,-,caller=T9;…` | netconsole, with the address that the collector writes before a message |
//! | `4,1234,5678901,-,caller=T9;…` | `/dev/kmsg`, of one machine |

use bstr::ByteSlice;

use super::{caller_of, is_time};

/// Longest name of a machine, in bytes.
const NAME_MAX: usize = 255;

/// How far the head of a message of netconsole is looked for, in bytes.
const HEAD_MAX: usize = 256;

/// Where a line comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender<'a> {
    /// The machine; empty where the line does not say it.
    pub name: &'a [u8],
    /// Bytes of the line before the message of the kernel; 0 where its time stamp ends them.
    pub head: usize,
    /// The release that netconsole writes before a message, if it is told to.
    pub release: Option<&'a str>,
    /// The CPU or thread, where the head says it.
    pub writer: Option<u64>,
}

impl<'a> Sender<'a> {
    /// What a line says.
    pub fn of_line(line: &'a [u8]) -> Self {
        let text = without_priority(line);
        let dated = after_date(text);
        let (name, rest) = dated
            .unwrap_or(text)
            .split_once_str(" ")
            .unwrap_or_default();
        if !is_name(name) {
            return Self::default();
        }
        let sender = Self {
            name,
            ..Self::default()
        };
        if dated.is_some() {
            return sender;
        }
        let is_stamp = || {
            let inner = rest.strip_prefix(b"[")?;
            inner
                .split_once_str("]")
                .filter(|(inner, _)| is_time(inner))
        };
        if is_stamp().is_some() {
            return sender;
        }
        let sender = sender.with_record(text);
        match sender.head {
            0 => Self::default(),
            _ => Self {
                head: sender.head + line.len() - text.len(),
                ..sender
            },
        }
    }

    /// The same, with what the head of a record says, if the line begins with one, or with a machine
    /// and one.
    pub(super) fn with_record(self, line: &'a [u8]) -> Self {
        let after_name = || {
            let at = line.find_byte(b' ')? + 1;
            Some((at, record(&line[at..])?))
        };
        match record(line).map(|head| (0, head)).or_else(after_name) {
            Some((at, head)) => Self {
                head: at + head.len,
                release: head.release,
                writer: head.writer,
                ..self
            },
            None => self,
        }
    }
}

/// The head of a record of `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg), which netconsole writes, too,
/// in its extended format (Documentation/networking/netconsole.rst).
struct Head<'a> {
    len: usize,
    release: Option<&'a str>,
    writer: Option<u64>,
}

fn record(text: &[u8]) -> Option<Head<'_>> {
    if !text.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let len = text[..text.len().min(HEAD_MAX)].find_byte(b';')?;
    let is_number = |field: &[u8]| !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    let mut fields = text[..len].split(|byte| *byte == b',').peekable();
    let release = fields.next_if(|field| !is_number(field) && !field.contains(&b' '));
    // Level, sequence number, microseconds.
    if !fields
        .by_ref()
        .take(3)
        .filter(|field| is_number(field))
        .count()
        .eq(&3)
    {
        return None;
    }
    let caller = fields.find_map(|field| field.strip_prefix(b"caller="));
    Some(Head {
        len: len + 1,
        release: match release {
            Some(release) => Some(release.to_str().ok()?),
            None => None,
        },
        writer: caller.and_then(caller_of),
    })
}

/// A text without `<4>`, and without the version that follows it in RFC 5424.
fn without_priority(line: &[u8]) -> &[u8] {
    let inner = line.strip_prefix(b"<");
    let Some((priority, rest)) = inner.and_then(|inner| inner.split_once_str(">")) else {
        return line;
    };
    match priority.len() <= 3 && priority.iter().all(u8::is_ascii_digit) {
        true => rest.strip_prefix(b"1 ").unwrap_or(rest),
        false => line,
    }
}

/// What follows a date: `Nov 25 12:58:43 `, or that of ISO 8601.
fn after_date(text: &[u8]) -> Option<&[u8]> {
    let is_like = |text: &[u8], pattern: &[u8]| {
        text.len() >= pattern.len()
            && pattern
                .iter()
                .zip(text)
                .all(|(pattern, byte)| match pattern {
                    b'9' => byte.is_ascii_digit(),
                    b'_' => byte.is_ascii_digit() || *byte == b' ',
                    b'a' => byte.is_ascii_alphabetic(),
                    pattern => pattern == byte,
                })
    };
    const SYSLOG: &[u8] = b"aaa _9 99:99:99 ";
    if is_like(text, SYSLOG) {
        return Some(&text[SYSLOG.len()..]);
    }
    let (date, rest) = text.split_once_str(" ")?;
    is_like(date, b"9999-99-99T99:99:99").then_some(rest)
}

/// The name or the address of a machine.
fn is_name(name: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:%[]".contains(byte);
    // What ends with a colon is a program.
    (1..=NAME_MAX).contains(&name.len())
        && name.iter().all(is_part)
        && !name.ends_with(b":")
        && name.first() != Some(&b'[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders() {
        let cases = [
            ("Nov 25 12:58:43 web1 kernel: [ 1.0] f", "web1", 0),
            ("Nov  5 12:58:43 web1 kernel: f", "web1", 0),
            ("<4>Nov 25 12:58:43 web1 kernel: f", "web1", 0),
            (
                "2026-11-25T12:58:43.123456+01:00 web-1.example.org kernel: f",
                "web-1.example.org",
                0,
            ),
            (
                "<4>1 2026-11-25T12:58:43.5Z fe80::1 kernel - - - f",
                "fe80::1",
                0,
            ),
            ("10.0.0.5 [   12.345678] f", "10.0.0.5", 0),
            ("10.0.0.5 4,1234,5678901,-;f", "10.0.0.5", 26),
            (
                "10.0.0.5 6.12.0,4,1234,5678901,-,caller=T9;f",
                "10.0.0.5",
                43,
            ),
            // Without a machine.
            ("[   12.345678] f", "", 0),
            ("Nov 25 12:58:43 kernel: f", "", 0),
            ("[Wed Nov 25 12:58:43 2026] f", "", 0),
            ("CPU: 0 PID: 1", "", 0),
            ("a b,1,2,x;f", "", 0),
            (" f+0x1/0x2", "", 0),
            ("", "", 0),
        ];
        for (line, name, head) in cases {
            let sender = Sender::of_line(line.as_bytes());
            assert_eq!(
                (sender.name.as_bstr(), sender.head),
                (name.into(), head),
                "{line}"
            );
        }
        let sender = Sender::of_line(b"10.0.0.5 6.12.0,4,1234,5678901,-,caller=T9;f");
        assert_eq!(sender.release, Some("6.12.0"));
        assert_eq!(sender.writer, caller_of(b"T9"));
        assert_ne!(sender.writer, None);
    }
}
