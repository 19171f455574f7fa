//! The program's address space: areas, and the pages under them.
//!
//! Pages are mapped ahead of use where that is cheap: a page fault costs ~70 us on a paravirtual KVM, a page-table entry written ahead of
//! use nearly nothing, and a frame nobody touches costs the host nothing either. So small anonymous mappings get all their
//! frames at once, larger ones 2 MiB pages; stacks get their top, very large reservations nothing until touched.

mod limbo;
mod protect;
mod resize;

use super::mapping::{Backing, Vma};
use super::{LARGE, PAGE, frames, pagetable, tlb};
use crate::errno::{Errno, Result};
use crate::lock::Locked;
use alloc::vec::Vec;
use limbo::{Freed, Limbo};
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
    limbo: Limbo,
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
    limbo: Limbo::new(),
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
            && hint.is_multiple_of(PAGE)
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
        let mut top = self.mmap_top;
        while let Some(found) = self.areas.gap_below(MIN_ADDRESS, top, len, align) {
            match self.limbo.lowest_in(found, found + len) {
                Some(lower) => top = lower,
                None => return Ok(found),
            }
        }
        self.areas
            .gap_below(MIN_ADDRESS, USER_TOP, len, PAGE)
            .ok_or(Errno::ENOMEM)
    }

    /// Whether anything is mapped in `start..end`.
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.areas.overlapping(start, end).next().is_none()
    }

    /// Maps `vma` at `start..end`, which is free, and backs it as far as is wise. On ENOMEM nothing is mapped: more than all memory is refused, but
    /// for stacks, which are reserved for their deepest use.
    pub fn map(&mut self, start: u64, end: u64, vma: Vma, populate: bool) -> Result<()> {
        let (total, anonymous) = (frames::stats().1 as u64 * PAGE, vma.is_anonymous());
        if anonymous && accessible(&vma) && !vma.noreserve && !vma.stack && end - start > total {
            return Err(Errno::ENOMEM);
        }
        self.limbo.settle(start, end);
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
        let (freed, visible) = self.take_pages(start, end);
        if visible {
            tlb::flush_all();
        }
        freed.release();
    }

    /// Takes the pages of `start..end` out of the page tables; whether a processor may still reach them.
    fn take_pages(&mut self, start: u64, end: u64) -> (Freed, bool) {
        let mut freed = Freed::default();
        let mut visible = false;
        let mut gone = 0;
        let updated = pagetable::update(start, end, |entry, large| {
            visible |= pagetable::may_be_cached(entry);
            gone += if large { LARGE } else { PAGE };
            if entry & pagetable::OWNED != 0 {
                let (paddr, count) = (pagetable::address(entry), if large { 512 } else { 1 });
                match freed.owned.last_mut() {
                    Some((last, n)) if *last + *n as u64 * PAGE == paddr => *n += count,
                    _ => freed.owned.push((paddr, count)),
                }
            } else if entry & crate::file::SHARED != 0 {
                freed.shared.push(pagetable::address(entry));
            }
            0
        });
        if updated.is_none() {
            // A large page could not be split for want of memory: it stays whole until its other half goes too.
            crate::console::warn("memory is too short to split a large page; it stays mapped");
        }
        self.resident = self.resident.saturating_sub(gone);
        (freed, visible)
    }

    /// Unmaps `start..end`, whatever is there.
    pub fn unmap(&mut self, start: u64, end: u64) {
        let cut = self.areas.cut(start, end);
        self.total -= cut.iter().map(|area| area.end - area.start).sum::<u64>();
        if cut.is_empty() {
            return;
        }
        match self.take_pages(start, end) {
            (freed, true) => self.limbo.add(start, end, tlb::start(), freed),
            (freed, false) => freed.release(),
        }
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

    /// Whether `start..end` is mapped without holes.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        self.areas.covers(start, end, |_| true)
    }

    /// Bytes of frames behind the program (resident set).
    pub fn resident(&self) -> u64 {
        self.resident
    }
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
