//! The library OS's own heap: talc over frames, extended on demand.

use super::frames;
use core::alloc::Layout;
use talc::{OomHandler, Span, Talc, Talck};

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

/// Gives the heap its first memory (virtual range).
///
/// # Safety
/// Nobody else uses the range.
pub unsafe fn start(base: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    let claimed = unsafe { HEAP.lock().claim(Span::from_base_size(base, len)) };
    assert!(claimed.is_ok(), "first heap too small");
}

#[global_allocator]
static HEAP: Talck<spin::Mutex<()>, FromFrames> = Talc::new(FromFrames).lock();
