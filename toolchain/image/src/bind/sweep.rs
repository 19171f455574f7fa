//! Finds `syscall` and `cpuid` instructions and decodes what stands around them.
//!
//! The byte pairs are looked for first; then only the pieces of code between two cuts (places where an instruction is known to
//! start) that hold a pair, or lie near one, are decoded. A pair that decoding does not meet lies inside another instruction.

use std::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};

use super::SiteKind;
use crate::program::Program;

/// Code this near to a site is decoded, bytes: all that short branches (128 bytes) reach and more; [`super::targets`] finds
/// the others without decoding.
const NEAR: u64 = 1024;
/// Where a piece has nothing of interest for longer, decoding begins anew this far before the next site, bytes: enough to fall
/// into step long before.
const RUN_UP: u64 = 2 * NEAR;
/// More sites than any program has; whatever comes later stays as it is, unseen.
const MOST: usize = 1 << 16;
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

/// What the sweep found.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// All sites in address order.
    pub sites: Vec<Site>,
    /// Addresses that the decoded instructions refer to.
    pub refers: Vec<u64>,
}

/// Decodes the program as far as it lies near byte pairs that may be sites.
pub fn sweep(program: &Program<'_>) -> Sweep {
    let candidates = candidates(program);
    let mut found = Sweep::default();
    for code in &program.code {
        let first = program.cuts.partition_point(|&c| c < code.start);
        let cuts = program.cuts[first..]
            .iter()
            .copied()
            .take_while(|&c| c < code.end);
        let ends = cuts.clone().skip(1).chain([code.end]);
        for (start, end) in cuts.zip(ends) {
            let next = candidates.get(candidates.partition_point(|c| c + NEAR < start));
            if next.is_some_and(|next| *next < end + NEAR) {
                found.piece(program, start..end, &candidates);
            }
        }
    }
    found
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
    found.truncate(MOST);
    found
}

fn code<'a>(program: &'a Program<'_>) -> impl Iterator<Item = (Range<u64>, &'a [u8])> {
    program.code.iter().filter_map(|r| {
        Some((
            r.clone(),
            program.bytes_at(r.start, (r.end - r.start) as usize)?,
        ))
    })
}

impl Sweep {
    /// Decodes a piece of code between two cuts as far as it lies near one of `candidates` (sorted).
    fn piece(&mut self, program: &Program<'_>, range: Range<u64>, candidates: &[u64]) {
        let Some(bytes) = program.bytes_at(range.start, (range.end - range.start) as usize) else {
            return;
        };
        let mut decoder = Decoder::with_ip(64, bytes, range.start, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let (mut insns, mut sites) = (Vec::new(), Vec::new());
        while decoder.can_decode() {
            let Some(&next) =
                candidates.get(candidates.partition_point(|c| c + NEAR < decoder.ip()))
            else {
                break;
            };
            if next > decoder.ip() + 2 * RUN_UP {
                let ip = (next - RUN_UP).min(range.end);
                if decoder.set_position((ip - range.start) as usize).is_err() {
                    break;
                }
                decoder.set_ip(ip);
                continue;
            }
            decoder.decode_out(&mut instruction);
            match instruction.code() {
                Code::Syscall => sites.push((insns.len(), SiteKind::Syscall)),
                Code::Cpuid => sites.push((insns.len(), SiteKind::Cpuid)),
                _ => {}
            }
            self.refers.extend(referred(&instruction));
            let at = (instruction.ip() - range.start) as usize;
            let distance_at = decoder
                .get_constant_offsets(&instruction)
                .displacement_offset();
            insns.push(insn(
                &instruction,
                &bytes[at..at + instruction.len()],
                distance_at,
            ));
        }
        self.sites.extend(
            sites
                .into_iter()
                .map(|(index, kind)| site(program, &insns, index, kind)),
        );
    }
}

fn insn(instruction: &Instruction, encoded: &[u8], distance_at: usize) -> Insn {
    let mut bytes = [0; 15];
    bytes[..encoded.len()].copy_from_slice(encoded);
    let special = matches!(
        instruction.code(),
        Code::Syscall | Code::Cpuid | Code::Endbr64 | Code::INVALID
    );
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
    let branch = matches!(
        instruction.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    );
    if branch {
        Some(instruction.near_branch_target())
    } else if instruction.is_ip_rel_memory_operand() {
        Some(instruction.ip_rel_memory_address())
    } else {
        (instruction.code() == Code::Endbr64).then(|| instruction.ip())
    }
}

/// A site at `index` of the instructions of a piece.
fn site(program: &Program<'_>, piece: &[Insn], index: usize, kind: SiteKind) -> Site {
    let first = index.saturating_sub(NEIGHBOURS);
    let mut insns = piece[first..(index + NEIGHBOURS + 1).min(piece.len())].to_vec();
    let index = index - first;
    let certain = settle(program, piece[0].vaddr, &mut insns[..=index]);
    Site {
        kind,
        index,
        certain,
        insns,
    }
}

/// Decides whether the site, the last of `insns`, is an instruction beyond doubt, and makes instructions before it that are
/// not immovable.
///
/// Far from the last cut the sweep may have passed through data, and in a stripped program the cut itself may be none: only the unwinding table
/// told of it. x86 decoding falls into step after a few instructions
/// wherever it starts, so at least a third of the places shortly before must lead to the same instructions.
fn settle(program: &Program<'_>, start: u64, insns: &mut [Insn]) -> bool {
    const FAR: u64 = 64;
    const NEAREST: u64 = 32;
    let at = insns.last().map_or(start, |i| i.vaddr);
    let told = !program.symbols.is_empty()
        || start == program.entry
        || program.code.iter().any(|code| code.start == start);
    if at - start < FAR && told {
        return true;
    }
    let froms = at - FAR..at - NEAREST;
    let mut arrivals = vec![0; insns.len()];
    for from in froms.clone() {
        let Some(bytes) = program.bytes_at(from, (at + 2 - from) as usize) else {
            return false;
        };
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
