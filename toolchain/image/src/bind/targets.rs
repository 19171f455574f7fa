//! Which addresses near the sites might be jumped to: an over-approximation that needs no complete disassembly.
//!
//! Taken as targets:
//! - cuts: symbols, function starts, the entry point;
//! - what decoded instructions near a site refer to;
//! - any bytes in code that look like a near branch, a call or a `lea` to it, whether or not the sweep meets them (unless decoding
//!   around them clearly denies it);
//! - of a position-independent program, every address that a relocation stores; of another, any 4 bytes of code that are the low
//!   half of the address, and any 8 bytes anywhere, at 4-byte alignment, that are the address;
//! - entries of tables of 4-byte distances that start at any place which the code takes the address of.

use std::collections::HashSet;
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::sweep::{Site, Sweep};
use crate::program::{LoadSegment, Program};

/// Steps through jump tables after which a program is taken to be hostile.
const MOST_STEPS: usize = 1 << 26;
/// Bytes of code per filter bit, log 2.
const LINE: u32 = 6;

/// Addresses that may be jumped to, complete in the spans of the sites.
pub struct Targets {
    found: HashSet<u64>,
    /// The search was given up: everything counts as a target.
    all: bool,
}

impl Targets {
    /// Whether anything in `range` may be jumped to.
    pub fn any_in(&self, mut range: Range<u64>) -> bool {
        self.all || range.any(|at| self.found.contains(&at))
    }
}

/// Finds the targets near the sites of `sweep`.
pub fn find(program: &Program<'_>, sweep: &Sweep) -> Targets {
    let mut search = Search::new(program, &sweep.sites);
    for &cut in &program.cuts {
        search.add(cut);
    }
    for &pointer in &program.pointers {
        search.add(pointer);
    }
    for &target in &sweep.refers {
        search.add(target);
    }
    if !sweep.sites.is_empty() {
        for segment in &program.segments {
            if !program.pie {
                search.scan_addresses(segment);
            }
            if segment.executable() {
                search.scan_code(segment);
            }
        }
        search.walk_tables(program);
    }
    Targets {
        found: search.found,
        all: search.gave_up,
    }
}

struct Search {
    /// From the lowest code address to the highest.
    code: Range<u64>,
    /// One bit for some lines of code: one of them holds an interesting address. A power of two of words.
    filter: Vec<u64>,
    interesting: HashSet<u64>,
    found: HashSet<u64>,
    /// Possible tables of distances: where they start, and where the operand is that refers to them.
    tables: Vec<(u64, u64)>,
    data: Vec<Range<u64>>,
    gave_up: bool,
}

impl Search {
    fn new(program: &Program<'_>, sites: &[Site]) -> Self {
        let start = program.code.iter().map(|r| r.start).min().unwrap_or(0);
        let end = program.code.iter().map(|r| r.end).max().unwrap_or(0);
        let interesting: HashSet<u64> = sites.iter().flat_map(Site::span).collect();
        let lines: u64 = program.code.iter().map(|r| (r.end - r.start) >> LINE).sum();
        let mut filter = vec![0; (lines as usize / 64 + 1).next_power_of_two()];
        for at in &interesting {
            let (word, bit) = place(&filter, at - start);
            filter[word] |= bit;
        }
        let data = program.segments.iter().map(|s| s.file_range()).collect();
        Self {
            code: start..end,
            filter,
            interesting,
            found: HashSet::new(),
            tables: Vec::new(),
            data,
            gave_up: false,
        }
    }

    fn add(&mut self, at: u64) {
        if self.code.contains(&at) && self.interests(at - self.code.start) {
            self.found.insert(at);
        }
    }

    /// `offset` is relative to the start of code and inside it.
    fn interests(&self, offset: u64) -> bool {
        let (word, bit) = place(&self.filter, offset);
        self.filter[word] & bit != 0 && self.interesting.contains(&(self.code.start + offset))
    }

    /// Looks for addresses that are fixed at link time: any 4 bytes of code that are the low half of one, in data any
    /// 8 bytes (at 4-byte alignment) that are one.
    fn scan_addresses(&mut self, segment: &LoadSegment<'_>) {
        if segment.executable() {
            for (at, word) in segment.data.windows(4).enumerate() {
                let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                let offset = u64::from(word.wrapping_sub(self.code.start as u32));
                if offset < self.code.end - self.code.start {
                    self.add_operand(self.code.start + offset, segment, at);
                }
            }
        }
        let mut low = 0;
        for (_, word) in aligned::<4>(segment) {
            let high = u64::from(u32::from_le_bytes(*word));
            self.add(high << 32 | low);
            low = high;
        }
    }

    /// Looks for distances behind the opcodes that take them.
    fn scan_code(&mut self, segment: &LoadSegment<'_>) {
        for (at, word) in segment.data.windows(4).enumerate() {
            let distance = i32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let target = (segment.vaddr + at as u64 + 4).wrapping_add_signed(i64::from(distance));
            match &segment.data[..at] {
                [.., 0xe8 | 0xe9] | [.., 0x0f, 0x80..=0x8f] | [.., 0xc7, 0xf8] => {}
                [.., 0x8d, modrm] if modrm & 0xc7 == 0x05 => {
                    self.note_table(target, segment.vaddr + at as u64)
                }
                _ => continue,
            }
            self.add_operand(target, segment, at);
        }
    }

    /// Adds what 4 bytes of code at index `at` seem to refer to, unless they clearly are no operand of an instruction.
    fn add_operand(&mut self, target: u64, segment: &LoadSegment<'_>, at: usize) {
        if self.code.contains(&target)
            && self.interests(target - self.code.start)
            && !self.found.contains(&target)
            && operand(segment, at).maybe()
        {
            self.found.insert(target);
        }
    }

    fn note_table(&mut self, base: u64, operand: u64) {
        if base.is_multiple_of(4) && self.data.iter().any(|r| r.contains(&base)) {
            self.tables.push((base, operand));
        }
    }

    /// Follows each possible table of distances from its own start until an entry does not lead into code.
    fn walk_tables(&mut self, program: &Program<'_>) {
        let mut tables = std::mem::take(&mut self.tables);
        tables.sort_unstable();
        tables.dedup_by_key(|t| t.0);
        let mut steps = 0;
        for (index, &(base, _)) in tables.iter().enumerate() {
            let Some(segment) = segment_of(program, base) else {
                continue;
            };
            let bytes = &segment.data[(base - segment.vaddr) as usize..];
            for (entry, distance) in bytes.as_chunks::<4>().0.iter().enumerate() {
                steps += 1;
                let target = base.wrapping_add_signed(i64::from(i32::from_le_bytes(*distance)));
                if steps > MOST_STEPS || !self.code.contains(&target) {
                    break;
                }
                if self.interests(target - self.code.start) {
                    let at = base + 4 * entry as u64;
                    let others = tables[index + 1..].iter().take_while(|t| t.0 <= at);
                    if others.clone().any(|t| {
                        segment_of(program, t.1)
                            .is_some_and(|s| operand(s, (t.1 - s.vaddr) as usize).surely())
                    }) {
                        break; // another table has begun
                    }
                    self.found.insert(target);
                }
            }
        }
        self.gave_up = steps > MOST_STEPS;
    }
}

/// Word and bit of the filter for the line at `offset` in code.
fn place(filter: &[u64], offset: u64) -> (usize, u64) {
    let line = offset >> LINE;
    ((line / 64) as usize & (filter.len() - 1), 1 << (line % 64))
}

fn segment_of<'a, 'p>(program: &'p Program<'a>, vaddr: u64) -> Option<&'p LoadSegment<'a>> {
    program
        .segments
        .iter()
        .find(|s| s.file_range().contains(&vaddr))
}

/// How many of the decodings from nearby find an operand at some place.
struct Votes {
    tried: usize,
    held: usize,
}

impl Votes {
    fn maybe(&self) -> bool {
        self.held * 4 >= self.tried
    }

    fn surely(&self) -> bool {
        self.held * 2 > self.tried
    }
}

/// Whether the 4 bytes at index `at` are an operand. Decoding falls into step wherever it starts, so where nearly all of
/// the places shortly before lead to instructions without such an operand there is none.
fn operand(segment: &LoadSegment<'_>, at: usize) -> Votes {
    const FAR: usize = 64;
    const NEAREST: usize = 32;
    let Some(first) = at.checked_sub(FAR) else {
        return Votes { tried: 0, held: 0 };
    };
    let bytes = &segment.data[..(at + 16).min(segment.data.len())];
    let holds = |from: usize| {
        let mut decoder = Decoder::new(64, &bytes[from..], DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let mut start = from;
        while decoder.can_decode() && from + decoder.position() <= at {
            start = from + decoder.position();
            decoder.decode_out(&mut instruction);
        }
        let offsets = decoder.get_constant_offsets(&instruction);
        let field =
            |has: bool, offset: usize, size: usize| has && size >= 4 && start + offset == at;
        field(
            offsets.has_displacement(),
            offsets.displacement_offset(),
            offsets.displacement_size(),
        ) || field(
            offsets.has_immediate(),
            offsets.immediate_offset(),
            offsets.immediate_size(),
        )
    };
    let froms = first..at - NEAREST;
    Votes {
        tried: froms.len(),
        held: froms.filter(|&from| holds(from)).count(),
    }
}

/// The naturally aligned words of a segment, with their addresses.
pub fn aligned<'a, const N: usize>(
    segment: &LoadSegment<'a>,
) -> impl Iterator<Item = (u64, &'a [u8; N])> {
    let start = segment.vaddr.next_multiple_of(N as u64);
    let bytes = segment
        .data
        .get((start - segment.vaddr) as usize..)
        .unwrap_or_default();
    bytes
        .as_chunks()
        .0
        .iter()
        .enumerate()
        .map(move |(i, word)| (start + (i * N) as u64, word))
}
