//! Memory that the device reads and writes: whole pages from the kernel's [`Hal`].

use crate::setup::DriverError;
use core::marker::PhantomData;
use core::ptr::NonNull;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Physically contiguous, zeroed pages. Given back when dropped: the device must have been reset before.
pub struct Dma<H: Hal> {
    paddr: PhysAddr,
    vaddr: NonNull<u8>,
    pages: usize,
    hal: PhantomData<H>,
}

// SAFETY: the memory belongs to this value alone and is not tied to a thread.
unsafe impl<H: Hal> Send for Dma<H> {}

impl<H: Hal> Dma<H> {
    /// Allocates `pages` pages.
    ///
    /// # Errors
    /// [`DriverError::NoMemory`] when the kernel has no such range.
    pub fn new(pages: usize) -> Result<Self, DriverError> {
        let (paddr, vaddr) = H::dma_alloc(pages, BufferDirection::Both);
        if paddr == 0 {
            return Err(DriverError::NoMemory { pages });
        }
        Ok(Self {
            paddr,
            vaddr,
            pages,
            hal: PhantomData,
        })
    }

    /// Physical address of the byte at `offset`.
    pub fn paddr(&self, offset: usize) -> PhysAddr {
        debug_assert!(offset < self.len());
        self.paddr + offset as u64
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.pages * PAGE_SIZE
    }

    /// Never true: there is at least one page.
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Pointer to the byte at `offset`, which must be inside.
    pub(crate) fn ptr(&self, offset: usize) -> NonNull<u8> {
        assert!(
            offset < self.len(),
            "offset {offset} is outside of {} bytes of DMA memory",
            self.len()
        );
        // SAFETY: the offset was just checked against the length of the allocation.
        unsafe { self.vaddr.add(offset) }
    }

    /// The `len` bytes at `offset`. Panics when that is outside.
    ///
    /// # Safety
    /// The device does not write them while the slice lives.
    pub(crate) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset + len <= self.len(), "DMA view outside of its memory");
        // SAFETY: the range is inside the allocation, which was zeroed; the caller keeps the device away.
        unsafe { core::slice::from_raw_parts(self.vaddr.as_ptr().add(offset), len) }
    }

    /// As [`Self::bytes`], to be written.
    ///
    /// # Safety
    /// The device neither reads nor writes them while the slice lives.
    pub(crate) unsafe fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset + len <= self.len(), "DMA view outside of its memory");
        // SAFETY: as in `bytes`; the value is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.vaddr.as_ptr().add(offset), len) }
    }

    /// Copies `bytes` to `offset`. Panics when they do not fit: a driver's own mistake, never the device's.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(
            offset + bytes.len() <= self.len(),
            "DMA write outside of its memory"
        );
        // SAFETY: the range is inside the allocation; `bytes` cannot overlap memory that this value owns alone.
        unsafe {
            core::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.vaddr.as_ptr().add(offset),
                bytes.len(),
            )
        }
    }

    /// Copies from `offset` to all of `bytes`. Panics when that is outside.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(
            offset + bytes.len() <= self.len(),
            "DMA read outside of its memory"
        );
        // SAFETY: the range is inside the allocation; `bytes` cannot overlap memory that this value owns alone.
        unsafe {
            core::ptr::copy_nonoverlapping(
                self.vaddr.as_ptr().add(offset),
                bytes.as_mut_ptr(),
                bytes.len(),
            )
        }
    }
}

impl<H: Hal> Drop for Dma<H> {
    fn drop(&mut self) {
        // SAFETY: address and size are those that `dma_alloc` gave, and this is the only release.
        unsafe { H::dma_dealloc(self.paddr, self.vaddr, self.pages) };
    }
}
