//! Calls, traps and jumps in machine code.
//!
//! Stack traces look up *points*: the return address of a call, and the address of a trap, an
//! instruction that the compiler puts where a check has failed (`ud2` and its like).

use disarm64::decoder::{self, InsnId};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use lineinfo_core::Address;
use object::elf;
use raki::{BaseIOpcode, COpcode, Decode, Isa, OpcodeKind};

/// The machines whose instructions can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// i386 (32) and x86-64 (64).
    X86 {
        /// Bits of an address.
        bits: u32,
    },
    /// arm64.
    Arm64,
    /// RISC-V of 32 or 64 bits.
    RiscV(RiscVBits),
}

/// The width of a RISC-V machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RiscVBits {
    /// RV32.
    Rv32,
    /// RV64.
    Rv64,
}

impl Instructions {
    /// Those of an ELF machine (`e_machine`), if there is a decoder for it.
    pub fn of(machine: u16, address_size: u8) -> Option<Self> {
        match (elf::Machine(machine), address_size) {
            (elf::EM_X86_64, _) => Some(Self::X86 { bits: 64 }),
            (elf::EM_386, _) => Some(Self::X86 { bits: 32 }),
            (elf::EM_AARCH64, _) => Some(Self::Arm64),
            (elf::EM_RISCV, 4) => Some(Self::RiscV(RiscVBits::Rv32)),
            (elf::EM_RISCV, _) => Some(Self::RiscV(RiscVBits::Rv64)),
            _ => None,
        }
    }

    /// What stack traces look up in a section: the return address of every call and the address of
    /// every trap, in bytes from the start of the section, ascending.
    ///
    /// The section is decoded from end to end. What is no code in it decodes to something, so there
    /// may be a few more than there are calls and traps.
    pub fn points(self, code: &[u8]) -> Vec<Address<u64>> {
        let mut points = Vec::new();
        self.decode(code, |found| match found.kind {
            Kind::Call => points.push(Address::Return(found.end)),
            Kind::Trap => points.push(Address::Trap(found.start)),
            Kind::Jump => {}
        });
        points
    }

    /// Every direct call and jump of a section, by ascending position.
    ///
    /// As with [`Instructions::points`], what is no code decodes to something.
    pub fn branches(self, code: &[u8]) -> Vec<Branch> {
        let mut branches = Vec::new();
        self.decode(code, |found| {
            branches.extend(found.target.map(|target| Branch {
                at: found.start,
                target,
            }));
        });
        branches
    }

    fn decode(self, code: &[u8], found: impl FnMut(Found)) {
        match self {
            Self::X86 { bits } => x86(code, bits, found),
            Self::Arm64 => arm64(code, found),
            Self::RiscV(bits) => riscv(code, bits, found),
        }
    }
}

/// A direct call or jump; both addresses are in bytes from the start of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Where the instruction is.
    pub at: u64,
    /// Where it goes to, which may be before the section.
    pub target: i64,
}

/// An instruction of interest.
struct Found {
    kind: Kind,
    start: u64,
    /// The address after it.
    end: u64,
    /// Where a direct call or jump goes to.
    target: Option<i64>,
}

#[derive(Clone, Copy)]
enum Kind {
    Call,
    Trap,
    Jump,
}

fn x86(code: &[u8], bits: u32, mut found: impl FnMut(Found)) {
    let mut decoder = Decoder::with_ip(bits, code, 0, DecoderOptions::NONE);
    while decoder.can_decode() {
        let start = decoder.position() as u64;
        let instruction = decoder.decode();
        // The flow control "call" would take in SYSCALL and INT.
        let direct = instruction.is_call_near();
        let kind = if direct || instruction.is_call_near_indirect() {
            Kind::Call
        } else if instruction.is_jmp_short_or_near() || instruction.is_jcc_short_or_near() {
            Kind::Jump
        } else if matches!(
            instruction.mnemonic(),
            Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2
        ) {
            Kind::Trap
        } else {
            continue;
        };
        let target = match kind {
            Kind::Call if !direct => None,
            Kind::Call | Kind::Jump if bits == 32 => {
                Some((instruction.near_branch_target() as i32).into())
            }
            Kind::Call | Kind::Jump => Some(instruction.near_branch_target().cast_signed()),
            Kind::Trap => None,
        };
        found(Found {
            kind,
            start,
            end: decoder.position() as u64,
            target,
        });
    }
}

fn arm64(code: &[u8], mut found: impl FnMut(Found)) {
    let (words, _) = code.as_chunks::<4>();
    for (at, word) in words.iter().enumerate() {
        let start = at as u64 * 4;
        // Instructions are little-endian on big-endian machines as well.
        let Some(instruction) = decoder::decode(u32::from_le_bytes(*word)) else {
            continue;
        };
        let kind = match instruction.id() {
            InsnId::BL_ADDR_PCREL26
            | InsnId::BLR_Rn
            | InsnId::BLRAA_Rn_Rd_SP
            | InsnId::BLRAAZ_Rn
            | InsnId::BLRAB_Rn_Rd_SP
            | InsnId::BLRABZ_Rn => Kind::Call,
            InsnId::B_ADDR_PCREL26 => Kind::Jump,
            InsnId::BRK_EXCEPTION => Kind::Trap,
            _ => continue,
        };
        let direct = matches!(
            instruction.id(),
            InsnId::BL_ADDR_PCREL26 | InsnId::B_ADDR_PCREL26
        );
        // A signed number of instructions in the low 26 bits.
        let words = i64::from((u32::from_le_bytes(*word) << 6).cast_signed() >> 6);
        found(Found {
            kind,
            start,
            end: start + 4,
            target: direct.then(|| start as i64 + words * 4),
        });
    }
}

fn riscv(code: &[u8], bits: RiscVBits, mut found: impl FnMut(Found)) {
    /// The registers in which the ABI has return addresses: `ra`, and `t0` for millicode.
    const LINK: [Option<usize>; 2] = [Some(1), Some(5)];
    let isa = || match bits {
        RiscVBits::Rv32 => Isa::Rv32,
        RiscVBits::Rv64 => Isa::Rv64,
    };
    // What the last instruction put into a register, if that was `auipc`: a distant target, to
    // which `jalr` adds the low bits.
    let mut upper: Option<(Option<usize>, i64)> = None;
    let mut at = 0;
    while let Some((parcel, rest)) = code[at..].split_first_chunk::<2>() {
        let low = u16::from_le_bytes(*parcel);
        let (instruction, size) = match (low & 0b11, rest.first_chunk::<2>()) {
            (0b11, Some(high)) => {
                let high = u16::from_le_bytes(*high);
                ((u32::from(high) << 16 | u32::from(low)).decode(isa()), 4)
            }
            _ => (low.decode(isa()), 2),
        };
        let start = at as u64;
        at += size;
        let last = upper.take();
        let Ok(instruction) = instruction else {
            continue;
        };
        let immediate = i64::from(instruction.imm.unwrap_or(0));
        let near = Some(start as i64 + immediate);
        let far = || {
            let (register, address) = last?;
            (register == instruction.rs1).then_some(address + immediate)
        };
        let links = LINK.contains(&instruction.rd);
        let (kind, target) = match instruction.opc {
            OpcodeKind::BaseI(BaseIOpcode::AUIPC) => {
                // Its immediate is the upper 20 of 32 bits.
                let upper_bits = instruction.imm.unwrap_or(0).wrapping_shl(12);
                upper = Some((instruction.rd, start as i64 + i64::from(upper_bits)));
                continue;
            }
            OpcodeKind::BaseI(BaseIOpcode::JAL) if links => (Kind::Call, near),
            OpcodeKind::BaseI(BaseIOpcode::JALR) if links => (Kind::Call, far()),
            OpcodeKind::BaseI(BaseIOpcode::JAL) => (Kind::Jump, near),
            OpcodeKind::BaseI(BaseIOpcode::JALR) => (Kind::Jump, far()),
            OpcodeKind::C(COpcode::JAL) => (Kind::Call, near),
            OpcodeKind::C(COpcode::JALR) => (Kind::Call, None),
            OpcodeKind::C(COpcode::J) => (Kind::Jump, near),
            OpcodeKind::BaseI(BaseIOpcode::EBREAK) | OpcodeKind::C(COpcode::EBREAK) => {
                (Kind::Trap, None)
            }
            _ => continue,
        };
        found(Found {
            kind,
            start,
            end: at as u64,
            target,
        });
    }
}

#[cfg(test)]
mod tests {
    use Address::{Return, Trap};

    use super::*;

    const RV64: Instructions = Instructions::RiscV(RiscVBits::Rv64);

    #[test]
    fn calls_traps_and_nothing_else() {
        let x86 = Instructions::X86 { bits: 64 };
        // nop; call; syscall; call *%rax; jmp *%rax; int3; ud2
        let code = b"\x90\xe8\0\0\0\0\x0f\x05\xff\xd0\xff\xe0\xcc\x0f\x0b";
        assert_eq!(x86.points(code), [Return(6), Return(10), Trap(13)]);

        // nop; bl .; blr x1; br x1; ret; brk #0x800
        let code = [
            0xd503_201f_u32,
            0x9400_0000,
            0xd63f_0020,
            0xd61f_0020,
            0xd65f_03c0,
            0xd421_0000,
        ];
        let code: Vec<u8> = code.into_iter().flat_map(u32::to_le_bytes).collect();
        let expected = [Return(8), Return(12), Trap(20)];
        assert_eq!(Instructions::Arm64.points(&code), expected);

        // c.nop; jal ra, .; c.jalr a5; jalr ra, a5; c.jr ra; j .; jalr zero, a5;
        // ebreak; c.ebreak
        let code = b"\x01\0\xef\0\0\0\x82\x97\xe7\x80\x07\0\x82\x80\x6f\0\0\0\x67\x80\x07\0\
            \x73\0\x10\0\x02\x90";
        let expected = [Return(6), Return(8), Return(12), Trap(22), Trap(26)];
        assert_eq!(RV64.points(code), expected);
    }

    #[test]
    fn where_direct_calls_and_jumps_go() {
        let branches = |machine: Instructions, code: &[u8]| {
            let branches = machine.branches(code).into_iter();
            branches
                .map(|branch| (branch.at, branch.target))
                .collect::<Vec<_>>()
        };
        // call +0x10; call *%rax; jmp .-2; jne .+4
        let code = b"\xe8\x10\0\0\0\xff\xd0\xeb\xfc\x75\x02";
        let expected = [(0, 0x15), (7, 5), (9, 13)];
        assert_eq!(branches(Instructions::X86 { bits: 64 }, code), expected);
        // call to 16 bytes before the section
        let code = b"\xe8\xeb\xff\xff\xff";
        for bits in [32, 64] {
            assert_eq!(branches(Instructions::X86 { bits }, code), [(0, -16)]);
        }

        // bl .+8; b .-4; blr x1
        let code = [0x9400_0002_u32, 0x17ff_ffff, 0xd63f_0020];
        let code: Vec<u8> = code.into_iter().flat_map(u32::to_le_bytes).collect();
        assert_eq!(branches(Instructions::Arm64, &code), [(0, 8), (4, 0)]);

        // jal ra, .+16; c.j .-4; auipc ra, 0x1; jalr ra, -8(ra); c.jalr a5
        let code = b"\xef\0\0\x01\xf5\xbf\x97\x10\0\0\xe7\x80\x80\xff\x82\x97";
        assert_eq!(branches(RV64, code), [(0, 16), (4, 0), (10, 0x1006 - 8)]);
        // auipc ra, 0xfffff; jalr ra, 8(ra)
        let code = b"\x97\xf0\xff\xff\xe7\x80\x80\0";
        assert_eq!(branches(RV64, code), [(4, 8 - 0x1000)]);
    }

    #[test]
    fn what_is_no_code_decodes_to_something() {
        let mut random = fastrand::Rng::with_seed(1);
        for len in 0..512 {
            let mut code = vec![0; len];
            random.fill(&mut code);
            for machine in [
                Instructions::X86 { bits: 32 },
                Instructions::Arm64,
                RV64,
                Instructions::RiscV(RiscVBits::Rv32),
            ] {
                let points = machine.points(&code);
                let bytes: Vec<_> = points.iter().map(|point| point.byte()).collect();
                assert!(bytes.iter().all(|byte| *byte < Some(len as u64)));
                assert!(bytes.is_sorted());
            }
        }
    }
}
