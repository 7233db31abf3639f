//! Programs that know file and line of addresses: llvm-symbolizer, eu-addr2line and their like.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use super::AnswerFrame;
use crate::error::Error;

/// A program that reads addresses from stdin and prints one answer a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    dialect: Dialect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Symbolizer,
    Addr2line,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl FromStr for Program {
    type Err = String;

    /// A name in `PATH` or a path. The file name tells the options that the program takes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = PathBuf::from(text);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let dialect = if name.contains("symbolizer") {
            Dialect::Symbolizer
        } else if name.contains("addr2line") {
            Dialect::Addr2line
        } else {
            return Err("name a program like llvm-symbolizer or eu-addr2line".to_owned());
        };
        Ok(Self { path, dialect })
    }
}

impl Program {
    /// It lays out relocatable files itself, and so takes no addresses in them but offsets in a
    /// section.
    pub(super) fn takes_sections(&self) -> bool {
        self.dialect == Dialect::Addr2line
    }

    /// Asks one process for file and line of addresses of an image, and if `frames` for those of all
    /// functions there, and passes its answers on as they come, in the order of the questions: the
    /// innermost function first, and nothing where it knows neither file nor line.
    ///
    /// With a section the addresses are offsets in it.
    ///
    /// The questions go through a file and not a pipe, and so do its complaints, so that there is
    /// one pipe alone, which is read to its end: nobody can wait for nobody.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Oracle`] if there is not one answer to each question.
    pub fn ask(
        &self,
        image: &Path,
        section: Option<&str>,
        frames: bool,
        addresses: impl ExactSizeIterator<Item = u64>,
        mut answer: impl FnMut(&[AnswerFrame<'_>]),
    ) -> Result<(), Error> {
        let temporary = || tempfile::tempfile().map_err(Error::io(std::env::temp_dir()));
        let (questions, mut complaints) = (temporary()?, temporary()?);
        let asked = addresses.len();
        let write = |mut questions: BufWriter<File>| {
            for address in addresses {
                writeln!(questions, "{address:#x}")?;
            }
            let mut questions = questions.into_inner()?;
            questions.rewind()?;
            io::Result::Ok(questions)
        };
        let questions =
            write(BufWriter::new(questions)).map_err(Error::io(std::env::temp_dir()))?;

        let failed = || Error::io(&self.path);
        let mut child = Command::new(&self.path)
            .args(self.arguments(image, section, frames))
            // Nothing is fetched from the network.
            .env_remove("DEBUGINFOD_URLS")
            .stdin(questions)
            .stdout(Stdio::piped())
            .stderr(complaints.try_clone().map_err(failed())?)
            .spawn()
            .map_err(failed())?;
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let mut stdout = BufReader::with_capacity(PIPE_BYTES, Unhurried(stdout));
        let (mut line, mut answers) = (Vec::new(), 0);
        let mut answer = |frames: &[AnswerFrame<'_>]| {
            answers += 1;
            if answers <= asked {
                answer(frames);
            }
        };
        let mut reader = Frames::default();
        while stdout.read_until(b'\n', &mut line).map_err(failed())? > 0 {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            if frames {
                reader.line(text, self.dialect, &mut answer);
            } else if !text.is_empty() {
                // An empty line ends an answer of llvm-symbolizer before LLVM 15.
                let frame = parse(text).map(|(file, line)| AnswerFrame {
                    function: "",
                    file,
                    line,
                });
                answer(frame.as_slice());
            }
            line.clear();
        }
        reader.end(&mut answer);
        let status = child.wait().map_err(failed())?;
        // With functions eu-addr2line also fails where an address has none, after it has answered.
        let is_done = status.success() || frames && self.dialect == Dialect::Addr2line;
        if is_done && answers == asked {
            return Ok(());
        }
        let mut said = String::new();
        complaints
            .rewind()
            .and_then(|()| complaints.read_to_string(&mut said))
            .map_err(failed())?;
        Err(Error::Oracle {
            program: self.path.clone(),
            image_path: image.to_owned(),
            questions: asked,
            answers,
            said: said.lines().next().unwrap_or_default().to_owned(),
        })
    }

    fn arguments(&self, image: &Path, section: Option<&str>, frames: bool) -> Vec<OsString> {
        let arguments: &[&str] = match (self.dialect, frames) {
            (Dialect::Symbolizer, false) => {
                &["--functions=none", "--no-inlines", "--output-style=GNU"]
            }
            (Dialect::Symbolizer, true) => {
                &["--functions=linkage", "--inlines", "--output-style=LLVM"]
            }
            (Dialect::Addr2line, false) => &[],
            (Dialect::Addr2line, true) => &["-f", "-i", "-a"],
        };
        let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        arguments.extend(["-e".into(), image.into()]);
        if let Some(section) = section {
            arguments.extend(["-j".into(), section.into()]);
        }
        arguments
    }
}

/// Bytes that a pipe holds.
const PIPE_BYTES: usize = 64 << 10;

/// How long answers gather: a program needs longer to fill its pipe.
const GATHER: Duration = Duration::from_millis(1);

/// A pipe into which a program writes each answer by itself. Who reads whenever there is something is
/// woken for each answer, which takes longer than to read it.
struct Unhurried<R>(R);

impl<R: Read> Read for Unhurried<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        thread::sleep(GATHER);
        self.0.read(buffer)
    }
}

/// Reads answers with all functions, which take several lines.
#[derive(Default)]
struct Frames {
    /// There was an address.
    begun: bool,
    /// The place of the innermost function is not known, and so nothing is.
    unknown: bool,
    /// The function whose file and line come next.
    function: Option<String>,
    /// The functions of the answer with their files and lines.
    found: Vec<(String, String, u32)>,
}

impl Frames {
    /// Takes a line; passes on an answer that it ends.
    ///
    /// After the address, which ends no answer but the one before, come a function and its place by
    /// turns. llvm-symbolizer has an empty line after each answer.
    fn line(&mut self, line: &str, dialect: Dialect, answer: impl FnMut(&[AnswerFrame<'_>])) {
        match dialect {
            Dialect::Symbolizer if line.is_empty() => return self.pass_on(answer),
            Dialect::Addr2line if self.function.is_none() && line.starts_with("0x") => {
                if std::mem::replace(&mut self.begun, true) {
                    self.pass_on(answer);
                }
                return;
            }
            Dialect::Symbolizer | Dialect::Addr2line => {}
        }
        match self.function.take() {
            // eu-addr2line says here as well where an inlined function is called.
            None => {
                let name = line.split(" inlined at ").next().unwrap_or(line);
                self.function = Some(name.to_owned());
            }
            Some(function) => match parse(line) {
                Some((file, line)) if !self.unknown => {
                    self.found.push((function, file.to_owned(), line));
                }
                Some(_) => {}
                None => self.unknown |= self.found.is_empty(),
            },
        }
    }

    /// The answer that the end of everything ends.
    fn end(mut self, answer: impl FnMut(&[AnswerFrame<'_>])) {
        if self.begun {
            self.pass_on(answer);
        }
    }

    fn pass_on(&mut self, mut answer: impl FnMut(&[AnswerFrame<'_>])) {
        let found = self.found.iter();
        let frames: Vec<_> = found
            .map(|(function, file, line)| AnswerFrame {
                function,
                file,
                line: *line,
            })
            .collect();
        answer(&frames);
        self.found.clear();
        self.function = None;
        self.unknown = false;
    }
}

/// `file:line`, `file:line:column` or either with ` (discriminator 2)` after it.
fn parse(answer: &str) -> Option<(&str, u32)> {
    let answer = answer.split(" (discriminator ").next()?;
    let (before, last) = answer.rsplit_once(':')?;
    let (file, line) = match before.rsplit_once(':') {
        Some((file, line)) if is_number(line) => (file, line),
        _ => (before, last),
    };
    let line: u32 = line.parse().ok()?;
    // Line 0 means that there is no line.
    (file != "??" && line != 0).then_some((file, line))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_all_programs() {
        let known = Some(("b/fs/./x.c", 12));
        for answer in [
            "b/fs/./x.c:12",
            "b/fs/./x.c:12:3",
            "b/fs/./x.c:12 (discriminator 6)",
        ] {
            assert_eq!(parse(answer), known, "{answer}");
        }
        for answer in [
            "??:0",
            "??:0:0",
            "??:?",
            "b/x.c:0",
            "b/x.c:?",
            "b/x.c:0:7",
            "",
        ] {
            assert_eq!(parse(answer), None, "{answer}");
        }
    }

    #[test]
    fn answers_with_all_functions() {
        let read = |text: &str, dialect| {
            let mut frames = Frames::default();
            let mut answers = Vec::new();
            let mut add = |frames: &[AnswerFrame<'_>]| {
                let frames = frames.iter();
                let owned = frames.map(|frame| {
                    let AnswerFrame {
                        function,
                        file,
                        line,
                    } = frame;
                    (function.to_string(), file.to_string(), *line)
                });
                answers.push(owned.collect::<Vec<_>>());
            };
            for line in text.lines() {
                frames.line(line, dialect, &mut add);
            }
            frames.end(&mut add);
            answers
        };
        let frame = |function: &str, file: &str, line| (function.to_owned(), file.to_owned(), line);
        let known = vec![frame("inner", "b.h", 5), frame("outer", "a.c", 7)];
        let expected = [known, vec![], vec![]];
        let symbolizer = "inner\nb.h:5:1\nouter\na.c:7:3\n\n??\n??:0:0\n\n\
            inner\nb.h:0:0\nouter\na.c:7:3\n\n";
        assert_eq!(read(symbolizer, Dialect::Symbolizer), expected);
        let addr2line = "0x10\ninner inlined at a.c:7 in outer\nb.h:5:1\nouter\na.c:7:3\n\
            0x20\n??\n??:0\n0x30\ninner\nb.h:?\nouter\na.c:7\n";
        assert_eq!(read(addr2line, Dialect::Addr2line), expected);
    }

    #[test]
    fn a_program_is_known_by_its_name() {
        assert!(
            "/opt/llvm/bin/llvm-symbolizer-22"
                .parse::<Program>()
                .is_ok()
        );
        assert!("eu-addr2line".parse::<Program>().is_ok());
        assert!("objdump".parse::<Program>().is_err());
    }

    #[test]
    fn a_program_that_does_not_answer_is_an_error() {
        let program = Program {
            path: "true".into(),
            dialect: Dialect::Addr2line,
        };
        let error = program
            .ask(Path::new("x.ko"), None, false, [1, 2].into_iter(), |_| ())
            .expect_err("no answers");
        assert_eq!(
            error.to_string(),
            "true: answered 0 of 2 addresses of x.ko: it says nothing; run it by hand, or compare without --oracle"
        );
    }
}
