//! The page tables that an image starts with, as bytes. What they map is written in `unik_abi::image`.
//!
//! Source of the format: Intel SDM volume 3, chapter 4 "Paging", 4-level paging.

use unik_abi::{PAGE_SIZE, layout};

use crate::libos::LibOs;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// Entries that point to another table: everything is decided at the leaves.
const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED;
/// Entries in a table.
const ENTRIES: u64 = 512;
/// Bytes that one page table (last level) maps.
const TABLE_SPAN: u64 = PAGE_SIZE * ENTRIES;
const GIB: u64 = 1 << 30;
/// Gigabytes of the physmap that the image brings along.
const PHYSMAP_GIB: u64 = 4;

/// Page tables, placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageTables {
    /// All tables, one after the other.
    pub bytes: Vec<u8>,
    /// Physical address of the tables for running.
    pub pml4_paddr: u64,
    /// Physical address of the tables for the way into long mode.
    pub boot_pml4_paddr: u64,
}

/// Bytes that [`build`] makes for a library OS of `end` bytes.
pub fn len(end: u64) -> u64 {
    (4 + PHYSMAP_GIB + end.div_ceil(GIB) + end.div_ceil(TABLE_SPAN)) * PAGE_SIZE
}

/// Makes the tables for physical address `paddr` (page-aligned).
///
/// Order: boot PML4, PML4, directory pointers of the physmap and its directories, directory pointers of the library OS, its directories,
/// its tables.
pub fn build(libos: &LibOs<'_>, paddr: u64) -> PageTables {
    let end = libos.end();
    let directories = end.div_ceil(GIB);
    let table = |index: u64| paddr + index * PAGE_SIZE;
    let (boot, pml4, physmap) = (0, 1, 2);
    let pointers = 3 + PHYSMAP_GIB;
    let first_directory = pointers + 1;
    let first_table = first_directory + directories;
    let mut out = Tables {
        bytes: vec![0; len(end) as usize],
    };

    for root in [boot, pml4] {
        out.set(
            root,
            slot(layout::PHYSMAP_VADDR, 39),
            table(physmap) | TABLE | NO_EXECUTE,
        );
        out.set(root, slot(layout::LIBOS_VADDR, 39), table(pointers) | TABLE);
    }
    out.set(boot, 0, table(physmap) | TABLE);
    for gib in 0..PHYSMAP_GIB {
        out.set(physmap, gib, table(physmap + 1 + gib) | TABLE);
        for index in 0..ENTRIES {
            out.set(
                physmap + 1 + gib,
                index,
                (gib * GIB + index * TABLE_SPAN) | TABLE | DIRTY | LARGE,
            );
        }
    }
    for i in 0..directories {
        out.set(pointers, i, table(first_directory + i) | TABLE);
    }
    for i in 0..end.div_ceil(TABLE_SPAN) {
        out.set(
            first_directory + i / ENTRIES,
            i % ENTRIES,
            table(first_table + i) | TABLE,
        );
    }
    for segment in &libos.segments {
        for page in segment.pages().step_by(PAGE_SIZE as usize) {
            let number = page / PAGE_SIZE;
            let value = (layout::IMAGE_PADDR + page) | leaf(segment.flags, libos.supervisor(page));
            out.set(first_table + number / ENTRIES, number % ENTRIES, value);
        }
    }
    PageTables {
        bytes: out.bytes,
        pml4_paddr: table(pml4),
        boot_pml4_paddr: table(boot),
    }
}

struct Tables {
    bytes: Vec<u8>,
}

impl Tables {
    fn set(&mut self, table: u64, index: u64, value: u64) {
        let at = (table * PAGE_SIZE + index * 8) as usize;
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

fn slot(vaddr: u64, shift: u32) -> u64 {
    vaddr >> shift & (ENTRIES - 1)
}

fn leaf(flags: u32, supervisor: bool) -> u64 {
    use unik_abi::image::{SEG_W, SEG_X};
    let mut entry = PRESENT | ACCESSED | DIRTY;
    if flags & SEG_W != 0 {
        entry |= WRITE;
    }
    if flags & SEG_X == 0 {
        entry |= NO_EXECUTE;
    }
    if supervisor { entry } else { entry | USER }
}
