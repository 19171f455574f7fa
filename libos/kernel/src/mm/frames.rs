//! The machine's physical frames.

use spin::Mutex;
use unik_abi::layout::PHYSMAP_VADDR;
use unik_core::frames::{Frame, FrameAllocator};

static FRAMES: Mutex<Option<FrameAllocator>> = Mutex::new(None);

/// Where physical address `paddr` can be read and written.
pub fn virt(paddr: u64) -> *mut u8 {
    (PHYSMAP_VADDR + paddr) as *mut u8
}

/// Puts an allocator in place.
pub fn install(frames: FrameAllocator) {
    *FRAMES.lock() = Some(frames);
}

fn with<T>(action: impl FnOnce(&mut FrameAllocator) -> Option<T>) -> Option<T> {
    FRAMES.lock().as_mut().and_then(action)
}

fn clear(frame: Frame, count: usize) -> u64 {
    if !frame.zeroed {
        // SAFETY: the frames were just allocated and nobody else uses them.
        unsafe { core::ptr::write_bytes(virt(frame.paddr), 0, count * 4096) };
    }
    frame.paddr
}

/// Frames that only the library OS itself gets (heap, page tables, stacks): so that it can say in peace that memory has ended.
const RESERVE: usize = 512;

/// As [`with`], for the program's memory and files: leaves the reserve alone.
fn with_room<T>(frames: usize, action: impl FnOnce(&mut FrameAllocator) -> Option<T>) -> Option<T> {
    with(|all| {
        if all.free_frames() < frames + RESERVE.min(all.total_frames() / 16) {
            return None;
        }
        action(all)
    })
}

/// A zeroed frame.
pub fn alloc() -> Option<u64> {
    with_room(1, FrameAllocator::alloc).map(|frame| clear(frame, 1))
}

/// A frame of unknown content.
pub fn alloc_dirty() -> Option<u64> {
    with_room(1, FrameAllocator::alloc).map(|frame| frame.paddr)
}

/// A zeroed 2 MiB chunk.
pub fn alloc_chunk() -> Option<u64> {
    with_room(512, FrameAllocator::alloc_chunk).map(|frame| clear(frame, 512))
}

/// `count` zeroed contiguous frames (at most 512).
pub fn alloc_contiguous(count: usize) -> Option<u64> {
    // Frames that nobody touched stay so: the first touch is what they cost.
    let clear = |paddr, len| {
        // SAFETY: the frames were just allocated and nobody else uses them.
        unsafe { core::ptr::write_bytes(virt(paddr), 0, len) };
    };
    with(|frames| frames.alloc_run(count, clear))
}

/// `count` contiguous frames of unknown content.
pub fn alloc_contiguous_dirty(count: usize) -> Option<u64> {
    with(|frames| frames.alloc_contiguous(count)).map(|frame| frame.paddr)
}

/// Frees `count` frames from `paddr` on.
pub fn free(paddr: u64, count: usize) {
    with(|frames| {
        frames.free(paddr, count);
        Some(())
    });
}

/// Free and total frames.
pub fn stats() -> (usize, usize) {
    with(|frames| Some((frames.free_frames(), frames.total_frames()))).unwrap_or((0, 0))
}

/// Whether less than a quarter of memory is free.
pub fn are_short() -> bool {
    let (free, total) = stats();
    free < total / 4
}
