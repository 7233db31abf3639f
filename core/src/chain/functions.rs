//! The functions that are inlined somewhere, and from where they are called
//! ([specified](super#functions) in the head of the module).

use zerocopy::byteorder::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::codes::{self, Form, Kind, SPECIAL_125, SPECIAL_126, SPECIAL_127};
use crate::encoding::Fault;
use crate::encoding::packed::bits::{Bits, field, low};
use crate::steps::step;
use crate::{index, wide};

/// Functions in a group.
pub(super) const GROUP: u32 = 16;
/// Most entries of a list of callers.
pub(super) const ENTRIES_MAX: u32 = 1023;

/// The head of the section.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    /// Offset 0: number of functions.
    pub(super) functions: U16,
    /// Offset 2: how many of them are in headers; they come first.
    pub(super) in_headers: U16,
    /// Offset 4: a [`Form`].
    pub(super) form: u8,
    /// Offset 5: number of codes, at least 1.
    pub(super) codes: u8,
}

/// The head of a group of functions, 11 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Group {
    /// Offset 0: the line of the first function.
    pub(super) line: [u8; 3],
    /// Offset 3: its file. Together they are a number by which the groups ascend.
    pub(super) file: U16,
    /// Offset 5: where the data of the group end, in bytes from the start of all.
    pub(super) end: [u8; 3],
    /// Offset 8: bytes of its declarations.
    pub(super) declarations: u8,
    /// Offset 9: which of its functions have a list of callers.
    pub(super) lists: U16,
}

impl Group {
    fn line(&self) -> u32 {
        let [a, b, c] = self.line;
        u32::from_le_bytes([a, b, c, 0])
    }

    fn end(&self) -> usize {
        let [a, b, c] = self.end;
        index(u32::from_le_bytes([a, b, c, 0]))
    }
}

/// A view of the section. It is on the stack of every look-up, so it has positions in place of slices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Functions<'a> {
    section: &'a [u8],
    pub(super) count: u32,
    pub(super) in_headers: u32,
    /// Where these parts begin; the code of every context and the defaults come before them.
    begins: u32,
    codes: u32,
    groups: u32,
    data: u32,
    pub(super) form: Form,
}

/// Where the code of every context is.
const MAP: usize = size_of::<Header>();

/// Where a function is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(super) file: u32,
    pub(super) line: u32,
}

impl Place {
    /// After all others.
    const MAX: Self = Self {
        file: u32::MAX,
        line: u32::MAX,
    };

    /// Places in their order, as numbers, which are compared without a branch. That of a group is in its first
    /// [`KEY_BITS`]; no function is at a line above [`LINE_MAX`].
    #[inline]
    fn key(self) -> u64 {
        u64::from(self.file).wrapping_shl(24) | u64::from(self.line.min(LINE_MAX))
    }
}

/// Largest line that is stored.
pub(super) const LINE_MAX: u32 = 0xff_ffff;
const KEY_BITS: u32 = 40;

/// Which function is before places of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    /// [`Near::NONE`] if there is none.
    function: u16,
    file: u16,
    /// From which line on, and before which.
    from: u32,
    to: u32,
}

impl Near {
    const NONE: u16 = u16::MAX;

    /// Of no place.
    pub(super) const NOWHERE: Self = Self {
        function: Self::NONE,
        file: 0,
        from: 0,
        to: 0,
    };

    pub(super) fn function(&self) -> Option<u32> {
        (self.function != Self::NONE).then_some(self.function.into())
    }

    /// Whether it is that of a place as well.
    #[inline]
    pub(super) fn holds(&self, place: Place) -> bool {
        u32::from(self.file) == place.file && (self.from..self.to).contains(&place.line)
    }
}

/// The number of functions, without the rest of a view.
pub(super) fn count(section: &[u8]) -> Option<u32> {
    let (header, _) = Header::ref_from_prefix(section).ok()?;
    Some(header.functions.get().into())
}

impl<'a> Functions<'a> {
    pub(super) fn new(section: &'a [u8]) -> Option<Self> {
        let (header, rest) = Header::ref_from_prefix(section).ok()?;
        let form = Form::from_number(header.form)?;
        let map = form.contexts().wrapping_add(form.defaults());
        let (_, rest) = rest.split_at_checked(map)?;
        let begins = usize::from(header.codes).wrapping_add(1);
        let (begins, rest) = <[U16]>::ref_from_prefix_with_elems(rest, begins).ok()?;
        let codes_at = section.len().wrapping_sub(rest.len());
        let (_, rest) = rest.split_at_checked(begins.last()?.get().into())?;
        let count = u32::from(header.functions.get());
        let groups = index(count.div_ceil(GROUP));
        let (_, data) = <[Group]>::ref_from_prefix_with_elems(rest, groups).ok()?;
        let position = |rest: &[u8]| u32::try_from(section.len().wrapping_sub(rest.len())).ok();
        Some(Self {
            section,
            count,
            in_headers: header.in_headers.get().into(),
            begins: u32::try_from(MAP.wrapping_add(map)).ok()?,
            codes: u32::try_from(codes_at).ok()?,
            groups: position(rest)?,
            data: position(data)?,
            form,
        })
    }

    /// The code of every context, and then the default of every op context.
    #[inline]
    fn map(&self) -> &'a [u8] {
        self.section.get(MAP..index(self.begins)).unwrap_or(&[])
    }

    /// Where each code begins, and where the last ends, in bytes from the start of all.
    #[inline]
    fn begins(&self) -> &'a [U16] {
        let begins = self.section.get(index(self.begins)..index(self.codes));
        <[U16]>::ref_from_bytes(begins.unwrap_or(&[])).unwrap_or(&[])
    }

    #[inline]
    fn groups(&self) -> &'a [Group] {
        let groups = self.section.get(index(self.groups)..index(self.data));
        <[Group]>::ref_from_bytes(groups.unwrap_or(&[])).unwrap_or(&[])
    }

    #[inline]
    fn data(&self) -> &'a [u8] {
        self.section.get(index(self.data)..).unwrap_or(&[])
    }

    /// The light check: codes, and the heads of groups.
    pub(super) fn check(&self, files: u32) -> Result<(), Fault> {
        let fault = |expected, found: usize| Fault {
            at: 0,
            expected,
            found: wide(found),
        };
        if self.in_headers > self.count {
            return Err(fault(
                "at most all functions in headers",
                index(self.in_headers),
            ));
        }
        let codes = self.begins().len().saturating_sub(1);
        let (map, defaults) = self
            .map()
            .split_at_checked(self.form.contexts())
            .unwrap_or_default();
        for code in map {
            step();
            if usize::from(*code) >= codes {
                return Err(fault("a code for every context", (*code).into()));
            }
        }
        for default in defaults {
            step();
            if *default != NO_DEFAULT && u32::from(*default) >= codes::DIRECT {
                return Err(fault("an op below 48, or 255", (*default).into()));
            }
        }
        if self.begins().first().is_none_or(|first| first.get() != 0) {
            return Err(fault("a first code at the start", codes));
        }
        for number in 0..codes {
            step();
            let code = self.code_bytes(number).unwrap_or(&[]);
            if let Some(expected) = codes::fault(code) {
                return Err(fault(expected, number));
            }
        }
        let mut end = 0;
        let mut last = Place { file: 0, line: 0 };
        for (number, group) in self.groups().iter().enumerate() {
            step();
            let place = group_place(group);
            if place < last || place.file >= files {
                return Err(fault("groups that ascend by file and line", number));
            }
            let begin = end;
            end = group.end();
            let size = end.checked_sub(begin);
            if size.is_none_or(|size| size < group.declarations.into()) {
                return Err(fault("groups whose data ascend", number));
            }
            last = place;
        }
        if end != self.data().len() {
            return Err(fault("data that end with the last group", end));
        }
        Ok(())
    }

    /// The full check: declarations and lists of every function.
    pub(super) fn check_all(&self, files: u32) -> Result<(), Fault> {
        let mut last = Place { file: 0, line: 0 };
        let mut group_begin = 0_usize;
        for function in 0..self.count {
            let fault = |expected| Fault {
                at: 0,
                expected,
                found: function.into(),
            };
            let place = self
                .place(function)
                .filter(|place| *place >= last && place.file < files)
                .ok_or_else(|| fault("functions that ascend by file and line"))?;
            last = place;
            let mut list = List::new();
            let list_end = self
                .open(function, &mut list)
                .ok_or_else(|| fault("a list of callers"))?;
            for _ in 0..list.edges() {
                list.next_edge(self)
                    .ok_or_else(|| fault("a caller in a list"))?;
            }
            let number = index(function.wrapping_div(GROUP));
            let end = self.groups().get(number).map_or(0, Group::end);
            if !(group_begin.saturating_mul(8)..=list_end).contains(&list.bits.position()) {
                return Err(fault("a list inside its group"));
            }
            let is_last = function.wrapping_add(1) == self.count
                || function.wrapping_add(1).is_multiple_of(GROUP);
            if is_last {
                group_begin = end;
            }
        }
        Ok(())
    }

    /// The bytes of a code.
    #[inline(always)]
    fn code_bytes(&self, number: usize) -> Option<&'a [u8]> {
        let at = index(self.begins).wrapping_add(number.wrapping_mul(2));
        let (begin, end) = self.section.get(at..)?.split_first_chunk()?;
        let begin = usize::from(u16::from_le_bytes(*begin));
        let end = usize::from(u16::from_le_bytes(*end.first_chunk()?));
        let codes = index(self.codes);
        (self.section).get(codes.wrapping_add(begin)..codes.wrapping_add(end))
    }

    /// Reads a number in a context.
    #[inline(always)]
    pub(super) fn number(
        &self,
        kind: Kind,
        context: usize,
        bits: &mut Bits<'_, true>,
    ) -> Option<u32> {
        self.number_in(kind.context(self.form, context), bits)
    }

    /// The same, given the number of the context among all.
    #[inline(never)]
    fn number_in(&self, context: usize, bits: &mut Bits<'_, true>) -> Option<u32> {
        let code = *self.section.get(MAP.wrapping_add(context))?;
        codes::read(self.code_bytes(code.into())?, bits)
    }

    /// The op that is taken in a context while a run lasts.
    #[inline(always)]
    pub(super) fn default_op(&self, context: usize) -> Option<u32> {
        if self.form == Form::Small {
            return None;
        }
        let at = MAP.wrapping_add(self.form.contexts());
        let default = *self.section.get(at.wrapping_add(context))?;
        (default != NO_DEFAULT).then_some(default.into())
    }

    /// Where a function is declared.
    pub(super) fn place(&self, function: u32) -> Option<Place> {
        let mut declarations = self.declarations(function.wrapping_div(GROUP))?;
        for _ in 0..function.wrapping_rem(GROUP) {
            declarations.next()?;
        }
        Some(declarations.place)
    }

    /// How many groups begin at a place with this key or before.
    ///
    /// As `partition_point`, but for each step there is one load that waits for the one before.
    #[inline(always)]
    fn groups_up_to(&self, key: u64) -> usize {
        const SIZE: usize = size_of::<Group>();
        let groups = self.section.get(index(self.groups)..index(self.data));
        let groups = groups.unwrap_or(&[]);
        let is_after = |at: usize| {
            let word = groups.get(at..).and_then(<[u8]>::first_chunk);
            let word = u64::from_le_bytes(*word.unwrap_or(&[0xff; 8]));
            word & 1_u64.wrapping_shl(KEY_BITS).wrapping_sub(1) > key
        };
        let mut left = groups.len().wrapping_div(SIZE);
        // All groups before this byte are such groups, and the first that is none is among those left.
        let mut at = 0_usize;
        while left > 1 {
            step();
            let half = left >> 1;
            let middle = at.wrapping_add(half.wrapping_mul(SIZE));
            at = if is_after(middle) { at } else { middle };
            left = left.wrapping_sub(half);
        }
        let last = usize::from(left == 1 && !is_after(at));
        at.wrapping_div(SIZE).wrapping_add(last)
    }

    /// The last function of a file that is declared at a line or before.
    #[inline(always)] // A frame less on a short stack.
    pub(super) fn before(&self, place: Place) -> Option<u32> {
        self.near(place)?.function()
    }

    /// The same, with the lines for which it holds.
    #[inline(never)]
    pub(super) fn near(&self, place: Place) -> Option<Near> {
        let key = place.key();
        let groups = self.groups();
        let after = self.groups_up_to(key);
        let mut next = groups.get(after).map_or(Place::MAX, group_place);
        let mut found = None;
        if let Some(number) = after.checked_sub(1) {
            let number = u32::try_from(number).ok()?;
            let mut declarations = self.declarations(number)?;
            let mut function = number.wrapping_mul(GROUP);
            let last = function.wrapping_add(GROUP).min(self.count).wrapping_sub(1);
            let mut at = declarations.place;
            while function < last {
                declarations.next()?;
                if declarations.place.key() > key {
                    next = declarations.place;
                    break;
                }
                at = declarations.place;
                function = function.wrapping_add(1);
            }
            found = (at.file == place.file).then_some((function, at));
        }
        let file = u16::try_from(place.file).ok()?;
        Some(Near {
            function: match found {
                Some((function, _)) => u16::try_from(function).ok()?,
                None => Near::NONE,
            },
            file,
            from: found.map_or(0, |(_, at)| at.line),
            to: if next.file == place.file {
                next.line
            } else {
                u32::MAX
            },
        })
    }

    fn declarations(&self, group: u32) -> Option<Declarations<'a>> {
        let group = self.groups().get(index(group))?;
        let begin = group.end().checked_sub(group.declarations.into())?;
        Some(Declarations {
            bytes: self.data().get(begin..group.end())?,
            place: group_place(group),
        })
    }

    /// Begins the list of the callers of a function; gives the bit of the data that it begins below.
    ///
    /// In two parts, of which only one is on a short stack.
    #[inline(always)]
    pub(super) fn open(&self, function: u32, list: &mut List<'a>) -> Option<usize> {
        let bit = self.begin(function, list)?;
        if list.entries == 0 {
            list.read(self)?;
        }
        Some(bit)
    }

    /// Goes to the list of a function; without one, that is all of it.
    #[inline(never)]
    fn begin(&self, function: u32, list: &mut List<'a>) -> Option<usize> {
        let group = self.groups().get(index(function.wrapping_div(GROUP)))?;
        let position = function.wrapping_rem(GROUP);
        let lists = u32::from(group.lists.get());
        let sizes_end = group.end().checked_sub(group.declarations.into())?;
        let count = index(lists.count_ones());
        let at = sizes_end.checked_sub(count)?;
        let mut bit = at.checked_mul(8)?;
        if lists.wrapping_shr(position) & 1 == 0 {
            list.begin(self, function, bit)?;
            list.stop = 0;
            list.entries = 1;
            return Some(bit);
        }
        let below = 1_u32.wrapping_shl(position).wrapping_sub(1);
        let before = index((lists & below).count_ones());
        for size in self.data().get(at..at.checked_add(before)?)? {
            step();
            let size = match *size {
                LONG => self.long_size(bit)?,
                size => size.into(),
            };
            bit = bit.checked_sub(size)?;
        }
        let size = *self.data().get(at.checked_add(before)?)?;
        list.begin(self, function, bit)?;
        if size == LONG {
            list.bits.take(LONG_BITS);
        }
        Some(bit)
    }

    /// The size of a list that begins with it.
    fn long_size(&self, bit: usize) -> Option<usize> {
        let at = bit.checked_sub(index(LONG_BITS))?;
        Some(index(low(field(self.data(), wide(at), LONG_BITS)?)))
    }
}

/// The size of a list that begins with its size, in so many raw bits.
pub(super) const LONG: u8 = 255;
pub(super) const LONG_BITS: u32 = 20;

/// No default, among the defaults of op contexts.
pub(super) const NO_DEFAULT: u8 = 255;

fn group_place(group: &Group) -> Place {
    Place {
        file: group.file.get().into(),
        line: group.line(),
    }
}

/// The declarations of a group, one after the other.
struct Declarations<'a> {
    bytes: &'a [u8],
    /// That of the function at hand.
    place: Place,
}

/// First bytes of a distance of two, three and four bytes.
const TWO: u8 = 0xc0;
const THREE: u8 = 0xf0;
const FOUR: u8 = 0xfe;
/// A further file.
const FILE: u8 = 0xff;

impl Declarations<'_> {
    #[inline(always)]
    fn next(&mut self) -> Option<()> {
        step();
        let first = self.byte()?;
        let lines = if first < TWO {
            first.into()
        } else {
            self.more(first)?
        };
        self.place.line = self.place.line.wrapping_add(lines);
        Some(())
    }

    /// Lines that take more than a byte.
    #[inline(never)]
    fn more(&mut self, first: u8) -> Option<u32> {
        if first == FILE {
            let first = self.byte()?;
            let files = self.distance(first)?;
            self.place = Place {
                file: self.place.file.wrapping_add(files).wrapping_add(1),
                line: 0,
            };
            let first = self.byte()?;
            return self.distance(first);
        }
        self.distance(first)
    }

    fn distance(&mut self, first: u8) -> Option<u32> {
        let (high, more) = match first {
            0..TWO => (first, 0),
            TWO..THREE => (first.wrapping_sub(TWO), 1),
            THREE..FOUR => (first.wrapping_sub(THREE), 2),
            FOUR => (0, 3),
            FILE => return None,
        };
        let mut distance = u32::from(high);
        for _ in 0..more {
            distance = distance << 8 | u32::from(self.byte()?);
        }
        Some(distance)
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }
}

/// Writes a distance, which is below 2^24, as [`Declarations`] read it.
#[cfg(feature = "write")]
pub(super) fn write_distance(distance: u32, out: &mut alloc::vec::Vec<u8>) {
    let [a, b, c, _] = distance.to_le_bytes();
    let high = |first: u8, value: u8| first.wrapping_add(value);
    match distance {
        0..0xc0 => out.push(a),
        0xc0..0x3000 => out.extend([high(TWO, b), a]),
        0x3000..0x0e_0000 => out.extend([high(THREE, c), b, a]),
        _ => out.extend([FOUR, c, b, a]),
    }
}

/// Writes the step from one declaration to the next.
#[cfg(feature = "write")]
pub(super) fn write_declaration(last: Place, next: Place, out: &mut alloc::vec::Vec<u8>) {
    match next.file.wrapping_sub(last.file).checked_sub(1) {
        None => write_distance(next.line.wrapping_sub(last.line), out),
        Some(files) => {
            out.push(FILE);
            write_distance(files, out);
            write_distance(next.line, out);
        }
    }
}

/// From where a function is called, where it is inlined.
#[derive(Clone, Debug)]
pub(super) struct List<'a> {
    bits: Bits<'a, true>,
    function: u16,
    /// The caller of the edge read last; the function itself before the first.
    caller: u16,
    /// Number of entries.
    entries: u16,
    /// The positions of the entry that ends a chain and of the one for what is not in the list, or [`NOWHERE`].
    stop: u16,
    escape: u16,
    is_first: bool,
    /// The line of the call, from the declaration of the caller on.
    pub(super) lines: u32,
}

/// The position of an entry that a list does not have.
const NOWHERE: u16 = u16::MAX;

impl<'a> List<'a> {
    /// Of no function.
    pub(super) const fn new() -> Self {
        Self {
            bits: Bits::new(&[], 0),
            function: 0,
            caller: 0,
            entries: 0,
            stop: NOWHERE,
            escape: NOWHERE,
            is_first: true,
            lines: 0,
        }
    }

    /// A list that begins below a bit of the data.
    #[inline(always)] // As above.
    fn begin(&mut self, functions: &Functions<'a>, function: u32, bit: usize) -> Option<()> {
        let function = u16::try_from(function).ok()?;
        *self = Self {
            bits: Bits::below(functions.data(), bit),
            function,
            caller: function,
            ..Self::new()
        };
        Some(())
    }

    #[inline(never)]
    fn read(&mut self, functions: &Functions<'a>) -> Option<()> {
        match functions.number(Kind::Options, 0, &mut self.bits)? {
            1 => {
                self.escape = 0;
                self.entries = 1;
            }
            2 => self.entries = 1,
            number => {
                let entries = number.checked_sub(1)?;
                if !(2..=ENTRIES_MAX).contains(&entries) {
                    return None;
                }
                self.entries = u16::try_from(entries).ok()?;
                let context = index(entries.min(7));
                self.stop = self.position(functions, context)?;
                self.escape = self.position(functions, context.wrapping_add(8))?;
            }
        }
        Some(())
    }

    #[inline(always)] // As above.
    fn position(&mut self, functions: &Functions<'_>, context: usize) -> Option<u16> {
        let position = functions.number(Kind::Position, context, &mut self.bits)?;
        if position > self.entries.into() {
            return None;
        }
        Some(u16::try_from(position).ok()?.wrapping_sub(1))
    }

    /// Number of entries.
    pub(super) fn entries(&self) -> u32 {
        self.entries.into()
    }

    /// Number of the entries that are edges.
    pub(super) fn edges(&self) -> u32 {
        let others = u16::from(self.stop != NOWHERE).wrapping_add((self.escape != NOWHERE).into());
        self.entries.saturating_sub(others).into()
    }

    /// The caller of the edge read last.
    pub(super) fn caller(&self) -> u32 {
        self.caller.into()
    }

    /// Whether an entry is the one that ends a chain.
    pub(super) fn is_stop(&self, entry: u32) -> bool {
        u32::from(self.stop) == entry
    }

    /// Whether an entry is the one for what is not in the list.
    pub(super) fn is_escape(&self, entry: u32) -> bool {
        u32::from(self.escape) == entry
    }

    /// How many edges come before an entry.
    pub(super) fn edges_before(&self, entry: u32) -> u32 {
        let passed = |position: u16| u32::from(u32::from(position) < entry);
        entry
            .wrapping_sub(passed(self.stop))
            .wrapping_sub(passed(self.escape))
    }

    /// The context of a choice among the entries.
    pub(super) fn context(&self) -> usize {
        let position = |position: u16| match position {
            NOWHERE => 4,
            position => usize::from(position.min(3)),
        };
        position(self.stop)
            .wrapping_mul(10)
            .wrapping_add(usize::from(self.entries.min(9)))
            .wrapping_mul(5)
            .wrapping_add(position(self.escape))
    }

    /// Goes to the next edge.
    #[inline(never)]
    pub(super) fn next_edge(&mut self, functions: &Functions<'_>) -> Option<()> {
        step();
        let function = u32::from(self.function);
        let in_header = function < functions.in_headers;
        let context = usize::from(!self.is_first).wrapping_add(if in_header { 2 } else { 0 });
        self.is_first = false;
        let caller = match functions.number(Kind::Caller, context, &mut self.bits)? {
            SPECIAL_126 => {
                let lines = functions.number(Kind::CallLine, 1, &mut self.bits)?;
                self.lines = self.lines.wrapping_add_signed(unfold(lines));
                return Some(());
            }
            SPECIAL_127 => self.bits.number(width(functions.in_headers)),
            SPECIAL_125 => self.bits.number(width(functions.count)),
            distance => function.wrapping_add_signed(unfold(distance)),
        };
        if caller >= functions.count {
            return None;
        }
        self.caller = u16::try_from(caller).ok()?;
        self.lines = functions.number(Kind::CallLine, 0, &mut self.bits)?;
        Some(())
    }
}

/// Bits of an index among so many.
pub(super) const fn width(count: u32) -> u32 {
    u32::BITS.wrapping_sub(count.saturating_sub(1).leading_zeros())
}

/// 0, -1, 1, -2, 2, ... as 0, 1, 2, 3, 4, ...
pub(super) const fn unfold(code: u32) -> i32 {
    let half = (code >> 1).cast_signed();
    if code & 1 == 0 { half } else { !half }
}
