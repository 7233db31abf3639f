//! `Code:` lines of x86: the bytes around an instruction that faulted, disassembled.
//!
//! ```text
//! Code: 48 89 e5 <0f> 0b c3
//!    0:  48 89 e5                mov %rsp,%rbp
//!    3:* 0f 0b                   ud2
//!    5:  c3                      ret
//! ```

use bstr::ByteSlice;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Instruction};
use memchr::memmem;
use serde::Serialize;

/// The longest instruction, in bytes.
const INSTRUCTION_MAX: usize = 15;

/// The bytes of a `Code:` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    bytes: Vec<u8>,
    /// Where the instruction is that faulted.
    fault: usize,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disassembled {
    /// Bytes from the start of the code.
    pub offset: usize,
    /// Its bytes, in hexadecimal.
    pub bytes: String,
    /// In the syntax of AT&T, as kernel developers read it.
    pub text: String,
    /// It is the one that faulted.
    pub faulting: bool,
}

impl Code {
    /// What a line has; `None` if it is no `Code:` line, or does not mark the instruction.
    pub fn of_line(line: &[u8]) -> Option<Self> {
        let at = memmem::find(line, b"Code: ")?;
        let mut bytes = Vec::new();
        let mut fault = None;
        for word in line[at + 6..].trim_ascii().split(|byte| *byte == b' ') {
            let (digits, is_fault) = match word.strip_prefix(b"<") {
                Some(inner) => (inner.strip_suffix(b">")?, true),
                None => (word, false),
            };
            // Other architectures print words of four bytes.
            if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            if is_fault {
                fault = Some(bytes.len());
            }
            bytes.push(u8::from_str_radix(digits.to_str().ok()?, 16).ok()?);
        }
        let fault = fault?;
        Some(Self { bytes, fault })
    }

    /// Its instructions, in code of so many bits.
    ///
    /// Where the first begins is not known. It is the first byte from which all instructions up to the one
    /// that faulted are valid, and end where that begins; the bytes before it are shown as data.
    pub fn disassemble(&self, bits: u32) -> Vec<Disassembled> {
        let before = &self.bytes[..self.fault];
        let start = (0..=before.len().min(INSTRUCTION_MAX))
            .find(|start| self.reaches_fault(*start, bits))
            .unwrap_or(self.fault);
        let data = before[..start].iter().enumerate();
        let mut all: Vec<Disassembled> = data
            .map(|(offset, byte)| self.one(offset, 1, format!(".byte 0x{byte:02x}")))
            .collect();
        let mut formatter = GasFormatter::new();
        for instruction in instructions(&self.bytes[start..], bits) {
            let offset = start + instruction.ip() as usize;
            let mut text = String::new();
            match instruction.is_invalid() {
                true => text.push_str("(bad)"),
                false => formatter.format(&instruction, &mut text),
            }
            all.push(self.one(offset, instruction.len(), text));
        }
        all
    }

    fn reaches_fault(&self, start: usize, bits: u32) -> bool {
        let before = &self.bytes[start..self.fault];
        let mut end = 0;
        for instruction in instructions(before, bits) {
            if instruction.is_invalid() {
                return false;
            }
            end = instruction.next_ip() as usize;
        }
        end == before.len()
    }

    fn one(&self, offset: usize, len: usize, text: String) -> Disassembled {
        let bytes = &self.bytes[offset..offset + len];
        let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Disassembled {
            offset,
            bytes: bytes.join(" "),
            text,
            faulting: offset == self.fault,
        }
    }
}

/// The instructions of some code, the first at address 0.
fn instructions(code: &[u8], bits: u32) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(bits, code, 0, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
}

impl Disassembled {
    /// A line of text, with its newline.
    pub fn to_line(&self) -> String {
        let mark = if self.faulting { '*' } else { ' ' };
        format!(
            "{:4x}:{mark} {:<24}{}\n",
            self.offset, self.bytes, self.text
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(code: &str, bits: u32) -> Option<String> {
        let code = Code::of_line(code.as_bytes())?;
        let lines = code.disassemble(bits).into_iter();
        Some(lines.map(|one| one.to_line()).collect())
    }

    #[test]
    fn the_faulting_instruction_is_marked() {
        let found = lines("[ 1.0] Code: 48 89 e5 <0f> 0b c3\r\n", 64);
        let expected = "   0:  48 89 e5                mov %rsp,%rbp\n   3:* 0f 0b                   ud2\n   5:  c3                      ret\n";
        assert_eq!(found.as_deref(), Some(expected));
    }

    #[test]
    fn what_begins_in_an_instruction_is_data_up_to_the_next() {
        // The end of `mov $0x0,%eax`, and 0f 0b after it: no instruction may end inside.
        let found = lines("Code: 0f <90> c3", 64).expect("code");
        assert!(
            found.starts_with("   0:  0f                      .byte 0x0f\n   1:* 90 "),
            "{found}"
        );
        // Cut at the end.
        let found = lines("Code: 90 <48> 8b", 64).expect("code");
        assert!(
            found.ends_with("   1:* 48 8b                   (bad)\n"),
            "{found}"
        );
    }

    #[test]
    fn bits() {
        let found = |bits| lines("Code: <48> ff c0", bits).expect("code");
        assert!(found(64).contains("inc %rax"), "{}", found(64));
        assert!(found(32).contains("dec %eax"), "{}", found(32));
    }

    #[test]
    fn other_lines() {
        for line in [
            "Code: d503201f d65f03c0 (d4210000)",
            "Code: Unable to access opcode bytes at 0x7f0000000000.",
            "Code: 48 89 e5 0f 0b",
            "Code: ",
            "No code",
            "Code: <4> 5",
            "Code: <é> 5",
        ] {
            assert_eq!(Code::of_line(line.as_bytes()), None, "{line}");
        }
    }
}
