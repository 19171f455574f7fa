//! mremap and brk: areas that grow, shrink and move.

use super::{LARGE, PAGE, Space};
use crate::errno::{Errno, Result};
use crate::mm::mapping::{Backing, Vma};
use crate::mm::{page_up, pagetable, tlb};
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use unik_abi::layout::USER_TOP;

impl Space {
    /// Moves or resizes a mapping (mremap). Returns the new address.
    pub fn remap(
        &mut self,
        old: u64,
        old_len: u64,
        new_len: u64,
        may_move: bool,
        fixed: Option<u64>,
    ) -> Result<u64> {
        let area = self.areas.find(old).ok_or(Errno::EFAULT)?;
        if area.end < old + old_len {
            return Err(Errno::EFAULT);
        }
        let vma = area.payload.clone();
        if fixed.is_none() {
            if new_len <= old_len {
                if new_len < old_len {
                    self.unmap(old + new_len, old + old_len);
                }
                return Ok(old);
            }
            let (tail, tail_end) = (old + old_len, old + new_len);
            if area.end == tail && tail_end <= USER_TOP && self.is_free(tail, tail_end) {
                let grown = unik_core::areas::Payload::split(&vma, tail - area.start);
                self.map(tail, tail_end, grown, false)?;
                return Ok(old);
            }
        }
        if !may_move {
            return Err(Errno::ENOMEM);
        }
        let target = match fixed {
            Some(target) => {
                self.unmap(target, target + new_len);
                target
            }
            None => self.find_room(0, new_len, false)?,
        };
        self.limbo.settle(target, target + new_len);
        if new_len < old_len {
            self.unmap(old + new_len, old + old_len);
        }
        self.move_pages(old, old_len.min(new_len), target);
        if new_len > old_len {
            let moved = self.areas.find(target).ok_or(Errno::EFAULT)?;
            let tail =
                unik_core::areas::Payload::split(moved.payload, target + old_len - moved.start);
            self.map(target + old_len, target + new_len, tail, false)?;
        }
        Ok(target)
    }

    fn move_pages(&mut self, old: u64, len: u64, target: u64) {
        for area in self.areas.cut(old, old + len) {
            let start = target + (area.start - old);
            self.areas
                .insert(start, start + (area.end - area.start), area.payload);
        }
        let congruent = (old ^ target).is_multiple_of(LARGE);
        let mut moved = Vec::new();
        let mut at = old;
        // Large pages survive the move only where both addresses are aligned alike.
        while at < old + len {
            match pagetable::lookup(at) {
                Some(leaf)
                    if leaf.large
                        && congruent
                        && at.is_multiple_of(LARGE)
                        && at + LARGE <= old + len =>
                {
                    moved.push((at, leaf.entry, true));
                    at += LARGE;
                }
                Some(leaf) if leaf.large => {
                    let offset = at % LARGE;
                    moved.push((at, (leaf.entry & !pagetable::LARGE_PAGE) + offset, false));
                    at += PAGE;
                }
                Some(leaf) => {
                    moved.push((at, leaf.entry, false));
                    at += PAGE;
                }
                None => at += PAGE,
            }
        }
        let _ = pagetable::update(old, old + len, |_, _| 0);
        tlb::flush_all();
        for (from, entry, large) in moved {
            let to = target + (from - old);
            let flags = entry & !pagetable::address(u64::MAX);
            let stored = if large && pagetable::large_is_free(to) {
                pagetable::map_large(
                    to,
                    pagetable::address(entry),
                    flags & !pagetable::LARGE_PAGE,
                )
            } else if large {
                (0..512).try_for_each(|i| {
                    pagetable::set_entry(to + i * PAGE, (entry & !pagetable::LARGE_PAGE) + i * PAGE)
                })
            } else {
                pagetable::set_entry(to, entry)
            };
            if stored.is_none() {
                crate::console::warn("memory is too short for page tables; a moved page was lost");
            }
        }
    }

    /// brk(2): moves the end of the heap and returns it; the old end when that is impossible.
    pub fn set_brk(&mut self, wanted: u64) -> u64 {
        let (Some(old_end), Some(new_end)) = (page_up(self.brk), page_up(wanted)) else {
            return self.brk;
        };
        if wanted < self.brk_start || new_end > USER_TOP {
            return self.brk;
        }
        if new_end < old_end {
            self.unmap(new_end, old_end);
        } else if new_end > old_end {
            let heap = Vma {
                backing: Backing::Heap,
                ..Vma::anonymous(linux::PROT_READ | linux::PROT_WRITE)
            };
            if !self.is_free(old_end, new_end) || self.map(old_end, new_end, heap, false).is_err() {
                return self.brk;
            }
        }
        self.brk = wanted;
        wanted
    }
}
