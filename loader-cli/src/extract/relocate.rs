//! Relocations of debug sections.

use object::elf;
use object::read::{Object, ObjectSymbol, Relocation, RelocationTarget, SectionIndex};
use object::{RelocationFlags, RelocationKind};

use super::elf::{Identity, Parsed};
use crate::error::ElfError;

/// Applies the relocations of a relocatable file.
pub(super) struct Relocator<'a> {
    file: &'a Parsed<'a>,
    machine: elf::Machine,
    /// What the layout of text sections adds to the addresses in each section, by its index.
    bases: Vec<u64>,
}

impl<'a> Relocator<'a> {
    pub(super) fn new(file: &'a Parsed<'a>, identity: &Identity) -> Self {
        let mut bases = Vec::new();
        for text in &identity.text {
            let index = text.index().0;
            bases.resize(bases.len().max(index + 1), 0);
            bases[index] = text.address;
        }
        Self {
            file,
            machine: elf::Machine(identity.machine),
            bases,
        }
    }

    /// Applies one relocation in the file's own byte order; `false` if it is of a kind that does
    /// not occur in debug information, or lies outside the section.
    pub(super) fn apply(
        &self,
        data: &mut [u8],
        at: u64,
        relocation: &Relocation,
    ) -> Result<bool, ElfError> {
        if relocation.kind() == RelocationKind::None {
            return Ok(true);
        }
        let RelocationFlags::Elf { r_type } = relocation.flags() else {
            return Ok(false);
        };
        if is_kept_difference(self.machine, r_type) {
            return Ok(true);
        }
        let difference = Difference::of(self.machine, r_type);
        let size = match difference {
            Some(difference) => difference.size(data, at),
            None if relocation.kind() != RelocationKind::Absolute => return Ok(false),
            None => usize::from(relocation.size() / 8),
        };
        let field = usize::try_from(at)
            .ok()
            .and_then(|at| data.get_mut(at..)?.get_mut(..size));
        let (Some(field), 1..=8) = (field, size) else {
            return Ok(false);
        };
        let symbol = match relocation.target() {
            RelocationTarget::Symbol(index) => {
                let symbol = self.file.symbol_by_index(index)?;
                let base = self.base_of(symbol.section_index());
                symbol.address().wrapping_add(base)
            }
            RelocationTarget::Section(index) => self.base_of(Some(index)),
            _ => 0,
        };
        let value = symbol.wrapping_add_signed(relocation.addend());
        if let Some(difference) = difference {
            difference.apply(field, value);
            return Ok(true);
        }
        // The field as the low bytes of a little-endian number, whatever the file's order.
        let little = self.file.is_little_endian();
        let swap = |bytes: &mut [u8]| {
            if !little {
                bytes.reverse();
            }
        };
        swap(field);
        let addend = if relocation.has_implicit_addend() {
            low_bytes(field)
        } else {
            0
        };
        field.copy_from_slice(&value.wrapping_add(addend).to_le_bytes()[..size]);
        swap(field);
        Ok(true)
    }

    fn base_of(&self, section: Option<SectionIndex>) -> u64 {
        let base = section.and_then(|section| self.bases.get(section.0));
        base.copied().unwrap_or(0)
    }
}

/// A little-endian number of at most 8 bytes.
fn low_bytes(field: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..field.len()].copy_from_slice(field);
    u64::from_le_bytes(bytes)
}

/// Whether the field already has the difference of two symbols, and the relocation is for a linker
/// that shortens the code between them: Xtensa's way.
fn is_kept_difference(machine: elf::Machine, r_type: elf::RelocationType) -> bool {
    machine == elf::EM_XTENSA
        && matches!(
            r_type,
            elf::R_XTENSA_DIFF8 | elf::R_XTENSA_DIFF16 | elf::R_XTENSA_DIFF32
        )
}

/// A half of a difference of two symbols, which RISC-V and LoongArch leave to relocations because
/// their linkers may shorten the code between them: one relocation sets or adds, another one at the
/// same place subtracts (the chapters "Relocations" of their ELF psABI; little-endian always).
#[derive(Clone, Copy, Debug)]
struct Difference {
    step: Step,
    field: Field,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Set,
    Add,
    Sub,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    /// The low six bits of a byte, as `DW_CFA_advance_loc` has them.
    SixBits,
    Bytes(usize),
    /// Of the length that the assembler left.
    Uleb128,
}

impl Difference {
    fn of(machine: elf::Machine, r_type: elf::RelocationType) -> Option<Self> {
        let (step, field) = match machine {
            elf::EM_RISCV => match r_type {
                elf::R_RISCV_ADD8 => (Step::Add, Field::Bytes(1)),
                elf::R_RISCV_ADD16 => (Step::Add, Field::Bytes(2)),
                elf::R_RISCV_ADD32 => (Step::Add, Field::Bytes(4)),
                elf::R_RISCV_ADD64 => (Step::Add, Field::Bytes(8)),
                elf::R_RISCV_SUB6 => (Step::Sub, Field::SixBits),
                elf::R_RISCV_SUB8 => (Step::Sub, Field::Bytes(1)),
                elf::R_RISCV_SUB16 => (Step::Sub, Field::Bytes(2)),
                elf::R_RISCV_SUB32 => (Step::Sub, Field::Bytes(4)),
                elf::R_RISCV_SUB64 => (Step::Sub, Field::Bytes(8)),
                elf::R_RISCV_SUB_ULEB128 => (Step::Sub, Field::Uleb128),
                elf::R_RISCV_SET6 => (Step::Set, Field::SixBits),
                elf::R_RISCV_SET8 => (Step::Set, Field::Bytes(1)),
                elf::R_RISCV_SET16 => (Step::Set, Field::Bytes(2)),
                elf::R_RISCV_SET32 => (Step::Set, Field::Bytes(4)),
                elf::R_RISCV_SET_ULEB128 => (Step::Set, Field::Uleb128),
                _ => return None,
            },
            elf::EM_LOONGARCH => match r_type {
                elf::R_LARCH_ADD6 => (Step::Add, Field::SixBits),
                elf::R_LARCH_ADD8 => (Step::Add, Field::Bytes(1)),
                elf::R_LARCH_ADD16 => (Step::Add, Field::Bytes(2)),
                elf::R_LARCH_ADD24 => (Step::Add, Field::Bytes(3)),
                elf::R_LARCH_ADD32 => (Step::Add, Field::Bytes(4)),
                elf::R_LARCH_ADD64 => (Step::Add, Field::Bytes(8)),
                elf::R_LARCH_ADD_ULEB128 => (Step::Add, Field::Uleb128),
                elf::R_LARCH_SUB6 => (Step::Sub, Field::SixBits),
                elf::R_LARCH_SUB8 => (Step::Sub, Field::Bytes(1)),
                elf::R_LARCH_SUB16 => (Step::Sub, Field::Bytes(2)),
                elf::R_LARCH_SUB24 => (Step::Sub, Field::Bytes(3)),
                elf::R_LARCH_SUB32 => (Step::Sub, Field::Bytes(4)),
                elf::R_LARCH_SUB64 => (Step::Sub, Field::Bytes(8)),
                elf::R_LARCH_SUB_ULEB128 => (Step::Sub, Field::Uleb128),
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { step, field })
    }

    /// Size of the field at `at`, in bytes; 0 where there is none.
    fn size(self, data: &[u8], at: u64) -> usize {
        match self.field {
            Field::SixBits => 1,
            Field::Bytes(size) => size,
            Field::Uleb128 => {
                let rest = usize::try_from(at).ok().and_then(|at| data.get(at..));
                let field = rest.and_then(|rest| rest.chunks(size_of::<u64>()).next());
                let last = field.and_then(|field| field.iter().position(|byte| byte & 0x80 == 0));
                last.map_or(0, |last| last + 1)
            }
        }
    }

    fn apply(self, field: &mut [u8], value: u64) {
        let stepped = |old: u64| match self.step {
            Step::Set => value,
            Step::Add => old.wrapping_add(value),
            Step::Sub => old.wrapping_sub(value),
        };
        match self.field {
            Field::SixBits => {
                let kept = field[0] & 0xc0;
                field[0] = kept | (stepped(field[0].into()) as u8 & 0x3f);
            }
            Field::Bytes(size) => {
                let new = stepped(low_bytes(field)).to_le_bytes();
                field.copy_from_slice(&new[..size]);
            }
            Field::Uleb128 => {
                let bits = |at: usize| 7 * at as u32;
                let old = field.iter().enumerate().fold(0, |old, (at, byte)| {
                    old | u64::from(byte & 0x7f) << bits(at)
                });
                let new = stepped(old);
                for (at, byte) in field.iter_mut().enumerate() {
                    *byte = *byte & 0x80 | (new >> bits(at)) as u8 & 0x7f;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(r_type: elf::RelocationType, data: &mut [u8], value: u64) {
        apply_on(elf::EM_RISCV, r_type, data, value);
    }

    fn apply_on(machine: elf::Machine, r_type: elf::RelocationType, data: &mut [u8], value: u64) {
        let difference = Difference::of(machine, r_type).expect("half of a difference");
        let size = difference.size(data, 0);
        difference.apply(&mut data[..size], value);
    }

    #[test]
    fn differences_of_risc_v() {
        let mut word = 10_u32.to_le_bytes();
        apply(elf::R_RISCV_ADD32, &mut word, 0x1_0000_2000);
        apply(elf::R_RISCV_SUB32, &mut word, 0x1_0000_1000);
        assert_eq!(u32::from_le_bytes(word), 0x100a);

        // `DW_CFA_advance_loc` in the two high bits.
        let mut byte = [0x40];
        apply(elf::R_RISCV_SET6, &mut byte, 0x1004);
        apply(elf::R_RISCV_SUB6, &mut byte, 0x1000);
        assert_eq!(byte, [0x44]);

        // 0 in two bytes, and 1 that is no part of it.
        let mut uleb128 = [0x80, 0x00, 0x01];
        apply(elf::R_RISCV_SET_ULEB128, &mut uleb128, 0x1090);
        apply(elf::R_RISCV_SUB_ULEB128, &mut uleb128, 0x1000);
        assert_eq!(uleb128, [0x90, 0x01, 0x01]);

        let endless = [0x80; 2];
        let difference = Difference::of(elf::EM_RISCV, elf::R_RISCV_SUB_ULEB128).expect("one");
        assert_eq!(difference.size(&endless, 0), 0);
        assert_eq!(difference.size(&endless, 7), 0);
    }

    #[test]
    fn differences_of_loongarch() {
        for (add, sub, size) in [
            (elf::R_LARCH_ADD8, elf::R_LARCH_SUB8, 1),
            (elf::R_LARCH_ADD16, elf::R_LARCH_SUB16, 2),
            (elf::R_LARCH_ADD24, elf::R_LARCH_SUB24, 3),
            (elf::R_LARCH_ADD32, elf::R_LARCH_SUB32, 4),
            (elf::R_LARCH_ADD64, elf::R_LARCH_SUB64, 8),
        ] {
            let mut field = [0xee; 9];
            field[..size].fill(0);
            apply_on(elf::EM_LOONGARCH, add, &mut field, 0x1_0000_1014);
            apply_on(elf::EM_LOONGARCH, sub, &mut field, 0x1_0000_1000);
            assert_eq!(low_bytes(&field[..size]), 0x14);
            assert!(field[size..].iter().all(|byte| *byte == 0xee));
        }

        let mut byte = [0x40];
        apply_on(elf::EM_LOONGARCH, elf::R_LARCH_ADD6, &mut byte, 0x1004);
        apply_on(elf::EM_LOONGARCH, elf::R_LARCH_SUB6, &mut byte, 0x1000);
        assert_eq!(byte, [0x44]);

        let mut uleb128 = [0x80, 0x00];
        apply_on(
            elf::EM_LOONGARCH,
            elf::R_LARCH_ADD_ULEB128,
            &mut uleb128,
            0x1090,
        );
        apply_on(
            elf::EM_LOONGARCH,
            elf::R_LARCH_SUB_ULEB128,
            &mut uleb128,
            0x1000,
        );
        assert_eq!(uleb128, [0x90, 0x01]);
    }
}
