//! The library OS's own heap: talc over frames, extended on demand. Large pieces are frames of their own, so that fresh memory is neither
//! cleared nor touched before it is used: buffers of connections are mostly empty.

use super::{PAGE, frames};
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};
use talc::{OomHandler, Span, Talc, Talck};

/// From so many bytes on, up to what is contiguous at most, a piece consists of frames.
const LARGE: usize = 32 << 10;
const CONTIGUOUS: usize = 512 * PAGE as usize;

/// Extends the heap when it is exhausted.
pub struct FromFrames;

impl OomHandler for FromFrames {
    fn handle_oom(talc: &mut Talc<Self>, layout: Layout) -> Result<(), ()> {
        let frames_needed = (layout.size() + layout.align() + 4096).div_ceil(4096);
        let count = frames_needed.next_multiple_of(32);
        if count > 512 {
            return Err(());
        }
        let paddr = frames::alloc_contiguous_dirty(count).ok_or(())?;
        // SAFETY: the frames are ours alone from now on, mapped for ever in the physmap.
        unsafe { talc.claim(Span::from_base_size(frames::virt(paddr), count * 4096)) }.map(|_| ())
    }
}

/// The global allocator.
struct Heap {
    small: Talck<spin::Mutex<()>, FromFrames>,
    /// The first memory, from before there are frames: start and length.
    first: [AtomicUsize; 2],
}

impl Heap {
    fn is_large(layout: Layout) -> bool {
        (LARGE..=CONTIGUOUS).contains(&layout.size()) && layout.align() <= PAGE as usize
    }

    fn in_first(&self, pointer: *mut u8) -> bool {
        let [start, len] = [0, 1].map(|i| self.first[i].load(Ordering::Relaxed));
        (pointer as usize).wrapping_sub(start) < len
    }

    /// Frames for a large piece; none before the frame allocator is there.
    fn frames_for(layout: Layout, take: fn(usize) -> Option<u64>) -> Option<*mut u8> {
        if !Self::is_large(layout) || frames::stats().1 == 0 {
            return None;
        }
        let paddr = take(layout.size().div_ceil(PAGE as usize));
        Some(paddr.map_or(core::ptr::null_mut(), frames::virt))
    }
}

// SAFETY: pieces are either talc's or frames of their own, told apart in the same way when they come and when they go: small ones and those
// in the first memory are talc's. `realloc` is the trait's own and goes through these.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::frames_for(layout, frames::alloc_contiguous_dirty).unwrap_or_else(|| {
            // SAFETY: the caller's promise is the callee's.
            unsafe { self.small.alloc(layout) }
        })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::frames_for(layout, frames::alloc_contiguous).unwrap_or_else(|| {
            // SAFETY: the caller's promise is the callee's.
            unsafe { self.small.alloc_zeroed(layout) }
        })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if Self::is_large(layout) && !self.in_first(pointer) {
            let paddr = pointer as u64 - frames::virt(0) as u64;
            return frames::free(paddr, layout.size().div_ceil(PAGE as usize));
        }
        // SAFETY: the caller's promise is the callee's, and the piece is talc's.
        unsafe { self.small.dealloc(pointer, layout) }
    }
}

/// Gives the heap its first memory (virtual range).
///
/// # Safety
/// Nobody else uses the range.
pub unsafe fn start(base: *mut u8, len: usize) {
    HEAP.first[0].store(base as usize, Ordering::Relaxed);
    HEAP.first[1].store(len, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    let claimed = unsafe { HEAP.small.lock().claim(Span::from_base_size(base, len)) };
    assert!(claimed.is_ok(), "first heap too small");
}

#[global_allocator]
static HEAP: Heap = Heap {
    small: Talc::new(FromFrames).lock(),
    first: [const { AtomicUsize::new(0) }; 2],
};
