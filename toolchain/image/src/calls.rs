//! Which system calls a program holds: [`calls`] looks for the number before each `syscall`, and before each call of a function
//! that gets it as an argument (C's `syscall`, Go's `Syscall6`).
//!
//! It looks at code, not at runs: a call in code that never runs counts, and a number that is computed is not found.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use crate::program::Program;

/// Instructions looked at before a site.
const NEIGHBOURS: usize = 24;
/// No system call has a number from here on.
const NUMBERS: u64 = 1024;
/// Functions that pass a number on to each other are followed so far.
const DEPTH: usize = 4;

/// What a program can ask of its kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Number -> functions that hold the call, mangled, as far as the program has symbols.
    pub known: BTreeMap<u64, BTreeSet<String>>,
    /// Functions with a call whose number was not found.
    pub unknown: BTreeSet<String>,
}

/// A place where a number may be known: a `syscall`, or a call of another function.
struct Place {
    vaddr: u64,
    /// Called function; `None` for `syscall`.
    target: Option<u64>,
    /// Constants in eax and edi.
    eax: Option<u64>,
    edi: Option<u64>,
}

/// Looks at all of `program`'s code.
pub fn calls(program: &Program<'_>) -> Calls {
    let places = places(program);
    let mut calls = Calls::default();
    let mut wrappers = BTreeSet::new();
    for place in places.iter().filter(|p| p.target.is_none()) {
        let (start, name) = function(program, place.vaddr);
        match place.eax {
            Some(number) => _ = calls.known.entry(number).or_default().insert(name),
            None => _ = wrappers.insert((start, name)),
        }
    }
    for _ in 0..DEPTH {
        let mut callers = BTreeSet::new();
        for (start, name) in &wrappers {
            let mut found = false;
            for place in places.iter().filter(|p| p.target == Some(*start)) {
                let (outer, outer_name) = function(program, place.vaddr);
                match place.edi.or(place.eax) {
                    Some(number) => _ = calls.known.entry(number).or_default().insert(outer_name),
                    None if outer != *start && passes_on(&outer_name) => {
                        callers.insert((outer, outer_name));
                    }
                    None => _ = calls.unknown.insert(outer_name),
                }
                found = true;
            }
            if !found {
                calls.unknown.insert(name.clone());
            }
        }
        wrappers = callers;
    }
    calls
        .unknown
        .extend(wrappers.into_iter().map(|(_, name)| name));
    calls
}

/// Whether a function's own job is to make system calls for others.
fn passes_on(name: &str) -> bool {
    name.to_ascii_lowercase().contains("syscall")
}

/// The function around `vaddr`: where it starts, and its name.
fn function(program: &Program<'_>, vaddr: u64) -> (u64, String) {
    let after = program.symbols.partition_point(|s| s.vaddr <= vaddr);
    let symbol = program.symbols[..after].iter().rev().find(|s| s.function);
    match symbol {
        Some(symbol) => (
            symbol.vaddr,
            String::from_utf8_lossy(symbol.name).into_owned(),
        ),
        None => {
            let at = program.cuts.partition_point(|&cut| cut <= vaddr);
            let start = at.checked_sub(1).map_or(vaddr, |at| program.cuts[at]);
            (start, format!("{start:#x}"))
        }
    }
}

fn places(program: &Program<'_>) -> Vec<Place> {
    let mut places = Vec::new();
    for code in &program.code {
        let first = program.cuts.partition_point(|&c| c < code.start);
        let inside = |c: &u64| *c < code.end;
        let cuts = program.cuts[first..].iter().copied().take_while(inside);
        let starts = std::iter::once(code.start).chain(cuts.clone());
        for (start, end) in starts.zip(cuts.chain([code.end])) {
            piece(program, start, end, &mut places);
        }
    }
    places
}

/// Decodes the code between two places where instructions start.
fn piece(program: &Program<'_>, start: u64, end: u64, places: &mut Vec<Place>) {
    let Some(bytes) = program.bytes_at(start, (end - start) as usize) else {
        return;
    };
    let mut before: VecDeque<Instruction> = VecDeque::with_capacity(NEIGHBOURS);
    for instruction in Decoder::with_ip(64, bytes, start, DecoderOptions::NONE).iter() {
        let target = match instruction.code() {
            Code::Syscall => Some(None),
            Code::Call_rel32_64 | Code::Jmp_rel32_64 => {
                Some(Some(instruction.near_branch_target()))
            }
            _ => None,
        };
        if let Some(target) = target {
            places.push(Place {
                vaddr: instruction.ip(),
                target,
                eax: constant(&before, Register::RAX),
                edi: constant(&before, Register::RDI),
            });
        }
        if before.len() == NEIGHBOURS {
            before.pop_front();
        }
        before.push_back(instruction);
    }
}

/// The number that `register` holds after `before`, when an instruction there sets it to a constant, or copies one.
fn constant(before: &VecDeque<Instruction>, register: Register) -> Option<u64> {
    let mut register = register;
    for instruction in before.iter().rev() {
        if !matches!(
            instruction.flow_control(),
            FlowControl::Next | FlowControl::ConditionalBranch
        ) {
            return None;
        }
        let writes = !matches!(
            instruction.mnemonic(),
            Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push
        );
        if !writes
            || instruction.op_count() == 0
            || instruction.op0_kind() != OpKind::Register
            || instruction.op0_register().full_register() != register
        {
            continue;
        }
        if instruction.mnemonic() == Mnemonic::Mov && instruction.op1_kind() == OpKind::Register {
            register = instruction.op1_register().full_register();
            continue;
        }
        return set_to(instruction).filter(|&number| number < NUMBERS);
    }
    None
}

/// What `mov` or `xor` puts into its first operand.
fn set_to(instruction: &Instruction) -> Option<u64> {
    match instruction.mnemonic() {
        Mnemonic::Mov => instruction.try_immediate(1).ok(),
        Mnemonic::Xor if instruction.op0_register() == instruction.op1_register() => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::code_asm::*;

    fn known(write: impl FnOnce(&mut CodeAssembler)) -> Option<u64> {
        let mut code = CodeAssembler::new(64).unwrap();
        write(&mut code);
        let bytes = code.assemble(0x1000).unwrap();
        let mut before = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE);
        constant(&before.iter().collect(), Register::RAX)
    }

    #[test]
    fn numbers_are_followed_through_copies() {
        let mov = |number: u32| known(|a| a.mov(eax, number).unwrap());
        assert_eq!((mov(231), mov(1024)), (Some(231), None));
        assert_eq!(known(|a| a.xor(eax, eax).unwrap()), Some(0));
        let copied = known(|a| {
            a.mov(ecx, 39).unwrap();
            a.mov(rax, rcx).unwrap();
            a.cmp(rax, rdi).unwrap();
        });
        assert_eq!(copied, Some(39));
        let argument = known(|a| a.mov(rax, rdi).unwrap());
        assert_eq!(argument, None);
        let called = known(|a| {
            a.mov(eax, 1).unwrap();
            a.call(0x2000u64).unwrap();
        });
        assert_eq!(called, None);
    }
}
