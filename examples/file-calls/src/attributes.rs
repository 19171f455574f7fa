//! stat, statx, access, chmod, chown, utimensat, truncate, statfs, extended attributes.

use crate::show::{c, close, close_all, open, outcome, put, show};
use std::mem::zeroed;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn mode(path: &str) {
    let meta = std::fs::symlink_metadata(path).expect("there");
    println!(
        "{path}: mode {:o} owner {}:{} links {} size {} blocks {}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.nlink(),
        meta.size(),
        meta.blocks()
    );
}

fn permissions() {
    put("p", b"12345");
    for bits in [0o7777, 0o644, 0, 0o4755, 0o2755] {
        // SAFETY: a valid string.
        show("chmod", unsafe { libc::chmod(c("p").as_ptr(), bits) });
        mode("p");
    }
    // SAFETY: valid strings.
    unsafe {
        show("chown", libc::chown(c("p").as_ptr(), 12, 34));
        mode("p");
        show(
            "chown keep",
            libc::chown(c("p").as_ptr(), u32::MAX, u32::MAX),
        );
        show("lchown", libc::lchown(c("link").as_ptr(), 5, 6));
        mode("link");
        show(
            "fchownat flags",
            libc::fchownat(libc::AT_FDCWD, c("p").as_ptr(), 0, 0, 1),
        );
        show(
            "fchmodat2 symlink",
            libc::syscall(
                452,
                libc::AT_FDCWD,
                c("link").as_ptr(),
                0o600,
                libc::AT_SYMLINK_NOFOLLOW,
            ),
        );
        libc::chmod(c("p").as_ptr(), 0o644);
        for want in [0, libc::R_OK, libc::W_OK, libc::X_OK, 7, 8] {
            show(
                &format!("access {want}"),
                libc::access(c("p").as_ptr(), want),
            );
        }
        show(
            "access directory X",
            libc::access(c(".").as_ptr(), libc::X_OK),
        );
        show("access missing", libc::access(c("nope").as_ptr(), 0));
        show(
            "faccessat2",
            libc::syscall(
                libc::SYS_faccessat2,
                libc::AT_FDCWD,
                c("dangling2").as_ptr(),
                0,
                0x100,
            ),
        );
        show(
            "faccessat2 flags",
            libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, c("p").as_ptr(), 0, 1),
        );
        libc::umask(0o077);
        close(open("masked", libc::O_CREAT | libc::O_RDWR));
        println!("umask was {:o}", libc::umask(0o022));
    }
    mode("masked");
    std::fs::create_dir("group").expect("made");
    std::fs::set_permissions("group", std::fs::Permissions::from_mode(0o2775)).expect("set");
    std::os::unix::fs::chown("group", None, Some(77)).expect("set");
    std::fs::create_dir("group/d").expect("made");
    put("group/f", b"");
    mode("group/d");
    mode("group/f");
    nameless();
}

/// A socket keeps its permissions and gives them to its name; both ends of a pipe share theirs.
fn nameless() {
    // SAFETY: integers only.
    let (mut ends, mut to): ([libc::c_int; 2], libc::sockaddr_un) = unsafe { zeroed() };
    to.sun_family = libc::AF_UNIX as u16;
    to.sun_path[0] = b's' as i8;
    // SAFETY: the structures live as long as the calls.
    unsafe {
        libc::pipe(ends.as_mut_ptr());
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
        for (what, set, seen) in [("socket", socket, socket), ("pipe", ends[0], ends[1])] {
            let mut out: libc::stat = zeroed();
            libc::fstat(seen, &mut out);
            println!("{what}: mode {:o}", out.st_mode);
            show("fchmod", libc::fchmod(set, 0o640));
            libc::fstat(seen, &mut out);
            println!("{what}: mode {:o}", out.st_mode);
        }
        let len = size_of_val(&to) as u32;
        show("bind", libc::bind(socket, (&raw const to).cast(), len));
        close_all(&[socket, ends[0], ends[1]]);
    }
    mode("s");
}

fn looking() {
    // SAFETY: structures of integers, valid strings.
    unsafe {
        let mut out: libc::stat = zeroed();
        show("stat missing", libc::stat(c("nope").as_ptr(), &mut out));
        show(
            "stat bad address",
            libc::syscall(libc::SYS_newfstatat, libc::AT_FDCWD, c("p").as_ptr(), 8, 0),
        );
        show(
            "fstatat empty",
            libc::fstatat(libc::AT_FDCWD, c("").as_ptr(), &mut out, 0),
        );
        show(
            "fstatat empty path",
            libc::fstatat(
                libc::AT_FDCWD,
                c("").as_ptr(),
                &mut out,
                libc::AT_EMPTY_PATH,
            ),
        );
        println!(
            "it is a directory: {}",
            out.st_mode & libc::S_IFMT == libc::S_IFDIR
        );
        show(
            "fstatat flags",
            libc::syscall(
                libc::SYS_newfstatat,
                libc::AT_FDCWD,
                c("p").as_ptr(),
                &raw mut out,
                0x8000,
            ),
        );
        show("fstat bad", libc::fstat(99, &mut out));
        let mut x: libc::statx = zeroed();
        show(
            "statx",
            libc::statx(libc::AT_FDCWD, c("p").as_ptr(), 0, libc::STATX_ALL, &mut x),
        );
        println!(
            "mask {:x} mode {:o} size {} blksize {}",
            x.stx_mask & 0xfff,
            x.stx_mode,
            x.stx_size,
            x.stx_blksize
        );
        show(
            "statx flags",
            libc::statx(
                libc::AT_FDCWD,
                c("p").as_ptr(),
                0x6000,
                libc::STATX_ALL,
                &mut x,
            ),
        );
        let mut fs: libc::statfs = zeroed();
        show("statfs", libc::statfs(c(".").as_ptr(), &mut fs));
        println!(
            "type {:x} bsize {} namelen {}",
            fs.f_type, fs.f_bsize, fs.f_namelen
        );
        show("statfs /proc", libc::statfs(c("/proc").as_ptr(), &mut fs));
        println!("type {:x}", fs.f_type);
        let mut pipe = [0; 2];
        libc::pipe(pipe.as_mut_ptr());
        show("fstatfs pipe", libc::fstatfs(pipe[0], &mut fs));
        println!("type {:x}", fs.f_type);
        libc::fstat(pipe[0], &mut out);
        println!("pipe mode {:o} links {}", out.st_mode, out.st_nlink);
        libc::stat(c("/dev/null").as_ptr(), &mut out);
        println!("null mode {:o} rdev {:x}", out.st_mode, out.st_rdev);
        close_all(&pipe);
    }
}

fn times() {
    put("t", b"");
    let shown = || {
        let meta = std::fs::symlink_metadata("t").expect("there");
        println!(
            "times {}.{:09} {}.{:09}",
            meta.atime(),
            meta.atime_nsec(),
            meta.mtime(),
            meta.mtime_nsec()
        );
    };
    let at = |sec, nsec| libc::timespec {
        tv_sec: sec,
        tv_nsec: nsec,
    };
    let set = |what: &str, times: [libc::timespec; 2], flags| {
        // SAFETY: valid strings and structures.
        show(what, unsafe {
            libc::utimensat(libc::AT_FDCWD, c("t").as_ptr(), times.as_ptr(), flags)
        });
    };
    set("utimensat", [at(1000, 5), at(2000, 999_999_999)], 0);
    shown();
    set("utimensat omit", [at(0, libc::UTIME_OMIT), at(3000, 1)], 0);
    shown();
    set(
        "utimensat both omitted",
        [at(0, libc::UTIME_OMIT), at(0, libc::UTIME_OMIT)],
        0,
    );
    shown();
    set("utimensat before 1970", [at(-10, 1), at(1 << 40, 2)], 0);
    shown();
    set("utimensat bad", [at(0, 1_000_000_000), at(0, 0)], 0);
    set("utimensat flags", [at(1, 1), at(1, 1)], 1);
    let fd = open("t", libc::O_RDWR);
    let both = [at(7, 7), at(8, 8)];
    // SAFETY: valid structures.
    unsafe {
        show("futimens", libc::futimens(fd, both.as_ptr()));
        shown();
        let micros = [
            libc::timeval {
                tv_sec: 5,
                tv_usec: 6,
            },
            libc::timeval {
                tv_sec: 7,
                tv_usec: 999_999,
            },
        ];
        show("utimes", libc::utimes(c("t").as_ptr(), micros.as_ptr()));
        shown();
        let seconds = libc::utimbuf {
            actime: 11,
            modtime: 12,
        };
        show("utime", libc::utime(c("t").as_ptr(), &seconds));
        shown();
        show(
            "utimensat bad descriptor",
            libc::futimens(99, both.as_ptr()),
        );
    }
    close(fd);
}

fn sizes() {
    put("s", b"0123456789");
    let fd = open("s", libc::O_RDONLY);
    // SAFETY: valid strings.
    unsafe {
        show("truncate", libc::truncate(c("s").as_ptr(), 4));
        show("truncate longer", libc::truncate(c("s").as_ptr(), 10_000));
        mode("s");
        show("truncate negative", libc::truncate(c("s").as_ptr(), -1));
        show("truncate directory", libc::truncate(c(".").as_ptr(), 0));
        show("truncate fifo", libc::truncate(c("fifo").as_ptr(), 0));
        show("truncate huge", libc::truncate(c("s").as_ptr(), i64::MAX));
        show("ftruncate read only", libc::ftruncate(fd, 0));
        show("ftruncate bad", libc::ftruncate(99, 0));
    }
    close(fd);
}

fn extended() {
    let mut value = [0u8; 16];
    // SAFETY: valid strings and buffers.
    unsafe {
        for name in ["trusted.none", "security.none"] {
            show(
                &format!("getxattr {name}"),
                libc::getxattr(
                    c("p").as_ptr(),
                    c(name).as_ptr(),
                    value.as_mut_ptr().cast(),
                    16,
                ) as i64,
            );
        }
        show(
            "getxattr unknown",
            libc::getxattr(
                c("p").as_ptr(),
                c("odd.name").as_ptr(),
                value.as_mut_ptr().cast(),
                16,
            ) as i64,
        );
        show(
            "getxattr empty",
            libc::getxattr(
                c("p").as_ptr(),
                c("").as_ptr(),
                value.as_mut_ptr().cast(),
                16,
            ) as i64,
        );
        show(
            "listxattr",
            libc::listxattr(c("p").as_ptr(), value.as_mut_ptr().cast(), 16) as i64,
        );
        show(
            "getxattr missing file",
            libc::getxattr(
                c("nope").as_ptr(),
                c("trusted.x").as_ptr(),
                value.as_mut_ptr().cast(),
                16,
            ) as i64,
        );
        show(
            "setxattr unknown",
            libc::setxattr(
                c("p").as_ptr(),
                c("odd.name").as_ptr(),
                value.as_ptr().cast(),
                4,
                0,
            ),
        );
    }
    outcome("open after all", open("p", libc::O_RDONLY));
    kept();
}

/// Attributes that are kept: set, replaced, listed, refused, removed.
fn kept() {
    let set = |path: &str, name: &str, value: &str, flags: i32| {
        // SAFETY: valid strings.
        let result = unsafe {
            libc::lsetxattr(
                c(path).as_ptr(),
                c(name).as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                flags,
            )
        };
        show(&format!("set {path} {name} {flags}"), result);
    };
    let get = |path: &str, name: &str, size: usize| {
        let mut value = [0u8; 64];
        // SAFETY: a valid string and a buffer of at least `size` bytes.
        let len = unsafe {
            libc::getxattr(
                c(path).as_ptr(),
                c(name).as_ptr(),
                value.as_mut_ptr().cast(),
                size,
            )
        };
        show(&format!("get {path} {name} {size}"), len as i64);
        let len = usize::try_from(len).unwrap_or(0).min(size);
        println!("{}", String::from_utf8_lossy(&value[..len]));
    };
    let list = |path: &str| {
        let mut names = [0u8; 256];
        // SAFETY: a valid string and a buffer.
        let len = unsafe { libc::listxattr(c(path).as_ptr(), names.as_mut_ptr().cast(), 256) };
        let names = String::from_utf8_lossy(&names[..usize::try_from(len).unwrap_or(0)]);
        let mut names: Vec<&str> = names.split_terminator('\0').collect();
        names.sort_unstable();
        println!("list {path}: {len} {names:?}");
    };
    for (name, value, flags) in [
        ("user.b", "first", 0),
        ("user.a", "", libc::XATTR_CREATE),
        ("user.b", "second", libc::XATTR_CREATE),
        ("user.b", "third", libc::XATTR_REPLACE),
        ("user.c", "none", libc::XATTR_REPLACE),
        ("user.d", "flags", 4),
        ("user.", "no name", 0),
        ("user", "no class", 0),
        (&format!("user.{}", "x".repeat(251)), "long name", 0),
    ] {
        set("p", name, value, flags);
    }
    for (name, size) in [
        ("user.a", 64),
        ("user.b", 64),
        ("user.b", 0),
        ("user.b", 2),
        ("user.c", 64),
        ("user.", 64),
    ] {
        get("p", name, size);
    }
    list("p");
    set("group", "user.dir", "yes", 0);
    list("group");
    set("link", "user.link", "no", 0);
    set("fifo", "user.fifo", "no", 0);
    get("fifo", "user.fifo", 8);
    set("nope", "user.x", "no", 0);
    // SAFETY: valid strings.
    unsafe {
        for name in ["user.a", "user.a", "odd.name"] {
            let removed = libc::removexattr(c("p").as_ptr(), c(name).as_ptr());
            show(&format!("remove {name}"), removed);
        }
        libc::rename(c("p").as_ptr(), c("p2").as_ptr());
        list("p2");
        libc::rename(c("p2").as_ptr(), c("p").as_ptr());
        let fd = open("p", libc::O_PATH);
        show(
            "O_PATH flistxattr",
            libc::flistxattr(fd, std::ptr::null_mut(), 0) as i64,
        );
        close(fd);
    }
}

/// All of it.
pub fn run() {
    permissions();
    looking();
    times();
    sizes();
    extended();
}
