//! The program's address space: areas, and the pages under them.
//!
//! Pages are mapped ahead of use where that is cheap: a page fault costs ~70 us on a paravirtual KVM, a page-table entry written ahead of
//! use nearly nothing, and a frame nobody touches costs the host nothing either. So small anonymous mappings get all their
//! frames at once, larger ones 2 MiB pages; stacks get their top, very large reservations nothing until touched.

use super::mapping::{Backing, Vma};
use super::{LARGE, PAGE, frames, page_up, pagetable, tlb};
use crate::errno::{Errno, Result};
use crate::lock::Locked;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use unik_abi::layout::USER_TOP;
use unik_core::areas::{Area, Areas};
use unik_fs::PageRef;

/// Lowest address a program may map (Linux's default `vm.mmap_min_addr`).
pub const MIN_ADDRESS: u64 = 0x1_0000;
/// Anonymous memory up to this many bytes is backed at once.
const EAGER: u64 = 1 << 20;
/// Of a stack this much is backed at once, at its top.
const STACK_EAGER: u64 = 64 << 10;
/// Memory backed around a fault.
const FAULT_AROUND: u64 = 64 << 10;
/// Areas up to this size, and stacks, are hardly ever used whole: their entries are born unused, so that they go without a flush.
const SPARSE: u64 = 64 << 10;
/// MADV_DONTNEED clears up to this many pages in place rather than giving them back: a flush costs more.
const CLEAR_IN_PLACE: usize = 64;
/// At most 1/8 of the free memory goes into one mapping ahead of use.
const AHEAD_SHARE: u64 = 8;

/// The address space.
pub struct Space {
    areas: Areas<Vma>,
    /// mmap searches downwards from here.
    mmap_top: u64,
    brk_start: u64,
    brk: u64,
    /// Bytes in areas, and the most ever.
    pub total: u64,
    /// Highest total.
    pub peak: u64,
    /// Bytes of frames behind the program, its image included.
    resident: u64,
}

/// The one program's address space.
pub static SPACE: Locked<Space> = Locked::new(Space {
    areas: Areas::new(),
    mmap_top: USER_TOP,
    brk_start: 0,
    brk: 0,
    total: 0,
    peak: 0,
    resident: 0,
});

/// Why a page fault could not be answered with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No area there: SIGSEGV, SEGV_MAPERR.
    NotMapped,
    /// The area forbids this access: SIGSEGV, SEGV_ACCERR.
    Forbidden,
    /// Beyond the end of the file: SIGBUS.
    BeyondFile,
    /// No memory left.
    OutOfMemory,
}

/// What an access wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Fetch an instruction.
    Execute,
}

fn entry_flags(vma: &Vma) -> u64 {
    let mut flags = 0;
    if vma.prot & linux::PROT_WRITE != 0 {
        flags |= pagetable::WRITE;
    }
    if vma.prot & linux::PROT_EXEC == 0 {
        flags |= pagetable::NX;
    }
    flags
}

fn accessible(vma: &Vma) -> bool {
    vma.prot & (linux::PROT_READ | linux::PROT_WRITE | linux::PROT_EXEC) != 0
}

fn allows(vma: &Vma, access: Access) -> bool {
    match access {
        Access::Read => accessible(vma),
        Access::Write => vma.prot & linux::PROT_WRITE != 0,
        Access::Execute => vma.prot & linux::PROT_EXEC != 0,
    }
}

/// Bytes that may be backed ahead of use now.
fn ahead_budget() -> u64 {
    frames::stats().0 as u64 * PAGE / AHEAD_SHARE
}

impl Space {
    /// Sets where mmap searches from and where the heap begins (page-aligned).
    pub fn init(&mut self, mmap_top: u64, brk_start: u64) {
        (self.mmap_top, self.brk_start, self.brk) = (mmap_top, brk_start, brk_start);
    }

    /// All areas.
    pub fn areas(&self) -> impl Iterator<Item = Area<&Vma>> {
        self.areas.iter()
    }

    /// The heap: start and current end.
    pub fn heap(&self) -> (u64, u64) {
        (self.brk_start, self.brk)
    }

    fn add_area(&mut self, start: u64, end: u64, vma: Vma) {
        self.total += end - start;
        self.peak = self.peak.max(self.total);
        self.areas.insert(start, end, vma);
    }

    /// Finds room for `len` bytes (page-aligned): at `hint` if that is free, else top down.
    pub fn find_room(&self, hint: u64, len: u64, low: bool) -> Result<u64> {
        if hint >= MIN_ADDRESS
            && hint % PAGE == 0
            && hint.checked_add(len).is_some_and(|end| end <= USER_TOP)
            && self.areas.overlapping(hint, hint + len).next().is_none()
        {
            return Ok(hint);
        }
        let align = if len >= LARGE { LARGE } else { PAGE };
        if low {
            return self
                .areas
                .gap_above(MIN_ADDRESS, 0x8000_0000, len, PAGE)
                .ok_or(Errno::ENOMEM);
        }
        self.areas
            .gap_below(MIN_ADDRESS, self.mmap_top, len, align)
            .or_else(|| self.areas.gap_below(MIN_ADDRESS, USER_TOP, len, PAGE))
            .ok_or(Errno::ENOMEM)
    }

    /// Whether anything is mapped in `start..end`.
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.areas.overlapping(start, end).next().is_none()
    }

    /// Maps `vma` at `start..end`, which is free, and backs it as far as is wise. On ENOMEM nothing is mapped.
    pub fn map(&mut self, start: u64, end: u64, vma: Vma, populate: bool) -> Result<()> {
        let (total, anonymous) = (frames::stats().1 as u64 * PAGE, vma.is_anonymous());
        if anonymous && accessible(&vma) && !vma.noreserve && end - start > total {
            return Err(Errno::ENOMEM);
        }
        self.add_area(start, end, vma.clone());
        let backed = if populate {
            self.populate(start, end)
        } else {
            self.back_ahead(start, end, &vma)
        };
        if backed == Err(Fault::OutOfMemory) && populate {
            self.unmap(start, end);
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Backs a new or newly accessible area ahead of use, by the policy in the module text. Missing memory is no error: faults come later.
    fn back_ahead(&mut self, start: u64, end: u64, vma: &Vma) -> core::result::Result<(), Fault> {
        if !accessible(vma) || vma.noreserve {
            return Ok(());
        }
        match &vma.backing {
            Backing::Image(_) | Backing::Vdso(_) => return self.back(start, end),
            Backing::File(_) => return Ok(()),
            _ => {}
        }
        let len = end - start;
        if len > ahead_budget() {
            return Ok(());
        }
        if vma.stack {
            return self.back(end - len.min(STACK_EAGER), end);
        }
        if len <= EAGER {
            return self.back(start, end);
        }
        // Large pages where they fit; the rest if it is small.
        let (first, last) = (start.next_multiple_of(LARGE), end & !(LARGE - 1));
        if first >= last {
            return Ok(());
        }
        for at in (first..last).step_by(LARGE as usize) {
            self.back_large(at, vma)?;
        }
        self.back(start, first)?;
        self.back(last, end)
    }

    /// Puts a 2 MiB page at `at` if nothing is there yet; falls back to small pages when no chunk is free.
    fn back_large(&mut self, at: u64, vma: &Vma) -> core::result::Result<(), Fault> {
        if !pagetable::large_is_free(at) {
            return self.back(at, at + LARGE);
        }
        match frames::alloc_chunk() {
            Some(paddr) => {
                self.resident += LARGE;
                pagetable::map_large(at, paddr, entry_flags(vma) | pagetable::OWNED)
                    .ok_or(Fault::OutOfMemory)
            }
            None => self.back(at, at + LARGE),
        }
    }

    /// Backs every page of `start..end` (inside one area) that has nothing yet.
    fn back(&mut self, start: u64, end: u64) -> core::result::Result<(), Fault> {
        // The area may have merged with its neighbour: offsets count from its own start.
        let Some(area) = self.areas.find(start) else {
            return Ok(());
        };
        let (area_start, vma) = (area.start, &area.payload.clone());
        let sparse = vma.is_anonymous() && (vma.stack || area.end - area.start <= SPARSE);
        let flags = entry_flags(vma) | if sparse { 0 } else { pagetable::TOUCHED };
        for at in (start..end).step_by(PAGE as usize) {
            if pagetable::lookup(at).is_some() {
                continue;
            }
            let mapped = match &vma.backing {
                Backing::Image(paddr) | Backing::Vdso(paddr) => {
                    pagetable::map(at, paddr + (at - area_start), flags)
                }
                Backing::File(file) => {
                    let page = (vma.offset + (at - area_start)) / PAGE;
                    back_file(at, &*file.node, page, vma, flags)?
                }
                _ => {
                    let frame = frames::alloc().ok_or(Fault::OutOfMemory)?;
                    pagetable::map(at, frame, flags | pagetable::OWNED)
                }
            };
            mapped.ok_or(Fault::OutOfMemory)?;
            self.resident += PAGE;
        }
        Ok(())
    }

    /// Backs all of `start..end`, whatever areas it spans.
    pub fn populate(&mut self, start: u64, end: u64) -> core::result::Result<(), Fault> {
        let mut at = start;
        while at < end {
            let area = self.areas.find(at).ok_or(Fault::NotMapped)?;
            let (area_end, vma) = (area.end.min(end), area.payload.clone());
            if accessible(&vma) {
                while at < area_end {
                    let next = ((at & !(LARGE - 1)) + LARGE).min(area_end);
                    if vma.is_anonymous() && !vma.stack && next - at == LARGE {
                        self.back_large(at, &vma)?;
                    } else {
                        self.back(at, next)?;
                    }
                    at = next;
                }
            }
            at = area_end;
        }
        Ok(())
    }

    /// Answers a page fault or makes sure that an access would succeed.
    pub fn fault(&mut self, address: u64, access: Access) -> core::result::Result<(), Fault> {
        let area = self.areas.find(address).ok_or(Fault::NotMapped)?;
        let (start, end, vma) = (area.start, area.end, area.payload.clone());
        if !allows(&vma, access) {
            return Err(Fault::Forbidden);
        }
        let page = super::page_down(address);
        if let Some(leaf) = pagetable::lookup(page) {
            // There already: the TLB was behind, or another thread was faster; or a file page that was mapped for reading.
            if access == Access::Write && leaf.entry & pagetable::WRITE == 0 {
                return self.make_writable(page, start, &vma);
            }
            return Ok(());
        }
        let large = address & !(LARGE - 1);
        if vma.is_anonymous()
            && !vma.stack
            && large >= start
            && large + LARGE <= end
            && pagetable::large_is_free(large)
            && ahead_budget() > LARGE
        {
            return self.back_large(large, &vma);
        }
        let window = address & !(FAULT_AROUND - 1);
        if let Backing::File(file) = &vma.backing
            && !vma.shared
            && access == Access::Write
        {
            let index = (vma.offset + (page - start)) / PAGE;
            let frame = copy_page(file.node.map_page(index, false).map_err(file_fault)?)?;
            self.resident += PAGE;
            return pagetable::map(
                page,
                frame,
                entry_flags(&vma) | pagetable::OWNED | pagetable::TOUCHED,
            )
            .ok_or(Fault::OutOfMemory);
        }
        self.back(page, page + PAGE)?;
        // The neighbours are a favour: their failure is not the program's.
        let _ = self.back(window.max(start), (window + FAULT_AROUND).min(end));
        Ok(())
    }

    /// A page that was mapped read-only in a writable area (a private file page, or a shared one not yet made) gets a frame to write to.
    fn make_writable(
        &mut self,
        page: u64,
        area_start: u64,
        vma: &Vma,
    ) -> core::result::Result<(), Fault> {
        let Backing::File(file) = &vma.backing else {
            return Ok(());
        };
        let index = (vma.offset + (page - area_start)) / PAGE;
        self.release_pages(page, page + PAGE);
        if vma.shared {
            let PageRef::Frame(frame) = file.node.map_page(index, true).map_err(file_fault)? else {
                return Err(Fault::BeyondFile);
            };
            crate::file::retain(frame);
            pagetable::map(page, frame.0.get(), entry_flags(vma) | crate::file::SHARED)
                .ok_or(Fault::OutOfMemory)
        } else {
            let frame = copy_page(file.node.map_page(index, false).map_err(file_fault)?)?;
            pagetable::map(page, frame, entry_flags(vma) | pagetable::OWNED)
                .ok_or(Fault::OutOfMemory)
        }
    }

    /// Frees the pages of `start..end` after a flush.
    fn release_pages(&mut self, start: u64, end: u64) {
        let mut freed: Vec<(u64, usize)> = Vec::new();
        let mut shared = Vec::new();
        let mut visible = false;
        let mut gone = 0;
        let updated = pagetable::update(start, end, |entry, large| {
            visible |= entry & (pagetable::PRESENT | pagetable::ACCESSED)
                == pagetable::PRESENT | pagetable::ACCESSED;
            gone += if large { LARGE } else { PAGE };
            if entry & pagetable::OWNED != 0 {
                let (paddr, count) = (pagetable::address(entry), if large { 512 } else { 1 });
                match freed.last_mut() {
                    Some((last, n)) if *last + *n as u64 * PAGE == paddr => *n += count,
                    _ => freed.push((paddr, count)),
                }
            } else if entry & crate::file::SHARED != 0 {
                shared.push(pagetable::address(entry));
            }
            0
        });
        if updated.is_none() {
            // A large page could not be split for want of memory: it stays whole until its other half goes too.
            crate::console::warn("memory is too short to split a large page; it stays mapped");
        }
        self.resident = self.resident.saturating_sub(gone);
        if visible {
            tlb::flush_all();
        }
        for (paddr, count) in freed {
            frames::free(paddr, count);
        }
        shared.into_iter().for_each(crate::file::release_paddr);
    }

    /// Unmaps `start..end`, whatever is there.
    pub fn unmap(&mut self, start: u64, end: u64) {
        let cut = self.areas.cut(start, end);
        self.total -= cut.iter().map(|area| area.end - area.start).sum::<u64>();
        if !cut.is_empty() {
            self.release_pages(start, end);
        }
    }

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
                narrowed |= entry & (pagetable::PRESENT | pagetable::ACCESSED)
                    == pagetable::PRESENT | pagetable::ACCESSED
                    && lost;
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

    /// Pages of a file show something else from now on: mappings of them fault and ask again.
    pub fn forget_file(&mut self, dev: u64, ino: u64, pages: core::ops::Range<u64>) {
        let (from, to) = (pages.start * PAGE, pages.end.saturating_mul(PAGE));
        let stale = |area: Area<&Vma>| {
            let Backing::File(file) = &area.payload.backing else {
                return None;
            };
            if (file.node.ino(), file.node.dev()) != (ino, dev) {
                return None;
            }
            let offset = area.payload.offset;
            let start = area.start + from.saturating_sub(offset);
            let end = area
                .start
                .saturating_add(to.saturating_sub(offset))
                .min(area.end);
            (start < end).then_some((start, end))
        };
        let stale: Vec<_> = self.areas.iter().filter_map(stale).collect();
        stale
            .into_iter()
            .for_each(|(start, end)| self.release_pages(start, end));
    }

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
        let congruent = (old ^ target) % LARGE == 0;
        let mut moved = Vec::new();
        let mut at = old;
        // Large pages survive the move only where both addresses are aligned alike.
        while at < old + len {
            match pagetable::lookup(at) {
                Some(leaf)
                    if leaf.large && congruent && at % LARGE == 0 && at + LARGE <= old + len =>
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

    /// Whether `start..end` is mapped without holes.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        self.areas.covers(start, end, |_| true)
    }

    /// Bytes of frames behind the program (resident set).
    pub fn resident(&self) -> u64 {
        self.resident
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

fn file_fault(errno: Errno) -> Fault {
    if errno == Errno::ENOSPC || errno == Errno::ENOMEM {
        Fault::OutOfMemory
    } else {
        Fault::BeyondFile
    }
}

fn copy_page(page: PageRef) -> core::result::Result<u64, Fault> {
    let frame = match page {
        PageRef::Hole => return frames::alloc().ok_or(Fault::OutOfMemory),
        _ => frames::alloc_dirty().ok_or(Fault::OutOfMemory)?,
    };
    let source = match page {
        PageRef::Frame(source) => frames::virt(source.0.get()) as *const u8,
        PageRef::Packed(bytes) => bytes.as_ptr(),
        PageRef::Hole => return Ok(frame),
    };
    // SAFETY: both are whole pages of physical memory; the target is ours alone.
    unsafe { core::ptr::copy_nonoverlapping(source, frames::virt(frame), PAGE as usize) };
    Ok(frame)
}

/// Maps page `index` of a file at `at`: the file's own frame, read-only unless the mapping is shared and writable; copied by a later write fault.
fn back_file(
    at: u64,
    node: &dyn unik_fs::Inode,
    index: u64,
    vma: &Vma,
    flags: u64,
) -> core::result::Result<Option<()>, Fault> {
    let write = vma.shared && flags & pagetable::WRITE != 0;
    let page = node.map_page(index, write).map_err(file_fault)?;
    let read_only = if write {
        flags
    } else {
        flags & !pagetable::WRITE
    };
    Ok(match page {
        PageRef::Frame(frame) => {
            crate::file::retain(frame);
            pagetable::map(at, frame.0.get(), read_only | crate::file::SHARED)
        }
        PageRef::Packed(bytes) => pagetable::map(
            at,
            bytes.as_ptr() as u64 - unik_abi::layout::PHYSMAP_VADDR,
            read_only,
        ),
        PageRef::Hole if vma.shared => {
            let PageRef::Frame(frame) = node.map_page(index, true).map_err(file_fault)? else {
                return Err(Fault::BeyondFile);
            };
            crate::file::retain(frame);
            pagetable::map(at, frame.0.get(), read_only | crate::file::SHARED)
        }
        PageRef::Hole => pagetable::map(
            at,
            frames::alloc().ok_or(Fault::OutOfMemory)?,
            flags | pagetable::OWNED,
        ),
    })
}
