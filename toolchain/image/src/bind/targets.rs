//! Which addresses near the sites might be jumped to: an over-approximation that needs no complete disassembly.
//!
//! Taken as targets: cuts (symbols, function starts, the entry point); what decoded instructions near a site refer to; every
//! 4 bytes anywhere in the program that equal the low half of the address (immediates, data words; in a position-independent
//! program only aligned 8-byte words, which relocations need: data and addends); more than [`NEAR`] bytes away, any byte sequence in code that looks like a near branch, a call or a `lea` to it, at whatever
//! alignment; entries of tables of 4-byte distances that start at any place which the code takes the address of.

use std::collections::HashSet;
use std::ops::Range;

use super::sweep::{NEAR, Site};
use crate::program::Program;

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

/// Finds the targets near `sites`.
pub fn find(program: &Program<'_>, sites: &[Site]) -> Targets {
    let mut search = Search::new(program, sites);
    for &cut in &program.cuts {
        search.add(cut);
    }
    for site in sites {
        for &target in &site.local_targets {
            search.add(target);
        }
    }
    if !sites.is_empty() {
        for segment in &program.segments {
            if program.pie {
                search.scan_words(segment.vaddr, segment.data);
            } else {
                search.scan_addresses(segment.data, segment.executable());
            }
            if segment.executable() {
                search.scan_code(segment.vaddr, segment.data);
            }
        }
        search.walk_tables(program);
    }
    Targets { found: search.found, all: search.gave_up }
}

struct Search {
    /// From the lowest code address to the highest.
    code: Range<u64>,
    /// One bit for each line of code: holds an interesting address.
    filter: Vec<u64>,
    interesting: HashSet<u64>,
    found: HashSet<u64>,
    /// Places outside code that code refers to.
    tables: Vec<u64>,
    data: Vec<Range<u64>>,
    gave_up: bool,
}

impl Search {
    fn new(program: &Program<'_>, sites: &[Site]) -> Self {
        let start = program.code.iter().map(|r| r.start).min().unwrap_or(0);
        let end = program.code.iter().map(|r| r.end).max().unwrap_or(0);
        let interesting: HashSet<u64> = sites.iter().flat_map(Site::span).collect();
        let mut filter = vec![0; ((end - start) >> LINE) as usize / 64 + 1];
        for at in &interesting {
            let line = (at - start) >> LINE;
            filter[line as usize / 64] |= 1 << (line % 64);
        }
        let data = program.segments.iter().map(|s| s.file_range()).collect();
        Self { code: start..end, filter, interesting, found: HashSet::new(), tables: Vec::new(), data, gave_up: false }
    }

    fn add(&mut self, at: u64) {
        if self.code.contains(&at) {
            self.add_offset(at - self.code.start);
        }
    }

    /// `offset` is relative to the start of code and inside it.
    fn add_offset(&mut self, offset: u64) {
        let line = offset >> LINE;
        let at = self.code.start + offset;
        if self.filter[line as usize / 64] >> (line % 64) & 1 != 0 && self.interesting.contains(&at) {
            self.found.insert(at);
        }
    }

    /// Looks for addresses that are fixed at link time: every 4 bytes, at any alignment, as the low half of one.
    fn scan_addresses(&mut self, data: &[u8], executable: bool) {
        let code_len = self.code.end - self.code.start;
        for word in data.windows(4) {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let offset = u64::from(word.wrapping_sub(self.code.start as u32));
            if offset < code_len {
                self.add_offset(offset);
            }
            if executable {
                self.note_table(u64::from(word));
            }
        }
    }

    /// Looks for addresses in a position-independent program: aligned words that relocation changes, and its addends.
    fn scan_words(&mut self, vaddr: u64, data: &[u8]) {
        let skip = vaddr.next_multiple_of(8) - vaddr;
        for word in data.get(skip as usize..).unwrap_or_default().as_chunks::<8>().0 {
            self.add(u64::from_le_bytes(*word));
        }
    }

    /// Looks for distances behind the opcodes that take them.
    fn scan_code(&mut self, vaddr: u64, data: &[u8]) {
        for (at, word) in data.windows(4).enumerate() {
            let word = i32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            self.scan_distance(vaddr + at as u64 + 4, &data[..at], word);
        }
    }

    /// Looks at a distance in code that ends at `end` and has `before` before it.
    fn scan_distance(&mut self, end: u64, before: &[u8], distance: i32) {
        let target = end.wrapping_add_signed(i64::from(distance));
        match before {
            [.., 0xe8 | 0xe9] | [.., 0x0f, 0x80..=0x8f] | [.., 0xc7, 0xf8] => {}
            [.., 0x8d, modrm] if modrm & 0xc7 == 0x05 => self.note_table(target),
            _ => return,
        }
        if u64::from(distance.unsigned_abs()) >= NEAR {
            self.add(target);
        }
    }

    fn note_table(&mut self, at: u64) {
        if at % 4 == 0 && self.data.iter().any(|r| r.contains(&at)) {
            self.tables.push(at);
        }
    }

    /// Follows each possible table of distances from its own start until an entry does not lead into code.
    fn walk_tables(&mut self, program: &Program<'_>) {
        let mut tables = std::mem::take(&mut self.tables);
        tables.sort_unstable();
        tables.dedup();
        let mut steps = 0;
        for base in tables {
            let Some(segment) = program.segments.iter().find(|s| s.file_range().contains(&base)) else { continue };
            let bytes = &segment.data[(base - segment.vaddr) as usize..];
            for entry in bytes.as_chunks::<4>().0 {
                steps += 1;
                let target = base.wrapping_add_signed(i64::from(i32::from_le_bytes(*entry)));
                if steps > MOST_STEPS || !self.code.contains(&target) {
                    break;
                }
                self.add(target);
            }
        }
        self.gave_up = steps > MOST_STEPS;
    }
}
