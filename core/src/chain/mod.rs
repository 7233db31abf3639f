//! The chain of inlined functions at an address: optional sections beside the rows.
//!
//! A trace shows the functions that were called, and the line of each is often in a function that the
//! compiler inlined into it. A *chain* names these: innermost first, each with its name, the file and
//! the line where it was, and at the end the physical function with its own file and line. The functions
//! are found by the lines: where a row says `include/linux/refcount.h:272`, the innermost function is
//! nearly always the last one of that file that begins at line 272 or before, and where it is called from
//! is one of few places. So a row takes a few bits.
//!
//! Only tables in the packed encoding have these sections, for their streams have an op for each entry
//! of its blocks; and only if something is inlined. A reader that does not know the sections goes on without them; a
//! look-up of a line alone never reads them.
//!
//! What follows is the specification. All integers are little-endian and unaligned. Streams are the
//! *backward streams* of [the packed encoding](crate::encoding::packed#streams), and its *fold* writes
//! 0, -1, 1, -2, 2 as 0, 1, 2, 3, 4.
//!
//! # Numbers
//!
//! A number is written by a canonical Huffman code of at most 12 bits for one of 128 symbols, and raw
//! bits. Numbers below 48 are their own symbols. For others be `w` the number plus 16, and `p` the
//! binary logarithm of `w`, rounded down: the symbol is `48 + 4 (p - 6)` plus the two bits of `w` below its
//! highest one, and the `p - 2` bits below these follow. The symbols 125 to 127 have a meaning of their
//! own in each kind.
//!
//! A code is 12 bytes, the number of symbols that have 1, 2, ... 12 bits, and then the symbols by length
//! and by value. A code of one symbol has twelve zeros there, and takes no bit.
//!
//! Which code a number has depends on its kind and a context. A section of the form 1 has so many contexts:
//!
//! | kind | contexts | what it is |
//! |---|---|---|
//! | OP | 576 | how the chain changes |
//! | RUN | 1 | so many default ops follow |
//! | EXC | 6 | an op that is not the default |
//! | OPT | 250 | an entry of a list of callers |
//! | SITE | 9 | which of the calls in one caller |
//! | LN | 24 | the line of the outermost call |
//! | OC | 1 | number of entries of a list |
//! | SPOS | 16 | position of STOP (0-7) and ESC (8-15) in a list |
//! | PD | 4 | caller of an edge |
//! | LD | 4 | a line: 0 from a declaration, 1 from the edge before, 2 of a call, 3 a line itself |
//! | EDGE | 3 | 0 the line of an edge, 1 a file, 2 a function: each by its fold from what is expected |
//! | SIZE | 8 | the ops of a chunk in bits, and 1 more |
//!
//! A section of the form 0, for a module, has one context for each kind, and no default ops.
//!
//! # Functions
//!
//! A function is a name and a file; it has the smallest line at which it is declared or calls another one
//! of its chain. Functions ascend by file, line and name. So those in headers come first, whose files
//! do ([the model](crate::encoding::packed#the-model-section)). The section of functions is:
//!
//! | bytes | contents |
//! |---|---|
//! | 2 | `u16` number of functions |
//! | 2 | `u16` how many of them are in headers |
//! | 1 | the form, 0 or 1 |
//! | 1 | number of codes |
//! | 12 or 902 | for every context, in the order of the kinds above, the code that it has |
//! | 0 or 576 | for every context of OP the default, an op, or 255 |
//! | 2 per code, 2 | `u16` where each code begins, and where the last one ends |
//! | | the codes |
//! | 11 per 16 functions | the groups: `u24` line and `u16` file of the first function; `u24` where its data end; `u8` bytes of its declarations; `u16` which of its functions have a list, the first by the lowest bit |
//! | | the data of the groups, one after the other |
//!
//! The data of a group are read from their end down: first its declarations, and then the
//! sizes of the lists in bits, `u8` each, ascending, and then one stream of the lists of callers in the order of the
//! functions. For a size of 255 the list begins with its size as 20 raw bits, these included.
//!
//! The declarations are in ascending bytes. Each but that of the first function is so many lines after the one
//! before; or 255, so many files and one more, and the line. Such a number is a byte below 192; or a byte
//! of 192 to 239, of which 192 is taken off, and one more byte; or 240 to 253, less 240, and two more; or 254
//! and three more: the highest first.
//!
//! A *list* of a function has for entries *edges* (a caller and a line of it, from where the function is
//! called), STOP and ESC, by falling frequency; a function without a list has STOP alone. It is OC: 1 is ESC
//! alone; 2 is one edge; otherwise the number of entries plus 1, at most 1023 entries, SPOS/min(n, 7)
//! the position of STOP plus 1 or 0, SPOS/8 + min(n, 7) the same of ESC; and then the edges. An edge is
//! PD in context (1 if it is not the first) + 2 (if the function is in a header): 126 the caller of the edge before
//! and LD/1 the fold of the difference of the lines; or else the caller, 127 and an index among the functions in
//! headers, 125 and one among all, otherwise the fold of the difference to the function; and LD/0 the
//! lines from the caller's declaration on. An index among `n` has as many bits as `n - 1` needs.
//!
//! *pred* of a file and a line is the last function of the file that is declared at that line or before.
//!
//! # Names
//!
//! A name is made of *tokens*: a token is a byte or two other tokens, nested less than 16 deep, and a byte of zero
//! ends a name. The section of function names is:
//!
//! | bytes | contents |
//! |---|---|
//! | 2 | `u16` number of tokens, at most 4095; or 0, and what follows is built into every reader up to the groups |
//! | 30 | `u16` how many tokens have canonical codes of 1, 2, ... 15 bits; they come first, in the order of their codes |
//! | 1, 1 | sizes of the codes of prefixes and of underscores |
//! | | these codes |
//! | 3 per token | in the lower 12 bits the first token and in the upper 12 the second; for a byte, 4095 and the byte |
//! | 3 per 16 names | `u24` where the stream of the group ends, in bytes from the first stream |
//! | | the streams of the groups |
//!
//! A stream has for each name a number, the length of its prefix (at most 59 bytes) in the name before, or, 60 more, in
//! the one before that in the group; a number of underscores that it begins with (at most 3), which are
//! neither in prefixes nor among the tokens; and the codes of the tokens of the rest.
//!
//! # Chains
//!
//! The section of chains has for each region `u32` where its table ends, in bytes from the end of these,
//! and then the tables. A table of no bytes says that all chains of the region are empty. Otherwise:
//!
//! | bytes | contents |
//! |---|---|
//! | 1 | bits of a size, at most 24 |
//! | 4 per 32 blocks | `u32` where the stream of the first of them begins, in bytes from the first |
//! | | for each block the bytes of its stream: fields of a forward stream |
//! | | the streams, one after the other |
//!
//! The entries of a [block](crate::encoding::packed#a-block) are read in *chunks* of 12, and a look-up passes over
//! the ops of all but the last one. The stream of a block has for each chunk a number, and then its ops. It is SIZE in the
//! context of the number of the chunk, at most 7: how many bits the ops take, and 1 more; 0 if the chunk has no
//! ops, for all its chains are empty; 126 if the ops are all that is left of the stream. The chunks after that, and
//! all of a block whose stream has no byte, have no ops either.
//!
//! Otherwise a decoder has a chain, the outermost function first, each with the line of its call; `of` and
//! `ol`, a file and a line to expect; and `pe`. At the start of a chunk
//! the chain is empty, `pe` is true, and `of` and `ol` are the last location of the block before that is not
//! in a header, or what the page says to expect; in form 1 it reads a
//! *run*, RUN (126: the rest of the chunk). An entry that is a gap leaves all that as it is. For the others:
//!
//! 1. `a` is pred of the location. `pc` is 0, 1 or 2 if `a` is the innermost function, the next one, or
//!    further out; 3 if it is not there, 4 if the chain is empty, 5 if there is no `a`. The context is
//!    `((12 pc + kind) 4 + min(depth, 3)) 2`, and 1 more if the location is not in a header. *kind* is by the
//!    token: 0 the first of the block, 1 rank 0 and the same line, 2 back, 3 one or two on, 4 more; 5 rank 1
//!    and the same line, 6 another; 7 rank 2; 8 ranks 3 to 7; 9 far; 10 a file and a line; 11 a hot pair.
//! 2. If the context has a default and the run is not 0, the op is the default and the run becomes one less.
//!    If it has a default and the run is 0, the op is EXC/pc, and a new run follows. Otherwise it is OP.
//! 3. The op is `3 pops + push`. So many of the innermost levels are left, 15: all; `m` remain. If push is 0,
//!    that is all. Otherwise the innermost function is `a` (1), or that function whose index is the fold
//!    EDGE/2 from `a`, or from 0 without an `a` (2). From there outwards: an entry of the list of the function, OPT if
//!    there is more than one, in context `(10 s + min(n, 9)) 5 + e`, `s` and `e` the positions of STOP and ESC,
//!    at most 3, or 4 if they are absent. An edge gives the line of this call, and the caller. ESC: the line is `ol`
//!    less the fold EDGE/0, and the caller pred of `of` and it; or for 126 both are raw, an index among all
//!    functions and 24 bits. STOP: this is the outermost that is new. If a level `g` remains, the line of its call
//!    is, of the first 8 among the first 16 edges of its list that have the caller `g`, the one that SITE/w counts, `w`
//!    of them there; for 126 or `w` = 0 it is the line of `g` and the fold LD/2. If none remains, it is `ol` and the fold
//!    LN/(2 kind + pe), or for 126 `of` moves by the fold EDGE/1 and the line is LD/3.
//! 4. If the chain is empty, `of` and `ol` are the location, and `pe` is true. Otherwise `ol` is the line of the
//!    outermost call, and `pe` is false.
//!
//! What a chain says: the innermost function is at the location of the row; each other one is at the line of the call
//! of the next inner one, in its own file; the physical function is at `of` and the line of the outermost call.
//!
//! # Limits
//!
//! A chain has at most 16 levels; from a deeper one the writer leaves out levels in the middle. There are at most
//! 65,535 functions, and lines below 2^24. The steps of a look-up with its chain are at most
//! [`Table::CHAIN_STEPS`](crate::Table::CHAIN_STEPS): where a stream needs more, which no writer makes, there is no chain.
//! With its text it takes at most 1 KiB of stack on x86-64, as that of a line alone does.

mod codes;
mod functions;
pub(crate) mod names;
#[cfg(all(test, feature = "write"))]
mod tests;
#[cfg(feature = "write")]
pub(crate) mod write;

use core::fmt;
use core::ops::Range;

use self::codes::{Kind, SPECIAL_126};
pub(crate) use self::functions::Place;
use self::functions::{Functions, LINE_MAX, List, Near, unfold, width};
use self::names::{NameBytes, Names};
use crate::buffer::StrBuffer;
use crate::encoding::packed::bits::{Bits, field, low};
use crate::encoding::packed::{self, Chunk, Entry, Visitor};
use crate::encoding::{Fault, RegionTable};
use crate::files::{Characters, FileName, NAME_STEPS_MAX};
use crate::location::Location;
use crate::steps::step;
use crate::{index, wide};

/// Most levels of a chain.
pub(crate) const LEVELS_MAX: usize = 16;

/// Most steps that ops and what they read take for one chain: a number and an edge are one, a list is found
/// among those of a group. Chains of a kernel take 2,000.
const WORK_MAX: u32 = 8192;

/// Most steps of a chain: the chunk is found by the sizes of [`ANCHOR`] blocks and of its chunks; then
/// its ops; and the levels are placed in their groups at last.
pub(crate) const STEPS_MAX: usize = index(ANCHOR)
    .saturating_add(packed::CHUNKS_MAX)
    .saturating_add(index(WORK_MAX).saturating_mul(2))
    .saturating_add(LEVELS_MAX.saturating_mul(index(functions::GROUP)));

/// Most steps that it takes to print a frame: the name of a function, and that of a file.
pub(crate) const FRAME_STEPS_MAX: usize = names::STEPS_MAX.saturating_add(NAME_STEPS_MAX);

/// Calls in a level that is there already are looked for among so many edges of a list,
const SITE_EDGES: u32 = 16;
/// and so many of them count.
const SITES: usize = 8;

/// Functions near locations that are remembered.
const NEARS: u8 = 3;

/// What the search of a function by a location takes: one of 4,096 groups, and one of a group.
const NEAR_STEPS: u32 = 12 + functions::GROUP;

/// Blocks whose sizes follow one position.
const ANCHOR: u32 = 32;

/// Most bits of the size of a block.
const SIZE_BITS_MAX: u32 = 24;

/// The name of a function.
///
/// It is stored in pieces and put together while it is printed or compared; nothing is allocated.
#[derive(Clone, Copy)]
pub struct FunctionName<'a> {
    section: &'a [u8],
    functions: u32,
    function: u32,
}

impl<'a> FunctionName<'a> {
    /// Appends the name, and stops where the buffer is full.
    #[inline(never)]
    pub fn push_to(&self, text: &mut StrBuffer<'_>) {
        let Some(names) = Names::new(self.section, self.functions) else {
            return;
        };
        // In its place, and by reference: two of them would be much on a short stack.
        let mut bytes = NameBytes::new(&names);
        bytes.go_to(self.function);
        for character in Characters(&mut bytes) {
            text.push_str(character.printable().as_str());
            if text.is_truncated() {
                return;
            }
        }
    }

    /// Lets `then` read the bytes of the name.
    fn with_bytes<R>(&self, then: impl FnOnce(&mut NameBytes<'_, 'a>) -> R) -> R {
        let names = Names::new(self.section, self.functions).unwrap_or(Names::EMPTY);
        let mut bytes = NameBytes::new(&names);
        bytes.go_to(self.function);
        then(&mut bytes)
    }
}

impl fmt::Display for FunctionName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A character that must not be in a log is a question mark.
        self.with_bytes(|bytes| {
            Characters(bytes).try_for_each(|character| f.write_str(character.printable().as_str()))
        })
    }
}

impl fmt::Debug for FunctionName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FunctionName({self})")
    }
}

impl PartialEq for FunctionName<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.with_bytes(|one| other.with_bytes(|other| one.eq(other)))
    }
}

impl Eq for FunctionName<'_> {}

impl PartialEq<str> for FunctionName<'_> {
    fn eq(&self, other: &str) -> bool {
        self.with_bytes(|bytes| bytes.eq(other.bytes()))
    }
}

/// A function at an address, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The inlined function; `None` is the physical function, whose name is that of the symbol.
    pub function: Option<FunctionName<'a>>,
    /// Where in the function.
    pub location: Location<'a>,
}

impl Frame<'_> {
    /// Appends ` refcount_inc (include/linux/refcount.h:364) [inline]`, or for the physical function
    /// what [`Location::push_to`] does, without `core::fmt`.
    pub fn push_to(&self, text: &mut StrBuffer<'_>) {
        let function = self.function.as_ref();
        let function = function.map(|name| |text: &mut StrBuffer<'_>| name.push_to(text));
        push_frame(text, function, |text| self.location.push_to(text));
    }
}

/// Appends the text of a frame by what appends its function and its location, of which only one is on the stack of
/// an interrupt.
#[inline(always)]
fn push_frame<'t>(
    text: &mut StrBuffer<'t>,
    function: Option<impl FnOnce(&mut StrBuffer<'t>)>,
    location: impl FnOnce(&mut StrBuffer<'t>),
) {
    let is_inlined = function.is_some();
    if let Some(push_name) = function {
        text.push_str(" ");
        push_name(text);
    }
    location(text);
    if is_inlined {
        text.push_str(" [inline]");
    }
}

/// The functions at an address, an iterator of [`Frame`]s: the inlined ones, innermost first, and then
/// the physical function, which is always there.
#[derive(Clone, Debug)]
pub struct Chain<'a> {
    sections: Sections<'a>,
    levels: Levels,
    ends: Ends,
    /// The level of the next frame.
    next: usize,
}

impl<'a> Chain<'a> {
    /// Reads the chain of the last entry of a chunk of a region.
    pub(crate) fn read(sections: Sections<'a>, region: usize, chunk: &Chunk) -> Option<Self> {
        let ops = sections.ops(region, chunk)?;
        let functions = Functions::new(sections.functions)?;
        let mut levels = Levels::EMPTY;
        let ends = levels.read(&functions, sections.chains, ops, chunk)?;
        Some(Self {
            sections,
            levels,
            ends,
            next: 0,
        })
    }

    /// How many inlined functions there are.
    pub fn inlined(&self) -> usize {
        self.levels.depth()
    }
}

impl<'a> Iterator for Chain<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let functions = Functions::new(self.sections.functions)?;
        let frame = (self.levels).frame(&functions, &self.ends, Wanted::Level(self.next))?;
        self.next = self.next.wrapping_add(1);
        self.sections.frame(frame)
    }
}

/// Which frame of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The innermost has 0, and the physical function a number as well.
    Level(usize),
    /// That of an inlined function.
    Inlined(usize),
    Physical,
}

/// A frame in numbers, which are few for the stack of an interrupt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawFrame {
    /// `None` for the physical function.
    function: Option<u32>,
    place: Place,
}

impl RawFrame {
    /// Appends the text of the frame, by what appends the name of a function and a location.
    #[inline(always)] // A frame less on a short stack.
    pub(crate) fn push_to<'t>(
        &self,
        text: &mut StrBuffer<'t>,
        push_name: impl FnOnce(&mut StrBuffer<'t>, u32),
        push_place: impl FnOnce(&mut StrBuffer<'t>, Place),
    ) {
        let function = self.function;
        let function =
            function.map(|number| move |text: &mut StrBuffer<'t>| push_name(text, number));
        push_frame(text, function, |text| push_place(text, self.place));
    }

    /// Reads one frame of the chain of the last entry of a chunk, given the ops of that.
    #[inline(always)] // A frame less on a short stack.
    pub(crate) fn read(
        sections: &Sections<'_>,
        ops: Ops,
        chunk: &Chunk,
        wanted: Wanted,
    ) -> Option<Self> {
        let functions = Functions::new(sections.functions)?;
        let mut levels = Levels::EMPTY;
        let ends = levels.read(&functions, sections.chains, ops, chunk)?;
        levels.frame(&functions, &ends, wanted)
    }
}

/// A chain, outermost function first.
#[derive(Clone, Copy, Debug)]
struct Levels {
    functions: [u16; LEVELS_MAX],
    /// The lines of the calls, which are below 2^24, and so are sums of them modulo that.
    lines: [[u8; 3]; LEVELS_MAX],
    /// Bit `n`: line `n` counts from the declaration of the function around it. It takes time to find that,
    /// and only the lines of the last chain are asked for.
    from_declaration: u16,
    depth: u8,
}

/// What is around a chain.
#[derive(Clone, Copy, Debug)]
struct Ends {
    /// The location of the innermost function.
    innermost: Place,
    /// The file of the physical function.
    physical_file: u32,
}

impl Levels {
    const EMPTY: Self = Self {
        functions: [0; LEVELS_MAX],
        lines: [[0; 3]; LEVELS_MAX],
        from_declaration: 0,
        depth: 0,
    };

    /// Reads the chain of the last entry of a chunk.
    #[inline(always)] // A frame less on a short stack.
    fn read(
        &mut self,
        functions: &Functions<'_>,
        chains: &[u8],
        ops: Ops,
        chunk: &Chunk,
    ) -> Option<Ends> {
        let mut cursor = Cursor::new(functions, self);
        cursor.chunk(chains, ops, chunk)?;
        let outermost = cursor.expected.file;
        let Entry { file, line, .. } = chunk.entries().next_back()?;
        Some(Ends {
            innermost: Place { file, line },
            physical_file: if self.depth == 0 { file } else { outermost },
        })
    }

    fn depth(&self) -> usize {
        self.depth.into()
    }

    fn set_depth(&mut self, depth: usize) -> Option<()> {
        self.depth = u8::try_from(depth).ok()?;
        Some(())
    }

    fn function(&self, level: usize) -> Option<u32> {
        self.functions.get(level).map(|function| (*function).into())
    }

    fn set(&mut self, level: usize, function: u32, line: Line) -> Option<()> {
        *self.functions.get_mut(level)? = u16::try_from(function).ok()?;
        let bit = 1_u16.wrapping_shl(u32::try_from(level).ok()?);
        let (number, bits) = match line {
            Line::At(line) => (line, 0),
            Line::FromDeclaration(lines) => (lines, bit),
        };
        let [low, middle, high, _] = number.to_le_bytes();
        *self.lines.get_mut(level)? = [low, middle, high];
        self.from_declaration = self.from_declaration & !bit | bits;
        Some(())
    }

    fn line(&self, level: usize) -> Option<Line> {
        let [low, middle, high] = *self.lines.get(level)?;
        let line = u32::from_le_bytes([low, middle, high, 0]);
        let bit = 1_u16.wrapping_shl(u32::try_from(level).ok()?);
        Some(match self.from_declaration & bit {
            0 => Line::At(line),
            _ => Line::FromDeclaration(line),
        })
    }

    /// A frame of the chain, if there is one of that level.
    #[inline(always)] // As above.
    fn frame(&self, functions: &Functions<'_>, ends: &Ends, wanted: Wanted) -> Option<RawFrame> {
        let depth = self.depth();
        let outer = match wanted {
            Wanted::Level(level) => depth.checked_sub(level)?,
            Wanted::Inlined(level) => depth.checked_sub(level).filter(|outer| *outer > 0)?,
            Wanted::Physical => 0,
        };
        let function = match outer.checked_sub(1) {
            Some(inlined) => Some(self.function(inlined)?),
            None => None,
        };
        if outer == depth {
            let place = ends.innermost;
            return Some(RawFrame { function, place });
        }
        // It is where it calls the next inner one.
        let declared = match function {
            Some(function) => functions.place(function)?,
            None => Place {
                file: ends.physical_file,
                line: 0,
            },
        };
        let line = match self.line(outer)? {
            Line::At(line) => line,
            Line::FromDeclaration(lines) => lines.wrapping_add(declared.line) & LINE_MAX,
        };
        let file = declared.file;
        let place = Place { file, line };
        Some(RawFrame { function, place })
    }
}

/// The line of a call.
#[derive(Clone, Copy, Debug)]
enum Line {
    At(u32),
    /// So many lines from the declaration of the function around it.
    FromDeclaration(u32),
}

/// The sections of a blob that a chain is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sections<'a> {
    pub(crate) functions: &'a [u8],
    pub(crate) function_names: &'a [u8],
    pub(crate) chains: &'a [u8],
    pub(crate) file_names: &'a [u8],
    pub(crate) files: u32,
    pub(crate) regions: usize,
}

impl<'a> Sections<'a> {
    /// Number of functions.
    pub(crate) fn functions(&self) -> Option<u32> {
        functions::count(self.functions)
    }

    /// Where the table of a region is in the section of chains: `None` if there is none, for then the section is not
    /// sound.
    #[inline(always)] // So that a look-up needs no `Sections` in memory.
    pub(crate) fn region(&self, region: usize) -> Option<Range<usize>> {
        let tables = self.regions.checked_mul(size_of::<u32>())?;
        let (ends, _) = self.chains.get(..tables)?.as_chunks();
        let end = |region: usize| {
            let end = ends.get(region).map(|end| index(u32::from_le_bytes(*end)));
            end?.checked_add(tables)
        };
        let begin = match region.checked_sub(1) {
            Some(before) => end(before)?,
            None => tables,
        };
        let range = begin..end(region)?;
        (range.start <= range.end && range.end <= self.chains.len()).then_some(range)
    }

    /// The ops of a chunk of a region. They are found before the chain is read, so that nothing of that is on the
    /// stack yet.
    #[inline(always)] // As above.
    pub(crate) fn ops(&self, region: usize, chunk: &Chunk) -> Option<Ops> {
        let functions = Functions::new(self.functions)?;
        Ops::find(&functions, self.chains, self.region(region)?, chunk)
    }

    /// The name of a function.
    #[inline(always)] // As above.
    pub(crate) fn name(&self, function: u32) -> Option<FunctionName<'a>> {
        let functions = self.functions()?;
        (function < functions).then_some(FunctionName {
            section: self.function_names,
            functions,
            function,
        })
    }

    /// Appends the name of a function.
    #[inline(always)] // As above.
    pub(crate) fn push_name(&self, text: &mut StrBuffer<'_>, function: u32) {
        if let Some(name) = self.name(function) {
            name.push_to(text);
        }
    }

    /// Appends a location.
    #[inline(always)] // As above.
    pub(crate) fn push_place(&self, text: &mut StrBuffer<'_>, place: Place) {
        if let Some(location) = self.location(place) {
            location.push_to(text);
        }
    }

    #[inline(always)] // As above.
    fn location(&self, place: Place) -> Option<Location<'a>> {
        Some(Location {
            file: FileName::new(self.file_names, self.files, place.file)?,
            line: place.line,
            approximate: false,
        })
    }

    /// What the numbers of a frame stand for.
    fn frame(&self, frame: RawFrame) -> Option<Frame<'a>> {
        let function = match frame.function {
            Some(function) => Some(self.name(function)?),
            None => None,
        };
        let location = self.location(frame.place)?;
        Some(Frame { function, location })
    }

    /// The light check: everything but lists and streams.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let fault = |expected| Fault {
            at: 0,
            expected,
            found: wide(self.chains.len()),
        };
        let functions = self.view()?;
        functions.check(self.files)?;
        let names = Names::new(self.function_names, functions.count)
            .ok_or_else(|| fault("the names of all functions"))?;
        names.check()?;
        let mut bytes = self.regions.saturating_mul(size_of::<u32>());
        for region in 0..self.regions {
            step();
            let table = self
                .region(region)
                .ok_or_else(|| fault("a table of chains for every region"))?;
            bytes = bytes.saturating_add(table.len());
        }
        if bytes != self.chains.len() {
            return Err(fault("tables up to the end of the section"));
        }
        Ok(())
    }

    /// The full check of the functions and their names.
    pub(crate) fn check_functions(&self) -> Result<(), Fault> {
        let functions = self.view()?;
        if let Some(names) = Names::new(self.function_names, functions.count) {
            names.check_all()?;
        }
        functions.check_all(self.files)
    }

    fn view(&self) -> Result<Functions<'a>, Fault> {
        Functions::new(self.functions).ok_or(Fault {
            at: 0,
            expected: "functions and their codes",
            found: wide(self.functions.len()),
        })
    }

    /// The full check of the chains of a region: decodes them all.
    pub(crate) fn check_chains(&self, region: usize, rows: &RegionTable<'_>) -> Result<(), Fault> {
        let functions = self.view()?;
        let mut levels = Levels::EMPTY;
        let mut checker = Checker {
            cursor: Cursor::new(&functions, &mut levels),
            chains: self.chains,
            table: self.region(region).unwrap_or(0..0),
        };
        packed::visit(rows, &mut checker)
    }
}

/// Where the ops of a chunk are in the section of chains: from below bit `begin` down to bit `end`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ops {
    begin: u32,
    end: u32,
}

impl Ops {
    /// Of a chunk whose chains are all empty. Others may take no bit either.
    const NONE: Self = Self { begin: 0, end: 1 };

    const fn are_there(self) -> bool {
        self.end <= self.begin
    }

    /// Whether a reader is not beyond them.
    #[inline]
    fn hold(self, bits: &Bits<'_, true>) -> bool {
        let taken = index(self.begin).wrapping_sub(bits.position());
        taken <= index(self.begin.wrapping_sub(self.end))
    }

    /// Finds those of a chunk, given where the table of the region is in the section of chains.
    #[inline(always)] // A frame less on a short stack.
    fn find(
        functions: &Functions<'_>,
        chains: &[u8],
        table: Range<usize>,
        chunk: &Chunk,
    ) -> Option<Self> {
        let (block, blocks) = (chunk.block().number, chunk.block().count);
        let tables_end = table.end;
        let Some((size_bits, rest)) = chains.get(table)?.split_first() else {
            return Some(Self::NONE);
        };
        let size_bits = u32::from(*size_bits);
        if size_bits > SIZE_BITS_MAX || block >= blocks {
            return None;
        }
        let anchors = index(blocks.div_ceil(ANCHOR)).checked_mul(size_of::<u32>())?;
        let (anchors, rest) = rest.split_at_checked(anchors)?;
        let bits = u64::from(blocks).wrapping_mul(size_bits.into());
        let (sizes, streams) = rest.split_at_checked(usize::try_from(bits.div_ceil(8)).ok()?)?;
        let (anchors, _) = anchors.as_chunks();
        let first = block.wrapping_div(ANCHOR);
        let mut end = index(u32::from_le_bytes(*anchors.get(index(first))?));
        let mut size = 0;
        for block in first.wrapping_mul(ANCHOR)..block.wrapping_add(1) {
            step();
            let at = u64::from(block).wrapping_mul(size_bits.into());
            size = index(low(field(sizes, at, size_bits)?));
            end = end.checked_add(size)?;
        }
        if size == 0 {
            return Some(Self::NONE);
        }
        if end > streams.len() {
            return None;
        }
        let end = end.checked_add(tables_end.wrapping_sub(streams.len()))?;
        let bit = |byte: usize| u32::try_from(byte).ok()?.checked_mul(8);
        let mut ops = Self {
            begin: bit(end)?,
            end: bit(end.checked_sub(size)?)?,
        };
        let chunk = chunk.number;
        for number in 0..chunk.wrapping_add(1) {
            step();
            let mut bits = Bits::below(chains, index(ops.begin));
            let context = index(number).min(codes::SIZE_CONTEXTS.wrapping_sub(1));
            let size = functions.number(Kind::Size, context, &mut bits)?;
            if !ops.hold(&bits) {
                return None;
            }
            let begin = u32::try_from(bits.position()).ok()?;
            if size == SPECIAL_126 {
                let is_last = number == chunk;
                return Some(if is_last {
                    Self { begin, ..ops }
                } else {
                    Self::NONE
                });
            }
            let end = begin.checked_sub(size.saturating_sub(1));
            let end = end.filter(|end| *end >= ops.end)?;
            if number == chunk {
                return Some(if size > 0 {
                    Self { begin, end }
                } else {
                    Self::NONE
                });
            }
            ops.begin = end;
        }
        None
    }
}

/// Follows the chain through the entries of a chunk.
struct Cursor<'m, 'a> {
    functions: &'m Functions<'a>,
    bits: Bits<'a, true>,
    ops: Ops,
    levels: &'m mut Levels,
    /// `of` and `ol` of the specification.
    expected: Place,
    /// The chain before was empty.
    was_empty: bool,
    run: u32,
    work: u32,
    /// What [`Functions::near`] said last, and which of it will be replaced next.
    near: [Near; 3],
    oldest: u8,
}

impl<'m, 'a> Cursor<'m, 'a> {
    #[inline(always)] // It is made where it stays.
    const fn new(functions: &'m Functions<'a>, levels: &'m mut Levels) -> Self {
        Self {
            functions,
            bits: Bits::new(&[], 0),
            ops: Ops::NONE,
            levels,
            expected: Place { file: 0, line: 0 },
            was_empty: true,
            run: 0,
            work: 0,
            near: [Near::NOWHERE; 3],
            oldest: 0,
        }
    }

    #[inline(always)] // As above.
    fn number(&mut self, kind: Kind, context: usize) -> Option<u32> {
        self.spend(1)?;
        self.functions.number(kind, context, &mut self.bits)
    }

    /// Counts steps; `None` where there were too many.
    fn spend(&mut self, steps: u32) -> Option<()> {
        step();
        self.work = self.work.wrapping_add(steps);
        (self.work <= WORK_MAX).then_some(())
    }

    /// The function that a location suggests. Locations come back to few functions.
    #[inline(always)] // A frame less on a short stack.
    fn before(&mut self, place: Place) -> Option<u32> {
        if let Some(near) = self.near.iter().find(|near| near.holds(place)) {
            return near.function();
        }
        self.spend(NEAR_STEPS)?;
        let near = self.functions.near(place)?;
        if let Some(slot) = self.near.get_mut(usize::from(self.oldest)) {
            *slot = near;
        }
        self.oldest = self.oldest.wrapping_add(1).wrapping_rem(NEARS);
        near.function()
    }

    /// The op of an entry, in its context.
    fn op(&mut self, context: usize, position: usize) -> Option<u32> {
        let Some(default) = self.functions.default_op(context) else {
            return self.number(Kind::Op, context);
        };
        if let Some(run) = self.run.checked_sub(1) {
            self.run = if self.run == u32::MAX { self.run } else { run };
            return Some(default);
        }
        let op = self.number(Kind::Exception, position)?;
        self.read_run()?;
        Some(op)
    }

    fn read_run(&mut self) -> Option<()> {
        self.run = match self.number(Kind::Run, 0)? {
            SPECIAL_126 => u32::MAX,
            run => run,
        };
        Some(())
    }

    /// Pushes levels onto the `kept` outermost ones.
    #[inline(always)] // A frame less on a short stack.
    fn push(&mut self, kept: usize, innermost: u32, kind: usize) -> Option<()> {
        let functions = self.functions;
        let mut function = innermost;
        // New levels are collected at the end of the arrays.
        let mut free = LEVELS_MAX;
        let mut list = List::new();
        loop {
            self.spend(functions::GROUP)?;
            functions.open(function, &mut list)?;
            let entry = match list.entries() {
                1 => 0,
                _ => self.number(Kind::Option, list.context())?,
            };
            if list.is_stop(entry) {
                break;
            }
            let (caller, line) = if list.is_escape(entry) {
                let (caller, line) = self.escape()?;
                (caller, Line::At(line))
            } else {
                let edge = list.edges_before(entry);
                if edge >= list.edges() {
                    return None;
                }
                for _ in 0..edge.wrapping_add(1) {
                    self.spend(1)?;
                    list.next_edge(functions)?;
                }
                (list.caller(), Line::FromDeclaration(list.lines))
            };
            free = free.checked_sub(1).filter(|free| *free > kept)?;
            self.levels.set(free, function, line)?;
            function = caller;
        }
        if kept >= free {
            return None;
        }
        let line = match kept.checked_sub(1) {
            Some(around) => {
                let around = self.levels.function(around)?;
                self.call_line(around, &mut list)?
            }
            None => Line::At(self.outermost_line(kind)?),
        };
        self.levels.set(kept, function, line)?;
        let mut depth = kept.wrapping_add(1);
        for level in free..LEVELS_MAX {
            let function = self.levels.function(level)?;
            let line = self.levels.line(level)?;
            self.levels.set(depth, function, line)?;
            depth = depth.wrapping_add(1);
        }
        self.levels.set_depth(depth)
    }

    /// Caller and line of an edge that is in no list.
    #[inline(always)] // A frame less on a short stack.
    fn escape(&mut self) -> Option<(u32, u32)> {
        match self.number(Kind::Edge, 0)? {
            SPECIAL_126 => {
                self.bits.fill();
                let caller = self.bits.number(width(self.functions.count));
                let line = self.bits.number(24);
                (caller < self.functions.count).then_some((caller, line))
            }
            lines => {
                let line = self
                    .expected
                    .line
                    .checked_add_signed(unfold(lines).wrapping_neg())?;
                let file = self.expected.file;
                Some((self.functions.before(Place { file, line })?, line))
            }
        }
    }

    /// The line of a call in a level that was there before.
    #[inline(always)] // A frame less on a short stack.
    fn call_line(&mut self, caller: u32, list: &mut List<'a>) -> Option<Line> {
        let functions = self.functions;
        let mut calls = [0; SITES];
        let mut found = 0_usize;
        for _ in 0..list.edges().min(SITE_EDGES) {
            self.spend(1)?;
            list.next_edge(functions)?;
            if list.caller() == caller
                && let Some(call) = calls.get_mut(found)
            {
                *call = list.lines;
                found = found.wrapping_add(1);
            }
        }
        let which = match found {
            0 => SPECIAL_126,
            found => self.number(Kind::Site, found)?,
        };
        Some(Line::FromDeclaration(match which {
            SPECIAL_126 => unfold(self.number(Kind::CallLine, 2)?).cast_unsigned(),
            which => *calls.get(..found)?.get(index(which))?,
        }))
    }

    /// The line of the call in the physical function.
    fn outermost_line(&mut self, kind: usize) -> Option<u32> {
        let context = kind.wrapping_mul(2).wrapping_add(self.was_empty.into());
        match self.number(Kind::Line, context)? {
            SPECIAL_126 => {
                let files = self.number(Kind::Edge, 1)?;
                let file = &mut self.expected.file;
                *file = file.checked_add_signed(unfold(files))?;
                self.number(Kind::CallLine, 3)
            }
            lines => self.expected.line.checked_add_signed(unfold(lines)),
        }
    }
}

/// Follows the chains of all blocks of a region.
struct Checker<'m, 'a> {
    cursor: Cursor<'m, 'a>,
    chains: &'a [u8],
    /// Where the table of the region is in them.
    table: Range<usize>,
}

impl Visitor for Checker<'_, '_> {
    fn chunk(&mut self, chunk: &Chunk) -> Option<()> {
        let functions = self.cursor.functions;
        let ops = Ops::find(functions, self.chains, self.table.clone(), chunk)?;
        self.cursor.chunk(self.chains, ops, chunk)
    }
}

impl<'a> Cursor<'_, 'a> {
    /// Reads the chains of a chunk.
    #[inline(always)] // A frame less on a short stack.
    fn chunk(&mut self, chains: &'a [u8], ops: Ops, chunk: &Chunk) -> Option<()> {
        self.begin(chains, ops, chunk)?;
        for entry in chunk.entries() {
            self.entry(&entry)?;
        }
        Some(())
    }

    #[inline(always)] // As above.
    fn begin(&mut self, chains: &'a [u8], ops: Ops, chunk: &Chunk) -> Option<()> {
        self.levels.depth = 0;
        self.work = 0;
        let (file, line) = chunk.expected();
        self.expected = Place { file, line };
        self.was_empty = true;
        self.run = 0;
        self.ops = ops;
        self.bits = Bits::below(chains, index(self.ops.begin));
        if self.ops.are_there() && self.functions.form == codes::Form::Full {
            self.read_run()?;
        }
        Some(())
    }

    #[inline(always)] // As above.
    fn entry(&mut self, entry: &Entry) -> Option<()> {
        if !self.ops.are_there() || entry.line == 0 {
            return Some(());
        }
        let place = Place {
            file: entry.file,
            line: entry.line,
        };
        let near = self.before(place);
        let depth = self.levels.depth();
        let position = match near {
            None => 5,
            Some(_) if depth == 0 => 4,
            Some(near) => {
                let levels = self.levels.functions.iter().take(depth).rev();
                let mut levels = levels.map(|function| u32::from(*function));
                levels
                    .position(|function| function == near)
                    .map_or(3, |position| position.min(2))
            }
        };
        let context = position
            .wrapping_mul(12)
            .wrapping_add(entry.kind.into())
            .wrapping_mul(4)
            .wrapping_add(depth.min(3))
            .wrapping_mul(2)
            .wrapping_add((!entry.in_header).into());
        let op = self.op(context, position)?;
        let pops = index(op.wrapping_div(3));
        let kept = match pops {
            15 => 0,
            _ => depth.checked_sub(pops)?,
        };
        match op.wrapping_rem(3) {
            0 => self.levels.set_depth(kept)?,
            push => {
                let innermost = match push {
                    1 => near?,
                    _ => self.other(near.unwrap_or(0))?,
                };
                self.push(kept, innermost, entry.kind.into())?;
            }
        }
        if self.levels.depth == 0 {
            self.expected = place;
            self.was_empty = true;
        } else {
            self.expected.line = match self.levels.line(0)? {
                Line::At(line) | Line::FromDeclaration(line) => line,
            };
            self.was_empty = false;
        }
        // What is taken beyond the ops is not there.
        self.ops.hold(&self.bits).then_some(())
    }

    /// A function at a distance from another.
    fn other(&mut self, from: u32) -> Option<u32> {
        let distance = unfold(self.number(Kind::Edge, 2)?);
        let function = from.checked_add_signed(distance)?;
        (function < self.functions.count).then_some(function)
    }
}
