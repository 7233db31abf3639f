//! Blocks of two bit streams with codes fitted to the image: about 1.5 bytes a row.

mod bits;
mod codes;
mod directory;
mod hot;
mod model;
mod recent;
#[cfg(feature = "alloc")]
pub(crate) mod write;

use self::bits::Bits;
use self::directory::{Block, Directory};
pub(crate) use self::model::Model;
use self::recent::{DELTA_MIN, Place, Recent, length_class};
use super::{Fault, RegionTable, Row};
use crate::{index, wide};

/// Most entries of a block.
pub(super) const ENTRIES_MAX: usize = 160;

/// No hot pair.
const COLD: u32 = u32::MAX;

/// The backward stream of a block: its first place, and the tokens of the entries behind it.
///
/// A place with line 0 is a gap.
#[derive(Clone, Debug)]
struct Tokens<'a> {
    bits: Bits<'a, true>,
    recent: Recent,
    /// The hot pair that the last token named, or [`COLD`].
    hot: u32,
}

impl<'a> Tokens<'a> {
    /// Begins a block, and reads its first place.
    #[inline(always)]
    fn begin(model: &Model<'_>, bytes: &'a [u8], block: &Block) -> Option<(Self, Place)> {
        let mut bits = Bits::new(bytes, block.end);
        let [_, _, _, _, _, file_code, line_code] = &model.codes.numbers;
        bits.fill();
        let (first, place) = match file_code.read(&mut bits)?.checked_sub(1) {
            None => (block.guess, Place::default()),
            Some(code) => {
                let file = block.guess.file.wrapping_add_signed(unfold(code));
                bits.fill();
                let distance = line_code.read(&mut bits)?;
                let line = step(block.guess.line, distance, bits.number(1))?;
                let place = Place { file, line };
                (place, place)
            }
        };
        let tokens = Self {
            bits,
            recent: Recent::new(first, model.headers),
            hot: COLD,
        };
        Some((tokens, place))
    }

    /// The place of the next entry, whose length is of a class.
    #[inline(always)]
    fn next(&mut self, model: &Model<'_>, length_class: u8) -> Option<Place> {
        self.bits.fill();
        let context = self.recent.context(model.headers, length_class);
        let cluster = *model.codes.cluster_of.get(context)?;
        let symbol = model.codes.tokens.read(cluster, &mut self.bits)?;
        let (place, class) = if symbol < recent::FAR {
            let rank = symbol >> 7;
            let from = self.recent.get(rank);
            let delta = i32::from(symbol & 127).wrapping_add(DELTA_MIN);
            let place = Place {
                file: from.file,
                line: from.line.checked_add_signed(delta)?,
            };
            self.recent.put(rank, place);
            (place, 0)
        } else {
            self.rare(model, symbol)?
        };
        self.recent.note(symbol, class, model.headers);
        Some(place)
    }

    /// The tokens that are not a rank and a small delta, about one in six: the place, and the class
    /// if it is a hot pair.
    #[inline(never)]
    fn rare(&mut self, model: &Model<'_>, symbol: u16) -> Option<(Place, u8)> {
        let [_, far_code, file_code, line_code, hot_code, _, _] = &model.codes.numbers;
        let (place, class) = match symbol {
            recent::GAP => return Some((Place::default(), 0)),
            recent::FAR..recent::NEW => {
                let from = self.recent.get(symbol);
                let distance = far_code.read(&mut self.bits)?;
                let line = step(from.line, distance, self.bits.number(1))?;
                (Place { line, ..from }, 0)
            }
            recent::NEW => {
                let file = file_code.read(&mut self.bits)?;
                self.bits.fill();
                let line = line_code.read(&mut self.bits)?;
                (Place { file, line }, 0)
            }
            recent::HOT => {
                self.hot = hot_code.read(&mut self.bits)?;
                model.hot.get(self.hot)?
            }
            recent::SUCCESSOR..recent::GAP => {
                let rank = symbol.wrapping_sub(recent::SUCCESSOR);
                self.hot = model.hot.successor(self.hot, rank.into())?;
                model.hot.get(self.hot)?
            }
            _ => return None,
        };
        self.recent.put(7, place);
        Some((place, class))
    }
}

/// A line at a distance from another: up if `sign` is 0, down if it is 1.
#[inline(always)]
fn step(line: u32, distance: u32, sign: u32) -> Option<u32> {
    if sign == 0 {
        line.checked_add(distance)
    } else {
        line.checked_sub(distance)
    }
}

/// 0, -1, 1, -2, 2, ... as 0, 1, 2, 3, 4, ...
#[inline(always)]
const fn unfold(code: u32) -> i32 {
    let half = (code >> 1).cast_signed();
    if code & 1 == 0 { half } else { !half }
}

#[inline(always)]
const fn row(start: u32, place: Place) -> Row {
    let file = if place.line == 0 { 0 } else { place.file };
    Row {
        start,
        file,
        line: place.line,
    }
}

pub(super) fn find(table: &RegionTable<'_>, target: u32) -> Option<Row> {
    let model = table.model.as_ref()?;
    let block = Directory::new(table, model.page_bits)?.find(table, target)?;
    let mut bits = Bits::<false>::new(table.bytes, block.begin);
    // The first place before the lengths: they do not wait for each other.
    let (mut tokens, mut place) = Tokens::begin(model, table.bytes, &block)?;
    let [length_code, ..] = &model.codes.numbers;
    let mut classes = [0_u8; ENTRIES_MAX];
    let mut start = block.start;
    let mut entries = 0_usize;
    for class in &mut classes {
        bits.fill();
        let length = length_code.read(&mut bits)?;
        let end = start.wrapping_add(length.wrapping_shl(model.unit_bits));
        if target < end {
            *class = length_class(length);
            break;
        }
        *class = length_class(length);
        start = end;
        entries = entries.wrapping_add(1);
    }
    for class in classes.get(1..=entries)? {
        place = tokens.next(model, *class)?;
    }
    Some(row(start, place))
}

/// Decodes a table block by block, and proves on the way what [`find`] relies on.
#[derive(Clone, Debug)]
pub(crate) struct Rows<'a> {
    table: RegionTable<'a>,
    model: Model<'a>,
    directory: Directory<'a>,
    /// The block at hand, if one is.
    current: Option<Current<'a>>,
    /// Index of the block that follows.
    next_block: u32,
    /// Where it starts, and the position of its data in the stream.
    next_start: u32,
    next_begin: u32,
    /// The page it starts in.
    next_page: u32,
    /// The row given out last.
    last: Option<Row>,
    done: bool,
}

#[derive(Clone, Debug)]
struct Current<'a> {
    block: Block,
    lengths: Bits<'a, false>,
    tokens: Tokens<'a>,
    /// Of the first entry; afterwards none.
    first: Option<Place>,
    /// Where the next entry starts.
    start: u32,
    /// Where the block ends, in bytes of text.
    end: u32,
    entries: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(table: &RegionTable<'a>) -> Result<Self, Fault> {
        let fault = |expected| Fault {
            at: 0,
            expected,
            found: wide(table.bytes.len()),
        };
        let model = table.model.ok_or_else(|| fault("a model"))?;
        let empty = table.bytes.is_empty();
        if !empty && (table.rows == 0 || table.len == 0) {
            return Err(fault("no table for a region without rows"));
        }
        let directory = if empty {
            Directory::EMPTY
        } else {
            Directory::new(table, model.page_bits)
                .filter(|directory| directory.blocks > 0)
                .ok_or_else(|| fault("a directory of pages and blocks"))?
        };
        Ok(Self {
            table: *table,
            model,
            directory,
            current: None,
            next_block: 0,
            next_start: 0,
            next_begin: 0,
            next_page: 0,
            last: None,
            done: empty,
        })
    }

    fn fault(&self, at: usize, expected: &'static str, found: u32) -> Fault {
        Fault {
            at,
            expected,
            found: found.into(),
        }
    }

    /// Checks that pages `from..=to` name the block that follows, `from - 1` being the page in
    /// which the block before it starts (`home`).
    fn check_pages(&self, from: u32, to: u32, home: u32) -> Result<(), Fault> {
        for number in from..=to {
            let at = index(number).wrapping_mul(size_of::<directory::Page>());
            let Some(page) = self.directory.pages.get(index(number)) else {
                return Err(self.fault(at, "a page of the region", number));
            };
            if page.block() != self.next_block {
                return Err(self.fault(at, "the first block of the page", page.block()));
            }
            if page.data.get() != self.next_begin {
                return Err(self.fault(at, "where that block begins", page.data.get()));
            }
            if page.back() != number.wrapping_sub(home) {
                return Err(self.fault(at, "the page of the block before", page.back()));
            }
        }
        Ok(())
    }

    /// The page in which the block that follows starts: the first whose successor begins with a
    /// later block.
    fn page_of_next(&self) -> Option<u32> {
        let mut page = self.next_page;
        loop {
            match self.directory.pages.get(index(page.wrapping_add(1))) {
                Some(next) if next.block() <= self.next_block => page = page.wrapping_add(1),
                _ => return self.directory.pages.get(index(page)).map(|_| page),
            }
        }
    }

    fn text_end(&self) -> Option<u32> {
        let unit = 1_u32.wrapping_shl(self.model.unit_bits);
        self.table.len.checked_next_multiple_of(unit)
    }

    /// Goes to the next block.
    fn advance(&mut self) -> Result<bool, Fault> {
        let stream_len = self.table.bytes.len().saturating_sub(self.directory.stream);
        if self.next_block == self.directory.blocks {
            if index(self.next_begin) != stream_len {
                return Err(self.fault(
                    self.directory.stream,
                    "blocks up to the end of the table",
                    self.next_begin,
                ));
            }
            return Ok(false);
        }
        let directory = self.directory;
        let (start, begin, home) = (self.next_start, self.next_begin, self.next_page);
        let too_long = |this: &Self| this.fault(0, "a block inside the region", start);
        self.next_block = self.next_block.wrapping_add(1);
        let block = if directory.pages.is_empty() {
            self.next_begin = u32::try_from(stream_len).map_err(|_| too_long(self))?;
            self.next_start = self.text_end().ok_or_else(|| too_long(self))?;
            directory.only_block(&self.table)
        } else {
            if self.next_block == 1 {
                // Block 0 starts at 0, in page 0, and nothing is before it.
                let first = directory.pages.first();
                let right = directory.record(0).is_some_and(|(start, _)| start == 0)
                    && first.is_some_and(|page| {
                        page.block() == 0 && page.data.get() == 0 && page.back() == 0
                    });
                if !right {
                    return Err(self.fault(0, "a first block at the start of the region", 0));
                }
            }
            let (next_in_page, size) = directory
                .record(self.next_block)
                .ok_or_else(|| too_long(self))?;
            self.next_begin = begin.checked_add(size).ok_or_else(|| too_long(self))?;
            if index(self.next_begin) > stream_len {
                return Err(too_long(self));
            }
            if self.next_block == directory.blocks {
                self.next_start = self.text_end().ok_or_else(|| too_long(self))?;
                let last = u32::try_from(directory.pages.len()).unwrap_or(u32::MAX);
                self.check_pages(home.wrapping_add(1), last.wrapping_sub(1), home)?;
            } else {
                let page = self.page_of_next().ok_or_else(|| too_long(self))?;
                self.next_page = page;
                self.next_start = page
                    .wrapping_shl(self.model.page_bits)
                    .wrapping_add(next_in_page);
                self.check_pages(home.wrapping_add(1), page, home)?;
            }
            if self.next_start <= start {
                return Err(self.fault(0, "blocks that ascend", self.next_start));
            }
            Block {
                start,
                begin: directory.stream.wrapping_add(index(begin)),
                end: directory.stream.wrapping_add(index(self.next_begin)),
                guess: directory
                    .pages
                    .get(index(home))
                    .map_or(Place::default(), directory::Page::guess),
            }
        };
        let Some((tokens, first)) = Tokens::begin(&self.model, self.table.bytes, &block) else {
            return Err(self.fault(block.end, "the first place of a block", start));
        };
        self.current = Some(Current {
            lengths: Bits::new(self.table.bytes, block.begin),
            tokens,
            first: Some(first),
            start,
            end: self.next_start,
            entries: 0,
            block,
        });
        Ok(true)
    }

    /// The next entry: part of a row, or of a gap that has none.
    fn entry(&mut self) -> Result<Option<Row>, Fault> {
        if self
            .current
            .as_ref()
            .is_none_or(|current| current.start == current.end)
            && !self.advance()?
        {
            return Ok(None);
        }
        let Some(current) = &mut self.current else {
            return Ok(None);
        };
        current.entry(&self.model).map(Some)
    }
}

impl Current<'_> {
    fn entry(&mut self, model: &Model<'_>) -> Result<Row, Fault> {
        let at = self.block.begin;
        let start = self.start;
        let fault = |expected| Fault {
            at,
            expected,
            found: start.into(),
        };
        self.entries = self.entries.wrapping_add(1);
        if self.entries > ENTRIES_MAX {
            return Err(fault("a block of at most 160 entries"));
        }
        let [length_code, ..] = &model.codes.numbers;
        self.lengths.fill();
        let length = length_code
            .read(&mut self.lengths)
            .ok_or_else(|| fault("the code of a length"))?;
        let bytes = length
            .checked_mul(1_u32.wrapping_shl(model.unit_bits))
            .filter(|bytes| *bytes > 0);
        self.start = bytes
            .and_then(|bytes| start.checked_add(bytes))
            .filter(|end| *end <= self.end)
            .ok_or_else(|| fault("an entry inside its block"))?;
        let is_first = self.first.is_some();
        let place = match self.first.take() {
            Some(first) => Some(first),
            None => self.tokens.next(model, length_class(length)),
        };
        let place = place.ok_or_else(|| fault("a token that leads to a place"))?;
        // A gap is said in one way only: by its own token, or by its own first file.
        if place.line == 0 && (place.file != 0 || (!is_first && !self.tokens.in_gap())) {
            return Err(fault("a line from 1"));
        }
        let taken = self.lengths.taken().wrapping_add(self.tokens.bits.taken());
        let size = self.block.end.wrapping_sub(self.block.begin);
        if taken.div_ceil(8) > size {
            return Err(fault("streams that do not run into each other"));
        }
        if self.start == self.end && taken.div_ceil(8) != size {
            return Err(fault("streams that fill their block"));
        }
        Ok(row(start, place))
    }
}

impl Tokens<'_> {
    /// Whether the last token was a gap.
    const fn in_gap(&self) -> bool {
        self.recent.in_gap()
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            match self.entry() {
                Ok(Some(row)) => {
                    // A row that was cut between two blocks is one row, and before the first row
                    // there is a gap anyway.
                    let goes_on = match &self.last {
                        Some(last) => (last.file, last.line) == (row.file, row.line),
                        None => row.is_gap(),
                    };
                    if !goes_on {
                        self.last = Some(row);
                        return Some(Ok(row));
                    }
                }
                Ok(None) => self.done = true,
                Err(fault) => {
                    self.done = true;
                    return Some(Err(fault));
                }
            }
        }
        None
    }
}
