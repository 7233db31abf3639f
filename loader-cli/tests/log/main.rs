//! The log reader, by logs in the formats of the architectures.
//!
//! Each file of `corpus` is a log in which `@@` and a letter say what is right for the frame before
//! it: `@@x` the instruction itself, `@@r` the byte before a return address, `@@s` the start of a
//! function with the mark `~`, `@@n` nothing. A synthetic kernel, with the functions and the modules of
//! all the logs, has a line of its own for each byte of each function, so an answer tells which byte was
//! looked up.

mod addresses;
mod bytes;
mod fleet;
mod inlines;
mod kernels;
mod search;
mod servers;
mod store;
mod synthetic;

use std::collections::BTreeSet;
use std::path::Path;

use synthetic::{Function, Synthetic, decode};

/// A log and what must come out.
struct Case {
    name: String,
    log: Vec<u8>,
    expected: Vec<u8>,
}

/// A frame before a mark, and the letter of the mark.
struct Marked {
    function: Function,
    offset: u64,
    letter: u8,
}

/// The logs, with their marks.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/log/corpus");
    let entries = std::fs::read_dir(directory).expect("the corpus");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut logs: Vec<_> = paths
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy();
            (name.into_owned(), std::fs::read(&path).expect("a log"))
        })
        .collect();
    logs.sort();
    logs
}

/// The texts between marks, each with the mark behind it.
fn pieces(log: &[u8]) -> Vec<(&[u8], Option<Marked>)> {
    let mut pieces = Vec::new();
    let mut rest = log;
    while let Some(at) = rest.windows(2).position(|window| window == b"@@") {
        let (text, mark) = rest.split_at(at);
        pieces.push((text, Some(marked(text, mark[2]))));
        rest = &mark[3..];
    }
    pieces.push((rest, None));
    pieces
}

/// The frame at the end of a text.
fn marked(text: &[u8], letter: u8) -> Marked {
    let text = String::from_utf8_lossy(text);
    let (before, numbers) = text.rsplit_once("+0x").expect("a frame before a mark");
    let (offset, rest) = numbers.split_once("/0x").expect("a size");
    let size_len = rest.find(|c: char| !c.is_ascii_hexdigit());
    let (size, mark) = rest.split_at(size_len.unwrap_or(rest.len()));
    let number = |digits| u64::from_str_radix(digits, 16).expect("a number");
    let name = match before.rfind(" <") {
        // A path of Rust with a space in it.
        Some(at) if before.ends_with("::drop") => &before[at + 1..],
        _ => {
            let is_word = |c: char| c.is_ascii_alphanumeric() || "_.$:{}#".contains(c);
            let start = before.rfind(|c| !is_word(c)).map_or(0, |at| {
                at + before[at..].chars().next().map_or(1, char::len_utf8)
            });
            let name = before[start..].trim_start_matches('{');
            // What is left of a colour or of an escaped byte.
            let before = &before[..start];
            let escape_len = match before.chars().last() {
                Some('[') if name.starts_with(|c: char| c.is_ascii_digit()) => name.find('m'),
                Some('\\') if name.starts_with('x') => Some(2),
                Some('\\' | '^') => Some(0),
                _ => None,
            };
            let name = name.strip_prefix("#011").unwrap_or(name);
            let name = escape_len.map_or(name, |len| &name[len + 1..]);
            // The cookie of an async call.
            let name = match name.split_once('_') {
                Some((cookie, name)) if cookie.parse::<u64>().is_ok() => name,
                _ => name,
            };
            // A segment.
            let is_segment = |word: &str| word.len() == 4 && u16::from_str_radix(word, 16).is_ok();
            match name.split_once(':') {
                Some((segment, name)) if is_segment(segment) => name,
                _ => name,
            }
        }
    };
    let module = mark.split_once(" [").map(|(_, module)| {
        let end = module.find([']', '(', ' ']).expect("the end of a module");
        module[..end].to_owned()
    });
    Marked {
        function: Function {
            name: name.to_owned(),
            size: number(size),
            module,
        },
        offset: number(offset),
        letter,
    }
}

fn cases(kernel: &Synthetic) -> Vec<Case> {
    let corpus = corpus();
    let case = |(name, log): &(String, Vec<u8>)| {
        let mut case = Case {
            name: name.clone(),
            log: Vec::new(),
            expected: Vec::new(),
        };
        for (text, marked) in pieces(log) {
            case.log.extend(text);
            case.expected.extend(text);
            let Some(marked) = marked else {
                continue;
            };
            let (byte, mark) = match marked.letter {
                b'x' => (marked.offset, ""),
                b'r' => (marked.offset - 1, ""),
                b's' => (marked.offset, "~"),
                b'n' => continue,
                letter => panic!("{name}: @@{}", char::from(letter)),
            };
            let location = kernel.location(&marked.function, byte, mark);
            case.expected.extend(format!(" ({location})").bytes());
        }
        case
    };
    corpus.iter().map(case).collect()
}

fn functions() -> BTreeSet<Function> {
    let mut functions = BTreeSet::new();
    for (_, log) in corpus() {
        functions.extend(
            pieces(&log)
                .into_iter()
                .filter_map(|(_, marked)| Some(marked?.function)),
        );
    }
    // Data, and what is in no table.
    functions.retain(|function| {
        !["__key.5", "rcu_state_lock", "some_global", "no_such_module"]
            .contains(&function.name.as_str())
    });
    functions
}

#[test]
fn every_frame_of_every_format_is_looked_up_at_its_byte() {
    let kernel = Synthetic::new(functions());
    let cases = cases(&kernel);
    assert!(cases.len() >= 40, "{} logs", cases.len());
    assert_right(&cases, &kernel.arguments());
}

#[test]
fn tables_with_symbols_need_nothing_else() {
    let kernel = Synthetic::new(functions());
    assert_right(&cases(&kernel), &kernel.arguments_alone());
}

fn assert_right(cases: &[Case], arguments: &[String]) {
    let mut wrong = String::new();
    for case in cases {
        let output = decode(arguments, &case.log);
        for (line, (log, (found, expected))) in case
            .log
            .split(|byte| *byte == b'\n')
            .zip(
                output
                    .stdout
                    .split(|byte| *byte == b'\n')
                    .zip(case.expected.split(|byte| *byte == b'\n')),
            )
            .enumerate()
        {
            if found != expected {
                let [log, found, expected] = [log, found, expected].map(String::from_utf8_lossy);
                wrong += &format!(
                    "{}:{}\n  {log}\n  {found}\n  {expected}\n",
                    case.name,
                    line + 1
                );
            }
        }
        if wrong.is_empty() && output.stdout != case.expected {
            wrong += &format!(
                "{}: {}\n",
                case.name,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_architecture_has_a_log() {
    let architectures = [
        "x86",
        "i386",
        "arm64",
        "arm-",
        "riscv",
        "powerpc",
        "s390",
        "mips",
        "loongarch",
        "sparc",
        "parisc",
        "sh-",
        "alpha",
        "m68k",
        "csky",
    ];
    let names: Vec<String> = corpus().into_iter().map(|(name, _)| name).collect();
    for architecture in architectures {
        let has = names.iter().any(|name| name.starts_with(architecture));
        assert!(has, "{architecture}");
    }
}
