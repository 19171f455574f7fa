//! The file tree a program finds at start: [`build`] mounts the packed files, `/dev` and `/dev/shm`, and makes the directories and
//! the small files of `/etc` that programs expect and nobody packed.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use crate::inode::{FileType, Node};
use crate::packed::Packed;
use crate::system::System;
use crate::tmpfs::TmpFs;
use crate::vfs::{AT_FDCWD, OpenHow, Vfs};
use crate::{Errno, Result, dev};

/// Device numbers of the file systems.
const ROOT_DEV: u64 = 21;
const DEVICES_DEV: u64 = 5;
const SHM_DEV: u64 = 22;
/// Of memfds.
pub(crate) const MEMFD_DEV: u64 = 1;
/// Of `/proc`.
pub const PROC_DEV: u64 = 20;
/// Of `/sys`.
pub const SYS_DEV: u64 = 19;

/// What the tree is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The packed files, a cpio archive; empty when nothing is packed.
    pub archive: &'static [u8],
    /// Pages of file data that `/` may hold (and as many in `/dev/shm`, and in memfds).
    pub pages: u64,
    /// RLIMIT_NOFILE.
    pub fd_limit: u32,
    /// For `/etc/hostname` and `/etc/hosts`.
    pub hostname: &'a [u8],
    /// Name servers for `/etc/resolv.conf`.
    pub resolvers: &'a [&'a str],
}

/// Builds the tree. Never fails: a place that the packed files occupy otherwise is left to them.
pub fn build(system: Rc<dyn System>, plan: &Plan<'_>) -> Rc<Vfs> {
    let root = TmpFs::over(&system, ROOT_DEV, plan.pages, Packed::new(plan.archive));
    let vfs = Vfs::new(system, root, "tmpfs", plan.pages, plan.fd_limit);
    let umask = vfs.set_umask(0);
    for (path, mode) in DIRECTORIES {
        let _ = vfs.mkdir(AT_FDCWD, path, *mode);
    }
    let _ = mount_devices(&vfs, plan.pages);
    write_etc(&vfs, plan);
    vfs.set_umask(umask);
    Rc::new(vfs)
}

const DIRECTORIES: &[(&[u8], u32)] = &[
    (b"/bin", 0o755),
    (b"/dev", 0o755),
    (b"/etc", 0o755),
    (b"/home", 0o755),
    (b"/proc", 0o555),
    (b"/root", 0o700),
    (b"/run", 0o755),
    (b"/sys", 0o555),
    (b"/tmp", 0o1777),
    (b"/usr", 0o755),
    (b"/var", 0o755),
    (b"/var/tmp", 0o1777),
];

const DEVICES: &[(&[u8], u64, u32)] = &[
    (b"/dev/null", dev::NULL, 0o666),
    (b"/dev/zero", dev::ZERO, 0o666),
    (b"/dev/full", dev::FULL, 0o666),
    (b"/dev/random", dev::RANDOM, 0o666),
    (b"/dev/urandom", dev::URANDOM, 0o666),
    (b"/dev/tty", dev::TTY, 0o666),
    (b"/dev/console", dev::CONSOLE, 0o600),
];

const DEVICE_LINKS: &[(&[u8], &[u8])] = &[
    (b"/proc/self/fd", b"/dev/fd"),
    (b"/proc/self/fd/0", b"/dev/stdin"),
    (b"/proc/self/fd/1", b"/dev/stdout"),
    (b"/proc/self/fd/2", b"/dev/stderr"),
];

/// Mounts a file system over the directory `path`.
pub fn mount(vfs: &Vfs, path: &[u8], root: Node, name: &'static str, read_only: bool) -> Result<()> {
    let point = vfs.find(AT_FDCWD, path, 0)?.into_node()?;
    vfs.mounts.add(point, root, name, read_only)
}

fn mount_devices(vfs: &Vfs, pages: u64) -> Result<()> {
    mount(vfs, b"/dev", TmpFs::root(vfs.system(), DEVICES_DEV, 256, 0o755), "devtmpfs", false)?;
    for &(path, rdev, mode) in DEVICES {
        vfs.mknod(AT_FDCWD, path, FileType::CharDevice.mode() | mode, rdev)?;
    }
    for &(target, path) in DEVICE_LINKS {
        vfs.symlink(target, AT_FDCWD, path)?;
    }
    vfs.mkdir(AT_FDCWD, b"/dev/shm", 0o1777)?;
    mount(vfs, b"/dev/shm", TmpFs::root(vfs.system(), SHM_DEV, pages, 0o1777), "tmpfs", false)
}

fn write_etc(vfs: &Vfs, plan: &Plan<'_>) {
    let host = plan.hostname;
    let hosts = [b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t" as &[u8], host, b"\n"].concat();
    let resolvers: Vec<u8> = plan.resolvers.iter().flat_map(|server| format!("nameserver {server}\n").into_bytes()).collect();
    let files: [(&[u8], &[u8]); 6] = [
        (b"/etc/hostname", &[host, b"\n"].concat()),
        (b"/etc/hosts", &hosts),
        (b"/etc/resolv.conf", &resolvers),
        (b"/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
        (b"/etc/group", b"root:x:0:\nnogroup:x:65534:\n"),
        (b"/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n"),
    ];
    for (path, text) in files {
        let _ = write_new(vfs, path, text);
    }
    let _ = write_new(vfs, b"/etc/localtime", UTC);
}

/// `/etc/localtime` for UTC: a TZif version 2 file without transitions (RFC 8536).
const UTC: &[u8] = b"TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\0\0\0UTC\0\
TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\0\0\0UTC\0\nUTC0\n";

/// Writes a file that must not exist yet.
pub fn write_new(vfs: &Vfs, path: &[u8], text: &[u8]) -> Result<()> {
    let flags = linux::O_WRONLY | linux::O_CREAT | linux::O_EXCL;
    let file = vfs.open(AT_FDCWD, path, &OpenHow { flags, mode: 0o644, resolve: 0 })?;
    if file.write(text)? < text.len() { Err(Errno::ENOSPC) } else { Ok(()) }
}
