//! The four-level page tables (Intel SDM volume 3, 4.5), edited from ring 3 through the physmap.
//!
//! Callers choose whether an entry is born with accessed and dirty set ([`TOUCHED`]). With them a paravirtual KVM maps neighbours of a
//! faulting page ahead of time; without them an entry that nobody used can be changed without a TLB flush, because no processor caches a
//! translation before it set the accessed bit (Intel SDM volume 3, 4.10.2.3). Tables lie together in blocks of their own, because such a KVM
//! write-protects every page that holds one.

use super::{LARGE, PAGE, frames};
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;

/// Entry is valid.
pub const PRESENT: u64 = 1;
/// Writes allowed.
pub const WRITE: u64 = 1 << 1;
/// Ring 3 may use it.
pub const USER: u64 = 1 << 2;
/// The processor used it.
pub const ACCESSED: u64 = 1 << 5;
/// The processor wrote through it.
pub const DIRTY: u64 = 1 << 6;
/// Born as if used: see the module text.
pub const TOUCHED: u64 = ACCESSED | DIRTY;
/// Large page (in a page directory).
pub const LARGE_PAGE: u64 = 1 << 7;
/// Software: the frame belongs to the mapping and is freed with it.
pub const OWNED: u64 = 1 << 9;
/// Software: not present, but the frame stays (PROT_NONE over memory in use).
pub const KEPT: u64 = 1 << 10;
/// No execution.
pub const NX: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

static ROOT: AtomicU64 = AtomicU64::new(0);
static POOL: Mutex<(u64, u64)> = Mutex::new((0, 0));
const POOL_TABLES: usize = 16;

/// An entry's physical address.
pub const fn address(entry: u64) -> u64 {
    entry & ADDRESS
}

/// Whether a processor may have cached this entry: then narrowing or removing it needs a flush.
pub const fn may_be_cached(entry: u64) -> bool {
    entry & (PRESENT | ACCESSED) == PRESENT | ACCESSED
}

/// Starts using the tables at `pml4_paddr`.
pub fn init(pml4_paddr: u64) {
    ROOT.store(pml4_paddr, Ordering::Relaxed);
}

fn new_table() -> Option<u64> {
    let mut pool = POOL.lock();
    if pool.0 == pool.1 {
        let paddr = frames::alloc_contiguous(POOL_TABLES)?;
        *pool = (paddr, paddr + POOL_TABLES as u64 * PAGE);
    }
    let table = pool.0;
    pool.0 += PAGE;
    Some(table)
}

fn entry_in(table: u64, vaddr: u64, level: u32) -> *mut u64 {
    let index = vaddr >> (12 + 9 * level) & 511;
    (frames::virt(table) as *mut u64).wrapping_add(index as usize)
}

fn get(entry: *mut u64) -> u64 {
    // SAFETY: `entry` points into a page table (built by entry_in), which stays mapped; volatile as hardware reads it too.
    unsafe { entry.read_volatile() }
}

fn set(entry: *mut u64, value: u64) {
    // SAFETY: as above; the big lock is held, so nobody else writes.
    unsafe { entry.write_volatile(value) };
}

/// The table below `entry`, made if `create`.
fn descend(entry: *mut u64, create: bool) -> Option<u64> {
    let value = get(entry);
    if value & PRESENT != 0 {
        return (value & LARGE_PAGE == 0).then_some(address(value));
    }
    if !create {
        return None;
    }
    let table = new_table()?;
    set(entry, table | PRESENT | WRITE | USER | ACCESSED);
    Some(table)
}

/// Maps gigabyte `gib` of physical memory into the physmap, through the zeroed page directory at `directory`.
pub fn map_physmap_gib(gib: u64, directory: u64) {
    let vaddr = unik_abi::layout::PHYSMAP_VADDR + (gib << 30);
    for index in 0..512 {
        let paddr = (gib << 30) + index * LARGE;
        set(
            entry_in(directory, paddr, 1),
            paddr | PRESENT | WRITE | USER | TOUCHED | LARGE_PAGE,
        );
    }
    let pointers = address(get(entry_in(ROOT.load(Ordering::Relaxed), vaddr, 3)));
    set(
        entry_in(pointers, vaddr, 2),
        directory | PRESENT | WRITE | USER | ACCESSED,
    );
}

/// The page-directory entry for `vaddr`.
fn directory_entry(vaddr: u64, create: bool) -> Option<*mut u64> {
    let pdpt = descend(entry_in(ROOT.load(Ordering::Relaxed), vaddr, 3), create)?;
    let directory = descend(entry_in(pdpt, vaddr, 2), create)?;
    Some(entry_in(directory, vaddr, 1))
}

/// Whether no table and no large page covers the 2 MiB around `vaddr`: a large page can be put there.
pub fn large_is_free(vaddr: u64) -> bool {
    directory_entry(vaddr, false).is_none_or(|entry| get(entry) == 0)
}

/// Maps one 4 KiB page. `flags`: WRITE, NX, OWNED, TOUCHED. `None` when no memory for tables.
pub fn map(vaddr: u64, paddr: u64, flags: u64) -> Option<()> {
    set_entry(vaddr, paddr | flags | PRESENT | USER)
}

/// Stores a 4 KiB entry as it is.
pub fn set_entry(vaddr: u64, value: u64) -> Option<()> {
    let directory = directory_entry(vaddr, true)?;
    if get(directory) & LARGE_PAGE != 0 {
        split(directory)?;
    }
    let table = descend(directory, true)?;
    set(entry_in(table, vaddr, 0), value);
    Some(())
}

/// Maps a 2 MiB page where [`large_is_free`].
pub fn map_large(vaddr: u64, paddr: u64, flags: u64) -> Option<()> {
    let entry = directory_entry(vaddr, true)?;
    set(entry, paddr | flags | PRESENT | USER | TOUCHED | LARGE_PAGE);
    Some(())
}

/// Turns a large page (present or kept) into 512 small ones with the same meaning.
fn split(directory: *mut u64) -> Option<()> {
    let value = get(directory);
    let table = new_table()?;
    for index in 0..512 {
        let small = (value & !LARGE_PAGE & !ADDRESS) | (address(value) + index * PAGE);
        set(entry_in(table, index * PAGE, 0), small);
    }
    set(directory, table | PRESENT | WRITE | USER | ACCESSED);
    Some(())
}

/// What maps an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The raw entry.
    pub entry: u64,
    /// 2 MiB instead of 4 KiB.
    pub large: bool,
}

/// The entry that maps `vaddr`, present or kept; `None` where nothing is.
pub fn lookup(vaddr: u64) -> Option<Leaf> {
    let directory = directory_entry(vaddr, false)?;
    let value = get(directory);
    if value & LARGE_PAGE != 0 {
        return Some(Leaf {
            entry: value,
            large: true,
        });
    }
    let entry = get(entry_in(descend(directory, false)?, vaddr, 0));
    (entry != 0).then_some(Leaf {
        entry,
        large: false,
    })
}

/// Calls `change(entry, large)` for every entry in `start..end` that holds something and stores what it returns (0: nothing). A large page
/// that the range only touches in part is split first. `None` when a split found no memory.
pub fn update(start: u64, end: u64, mut change: impl FnMut(u64, bool) -> u64) -> Option<()> {
    let mut at = start;
    while at < end {
        let next = (at & !(LARGE - 1)) + LARGE;
        let Some(directory) = directory_entry(at, false) else {
            at = skip(at, next);
            continue;
        };
        let value = get(directory);
        if value & LARGE_PAGE != 0 && at.is_multiple_of(LARGE) && next <= end {
            let new = change(value, true);
            if new != value {
                set(directory, new);
            }
            at = next;
            continue;
        }
        if value & LARGE_PAGE != 0 {
            split(directory)?;
        }
        if let Some(table) = descend(directory, false) {
            for vaddr in (at..next.min(end)).step_by(PAGE as usize) {
                change_small(entry_in(table, vaddr, 0), &mut change);
            }
        }
        at = next;
    }
    Some(())
}

fn change_small(entry: *mut u64, change: &mut impl FnMut(u64, bool) -> u64) {
    let mut old = get(entry);
    if old == 0 {
        return;
    }
    if old & (PRESENT | ACCESSED) == PRESENT {
        // Nobody used it yet. Taking it away at once decides whether that stays true: a processor that comes now faults and waits.
        // SAFETY: an aligned entry of a page table; the processors change it atomically too.
        old = unsafe { AtomicU64::from_ptr(entry) }.swap(0, Ordering::SeqCst);
    }
    let new = change(old, false);
    if new != get(entry) {
        set(entry, new);
    }
}

/// Where to go on after an address without a page directory: past its gigabyte or 512 GiB if those are empty.
fn skip(at: u64, next: u64) -> u64 {
    let top = get(entry_in(ROOT.load(Ordering::Relaxed), at, 3));
    if top & PRESENT == 0 {
        return (at & !((1 << 39) - 1)) + (1 << 39);
    }
    if get(entry_in(address(top), at, 2)) & PRESENT == 0 {
        return (at & !((1 << 30) - 1)) + (1 << 30);
    }
    next
}
