//! Files mapped into memory: private and shared, growing and shrinking, with reads and writes beside.

use crate::show::{c, close, open, put, show};
use std::ptr::null_mut;

const PAGE: usize = 4096;

fn map(fd: i32, len: usize, protection: i32, flags: i32) -> *mut u8 {
    // SAFETY: a new mapping wherever the kernel likes.
    let address = unsafe { libc::mmap(null_mut(), len, protection, flags, fd, 0) };
    if address == libc::MAP_FAILED {
        null_mut()
    } else {
        address.cast()
    }
}

/// Puts zero memory where a page of the file is gone, so that the access goes on.
extern "C" fn patch(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the address of the fault lies in a mapping of ours, which nobody else uses.
    unsafe {
        let page = ((*info).si_addr() as usize & !(PAGE - 1)) as *mut libc::c_void;
        libc::mmap(
            page,
            PAGE,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        );
        let text = format!("SIGBUS code {}\n", (*info).si_code);
        libc::write(1, text.as_ptr().cast(), text.len());
    }
}

fn shrinking() {
    put("shrinks", &[b'x'; 4 * PAGE]);
    let fd = open("shrinks", libc::O_RDWR);
    let shared = map(
        fd,
        4 * PAGE,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED,
    );
    // SAFETY: a handler for one signal; accesses inside a mapping of four pages.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = patch as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &action, null_mut());
        let sum = |page: usize| {
            (0..PAGE)
                .map(|at| u64::from(shared.add(page * PAGE + at).read_volatile()))
                .sum::<u64>()
        };
        println!("before {} {}", sum(1), sum(3));
        libc::ftruncate(fd, PAGE as i64 + 100);
        println!("cut page {}", sum(1));
        println!("gone page {}", sum(3));
        libc::ftruncate(fd, 4 * PAGE as i64);
        println!("grown page {}", sum(2));
        shared.add(2 * PAGE).write_volatile(7);
        println!("written page {}", sum(2));
        show(
            "punch",
            libc::fallocate(
                fd,
                libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE,
                0,
                4 * PAGE as i64,
            ),
        );
        println!("punched pages {} {}", sum(0), sum(2));
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
    close(fd);
}

/// Threads in a ring map memory, fill it, and hand it to the next, which checks and unmaps it: whoever gets the same addresses again
/// must see zeros first, and never what an earlier mapping held.
fn handed_around() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 100;
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS)
        .map(|_| std::sync::mpsc::sync_channel::<(usize, usize, u8)>(2))
        .unzip();
    let wrong: usize = std::thread::scope(|scope| {
        let work = |(n, receiver): (usize, std::sync::mpsc::Receiver<_>)| {
            let next = senders[(n + 1) % THREADS].clone();
            scope.spawn(move || {
                let mut wrong = 0;
                for round in 0..ROUNDS {
                    let len = PAGE << ((round + n) % 9);
                    let address = map(-1, len, both, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                    let mark = (round * THREADS + n) as u8 | 1;
                    for at in (0..len).step_by(PAGE / 2) {
                        // SAFETY: inside the mapping just made.
                        unsafe {
                            wrong += usize::from(address.add(at).read_volatile() != 0);
                            address.add(at).write_volatile(mark);
                        }
                    }
                    let _ = next.send((address as usize, len, mark));
                    let (address, len, mark) = receiver.recv().unwrap_or((0, 0, 0));
                    for at in (0..len).step_by(PAGE / 2) {
                        // SAFETY: a mapping that another thread made and gave away.
                        wrong += usize::from(
                            unsafe { (address as *const u8).add(at).read_volatile() } != mark,
                        );
                    }
                    // SAFETY: nobody else has this mapping any more.
                    unsafe { libc::munmap(address as *mut libc::c_void, len) };
                }
                wrong
            })
        };
        let threads: Vec<_> = receivers.into_iter().enumerate().map(work).collect();
        let join = |t: std::thread::ScopedJoinHandle<'_, usize>| t.join().unwrap_or(usize::MAX);
        threads.into_iter().map(join).fold(0, usize::saturating_add)
    });
    println!("handed around with {wrong} wrong bytes");
}

/// All of it.
pub fn run() {
    handed_around();
    shrinking();
    let both = libc::PROT_READ | libc::PROT_WRITE;
    put("mapped", &vec![b'a'; 3 * PAGE - 100]);
    let fd = open("mapped", libc::O_RDWR);
    let (shared, private) = (
        map(fd, 3 * PAGE, both, libc::MAP_SHARED),
        map(fd, 3 * PAGE, both, libc::MAP_PRIVATE),
    );
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
        println!(
            "shared {} private {}",
            *shared.add(2 * PAGE),
            *private.add(2 * PAGE)
        );
        println!(
            "untouched private {} changed private {}",
            *private.add(PAGE + 1),
            *private.add(PAGE)
        );
        show("msync", libc::msync(shared.cast(), 3 * PAGE, libc::MS_SYNC));
        show(
            "write from the mapping",
            libc::pwrite(fd, shared.cast(), 10, 100) as i64,
        );
        show(
            "read into the mapping",
            libc::pread(fd, shared.add(200).cast(), 10, 0) as i64,
        );
        show(
            "read into itself",
            libc::pread(fd, shared.cast(), 10, 0) as i64,
        );
        libc::ftruncate(fd, 4 * PAGE as i64);
        println!("grown tail {}", *shared.add(3 * PAGE - 10));
        libc::munmap(shared.cast(), 3 * PAGE);
        libc::munmap(private.cast(), 3 * PAGE);
    }
    close(fd);
    let data = std::fs::read("mapped").expect("readable");
    println!(
        "length {} sum {}",
        data.len(),
        data.iter().map(|&b| u64::from(b)).sum::<u64>()
    );
    let reader = open("mapped", libc::O_RDONLY);
    println!(
        "shared writable of a read-only file: {}",
        map(reader, PAGE, both, libc::MAP_SHARED).is_null()
    );
    println!(
        "private writable of it: {}",
        !map(reader, PAGE, both, libc::MAP_PRIVATE).is_null()
    );
    println!(
        "of a directory: {}",
        map(
            open(".", libc::O_RDONLY),
            PAGE,
            libc::PROT_READ,
            libc::MAP_PRIVATE
        )
        .is_null()
    );
    println!(
        "of /dev/zero: {}",
        !map(
            open("/dev/zero", libc::O_RDWR),
            PAGE,
            both,
            libc::MAP_PRIVATE
        )
        .is_null()
    );
    // SAFETY: a valid string; two mappings of one page each.
    unsafe {
        let memory = libc::memfd_create(c("twice").as_ptr(), 0);
        libc::ftruncate(memory, PAGE as i64);
        let (first, second) = (
            map(memory, PAGE, both, libc::MAP_SHARED),
            map(memory, PAGE, libc::PROT_READ, libc::MAP_SHARED),
        );
        *first.add(77) = 78;
        println!("both see it: {}", *second.add(77));
        close(memory);
        println!("still after close: {}", *second.add(77));
    }
    close(reader);
}
