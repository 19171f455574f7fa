//! What the file systems need of the kernel: page frames, time, randomness.

use crate::lock::Locked;
use crate::mm::{frames, pagetable};
use alloc::collections::BTreeMap;
use core::num::NonZeroU64;
use unik_fs::system::{Frame, PAGE, PageSource, System, Time};

/// Software bit of a page-table entry: the frame belongs to a file and is released when unmapped.
pub const SHARED: u64 = 1 << 11;
const _: () = assert!(SHARED & (pagetable::OWNED | pagetable::KEPT) == 0);

/// References beyond the first, by physical address.
static REFERENCES: Locked<BTreeMap<u64, u32>> = Locked::new(BTreeMap::new());

/// Adds a reference to a file's frame.
pub fn retain(frame: Frame) {
    *REFERENCES.get().entry(frame.0.get()).or_insert(0) += 1;
}

/// Takes a reference away; frees the frame with the last one.
pub fn release_paddr(paddr: u64) {
    let mut references = REFERENCES.get();
    match references.get_mut(&paddr) {
        Some(count) if *count > 1 => *count -= 1,
        Some(_) => {
            references.remove(&paddr);
        }
        None => frames::free(paddr, 1),
    }
}

/// The kernel as the file systems see it.
pub struct Kernel;

impl PageSource for Kernel {
    fn alloc(&self, zeroed: bool) -> Option<Frame> {
        let paddr = if zeroed {
            frames::alloc()
        } else {
            frames::alloc_dirty()
        }?;
        NonZeroU64::new(paddr).map(Frame)
    }

    fn retain(&self, frame: Frame) {
        retain(frame);
    }

    fn release(&self, frame: Frame) {
        release_paddr(frame.0.get());
    }

    fn read(&self, frame: Frame, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= PAGE);
        // SAFETY: inside a frame that a file owns; `out` is not that frame (files are read into program or library-OS memory). A program
        // that maps the page and reads into itself moves bytes onto themselves: copy allows overlap.
        unsafe {
            core::ptr::copy(
                frames::virt(frame.0.get()).add(offset),
                out.as_mut_ptr(),
                out.len(),
            )
        };
    }

    fn write(&self, frame: Frame, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= PAGE);
        // SAFETY: as above.
        unsafe {
            core::ptr::copy(
                data.as_ptr(),
                frames::virt(frame.0.get()).add(offset),
                data.len(),
            )
        };
    }

    fn zero(&self, frame: Frame, offset: usize, len: usize) {
        assert!(offset + len <= PAGE);
        // SAFETY: as above.
        unsafe { core::ptr::write_bytes(frames::virt(frame.0.get()).add(offset), 0, len) };
    }
}

impl System for Kernel {
    fn now(&self) -> Time {
        Time::from_ns(crate::time::realtime())
    }

    fn fill_random(&self, out: &mut [u8]) {
        crate::random::fill(out);
    }

    fn unmap(&self, dev: u64, ino: u64, pages: core::ops::Range<u64>) {
        crate::mm::space::SPACE.get().forget_file(dev, ino, pages);
    }
}
