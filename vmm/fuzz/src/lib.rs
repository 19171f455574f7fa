//! What the fuzz targets share: a bound on the heap ([`bounded`]), files that are not on any disk ([`with_file`]), guest RAM to load
//! into ([`ram`]), and frames whose checksums are right ([`frame`]).
#![forbid(unsafe_code)]

pub mod frame;

use std::alloc::System;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use cap::Cap;
use rustix::fs::{MemfdFlags, memfd_create};
use unik_abi::layout::{MMIO_HOLE_END, MMIO_HOLE_START};
use unik_host::memory::GuestRam;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Runs `work`, in which the heap may not grow by more than `most` bytes at any time. An allocation beyond that ends the process,
/// which the fuzzer reports as a crash.
pub fn bounded(most: usize, work: impl FnOnce()) {
    // Another thread may take some in between.
    while HEAP.set_limit(HEAP.allocated() + most).is_err() {}
    work();
    let _ = HEAP.set_limit(usize::MAX);
}

/// Gives `work` the path of a file that holds `bytes`.
pub fn with_file(bytes: &[u8], work: impl FnOnce(&Path)) {
    let Ok(fd) = memfd_create("fuzz", MemfdFlags::CLOEXEC) else {
        return;
    };
    let mut file = File::from(fd);
    if file.write_all(bytes).is_ok() {
        work(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
    }
}

/// Guest RAM of 16 MiB, for the life of the process.
pub fn ram() -> GuestRam {
    GuestRam::reserve(16 << 20, MMIO_HOLE_START, MMIO_HOLE_END).expect("there is address space")
}
