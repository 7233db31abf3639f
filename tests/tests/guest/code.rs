//! The instructions of the module's object, as objdump prints them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use object::{Object as _, ObjectSymbol};

use crate::machine::run;

/// A function of the module.
#[derive(Debug, Default)]
struct Function {
    /// What it takes of the stack at most, with its return address, in bytes.
    stack: u64,
    /// The functions that it calls or jumps to.
    callees: BTreeSet<String>,
}

/// What was found of a module.
#[derive(Debug)]
pub(crate) struct Code {
    functions: BTreeMap<String, Function>,
    /// How many instructions it has.
    pub(crate) instructions: usize,
}

/// The machine that the instructions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    X86,
    Arm64,
}

impl Code {
    /// Reads a module.
    ///
    /// # Errors
    ///
    /// An instruction or a symbol that must not be there.
    pub(crate) fn read(path: &Path, is_arm64: bool) -> Result<Self> {
        let (machine, objdump) = match is_arm64 {
            false => (Machine::X86, "x86_64-linux-gnu-objdump"),
            true => (Machine::Arm64, "aarch64-linux-gnu-objdump"),
        };
        no_symbol_of_panics(path)?;
        let text = run(Command::new(objdump)
            .args(["-dr", "--no-show-raw-insn", "-j", ".text"])
            .arg(path))?;
        let mut code = Self {
            functions: BTreeMap::new(),
            instructions: 0,
        };
        let mut current = String::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_suffix(">:") {
                let name = name.split_once(" <").context("a function")?.1;
                current = name.to_owned();
                code.functions.insert(current.clone(), Function::default());
            } else if let Some((_, instruction)) = line.split_once(":\t")
                && let Some(function) = code.functions.get_mut(&current)
            {
                code.instructions += 1;
                let target = function.add(machine, &current, instruction.trim_end())?;
                // A relocation comes after its instruction, and says where that leads.
                let relocation = lines.peek().and_then(|next| relocation(next));
                let target = match relocation {
                    Some((kind, symbol)) if is_call(kind) => Some(name_of(symbol).to_owned()),
                    _ => target,
                };
                function.callees.extend(target);
            }
        }
        for function in code.functions.values_mut() {
            // The return address; on arm64 it is in what a function saves.
            function.stack += if machine == Machine::X86 { 8 } else { 0 };
        }
        Ok(code)
    }

    /// What a function takes of the stack at most with all that it calls in the module, in bytes.
    ///
    /// # Errors
    ///
    /// If there is no such function, or it calls itself.
    pub(crate) fn stack_of(&self, name: &str) -> Result<u64> {
        ensure!(self.functions.contains_key(name), "no function {name}");
        self.stack_below(name, &[])
    }

    fn stack_below(&self, name: &str, callers: &[&str]) -> Result<u64> {
        ensure!(!callers.contains(&name), "{name} calls itself: {callers:?}");
        // The functions of the kernel are not counted.
        let Some(function) = self.functions.get(name) else {
            return Ok(0);
        };
        let callers = [callers, &[name]].concat();
        let mut most = 0;
        for callee in function.callees.iter().filter(|callee| *callee != name) {
            most = most.max(self.stack_below(callee, &callers)?);
        }
        Ok(function.stack + most)
    }
}

impl Function {
    /// Takes an instruction into account; says where it leads, if no relocation does.
    fn add(&mut self, machine: Machine, name: &str, instruction: &str) -> Result<Option<String>> {
        let (mnemonic, operands) = instruction
            .split_once([' ', '\t'])
            .map_or((instruction, ""), |(mnemonic, operands)| {
                (mnemonic, operands.trim())
            });
        let at = || format!("{name}: {instruction}");
        ensure!(
            !instruction.contains("(bad)") && !mnemonic.starts_with(".inst"),
            "{}",
            at()
        );
        ensure!(
            !is_indirect(machine, mnemonic, operands),
            "{} is indirect",
            at()
        );
        ensure!(
            !has_vector(machine, operands),
            "{} needs a vector register",
            at()
        );
        ensure!(
            !is_below_stack(machine, mnemonic, operands),
            "{} is below the stack pointer",
            at()
        );
        self.stack += taken(machine, mnemonic, operands).with_context(at)?;
        let target = operands.split_once('<').map(|(_, target)| target);
        let target = target.filter(|_| is_branch(machine, mnemonic));
        Ok(target.map(|target| name_of(target.trim_end_matches('>')).to_owned()))
    }
}

/// The kind and the symbol of a relocation in a line.
fn relocation(line: &str) -> Option<(&str, &str)> {
    let text = line.trim_start().split_once(": R_")?.1;
    text.split_once('\t')
}

/// Whether a relocation of this kind may be that of a call or a jump.
fn is_call(kind: &str) -> bool {
    ["PLT32", "PC32", "CALL26", "JUMP26"]
        .iter()
        .any(|call| kind.ends_with(call))
}

/// The name in `name+0x10` or `name-0x4`.
fn name_of(symbol: &str) -> &str {
    symbol.split(['+', '-']).next().unwrap_or(symbol)
}

fn no_symbol_of_panics(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path)?;
    let object = object::File::parse(&*bytes)?;
    for symbol in object.symbols() {
        let name = format!("{:#}", rustc_demangle::demangle(symbol.name()?));
        for refused in [
            "core::fmt",
            "core::panicking",
            "alloc::",
            "rust_begin_unwind",
        ] {
            ensure!(!name.contains(refused), "{name}");
        }
    }
    Ok(())
}

fn is_branch(machine: Machine, mnemonic: &str) -> bool {
    match machine {
        Machine::X86 => mnemonic.starts_with('j') || mnemonic.starts_with("call"),
        Machine::Arm64 => mnemonic == "bl" || mnemonic == "b",
    }
}

fn is_indirect(machine: Machine, mnemonic: &str, operands: &str) -> bool {
    match machine {
        Machine::X86 => {
            is_branch(machine, mnemonic)
                && (operands.starts_with('*') || operands.contains("indirect_thunk"))
        }
        Machine::Arm64 => {
            mnemonic.starts_with("blr") || mnemonic == "br" || mnemonic.starts_with("bra")
        }
    }
}

fn has_vector(machine: Machine, operands: &str) -> bool {
    match machine {
        Machine::X86 => ["%xmm", "%ymm", "%zmm", "%mm", "%st", "%k"]
            .iter()
            .any(|register| operands.contains(register)),
        // Of one letter and a number: v0.16b, q0, d0, s0, h0, b0. So are addresses, before a name.
        Machine::Arm64 => {
            let operands = match operands.split_once('<') {
                Some((before, _)) => {
                    before
                        .trim_end()
                        .rsplit_once([' ', ','])
                        .unwrap_or_default()
                        .0
                }
                None => operands,
            };
            operands
                .split([',', ' ', '[', ']', '{', '}'])
                .any(|operand| {
                    let register = operand.split('.').next().unwrap_or_default();
                    let number = register.strip_prefix(['v', 'q', 'd', 's', 'h', 'b']);
                    number.is_some_and(|number| number.parse::<u8>().is_ok())
                })
        }
    }
}

/// It reads or writes what an interrupt may overwrite.
fn is_below_stack(machine: Machine, mnemonic: &str, operands: &str) -> bool {
    match machine {
        Machine::X86 => {
            let displacement = operands.split("(%rsp").next().unwrap_or_default();
            let displacement = displacement.rsplit([',', ' ', ':']).next();
            operands.contains("(%rsp")
                && displacement.is_some_and(|displacement| displacement.starts_with('-'))
                && !mnemonic.starts_with("lea")
        }
        // With `!` the stack pointer moves first.
        Machine::Arm64 => operands.contains("[sp, #-") && !operands.ends_with('!'),
    }
}

/// What an instruction takes of the stack, in bytes. All that a function takes at its beginning, or on one
/// way through it, is added up.
fn taken(machine: Machine, mnemonic: &str, operands: &str) -> Result<u64> {
    let number = |text: &str| -> Result<i64> {
        let text = text.trim();
        match text.strip_prefix("0x") {
            Some(digits) => Ok(u64::from_str_radix(digits, 16)?.cast_signed()),
            None => Ok(text.parse()?),
        }
    };
    let taken = match (machine, mnemonic) {
        (Machine::X86, "push") => 8,
        (Machine::X86, "sub") if operands.ends_with(",%rsp") => {
            number(operands.trim_start_matches('$').trim_end_matches(",%rsp"))?
        }
        // gcc subtracts 128 in this way, for the number is shorter.
        (Machine::X86, "add") if operands.ends_with(",%rsp") => {
            -number(operands.trim_start_matches('$').trim_end_matches(",%rsp"))?
        }
        (Machine::Arm64, "sub") if operands.starts_with("sp, sp, #") => {
            let mut parts = operands
                .trim_start_matches("sp, sp, #")
                .split([',', '/', '\t']);
            let amount = number(parts.next().unwrap_or_default())?;
            if operands.contains("lsl #12") {
                amount << 12
            } else {
                amount
            }
        }
        (Machine::Arm64, _) if operands.ends_with("]!") && operands.contains("[sp, #-") => {
            let (_, amount) = operands.split_once("[sp, #-").context("an offset")?;
            number(amount.trim_end_matches("]!"))?
        }
        _ => 0,
    };
    // What is freed again may be taken on another way.
    Ok(u64::try_from(taken).unwrap_or(0))
}
