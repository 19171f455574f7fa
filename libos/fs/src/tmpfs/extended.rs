//! Extended attributes of tmpfs objects (`xattr(7)`), as Linux's tmpfs has them since 6.6: `user.`, `trusted.` and `security.`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::general::{XATTR_CREATE, XATTR_REPLACE};

use crate::{Errno, Result};

/// What one object counts for in [`Room`], bytes (`BOGO_INODE_SIZE` of mm/shmem.c).
const INODE: u64 = 1024;

/// What one attribute counts for, besides its name and its value, bytes.
const ENTRY: u64 = 64;

/// Bytes that all attributes of a file system take.
#[derive(Debug, Default)]
pub(super) struct Room(Cell<u64>);

type Bytes = Box<[u8]>;

/// The attributes of one object: names and values, in the order of the names.
#[derive(Debug, Default)]
pub(super) struct Extended(RefCell<Vec<(Bytes, Bytes)>>);

/// Where an attribute is, or where it would go.
fn find(all: &[(Bytes, Bytes)], name: &[u8]) -> core::result::Result<usize, usize> {
    all.binary_search_by(|(other, _)| (**other).cmp(name))
}

fn cost(name: &[u8], value: &[u8]) -> u64 {
    ENTRY + (name.len() + value.len()) as u64
}

/// The class that a name belongs to must be known, and something must follow it.
fn check(name: &[u8]) -> Result<()> {
    let classes: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    let class = classes.into_iter().find(|class| name.starts_with(class));
    match class.ok_or(Errno::EOPNOTSUPP)? {
        class if class.len() == name.len() => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

impl Extended {
    pub(super) fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        check(name)?;
        let all = self.0.borrow();
        let place = find(&all, name).map_err(|_| Errno::ENODATA)?;
        Ok(all[place].1.to_vec())
    }

    /// Sets one. `ENOSPC`: all attributes of the file system would count for more than the `free_inodes` objects it still has room for.
    pub(super) fn set(
        &self,
        name: &[u8],
        value: &[u8],
        flags: u32,
        room: &Room,
        free_inodes: u64,
    ) -> Result<()> {
        check(name)?;
        let mut all = self.0.borrow_mut();
        let place = find(&all, name);
        if flags & XATTR_CREATE != 0 && place.is_ok() {
            return Err(Errno::EEXIST);
        }
        if flags & XATTR_REPLACE != 0 && place.is_err() {
            return Err(Errno::ENODATA);
        }
        let old = place.map_or(0, |at| cost(name, &all[at].1));
        let taken = room.0.get() - old + cost(name, value);
        if taken > free_inodes.saturating_mul(INODE) {
            return Err(Errno::ENOSPC);
        }
        room.0.set(taken);
        match place {
            Ok(at) => all[at].1 = value.into(),
            Err(at) => all.insert(at, (name.into(), value.into())),
        }
        Ok(())
    }

    /// Names, each ended by NUL; those of `trusted.` only for who may read them.
    pub(super) fn list(&self, trusted: bool) -> Vec<u8> {
        let all = self.0.borrow();
        let names = all.iter().map(|(name, _)| name);
        let shown = names.filter(|name| trusted || !name.starts_with(b"trusted."));
        shown
            .flat_map(|name| name.iter().copied().chain([0]))
            .collect()
    }

    pub(super) fn remove(&self, name: &[u8], room: &Room) -> Result<()> {
        check(name)?;
        let mut all = self.0.borrow_mut();
        let place = find(&all, name).map_err(|_| Errno::ENODATA)?;
        room.0.set(room.0.get() - cost(name, &all.remove(place).1));
        Ok(())
    }

    /// Gives back what the attributes took.
    pub(super) fn end(&self, room: &Room) {
        let all = self.0.borrow();
        let taken: u64 = all.iter().map(|(name, value)| cost(name, value)).sum();
        room.0.set(room.0.get() - taken);
    }
}
