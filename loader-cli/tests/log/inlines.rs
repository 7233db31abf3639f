//! Lines of inlined functions in a log.

use lineinfo_cli::Error;
use lineinfo_cli::log::{Annotator, Answers, Frame, Kind, Machine, Outcome, Resolve, Style};
use lineinfo_cli::source::{FrameBuf, LocationBuf};

/// Knows every frame; two functions are inlined in those whose name begins with `do_`.
struct Two;

impl Resolve for Two {
    fn resolve(&mut self, frame: &Frame<'_>, _: Kind) -> Result<Outcome, Error> {
        let of = |function: Option<&str>, file: &str, line| FrameBuf {
            function: function.map(Into::into),
            file: file.into(),
            line,
        };
        let frames = vec![
            of(Some("__refcount_add"), "include/linux/refcount.h", 272),
            of(Some("refcount_inc"), "include/linux/refcount.h", 364),
            of(None, "ipc/mqueue.c", 1431),
        ];
        let has_inlined = frame.symbol.starts_with(b"do_");
        Ok(Outcome::Found(LocationBuf {
            file: "include/linux/refcount.h".into(),
            line: 272,
            approximate: false,
            frames: if has_inlined { frames } else { Vec::new() },
        }))
    }
}

fn decode(log: &str, style: Style, inlines: bool) -> String {
    let mut annotator = Annotator::new(style, inlines);
    let (mut machine, mut answers) = (Machine::default(), Answers::new(Two));
    for line in log.split_inclusive('\n') {
        annotator
            .line(line.as_bytes(), &mut machine, &mut answers)
            .expect("it knows every frame");
    }
    annotator.settle();
    String::from_utf8(annotator.ready().to_owned()).expect("text")
}

const LOG: &str = "\
[    1.000000] Call Trace:
[    1.000000]  <TASK>
[    1.000000]  do_mq_notify+0xf8/0x450
[    1.000000]  ? do_mq_notify+0xf8/0x450
[    1.000000]  vfs_write+0xf8/0x450
[    1.000000] RIP: 0010:do_mq_notify+0xf8/0x450
";

#[test]
fn they_come_before_the_line_of_their_frame() {
    let inlined = "\
[    1.000000]  __refcount_add (include/linux/refcount.h:272) [inline]
[    1.000000]  refcount_inc (include/linux/refcount.h:364) [inline]
";
    let decoded = decode(LOG, Style::Plain, true);
    let trace = "[    1.000000]  do_mq_notify+0xf8/0x450 (ipc/mqueue.c:1431)\n";
    let rip = "[    1.000000] RIP: 0010:do_mq_notify+0xf8/0x450 (ipc/mqueue.c:1431)\n";
    assert!(
        decoded.contains(&format!("<TASK>\n{inlined}{trace}")),
        "{decoded}"
    );
    let doubtful = "? do_mq_notify+0xf8/0x450 (include/linux/refcount.h:272)\n";
    assert!(
        decoded.contains(&format!("{trace}[    1.000000]  {doubtful}")),
        "{decoded}"
    );
    assert!(
        decoded.ends_with(&format!(
            "[    1.000000]  vfs_write+0xf8/0x450 (include/linux/refcount.h:272)\n{inlined}{rip}"
        )),
        "{decoded}"
    );
}

#[test]
fn without_them_a_frame_has_the_line_of_the_innermost() {
    let decoded = decode(LOG, Style::Plain, false);
    assert!(!decoded.contains("[inline]"), "{decoded}");
    let frame = "do_mq_notify+0xf8/0x450 (include/linux/refcount.h:272)\n";
    assert_eq!(decoded.matches(frame).count(), 3, "{decoded}");
}

#[test]
fn objects_have_all_functions() {
    let decoded = decode(LOG, Style::Json, true);
    let first: serde_json::Value =
        serde_json::from_str(decoded.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["line"], 272);
    let frames = first["frames"].as_array().expect("an array");
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[0]["function"], "__refcount_add");
    assert_eq!(frames[2]["function"], serde_json::Value::Null);
    assert_eq!(frames[2]["file"], "ipc/mqueue.c");
    assert_eq!(frames[2]["line"], 1431);
}

#[test]
fn a_warning_that_is_decided_later_has_them_too() {
    let log = "\
WARNING: CPU: 0 PID: 1 at ipc/mqueue.c:1431 do_mq_notify+0xf8/0x450
Modules linked in:
RIP: 0010:do_mq_notify+0xf8/0x450
";
    let decoded = decode(log, Style::Plain, true);
    let lines: Vec<&str> = decoded.lines().collect();
    assert_eq!(lines.len(), 7, "{decoded}");
    for at in [0, 4] {
        assert!(lines[at].ends_with("__refcount_add (include/linux/refcount.h:272) [inline]"));
        assert!(lines[at + 1].ends_with("refcount_inc (include/linux/refcount.h:364) [inline]"));
        assert!(lines[at + 2].contains("do_mq_notify+0xf8/0x450"));
    }
    assert_eq!(lines[3], "Modules linked in:");
}
