//! The file tree a program finds at start: [`build`] mounts the packed files, `/dev` and `/dev/shm`, and makes the directories and
//! the small files of `/etc` that programs expect and nobody packed.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::dev;
use crate::fdtable::FdTable;
use crate::inode::{FileType, NewNode, Node};
use crate::packed::Packed;
use crate::system::System;
use crate::tmpfs::TmpFs;
use crate::vfs::Vfs;

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
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The packed files.
    pub packed: Packed,
    /// Pages of file data that `/` may hold (and as many in `/dev/shm`, and in memfds).
    pub pages: u64,
    /// For `/etc/hostname` and `/etc/hosts`.
    pub hostname: Vec<u8>,
    /// For `/etc/localtime`: a rule as in the variable `TZ`, such as `CET-1CEST,M3.5.0,M10.5.0/3`; empty: UTC.
    pub zone: Vec<u8>,
}

/// Builds the tree. Costs next to nothing before somebody looks into `/` or `/dev`. Never fails: a place that the packed files occupy
/// otherwise is left to them.
pub fn build(system: Rc<dyn System>, fds: Rc<FdTable>, plan: Plan) -> Rc<Vfs> {
    let pages = plan.pages;
    let root = TmpFs::over(
        &system,
        ROOT_DEV,
        pages,
        plan.packed,
        Box::new(move |root| fill_root(root, &plan)),
    );
    let shm = TmpFs::root(&system, SHM_DEV, pages, 0o1777);
    let devices = TmpFs::over(
        &system,
        DEVICES_DEV,
        256,
        Packed::default(),
        Box::new(fill_devices),
    );
    let vfs = Vfs::new(system, fds, root.clone(), "tmpfs", pages);
    let _ = vfs
        .mounts
        .add(root, b"dev", devices.clone(), "devtmpfs", false);
    let _ = vfs.mounts.add(devices, b"shm", shm, "tmpfs", false);
    Rc::new(vfs)
}

const DIRECTORIES: &[(&[u8], u32)] = &[
    (b"bin", 0o755),
    (b"dev", 0o755),
    (b"etc", 0o755),
    (b"home", 0o755),
    (b"proc", 0o555),
    (b"root", 0o700),
    (b"run", 0o755),
    (b"sys", 0o555),
    (b"tmp", 0o1777),
    (b"usr", 0o755),
    (b"var", 0o755),
];

const DEVICES: &[(&[u8], u64, u32)] = &[
    (b"null", dev::NULL, 0o666),
    (b"zero", dev::ZERO, 0o666),
    (b"full", dev::FULL, 0o666),
    (b"random", dev::RANDOM, 0o666),
    (b"urandom", dev::URANDOM, 0o666),
    (b"tty", dev::TTY, 0o666),
    (b"console", dev::CONSOLE, 0o600),
];

const DEVICE_LINKS: &[(&[u8], &[u8])] = &[
    (b"/proc/self/fd", b"fd"),
    (b"/proc/self/fd/0", b"stdin"),
    (b"/proc/self/fd/1", b"stdout"),
    (b"/proc/self/fd/2", b"stderr"),
];

fn new(kind: FileType, mode: u32, rdev: u64) -> NewNode {
    NewNode {
        kind,
        mode,
        uid: 0,
        gid: 0,
        rdev,
    }
}

fn fill_devices(root: &Node) {
    for &(name, rdev, mode) in DEVICES {
        let _ = root.create(name, &new(FileType::CharDevice, mode, rdev));
    }
    for &(target, name) in DEVICE_LINKS {
        let _ = root.symlink(name, target, (0, 0));
    }
    let _ = root.create(b"shm", &new(FileType::Directory, 0o1777, 0));
}

fn fill_root(root: &Node, plan: &Plan) {
    for &(name, mode) in DIRECTORIES {
        let _ = root.create(name, &new(FileType::Directory, mode, 0));
    }
    if let Ok(var) = root.lookup(b"var") {
        let _ = var.create(b"tmp", &new(FileType::Directory, 0o1777, 0));
    }
    if let Ok(etc) = root.lookup(b"etc") {
        fill_etc(&etc, plan);
    }
}

fn fill_etc(etc: &Node, plan: &Plan) {
    let host = plan.hostname.as_slice();
    let hosts = [
        b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t" as &[u8],
        host,
        b"\n",
    ]
    .concat();
    let files: [(&[u8], &[u8]); 7] = [
        (b"hostname", &[host, b"\n"].concat()),
        (b"hosts", &hosts),
        (b"passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
        (b"group", b"root:x:0:\nnogroup:x:65534:\n"),
        (b"os-release", OS_RELEASE),
        (b"nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n"),
        (b"localtime", &localtime(&plan.zone)),
    ];
    // What the network was given, now and later, as Linux's documentation of /proc/net/pnp has it.
    let _ = etc.symlink(b"resolv.conf", b"/proc/net/pnp", (0, 0));
    for (name, text) in files {
        if let Ok(node) = etc.create(name, &new(FileType::Regular, 0o644, 0)) {
            let _ = node.write_at(0, text);
        }
    }
}

/// `/etc/localtime`: a TZif version 2 file without transitions, so that the rule in its footer holds for all times (RFC 9636, 3.3).
fn localtime(zone: &[u8]) -> Vec<u8> {
    let fits = !zone.is_empty() && zone.iter().all(|byte| byte.is_ascii_graphic());
    [TZIF, TZIF, b"\n", if fits { zone } else { b"UTC0" }, b"\n"].concat()
}

/// os-release(5).
const OS_RELEASE: &[u8] = concat!(
    "NAME=\"Unik\"\nID=unik\nPRETTY_NAME=\"Unik ",
    env!("CARGO_PKG_VERSION"),
    "\"\nVERSION_ID=\"",
    env!("CARGO_PKG_VERSION"),
    "\"\n"
)
.as_bytes();

/// A TZif header and data block: one type of local time, UTC.
const TZIF: &[u8] = b"TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\0\0\0UTC\0";
