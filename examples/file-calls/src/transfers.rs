//! read, write, vectors, positions, seeking, holes, sendfile, copy_file_range, fallocate.

use crate::show::{c, close, close_all, open, put, show};
use libc::iovec;

fn contents(path: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(path).expect("readable")).replace('\0', ".")
}

fn vector(parts: &mut [Vec<u8>]) -> Vec<iovec> {
    parts
        .iter_mut()
        .map(|part| iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        })
        .collect()
}

fn plain() {
    let fd = open("rw", libc::O_CREAT | libc::O_RDWR);
    let mut buffer = [0u8; 16];
    // SAFETY: buffers are as long as said.
    unsafe {
        show(
            "write",
            libc::write(fd, b"hello world".as_ptr().cast(), 11) as i64,
        );
        show(
            "read at end",
            libc::read(fd, buffer.as_mut_ptr().cast(), 16) as i64,
        );
        show(
            "pread",
            libc::pread(fd, buffer.as_mut_ptr().cast(), 5, 6) as i64,
        );
        println!("{:?}", std::str::from_utf8(&buffer[..5]));
        show(
            "pread past the end",
            libc::pread(fd, buffer.as_mut_ptr().cast(), 5, 100) as i64,
        );
        show(
            "pread negative",
            libc::pread(fd, buffer.as_mut_ptr().cast(), 5, -1) as i64,
        );
        show(
            "pwrite",
            libc::pwrite(fd, b"J".as_ptr().cast(), 1, 0) as i64,
        );
        show(
            "pwrite far",
            libc::pwrite(fd, b"!".as_ptr().cast(), 1, 20) as i64,
        );
        show(
            "pwrite negative",
            libc::pwrite(fd, b"!".as_ptr().cast(), 1, -5) as i64,
        );
        show(
            "write bad address",
            libc::write(fd, 8 as *const libc::c_void, 1) as i64,
        );
        libc::lseek(fd, 0, libc::SEEK_SET);
        show(
            "read bad address",
            libc::read(fd, 8 as *mut libc::c_void, 1) as i64,
        );
        show(
            "read none",
            libc::read(fd, buffer.as_mut_ptr().cast(), 0) as i64,
        );
        show(
            "write none",
            libc::write(fd, buffer.as_ptr().cast(), 0) as i64,
        );
        let reader = open("rw", libc::O_RDONLY);
        show(
            "write read only",
            libc::write(reader, b"x".as_ptr().cast(), 1) as i64,
        );
        let writer = open("rw", libc::O_WRONLY);
        show(
            "read write only",
            libc::read(writer, buffer.as_mut_ptr().cast(), 1) as i64,
        );
        let named = open("rw", libc::O_PATH);
        show(
            "read O_PATH",
            libc::read(named, buffer.as_mut_ptr().cast(), 1) as i64,
        );
        show(
            "read bad",
            libc::read(99, buffer.as_mut_ptr().cast(), 1) as i64,
        );
        close_all(&[reader, writer, named]);
    }
    close(fd);
    println!("{}", contents("rw"));
}

fn appending() {
    put("app", b"start ");
    let fd = open("app", libc::O_RDWR | libc::O_APPEND);
    // SAFETY: buffers are as long as said.
    unsafe {
        show("append", libc::write(fd, b"one ".as_ptr().cast(), 4) as i64);
        show("position", libc::lseek(fd, 0, libc::SEEK_CUR));
        libc::lseek(fd, 0, libc::SEEK_SET);
        show(
            "append after seek",
            libc::write(fd, b"two ".as_ptr().cast(), 4) as i64,
        );
        show(
            "pwrite appends",
            libc::pwrite(fd, b"three ".as_ptr().cast(), 6, 0) as i64,
        );
        show("F_SETFL off", libc::fcntl(fd, libc::F_SETFL, 0));
        show(
            "pwrite again",
            libc::pwrite(fd, b"START".as_ptr().cast(), 5, 0) as i64,
        );
    }
    close(fd);
    println!("{}", contents("app"));
}

fn vectors() {
    let fd = open("vec", libc::O_CREAT | libc::O_RDWR);
    let mut parts = [
        b"one ".to_vec(),
        Vec::new(),
        b"two ".to_vec(),
        b"three".to_vec(),
    ];
    let out = vector(&mut parts);
    let mut places = [vec![0u8; 3], vec![0u8; 5], vec![0u8; 100]];
    // SAFETY: the vectors point to live buffers of the lengths they say.
    unsafe {
        show("writev", libc::writev(fd, out.as_ptr(), 4) as i64);
        show("pwritev", libc::pwritev(fd, out.as_ptr(), 4, 20) as i64);
        let into = vector(&mut places);
        show("preadv", libc::preadv(fd, into.as_ptr(), 3, 1) as i64);
        libc::lseek(fd, 0, libc::SEEK_SET);
        show("readv", libc::readv(fd, into.as_ptr(), 2) as i64);
        show(
            "preadv2 at position",
            libc::preadv2(fd, into.as_ptr(), 1, -1, 0) as i64,
        );
        show(
            "preadv2 flags",
            libc::preadv2(fd, into.as_ptr(), 1, -1, 1 << 20) as i64,
        );
        show(
            "pwritev2 append",
            libc::pwritev2(fd, out.as_ptr(), 1, 0, libc::RWF_APPEND) as i64,
        );
        show(
            "pwritev2 negative",
            libc::pwritev2(fd, out.as_ptr(), 1, -2, 0) as i64,
        );
        show(
            "writev too many",
            libc::writev(fd, out.as_ptr(), 1025) as i64,
        );
        show("writev none", libc::writev(fd, out.as_ptr(), 0) as i64);
        show("position", libc::lseek(fd, 0, libc::SEEK_CUR));
    }
    close(fd);
    println!(
        "{} {:?}",
        contents("vec"),
        places.map(|place| String::from_utf8_lossy(&place).replace('\0', "."))
    );
}

fn seeking() {
    let fd = open("sparse", libc::O_CREAT | libc::O_RDWR);
    // SAFETY: buffers are as long as said.
    unsafe {
        libc::pwrite(fd, b"x".as_ptr().cast(), 1, 8192);
        libc::pwrite(fd, b"x".as_ptr().cast(), 1, 3 << 20);
        for (what, offset, whence) in [
            ("SET", 5, libc::SEEK_SET),
            ("CUR", 5, libc::SEEK_CUR),
            ("CUR back", -20, libc::SEEK_CUR),
            ("END", -1, libc::SEEK_END),
            ("END far", 1 << 40, libc::SEEK_END),
            ("SET negative", -1, libc::SEEK_SET),
            ("DATA", 0, libc::SEEK_DATA),
            ("DATA inside", 8200, libc::SEEK_DATA),
            ("DATA later", 12288, libc::SEEK_DATA),
            ("DATA past", 4 << 20, libc::SEEK_DATA),
            ("HOLE", 0, libc::SEEK_HOLE),
            ("HOLE after data", 8192, libc::SEEK_HOLE),
            ("HOLE last", 3 << 20, libc::SEEK_HOLE),
            ("DATA negative", -1, libc::SEEK_DATA),
            ("whence", 0, 9),
        ] {
            show(&format!("lseek {what}"), libc::lseek(fd, offset, whence));
        }
        let mut info: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &mut info);
        println!("size {} blocks {}", info.st_size, info.st_blocks);
        for (what, mode, offset, len) in [
            ("", 0, 100_000, 10_000),
            ("keep size", libc::FALLOC_FL_KEEP_SIZE, 5 << 20, 4096),
            (
                "punch",
                libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE,
                100,
                9000,
            ),
            ("punch without keep", libc::FALLOC_FL_PUNCH_HOLE, 0, 4096),
            ("zero", libc::FALLOC_FL_ZERO_RANGE, 0, 4096),
            ("nothing", 0, 0, 0),
            ("negative", 0, -1, 10),
            ("too far", 0, i64::MAX, 10),
        ] {
            show(
                &format!("fallocate {what}"),
                libc::fallocate(fd, mode, offset, len),
            );
        }
        libc::fstat(fd, &mut info);
        println!("size {} blocks {}", info.st_size, info.st_blocks);
        let pipe = open("/dev/null", libc::O_RDWR);
        show("fallocate null", libc::fallocate(pipe, 0, 0, 1));
        show("lseek null", libc::lseek(pipe, 100, libc::SEEK_SET));
        close(pipe);
    }
    close(fd);
}

fn copying() {
    put("src", &(0..200_000u32).map(|n| n as u8).collect::<Vec<_>>());
    let (from, to) = (
        open("src", libc::O_RDONLY),
        open("dst", libc::O_CREAT | libc::O_RDWR),
    );
    let (mut here, mut there) = (10i64, 20i64);
    // SAFETY: offsets live as long as the calls.
    unsafe {
        show(
            "sendfile",
            libc::sendfile(to, from, std::ptr::null_mut(), 70_000) as i64,
        );
        show(
            "sendfile at offset",
            libc::sendfile(to, from, &mut here, 1000) as i64,
        );
        println!("offset {here}");
        show(
            "sendfile rest",
            libc::sendfile(to, from, std::ptr::null_mut(), 1 << 30) as i64,
        );
        show(
            "sendfile end",
            libc::sendfile(to, from, std::ptr::null_mut(), 1 << 30) as i64,
        );
        show(
            "sendfile backwards",
            libc::sendfile(from, to, std::ptr::null_mut(), 10) as i64,
        );
        show(
            "copy_file_range",
            libc::copy_file_range(from, &mut here, to, &mut there, 500, 0) as i64,
        );
        println!("offsets {here} {there}");
        // The kernel looks at the lower half of a register that holds an int.
        let rubbish = 0x7ead_beef_0000_0000_i64;
        show(
            "copy_file_range with rubbish above the flags",
            libc::syscall(
                libc::SYS_copy_file_range,
                rubbish | i64::from(from),
                &mut here,
                rubbish | i64::from(to),
                &mut there,
                5_i64,
                rubbish,
            ),
        );
        show(
            "lseek with rubbish above the whence",
            libc::syscall(
                libc::SYS_lseek,
                rubbish | i64::from(from),
                -3_i64,
                rubbish | i64::from(libc::SEEK_END),
            ),
        );
        show(
            "F_DUPFD with rubbish above the descriptor",
            libc::syscall(
                libc::SYS_fcntl,
                rubbish | i64::from(from),
                rubbish | i64::from(libc::F_DUPFD),
                rubbish | 700,
            ),
        );
        close(700);
        show(
            "copy_file_range flags",
            libc::copy_file_range(from, &mut here, to, &mut there, 500, 1) as i64,
        );
        show(
            "copy_file_range overlap",
            libc::copy_file_range(to, &mut here, to, &mut there, 5000, 0) as i64,
        );
        let directory = open(".", libc::O_RDONLY);
        show(
            "copy_file_range directory",
            libc::copy_file_range(
                directory,
                std::ptr::null_mut(),
                to,
                std::ptr::null_mut(),
                1,
                0,
            ) as i64,
        );
        let mut pipe = [0; 2];
        libc::pipe(pipe.as_mut_ptr());
        show(
            "copy_file_range pipe",
            libc::copy_file_range(
                from,
                std::ptr::null_mut(),
                pipe[1],
                std::ptr::null_mut(),
                1,
                0,
            ) as i64,
        );
        here = 0;
        show(
            "sendfile to a pipe",
            libc::sendfile(pipe[1], from, &mut here, 3000) as i64,
        );
        let mut buffer = vec![0u8; 4000];
        show(
            "read it",
            libc::read(pipe[0], buffer.as_mut_ptr().cast(), 4000) as i64,
        );
        println!(
            "sum {}",
            buffer[..3000].iter().map(|&b| u64::from(b)).sum::<u64>()
        );
        show("fsync", libc::fsync(to));
        show("fsync pipe", libc::fsync(pipe[0]));
        show("fdatasync bad", libc::fdatasync(99));
        show(
            "fadvise",
            libc::posix_fadvise(to, 0, 0, libc::POSIX_FADV_SEQUENTIAL),
        );
        show("fadvise pipe", libc::posix_fadvise(pipe[0], 0, 0, 0));
        show("readahead", libc::readahead(from, 0, 100) as i64);
        show("sync_file_range", libc::sync_file_range(to, 0, 0, 2));
        show("syncfs", libc::syncfs(to));
        close_all(&pipe);
        close(directory);
    }
    let sum: u64 = std::fs::read("dst")
        .expect("readable")
        .iter()
        .map(|&b| u64::from(b))
        .sum();
    println!("copied sum {sum}");
    show("unlink", unsafe_unlink("dst"));
    close_all(&[from, to]);
}

fn unsafe_unlink(path: &str) -> i32 {
    // SAFETY: a valid string.
    unsafe { libc::unlink(c(path).as_ptr()) }
}

/// All of it.
pub fn run() {
    plain();
    appending();
    vectors();
    seeking();
    copying();
}
