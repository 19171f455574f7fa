//! Objects without a file system: device and inode numbers of pipes, event files and sockets, and their [`metadata`].

use core::sync::atomic::{AtomicU64, Ordering};

use crate::inode::{Metadata, StatFs};
use crate::system::{PAGE, Time};

/// `st_dev` of pipes.
pub const PIPE_DEV: u64 = 12;
/// `st_dev` of eventfd, timerfd, signalfd and epoll.
pub const EVENT_DEV: u64 = 13;
/// `st_dev` of sockets.
pub const SOCKET_DEV: u64 = 8;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A fresh inode number for a pipe or socket.
pub fn next_ino() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Attributes of such an object; `mode` holds kind and permissions.
pub fn metadata(dev: u64, ino: u64, mode: u32, born: Time) -> Metadata {
    Metadata {
        dev,
        ino,
        nlink: 1,
        mode,
        blksize: PAGE as u32,
        atime: born,
        mtime: born,
        ctime: born,
        btime: born,
        ..Metadata::default()
    }
}

/// Attributes of an event file: all of them share one nameless inode.
pub fn event_metadata() -> Metadata {
    metadata(EVENT_DEV, 1, 0o600, Time::default())
}

/// `fstatfs` of such an object.
pub fn statfs(dev: u64) -> StatFs {
    let magic = match dev {
        PIPE_DEV => linux_raw_sys::general::PIPEFS_MAGIC,
        SOCKET_DEV => linux_raw_sys::general::SOCKFS_MAGIC,
        _ => linux_raw_sys::general::ANON_INODE_FS_MAGIC,
    };
    StatFs {
        magic: u64::from(magic),
        block_size: PAGE as u64,
        ..StatFs::default()
    }
}
