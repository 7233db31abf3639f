//! Where stack traces look: at calls, for the return addresses behind them, and at traps.
//!
//! A trap is an instruction that the compiler puts where a check has failed (`ud2` and its like);
//! its address is the RIP of the report.

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
        match self {
            Self::X86 { bits } => x86(code, bits),
            Self::Arm64 => arm64(code),
            Self::RiscV(bits) => riscv(code, bits),
        }
    }
}

fn x86(code: &[u8], bits: u32) -> Vec<Address<u64>> {
    let mut points = Vec::new();
    let mut decoder = Decoder::with_ip(bits, code, 0, DecoderOptions::NONE);
    while decoder.can_decode() {
        let start = decoder.position() as u64;
        let instruction = decoder.decode();
        // The flow control "call" would take in SYSCALL and INT.
        if instruction.is_call_near() || instruction.is_call_near_indirect() {
            points.push(Address::Return(decoder.position() as u64));
        } else if matches!(
            instruction.mnemonic(),
            Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2
        ) {
            points.push(Address::Trap(start));
        }
    }
    points
}

fn arm64(code: &[u8]) -> Vec<Address<u64>> {
    let (words, _) = code.as_chunks::<4>();
    let point = |(at, word): (usize, &[u8; 4])| {
        let start = at as u64 * 4;
        // Instructions are little-endian on big-endian machines as well.
        match decoder::decode(u32::from_le_bytes(*word))?.id() {
            InsnId::BL_ADDR_PCREL26
            | InsnId::BLR_Rn
            | InsnId::BLRAA_Rn_Rd_SP
            | InsnId::BLRAAZ_Rn
            | InsnId::BLRAB_Rn_Rd_SP
            | InsnId::BLRABZ_Rn => Some(Address::Return(start + 4)),
            InsnId::BRK_EXCEPTION => Some(Address::Trap(start)),
            _ => None,
        }
    };
    words.iter().enumerate().filter_map(point).collect()
}

fn riscv(code: &[u8], bits: RiscVBits) -> Vec<Address<u64>> {
    /// The registers in which the ABI has return addresses: `ra`, and `t0` for millicode.
    const LINK: [Option<usize>; 2] = [Some(1), Some(5)];
    let isa = || match bits {
        RiscVBits::Rv32 => Isa::Rv32,
        RiscVBits::Rv64 => Isa::Rv64,
    };
    let mut points = Vec::new();
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
        let Ok(instruction) = instruction else {
            continue;
        };
        match instruction.opc {
            OpcodeKind::BaseI(BaseIOpcode::JAL | BaseIOpcode::JALR)
                if LINK.contains(&instruction.rd) =>
            {
                points.push(Address::Return(at as u64));
            }
            OpcodeKind::C(COpcode::JAL | COpcode::JALR) => points.push(Address::Return(at as u64)),
            OpcodeKind::BaseI(BaseIOpcode::EBREAK) | OpcodeKind::C(COpcode::EBREAK) => {
                points.push(Address::Trap(start));
            }
            _ => {}
        }
    }
    points
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
