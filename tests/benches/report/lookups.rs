//! Asks everybody the same questions, in turns.

use std::path::Path;
use std::time::{Duration, Instant};

use addr2line::Context as Dwarf;
use anyhow::{Context, Result};
use gimli::{DwarfSections, EndianSlice};

use crate::peers::{self, Answer, Peer, REFERENCE, Symcache};
use crate::subject::{Kind, Question, Subject};

/// Questions in a round.
const QUESTIONS: usize = 20_000;
const ROUNDS: usize = 12;
/// Look-ups that are looked at again for the worst case.
const SLOW: usize = 2000;

/// What was measured.
pub(crate) struct Lookups {
    pub(crate) peers: Vec<Measured>,
    /// What was left out, and why.
    pub(crate) absent: Vec<String>,
}

pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) bytes: Option<u64>,
    pub(crate) rows: Option<u32>,
    pub(crate) load: Option<Duration>,
    pub(crate) check: Option<Duration>,
    pub(crate) points: Figures,
    pub(crate) random: Figures,
    /// The answers that are those of addr2line, of all answers at points and at random bytes.
    pub(crate) agree: f64,
}

/// Times of look-ups, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// The mean of the middle half: steadier than the median, which is a multiple of the clock's step.
    pub(crate) typical: f64,
    pub(crate) p99: u32,
    /// The longest of the slowest, each at its best of ten: that of the machine's noise is over by
    /// then, that of the table is not.
    pub(crate) worst: u32,
}

impl Lookups {
    pub(crate) fn of(&self, name: &str) -> Option<&Measured> {
        self.peers.iter().find(|peer| peer.name == name)
    }

    /// How much longer a peer takes than the reference.
    pub(crate) fn ratio(
        &self,
        figures: impl Fn(&Measured) -> Figures,
        peer: &Measured,
    ) -> Option<f64> {
        let reference = self.of(REFERENCE)?;
        Some(figures(peer).typical / figures(reference).typical)
    }
}

/// The times of one peer and one kind of question.
#[derive(Default)]
struct Times {
    nanoseconds: Vec<u32>,
    slow: Vec<(u32, usize)>,
    asked: Vec<Question>,
}

impl Times {
    fn add(&mut self, questions: &[Question], answers: &[Answer]) {
        for (question, answer) in questions.iter().zip(answers) {
            self.slow.push((answer.nanoseconds, self.asked.len()));
            self.asked.push(*question);
            self.nanoseconds.push(answer.nanoseconds);
        }
    }

    fn figures(mut self, peer: &mut Peer<'_>) -> Result<Figures> {
        self.slow.sort_unstable_by(|one, other| other.cmp(one));
        self.slow.truncate(SLOW);
        let slow: Vec<Question> = self.slow.iter().map(|(_, at)| self.asked[*at]).collect();
        let mut best = vec![u32::MAX; slow.len()];
        for _ in 0..10 {
            for (best, answer) in best.iter_mut().zip((peer.ask)(&slow)?) {
                *best = answer.nanoseconds.min(*best);
            }
        }
        self.nanoseconds.sort_unstable();
        let times = &self.nanoseconds;
        let middle = &times[times.len() / 4..times.len() * 3 / 4];
        let sum: f64 = middle.iter().copied().map(f64::from).sum();
        Ok(Figures {
            typical: sum / middle.len() as f64,
            p99: times[times.len() * 99 / 100],
            worst: best.into_iter().max().unwrap_or(0),
        })
    }
}

pub(crate) fn run(subject: &Subject, directory: &Path) -> Result<Lookups> {
    let mut absent = Vec::new();
    let blobs = peers::blobs(subject)?;
    let elf = subject.file.parse()?;
    let start = Instant::now();
    let sections = DwarfSections::load(|id| elf.debug_section(id))?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, elf.endian()));
    let context = Dwarf::from_dwarf(dwarf)?;
    let load = start.elapsed();
    let mut symcache = match Symcache::build() {
        Ok(program) => Some(Symcache::start(&program, &subject.path, directory)?),
        Err(error) => {
            absent.push(format!(
                "symbolic's symcache: its program was not built: {error}"
            ));
            None
        }
    };

    let mut all = vec![peers::nothing()];
    for (name, blob) in &blobs {
        all.push(peers::table(name, blob, false)?);
        if name.ends_with("balanced") || name == REFERENCE {
            all.push(peers::table(name, blob, true)?);
        }
    }
    let bytes = subject.path.metadata()?.len();
    // Its answers are what the others are compared with.
    let truth = all.len();
    all.push(peers::addr2line(&context, load, bytes));
    all.extend(symcache.as_mut().map(Symcache::peer));
    match peers::gsym(&subject.path, directory)? {
        Some(gsym) => all.push(gsym),
        None => absent.push("GSYM: llvm-gsymutil is not installed".to_owned()),
    }
    let peers = measure(subject, all, truth)?;
    Ok(Lookups { peers, absent })
}

fn measure(subject: &Subject, mut all: Vec<Peer<'_>>, truth: usize) -> Result<Vec<Measured>> {
    const KINDS: [Kind; 2] = [Kind::Points, Kind::Bytes];
    let mut times: Vec<[Times; 2]> = all.iter().map(|_| Default::default()).collect();
    let mut agreed = vec![(0_u64, 0_u64); all.len()];
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..=ROUNDS {
        for (kind_number, kind) in KINDS.into_iter().enumerate() {
            let questions = subject.questions(kind, QUESTIONS, &mut random);
            let mut lines = Vec::new();
            for peer in &mut all {
                lines.push((peer.ask)(&questions).with_context(|| peer.name.clone())?);
            }
            // The first round warms up, addr2line and blazesym above all.
            if round == 0 {
                continue;
            }
            for (number, answers) in lines.iter().enumerate() {
                times[number][kind_number].add(&questions, answers);
                if kind == Kind::Points || all[number].everywhere {
                    let pairs = answers.iter().zip(&lines[truth]);
                    let same = pairs.filter(|(one, other)| one.line == other.line).count();
                    agreed[number].0 += same as u64;
                    agreed[number].1 += questions.len() as u64;
                }
            }
        }
    }
    let mut measured = Vec::new();
    for ((peer, times), (same, of)) in all.iter_mut().zip(times).zip(agreed) {
        let [points, random] = times;
        measured.push(Measured {
            points: points.figures(peer)?,
            random: random.figures(peer)?,
            name: peer.name.clone(),
            bytes: peer.bytes,
            rows: peer.rows,
            load: peer.load,
            check: peer.check,
            agree: same as f64 / of as f64,
        });
    }
    Ok(measured)
}
