//! How long a call may wait: [`Patience`].

use crate::errno::{Errno, Result};
use crate::time;
use crate::vfs::wait_for;
use unik_fs::file::OpenFile;

/// The right to wait, bounded by SO_RCVTIMEO or SO_SNDTIMEO.
pub struct Patience<'a> {
    file: &'a OpenFile,
    wait: bool,
    timeout: Option<u64>,
    /// Set by the first wait, so that all waits of a call count together; nanoseconds since boot.
    deadline: Option<u64>,
}

impl<'a> Patience<'a> {
    /// Waits on `file` for at most `timeout` nanoseconds; not at all when it is non-blocking or `wait` is false.
    pub fn new(file: &'a OpenFile, timeout: Option<u64>, wait: bool) -> Self {
        Self {
            file,
            wait: wait && !file.nonblocking(),
            timeout,
            deadline: None,
        }
    }

    /// False for a call that answers at once.
    pub fn may_wait(&self) -> bool {
        self.wait
    }

    /// Waits for readiness. `EAGAIN` when there is no (more) time, `EINTR` on a signal.
    pub fn wait(&mut self, mask: u32) -> Result<()> {
        if !self.wait {
            return Err(Errno::EAGAIN);
        }
        if let (None, Some(timeout)) = (self.deadline, self.timeout) {
            self.deadline = Some(time::now().saturating_add(timeout));
        }
        wait_for(self.file, mask, self.deadline).map_err(|error| {
            if error == Errno::ETIMEDOUT {
                Errno::EAGAIN
            } else {
                error
            }
        })
    }

    /// Repeats `attempt` until it does not answer `EAGAIN`, waiting in between. No slice of program memory may live across attempts.
    pub fn until_done<T>(
        &mut self,
        mask: u32,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        loop {
            match attempt() {
                Err(Errno::EAGAIN) => self.wait(mask)?,
                result => return result,
            }
        }
    }
}
