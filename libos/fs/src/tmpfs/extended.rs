//! Extended attributes of tmpfs objects (`xattr(7)`), as Linux's tmpfs has them since 6.6: `user.`, `trusted.` and `security.`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
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

/// The attributes of one object, by name.
#[derive(Debug, Default)]
pub(super) struct Extended(RefCell<BTreeMap<Bytes, Bytes>>);

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
        let value = self.0.borrow().get(name).map(|value| value.to_vec());
        value.ok_or(Errno::ENODATA)
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
        let old = all.get(name);
        if flags & XATTR_CREATE != 0 && old.is_some() {
            return Err(Errno::EEXIST);
        }
        if flags & XATTR_REPLACE != 0 && old.is_none() {
            return Err(Errno::ENODATA);
        }
        let taken = room.0.get() - old.map_or(0, |old| cost(name, old)) + cost(name, value);
        if taken > free_inodes.saturating_mul(INODE) {
            return Err(Errno::ENOSPC);
        }
        room.0.set(taken);
        all.insert(name.into(), value.into());
        Ok(())
    }

    /// Names, each ended by NUL; those of `trusted.` only for who may read them.
    pub(super) fn list(&self, trusted: bool) -> Vec<u8> {
        let all = self.0.borrow();
        let shown = all
            .keys()
            .filter(|name| trusted || !name.starts_with(b"trusted."));
        shown
            .flat_map(|name| name.iter().copied().chain([0]))
            .collect()
    }

    pub(super) fn remove(&self, name: &[u8], room: &Room) -> Result<()> {
        check(name)?;
        let old = self.0.borrow_mut().remove(name).ok_or(Errno::ENODATA)?;
        room.0.set(room.0.get() - cost(name, &old));
        Ok(())
    }

    /// Gives back what the attributes took.
    pub(super) fn end(&self, room: &Room) {
        let all = self.0.borrow();
        let taken: u64 = all.iter().map(|(name, value)| cost(name, value)).sum();
        room.0.set(room.0.get() - taken);
    }
}
