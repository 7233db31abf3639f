//! The functions that are inlined somewhere, and from where they are called
//! ([specified](super#functions) in the head of the module).

use zerocopy::byteorder::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::codes::{self, Form, Kind, SPECIAL_125, SPECIAL_126, SPECIAL_127};
use crate::encoding::Fault;
use crate::encoding::packed::bits::Bits;
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
    /// Offset 0: the file of the first function.
    pub(super) file: U16,
    /// Offset 2: its line.
    pub(super) line: [u8; 3],
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

/// A view of the section. It is on the stack of every look-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Functions<'a> {
    pub(super) form: Form,
    pub(super) count: u32,
    pub(super) in_headers: u32,
    /// The code of every context, and then the default of every op context.
    map: &'a [u8],
    /// Where each code begins, and where the last ends, in bytes from the start of `codes`.
    begins: &'a [U16],
    codes: &'a [u8],
    groups: &'a [Group],
    data: &'a [u8],
}

/// Where a function is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) line: u32,
}

impl<'a> Functions<'a> {
    pub(super) fn new(section: &'a [u8]) -> Option<Self> {
        let (header, rest) = Header::ref_from_prefix(section).ok()?;
        let form = Form::from_number(header.form)?;
        let map = form.contexts().wrapping_add(form.defaults());
        let (map, rest) = rest.split_at_checked(map)?;
        let begins = usize::from(header.codes).wrapping_add(1);
        let (begins, rest) = <[U16]>::ref_from_prefix_with_elems(rest, begins).ok()?;
        let codes = begins.last()?.get().into();
        let (codes, rest) = rest.split_at_checked(codes)?;
        let count = u32::from(header.functions.get());
        let groups = index(count.div_ceil(GROUP));
        let (groups, data) = <[Group]>::ref_from_prefix_with_elems(rest, groups).ok()?;
        Some(Self {
            form,
            count,
            in_headers: header.in_headers.get().into(),
            map,
            begins,
            codes,
            groups,
            data,
        })
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
        let codes = self.begins.len().saturating_sub(1);
        let (map, defaults) = self
            .map
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
        if self.begins.first().is_none_or(|first| first.get() != 0) {
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
        for (number, group) in self.groups.iter().enumerate() {
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
        if end != self.data.len() {
            return Err(fault("data that end with the last group", end));
        }
        Ok(())
    }

    /// The full check: declarations and lists of every function.
    pub(super) fn check_all(&self, files: u32) -> Result<(), Fault> {
        let mut last = Place { file: 0, line: 0 };
        let mut group_begin = 0;
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
            let mut list = self
                .list(function)
                .ok_or_else(|| fault("a list of callers"))?;
            for _ in 0..list.edges {
                list.next_edge(self)
                    .ok_or_else(|| fault("a caller in a list"))?;
            }
            let number = index(function.wrapping_div(GROUP));
            let end = self.groups.get(number).map_or(0, Group::end);
            if list.begin(self) < group_begin {
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

    fn code_bytes(&self, number: usize) -> Option<&'a [u8]> {
        let begin = usize::from(self.begins.get(number)?.get());
        let end = usize::from(self.begins.get(number.wrapping_add(1))?.get());
        self.codes.get(begin..end)
    }

    /// Reads a number in a context.
    #[inline]
    pub(super) fn number(
        &self,
        kind: Kind,
        context: usize,
        bits: &mut Bits<'_, true>,
    ) -> Option<u32> {
        let code = *self.map.get(kind.context(self.form, context))?;
        codes::read(self.code_bytes(code.into())?, bits)
    }

    /// The op that is taken in a context while a run lasts.
    pub(super) fn default_op(&self, context: usize) -> Option<u32> {
        let defaults = self.map.get(self.form.contexts()..)?;
        let default = *defaults.get(context)?;
        (default != NO_DEFAULT).then_some(default.into())
    }

    /// Where a function is declared.
    pub(super) fn place(&self, function: u32) -> Option<Place> {
        let mut declarations = self.declarations(function.wrapping_div(GROUP))?;
        for _ in 0..function.wrapping_rem(GROUP) {
            declarations.next(self)?;
        }
        Some(declarations.place)
    }

    /// The last function of a file that is declared at a line or before, and the line where the next one
    /// of the file in its group is, or a line from which on the answer may be another.
    pub(super) fn before(&self, place: Place) -> Option<u32> {
        let after = self.groups.partition_point(|group| {
            step();
            group_place(group) <= place
        });
        let number = u32::try_from(after.checked_sub(1)?).ok()?;
        let mut declarations = self.declarations(number)?;
        let mut function = number.wrapping_mul(GROUP);
        let mut found = (function, declarations.place.file);
        let last = function.wrapping_add(GROUP).min(self.count).wrapping_sub(1);
        while function < last {
            declarations.next(self)?;
            if declarations.place > place {
                break;
            }
            function = function.wrapping_add(1);
            found = (function, declarations.place.file);
        }
        (found.1 == place.file).then_some(found.0)
    }

    fn declarations(&self, group: u32) -> Option<Declarations<'a>> {
        let group = self.groups.get(index(group))?;
        Some(Declarations {
            bits: Bits::new(self.data, group.end()),
            place: group_place(group),
        })
    }

    /// The list of the callers of a function.
    pub(super) fn list(&self, function: u32) -> Option<List<'a>> {
        let group = self.groups.get(index(function.wrapping_div(GROUP)))?;
        let first = function.wrapping_sub(function.wrapping_rem(GROUP));
        let lists = u32::from(group.lists.get());
        let mut at = group.end().checked_sub(group.declarations.into())?;
        let mut other = first;
        while other < function {
            if lists.wrapping_shr(other.wrapping_sub(first)) & 1 == 1 {
                at = List::read(self, other, at)?.skip(self)?;
            }
            other = other.wrapping_add(1);
        }
        if lists.wrapping_shr(function.wrapping_sub(first)) & 1 == 0 {
            return Some(List {
                stop: Some(0),
                entries: 1,
                ..List::empty(self, function, at)
            });
        }
        List::read(self, function, at)
    }
}

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
    bits: Bits<'a, true>,
    /// That of the function at hand.
    place: Place,
}

impl Declarations<'_> {
    #[inline]
    fn next(&mut self, functions: &Functions<'_>) -> Option<()> {
        step();
        match functions.number(Kind::Declaration, 0, &mut self.bits)? {
            SPECIAL_126 => {
                let files = functions.number(Kind::First, 0, &mut self.bits)?;
                self.place.file = self.place.file.wrapping_add(files).wrapping_add(1);
                self.place.line = functions.number(Kind::First, 1, &mut self.bits)?;
            }
            lines => self.place.line = self.place.line.checked_add(lines)?,
        }
        Some(())
    }
}

/// From where a function is called, where it is inlined.
#[derive(Clone, Debug)]
pub(super) struct List<'a> {
    bits: Bits<'a, true>,
    /// Where the list ends in the data: it is read from there down.
    end: usize,
    function: u32,
    /// Number of entries.
    pub(super) entries: u32,
    /// The position of the entry that ends a chain, if there is one.
    pub(super) stop: Option<u32>,
    /// The position of the entry for what is not in the list, if there is one.
    pub(super) escape: Option<u32>,
    /// Number of the other entries.
    pub(super) edges: u32,
    /// Bits that the edges take; `None` for few edges, whose length is not written.
    size: Option<u32>,
    /// The caller of the edge read last; the function itself before the first.
    pub(super) caller: u32,
    /// The line of the call, from the declaration of the caller on.
    lines: u32,
    first: bool,
}

impl<'a> List<'a> {
    fn empty(functions: &Functions<'a>, function: u32, end: usize) -> Self {
        Self {
            bits: Bits::new(functions.data, end),
            end,
            function,
            entries: 0,
            stop: None,
            escape: None,
            edges: 0,
            size: None,
            caller: function,
            lines: 0,
            first: true,
        }
    }

    fn read(functions: &Functions<'a>, function: u32, end: usize) -> Option<Self> {
        let mut list = Self::empty(functions, function, end);
        match functions.number(Kind::Options, 0, &mut list.bits)? {
            1 => {
                list.escape = Some(0);
                list.entries = 1;
            }
            2 => {
                list.edges = 1;
                list.entries = 1;
            }
            number => {
                list.entries = number.checked_sub(1)?;
                if list.entries > ENTRIES_MAX || list.entries < 2 {
                    return None;
                }
                let context = index(list.entries.min(7));
                list.stop = list.position(functions, context)?;
                list.escape = list.position(functions, context.wrapping_add(8))?;
                let others =
                    u32::from(list.stop.is_some()).wrapping_add(list.escape.is_some().into());
                list.edges = list.entries.checked_sub(others)?;
                if list.entries >= 4 {
                    list.bits.fill();
                    let width = if list.bits.number(1) == 0 { 8 } else { 16 };
                    list.size = Some(list.bits.number(width));
                }
            }
        }
        Some(list)
    }

    /// A position among the entries; inside of `None` if there is none.
    #[expect(
        clippy::option_option,
        reason = "failure, or a position that is not there"
    )]
    fn position(&mut self, functions: &Functions<'_>, context: usize) -> Option<Option<u32>> {
        let position = functions.number(Kind::Position, context, &mut self.bits)?;
        (position <= self.entries).then_some(position.checked_sub(1))
    }

    /// Where the list begins in the data, if its edges were read.
    fn begin(&self, functions: &Functions<'_>) -> usize {
        let bytes = self.bits.taken(self.end).div_ceil(8);
        self.end.checked_sub(bytes).unwrap_or(functions.data.len())
    }

    /// Where the list begins in the data, which is where the next one ends.
    fn skip(mut self, functions: &Functions<'_>) -> Option<usize> {
        step();
        let bits = match self.size {
            Some(size) => self.bits.taken(self.end).checked_add(index(size))?,
            None => {
                for _ in 0..self.edges {
                    self.next_edge(functions)?;
                }
                self.bits.taken(self.end)
            }
        };
        self.end.checked_sub(bits.div_ceil(8))
    }

    /// Goes to the next edge.
    pub(super) fn next_edge(&mut self, functions: &Functions<'_>) -> Option<()> {
        step();
        let in_header = self.function < functions.in_headers;
        let context = usize::from(!self.first).wrapping_add(if in_header { 2 } else { 0 });
        self.first = false;
        let caller = match functions.number(Kind::Caller, context, &mut self.bits)? {
            SPECIAL_126 => {
                let lines = functions.number(Kind::CallLine, 1, &mut self.bits)?;
                self.lines = self.lines.wrapping_add_signed(unfold(lines));
                return Some(());
            }
            SPECIAL_127 => self.bits.number(width(functions.in_headers)),
            SPECIAL_125 => self.bits.number(width(functions.count)),
            distance => self.function.wrapping_add_signed(unfold(distance)),
        };
        self.caller = (caller < functions.count).then_some(caller)?;
        self.lines = functions.number(Kind::CallLine, 0, &mut self.bits)?;
        Some(())
    }

    /// The line of the call of the edge at hand.
    pub(super) fn line(&self, functions: &Functions<'_>) -> Option<u32> {
        let declared = functions.place(self.caller)?.line;
        Some(declared.wrapping_add(self.lines))
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
