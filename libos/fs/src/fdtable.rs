//! The descriptor table: [`FdTable`].

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use crate::file::OpenFile;
use crate::lock::Owner;
use crate::{Errno, Result};

/// Linux's `fs.nr_open`: no descriptor is ever larger.
pub const MAX_FDS: u32 = 1 << 20;

#[derive(Clone)]
struct Slot {
    file: Rc<OpenFile>,
    close_on_exec: bool,
}

/// Descriptors of the process.
pub struct FdTable {
    slots: RefCell<Vec<Option<Slot>>>,
    /// No free descriptor is below this one.
    lowest: Cell<usize>,
    limit: Cell<u32>,
}

impl FdTable {
    /// An empty table under RLIMIT_NOFILE `limit`.
    pub fn new(limit: u32) -> Self {
        Self {
            slots: RefCell::default(),
            lowest: Cell::new(0),
            limit: Cell::new(limit.min(MAX_FDS)),
        }
    }

    /// RLIMIT_NOFILE (soft).
    pub fn limit(&self) -> u32 {
        self.limit.get()
    }

    /// Changes it; open descriptors above it stay.
    pub fn set_limit(&self, limit: u32) {
        self.limit.set(limit.min(MAX_FDS));
    }

    /// The file of `fd`; `EBADF` when it is not open.
    pub fn get(&self, fd: i32) -> Result<Rc<OpenFile>> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let slots = self.slots.borrow();
        let slot = slots
            .get(index)
            .and_then(Option::as_ref)
            .ok_or(Errno::EBADF)?;
        Ok(slot.file.clone())
    }

    /// Enters `file` at the lowest free descriptor; `EMFILE` at the limit.
    pub fn insert(&self, file: Rc<OpenFile>, close_on_exec: bool) -> Result<i32> {
        self.insert_from(0, file, close_on_exec)
    }

    /// Checks that [`Self::insert`] would find room, before work that cannot be undone.
    pub fn check_room(&self) -> Result<()> {
        self.free_from(0).map(drop)
    }

    /// F_DUPFD: the lowest free descriptor not below `from`.
    pub fn insert_from(&self, from: i32, file: Rc<OpenFile>, close_on_exec: bool) -> Result<i32> {
        let from = usize::try_from(from).map_err(|_| Errno::EINVAL)?;
        let index = self.free_from(from)?;
        self.put(
            index,
            Slot {
                file,
                close_on_exec,
            },
        );
        Ok(index as i32)
    }

    fn free_from(&self, from: usize) -> Result<usize> {
        let limit = self.limit.get() as usize;
        let slots = self.slots.borrow();
        let start = from.max(self.lowest.get());
        let free = slots
            .iter()
            .skip(start)
            .position(Option::is_none)
            .map_or(slots.len().max(start), |n| start + n);
        if free < limit {
            Ok(free)
        } else {
            Err(Errno::EMFILE)
        }
    }

    fn put(&self, index: usize, slot: Slot) -> Option<Slot> {
        let mut slots = self.slots.borrow_mut();
        if slots.len() <= index {
            slots.resize(index + 1, None);
        }
        if index == self.lowest.get() {
            self.lowest.set(index + 1);
        }
        slots[index].replace(slot)
    }

    fn take(&self, index: usize) -> Option<Slot> {
        let slot = self.slots.borrow_mut().get_mut(index)?.take()?;
        self.lowest.set(self.lowest.get().min(index));
        Some(slot)
    }

    /// `close`.
    pub fn close(&self, fd: i32) -> Result<()> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let slot = self.take(index).ok_or(Errno::EBADF)?;
        release(&slot.file);
        Ok(())
    }

    /// `dup`.
    pub fn dup(&self, fd: i32) -> Result<i32> {
        self.insert(self.get(fd)?, false)
    }

    /// `dup2` and `dup3`: `new` becomes another name of `old`, closing what it was.
    pub fn dup_to(&self, old: i32, new: i32, close_on_exec: bool) -> Result<i32> {
        let file = self.get(old)?;
        let index = usize::try_from(new)
            .ok()
            .filter(|&index| index < self.limit.get() as usize)
            .ok_or(Errno::EBADF)?;
        if old == new {
            return Ok(new);
        }
        if let Some(closed) = self.put(
            index,
            Slot {
                file,
                close_on_exec,
            },
        ) {
            release(&closed.file);
        }
        Ok(new)
    }

    /// FD_CLOEXEC.
    pub fn close_on_exec(&self, fd: i32) -> Result<bool> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let slots = self.slots.borrow();
        slots
            .get(index)
            .and_then(Option::as_ref)
            .map(|slot| slot.close_on_exec)
            .ok_or(Errno::EBADF)
    }

    /// F_SETFD.
    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<()> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.borrow_mut();
        slots
            .get_mut(index)
            .and_then(Option::as_mut)
            .ok_or(Errno::EBADF)?
            .close_on_exec = on;
        Ok(())
    }

    /// `close_range`; with `only_mark` sets FD_CLOEXEC instead.
    pub fn close_range(&self, first: u32, last: u32, only_mark: bool) -> Result<()> {
        if first > last {
            return Err(Errno::EINVAL);
        }
        for fd in self
            .open_fds()
            .into_iter()
            .filter(|&fd| (first..=last).contains(&(fd as u32)))
        {
            if only_mark {
                self.set_close_on_exec(fd, true)?;
            } else {
                self.close(fd)?;
            }
        }
        Ok(())
    }

    /// All open descriptors, ascending.
    pub fn open_fds(&self) -> Vec<i32> {
        let slots = self.slots.borrow();
        (0..)
            .zip(slots.iter())
            .filter(|(_, slot)| slot.is_some())
            .map(|(fd, _)| fd)
            .collect()
    }
}

/// Closing any descriptor of a file drops the process's POSIX locks on it (fcntl(2)).
fn release(file: &Rc<OpenFile>) {
    if let Ok((locks, node)) = file.lockable() {
        locks.release_all(&*node, Owner::Process);
    }
}
