//! Limits of this process, and what it gives back.

/// Lets this process have as many open files as it may (each connection of a user network is one). A refusal changes nothing.
pub fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write one rlimit.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// All threads share one heap: those of a monitor allocate little, and a heap for each costs a page and more.
pub fn share_heap() {
    // SAFETY: sets a number, before there is a second thread (mallopt(3)).
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives back to the host what the start needed once: the heap's free pages, code that will hardly run again and, in the process's first
/// thread, the stack beyond its present end. From here on the heap grows by what is asked for and no more: then calloc(3) knows that what it got from the kernel is zero,
/// and buffers take memory only where they are used. A few microseconds.
// In a frame of its own: what it finds must be the end of the stack.
#[inline(never)]
pub fn give_back_start() {
    // SAFETY: the first sets a number (mallopt(3)), the second touches free memory only (malloc_trim(3)).
    unsafe {
        libc::mallopt(libc::M_TOP_PAD, 0);
        libc::malloc_trim(0);
    }
    forget_code();
    /// What functions called from here may have in use, and more.
    const MARGIN: usize = 16 << 10;
    /// Where the kernel lets nothing else lie below a stack that grows (`stack_guard_gap` is 1 MiB).
    const REACH: usize = 256 << 10;
    // SAFETY: two questions. (std knows `gettid` as a symbol that may be missing; linked statically, it is.)
    if unsafe { libc::syscall(libc::SYS_gettid) != libc::getpid().into() } {
        return;
    }
    let here = std::hint::black_box(0u8);
    let end = ((&raw const here).addr() - MARGIN) / 4096 * 4096;
    // SAFETY: nothing below the stack's end is in use (MARGIN covers the red zone and this very call), and nothing but the stack lies within
    // REACH of it, so no memory that means anything is dropped. What is not mapped there is passed over.
    let _ = unsafe { libc::madvise((end - REACH) as *mut _, REACH, libc::MADV_DONTNEED) };
}

/// Lets the program's own code go; what is needed again is mapped again when it is, from the page cache.
fn forget_code() {
    unsafe extern "C" {
        // Set by the linker (ld(1), its built-in scripts): the first byte of the program, and the first behind its code.
        static __executable_start: u8;
        static etext: u8;
    }
    let (start, end) = (&raw const __executable_start, &raw const etext);
    let len = (end.addr() / 4096 * 4096).saturating_sub(start.addr());
    // SAFETY: up to the end of the code the program's file is mapped without a right to write, so the page cache has what is dropped.
    let _ = unsafe { libc::madvise(start.cast_mut().cast(), len, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of stack that are in memory.
    fn resident(pages: &[u8]) -> usize {
        let mut found = vec![0u8; pages.len() / 4096 + 1];
        let first = pages.as_ptr() as usize / 4096 * 4096;
        // SAFETY: `found` has a byte for each page of the range.
        let result =
            unsafe { libc::mincore(first as *mut _, pages.len(), found.as_mut_ptr().cast()) };
        assert_eq!(result, 0);
        found.iter().filter(|&&page| page & 1 == 1).count() * 4096
    }

    #[test]
    fn another_threads_stack_is_left_alone() {
        let words: Vec<u64> = (0..4096).collect();
        let deep = std::hint::black_box([7u8; 32 << 10]);
        give_back_start();
        assert_eq!(words.iter().sum::<u64>(), 4095 * 2048);
        assert!(deep.iter().all(|&byte| byte == 7) && resident(&deep) >= 28 << 10);
    }
}
