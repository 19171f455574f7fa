//! Open files: the [`FileLike`] trait (what a descriptor can refer to) and [`OpenFile`], the open file description with its
//! position and status flags that duplicated descriptors share.
//!
//! Sockets and everything else that wants a descriptor implement [`FileLike`]. Nothing here waits: a read that finds nothing
//! answers `EAGAIN` whatever `O_NONBLOCK` says; the kernel looks at [`OpenFile::nonblocking`] and waits on [`FileLike::wait_queue`].

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::Cell;

use linux_raw_sys::general as linux;

use crate::inode::{Extent, FileType, Metadata, Node};
use crate::inotify::Watchers;
use crate::lock::{LockTable, Owner};
use crate::system::UserMemory;
use crate::wait::{WaitQueue, ready};
use crate::{Errno, Result, dirent};

/// How `lseek` treats an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// `ESPIPE`, for `pread` too.
    No,
    /// Accepts everything and stays at 0 (`/dev/null`).
    Ignored,
    /// A real position.
    Bytes,
}

/// What a descriptor refers to.
pub trait FileLike: Any {
    /// `fstat`.
    fn metadata(&self) -> Metadata;
    /// What `/proc/self/fd/N` shows when the object has no path, for instance `pipe:[7]`.
    fn label(&self) -> Vec<u8>;
    /// For downcasts (epoll, sockets, ...).
    fn as_any(&self) -> &dyn Any;
    /// The inode behind it; `None` for sockets and other objects without one.
    fn node(&self) -> Option<Node> {
        None
    }
    /// `fchmod` of an object without an inode of its own: the permission bits (`0o7777`) that [`Self::metadata`] shows from now on.
    fn set_mode(&self, _mode: u32) {}
    /// How `lseek` behaves.
    fn seek_kind(&self) -> Seek {
        Seek::No
    }
    /// Reads; streams ignore `at`. `EAGAIN`: nothing there yet.
    fn read(&self, _at: u64, _out: &mut [u8]) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Writes; streams ignore `at`. May take less than offered. `EAGAIN`: no room yet.
    fn write(&self, _at: u64, _data: &[u8]) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Readiness now ([`ready`] bits).
    fn poll(&self) -> u32 {
        ready::IN | ready::OUT | ready::RDNORM | ready::WRNORM
    }
    /// As [`Self::poll`], for a caller that only wants to know of `events`: bits outside may be missing where finding them out is dear.
    fn poll_for(&self, _events: u32) -> u32 {
        self.poll()
    }
    /// Told when [`Self::poll`] may answer otherwise. `None`: always ready, and epoll refuses it.
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }
    /// Device control; `ENOTTY` for an unknown command.
    fn ioctl(&self, _command: u32, _argument: u64, _memory: &dyn UserMemory) -> Result<u64> {
        Err(Errno::ENOTTY)
    }
    /// Opens the same object anew, through `/proc/self/fd/N`.
    fn reopen(&self, _flags: u32) -> Result<Rc<dyn FileLike>> {
        Err(Errno::ENXIO)
    }
    /// True while an `open` that may block has to wait (a FIFO without its other side).
    fn open_pending(&self) -> bool {
        false
    }
    /// `O_NONBLOCK` and the like changed.
    fn flags_changed(&self, _flags: u32) {}
}

/// An open file description.
pub struct OpenFile {
    object: Rc<dyn FileLike>,
    flags: Cell<u32>,
    position: Cell<u64>,
    /// F_SETOWN.
    pub owner: Cell<i32>,
    /// F_SETSIG.
    pub signal: Cell<i32>,
    /// Who cares about files with an inode: their locks, and who watches them.
    shared: Option<(Rc<LockTable>, Rc<Watchers>)>,
}

/// Flags that F_SETFL may change.
pub const SETFL_MASK: u32 =
    linux::O_APPEND | linux::O_NONBLOCK | linux::O_DIRECT | linux::O_NOATIME | linux::FASYNC;

/// Flags that only matter while opening; F_GETFL does not show them.
const OPENING_FLAGS: u32 =
    linux::O_CREAT | linux::O_EXCL | linux::O_NOCTTY | linux::O_TRUNC | linux::O_CLOEXEC;

impl OpenFile {
    /// A description of `object` with the `O_*` in `flags`.
    pub fn new(object: Rc<dyn FileLike>, flags: u32) -> Rc<Self> {
        Self::make(object, flags, None)
    }

    /// As [`Self::new`], for objects that can be locked and watched: the locks end with the description.
    pub fn of_inode(
        object: Rc<dyn FileLike>,
        flags: u32,
        locks: &Rc<LockTable>,
        watchers: &Rc<Watchers>,
    ) -> Rc<Self> {
        let file = Self::make(object, flags, Some((locks.clone(), watchers.clone())));
        file.tell(linux::IN_OPEN);
        file
    }

    fn make(
        object: Rc<dyn FileLike>,
        flags: u32,
        shared: Option<(Rc<LockTable>, Rc<Watchers>)>,
    ) -> Rc<Self> {
        let flags = Cell::new(flags & !OPENING_FLAGS);
        Rc::new(Self {
            object,
            flags,
            position: Cell::new(0),
            owner: Cell::new(0),
            signal: Cell::new(0),
            shared,
        })
    }

    /// Tells those who watch the file what was done to it.
    fn tell(&self, what: u32) {
        if let Some((_, watchers)) = &self.shared
            && watchers.any()
            && !self.path_only()
            && let Some(node) = self.object.node()
        {
            watchers.tell(&node, what);
        }
    }

    fn read_object(&self, at: u64, out: &mut [u8]) -> Result<usize> {
        let done = self.object.read(at, out)?;
        if done > 0 {
            self.tell(linux::IN_ACCESS);
        }
        Ok(done)
    }

    fn write_object(&self, at: u64, data: &[u8]) -> Result<usize> {
        let done = self.object.write(at, data)?;
        if done > 0 {
            self.tell(linux::IN_MODIFY);
        }
        Ok(done)
    }

    /// The object.
    pub fn object(&self) -> &Rc<dyn FileLike> {
        &self.object
    }

    /// The object as `T`.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        self.object.as_any().downcast_ref()
    }

    /// Its inode.
    pub fn node(&self) -> Option<Node> {
        self.object.node()
    }

    /// Status flags and access mode, as F_GETFL shows them.
    pub fn flags(&self) -> u32 {
        self.flags.get()
    }

    /// F_SETFL: takes the changeable flags from `flags`.
    pub fn set_flags(&self, flags: u32) {
        self.flags
            .set(self.flags.get() & !SETFL_MASK | flags & SETFL_MASK);
        self.object.flags_changed(self.flags.get());
    }

    /// `O_NONBLOCK` is set.
    pub fn nonblocking(&self) -> bool {
        self.flags.get() & linux::O_NONBLOCK != 0
    }

    /// Opened with `O_PATH`: names an object, and nothing else.
    pub fn path_only(&self) -> bool {
        self.flags.get() & linux::O_PATH != 0
    }

    /// Open for reading.
    pub fn readable(&self) -> bool {
        !self.path_only() && self.flags.get() & linux::O_ACCMODE != linux::O_WRONLY
    }

    /// Open for writing.
    pub fn writable(&self) -> bool {
        !self.path_only()
            && matches!(
                self.flags.get() & linux::O_ACCMODE,
                linux::O_WRONLY | linux::O_RDWR
            )
    }

    /// `fstat`.
    pub fn metadata(&self) -> Metadata {
        self.object.metadata()
    }

    /// Current position.
    pub fn position(&self) -> u64 {
        self.position.get()
    }

    fn check_read(&self) -> Result<()> {
        if self.readable() {
            Ok(())
        } else {
            Err(Errno::EBADF)
        }
    }

    fn check_write(&self) -> Result<()> {
        if self.writable() {
            Ok(())
        } else {
            Err(Errno::EBADF)
        }
    }

    /// `read`: at the position, which moves.
    pub fn read(&self, out: &mut [u8]) -> Result<usize> {
        self.check_read()?;
        if self.object.seek_kind() != Seek::Bytes {
            return self.read_object(0, out);
        }
        let at = self.position.get();
        let done = self.read_object(at, out)?;
        self.position.set(at + done as u64);
        Ok(done)
    }

    /// `write`: at the position (at the end with `O_APPEND`), which moves.
    pub fn write(&self, data: &[u8]) -> Result<usize> {
        self.check_write()?;
        if self.object.seek_kind() != Seek::Bytes {
            return self.write_object(0, data);
        }
        let at = self.write_position(self.position.get());
        let done = self.write_object(at, data)?;
        self.position.set(at + done as u64);
        Ok(done)
    }

    /// `O_APPEND` wins over any position, `pwrite`'s too (as Linux has it).
    fn write_position(&self, at: u64) -> u64 {
        if self.flags.get() & linux::O_APPEND == 0 {
            return at;
        }
        self.node().map_or(at, |node| node.size())
    }

    /// `pread`.
    pub fn read_at(&self, offset: i64, out: &mut [u8]) -> Result<usize> {
        let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        self.check_positional()?;
        self.check_read()?;
        self.read_object(offset, out)
    }

    /// `pwrite`.
    pub fn write_at(&self, offset: i64, data: &[u8]) -> Result<usize> {
        let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        self.check_positional()?;
        self.check_write()?;
        self.write_object(self.write_position(offset), data)
    }

    fn check_positional(&self) -> Result<()> {
        match self.object.seek_kind() {
            _ if self.path_only() => Err(Errno::EBADF),
            Seek::No => Err(Errno::ESPIPE),
            _ => Ok(()),
        }
    }

    /// `readv`: one read after the other, ending at the first that is short.
    pub fn read_vectored(&self, parts: &mut [&mut [u8]]) -> Result<usize> {
        self.check_read()?;
        let mut parts = parts.iter_mut();
        each(|| parts.next().map(|part| (part.len(), self.read(part))))
    }

    /// `writev`.
    pub fn write_vectored(&self, parts: &[&[u8]]) -> Result<usize> {
        self.check_write()?;
        let mut parts = parts.iter();
        each(|| parts.next().map(|part| (part.len(), self.write(part))))
    }

    /// `preadv`.
    pub fn read_vectored_at(&self, offset: i64, parts: &mut [&mut [u8]]) -> Result<usize> {
        let mut at = offset;
        let mut parts = parts.iter_mut();
        each(|| {
            let part = parts.next()?;
            let result = self.read_at(at, part);
            at = at.saturating_add_unsigned(part.len() as u64);
            Some((part.len(), result))
        })
    }

    /// `pwritev`.
    pub fn write_vectored_at(&self, offset: i64, parts: &[&[u8]]) -> Result<usize> {
        let mut at = offset;
        let mut parts = parts.iter();
        each(|| {
            let part = parts.next()?;
            let result = self.write_at(at, part);
            at = at.saturating_add_unsigned(part.len() as u64);
            Some((part.len(), result))
        })
    }

    /// `lseek`.
    pub fn seek(&self, offset: i64, whence: u32) -> Result<u64> {
        if self.path_only() {
            return Err(Errno::EBADF);
        }
        match self.object.seek_kind() {
            Seek::No => return Err(Errno::ESPIPE),
            Seek::Ignored => return Ok(0),
            Seek::Bytes => {}
        }
        let position = self.target(offset, whence)?;
        self.position.set(position);
        Ok(position)
    }

    fn target(&self, offset: i64, whence: u32) -> Result<u64> {
        let node = self.node().ok_or(Errno::ESPIPE)?;
        let directory = node.kind() == FileType::Directory;
        let base = match whence {
            linux::SEEK_SET => 0,
            linux::SEEK_CUR => self.position.get(),
            linux::SEEK_END if directory => return Err(Errno::EINVAL),
            linux::SEEK_END => node.size(),
            linux::SEEK_DATA | linux::SEEK_HOLE if !directory => {
                let what = if whence == linux::SEEK_DATA {
                    Extent::Data
                } else {
                    Extent::Hole
                };
                return node.seek(what, u64::try_from(offset).map_err(|_| Errno::ENXIO)?);
            }
            _ => return Err(Errno::EINVAL),
        };
        let position = base
            .checked_add_signed(offset)
            .filter(|&position| i64::try_from(position).is_ok());
        position.ok_or(Errno::EINVAL)
    }

    /// `getdents64`: fills `out` with whole records and moves the position. 0 at the end, `EINVAL` when not even one record fits.
    pub fn read_directory(&self, out: &mut [u8]) -> Result<usize> {
        if self.path_only() {
            return Err(Errno::EBADF);
        }
        let node = self
            .node()
            .filter(|node| node.kind() == FileType::Directory)
            .ok_or(Errno::ENOTDIR)?;
        let (used, position) = dirent::list(&node, self.position.get(), out)?;
        self.position.set(position);
        self.tell(linux::IN_ACCESS);
        Ok(used)
    }

    /// Identity for locks.
    pub fn lock_owner(&self) -> Owner {
        Owner::Description(core::ptr::from_ref(self) as usize)
    }

    /// The table its locks stand in, and the file they are for.
    pub fn lockable(&self) -> Result<(&Rc<LockTable>, Node)> {
        match (&self.shared, self.node()) {
            (Some((locks, _)), Some(node)) if !self.path_only() => Ok((locks, node)),
            _ => Err(Errno::EBADF),
        }
    }
}

/// Adds up partial transfers until one is short or fails; a failure counts only when nothing was done before.
fn each(mut next: impl FnMut() -> Option<(usize, Result<usize>)>) -> Result<usize> {
    let mut total = 0;
    while let Some((wanted, result)) = next() {
        match result {
            Ok(done) => {
                total += done;
                if done < wanted {
                    break;
                }
            }
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.tell(match self.writable() {
            true => linux::IN_CLOSE_WRITE,
            false => linux::IN_CLOSE_NOWRITE,
        });
        if let (Some((locks, _)), Some(node)) = (&self.shared, self.object.node()) {
            locks.release_all(&*node, self.lock_owner());
        }
    }
}
