//! Programs that know file and line of addresses: llvm-symbolizer, eu-addr2line and their like.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use super::{Answer, AnswerFrame};
use crate::error::Error;
use crate::progress::Progress;

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
    /// functions there; nothing where it knows neither.
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
        addresses: &[u64],
        progress: &dyn Progress,
    ) -> Result<Vec<Answer>, Error> {
        let temporary = || tempfile::tempfile().map_err(Error::io(std::env::temp_dir()));
        let (mut questions, mut complaints) = (temporary()?, temporary()?);
        let text: String = addresses
            .iter()
            .map(|address| format!("{address:#x}\n"))
            .collect();
        questions
            .write_all(text.as_bytes())
            .and_then(|()| questions.rewind())
            .map_err(Error::io(std::env::temp_dir()))?;

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
        let mut answers = Vec::with_capacity(addresses.len());
        let mut reader = Frames::default();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(failed())?;
            let line = String::from_utf8_lossy(&line);
            let answer = match (frames, self.dialect) {
                (true, dialect) => reader.line(&line, dialect),
                // An empty line ends an answer of llvm-symbolizer before LLVM 15.
                (false, _) if line.is_empty() => None,
                (false, _) => {
                    let place = parse(&line).into_iter();
                    let frame = |(file, line)| AnswerFrame {
                        function: String::new(),
                        file,
                        line,
                    };
                    Some(place.map(frame).collect())
                }
            };
            if let Some(answer) = answer {
                answers.push(answer);
                progress.advance(1);
            }
        }
        answers.extend(reader.last());
        let status = child.wait().map_err(failed())?;
        if status.success() && answers.len() == addresses.len() {
            return Ok(answers);
        }
        let mut said = String::new();
        complaints
            .rewind()
            .and_then(|()| complaints.read_to_string(&mut said))
            .map_err(failed())?;
        Err(Error::Oracle {
            program: self.path.clone(),
            image_path: image.to_owned(),
            questions: addresses.len(),
            answers: answers.len(),
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

/// Reads answers with all functions, which take several lines.
#[derive(Default)]
struct Frames {
    /// There was an address.
    begun: bool,
    /// The place of the innermost function is not known, and so nothing is.
    unknown: bool,
    /// The function whose file and line come next.
    function: Option<String>,
    answer: Answer,
}

impl Frames {
    /// Takes a line; gives an answer that it ends.
    ///
    /// After the address, which ends no answer but the one before, come a function and its place by
    /// turns. llvm-symbolizer has an empty line after each answer.
    fn line(&mut self, line: &str, dialect: Dialect) -> Option<Answer> {
        match dialect {
            Dialect::Symbolizer if line.is_empty() => {
                self.function = None;
                self.unknown = false;
                return Some(std::mem::take(&mut self.answer));
            }
            Dialect::Addr2line if self.function.is_none() && line.starts_with("0x") => {
                self.unknown = false;
                let last = std::mem::take(&mut self.answer);
                return std::mem::replace(&mut self.begun, true).then_some(last);
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
                Some((file, line)) if !self.unknown => self.answer.push(AnswerFrame {
                    function,
                    file,
                    line,
                }),
                Some(_) => {}
                None => self.unknown |= self.answer.is_empty(),
            },
        }
        None
    }

    /// The answer that the end of everything ends.
    fn last(self) -> Option<Answer> {
        self.begun.then_some(self.answer)
    }
}

/// `file:line`, `file:line:column` or either with ` (discriminator 2)` after it.
fn parse(answer: &str) -> Option<(String, u32)> {
    let answer = answer.split(" (discriminator ").next()?;
    let (before, last) = answer.rsplit_once(':')?;
    let (file, line) = match before.rsplit_once(':') {
        Some((file, line)) if is_number(line) => (file, line),
        _ => (before, last),
    };
    let line: u32 = line.parse().ok()?;
    // Line 0 means that there is no line.
    (file != "??" && line != 0).then(|| (file.to_owned(), line))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_all_programs() {
        let known = Some(("b/fs/./x.c".to_owned(), 12));
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
            let mut answers: Vec<Answer> = text
                .lines()
                .filter_map(|line| frames.line(line, dialect))
                .collect();
            answers.extend(frames.last());
            answers
        };
        let frame = |function: &str, file: &str, line| AnswerFrame {
            function: function.to_owned(),
            file: file.to_owned(),
            line,
        };
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
            .ask(Path::new("x.ko"), None, false, &[1, 2], &())
            .expect_err("no answers");
        assert_eq!(
            error.to_string(),
            "true: answered 0 of 2 addresses of x.ko: it says nothing; run it by hand, or compare without --oracle"
        );
    }
}
