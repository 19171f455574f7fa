//! Seals of anonymous memory files ([`Seals`], `memfd_create(2)` and `F_ADD_SEALS`).

use core::cell::Cell;

use linux_raw_sys::general as linux;

use crate::{Errno, Result};

const KNOWN: u32 = linux::F_SEAL_SEAL
    | linux::F_SEAL_SHRINK
    | linux::F_SEAL_GROW
    | linux::F_SEAL_WRITE
    | linux::F_SEAL_FUTURE_WRITE;

/// Seals of one file. A file that is not a memfd is sealed against sealing.
pub struct Seals(Cell<u32>);

impl Seals {
    /// Those of an ordinary tmpfs file.
    pub const fn none() -> Self {
        Self(Cell::new(linux::F_SEAL_SEAL))
    }

    /// Starts a memfd with these.
    pub fn allow(&self, seals: u32) {
        self.0.set(seals);
    }

    /// F_GET_SEALS.
    pub fn get(&self) -> Result<u32> {
        Ok(self.0.get())
    }

    /// F_ADD_SEALS.
    pub fn add(&self, seals: u32) -> Result<()> {
        if seals & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        if self.0.get() & linux::F_SEAL_SEAL != 0 {
            return Err(Errno::EPERM);
        }
        self.0.set(self.0.get() | seals);
        Ok(())
    }

    /// Whether `len` bytes may be written at `offset` of a file of `size()` bytes.
    pub fn check_write(&self, offset: u64, len: u64, size: impl FnOnce() -> u64) -> Result<()> {
        let seals = self.0.get();
        if seals & (linux::F_SEAL_WRITE | linux::F_SEAL_FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        if seals & linux::F_SEAL_GROW != 0 && offset.saturating_add(len) > size() {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// Whether the size may change.
    pub fn check_resize(&self, from: u64, to: u64) -> Result<()> {
        let seals = self.0.get();
        let shrinks = to < from && seals & linux::F_SEAL_SHRINK != 0;
        let grows = to > from && seals & linux::F_SEAL_GROW != 0;
        if shrinks || grows {
            Err(Errno::EPERM)
        } else {
            Ok(())
        }
    }
}
