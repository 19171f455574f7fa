//! dup, fcntl, locks, flock, ioctl, close_range, memfd seals, /proc/self/fd.

use crate::show::{c, close, close_all, open, outcome, put, show};
use std::mem::zeroed;

fn duplicates() {
    let fd = open("file", libc::O_RDWR);
    // SAFETY: plain calls on descriptors.
    unsafe {
        let copy = libc::dup(fd);
        libc::write(fd, b"12345".as_ptr().cast(), 5);
        show("shared position", libc::lseek(copy, 0, libc::SEEK_CUR));
        show("dup2", libc::dup2(fd, 50));
        show("dup2 same", libc::dup2(fd, fd) - fd);
        show("dup2 bad", libc::dup2(99, 51));
        show("dup2 too large", libc::dup2(fd, 1 << 22));
        show("dup3 same", libc::dup3(fd, fd, 0));
        show("dup3 flags", libc::dup3(fd, 52, 1));
        show("dup3", libc::dup3(fd, 52, libc::O_CLOEXEC));
        show("F_GETFD", libc::fcntl(52, libc::F_GETFD));
        show("F_SETFD", libc::fcntl(52, libc::F_SETFD, 0));
        show("F_GETFD", libc::fcntl(52, libc::F_GETFD));
        show("F_DUPFD", libc::fcntl(fd, libc::F_DUPFD, 60));
        show("F_DUPFD again", libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 60));
        show("F_DUPFD negative", libc::fcntl(fd, libc::F_DUPFD, -1));
        show("F_DUPFD huge", libc::fcntl(fd, libc::F_DUPFD, 1 << 22));
        show("F_GETFL", libc::fcntl(fd, libc::F_GETFL) & !0o100_000);
        show(
            "F_SETFL",
            libc::fcntl(
                fd,
                libc::F_SETFL,
                libc::O_APPEND | libc::O_NONBLOCK | libc::O_WRONLY,
            ),
        );
        show("F_GETFL", libc::fcntl(copy, libc::F_GETFL) & !0o100_000);
        show(
            "close_range cloexec",
            libc::syscall(libc::SYS_close_range, 60, 70, 4),
        );
        show("F_GETFD", libc::fcntl(60, libc::F_GETFD));
        show(
            "close_range",
            libc::syscall(libc::SYS_close_range, 50, 70, 0),
        );
        show("closed", libc::fcntl(52, libc::F_GETFD));
        show(
            "close_range backwards",
            libc::syscall(libc::SYS_close_range, 70, 50, 0),
        );
        show(
            "close_range flags",
            libc::syscall(libc::SYS_close_range, 50, 70, 1),
        );
        show("close bad", libc::close(52));
        show("fcntl unknown", libc::fcntl(fd, 999));
        let named = open("file", libc::O_PATH);
        show(
            "O_PATH F_GETFL",
            libc::fcntl(named, libc::F_GETFL) & !0o100_000,
        );
        show("O_PATH F_SETFL", libc::fcntl(named, libc::F_SETFL, 0));
        show("O_PATH fchmod", libc::fchmod(named, 0o600));
        show("O_PATH ioctl", libc::ioctl(named, libc::FIONREAD, 0));
        let mut info: libc::stat = zeroed();
        show("O_PATH fstat", libc::fstat(named, &mut info));
        close(named);
        close(copy);
    }
    close(fd);
}

fn lock(fd: i32, command: i32, kind: i32, start: i64, len: i64) -> (i32, libc::flock) {
    // SAFETY: a structure of integers.
    let mut lock: libc::flock = unsafe { zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = len;
    // SAFETY: the structure lives as long as the call.
    (unsafe { libc::fcntl(fd, command, &raw mut lock) }, lock)
}

fn locks() {
    let (a, b) = (
        open("locked", libc::O_CREAT | libc::O_RDWR),
        open("locked", libc::O_RDWR),
    );
    let reader = open("locked", libc::O_RDONLY);
    show(
        "OFD write lock",
        lock(a, libc::F_OFD_SETLK, libc::F_WRLCK, 10, 10).0,
    );
    show(
        "OFD conflict",
        lock(b, libc::F_OFD_SETLK, libc::F_WRLCK, 15, 1).0,
    );
    show(
        "OFD beside",
        lock(b, libc::F_OFD_SETLK, libc::F_WRLCK, 20, 5).0,
    );
    let (result, found) = lock(b, libc::F_OFD_GETLK, libc::F_RDLCK, 0, 0);
    println!(
        "OFD get {result}: {} {} {} {}",
        found.l_type, found.l_start, found.l_len, found.l_pid
    );
    show(
        "POSIX conflict",
        lock(reader, libc::F_SETLK, libc::F_RDLCK, 0, 0).0,
    );
    show(
        "OFD unlock middle",
        lock(a, libc::F_OFD_SETLK, libc::F_UNLCK, 12, 3).0,
    );
    show(
        "OFD freed part",
        lock(b, libc::F_OFD_SETLK, libc::F_RDLCK, 12, 3).0,
    );
    show(
        "OFD still held",
        lock(b, libc::F_OFD_SETLK, libc::F_RDLCK, 15, 1).0,
    );
    close(b);
    show(
        "POSIX elsewhere",
        lock(a, libc::F_SETLK, libc::F_WRLCK, 100, 1).0,
    );
    let (result, found) = lock(reader, libc::F_GETLK, libc::F_WRLCK, 100, 1);
    println!(
        "POSIX get {result}: own locks never conflict: {}",
        found.l_type == libc::F_UNLCK as i16
    );
    show(
        "write lock read only",
        lock(reader, libc::F_SETLK, libc::F_WRLCK, 0, 1).0,
    );
    show("bad kind", lock(a, libc::F_SETLK, 9, 0, 1).0);
    show("negative", lock(a, libc::F_SETLK, libc::F_WRLCK, -5, 1).0);
    let (mut pipe, c) = ([0; 2], open("locked", libc::O_RDWR));
    // SAFETY: plain calls on descriptors.
    unsafe {
        libc::pipe(pipe.as_mut_ptr());
        show("flock", libc::flock(a, libc::LOCK_EX));
        show(
            "flock conflict",
            libc::flock(c, libc::LOCK_SH | libc::LOCK_NB),
        );
        show("flock down", libc::flock(a, libc::LOCK_SH));
        show(
            "flock shared",
            libc::flock(c, libc::LOCK_SH | libc::LOCK_NB),
        );
        show("flock up", libc::flock(a, libc::LOCK_EX | libc::LOCK_NB));
        show("flock again", libc::flock(c, libc::LOCK_EX | libc::LOCK_NB));
        show("flock unlock", libc::flock(c, libc::LOCK_UN));
        show("flock operation", libc::flock(c, 77));
        show(
            "flock read only",
            libc::flock(reader, libc::LOCK_EX | libc::LOCK_NB),
        );
    }
    close_all(&pipe);
    close_all(&[a, c, reader]);
}

fn controls() {
    let (mut pipe, mut count) = ([0; 2], 0i32);
    put("ten", b"0123456789");
    let fd = open("ten", libc::O_RDONLY);
    // SAFETY: integers that live as long as the calls.
    unsafe {
        libc::pipe(pipe.as_mut_ptr());
        libc::write(pipe[1], b"abc".as_ptr().cast(), 3);
        show(
            "FIONREAD pipe",
            libc::ioctl(pipe[0], libc::FIONREAD, &raw mut count),
        );
        println!("{count}");
        show(
            "FIONREAD file",
            libc::ioctl(fd, libc::FIONREAD, &raw mut count),
        );
        println!("{count}");
        show(
            "TCGETS pipe",
            libc::ioctl(pipe[0], libc::TCGETS, &raw mut count),
        );
        show(
            "TIOCGWINSZ file",
            libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut count),
        );
        let on = 1i32;
        show(
            "FIONBIO",
            libc::ioctl(pipe[0], libc::FIONBIO, &raw const on),
        );
        show("F_GETFL", libc::fcntl(pipe[0], libc::F_GETFL));
        show("FIOCLEX", libc::ioctl(fd, libc::FIOCLEX));
        show("F_GETFD", libc::fcntl(fd, libc::F_GETFD));
        show("FIONCLEX", libc::ioctl(fd, libc::FIONCLEX));
        show("ioctl bad", libc::ioctl(99, libc::FIONREAD, &raw mut count));
        show("F_GETPIPE_SZ", libc::fcntl(pipe[0], libc::F_GETPIPE_SZ));
        show(
            "F_SETPIPE_SZ",
            libc::fcntl(pipe[0], libc::F_SETPIPE_SZ, 5000),
        );
        show("F_GETPIPE_SZ", libc::fcntl(pipe[1], libc::F_GETPIPE_SZ));
        show("F_GETPIPE_SZ file", libc::fcntl(fd, libc::F_GETPIPE_SZ));
        show("isatty", libc::isatty(fd));
    }
    close_all(&pipe);
    close(fd);
}

fn sealing() {
    // SAFETY: valid strings and buffers.
    unsafe {
        let plain = libc::memfd_create(c("plain").as_ptr(), 0);
        show(
            "unsealable",
            libc::fcntl(plain, libc::F_ADD_SEALS, libc::F_SEAL_WRITE),
        );
        show("its seals", libc::fcntl(plain, libc::F_GET_SEALS));
        let fd = libc::memfd_create(
            c("sealed").as_ptr(),
            libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC,
        );
        show("close on exec", libc::fcntl(fd, libc::F_GETFD));
        show("ftruncate", libc::ftruncate(fd, 100));
        show(
            "seal grow",
            libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_GROW),
        );
        show("grow", libc::ftruncate(fd, 200));
        show(
            "write beyond",
            libc::pwrite(fd, b"0123456789".as_ptr().cast(), 10, 95) as i64,
        );
        show(
            "write inside",
            libc::pwrite(fd, b"0123456789".as_ptr().cast(), 10, 90) as i64,
        );
        show(
            "seal shrink",
            libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK),
        );
        show("shrink", libc::ftruncate(fd, 50));
        show(
            "seal write",
            libc::fcntl(
                fd,
                libc::F_ADD_SEALS,
                libc::F_SEAL_WRITE | libc::F_SEAL_SEAL,
            ),
        );
        show("write", libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0) as i64);
        show(
            "seal more",
            libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_GROW),
        );
        show("seals", libc::fcntl(fd, libc::F_GET_SEALS));
        show(
            "seals of a file",
            libc::fcntl(open("file", libc::O_RDWR), libc::F_GET_SEALS),
        );
        println!("{:?}", std::fs::read_link(format!("/proc/self/fd/{fd}")));
        show("memfd flags", libc::memfd_create(c("x").as_ptr(), 1 << 20));
        show(
            "memfd long name",
            libc::memfd_create(c(&"x".repeat(250)).as_ptr(), 0),
        );
        close(plain);
        close(fd);
    }
}

fn through_proc() {
    put("opened", b"contents");
    let fd = open("opened", libc::O_RDWR);
    let link = format!("/proc/self/fd/{fd}");
    let target = |link: &str| {
        std::fs::read_link(link).map(|path| path.file_name().map(|name| name.to_owned()))
    };
    println!("{:?}", target(&link));
    std::fs::rename("opened", "renamed").expect("moved");
    println!("{:?}", target(&link));
    println!("{:?}", std::fs::read(&link).map(|data| data.len()));
    std::fs::remove_file("renamed").expect("removed");
    println!("{:?}", target(&link));
    println!("{:?}", std::fs::read(&link).map(|data| data.len()));
    outcome("reopen", open(&link, libc::O_RDWR | libc::O_TRUNC));
    println!("{:?}", std::fs::metadata(&link).map(|meta| meta.len()));
    println!(
        "own directory {}",
        std::path::Path::new("/proc/self/cwd").join(".").exists()
    );
    println!(
        "{:?}",
        std::fs::read_link("/proc/self")
            .map(|path| path.to_string_lossy() == std::process::id().to_string())
    );
    println!("{:?}", std::fs::read_to_string("/proc/self/comm"));
    outcome(
        "missing descriptor",
        open("/proc/self/fd/77", libc::O_RDONLY),
    );
    outcome(
        "make in /proc",
        open("/proc/file", libc::O_CREAT | libc::O_RDWR),
    );
    outcome("write to maps", open("/proc/self/maps", libc::O_WRONLY));
    close(fd);
}

/// All of it.
pub fn run() {
    duplicates();
    locks();
    controls();
    sealing();
    through_proc();
}
