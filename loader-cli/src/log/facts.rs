//! What a log says of the kernel that wrote it.

use std::sync::LazyLock;

use bstr::ByteSlice;
use memchr::memmem::Finder;

use super::sender::Sender;

/// What a boot begins with.
static BANNER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("Linux version "));

/// The end of `Tainted` and `Not tainted`, which every trace has.
static TAINTED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("ainted"));

/// What a panic says of KASLR.
static OFFSET: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("Kernel Offset: "));

/// How far the kernel that writes a log was moved from where it was linked, as a line says it: `Some`
/// of the distance by `Kernel Offset: 0x1a000000 from …` or `disabled`, `Some(None)` where a boot
/// begins, and the distance is not known yet.
pub fn slide_of_line(line: &[u8]) -> Option<Option<u64>> {
    if let Some(at) = OFFSET.find(line) {
        let rest = &line[at + OFFSET.needle().len()..];
        if rest.starts_with(b"disabled") {
            return Some(Some(0));
        }
        let digits = rest.strip_prefix(b"0x")?;
        let len = digits
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let digits = digits[..len].to_str().ok()?;
        return u64::from_str_radix(digits, 16).ok().map(Some);
    }
    BANNER.find(line).map(|_| None)
}

/// The first distance that a text says, before the next boot.
pub fn slide_of_text(log: &[u8]) -> Option<u64> {
    log.lines_with_terminator().find_map(slide_of_line)?
}

/// The kernel that wrote a log, as far as the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Its release, as `uname -r` prints it.
    pub release: Option<String>,
    /// Its build-id in hexadecimal (CONFIG_STACKTRACE_BUILD_ID).
    pub build_id: Option<String>,
}

impl Facts {
    /// What one line says: `Linux version RELEASE …`, `Not tainted RELEASE #1 … BUILDID`, or the release
    /// at the start of a record of netconsole.
    pub fn of_line(line: &[u8]) -> Self {
        let of_release = |word: &[u8]| Self {
            release: release_of(word),
            build_id: None,
        };
        if let Some(at) = BANNER.find(line) {
            return of_release(&line[at + BANNER.needle().len()..]);
        }
        let Some(at) = TAINTED.find(line) else {
            let text = line.trim_ascii_start();
            if let Some(word) = HEADERS.iter().find_map(|header| text.strip_prefix(*header)) {
                return of_release(word);
            }
            let release = Sender::default().with_record(line).release;
            return of_release(release.unwrap_or_default().as_bytes());
        };
        let rest = &line[at + TAINTED.needle().len()..];
        // `Not tainted 6.12.0 #1 …` or `Tainted: G        W  OE  6.12.0 #1 …`; in parentheses once.
        let words = rest.split(|byte| matches!(byte, b' ' | b'(' | b')' | b'\r' | b'\n'));
        let mut words = words.filter(|word| !word.is_empty() && *word != b":");
        let is_flag = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-';
        let is_flags = |word: &&[u8]| word.iter().all(is_flag);
        let release = words.find(|word| !is_flags(word)).and_then(release_of);
        let release = release.or_else(|| release_before_taint(&line[..at]));
        let build_id = words
            .next_back()
            .filter(|word| word.len() == 40 && word.iter().all(u8::is_ascii_hexdigit));
        Self {
            build_id: release
                .as_ref()
                .and(build_id)
                .map(|build_id| build_id.to_str_lossy().into_owned()),
            release,
        }
    }

    /// Takes what is new, and says whether anything was known differently.
    pub fn merge(&mut self, other: &Self) -> bool {
        let mut differs = false;
        for (known, new) in [
            (&mut self.release, &other.release),
            (&mut self.build_id, &other.build_id),
        ] {
            match (&known, new) {
                (Some(known), Some(new)) => differs |= known != new,
                (None, Some(_)) => known.clone_from(new),
                (_, None) => {}
            }
        }
        differs
    }

    /// Takes what a whole text says; the first word of each counts.
    pub fn read(&mut self, log: &[u8]) {
        for line in log.lines_with_terminator() {
            self.merge(&Self::of_line(line));
        }
    }
}

/// What tools write before the release: crash, the notes of a core, perf script.
const HEADERS: [&[u8]; 3] = [b"RELEASE: ", b"OSRELEASE=", b"# os release : "];

/// The release at the start of a text: it begins with a digit and has a period.
fn release_of(text: &[u8]) -> Option<String> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b".+-_~".contains(byte);
    let text = text.trim_ascii_start();
    let len = text.iter().take_while(|byte| is_part(byte)).count();
    let word = &text[..len];
    let is_release = word.first().is_some_and(u8::is_ascii_digit) && word.contains(&b'.');
    is_release.then(|| word.to_str().ok().map(str::to_owned))?
}

/// The release that lockdep writes before the taint: `6.12.0 #1 Not tainted`.
fn release_before_taint(text: &[u8]) -> Option<String> {
    let mut words = text.split(u8::is_ascii_whitespace).rev();
    words.find(|word| word.starts_with(b"#"))?;
    release_of(words.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slides() {
        let cases = [
            (
                "[ 1.0] Kernel Offset: 0x1a000000 from 0xffffffff81000000 (relocation range: x)",
                Some(Some(0x1a00_0000)),
            ),
            ("Kernel Offset: disabled", Some(Some(0))),
            ("[ 0.0] Linux version 6.1.0 (x)", Some(None)),
            ("Kernel Offset: 0x", None),
            ("Kernel Offset: far", None),
            ("anything", None),
        ];
        for (line, expected) in cases {
            assert_eq!(slide_of_line(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn releases_and_build_ids() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let tagged = format!("CPU: 0 PID: 1 Comm: x Not tainted 5.15.0 #1 {id}\n");
        let cases = [
            (
                "[    0.0] Linux version 6.12.117+deb12-cloud-amd64 (x@y) #1",
                Some("6.12.117+deb12-cloud-amd64"),
                None,
            ),
            (
                "CPU: 0 UID: 0 PID: 1 Comm: init Not tainted 6.12.117+deb12-cloud-amd64 #1  Debian",
                Some("6.12.117+deb12-cloud-amd64"),
                None,
            ),
            (
                "CPU: 0 PID: 1 Comm: x Tainted: G        W  OE      6.1.0-56-amd64 #1\r\n",
                Some("6.1.0-56-amd64"),
                None,
            ),
            (
                "CPU: 0 PID: 1 Comm: insmod Tainted: GF          O--------------   3.10.0-54.el7.s390x #1",
                Some("3.10.0-54.el7.s390x"),
                None,
            ),
            (
                "BUG kmalloc-96 (Not tainted): Padding overwritten. 0x43411dd0",
                None,
                None,
            ),
            (
                "REGS: c000000010f92e30 TRAP: 0700 Not tainted  (5.12.0-rc8)",
                Some("5.12.0-rc8"),
                None,
            ),
            (
                "Pid: 1, comm: swapper Not tainted (2.6.18-128.el5 #1)",
                Some("2.6.18-128.el5"),
                None,
            ),
            ("Comm: x Not tainted 0.1.0", Some("0.1.0"), None),
            ("Tainted: [W]=WARN, [O]=OOT_MODULE", None, None),
            (
                "[    1.0] 6.12.0-rc1+ #7 Tainted: G        W         ",
                Some("6.12.0-rc1+"),
                None,
            ),
            ("[    1.0] 6.12.0 #7 Not tainted", Some("6.12.0"), None),
            (
                r#"{"msg":"Comm: x Not tainted 6.12.0+\n"}"#,
                Some("6.12.0+"),
                None,
            ),
            ("    RELEASE: 6.12.0", Some("6.12.0"), None),
            ("# os release : 6.12.0", Some("6.12.0"), None),
            ("OSRELEASE=6.12.0", Some("6.12.0"), None),
            ("6.12.0,4,12,1000000,-;x", Some("6.12.0"), None),
            (
                "10.0.0.5 6.12.0,4,12,1000000,-,caller=T1;x",
                Some("6.12.0"),
                None,
            ),
            ("4,12,1000000,-;x", None, None),
            ("the kernel is tainted", None, None),
            (&tagged, Some("5.15.0"), Some(id)),
        ];
        for (line, release, build_id) in cases {
            let facts = Facts::of_line(line.as_bytes());
            assert_eq!(facts.release.as_deref(), release, "{line}");
            assert_eq!(facts.build_id.as_deref(), build_id, "{line}");
        }
    }
}
