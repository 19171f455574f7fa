//! open, mkdir, link, symlink, rename, unlink, getdents, getcwd, openat2.

use crate::show::{c, close, open, outcome, put, show};

fn try_open(path: &str, flags: i32, what: &str) {
    let fd = outcome(&format!("open {path} {what}"), open(path, flags));
    if fd >= 0 {
        close(fd);
    }
}

fn opening() {
    use libc::*;
    try_open("none", O_RDONLY, "");
    try_open("file", O_CREAT | O_RDWR, "CREAT");
    try_open("file", O_CREAT | O_EXCL | O_RDWR, "CREAT EXCL");
    try_open("file/", O_RDONLY, "slash");
    try_open("file", O_RDONLY | O_DIRECTORY, "DIRECTORY");
    try_open("new/", O_CREAT | O_RDWR, "CREAT slash");
    try_open(".", O_RDWR, "RDWR of a directory");
    try_open(".", O_CREAT, "CREAT of a directory");
    try_open("..", O_RDONLY | O_DIRECTORY, "DIRECTORY");
    try_open("", O_RDONLY, "empty");
    try_open(&"x".repeat(256), O_RDONLY | O_CREAT, "long name");
    try_open(&"./".repeat(2048), O_RDONLY, "long path");
    try_open("file/under", O_RDONLY, "under a file");
    // SAFETY: valid strings.
    unsafe { symlink(c("file").as_ptr(), c("link").as_ptr()) };
    // SAFETY: valid strings.
    unsafe { symlink(c("loop").as_ptr(), c("loop").as_ptr()) };
    // SAFETY: valid strings.
    unsafe { symlink(c("missing").as_ptr(), c("dangling").as_ptr()) };
    try_open("link", O_RDONLY, "");
    try_open("link", O_RDONLY | O_NOFOLLOW, "NOFOLLOW");
    try_open("link", O_PATH | O_NOFOLLOW, "PATH NOFOLLOW");
    try_open("loop", O_RDONLY, "");
    try_open("dangling", O_RDONLY, "");
    try_open("dangling", O_CREAT | O_EXCL | O_RDWR, "CREAT EXCL");
    try_open("dangling", O_CREAT | O_RDWR, "CREAT");
    try_open("missing", O_RDONLY, "");
    try_open(".", O_TMPFILE | O_RDWR, "TMPFILE");
    try_open(".", O_TMPFILE | O_RDONLY, "TMPFILE read only");
    try_open("file", O_TMPFILE | O_RDWR, "TMPFILE in a file");
    try_open("/dev/null", O_RDWR | O_TRUNC, "TRUNC");
    try_open("/dev/null/x", O_RDWR, "");
    put("full", b"contents");
    try_open("full", O_RDONLY | O_TRUNC, "TRUNC read only");
    println!(
        "length {}",
        std::fs::metadata("full").map_or(9, |m| m.len())
    );
}

fn making() {
    // SAFETY: valid strings everywhere.
    unsafe {
        show("mkdir", libc::mkdir(c("dir").as_ptr(), 0o777));
        show("mkdir again", libc::mkdir(c("dir").as_ptr(), 0o777));
        show("mkdir slash", libc::mkdir(c("dir2/").as_ptr(), 0o777));
        show("mkdir .", libc::mkdir(c(".").as_ptr(), 0o777));
        show("mkdir under file", libc::mkdir(c("file/x").as_ptr(), 0o777));
        show(
            "mkdir under missing",
            libc::mkdir(c("nowhere/x").as_ptr(), 0o777),
        );
        show(
            "mknod fifo",
            libc::mknod(c("fifo").as_ptr(), libc::S_IFIFO | 0o644, 0),
        );
        show(
            "mknod regular",
            libc::mknod(c("regular").as_ptr(), libc::S_IFREG | 0o644, 0),
        );
        show(
            "mknod device",
            libc::mknod(
                c("device").as_ptr(),
                libc::S_IFCHR | 0o644,
                libc::makedev(1, 3),
            ),
        );
        show(
            "mknod directory",
            libc::mknod(c("d3").as_ptr(), libc::S_IFDIR | 0o644, 0),
        );
        show(
            "write to the device",
            libc::write(open("device", libc::O_WRONLY), b"x".as_ptr().cast(), 1) as i64,
        );
        show(
            "symlink empty",
            libc::symlink(c("").as_ptr(), c("e").as_ptr()),
        );
        show(
            "symlink over file",
            libc::symlink(c("x").as_ptr(), c("file").as_ptr()),
        );
        show("link", libc::link(c("file").as_ptr(), c("hard").as_ptr()));
        show(
            "link again",
            libc::link(c("file").as_ptr(), c("hard").as_ptr()),
        );
        show(
            "link a directory",
            libc::link(c("dir").as_ptr(), c("hd").as_ptr()),
        );
        show(
            "link a symlink",
            libc::link(c("link").as_ptr(), c("hl").as_ptr()),
        );
        show(
            "linkat follow",
            libc::linkat(
                libc::AT_FDCWD,
                c("link").as_ptr(),
                libc::AT_FDCWD,
                c("hf").as_ptr(),
                libc::AT_SYMLINK_FOLLOW,
            ),
        );
        show(
            "linkat flags",
            libc::linkat(
                libc::AT_FDCWD,
                c("link").as_ptr(),
                libc::AT_FDCWD,
                c("hg").as_ptr(),
                1,
            ),
        );
        show(
            "link across",
            libc::link(c("/proc/self/maps").as_ptr(), c("m").as_ptr()),
        );
        let fd = open(".", libc::O_TMPFILE | libc::O_RDWR);
        let own = format!("/proc/self/fd/{fd}");
        show(
            "name a TMPFILE",
            libc::linkat(
                libc::AT_FDCWD,
                c(&own).as_ptr(),
                libc::AT_FDCWD,
                c("named").as_ptr(),
                libc::AT_SYMLINK_FOLLOW,
            ),
        );
        show(
            "name it by descriptor",
            libc::linkat(
                fd,
                c("").as_ptr(),
                libc::AT_FDCWD,
                c("named2").as_ptr(),
                libc::AT_EMPTY_PATH,
            ),
        );
        close(fd);
        let mut text = [0u8; 4];
        show(
            "readlink",
            libc::readlink(c("dangling").as_ptr(), text.as_mut_ptr().cast(), 4) as i64,
        );
        println!("text {:?}", std::str::from_utf8(&text));
        show(
            "readlink of a file",
            libc::readlink(c("file").as_ptr(), text.as_mut_ptr().cast(), 4) as i64,
        );
        show(
            "readlink size 0",
            libc::readlink(c("dangling").as_ptr(), text.as_mut_ptr().cast(), 0) as i64,
        );
    }
}

fn moving() {
    let rename = |what: &str, from: &str, to: &str, flags: u32| {
        // SAFETY: valid strings.
        let result = unsafe {
            libc::renameat2(
                libc::AT_FDCWD,
                c(from).as_ptr(),
                libc::AT_FDCWD,
                c(to).as_ptr(),
                flags,
            )
        };
        show(what, result);
    };
    put("a", b"a");
    put("b", b"bb");
    std::fs::create_dir_all("p/q/r").expect("made");
    rename("rename", "a", "c", 0);
    rename("rename over", "c", "b", 0);
    rename("rename missing", "a", "z", 0);
    rename("rename to itself", "b", "b", 0);
    rename("rename to a link of itself", "file", "hard", 0);
    rename("rename into itself", "p", "p/q/x", 0);
    rename("rename over its parent", "p/q", "p", 0);
    rename("rename file over directory", "b", "p", 0);
    rename("rename directory over file", "p", "b", 0);
    rename("rename directory over full", "dir", "p", 0);
    rename("rename directory over empty", "dir", "dir2", 0);
    rename("rename noreplace", "b", "file", libc::RENAME_NOREPLACE);
    rename("rename exchange", "b", "p", libc::RENAME_EXCHANGE);
    println!("b is a directory: {}", std::path::Path::new("b").is_dir());
    rename("rename exchange back", "b", "p", libc::RENAME_EXCHANGE);
    rename("rename exchange missing", "b", "zz", libc::RENAME_EXCHANGE);
    rename("rename both flags", "b", "zz", 3);
    rename("rename slash", "b/", "bb", 0);
    rename("rename to slash", "b", "bb/", 0);
    rename("rename directory slash", "p/", "pp/", 0);
    rename("rename .", "pp/.", "ppp", 0);
    rename("rename ..", "pp/q/..", "ppp", 0);
    rename("rename to /", "b", "/", 0);
    rename("rename across", "b", "/proc/b", 0);
}

fn removing() {
    // SAFETY: valid strings everywhere.
    unsafe {
        show("unlink directory", libc::unlink(c("pp").as_ptr()));
        show("unlink slash", libc::unlink(c("b/").as_ptr()));
        show("unlink missing", libc::unlink(c("zzz").as_ptr()));
        show("unlink .", libc::unlink(c(".").as_ptr()));
        show("rmdir full", libc::rmdir(c("pp").as_ptr()));
        show("rmdir file", libc::rmdir(c("b").as_ptr()));
        show("rmdir .", libc::rmdir(c("dir2/.").as_ptr()));
        show("rmdir ..", libc::rmdir(c("dir2/..").as_ptr()));
        show("rmdir /", libc::rmdir(c("/").as_ptr()));
        show("rmdir mount", libc::rmdir(c("/proc").as_ptr()));
        show("rmdir slash", libc::rmdir(c("dir2/").as_ptr()));
        show(
            "unlinkat flags",
            libc::unlinkat(libc::AT_FDCWD, c("b").as_ptr(), 1),
        );
        show("mkdir gone", libc::mkdir(c("gone").as_ptr(), 0o777));
        show("chdir", libc::chdir(c("gone").as_ptr()));
        show("rmdir ../gone", libc::rmdir(c("../gone").as_ptr()));
        let mut path = [0u8; 100];
        println!(
            "getcwd of a removed directory fails: {}",
            libc::getcwd(path.as_mut_ptr().cast(), 100).is_null()
        );
        outcome("create in it", open("x", libc::O_CREAT | libc::O_RDWR));
        outcome("open . of it", open(".", libc::O_RDONLY));
        show("leave it", libc::chdir(c("..").as_ptr()));
        show(
            "getcwd small",
            libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), 3),
        );
        show("chdir file", libc::chdir(c("file").as_ptr()));
        show("chdir missing", libc::chdir(c("missing2").as_ptr()));
    }
}

fn listing() {
    let mut names: Vec<_> = std::fs::read_dir(".")
        .expect("readable")
        .map(|e| e.expect("entry"))
        .collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    for entry in names {
        let kind = entry.file_type().expect("known");
        println!(
            "{:?} dir {} file {} link {}",
            entry.file_name(),
            kind.is_dir(),
            kind.is_file(),
            kind.is_symlink()
        );
    }
    let fd = open(".", libc::O_RDONLY | libc::O_DIRECTORY);
    let mut buffer = [0u8; 10];
    // SAFETY: the buffer is as long as said.
    unsafe {
        show(
            "getdents64 small",
            libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), 10),
        );
        show(
            "getdents64 of a file",
            libc::syscall(
                libc::SYS_getdents64,
                open("file", 0),
                buffer.as_mut_ptr(),
                10,
            ),
        );
        show(
            "read of a directory",
            libc::read(fd, buffer.as_mut_ptr().cast(), 10) as i64,
        );
        show("lseek", libc::lseek(fd, 0, libc::SEEK_SET));
    }
    close(fd);
}

fn resolving() {
    std::fs::create_dir_all("jail/in").expect("made");
    put("jail/in/f", b"f");
    std::os::unix::fs::symlink("/in/f", "jail/abs").expect("made");
    std::os::unix::fs::symlink("in/f", "jail/rel").expect("made");
    std::os::unix::fs::symlink("../file", "jail/out").expect("made");
    let jail = open("jail", libc::O_RDONLY | libc::O_DIRECTORY);
    for (name, resolve) in [
        ("none", 0),
        ("beneath", 8),
        ("in root", 16),
        ("no symlinks", 4),
        ("no xdev", 1),
        ("both", 24),
        ("unknown", 1 << 20),
    ] {
        for path in [
            "in/f",
            "abs",
            "rel",
            "out",
            "../file",
            "in/../in/f",
            "/in/f",
            "/etc/hostname",
        ] {
            let how = [0u64, 0, resolve];
            // SAFETY: a valid string and an open_how of 24 bytes.
            let fd = unsafe {
                libc::syscall(libc::SYS_openat2, jail, c(path).as_ptr(), how.as_ptr(), 24)
            };
            outcome(&format!("openat2 {name} {path}"), fd);
            if fd >= 0 {
                close(fd as i32);
            }
        }
    }
    let how = [0u64, 0o777, 0, 0];
    // SAFETY: as above.
    unsafe {
        outcome(
            "openat2 mode without CREAT",
            libc::syscall(libc::SYS_openat2, jail, c("x").as_ptr(), how.as_ptr(), 24),
        );
        outcome(
            "openat2 small",
            libc::syscall(libc::SYS_openat2, jail, c("x").as_ptr(), how.as_ptr(), 16),
        );
        let long = [0u64, 0, 0, 1];
        outcome(
            "openat2 long",
            libc::syscall(libc::SYS_openat2, jail, c("in").as_ptr(), long.as_ptr(), 32),
        );
        outcome(
            "openat of a file",
            libc::openat(open("file", 0), c("x").as_ptr(), 0),
        );
        outcome("openat bad", libc::openat(77, c("x").as_ptr(), 0));
        outcome(
            "openat bad but absolute",
            libc::openat(77, c("/").as_ptr(), 0),
        );
        outcome("open bad address", libc::open(8 as *const libc::c_char, 0));
    }
    close(jail);
}

/// All of it.
pub fn run() {
    opening();
    making();
    moving();
    removing();
    resolving();
    listing();
}
