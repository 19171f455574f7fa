//! Attributes: stat(2), statx(2), access(2), chmod(2), chown(2), utimensat(2), truncate(2), statfs(2), getxattr(2).

use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::vfs::{usable, vfs};
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use unik_fs::attributes::SetTime;
use unik_fs::inode::StatFs;
use unik_fs::system::Time;
use unik_fs::{Metadata, Node};

const CWD: u64 = linux::AT_FDCWD as u64;
const NO_FOLLOW: u64 = linux::AT_SYMLINK_NOFOLLOW as u64;

/// A path argument, which may be null where `AT_EMPTY_PATH` allows an empty one.
fn path_or_empty(path: u64, flags: u64) -> Result<Vec<u8>> {
    if path == 0 && flags as u32 & linux::AT_EMPTY_PATH != 0 {
        Ok(Vec::new())
    } else {
        user::path(path)
    }
}

fn look(dir: u64, path: u64, flags: u64) -> Result<Metadata> {
    vfs().stat(dir as i32, &path_or_empty(path, flags)?, flags as u32)
}

/// `struct stat`: 144 bytes.
fn put_stat(out: u64, meta: &Metadata) -> Result<u64> {
    let time = |time: Time| [time.sec as u64, time.nsec as u64];
    let ([a, an], [m, mn], [c, cn]) = (time(meta.atime), time(meta.mtime), time(meta.ctime));
    let owner = meta.mode as u64 | (meta.uid as u64) << 32;
    let words: [u64; 18] = [
        meta.dev,
        meta.ino,
        meta.nlink,
        owner,
        meta.gid as u64,
        meta.rdev,
        meta.size,
        meta.blksize as u64,
        meta.blocks,
        a,
        an,
        m,
        mn,
        c,
        cn,
        0,
        0,
        0,
    ];
    user::put(out, words).map(|()| 0)
}

/// Attributes of a path.
pub fn newfstatat(dir: u64, path: u64, out: u64, flags: u64) -> Result<u64> {
    let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH | linux::AT_NO_AUTOMOUNT;
    if flags as u32 & !known != 0 {
        return Err(Errno::EINVAL);
    }
    put_stat(out, &look(dir, path, flags)?)
}

/// Attributes of a path.
pub fn stat(path: u64, out: u64) -> Result<u64> {
    newfstatat(CWD, path, out, 0)
}

/// Attributes of a path, of a link itself.
pub fn lstat(path: u64, out: u64) -> Result<u64> {
    newfstatat(CWD, path, out, NO_FOLLOW)
}

/// Attributes of an open file.
pub fn fstat(fd: u64, out: u64) -> Result<u64> {
    put_stat(out, &crate::vfs::file(fd)?.metadata())
}

/// `struct statx`: 256 bytes.
pub fn statx(dir: u64, path: u64, flags: u64, mask: u64, out: u64) -> Result<u64> {
    let known = linux::AT_SYMLINK_NOFOLLOW
        | linux::AT_EMPTY_PATH
        | linux::AT_NO_AUTOMOUNT
        | linux::AT_STATX_SYNC_TYPE;
    let sync = flags as u32 & linux::AT_STATX_SYNC_TYPE;
    if flags as u32 & !known != 0
        || sync == linux::AT_STATX_SYNC_TYPE
        || mask as u32 & linux::STATX__RESERVED != 0
    {
        return Err(Errno::EINVAL);
    }
    let meta = look(dir, path, flags & !(linux::AT_STATX_SYNC_TYPE as u64))?;
    let pair = |low: u64, high: u64| low & 0xffff_ffff | high << 32;
    let major = |dev: u64| dev >> 8 & 0xfff | dev >> 32 & 0xffff_f000;
    let minor = |dev: u64| dev & 0xff | dev >> 12 & 0xffff_ff00;
    let mut words = [0u64; 32];
    words[0] = pair(
        (linux::STATX_BASIC_STATS | linux::STATX_BTIME | linux::STATX_MNT_ID) as u64,
        meta.blksize as u64,
    );
    words[2] = pair(meta.nlink, meta.uid as u64);
    words[3] = pair(meta.gid as u64, meta.mode as u64);
    (words[4], words[5], words[6]) = (meta.ino, meta.size, meta.blocks);
    for (at, time) in [
        (8, meta.atime),
        (10, meta.btime),
        (12, meta.ctime),
        (14, meta.mtime),
    ] {
        (words[at], words[at + 1]) = (time.sec as u64, time.nsec as u64);
    }
    words[16] = pair(major(meta.rdev), minor(meta.rdev));
    words[17] = pair(major(meta.dev), minor(meta.dev));
    words[18] = meta.dev;
    user::put(out, words).map(|()| 0)
}

/// Whether a path may be used so, with flags.
pub fn faccessat2(dir: u64, path: u64, mode: u64, flags: u64) -> Result<u64> {
    vfs()
        .access(
            dir as i32,
            &path_or_empty(path, flags)?,
            mode as u32,
            flags as u32,
        )
        .map(|()| 0)
}

/// Whether a path may be used so.
pub fn faccessat(dir: u64, path: u64, mode: u64) -> Result<u64> {
    faccessat2(dir, path, mode, 0)
}

/// Whether a path may be used so.
pub fn access(path: u64, mode: u64) -> Result<u64> {
    faccessat2(CWD, path, mode, 0)
}

/// Changes permission bits, with flags.
pub fn fchmodat2(dir: u64, path: u64, mode: u64, flags: u64) -> Result<u64> {
    if flags as u32 & !(linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    vfs()
        .chmod(
            dir as i32,
            &path_or_empty(path, flags)?,
            mode as u32,
            flags as u32,
        )
        .map(|()| 0)
}

/// Changes permission bits.
pub fn fchmodat(dir: u64, path: u64, mode: u64) -> Result<u64> {
    fchmodat2(dir, path, mode, 0)
}

/// Changes permission bits.
pub fn chmod(path: u64, mode: u64) -> Result<u64> {
    fchmodat2(CWD, path, mode, 0)
}

/// Changes permission bits of an open file.
pub fn fchmod(fd: u64, mode: u64) -> Result<u64> {
    vfs().fchmod(fd as i32, mode as u32).map(|()| 0)
}

/// -1 keeps.
fn owner(uid: u64, gid: u64) -> (Option<u32>, Option<u32>) {
    let id = |id: u64| (id as u32 != u32::MAX).then_some(id as u32);
    (id(uid), id(gid))
}

/// Changes owner and group.
pub fn fchownat(dir: u64, path: u64, uid: u64, gid: u64, flags: u64) -> Result<u64> {
    vfs()
        .chown(
            dir as i32,
            &path_or_empty(path, flags)?,
            owner(uid, gid),
            flags as u32,
        )
        .map(|()| 0)
}

/// Changes owner and group.
pub fn chown(path: u64, uid: u64, gid: u64) -> Result<u64> {
    fchownat(CWD, path, uid, gid, 0)
}

/// Changes owner and group, of a link itself.
pub fn lchown(path: u64, uid: u64, gid: u64) -> Result<u64> {
    fchownat(CWD, path, uid, gid, NO_FOLLOW)
}

/// Changes owner and group of an open file.
pub fn fchown(fd: u64, uid: u64, gid: u64) -> Result<u64> {
    vfs().fchown(fd as i32, owner(uid, gid)).map(|()| 0)
}

/// One `struct timespec` of utimensat.
fn set_time(address: u64) -> Result<SetTime> {
    let [sec, nsec]: [i64; 2] = user::get(address)?;
    Ok(match nsec {
        n if n == linux::UTIME_NOW as i64 => SetTime::Now,
        n if n == linux::UTIME_OMIT as i64 => SetTime::Keep,
        0..1_000_000_000 => SetTime::To(Time {
            sec,
            nsec: nsec as u32,
        }),
        _ => return Err(Errno::EINVAL),
    })
}

/// Sets access and modification time.
pub fn utimensat(dir: u64, path: u64, times: u64, flags: u64) -> Result<u64> {
    let times = if times == 0 {
        (SetTime::Now, SetTime::Now)
    } else {
        (set_time(times)?, set_time(times + 16)?)
    };
    if path == 0 && flags as u32 & linux::AT_EMPTY_PATH == 0 {
        if dir as i32 == linux::AT_FDCWD {
            return Err(Errno::EFAULT);
        }
        return if flags == 0 {
            vfs().futimens(dir as i32, times).map(|()| 0)
        } else {
            Err(Errno::EINVAL)
        };
    }
    vfs()
        .utimens(
            dir as i32,
            &path_or_empty(path, flags)?,
            times,
            flags as u32,
        )
        .map(|()| 0)
}

/// A pair of `struct timeval`; null: now.
fn read_timevals(times: u64) -> Result<(SetTime, SetTime)> {
    if times == 0 {
        return Ok((SetTime::Now, SetTime::Now));
    }
    let time = |address| {
        let [sec, usec]: [i64; 2] = user::get(address)?;
        if (0..1_000_000).contains(&usec) {
            Ok(SetTime::To(Time {
                sec,
                nsec: usec as u32 * 1000,
            }))
        } else {
            Err(Errno::EINVAL)
        }
    };
    Ok((time(times)?, time(times + 16)?))
}

/// Sets access and modification time, microseconds.
pub fn futimesat(dir: u64, path: u64, times: u64) -> Result<u64> {
    let times = read_timevals(times)?;
    if path == 0 {
        return vfs().futimens(dir as i32, times).map(|()| 0);
    }
    vfs()
        .utimens(dir as i32, &user::path(path)?, times, 0)
        .map(|()| 0)
}

/// Sets access and modification time, microseconds.
pub fn utimes(path: u64, times: u64) -> Result<u64> {
    futimesat(CWD, path, times)
}

/// Sets access and modification time, seconds.
pub fn utime(path: u64, times: u64) -> Result<u64> {
    let times = if times == 0 {
        (SetTime::Now, SetTime::Now)
    } else {
        let [access, change]: [i64; 2] = user::get(times)?;
        (
            SetTime::To(Time {
                sec: access,
                nsec: 0,
            }),
            SetTime::To(Time {
                sec: change,
                nsec: 0,
            }),
        )
    };
    vfs()
        .utimens(linux::AT_FDCWD, &user::path(path)?, times, 0)
        .map(|()| 0)
}

/// Sets the size of a file.
pub fn truncate(path: u64, len: u64) -> Result<u64> {
    vfs().truncate(&user::path(path)?, len as i64).map(|()| 0)
}

/// Sets the size of an open file.
pub fn ftruncate(fd: u64, len: u64) -> Result<u64> {
    vfs().ftruncate(fd as i32, len as i64).map(|()| 0)
}

/// `struct statfs`: 120 bytes.
fn put_statfs(out: u64, figures: &StatFs) -> Result<u64> {
    const NAME_MAX: u64 = 255;
    /// ST_VALID | ST_RELATIME.
    const FLAGS: u64 = 0x20 | 0x1000;
    let block = figures.block_size;
    let words: [u64; 15] = [
        figures.magic,
        block,
        figures.blocks,
        figures.free,
        figures.free,
        figures.files,
        figures.files_free,
        0,
        NAME_MAX,
        block,
        FLAGS,
        0,
        0,
        0,
        0,
    ];
    user::put(out, words).map(|()| 0)
}

/// Figures of a file system.
pub fn statfs(path: u64, out: u64) -> Result<u64> {
    put_statfs(out, &vfs().statfs(&user::path(path)?)?)
}

/// Figures of an open file's file system.
pub fn fstatfs(fd: u64, out: u64) -> Result<u64> {
    put_statfs(out, &vfs().fstatfs(fd as i32)?)
}

fn by_path(path: u64, flags: u64) -> Result<Node> {
    vfs().xattr_node(linux::AT_FDCWD, &user::path(path)?, flags as u32)
}

fn by_fd(fd: u64) -> Result<Node> {
    usable(fd)?.node().ok_or(Errno::EOPNOTSUPP)
}

fn xattr_name(name: u64) -> Result<Vec<u8>> {
    let name = user::string(name, 255).map_err(|error| {
        if error == Errno::ENAMETOOLONG {
            Errno::ERANGE
        } else {
            error
        }
    })?;
    if name.is_empty() {
        Err(Errno::ERANGE)
    } else {
        Ok(name)
    }
}

/// Stores an answer; with size 0 only tells its length.
fn give(value: &[u8], out: u64, size: u64) -> Result<u64> {
    if size != 0 {
        if (value.len() as u64) > size {
            return Err(Errno::ERANGE);
        }
        user::slice_mut(out, value.len() as u64)?.copy_from_slice(value);
    }
    Ok(value.len() as u64)
}

fn read_attribute(node: &Node, name: u64, out: u64, size: u64) -> Result<u64> {
    give(&vfs().get_xattr(node, &xattr_name(name)?)?, out, size)
}

fn write_attribute(node: &Node, name: u64, value: u64, size: u64, flags: u64) -> Result<u64> {
    let name = xattr_name(name)?;
    if flags & !3 != 0 {
        return Err(Errno::EINVAL);
    }
    if size > 65536 {
        return Err(Errno::E2BIG);
    }
    vfs()
        .set_xattr(node, &name, user::slice(value, size)?, flags as u32)
        .map(|()| 0)
}

fn list_attributes(node: &Node, list: u64, size: u64) -> Result<u64> {
    give(&vfs().list_xattr(node), list, size)
}

fn remove_attribute(node: &Node, name: u64) -> Result<u64> {
    vfs().remove_xattr(node, &xattr_name(name)?).map(|()| 0)
}

/// Reads an extended attribute.
pub fn getxattr(path: u64, name: u64, value: u64, size: u64) -> Result<u64> {
    read_attribute(&by_path(path, 0)?, name, value, size)
}

/// Reads an extended attribute of a link itself.
pub fn lgetxattr(path: u64, name: u64, value: u64, size: u64) -> Result<u64> {
    read_attribute(&by_path(path, NO_FOLLOW)?, name, value, size)
}

/// Reads an extended attribute of an open file.
pub fn fgetxattr(fd: u64, name: u64, value: u64, size: u64) -> Result<u64> {
    read_attribute(&by_fd(fd)?, name, value, size)
}

/// Sets an extended attribute.
pub fn setxattr(path: u64, name: u64, value: u64, size: u64, flags: u64) -> Result<u64> {
    write_attribute(&by_path(path, 0)?, name, value, size, flags)
}

/// Sets an extended attribute of a link itself.
pub fn lsetxattr(path: u64, name: u64, value: u64, size: u64, flags: u64) -> Result<u64> {
    write_attribute(&by_path(path, NO_FOLLOW)?, name, value, size, flags)
}

/// Sets an extended attribute of an open file.
pub fn fsetxattr(fd: u64, name: u64, value: u64, size: u64, flags: u64) -> Result<u64> {
    write_attribute(&by_fd(fd)?, name, value, size, flags)
}

/// Lists extended attributes.
pub fn listxattr(path: u64, list: u64, size: u64) -> Result<u64> {
    list_attributes(&by_path(path, 0)?, list, size)
}

/// Lists extended attributes of a link itself.
pub fn llistxattr(path: u64, list: u64, size: u64) -> Result<u64> {
    list_attributes(&by_path(path, NO_FOLLOW)?, list, size)
}

/// Lists extended attributes of an open file.
pub fn flistxattr(fd: u64, list: u64, size: u64) -> Result<u64> {
    list_attributes(&by_fd(fd)?, list, size)
}

/// Removes an extended attribute.
pub fn removexattr(path: u64, name: u64) -> Result<u64> {
    remove_attribute(&by_path(path, 0)?, name)
}

/// Removes an extended attribute of a link itself.
pub fn lremovexattr(path: u64, name: u64) -> Result<u64> {
    remove_attribute(&by_path(path, NO_FOLLOW)?, name)
}

/// Removes an extended attribute of an open file.
pub fn fremovexattr(fd: u64, name: u64) -> Result<u64> {
    remove_attribute(&by_fd(fd)?, name)
}
