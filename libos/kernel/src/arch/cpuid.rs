//! The table that answers rewritten `cpuid` sites, filled once at boot by the nucleus (in ring 3 the instruction may trap, ~30 us each).
//!
//! Source: Intel SDM volume 2, CPUID.

use super::nucleus::{self, CpuidQuery};

const MAX: usize = 32;
/// Marks a leaf whose answer does not depend on ecx.
const NO_SUBLEAF: u32 = u32::MAX;

/// Count and entries, read by `cpuid_entry` in `entry.s`.
#[repr(C)]
pub struct Table {
    count: u64,
    entries: [CpuidQuery; MAX],
}

impl Table {
    /// An empty table.
    pub const fn new() -> Self {
        Self {
            count: 0,
            entries: [CpuidQuery {
                leaf: 0,
                subleaf: 0,
                eax: 0,
                ebx: 0,
                ecx: 0,
                edx: 0,
            }; MAX],
        }
    }

    /// Asks for every leaf that start-up code is known to use.
    pub fn fill(&mut self) {
        let mut first = [query(0, 0), query(0x8000_0000, 0)];
        nucleus::cpuid(&mut first);
        let (basic, extended) = (first[0].eax.min(0x20), first[1].eax.min(0x8000_0020));
        let mut count = 0;
        let mut add = |leaf, subleaf| {
            if count < MAX {
                self.entries[count] = query(leaf, subleaf);
                count += 1;
            }
        };
        // What the start-up of glibc, Rust and Go asks for, the most often used first: the search is linear, and each query costs
        // a few microseconds. Anything else runs the instruction.
        for leaf in [
            4, 1, 7, 0, 2, 0xd, 0x14, 0x19, 0x80000000, 0x80000001, 0x80000007, 0x80000008,
        ] {
            let known = if leaf >= 0x8000_0000 {
                leaf <= extended
            } else {
                leaf <= basic
            };
            match leaf {
                _ if !known => {}
                4 => (0..5).for_each(|sub| add(leaf, sub)),
                7 | 0xd => (0..2).for_each(|sub| add(leaf, sub)),
                0x14 => add(leaf, 0),
                _ => add(leaf, NO_SUBLEAF),
            }
        }
        nucleus::cpuid(&mut self.entries[..count]);
        self.count = count as u64;
    }

    /// The answer for a leaf (and subleaf, for leaves that have them), if it is in the table.
    pub fn get(&self, leaf: u32, subleaf: u32) -> Option<CpuidQuery> {
        self.entries[..self.count as usize]
            .iter()
            .find(|entry| {
                entry.leaf == leaf && (entry.subleaf == NO_SUBLEAF || entry.subleaf == subleaf)
            })
            .copied()
    }
}

fn query(leaf: u32, subleaf: u32) -> CpuidQuery {
    CpuidQuery {
        leaf,
        subleaf,
        ..CpuidQuery::default()
    }
}
