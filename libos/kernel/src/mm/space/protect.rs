//! mprotect and MADV_DONTNEED: rights taken away need a flush only where somebody used them.

use super::{PAGE, Space, accessible, entry_flags};
use crate::errno::{Errno, Result};
use crate::mm::mapping::Backing;
use crate::mm::{frames, pagetable, tlb};
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// MADV_DONTNEED clears up to this many pages in place rather than giving them back: a flush costs more.
const CLEAR_IN_PLACE: usize = 64;

impl Space {
    /// Changes the protection of `start..end`. ENOMEM when a part is not mapped (the parts before it are changed, as Linux does).
    pub fn protect(&mut self, start: u64, end: u64, prot: u32) -> Result<()> {
        let mut narrowed = false;
        let mut at = start;
        while at < end {
            let Some(area) = self.areas.find(at) else {
                self.finish_protect(narrowed);
                return Err(Errno::ENOMEM);
            };
            let stop = area.end.min(end);
            if let Backing::File(file) = &area.payload.backing
                && area.payload.shared
                && prot & linux::PROT_WRITE != 0
                && !file.writable
            {
                self.finish_protect(narrowed);
                return Err(Errno::EACCES);
            }
            narrowed |= self.protect_area(at, stop, prot);
            at = stop;
        }
        self.finish_protect(narrowed);
        Ok(())
    }

    fn finish_protect(&mut self, narrowed: bool) {
        if narrowed {
            tlb::flush_all();
        }
    }

    /// Returns whether any present mapping lost a right.
    fn protect_area(&mut self, start: u64, end: u64, prot: u32) -> bool {
        let mut narrowed = false;
        for mut area in self.areas.cut(start, end) {
            let was_accessible = accessible(&area.payload);
            area.payload.prot = prot;
            let vma = area.payload.clone();
            let (flags, open) = (entry_flags(&vma), accessible(&vma));
            let update = pagetable::update(area.start, area.end, |entry, _| {
                let mut new = entry
                    & !(pagetable::WRITE | pagetable::NX | pagetable::PRESENT | pagetable::KEPT)
                    | flags;
                if let Backing::File(_) = vma.backing
                    && entry & (pagetable::OWNED | pagetable::WRITE) == 0
                {
                    new &= !pagetable::WRITE; // still the file's own page: made writable by a fault
                }
                new |= if open {
                    pagetable::PRESENT
                } else {
                    pagetable::KEPT
                };
                let lost = entry & !new & (pagetable::WRITE | pagetable::PRESENT) != 0
                    || !entry & new & pagetable::NX != 0;
                narrowed |= lost && pagetable::may_be_cached(entry);
                new
            });
            if update.is_none() {
                crate::console::warn(
                    "memory is too short to split a large page; its protection is unchanged",
                );
            }
            self.areas.insert(area.start, area.end, area.payload);
            if !was_accessible && open {
                // Newly usable memory, as when glibc opens a thread's stack or a piece of an arena.
                let _ = self.back_ahead(area.start, area.end, &vma);
            }
        }
        narrowed
    }

    /// MADV_DONTNEED: private pages read as zero (or the file) again. ENOMEM when a part is not mapped.
    pub fn discard(&mut self, start: u64, end: u64) -> Result<()> {
        let whole = self.areas.covers(start, end, |_| true);
        let pieces: Vec<_> = self
            .areas
            .overlapping(start, end)
            .filter(|area| {
                (area.payload.is_anonymous() && !area.payload.shared)
                    || matches!(area.payload.backing, Backing::File(_))
            })
            .map(|area| (area.start.max(start), area.end.min(end)))
            .collect();
        for (start, end) in pieces {
            if !clear_in_place(start, end) {
                self.release_pages(start, end);
            }
        }
        if whole { Ok(()) } else { Err(Errno::ENOMEM) }
    }
}

/// Makes the private pages of `start..end` zero where they are, if few were written; false when there are too many or others among them.
fn clear_in_place(start: u64, end: u64) -> bool {
    let mut written = Vec::new();
    let mut others = false;
    let looked = pagetable::update(start, end, |entry, large| {
        others |= large || entry & pagetable::OWNED == 0;
        if entry & pagetable::DIRTY != 0 && written.len() <= CLEAR_IN_PLACE {
            written.push(pagetable::address(entry));
        }
        entry
    });
    if looked.is_none() || others || written.len() > CLEAR_IN_PLACE {
        return false;
    }
    for paddr in written {
        // SAFETY: a frame that this address space owns; the program asked for zeros.
        unsafe { core::ptr::write_bytes(frames::virt(paddr), 0, PAGE as usize) };
    }
    true
}
