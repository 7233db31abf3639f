use core::fmt;

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::U32;

use crate::encoding::Fault;
use crate::text::TextBuffer;
use crate::{index, wide};

/// The name of a source file, relative to the root of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName<'a>(&'a str);

impl FileName<'_> {
    pub(crate) fn push_to(&self, text: &mut TextBuffer<'_>) {
        text.push_str(self.0);
    }
}

impl fmt::Display for FileName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl PartialEq<str> for FileName<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

/// The section of file names: the end of each name as `u32`, then the names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files<'a> {
    ends: &'a [U32],
    names: &'a [u8],
}

impl<'a> Files<'a> {
    pub(crate) fn new(section: &'a [u8], count: u32) -> Option<Self> {
        let (ends, names) = <[U32]>::ref_from_prefix_with_elems(section, index(count)).ok()?;
        Some(Self { ends, names })
    }

    pub(crate) fn get(&self, file: u32) -> Option<FileName<'a>> {
        let file = index(file);
        let end = self.ends.get(file)?.get();
        let start = match file.checked_sub(1) {
            Some(previous) => self.ends.get(previous)?.get(),
            None => 0,
        };
        let name = self.names.get(index(start)..index(end))?;
        core::str::from_utf8(name).ok().map(FileName)
    }

    /// Proves that every name is there, and that it can be printed in a kernel log.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let mut previous = 0;
        for (file, end) in self.ends.iter().enumerate() {
            let fault = |expected, found| Fault {
                at: file.saturating_mul(size_of::<U32>()),
                expected,
                found,
            };
            let end = end.get();
            if end <= previous {
                return Err(fault("the end of a name that is not empty", u64::from(end)));
            }
            let name = self
                .names
                .get(index(previous)..index(end))
                .ok_or_else(|| fault("a name inside the section", u64::from(end)))?;
            let Ok(text) = core::str::from_utf8(name) else {
                return Err(fault("a name in UTF-8", u64::from(previous)));
            };
            if let Some(control) = text.chars().find(|c| c.is_control()) {
                return Err(fault(
                    "a name without control characters",
                    u64::from(u32::from(control)),
                ));
            }
            previous = end;
        }
        if index(previous) != self.names.len() {
            return Err(Fault {
                at: size_of_val(self.ends),
                expected: "names up to the end of the section",
                found: wide(self.names.len()),
            });
        }
        Ok(())
    }
}
