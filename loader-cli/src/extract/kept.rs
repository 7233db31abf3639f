//! Functions of init text whose frames stay on a stack for ever.
//!
//! The kernel frees init text after boot, and yet the idle task of the first CPU was started by it:
//! below `cpu_startup_entry` its stack has `start_kernel` and what called that, up to the entry. So
//! each trace of that task shows them, and their rows must be kept.
//!
//! The callers are found by the direct calls and jumps in init text, over and over until there are no
//! more. The cold part of a function is found as well, if it jumps back.

use std::ops::Range;

use super::elf::{Elf, TextSection};
use crate::error::Error;
use crate::points::Instructions;

/// The functions that never return, with which the search begins.
const ROOTS: [&str; 2] = ["start_kernel", "rest_init"];

/// Pieces begin and end at multiples of this in their section, for a packed table of calls is smaller
/// where rows begin at such.
const ALIGN: u64 = 16;

/// Two pieces that are not this far apart are one: what is between them costs less than two more
/// regions.
const APART_MIN: u64 = 512;

/// The addresses of these functions in init text, ascending and without overlap.
///
/// Without an instruction decoder for the machine they are the functions themselves, and not their
/// callers.
pub(super) fn kept(elf: &Elf<'_>) -> Result<Vec<Range<u64>>, Error> {
    let sections: Vec<_> = elf.identity.text.iter().filter(|text| text.init).collect();
    // A module has no such function.
    if sections.is_empty() || elf.identity.relocatable {
        return Ok(Vec::new());
    }
    let mut functions = Vec::new();
    let mut found = Vec::new();
    for symbol in elf.functions()? {
        let end = symbol.address.saturating_add(symbol.size);
        if ROOTS.iter().any(|root| symbol.is_part_of(root)) {
            found.push(symbol.address..end.max(symbol.address + 1));
        }
        let holds = |text: &&&TextSection| (text.address..text.end()).contains(&symbol.address);
        if let Some(section) = sections.iter().find(holds) {
            functions.push(Function {
                start: symbol.address,
                end: end.min(section.end()),
                limit: section.end(),
                kept: false,
            });
        }
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    set_ends(&mut functions);
    let _scope = elf.budget().scope();
    let branches = branches(elf, &sections)?;
    while let Some(callee) = found.pop() {
        let first = branches.partition_point(|branch| branch.target < callee.start);
        let to_it = branches[first..].iter();
        let to_it = to_it.take_while(|branch| branch.target < callee.end);
        for at in to_it.map(|branch| branch.at).chain([callee.start]) {
            let after = functions.partition_point(|function| function.start <= at);
            let function = after.checked_sub(1).map(|last| &mut functions[last]);
            if let Some(function) = function.filter(|function| !function.kept && at < function.end)
            {
                function.kept = true;
                found.push(function.start..function.end);
            }
        }
    }
    functions.retain(|function| function.kept);
    Ok(merge(&functions, &sections))
}

/// The addresses of functions, in few pieces.
fn merge(functions: &[Function], sections: &[&TextSection]) -> Vec<Range<u64>> {
    let mut pieces: Vec<Range<u64>> = Vec::new();
    for section in sections {
        let first = pieces.len();
        let inside = functions
            .iter()
            .filter(|function| (section.address..section.end()).contains(&function.start));
        for function in inside {
            let offset = function.start - section.address;
            let start = section.address + offset / ALIGN * ALIGN;
            let len = (function.end - section.address).next_multiple_of(ALIGN);
            let end = (section.address + len).min(section.end());
            match pieces[first..].last_mut() {
                Some(last) if start <= last.end + APART_MIN => last.end = end,
                _ => pieces.push(start..end),
            }
        }
    }
    pieces
}

/// A function of init text.
#[derive(Debug)]
struct Function {
    start: u64,
    end: u64,
    /// The end of its section.
    limit: u64,
    kept: bool,
}

/// Sorts functions, and gives those of unknown size an end: the start of the next. None reaches into
/// another.
fn set_ends(functions: &mut Vec<Function>) {
    functions.sort_by_key(|function| (function.start, function.end));
    // Of several symbols at one address the longest counts.
    functions.reverse();
    functions.dedup_by_key(|function| function.start);
    let mut next = u64::MAX;
    for function in &mut *functions {
        let limit = function.limit.min(next);
        if function.end == function.start {
            function.end = limit;
        }
        function.end = function.end.min(limit);
        next = function.start;
    }
    functions.reverse();
}

/// A direct call or jump, by addresses.
struct Branch {
    at: u64,
    target: u64,
}

/// Those of all sections, by ascending target.
fn branches(elf: &Elf<'_>, sections: &[&TextSection]) -> Result<Vec<Branch>, Error> {
    let mut branches = Vec::new();
    let Some(instructions) = Instructions::of(elf.identity.machine, elf.address_size()) else {
        return Ok(branches);
    };
    for section in sections {
        let code = elf.code(section)?;
        // A jump of two bytes is a branch of 16, twice, in lists that grow to twice their length.
        elf.budget()
            .charge("branches of init text", code.len() as u64 * 32)
            .map_err(|source| elf.over_budget(source))?;
        let of_section = instructions.branches(code).into_iter();
        branches.extend(of_section.map(|branch| Branch {
            at: section.address + branch.at,
            target: section.address.wrapping_add_signed(branch.target),
        }));
    }
    branches.sort_unstable_by_key(|branch| (branch.target, branch.at));
    Ok(branches)
}
