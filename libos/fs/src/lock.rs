//! File locks: `flock(2)` and byte ranges of `fcntl(2)` ([`LockTable`]).
//!
//! There is one process, so POSIX (process-owned) locks conflict only with those of open file descriptions (F_OFD_*), never with each other.
//! A lock that cannot be had now answers `EAGAIN`; who wants to wait does so on [`LockTable::queue`].

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::inode::Inode;
use crate::wait::{WaitQueue, ready};
use crate::{Errno, Result};

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The process (classic POSIX locks).
    Process,
    /// An open file description.
    Description(usize),
}

/// A byte range lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Last byte (`i64::MAX`: to the end, however far).
    pub last: u64,
    /// Exclusive (F_WRLCK) or shared (F_RDLCK).
    pub exclusive: bool,
    /// Holder.
    pub owner: Owner,
}

#[derive(Default)]
struct FileLocks {
    ranges: Vec<Range>,
    whole: Vec<(Owner, bool)>,
}

impl FileLocks {
    fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.whole.is_empty()
    }
}

/// All locks, by (device, inode).
#[derive(Default)]
pub struct LockTable {
    files: RefCell<BTreeMap<(u64, u64), FileLocks>>,
    queue: WaitQueue,
}

fn key(node: &dyn Inode) -> (u64, u64) {
    (node.dev(), node.ino())
}

impl LockTable {
    /// Woken whenever a lock goes.
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// `flock` with LOCK_SH or LOCK_EX. Converting gives the old lock up first, as Linux does.
    pub fn flock(&self, node: &dyn Inode, owner: Owner, exclusive: bool) -> Result<()> {
        let mut files = self.files.borrow_mut();
        let locks = files.entry(key(node)).or_default();
        if locks.whole.contains(&(owner, exclusive)) {
            return Ok(());
        }
        let held = locks.whole.len();
        locks.whole.retain(|lock| lock.0 != owner);
        let gave_up = locks.whole.len() < held;
        let conflict = locks.whole.iter().any(|lock| lock.1 || exclusive);
        if !conflict {
            locks.whole.push((owner, exclusive));
        }
        drop(files);
        if gave_up {
            self.queue.wake(ready::OUT);
        }
        if conflict { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// LOCK_UN.
    pub fn unlock_whole(&self, node: &dyn Inode, owner: Owner) {
        self.change(node, |locks| locks.whole.retain(|lock| lock.0 != owner));
    }

    /// F_GETLK: the first lock that stands in the way of `wanted`.
    pub fn conflict(&self, node: &dyn Inode, wanted: &Range) -> Option<Range> {
        let files = self.files.borrow();
        files
            .get(&key(node))?
            .ranges
            .iter()
            .find(|held| conflicts(held, wanted))
            .copied()
    }

    /// F_SETLK: replaces what the owner holds in the range.
    pub fn lock(&self, node: &dyn Inode, wanted: &Range) -> Result<()> {
        if self.conflict(node, wanted).is_some() {
            return Err(Errno::EAGAIN);
        }
        self.change(node, |locks| {
            cut(&mut locks.ranges, wanted);
            locks.ranges.push(*wanted);
            merge(&mut locks.ranges);
        });
        Ok(())
    }

    /// F_UNLCK of the range (`exclusive` does not matter).
    pub fn unlock(&self, node: &dyn Inode, range: &Range) {
        self.change(node, |locks| cut(&mut locks.ranges, range));
    }

    /// Drops everything `owner` holds on the file: an open file description ends, or (POSIX locks) any descriptor of the file is closed.
    pub fn release_all(&self, node: &dyn Inode, owner: Owner) {
        if self.files.borrow().is_empty() {
            return;
        }
        self.change(node, |locks| {
            locks.ranges.retain(|range| range.owner != owner);
            locks.whole.retain(|lock| lock.0 != owner);
        });
    }

    fn change(&self, node: &dyn Inode, apply: impl FnOnce(&mut FileLocks)) {
        let mut files = self.files.borrow_mut();
        let locks = files.entry(key(node)).or_default();
        apply(locks);
        if locks.is_empty() {
            files.remove(&key(node));
        }
        drop(files);
        self.queue.wake(ready::OUT);
    }
}

fn conflicts(held: &Range, wanted: &Range) -> bool {
    held.owner != wanted.owner
        && held.start <= wanted.last
        && wanted.start <= held.last
        && (held.exclusive || wanted.exclusive)
}

/// Takes `range` out of what its owner holds, splitting where needed.
fn cut(ranges: &mut Vec<Range>, range: &Range) {
    let mut kept = Vec::with_capacity(ranges.len() + 1);
    for held in ranges.drain(..) {
        if held.owner != range.owner || held.start > range.last || range.start > held.last {
            kept.push(held);
            continue;
        }
        if held.start < range.start {
            kept.push(Range {
                last: range.start - 1,
                ..held
            });
        }
        if held.last > range.last {
            kept.push(Range {
                start: range.last + 1,
                ..held
            });
        }
    }
    *ranges = kept;
}

/// Joins neighbouring ranges of one owner and kind.
fn merge(ranges: &mut Vec<Range>) {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges.drain(..) {
        let neighbour = merged.iter_mut().find(|held| {
            held.owner == range.owner
                && held.exclusive == range.exclusive
                && held.last.saturating_add(1) >= range.start
        });
        match neighbour {
            Some(held) => held.last = held.last.max(range.last),
            None => merged.push(range),
        }
    }
    *ranges = merged;
}
