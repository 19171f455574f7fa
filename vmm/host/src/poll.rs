//! Waiting for file descriptors.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// A descriptor to wait for and, afterwards, whether it is ready.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    fd: RawFd,
    events: i16,
    /// Readable, writable, closed by the other side or in error: a call on it will not block.
    pub ready: bool,
}

impl Watch {
    /// Waits until there is something to read.
    pub fn readable(fd: &impl AsRawFd) -> Self {
        Self::new(fd, true, false)
    }

    /// Waits until there is room to write.
    pub fn writable(fd: &impl AsRawFd) -> Self {
        Self::new(fd, false, true)
    }

    /// Waits for any of these, and always until the other side closes.
    pub fn new(fd: &impl AsRawFd, read: bool, write: bool) -> Self {
        let events = if read { libc::POLLIN } else { 0 } | if write { libc::POLLOUT } else { 0 };
        Self {
            fd: fd.as_raw_fd(),
            events,
            ready: false,
        }
    }

    /// Leaves the descriptor out unless `wanted`.
    #[must_use]
    pub fn only_if(mut self, wanted: bool) -> Self {
        if !wanted {
            self.fd = -1;
        }
        self
    }
}

/// Waits until at least one of `watches` is ready or `timeout` has passed, and marks those that are.
pub fn wait(watches: &mut [Watch], timeout: Option<Duration>) -> io::Result<()> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let mut polled: Vec<libc::pollfd> = watches.iter().map(pollfd).collect();
    loop {
        // SAFETY: the array lives across the call and its length is given.
        let ready = unsafe {
            libc::poll(
                polled.as_mut_ptr(),
                polled.len() as libc::nfds_t,
                millis(deadline),
            )
        };
        if ready >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    for (watch, polled) in watches.iter_mut().zip(&polled) {
        watch.ready = polled.revents != 0;
    }
    Ok(())
}

fn pollfd(watch: &Watch) -> libc::pollfd {
    libc::pollfd {
        fd: watch.fd,
        events: watch.events,
        revents: 0,
    }
}

/// Milliseconds until `deadline`, rounded up so that a wait never ends early.
fn millis(deadline: Option<Instant>) -> i32 {
    let Some(deadline) = deadline else { return -1 };
    let left = deadline.saturating_duration_since(Instant::now());
    i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventFd;

    #[test]
    fn ready_ones_are_marked_and_others_are_not() {
        let (a, b) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
        b.write(1).unwrap();
        let mut watches = [
            Watch::readable(&a),
            Watch::readable(&b),
            Watch::readable(&b).only_if(false),
        ];
        wait(&mut watches, None).unwrap();
        assert_eq!(watches.map(|w| w.ready), [false, true, false]);
    }

    #[test]
    fn a_timeout_ends_the_wait() {
        let a = EventFd::new(0).unwrap();
        let start = Instant::now();
        wait(&mut [Watch::readable(&a)], Some(Duration::from_millis(5))).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(5));
    }
}
