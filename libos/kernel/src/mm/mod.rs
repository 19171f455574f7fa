//! Memory: physical frames, the library OS's heap, page tables, the program's address space, access to program memory.
//!
//! - [`frames`]: the machine's frames, behind their own small lock (the heap needs them at any time).
//! - [`heap`]: the global allocator. [`pagetable`]: the four-level tables. [`tlb`]: flushes on all vCPUs.
//! - [`space`]: areas of the program, mmap and friends, page faults. [`user`]: checked access to program memory.
//! - [`kstack`]: the threads' library-OS stacks.

pub mod frames;
pub mod heap;
pub mod kstack;
pub mod mapping;
pub mod pagetable;
pub mod space;
pub mod tlb;
pub mod user;

/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// Bytes in a large page.
pub const LARGE: u64 = 2 << 20;

/// Rounds down to a page.
pub const fn page_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

/// Rounds up to a page; `None` beyond the address space.
pub const fn page_up(address: u64) -> Option<u64> {
    match address.checked_add(PAGE - 1) {
        Some(sum) => Some(page_down(sum)),
        None => None,
    }
}

/// Reads a byte of each page, so that all of them are there.
pub fn touch(bytes: &[u8]) {
    for at in (0..bytes.len()).step_by(PAGE as usize) {
        core::hint::black_box(bytes[at]);
    }
    core::hint::black_box(bytes.last());
}
