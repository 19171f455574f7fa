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

/// Gives the heap's free pages back to the host: what the start needed once. A few microseconds for a small heap.
pub fn give_back_heap() {
    // SAFETY: malloc_trim touches free memory only (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
}
