//! Descriptors: open(2), close(2), dup(2), lseek(2), fcntl(2), flock(2), ioctl(2), fsync(2), fallocate(2).

use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::sched::{Wake, wait};
use crate::vfs::{self, Memory, fds, file, install, usable, wait_for};
use alloc::rc::Rc;
use linux_raw_sys::{general as linux, ioctl as io};
use unik_fs::file::{OpenFile, Seek};
use unik_fs::inode::{Allocate, FileType};
use unik_fs::lock::{Owner, Range};
use unik_fs::pipe::PipeEnd;
use unik_fs::plain::Plain;
use unik_fs::vfs::{O_TMPFILE, OpenHow};
use unik_fs::wait::ready;

const CWD: u64 = linux::AT_FDCWD as u64;

fn open_how(dir: u64, path: u64, how: &OpenHow) -> Result<u64> {
    let path = user::path(path)?;
    fds().check_room()?;
    let file = vfs::vfs().open(dir as i32, &path, how)?;
    while file.object().open_pending() {
        wait_for(&file, ready::IN | ready::OUT, None)?;
    }
    install(file, how.flags)
}

/// Opens a file.
pub fn openat(dir: u64, path: u64, flags: u64, mode: u64) -> Result<u64> {
    open_how(
        dir,
        path,
        &OpenHow {
            flags: flags as u32,
            mode: mode as u32 & 0o7777,
            resolve: 0,
        },
    )
}

/// Opens a file from the working directory.
pub fn open(path: u64, flags: u64, mode: u64) -> Result<u64> {
    openat(CWD, path, flags, mode)
}

/// Makes or empties a file.
pub fn creat(path: u64, mode: u64) -> Result<u64> {
    openat(
        CWD,
        path,
        (linux::O_CREAT | linux::O_WRONLY | linux::O_TRUNC) as u64,
        mode,
    )
}

/// Flags that openat2 knows (openat ignores others).
const OPEN_FLAGS: u64 = (linux::O_ACCMODE
    | linux::O_CREAT
    | linux::O_EXCL
    | linux::O_NOCTTY
    | linux::O_TRUNC
    | linux::O_APPEND
    | linux::O_NONBLOCK
    | linux::O_SYNC
    | linux::O_DSYNC
    | linux::FASYNC
    | linux::O_DIRECT
    | linux::O_LARGEFILE
    | linux::O_DIRECTORY
    | linux::O_NOFOLLOW
    | linux::O_NOATIME
    | linux::O_CLOEXEC
    | linux::O_PATH
    | O_TMPFILE) as u64
    | 0o100_000;

/// Opens a file under rules.
pub fn openat2(dir: u64, path: u64, how: u64, size: u64) -> Result<u64> {
    const SIZE: u64 = 24;
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    if size > 4096
        || user::slice(how + SIZE, size - SIZE)?
            .iter()
            .any(|&byte| byte != 0)
    {
        return Err(Errno::E2BIG);
    }
    let [flags, mode, resolve]: [u64; 3] = user::get(how)?;
    let makes = flags as u32 & linux::O_CREAT != 0 || flags as u32 & O_TMPFILE == O_TMPFILE;
    if flags & !OPEN_FLAGS != 0
        || mode & !0o7777 != 0
        || (mode != 0 && !makes)
        || resolve > u32::MAX as u64
    {
        return Err(Errno::EINVAL);
    }
    open_how(
        dir,
        path,
        &OpenHow {
            flags: flags as u32,
            mode: mode as u32,
            resolve: resolve as u32,
        },
    )
}

/// Closes a descriptor.
pub fn close(fd: u64) -> Result<u64> {
    fds().close(fd as i32).map(|()| 0)
}

/// Flags of `linux/close_range.h`. There is one table of descriptors, so nothing needs unsharing.
const CLOSE_RANGE_UNSHARE: u32 = 1 << 1;
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

/// Closes, or marks close-on-exec, all descriptors of a range.
pub fn close_range(first: u64, last: u64, flags: u64) -> Result<u64> {
    let flags = flags as u32;
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    fds()
        .close_range(first as u32, last as u32, flags & CLOSE_RANGE_CLOEXEC != 0)
        .map(|()| 0)
}

/// Another descriptor of the same file.
pub fn dup(fd: u64) -> Result<u64> {
    fds().dup(fd as i32).map(|fd| fd as u64)
}

/// A chosen descriptor of the same file.
pub fn dup2(old: u64, new: u64) -> Result<u64> {
    fds()
        .dup_to(old as i32, new as i32, false)
        .map(|fd| fd as u64)
}

/// As dup2, with O_CLOEXEC; the two must differ.
pub fn dup3(old: u64, new: u64, flags: u64) -> Result<u64> {
    if flags as u32 & !linux::O_CLOEXEC != 0 || old as i32 == new as i32 {
        return Err(Errno::EINVAL);
    }
    fds()
        .dup_to(old as i32, new as i32, flags != 0)
        .map(|fd| fd as u64)
}

/// Moves the position.
pub fn lseek(fd: u64, offset: u64, whence: u64) -> Result<u64> {
    file(fd)?.seek(offset as i64, whence as u32)
}

/// Everything is in memory: nothing to write back.
pub fn fsync(fd: u64) -> Result<u64> {
    let file = usable(fd)?;
    if file.object().seek_kind() == Seek::No {
        Err(Errno::EINVAL)
    } else {
        Ok(0)
    }
}

/// As fsync.
pub fn fdatasync(fd: u64) -> Result<u64> {
    fsync(fd)
}

/// As fsync, for everything.
pub fn sync() -> Result<u64> {
    Ok(0)
}

/// As fsync, for a file system.
pub fn syncfs(fd: u64) -> Result<u64> {
    usable(fd).map(|_| 0)
}

/// As fsync, for a range.
pub fn sync_file_range(fd: u64, offset: u64, len: u64, flags: u64) -> Result<u64> {
    let file = usable(fd)?;
    let end = (offset as i64).checked_add(len as i64);
    if flags & !7 != 0 || (offset as i64) < 0 || end.is_none_or(|end| end < offset as i64) {
        return Err(Errno::EINVAL);
    }
    if file.object().seek_kind() == Seek::No {
        Err(Errno::ESPIPE)
    } else {
        Ok(0)
    }
}

/// A hint; files are in memory already.
pub fn fadvise64(fd: u64, _offset: u64, len: u64, advice: u64) -> Result<u64> {
    let file = usable(fd)?;
    if file.downcast::<PipeEnd>().is_some() {
        return Err(Errno::ESPIPE);
    }
    if advice > 5 || (len as i64) < 0 {
        Err(Errno::EINVAL)
    } else {
        Ok(0)
    }
}

/// A hint; files are in memory already.
pub fn readahead(fd: u64, _offset: u64, _count: u64) -> Result<u64> {
    let file = usable(fd)?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    if file
        .node()
        .is_some_and(|node| node.kind() == FileType::Regular)
    {
        Ok(0)
    } else {
        Err(Errno::EINVAL)
    }
}

/// Reserves or frees space in a file.
pub fn fallocate(fd: u64, mode: u64, offset: u64, len: u64) -> Result<u64> {
    let file = usable(fd)?;
    let (offset, len, mode) = (offset as i64, len as i64, mode as u32);
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    let how = match mode {
        0 => Allocate::Reserve { keep_size: false },
        linux::FALLOC_FL_KEEP_SIZE => Allocate::Reserve { keep_size: true },
        mode if mode == linux::FALLOC_FL_KEEP_SIZE | linux::FALLOC_FL_PUNCH_HOLE => {
            Allocate::PunchHole
        }
        _ => return Err(Errno::EOPNOTSUPP),
    };
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    let node = file
        .node()
        .filter(|node| node.kind() != FileType::Fifo)
        .ok_or(Errno::ESPIPE)?;
    match node.kind() {
        FileType::Regular => {}
        FileType::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::ENODEV),
    }
    if offset.checked_add(len).is_none() {
        return Err(Errno::EFBIG);
    }
    node.fallocate(how, offset as u64, len as u64)?;
    crate::vfs::vfs().watchers.tell(&node, linux::IN_MODIFY);
    Ok(0)
}

/// `struct flock`.
struct Flock {
    kind: u32,
    range: Range,
}

/// Reads `struct flock` (l_type, l_whence: i16; l_start, l_len: i64; l_pid: i32).
fn read_flock(address: u64, file: &OpenFile, owner: Owner) -> Result<Flock> {
    let [head, start, len, pid]: [i64; 4] = user::get(address)?;
    let (kind, whence) = (head as u16 as u32, (head >> 16) as u16 as u32);
    if owner != Owner::Process && pid as i32 != 0 {
        return Err(Errno::EINVAL);
    }
    let node = file.node().ok_or(Errno::EBADF)?;
    let base = match whence {
        linux::SEEK_SET => 0,
        linux::SEEK_CUR => file.position() as i64,
        linux::SEEK_END => node.size() as i64,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(start).ok_or(Errno::EOVERFLOW)?;
    let (first, last) = match len {
        0 => (start, i64::MAX),
        len if len > 0 => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        len => (start.checked_add(len).ok_or(Errno::EINVAL)?, start - 1),
    };
    if first < 0 {
        return Err(Errno::EINVAL);
    }
    let exclusive = kind == linux::F_WRLCK;
    Ok(Flock {
        kind,
        range: Range {
            start: first as u64,
            last: last as u64,
            exclusive,
            owner,
        },
    })
}

fn write_flock(address: u64, found: Option<Range>) -> Result<u64> {
    let Some(found) = found else {
        user::put(address, linux::F_UNLCK as u16 as u8)?;
        user::put(address + 1, 0u8)?;
        return Ok(0);
    };
    let kind = if found.exclusive {
        linux::F_WRLCK
    } else {
        linux::F_RDLCK
    };
    let len = if found.last == i64::MAX as u64 {
        0
    } else {
        (found.last - found.start + 1) as i64
    };
    let pid = if found.owner == Owner::Process {
        crate::process::PID as i64
    } else {
        u32::MAX as i64
    };
    user::put(address, [kind as i64, found.start as i64, len, pid]).map(|()| 0)
}

/// Sets or clears a byte range lock, waiting for others with `wait`.
fn set_lock(file: &Rc<OpenFile>, argument: u64, owner: Owner, wait: bool) -> Result<u64> {
    let Flock { kind, range } = read_flock(argument, file, owner)?;
    let (locks, node) = file.lockable()?;
    match kind {
        linux::F_UNLCK => {
            locks.unlock(&*node, &range);
            return Ok(0);
        }
        linux::F_RDLCK if !file.readable() => return Err(Errno::EBADF),
        linux::F_WRLCK if !file.writable() => return Err(Errno::EBADF),
        linux::F_RDLCK | linux::F_WRLCK => {}
        _ => return Err(Errno::EINVAL),
    }
    loop {
        match locks.lock(&*node, &range) {
            Err(Errno::EAGAIN) if wait => {
                match wait::on_queues(&[(locks.queue(), ready::OUT)], None) {
                    Wake::Signal => return Err(Errno::EINTR),
                    _ => continue,
                }
            }
            result => return result.map(|()| 0),
        }
    }
}

fn get_lock(file: &Rc<OpenFile>, argument: u64, owner: Owner) -> Result<u64> {
    let Flock { kind, range } = read_flock(argument, file, owner)?;
    if kind != linux::F_RDLCK && kind != linux::F_WRLCK {
        return Err(Errno::EINVAL);
    }
    let (locks, node) = file.lockable()?;
    write_flock(argument, locks.conflict(&*node, &range))
}

/// F_DUPFD and F_DUPFD_CLOEXEC.
fn dup_from(fd: u64, from: u64, close_on_exec: bool) -> Result<u64> {
    let file = file(fd)?;
    let from = Some(from as i32)
        .filter(|&from| from >= 0 && (from as u32) < fds().limit())
        .ok_or(Errno::EINVAL)?;
    fds()
        .insert_from(from, file, close_on_exec)
        .map(|fd| fd as u64)
}

/// Operations on a descriptor.
pub fn fcntl(fd: u64, command: u64, argument: u64) -> Result<u64> {
    let command = command as u32;
    match command {
        linux::F_DUPFD => return dup_from(fd, argument, false),
        linux::F_DUPFD_CLOEXEC => return dup_from(fd, argument, true),
        linux::F_GETFD => return fds().close_on_exec(fd as i32).map(|on| on as u64),
        linux::F_SETFD => {
            return fds()
                .set_close_on_exec(fd as i32, argument & 1 != 0)
                .map(|()| 0);
        }
        linux::F_GETFL => return file(fd).map(|file| file.flags() as u64),
        _ => {}
    }
    let file = usable(fd)?;
    match command {
        linux::F_SETFL => {
            file.set_flags(argument as u32);
            Ok(0)
        }
        linux::F_GETLK => get_lock(&file, argument, Owner::Process),
        linux::F_SETLK => set_lock(&file, argument, Owner::Process, false),
        linux::F_SETLKW => set_lock(&file, argument, Owner::Process, true),
        linux::F_OFD_GETLK => get_lock(&file, argument, file.lock_owner()),
        linux::F_OFD_SETLK => set_lock(&file, argument, file.lock_owner(), false),
        linux::F_OFD_SETLKW => set_lock(&file, argument, file.lock_owner(), true),
        linux::F_GETOWN => Ok(file.owner.get() as i64 as u64),
        linux::F_SETOWN => {
            file.owner.set(argument as i32);
            Ok(0)
        }
        linux::F_GETSIG => Ok(file.signal.get() as u64),
        linux::F_SETSIG if argument <= 64 => {
            file.signal.set(argument as i32);
            Ok(0)
        }
        linux::F_GETPIPE_SZ => file
            .downcast::<PipeEnd>()
            .map(|end| end.capacity() as u64)
            .ok_or(Errno::EBADF),
        linux::F_SETPIPE_SZ => file
            .downcast::<PipeEnd>()
            .ok_or(Errno::EBADF)?
            .set_capacity(argument as u32 as usize)
            .map(|size| size as u64),
        linux::F_GET_SEALS => file
            .node()
            .ok_or(Errno::EINVAL)?
            .seals()
            .map(|seals| seals as u64),
        linux::F_ADD_SEALS if !file.writable() => Err(Errno::EPERM),
        linux::F_ADD_SEALS => file
            .node()
            .ok_or(Errno::EINVAL)?
            .add_seals(argument as u32)
            .map(|()| 0),
        linux::F_GETLEASE => Ok(linux::F_UNLCK as u64),
        _ => Err(Errno::EINVAL),
    }
}

/// Locks a whole file.
pub fn flock(fd: u64, operation: u64) -> Result<u64> {
    let file = usable(fd)?;
    let operation = operation as u32;
    let (locks, node) = file.lockable()?;
    let exclusive = match operation & !linux::LOCK_NB {
        linux::LOCK_SH => false,
        linux::LOCK_EX => true,
        linux::LOCK_UN => {
            locks.unlock_whole(&*node, file.lock_owner());
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    };
    loop {
        match locks.flock(&*node, file.lock_owner(), exclusive) {
            Err(Errno::EAGAIN) if operation & linux::LOCK_NB == 0 => {
                if wait::on_queues(&[(locks.queue(), ready::OUT)], None) == Wake::Signal {
                    return Err(Errno::EINTR);
                }
            }
            result => return result.map(|()| 0),
        }
    }
}

/// Device control. The commands that every file knows are answered here.
pub fn ioctl(fd: u64, request: u64, argument: u64) -> Result<u64> {
    let file = usable(fd)?;
    match request as u32 {
        io::FIOCLEX => fds().set_close_on_exec(fd as i32, true).map(|()| 0),
        io::FIONCLEX => fds().set_close_on_exec(fd as i32, false).map(|()| 0),
        io::FIONBIO => {
            let on = user::get::<i32>(argument)? != 0;
            let flags = file.flags() & !linux::O_NONBLOCK | if on { linux::O_NONBLOCK } else { 0 };
            file.set_flags(flags);
            Ok(0)
        }
        io::FIOASYNC => user::get::<i32>(argument).map(|_| 0),
        io::FICLONE | io::FICLONERANGE if file.downcast::<Plain>().is_some() => {
            Err(Errno::EOPNOTSUPP)
        }
        request => file.object().ioctl(request, argument, &Memory),
    }
}

/// A file in memory without a name.
pub fn memfd_create(name: u64, flags: u64) -> Result<u64> {
    let flags = flags as u32;
    let known =
        linux::MFD_CLOEXEC | linux::MFD_ALLOW_SEALING | linux::MFD_NOEXEC_SEAL | linux::MFD_EXEC;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let name = user::string(name, 249).map_err(|error| {
        if error == Errno::ENAMETOOLONG {
            Errno::EINVAL
        } else {
            error
        }
    })?;
    fds().check_room()?;
    let sealable = flags & (linux::MFD_ALLOW_SEALING | linux::MFD_NOEXEC_SEAL) != 0;
    let file = vfs::vfs().memfd(&name, sealable)?;
    install(
        file,
        if flags & linux::MFD_CLOEXEC != 0 {
            linux::O_CLOEXEC
        } else {
            0
        },
    )
}
