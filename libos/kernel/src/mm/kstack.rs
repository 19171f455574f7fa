//! The threads' library-OS stacks: fixed slots with an unmapped guard below each, never unmapped, reused.

use super::{PAGE, frames, pagetable};
use crate::lock::Locked;
use alloc::vec::Vec;
use unik_abi::layout::KSTACK_VADDR;

/// Bytes of a stack.
pub const SIZE: u64 = 32 * 1024;
const SLOT: u64 = 64 * 1024;

static SLOTS: Locked<(u64, Vec<u64>)> = Locked::new((0, Vec::new()));

/// A stack; its top address. `None` when memory is used up.
pub fn alloc() -> Option<u64> {
    let mut slots = SLOTS.get();
    if let Some(top) = slots.1.pop() {
        return Some(top);
    }
    let top = KSTACK_VADDR + (slots.0 + 1) * SLOT;
    let paddr = frames::alloc_contiguous_dirty((SIZE / PAGE) as usize)?;
    for offset in (0..SIZE).step_by(PAGE as usize) {
        pagetable::map(
            top - SIZE + offset,
            paddr + offset,
            pagetable::WRITE | pagetable::NX | pagetable::TOUCHED,
        )?;
    }
    slots.0 += 1;
    Some(top)
}

/// Takes a stack back. Nobody runs on it any more.
pub fn free(top: u64) {
    SLOTS.get().1.push(top);
}
