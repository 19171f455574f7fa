//! The page budget of a tmpfs: [`Space`] takes pages from the kernel up to a limit.

use alloc::rc::Rc;
use core::cell::Cell;

use crate::system::{Frame, PageSource, System};
use crate::{Errno, Result};

/// Pages of one file system.
pub struct Space {
    system: Rc<dyn System>,
    limit: u64,
    used: Cell<u64>,
}

impl Space {
    /// At most `limit` pages.
    pub fn new(system: Rc<dyn System>, limit: u64) -> Self {
        Self {
            system,
            limit,
            used: Cell::new(0),
        }
    }

    /// The source that frames are read and written through.
    pub fn pages(&self) -> &dyn PageSource {
        &*self.system
    }

    /// The kernel.
    pub fn system(&self) -> &Rc<dyn System> {
        &self.system
    }

    /// Pages in all.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Pages left.
    pub fn free_pages(&self) -> u64 {
        self.limit - self.used.get()
    }

    /// A page; `ENOSPC` at the limit or when the machine's memory is exhausted.
    pub fn alloc(&self, zeroed: bool) -> Result<Frame> {
        if self.used.get() >= self.limit {
            return Err(Errno::ENOSPC);
        }
        let frame = self.system.alloc(zeroed).ok_or(Errno::ENOSPC)?;
        self.used.set(self.used.get() + 1);
        Ok(frame)
    }

    /// Gives a page back.
    pub fn free(&self, frame: Frame) {
        self.used.set(self.used.get() - 1);
        self.system.release(frame);
    }
}
