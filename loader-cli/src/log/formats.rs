//! What kernels write around a frame, and what it says of the frame's address.
//!
//! [`FORMATS`] is the one place that knows architectures: a new header, mark or exception entry is a
//! row there. The rows of each kind are compiled into one lazy DFA, so a frame costs one pass over
//! the text before it whatever their number.

use regex_automata::hybrid::BuildError;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

/// One row: what is written where, and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// What the text is, as a regular expression over bytes.
    text: Text,
    /// What it says of the frame.
    pub(super) means: Means,
}

/// Where a text is, seen from the frame.
#[derive(Clone, Copy, Debug)]
enum Text {
    /// Before the symbol; an address, a segment and opening brackets may lie between
    /// ([`BETWEEN`]). `^` is the start of the line, after its time stamp.
    Before(&'static str),
    /// Directly after the size, and the location goes after it.
    Mark(&'static str),
    /// Directly after the size; the location goes before it.
    After(&'static str),
    /// It is the symbol of the frame, and speaks of the next frame of the trace.
    Symbol(&'static str),
}

/// What a text says of a frame's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// The instruction itself, or the start of a function.
    Exact,
    /// The instruction itself; the trace that follows may begin with the same frame, which is no
    /// return address then.
    Pc,
    /// A pointer to a function, the first of a list with one on each line.
    List,
    /// A return address that a called function took (`_RET_IP_`); offset 0 is a function pointer.
    Return,
    /// A return address in a register, which the trace need not repeat.
    Link,
    /// A word on the stack that may be a return address.
    Unreliable,
    /// The frame of a `WARN`: a trap if the same frame follows as [`Means::Pc`], a return address if
    /// it follows in a trace.
    Warning,
    /// No code.
    Data,
    /// The frame that the line before ended with.
    Repeated,
    /// A frame of a trace that is an instruction which was interrupted.
    Interrupted,
    /// The next frame is an instruction that was interrupted.
    Interrupts,
    /// The same, if it is on the next line: a trace that shows registers has it there, and no frame.
    InterruptsNext,
    /// A word that is not known: a frame of a trace, or a pointer to a function if its offset is 0.
    Named,
    /// No text that is known: a frame of a trace.
    Trace,
}

const fn before(text: &'static str, means: Means) -> Format {
    let text = Text::Before(text);
    Format { text, means }
}

const fn mark(text: &'static str, means: Means) -> Format {
    let text = Text::Mark(text);
    Format { text, means }
}

const fn after(text: &'static str, means: Means) -> Format {
    let text = Text::After(text);
    Format { text, means }
}

const fn symbol(text: &'static str, means: Means) -> Format {
    let text = Text::Symbol(text);
    Format { text, means }
}

/// All formats; of two rows that fit, the first counts.
#[rustfmt::skip]
const FORMATS: &[Format] = &[
    // No code (lockdep.c, spinlock_debug.c, kasan/report.c).
    before(r"\bkey\s+at",                                     Means::Data),
    before(r"\block",                                         Means::Data),
    before(r"belongs to the variable",                        Means::Data),

    // A stack object's function, by its start (kasan/report.c).
    before(r"\bat offset \d+ in frame",                       Means::Exact),

    // WARN: kernel/panic.c, the form of 6.19 last.
    before(r"WARNING: (?:CPU: \d+ PID: \d+ )?at(?:[\s>|]+\S+:\d+)?", Means::Warning),
    before(r"WARNING: \S+:\d+ at",                            Means::Warning),
    mark(r"\(\)",                                             Means::Return),

    // x86: dumpstack.c, mm/extable.c (rIP), mce/core.c, nmi_backtrace.c.
    before(r"\b[RE]IP(?: !INEXACT!)?",                        Means::Exact),
    before(r"\b[RE]?IP(?: is at|:)",                          Means::Exact),
    before(r"\brIP",                                          Means::Exact),
    before(r"\bidling at",                                    Means::Exact),
    before(r"\bIP was at",                                    Means::Exact), // mmio-mod.c
    before(r"\?",                                             Means::Unreliable),

    // The program counter of the others, alone or `is at` it.
    before(r"\bCaller\[[0-9a-f]+\]",                          Means::Exact), // sparc
    before(r"\b(?:RPC|I7|O7)",                                Means::Exact), // sparc: %i7 is the call
    before(r"^[\s\xc2\xa0>|]*\[[0-9a-f]{8,16}\]\s*\[[0-9a-f]{8,16}\]", Means::Trace), // powerpc
    before(r"^[\s\xc2\xa0>|]*\[[0-9a-f]{8,16}\]",                     Means::Exact), // sparc64
    before(r"^[\s\xc2\xa0>|]*\[[0-9a-f]{8} ",                         Means::Exact), // sparc32
    before(r"\bTN?PC",                                        Means::Pc),    // sparc
    before(r"\b(?i:e?pc)(?: is at)?|\bip is at",              Means::Pc),    // arm, arm64, riscv, mips, sh, alpha, m68k, csky; ia64
    before(r"\b(?i:era)",                                     Means::Pc),    // loongarch
    before(r"\bNIP",                                          Means::Pc),    // powerpc
    before(r"\bIAOQ\[\d\]",                                   Means::Pc),    // parisc
    before(r"\[ERET\s*\]",                                    Means::Pc),    // arc
    before(r"\bKrnl PSW",                                     Means::Pc),    // s390
    before(r"\bBreaking-Event-Address",                       Means::Exact), // s390
    before(r"\bLOCKUP @",                                     Means::Pc),    // powerpc
    before(r"--- (?:interrupt|Exception): .*\bat",            Means::Pc),    // powerpc
    before(r"\bCFI failure at",                               Means::Pc),

    // The register of the return address.
    before(r"\b(?i:lr|ra|pr)(?: is at)?",                     Means::Link),  // arm, arm64, riscv, mips, loongarch, powerpc, sh, alpha
    before(r"\bRP\(r2\)",                                     Means::Link),  // parisc
    before(r"\[BLINK\s*\]|\bBLK",                             Means::Link),  // arc

    // arm64 since 6.13 says what a frame is: the program counter, or where it was found.
    mark(r" \(PF?K?\)",                                       Means::Exact),
    mark(r" \([CTU]?F?K?\)",                                  Means::Link),
    mark(r" \(unreliable\)",                                  Means::Unreliable), // powerpc

    // arm: `g from f+…` and `(g+…) from [<…>] (f+…)`.
    before(r"\b__(?:irq|fiq|dabt|pabt|und)_(?:svc|invalid)\)? from", Means::Interrupted),
    after(r"\)? from\b",                                      Means::Repeated),

    // Exception entries, which the interrupted instruction follows.
    symbol(r"__(?:irq|fiq|dabt|pabt|und)_(?:svc|invalid)",    Means::Interrupts), // arm
    symbol(r"el1_(?:irq|fiq|sync|error|da|ia|dbg|undef|sp_pc|inv)", Means::Interrupts), // arm64
    symbol(r"el1[ht]_64_(?:irq|fiq|sync|error)",              Means::Interrupts), // arm64
    symbol(r"asm_(?:exc|sysvec)_\w+|asm_(?:common|spurious)_interrupt", Means::InterruptsNext), // x86, in saved stacks
    symbol(r"handle_exception|ret_from_exception",            Means::Interrupts), // riscv, mips
    symbol(r"ret_from_irq",                                   Means::Interrupts), // mips
    symbol(r"(?:pgm_check|io_int|ext_int|mcck_int|restart_int)_handler", Means::Interrupts), // s390

    // KASAN with tags in hardware has the instruction, KFENCE has it where an access faulted.
    before(r"BUG: KASAN: invalid-access in",                  Means::Pc),
    before(r"BUG: KASAN: .* in",                              Means::Return),
    before(r"BUG: KFENCE: (?:out-of-bounds|use-after-free|invalid) (?:read|write|access) in", Means::Pc),
    before(r"BUG: KFENCE: .* in",                             Means::Return),
    before(r"BUG: KMSAN: .* in",                              Means::Return),

    // lockdep: `lock_map_acquire` and its like take `_THIS_IP_`, locks `_RET_IP_`.
    before(r"\((?:rcu_(?:read_lock\w*|callback)|jbd2_handle|\S*srcu\w*|tomoyo_ss|\([^()]*\)(?:\.work)?|\((?:work|wq)_completion\)\S*)\)\{\S*\}\S*, at", Means::Exact),
    // Code that is patched or traps: jump_label.c, static_call.c, kprobes.c, alternative.c, bug.c, ftrace.c.
    before(r"\b(?:patch \w+|static[ _]call|unexpected op|opcode 0x[0-9a-f]+|kprobe-ftrace|thunk|retpoline|ENDBR|[Kk]ernel BUG|mapping)(?: site)? at(?: address(?: \S+/)?)?", Means::Exact),
    before(r"\bthunk:|\bENDBR:|\bfeat:.* old:",               Means::Exact),
    before(r"\bFPU state detected at",                        Means::Exact), // mm/extable.c
    before(r"\bat",                                           Means::Return),
    before(r"\bat \(\d+\)",                                   Means::Return), // hardirqs last enabled

    // Pointers to functions.
    before(r"\b(?:initcall|calling|hint|target|threaded)",    Means::Exact),
    before(r"\bStopper:|->",                                  Means::Exact),
    after(r" (?:took|exceeded|returned|returns|callback)\b",   Means::Exact),
    before(r"\bWorkqueue: \S+",                               Means::Exact),
    before(r"\bhandlers",                                     Means::List),

    // `_RET_IP_`, and what saves it.
    before(r"\bcaller is|\bcalled from|\ballocated at|\bcorrupted in|\bmemblock_\w+: .*", Means::Return),
    before(r"\bcall_site=",                                   Means::Return), // kmem events
    // kprobe and kretprobe events: `p: (f+…)`, `r: (f+… <- g)`.
    before(r"\d\.\d+: \w+: \(", Means::Exact),
    after(r" <- ", Means::Return),
    after(r" <-", Means::Exact), // the function tracer
    // What a trace has before a frame: what says that it is one, and what tools put before each line.
    before(r"\b(?:[Cc]all )?[Tt]race:|\bBacktrace:|\bfrom",   Means::Trace),
    before(r"^(?:\S*\d\d:\d\d:\d\d\S*|kern\s*:\w+\s*:)",    Means::Trace),
    // Words and lists, which it has not.
    before(r"\b\w*[g-zG-Z_]\w*\b[^?]*|,|<-",                  Means::Named),
];

/// What may lie between a text and the symbol: separators, a segment, addresses, brackets.
const BETWEEN: &str = concat!(
    r"[\s\xc2\xa0:=>|]*",
    r"(?:[0-9a-fA-F]{2,4}:)?",
    r"(?:[\[<{(]*(?:0x)?(?:[0-9a-fA-F]{8,16}|_*ptrval_*)[\])}>]*[\s\xc2\xa0:>|]*)*",
    r#"[\s\xc2\xa0<>|("'{\[]*"#
);

/// How far back of a frame its text is read, in bytes.
pub(super) const BEFORE_MAX: usize = 256;

/// How far after a frame its marks are read, in bytes.
const AFTER_MAX: usize = 32;

/// The compiled table.
#[derive(Debug)]
pub(super) struct Formats {
    before: Matcher,
    after: Matcher,
    symbol: Matcher,
}

/// What was found after a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    /// What it says.
    pub(super) means: Means,
    /// Its length in bytes if the location goes after it, else 0.
    pub(super) len: usize,
}

impl Formats {
    pub(super) fn new() -> Self {
        let compiled: Result<_, Box<BuildError>> = (|| {
            Ok(Self {
                before: Matcher::new(|text| match text {
                    Text::Before(text) => {
                        let any = if text.starts_with('^') { "" } else { "(?s:.*)" };
                        Some(format!("{any}(?:{text}){BETWEEN}$"))
                    }
                    Text::Mark(_) | Text::After(_) | Text::Symbol(_) => None,
                })?,
                after: Matcher::new(|text| match text {
                    Text::Mark(text) | Text::After(text) => Some(text.to_owned()),
                    Text::Before(_) | Text::Symbol(_) => None,
                })?,
                symbol: Matcher::new(|text| match text {
                    Text::Symbol(text) => Some(format!("(?:{text})$")),
                    Text::Before(_) | Text::Mark(_) | Text::After(_) => None,
                })?,
            })
        })();
        compiled.expect("the table is a constant, and a test compiles it")
    }

    /// What the text before a frame says; it may be in two pieces, and at most [`BEFORE_MAX`] bytes
    /// of each are read.
    pub(super) fn before(&mut self, pieces: [&[u8]; 2]) -> Means {
        self.before
            .whole(pieces.map(last))
            .map_or(Means::Trace, |format| format.means)
    }

    /// What the text directly after a frame says.
    pub(super) fn behind(&mut self, text: &[u8]) -> Option<Behind> {
        let (format, len) = self.after.start(&text[..text.len().min(AFTER_MAX)])?;
        Some(Behind {
            means: format.means,
            len: match format.text {
                Text::Mark(_) => len,
                Text::Before(_) | Text::After(_) | Text::Symbol(_) => 0,
            },
        })
    }

    /// What a symbol says of the next frame, if it is the entry of an exception.
    pub(super) fn entry(&mut self, name: &[u8]) -> Option<Means> {
        // Most symbols differ in their first bytes, where the DFA is dead.
        let format = self.symbol.whole([name, b""])?;
        Some(format.means)
    }
}

/// The last [`BEFORE_MAX`] bytes.
fn last(text: &[u8]) -> &[u8] {
    &text[text.len().saturating_sub(BEFORE_MAX)..]
}

/// Some rows of the table, as one lazy DFA.
#[derive(Debug)]
struct Matcher {
    dfa: DFA,
    cache: Cache,
    rows: Vec<Format>,
    /// Rows that fitted once.
    #[cfg(test)]
    used: Vec<bool>,
}

impl Matcher {
    fn new(pattern: impl Fn(Text) -> Option<String>) -> Result<Self, Box<BuildError>> {
        let mut patterns = Vec::new();
        let mut rows = Vec::new();
        for format in FORMATS {
            if let Some(pattern) = pattern(format.text) {
                patterns.push(pattern);
                rows.push(*format);
            }
        }
        let dfa = DFA::builder()
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(thompson::Config::new().utf8(false))
            .build_many(&patterns)?;
        let cache = dfa.create_cache();
        Ok(Self {
            dfa,
            cache,
            #[cfg(test)]
            used: vec![false; rows.len()],
            rows,
        })
    }

    /// The first row that fits the whole of a text, which is in two pieces.
    fn whole(&mut self, pieces: [&[u8]; 2]) -> Option<Format> {
        let (dfa, cache) = (&self.dfa, &mut self.cache);
        // A lazy DFA without limits on clearing its cache does not give up.
        let input = Input::new(pieces[0]).anchored(Anchored::Yes);
        let mut state = dfa.start_state_forward(cache, &input).ok()?;
        for byte in pieces.into_iter().flatten() {
            state = dfa.next_state(cache, state, *byte).ok()?;
            if state.is_dead() {
                return None;
            }
        }
        state = dfa.next_eoi_state(cache, state).ok()?;
        let row = state
            .is_match()
            .then(|| dfa.match_pattern(cache, state, 0).as_usize())?;
        Some(self.row(row))
    }

    fn row(&mut self, row: usize) -> Format {
        #[cfg(test)]
        {
            self.used[row] = true;
        }
        self.rows[row]
    }

    /// The row that fits the start of a text, and how much of it.
    fn start(&mut self, text: &[u8]) -> Option<(Format, usize)> {
        let input = Input::new(text).anchored(Anchored::Yes);
        let found = self.dfa.try_search_fwd(&mut self.cache, &input).ok()??;
        Some((self.row(found.pattern().as_usize()), found.offset()))
    }
}

#[cfg(test)]
impl Formats {
    /// The rows that never fitted.
    pub(super) fn unused(&self) -> Vec<Format> {
        [&self.before, &self.after, &self.symbol]
            .into_iter()
            .flat_map(|matcher| matcher.rows.iter().zip(&matcher.used))
            .filter_map(|(row, used)| (!used).then_some(*row))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the table says of the text before a frame.
    fn before(text: &str) -> Means {
        Formats::new().before([b"", text.as_bytes()])
    }

    #[test]
    fn the_first_row_that_fits_counts() {
        let cases = [
            ("RIP: 0010:", Means::Exact),
            (
                "RIP: 0010:[<ffffffff81000000>]  [<ffffffff81000000>] ",
                Means::Exact,
            ),
            ("RIP !INEXACT! 10:<ffffffff81000000> {", Means::Exact),
            ("EIP is at ", Means::Exact),
            (
                "(tried to write 0x0) at rIP: 0xffffffff81000000 (",
                Means::Exact,
            ),
            ("IP: [<ffffffff81000000>] ", Means::Exact),
            ("TCP/IP ", Means::Named),
            ("SKIP: ", Means::Named),
            ("pc : ", Means::Pc),
            ("lr : ", Means::Link),
            ("epc : ", Means::Pc),
            (" ra : ", Means::Link),
            ("epc   : ffffffff80100000 ", Means::Pc),
            ("Krnl PSW : 0704c00180000000 0000000000123456 (", Means::Pc),
            (
                "Last Breaking-Event-Address: [<0000000000123456>] ",
                Means::Exact,
            ),
            (" [<ffffffff81000000>] ? ", Means::Unreliable),
            (" ? [<ffffffff81000000>] ", Means::Unreliable),
            (" [<ffffffff81000000>] ", Means::Trace),
            (" [000000000045fa00] ", Means::Exact),
            ("[c000000000000000] [c000000000000001] ", Means::Trace),
            ("--- interrupt: 700 at ", Means::Pc),
            ("(rcu_read_lock){....}-{1:2}, at: ", Means::Exact),
            ("(&mm->mmap_lock){++++}-{3:3}, at: ", Means::Return),
            ("((work_completion)(&work)){+.+.}-{0:0}, at: ", Means::Exact),
            ("((&x->timer)){+.-.}-{0:0}, at: ", Means::Exact),
            ("(&x->srcu){.+.+}-{0:0}, at: ", Means::Exact),
            ("(&(&x->srcu)->lock){....}, at: ", Means::Return),
            ("... key      at: [<ffffffff81000000>] ", Means::Data),
            ("__irq_svc from ", Means::Interrupted),
            ("(__irq_svc) from [<c0101234>] (", Means::Interrupted),
            ("show_stack from ", Means::Trace),
            ("Call Trace: [<c0101234>] ", Means::Trace),
            (" [<00000000abcdef12>] ", Means::Trace),
            ("[<ffffffffabcdef12>] ", Means::Trace),
            ("  0)     4064      48   ", Means::Trace),
            (" #0: ", Means::Trace),
            ("timer: ", Means::Named),
            ("unexpected op at ", Means::Exact),
            ("detected at ", Means::Return),
        ];
        for (text, means) in cases {
            assert_eq!(before(text), means, "{text:?}");
        }
    }
}
