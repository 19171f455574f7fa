//! Event files: pipe(2), eventfd(2), timerfd_create(2), signalfd(2), inotify(7).

use super::time::{read_timespec, write_timespec};
use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::signal::UNBLOCKABLE;
use crate::vfs::events::{Clocks, Signals};
use crate::vfs::{fds, file, install, system, vfs};
use alloc::rc::Rc;
use linux_raw_sys::general as linux;
use unik_fs::FileType;
use unik_fs::cred;
use unik_fs::eventfd::EventFd;
use unik_fs::file::{FileLike, OpenFile};
use unik_fs::inotify::Inotify;
use unik_fs::signalfd::SignalFd;
use unik_fs::timerfd::{Setting, TimerFd};

/// Flags that all these calls share; the names of each call's own flags are the same bits.
const COMMON: u32 = linux::O_CLOEXEC | linux::O_NONBLOCK;

fn enter(object: Rc<dyn FileLike>, flags: u32) -> Result<u64> {
    install(
        OpenFile::new(object, linux::O_RDWR | flags & linux::O_NONBLOCK),
        flags,
    )
}

/// A pipe: its reading and its writing end.
pub fn pipe2(out: u64, flags: u64) -> Result<u64> {
    let flags = flags as u32;
    if flags & !(COMMON | linux::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    user::check(out, 8, crate::mm::space::Access::Write)?;
    let (read, write) = unik_fs::pipe::pipe(&system(), flags);
    let read = install(read, flags)?;
    let write = install(write, flags).inspect_err(|_| {
        let _ = fds().close(read as i32);
    })?;
    user::put(out, [read as u32, write as u32]).map(|()| 0)
}

/// A pipe.
pub fn pipe(out: u64) -> Result<u64> {
    pipe2(out, 0)
}

/// A counter.
pub fn eventfd2(count: u64, flags: u64) -> Result<u64> {
    let flags = flags as u32;
    if flags & !(COMMON | linux::EFD_SEMAPHORE) != 0 {
        return Err(Errno::EINVAL);
    }
    enter(
        EventFd::new(count as u32, flags & linux::EFD_SEMAPHORE != 0),
        flags,
    )
}

/// A counter.
pub fn eventfd(count: u64) -> Result<u64> {
    eventfd2(count, 0)
}

/// A timer.
pub fn timerfd_create(clock: u64, flags: u64) -> Result<u64> {
    let (clock, flags) = (clock as u32, flags as u32);
    let known = matches!(
        clock,
        linux::CLOCK_REALTIME
            | linux::CLOCK_MONOTONIC
            | linux::CLOCK_BOOTTIME
            | linux::CLOCK_REALTIME_ALARM
            | linux::CLOCK_BOOTTIME_ALARM
    );
    if !known || flags & !COMMON != 0 {
        return Err(Errno::EINVAL);
    }
    enter(TimerFd::new(clock, Rc::new(Clocks)), flags)
}

fn put_setting(out: u64, setting: Setting) -> Result<()> {
    write_timespec(out, setting.interval)?;
    write_timespec(out + 16, setting.value)
}

/// Arms a timer.
pub fn timerfd_settime(fd: u64, flags: u64, new: u64, old: u64) -> Result<u64> {
    /// TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET.
    const KNOWN: u64 = 3;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let setting = Setting {
        interval: read_timespec(new)?,
        value: read_timespec(new + 16)?,
    };
    let file = file(fd)?;
    let timer = file.downcast::<TimerFd>().ok_or(Errno::EINVAL)?;
    let previous = timer.set(setting, flags & 1 != 0);
    if old != 0 {
        put_setting(old, previous)?;
    }
    Ok(0)
}

/// Time left of a timer.
pub fn timerfd_gettime(fd: u64, out: u64) -> Result<u64> {
    let file = file(fd)?;
    put_setting(out, file.downcast::<TimerFd>().ok_or(Errno::EINVAL)?.get()).map(|()| 0)
}

/// A descriptor that reads signals, or new signals for one.
pub fn signalfd4(fd: u64, mask: u64, size: u64, flags: u64) -> Result<u64> {
    let flags = flags as u32;
    if size != 8 || flags & !COMMON != 0 {
        return Err(Errno::EINVAL);
    }
    let mask = user::get::<u64>(mask)? & !UNBLOCKABLE;
    if fd as i32 == -1 {
        return enter(SignalFd::new(mask, Signals::new()), flags);
    }
    file(fd)?
        .downcast::<SignalFd>()
        .ok_or(Errno::EINVAL)?
        .set_mask(mask);
    Ok(fd as u32 as u64)
}

/// As signalfd4.
pub fn signalfd(fd: u64, mask: u64, size: u64) -> Result<u64> {
    signalfd4(fd, mask, size, 0)
}

/// A queue of what happens to files.
pub fn inotify_init1(flags: u64) -> Result<u64> {
    let flags = flags as u32;
    if flags & !COMMON != 0 {
        return Err(Errno::EINVAL);
    }
    install(
        OpenFile::new(
            Inotify::new(&vfs().watchers),
            linux::O_RDONLY | flags & linux::O_NONBLOCK,
        ),
        flags,
    )
}

/// A queue of what happens to files.
pub fn inotify_init() -> Result<u64> {
    inotify_init1(0)
}

/// Watches a file or directory.
pub fn inotify_add_watch(fd: u64, path: u64, mask: u64) -> Result<u64> {
    let mask = mask as u32;
    let file = file(fd)?;
    let inotify = file.downcast::<Inotify>().ok_or(Errno::EINVAL)?;
    let (vfs, path) = (vfs(), user::path(path)?);
    let follow = match mask & linux::IN_DONT_FOLLOW {
        0 => 0,
        _ => linux::AT_SYMLINK_NOFOLLOW,
    };
    let node = vfs.find(linux::AT_FDCWD, &path, follow)?.into_node()?;
    vfs.permit(&*node, cred::READ)?;
    if mask & linux::IN_ONLYDIR != 0 && node.kind() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    inotify.add(&*node, mask).map(|number| number as u64)
}

/// Ends a watch.
pub fn inotify_rm_watch(fd: u64, number: u64) -> Result<u64> {
    let file = file(fd)?;
    let inotify = file.downcast::<Inotify>().ok_or(Errno::EINVAL)?;
    inotify.remove(number as i32).map(|()| 0)
}
