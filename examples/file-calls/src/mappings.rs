//! Files mapped into memory: private and shared, growing and shrinking, with reads and writes beside.

use crate::show::{c, close, open, put, show};
use std::ptr::null_mut;

const PAGE: usize = 4096;

fn map(fd: i32, len: usize, protection: i32, flags: i32) -> *mut u8 {
    // SAFETY: a new mapping wherever the kernel likes.
    let address = unsafe { libc::mmap(null_mut(), len, protection, flags, fd, 0) };
    if address == libc::MAP_FAILED { null_mut() } else { address.cast() }
}

/// All of it.
pub fn run() {
    let both = libc::PROT_READ | libc::PROT_WRITE;
    put("mapped", &vec![b'a'; 3 * PAGE - 100]);
    let fd = open("mapped", libc::O_RDWR);
    let (shared, private) = (map(fd, 3 * PAGE, both, libc::MAP_SHARED), map(fd, 3 * PAGE, both, libc::MAP_PRIVATE));
    // SAFETY: inside mappings of three pages.
    unsafe {
        println!("{} {} {}", *shared, *private, *shared.add(3 * PAGE - 50));
        *shared = b'S';
        *private.add(PAGE) = b'P';
        let mut bytes = [0u8; 2];
        libc::pread(fd, bytes.as_mut_ptr().cast(), 1, 0);
        libc::pread(fd, bytes[1..].as_mut_ptr().cast(), 1, PAGE as i64);
        println!("file sees {:?}, private sees {}", bytes, *private);
        libc::pwrite(fd, b"W".as_ptr().cast(), 1, 2 * PAGE as i64);
        println!("shared {} private {}", *shared.add(2 * PAGE), *private.add(2 * PAGE));
        println!("untouched private {} changed private {}", *private.add(PAGE + 1), *private.add(PAGE));
        show("msync", libc::msync(shared.cast(), 3 * PAGE, libc::MS_SYNC));
        show("write from the mapping", libc::pwrite(fd, shared.cast(), 10, 100) as i64);
        show("read into the mapping", libc::pread(fd, shared.add(200).cast(), 10, 0) as i64);
        show("read into itself", libc::pread(fd, shared.cast(), 10, 0) as i64);
        libc::ftruncate(fd, 4 * PAGE as i64);
        println!("grown tail {}", *shared.add(3 * PAGE - 10));
        libc::munmap(shared.cast(), 3 * PAGE);
        libc::munmap(private.cast(), 3 * PAGE);
    }
    close(fd);
    let data = std::fs::read("mapped").expect("readable");
    println!("length {} sum {}", data.len(), data.iter().map(|&b| u64::from(b)).sum::<u64>());
    let reader = open("mapped", libc::O_RDONLY);
    println!("shared writable of a read-only file: {}", map(reader, PAGE, both, libc::MAP_SHARED).is_null());
    println!("private writable of it: {}", !map(reader, PAGE, both, libc::MAP_PRIVATE).is_null());
    println!("of a directory: {}", map(open(".", libc::O_RDONLY), PAGE, libc::PROT_READ, libc::MAP_PRIVATE).is_null());
    println!("of /dev/zero: {}", !map(open("/dev/zero", libc::O_RDWR), PAGE, both, libc::MAP_PRIVATE).is_null());
    // SAFETY: a valid string; two mappings of one page each.
    unsafe {
        let memory = libc::memfd_create(c("twice").as_ptr(), 0);
        libc::ftruncate(memory, PAGE as i64);
        let (first, second) = (map(memory, PAGE, both, libc::MAP_SHARED), map(memory, PAGE, libc::PROT_READ, libc::MAP_SHARED));
        *first.add(77) = 78;
        println!("both see it: {}", *second.add(77));
        close(memory);
        println!("still after close: {}", *second.add(77));
    }
    close(reader);
}
