//! Where Linux puts the text of a module.

use core::ops::Range;

use crate::address::Offset;
use crate::table::Table;

/// The two areas into which Linux loads the text of a module, as offsets in its table.
///
/// Linux allocates an area for the text that stays and one for init text, and lays out the executable
/// sections of the file in each (`layout_sections()` of `kernel/module/main.c`). A table of a
/// relocatable file has them where the kernel puts them:
///
/// - The first area begins at offset 0. It has the executable sections in the order of the section
///   headers, each at the next multiple of its own `sh_addralign`.
/// - The area of init text begins at the next multiple of 4096. It has those whose names begin with
///   `.init`, in the same way.
/// - A section without rows has its room as well, and an empty one its alignment. The first section
///   of init text is always a region of the table, so that its start is that of the area.
///
/// So the run-time address of an offset is that of its area and the bytes from the start of the area.
/// Since Linux 6.4 the areas are `mem[MOD_TEXT].base` and `mem[MOD_INIT_TEXT].base` of `struct module`,
/// before that `core_layout.base` and `init_layout.base`.
///
/// Some machines make room for stubs (`.plt`) when they load a module; these sections come last and
/// have no rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleAreas {
    /// The text that stays, as far as the table has rows for it.
    pub text: Range<u64>,
    /// Init text; empty if there is none.
    pub init: Range<u64>,
}

impl ModuleAreas {
    /// The offset of a run-time address, if it is in one of the areas, which begin at these addresses.
    ///
    /// `init` is `None` once the kernel has freed init text.
    ///
    /// ```
    /// use lineinfo_core::{ModuleAreas, Offset};
    ///
    /// let areas = ModuleAreas { text: 0..0x1234, init: 0x2000..0x2040 };
    /// let at = |address| areas.offset_of(address, 0xffff_ffff_c010_0000, Some(0xffff_ffff_c020_0000));
    /// assert_eq!(at(0xffff_ffff_c010_0010), Some(Offset(0x10)));
    /// assert_eq!(at(0xffff_ffff_c020_0010), Some(Offset(0x2010)));
    /// assert_eq!(at(0xffff_ffff_c010_2010), None);
    /// ```
    pub fn offset_of(&self, address: u64, text: u64, init: Option<u64>) -> Option<Offset> {
        let within = |area: &Range<u64>, base: u64| {
            let offset = area.start.checked_add(address.checked_sub(base)?)?;
            area.contains(&offset).then_some(Offset(offset))
        };
        within(&self.text, text).or_else(|| within(&self.init, init?))
    }
}

impl Table<'_> {
    /// Where Linux puts the text that the table describes, if it is that of a relocatable module; the
    /// text of all other images is in one piece.
    pub fn module_areas(&self) -> Option<ModuleAreas> {
        if self.layout().text_start() != 0 {
            return None;
        }
        let mut areas = ModuleAreas {
            text: 0..0,
            init: 0..0,
        };
        for region in self.regions() {
            let end = region.start.0.saturating_add(region.len.into());
            if !region.init {
                areas.text.end = end;
            } else if areas.init.is_empty() {
                areas.init = region.start.0..end;
            } else {
                areas.init.end = end;
            }
        }
        Some(areas)
    }
}
