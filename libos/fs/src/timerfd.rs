//! `timerfd_create(2)`: [`TimerFd`], a timer whose expirations are read as a count.
//!
//! The kernel lends its timers through [`Alarm`]; all times are nanoseconds of the timer's own clock.

use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::cell::Cell;

use crate::file::FileLike;
use crate::inode::Metadata;
use crate::wait::{WaitQueue, ready};
use crate::{Errno, Result, anon};

/// The kernel's clocks and timers.
pub trait Alarm {
    /// Nanoseconds now of `clock` (`CLOCK_*`).
    fn now(&self, clock: u32) -> u64;
    /// Calls [`TimerFd::tick`] when `clock` reaches `at`; replaces an earlier request of the same timer. `None` cancels.
    fn arm(&self, timer: &Weak<TimerFd>, clock: u32, at: Option<u64>);
}

/// `struct itimerspec` in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Period; 0: once.
    pub interval: u64,
    /// First expiration; 0: disarmed.
    pub value: u64,
}

/// The timer.
pub struct TimerFd {
    clock: u32,
    alarm: Rc<dyn Alarm>,
    /// Next expiration, absolute.
    next: Cell<Option<u64>>,
    interval: Cell<u64>,
    /// Expirations counted and not yet read.
    count: Cell<u64>,
    queue: WaitQueue,
    me: Weak<TimerFd>,
}

impl TimerFd {
    /// A disarmed timer on `clock`.
    pub fn new(clock: u32, alarm: Rc<dyn Alarm>) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            clock,
            alarm,
            next: Cell::new(None),
            interval: Cell::new(0),
            count: Cell::new(0),
            queue: WaitQueue::new(),
            me: me.clone(),
        })
    }

    /// `timerfd_gettime`: time left and period.
    pub fn get(&self) -> Setting {
        let now = self.alarm.now(self.clock);
        self.advance(now);
        let value = self
            .next
            .get()
            .map_or(0, |at| at.saturating_sub(now).max(1));
        Setting {
            interval: self.interval.get(),
            value,
        }
    }

    /// `timerfd_settime`; answers the old setting.
    pub fn set(&self, new: Setting, absolute: bool) -> Setting {
        let old = self.get();
        self.count.set(0);
        self.interval.set(new.interval);
        let base = if absolute {
            0
        } else {
            self.alarm.now(self.clock)
        };
        self.next
            .set((new.value != 0).then(|| base.saturating_add(new.value)));
        self.tick();
        old
    }

    /// The alarm rang (or may have): counts expirations and wakes readers.
    pub fn tick(&self) {
        self.advance(self.alarm.now(self.clock));
        self.alarm.arm(&self.me, self.clock, self.next.get());
        if self.count.get() > 0 {
            self.queue.wake(ready::IN | ready::RDNORM);
        }
    }

    /// Moves expirations up to `now` from the future to the count.
    fn advance(&self, now: u64) {
        let Some(next) = self.next.get().filter(|&next| next <= now) else {
            return;
        };
        let interval = self.interval.get();
        let passed = (now - next).checked_div(interval).unwrap_or(0) + 1;
        self.count.set(self.count.get() + passed);
        self.next
            .set((interval != 0).then(|| next.saturating_add(passed.saturating_mul(interval))));
    }
}

impl Drop for TimerFd {
    fn drop(&mut self) {
        self.alarm.arm(&self.me, self.clock, None);
    }
}

impl FileLike for TimerFd {
    fn metadata(&self) -> Metadata {
        anon::event_metadata()
    }

    fn label(&self) -> Vec<u8> {
        b"anon_inode:[timerfd]".to_vec()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _at: u64, out: &mut [u8]) -> Result<usize> {
        let out = out.get_mut(..8).ok_or(Errno::EINVAL)?;
        self.advance(self.alarm.now(self.clock));
        let count = self.count.take();
        if count == 0 {
            return Err(Errno::EAGAIN);
        }
        out.copy_from_slice(&count.to_ne_bytes());
        self.alarm.arm(&self.me, self.clock, self.next.get());
        Ok(8)
    }

    fn poll(&self) -> u32 {
        self.advance(self.alarm.now(self.clock));
        if self.count.get() > 0 { ready::IN } else { 0 }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }
}
