//! Finds `syscall` and `cpuid` instructions and decodes what stands around them.
//!
//! The byte pairs are looked for first; then only the pieces of code between two cuts (places where an instruction is known to
//! start) that hold a pair, or lie near one, are decoded. A pair that decoding does not meet lies inside another instruction.

use std::collections::BTreeMap;
use std::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};

use super::SiteKind;
use crate::program::Program;

/// Code this near to a site is decoded for its branches, bytes; [`super::targets`] finds farther ones without decoding.
pub const NEAR: u64 = 1024;
/// Instructions kept on each side of a site.
const NEIGHBOURS: usize = 8;

/// One decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Address.
    pub vaddr: u64,
    /// Its bytes, `len` of them.
    pub bytes: [u8; 15],
    /// Length, 1..=15.
    pub len: u8,
    /// Whether it can be made to mean the same at another address and goes on to the next instruction.
    pub movable: bool,
    /// Whether it is a plain `ret`.
    pub ret: bool,
    /// Where its rip-relative distance stands in `bytes`, and the address that it means.
    pub relative: Option<(u8, u64)>,
}

impl Insn {
    /// Address after it.
    pub fn end(&self) -> u64 {
        self.vaddr + u64::from(self.len)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A `syscall` or `cpuid` with its neighbours.
#[derive(Clone, Debug)]
pub struct Site {
    /// Which.
    pub kind: SiteKind,
    /// Adjacent instructions in address order.
    pub insns: Vec<Insn>,
    /// Index of the site itself in `insns`.
    pub index: usize,
    /// Whether it is an instruction beyond doubt.
    pub certain: bool,
    /// Addresses that instructions near the site refer to.
    pub local_targets: Vec<u64>,
}

impl Site {
    /// Its address.
    pub fn vaddr(&self) -> u64 {
        self.insns[self.index].vaddr
    }

    /// All addresses of the kept instructions.
    pub fn span(&self) -> Range<u64> {
        let last = self.insns.last().map_or(0, Insn::end);
        self.insns.first().map_or(0, |i| i.vaddr)..last
    }
}

/// A piece of code between two cuts.
#[derive(Default)]
struct Piece {
    insns: Vec<Insn>,
    /// Indices of sites.
    sites: Vec<(usize, SiteKind)>,
    /// Referred addresses with the address of the instruction, in address order.
    refers: Vec<(u64, u64)>,
    end: u64,
}

/// All sites in address order.
pub fn sites(program: &Program<'_>) -> Vec<Site> {
    let candidates = candidates(program);
    let mut pieces: BTreeMap<u64, Piece> = BTreeMap::new();
    for &at in &candidates {
        for range in ranges_near(program, at) {
            pieces.entry(range.start).or_insert_with(|| decode(program, range));
        }
    }
    let mut sites = Vec::new();
    for piece in pieces.values() {
        sites.extend(piece.sites.iter().map(|&(index, kind)| site(program, &pieces, piece, index, kind)));
    }
    sites
}

/// Addresses of the byte pairs `0f 05` and `0f a2` in code.
fn candidates(program: &Program<'_>) -> Vec<u64> {
    let mut found = Vec::new();
    for (range, bytes) in code(program) {
        for pair in [b"\x0f\x05", b"\x0f\xa2"] {
            found.extend(memchr::memmem::find_iter(bytes, pair).map(|at| range.start + at as u64));
        }
    }
    found.sort_unstable();
    found
}

fn code<'a>(program: &'a Program<'_>) -> impl Iterator<Item = (Range<u64>, &'a [u8])> {
    program.code.iter().filter_map(|r| Some((r.clone(), program.bytes_at(r.start, (r.end - r.start) as usize)?)))
}

/// The pieces of code that overlap `at` +- [`NEAR`].
fn ranges_near(program: &Program<'_>, at: u64) -> Vec<Range<u64>> {
    let Some(code) = program.code.iter().find(|r| r.contains(&at)) else { return Vec::new() };
    let (low, high) = (at.saturating_sub(NEAR).max(code.start), (at + NEAR).min(code.end));
    let cuts = &program.cuts;
    let first = cuts.partition_point(|&c| c <= low).saturating_sub(1);
    let end = |index: usize| cuts.get(index + 1).map_or(code.end, |&c| c.min(code.end));
    (first..cuts.len()).take_while(|&i| cuts[i] < high).map(|i| cuts[i].max(code.start)..end(i)).filter(|r| !r.is_empty()).collect()
}

fn decode(program: &Program<'_>, range: Range<u64>) -> Piece {
    let mut piece = Piece { end: range.end, ..Piece::default() };
    let Some(bytes) = program.bytes_at(range.start, (range.end - range.start) as usize) else { return piece };
    let mut decoder = Decoder::with_ip(64, bytes, range.start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let at = (instruction.ip() - range.start) as usize;
        match instruction.code() {
            Code::Syscall => piece.sites.push((piece.insns.len(), SiteKind::Syscall)),
            Code::Cpuid => piece.sites.push((piece.insns.len(), SiteKind::Cpuid)),
            _ => {}
        }
        piece.refers.extend(referred(&instruction).map(|target| (instruction.ip(), target)));
        let distance_at = decoder.get_constant_offsets(&instruction).displacement_offset();
        piece.insns.push(insn(&instruction, &bytes[at..at + instruction.len()], distance_at));
    }
    piece
}

fn insn(instruction: &Instruction, encoded: &[u8], distance_at: usize) -> Insn {
    let mut bytes = [0; 15];
    bytes[..encoded.len()].copy_from_slice(encoded);
    let special = matches!(instruction.code(), Code::Syscall | Code::Cpuid | Code::Endbr64 | Code::INVALID);
    // 32-bit rip-relative addresses (prefix 67) would need care that nobody's code is worth.
    let relative = instruction.is_ip_rel_memory_operand();
    let plain = !relative || instruction.memory_base() == Register::RIP;
    Insn {
        vaddr: instruction.ip(),
        bytes,
        len: encoded.len() as u8,
        movable: !special && plain && instruction.flow_control() == FlowControl::Next,
        ret: instruction.code() == Code::Retnq,
        relative: relative.then(|| (distance_at as u8, instruction.ip_rel_memory_address())),
    }
}

/// The code address that an instruction names: branch target, rip-relative operand, or (for `endbr64`) itself.
fn referred(instruction: &Instruction) -> Option<u64> {
    let branch = matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    if branch {
        Some(instruction.near_branch_target())
    } else if instruction.is_ip_rel_memory_operand() {
        Some(instruction.ip_rel_memory_address())
    } else {
        (instruction.code() == Code::Endbr64).then(|| instruction.ip())
    }
}

fn site(program: &Program<'_>, pieces: &BTreeMap<u64, Piece>, piece: &Piece, index: usize, kind: SiteKind) -> Site {
    let first = index.saturating_sub(NEIGHBOURS);
    let mut insns = piece.insns[first..(index + NEIGHBOURS + 1).min(piece.insns.len())].to_vec();
    let index = index - first;
    let at = insns[index].vaddr;
    let certain = settle(program, piece.insns[0].vaddr, &mut insns[..=index]);
    Site { kind, index, certain, local_targets: local_targets(pieces, at), insns }
}

/// What the instructions within [`NEAR`] bytes of `at` refer to.
fn local_targets(pieces: &BTreeMap<u64, Piece>, at: u64) -> Vec<u64> {
    let (low, high) = (at.saturating_sub(NEAR), at + NEAR);
    let near = pieces.range(..high).rev().take_while(|(_, p)| p.end > low);
    near.flat_map(|(_, piece)| {
        let from = piece.refers.partition_point(|r| r.0 < low);
        piece.refers[from..].iter().take_while(|r| r.0 < high).map(|r| r.1)
    })
    .collect()
}

/// Decides whether the site, the last of `insns`, is an instruction beyond doubt, and makes instructions before it that are
/// not immovable.
///
/// Far from the last cut the sweep may have passed through data. x86 decoding falls into step after a few instructions
/// wherever it starts, so at least a third of the places shortly before must lead to the same instructions.
fn settle(program: &Program<'_>, start: u64, insns: &mut [Insn]) -> bool {
    const FAR: u64 = 64;
    const NEAREST: u64 = 32;
    let at = insns.last().map_or(start, |i| i.vaddr);
    if at - start < FAR {
        return true;
    }
    let froms = at - FAR..at - NEAREST;
    let mut arrivals = vec![0; insns.len()];
    for from in froms.clone() {
        let Some(bytes) = program.bytes_at(from, (at + 2 - from) as usize) else { return false };
        let mut decoder = Decoder::with_ip(64, bytes, from, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.ip() <= at && decoder.can_decode() {
            if let Ok(found) = insns.binary_search_by_key(&decoder.ip(), |i| i.vaddr) {
                arrivals[found] += 1;
            }
            decoder.decode_out(&mut instruction);
        }
    }
    let tried = froms.end - froms.start;
    for (insn, arrived) in insns.iter_mut().zip(&arrivals) {
        insn.movable &= arrived * 3 > tried;
    }
    arrivals.last().is_some_and(|arrived| arrived * 3 > tried)
}
