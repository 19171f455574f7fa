//! `signalfd(2)`: [`SignalFd`] takes pending signals through the kernel's [`SignalSource`].

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::Cell;

use crate::file::FileLike;
use crate::inode::Metadata;
use crate::wait::{WaitQueue, ready};
use crate::{Errno, Result, anon};

/// Bytes of a `struct signalfd_siginfo`.
pub const RECORD: usize = 128;

/// Pending signals of the calling thread and the process.
pub trait SignalSource {
    /// Takes one pending signal of `mask` (bit `n - 1` for signal `n`) as a `struct signalfd_siginfo`.
    fn take(&self, mask: u64) -> Option<[u8; RECORD]>;
    /// Pending signals.
    fn pending(&self) -> u64;
    /// Woken when a signal becomes pending.
    fn queue(&self) -> &WaitQueue;
}

/// A descriptor that reads signals.
pub struct SignalFd {
    mask: Cell<u64>,
    source: Rc<dyn SignalSource>,
}

impl SignalFd {
    /// Reads the signals in `mask`.
    pub fn new(mask: u64, source: Rc<dyn SignalSource>) -> Rc<Self> {
        Rc::new(Self {
            mask: Cell::new(mask),
            source,
        })
    }

    /// `signalfd` on an existing descriptor.
    pub fn set_mask(&self, mask: u64) {
        self.mask.set(mask);
        self.source.queue().wake(ready::IN);
    }
}

impl FileLike for SignalFd {
    fn metadata(&self) -> Metadata {
        anon::event_metadata()
    }

    fn label(&self) -> Vec<u8> {
        b"anon_inode:[signalfd]".to_vec()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _at: u64, out: &mut [u8]) -> Result<usize> {
        if out.len() < RECORD {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        for record in out.chunks_exact_mut(RECORD) {
            let Some(info) = self.source.take(self.mask.get()) else {
                break;
            };
            record.copy_from_slice(&info);
            done += RECORD;
        }
        if done == 0 {
            Err(Errno::EAGAIN)
        } else {
            Ok(done)
        }
    }

    fn poll(&self) -> u32 {
        if self.source.pending() & self.mask.get() != 0 {
            ready::IN
        } else {
            0
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.source.queue())
    }
}
