//! `eventfd(2)`: [`EventFd`], a counter that reads take from and writes add to.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::Cell;

use crate::file::FileLike;
use crate::inode::Metadata;
use crate::wait::{WaitQueue, ready};
use crate::{Errno, Result, anon};

/// The counter.
pub struct EventFd {
    count: Cell<u64>,
    semaphore: bool,
    queue: WaitQueue,
}

impl EventFd {
    /// A counter at `initial`; with `semaphore` a read takes one instead of all (EFD_SEMAPHORE).
    pub fn new(initial: u32, semaphore: bool) -> Rc<Self> {
        Rc::new(Self {
            count: Cell::new(u64::from(initial)),
            semaphore,
            queue: WaitQueue::new(),
        })
    }
}

impl FileLike for EventFd {
    fn metadata(&self) -> Metadata {
        anon::event_metadata()
    }

    fn label(&self) -> Vec<u8> {
        b"anon_inode:[eventfd]".to_vec()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _at: u64, out: &mut [u8]) -> Result<usize> {
        let out = out.get_mut(..8).ok_or(Errno::EINVAL)?;
        let count = self.count.get();
        if count == 0 {
            return Err(Errno::EAGAIN);
        }
        let taken = if self.semaphore { 1 } else { count };
        self.count.set(count - taken);
        out.copy_from_slice(&taken.to_ne_bytes());
        self.queue.wake(ready::OUT | ready::WRNORM);
        Ok(8)
    }

    fn write(&self, _at: u64, data: &[u8]) -> Result<usize> {
        let bytes = data.first_chunk::<8>().ok_or(Errno::EINVAL)?;
        let add = u64::from_ne_bytes(*bytes);
        if add == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let sum = self
            .count
            .get()
            .checked_add(add)
            .filter(|&sum| sum < u64::MAX)
            .ok_or(Errno::EAGAIN)?;
        self.count.set(sum);
        self.queue.wake(ready::IN | ready::RDNORM);
        Ok(8)
    }

    fn poll(&self) -> u32 {
        let readable = if self.count.get() > 0 { ready::IN } else { 0 };
        let writable = if self.count.get() < u64::MAX - 1 {
            ready::OUT
        } else {
            0
        };
        readable | writable
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }
}
