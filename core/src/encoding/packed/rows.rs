//! All rows of a region, and the check that each can be looked up.

#[cfg(feature = "write")]
pub(super) mod write;

use super::bits::Bits;
use super::directory::{Block, Blocks, Extent};
use super::model::{LENGTH, Model};
use super::recent::{FileLine, Slots, length_class};
use super::tokens::{Head, Tokens};
use super::{Chunk, ENTRIES_MAX, Passed, Visitor, row};
use crate::encoding::{Fault, RegionTable, Row};
use crate::steps::step;

/// Decodes a table block by block, and checks on the way that every row is there.
#[derive(Clone, Debug)]
pub(crate) struct Rows<'a> {
    table: RegionTable<'a>,
    model: Model<'a>,
    /// The blocks that follow.
    blocks: Blocks<'a>,
    /// The block at hand, if one is.
    current: Option<Current<'a>>,
    /// The row returned last.
    last: Option<Row>,
    done: bool,
}

#[derive(Clone, Debug)]
struct Current<'a> {
    block: Block,
    lengths: Bits<'a, false>,
    tokens: Tokens<'a>,
    slots: Slots,
    /// Of the first entry; afterwards none.
    first: Option<FileLine>,
    /// Where the next entry starts.
    start: u32,
    /// Where the block ends, in bytes of text.
    end: u32,
    entries: usize,
}

impl<'a> Rows<'a> {
    pub(in crate::encoding) fn new(table: &RegionTable<'a>) -> Result<Self, Fault> {
        let model = Model::new(table.model).ok_or_else(|| table.fault("a model"))?;
        Ok(Self {
            table: *table,
            model,
            blocks: Blocks::new(table, &model)?,
            current: None,
            last: None,
            done: false,
        })
    }

    /// Shows a visitor all entries.
    pub(super) fn visit(mut self, visitor: &mut impl Visitor) -> Result<(), Fault> {
        let mut chunk = Chunk::EMPTY;
        let mut at = 0;
        loop {
            let is_first = self
                .current
                .as_ref()
                .is_none_or(|current| current.start == current.end);
            let row = self.entry()?;
            let ends = row.is_none() || is_first || chunk.is_full();
            if ends && !chunk.is_empty() {
                visitor.chunk(&chunk).ok_or(Fault {
                    at,
                    expected: "a chain of inlined functions at every entry",
                    found: chunk.block.number.into(),
                })?;
            }
            let (Some(row), Some(current)) = (row, &self.current) else {
                return Ok(());
            };
            at = current.block.begin();
            if is_first {
                chunk.block = current.block;
                chunk.begin(self.model.headers);
            } else if chunk.is_full() {
                chunk.go_on();
            }
            let location = FileLine {
                file: row.file,
                line: row.line,
            };
            chunk.push_at(row.start, location, current.tokens.class());
        }
    }

    /// Goes to the next block.
    fn advance(&mut self) -> Result<bool, Fault> {
        let Some(Extent { block, text_end }) = self.blocks.next()? else {
            return Ok(false);
        };
        let Some((tokens, slots, first)) =
            Head::new(self.table.bytes, &block).begin(&self.model, &block)
        else {
            return Err(Fault {
                at: block.end(),
                expected: "the first location of a block",
                found: block.start.into(),
            });
        };
        self.current = Some(Current {
            lengths: Bits::new(self.table.bytes, block.begin()),
            tokens,
            slots,
            first: Some(first),
            start: block.start,
            end: text_end,
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
        let at = self.block.begin();
        let start = self.start;
        let fault = |expected| Fault {
            at,
            expected,
            found: start.into(),
        };
        step();
        self.entries = self.entries.wrapping_add(1);
        if self.entries > ENTRIES_MAX {
            return Err(fault("a block of at most 160 entries"));
        }
        let length_code = model.codes.numbers.code(LENGTH);
        self.lengths.fill();
        let (number, shift) = length_code
            .read_length(&mut self.lengths, model.unit_bits)
            .ok_or_else(|| fault("the code of a length"))?;
        let length = number
            .checked_mul(1_u32.wrapping_shl(shift))
            .filter(|length| *length > 0)
            .ok_or_else(|| fault("a length of at least one byte"))?;
        self.start = start
            .checked_add(length)
            .filter(|end| *end <= self.end)
            .ok_or_else(|| fault("an entry inside its block"))?;
        let is_first = self.first.is_some();
        let location = match self.first.take() {
            Some(first) => Some(first),
            None => {
                let class = length_class(length.wrapping_shr(model.unit_bits));
                self.tokens.next(&mut self.slots, model, class)
            }
        };
        let location = location.ok_or_else(|| fault("a token that leads to a location"))?;
        // A gap is written in one way only: by its own token, or by its own first file.
        if location.line == 0 && (location.file != 0 || (!is_first && !self.tokens.in_gap())) {
            return Err(fault("a line from 1"));
        }
        let lengths = self.lengths.taken(self.block.begin());
        let taken = lengths.wrapping_add(self.tokens.bits.taken(self.block.end()));
        let size = self.block.end().wrapping_sub(self.block.begin());
        if taken.div_ceil(8) > size {
            return Err(fault("streams that do not run into each other"));
        }
        if self.start == self.end {
            if taken.div_ceil(8) != size {
                return Err(fault("streams that fill their block"));
            }
            let between = size.wrapping_mul(8).wrapping_sub(taken);
            self.lengths.fill();
            if self.lengths.peek(u32::try_from(between).unwrap_or(0)) != 0 {
                return Err(fault("zeros between the streams"));
            }
        }
        Ok(row(start, location))
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
