//! Names: mkdir(2), unlink(2), rename(2), link(2), symlink(2), readlink(2), getdents64(2), getcwd(2), chdir(2), mknod(2), mount(2).

use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::vfs::{file, vfs};
use linux_raw_sys::general as linux;

const CWD: u64 = linux::AT_FDCWD as u64;
const REMOVE_DIR: u64 = linux::AT_REMOVEDIR as u64;

/// Makes a directory.
pub fn mkdirat(dir: u64, path: u64, mode: u64) -> Result<u64> {
    vfs()
        .mkdir(dir as i32, &user::path(path)?, mode as u32)
        .map(|()| 0)
}

/// Makes a directory.
pub fn mkdir(path: u64, mode: u64) -> Result<u64> {
    mkdirat(CWD, path, mode)
}

/// Makes a file, FIFO or device node.
pub fn mknodat(dir: u64, path: u64, mode: u64, dev: u64) -> Result<u64> {
    let cut = dev as u32 as u64;
    vfs()
        .mknod(dir as i32, &user::path(path)?, mode as u32, cut)
        .map(|()| 0)
}

/// Makes a file, FIFO or device node.
pub fn mknod(path: u64, mode: u64, dev: u64) -> Result<u64> {
    mknodat(CWD, path, mode, dev)
}

/// Removes a name.
pub fn unlinkat(dir: u64, path: u64, flags: u64) -> Result<u64> {
    vfs()
        .unlink(dir as i32, &user::path(path)?, flags as u32)
        .map(|()| 0)
}

/// Removes a name of a file.
pub fn unlink(path: u64) -> Result<u64> {
    unlinkat(CWD, path, 0)
}

/// Removes an empty directory.
pub fn rmdir(path: u64) -> Result<u64> {
    unlinkat(CWD, path, REMOVE_DIR)
}

/// Moves a name, with flags.
pub fn renameat2(old_dir: u64, old: u64, new_dir: u64, new: u64, flags: u64) -> Result<u64> {
    let (old, new) = (user::path(old)?, user::path(new)?);
    vfs()
        .rename((old_dir as i32, &old), (new_dir as i32, &new), flags as u32)
        .map(|()| 0)
}

/// Moves a name.
pub fn renameat(old_dir: u64, old: u64, new_dir: u64, new: u64) -> Result<u64> {
    renameat2(old_dir, old, new_dir, new, 0)
}

/// Moves a name.
pub fn rename(old: u64, new: u64) -> Result<u64> {
    renameat2(CWD, old, CWD, new, 0)
}

/// Gives a file another name.
pub fn linkat(old_dir: u64, old: u64, new_dir: u64, new: u64, flags: u64) -> Result<u64> {
    let (old, new) = (user::path(old)?, user::path(new)?);
    vfs()
        .link((old_dir as i32, &old), (new_dir as i32, &new), flags as u32)
        .map(|()| 0)
}

/// Gives a file another name.
pub fn link(old: u64, new: u64) -> Result<u64> {
    linkat(CWD, old, CWD, new, 0)
}

/// Makes a symbolic link.
pub fn symlinkat(target: u64, dir: u64, path: u64) -> Result<u64> {
    let (target, path) = (user::path(target)?, user::path(path)?);
    vfs().symlink(&target, dir as i32, &path).map(|()| 0)
}

/// Makes a symbolic link.
pub fn symlink(target: u64, path: u64) -> Result<u64> {
    symlinkat(target, CWD, path)
}

/// The text of a symbolic link, cut to the buffer.
pub fn readlinkat(dir: u64, path: u64, buf: u64, size: u64) -> Result<u64> {
    if size as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let text = vfs().readlink(dir as i32, &user::path(path)?)?;
    let len = text.len().min(size as usize);
    user::slice_mut(buf, len as u64)?.copy_from_slice(&text[..len]);
    Ok(len as u64)
}

/// The text of a symbolic link.
pub fn readlink(path: u64, buf: u64, size: u64) -> Result<u64> {
    readlinkat(CWD, path, buf, size)
}

/// Lists a directory.
pub fn getdents64(fd: u64, buf: u64, count: u64) -> Result<u64> {
    let count = (count as u32 as u64).min(1 << 20);
    Ok(file(fd)?.read_directory(user::slice_mut(buf, count)?)? as u64)
}

/// Lists a directory in the old format: the kind stands in the last byte of a record, the name one byte earlier.
pub fn getdents(fd: u64, buf: u64, count: u64) -> Result<u64> {
    let used = getdents64(fd, buf, count)?;
    let records = user::slice_mut(buf, used)?;
    let mut at = 0;
    while at < records.len() {
        let len = u16::from_le_bytes([records[at + 16], records[at + 17]]) as usize;
        let kind = records[at + 18];
        records.copy_within(at + 19..at + len, at + 18);
        records[at + len - 1] = kind;
        at += len;
    }
    Ok(used)
}

/// The working directory's path.
pub fn getcwd(buf: u64, size: u64) -> Result<u64> {
    let mut path = vfs().getcwd()?;
    path.push(0);
    if path.len() as u64 > size {
        return Err(Errno::ERANGE);
    }
    user::slice_mut(buf, path.len() as u64)?.copy_from_slice(&path);
    Ok(path.len() as u64)
}

/// Changes the working directory.
pub fn chdir(path: u64) -> Result<u64> {
    vfs().chdir(&user::path(path)?).map(|()| 0)
}

/// Changes the working directory to an open one.
pub fn fchdir(fd: u64) -> Result<u64> {
    vfs().fchdir(fd as i32).map(|()| 0)
}

/// Changes the root directory.
pub fn chroot(path: u64) -> Result<u64> {
    vfs().chroot(&user::path(path)?).map(|()| 0)
}

/// Sets the mask of permission bits that new files do not get.
pub fn umask(mask: u64) -> Result<u64> {
    Ok(vfs().set_umask(mask as u32) as u64)
}

/// The tree of files is made at start.
pub fn mount(_source: u64, _target: u64, _kind: u64, _flags: u64, _data: u64) -> Result<u64> {
    Err(Errno::EPERM)
}

/// As [`mount`].
pub fn umount2(_target: u64, _flags: u64) -> Result<u64> {
    Err(Errno::EPERM)
}

/// There are no file handles.
pub fn name_to_handle_at(
    dir: u64,
    path: u64,
    _handle: u64,
    _mount: u64,
    flags: u64,
) -> Result<u64> {
    let path = user::path(path)?;
    let follow = if flags as u32 & linux::AT_SYMLINK_FOLLOW == 0 {
        linux::AT_SYMLINK_NOFOLLOW
    } else {
        0
    };
    vfs().find(
        dir as i32,
        &path,
        flags as u32 & linux::AT_EMPTY_PATH | follow,
    )?;
    Err(Errno::EOPNOTSUPP)
}
