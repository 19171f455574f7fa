//! What timerfd and signalfd need of the kernel: [`Clocks`] and [`Signals`].

use crate::lock::Locked;
use crate::sched::timers;
use crate::signal::{self, Arrival, Info};
use crate::sys::time::deadline_from;
use crate::time;
use alloc::collections::BTreeMap;
use alloc::rc::{Rc, Weak};
use linux_raw_sys::general as linux;
use unik_core::timers::TimerId;
use unik_fs::signalfd::{RECORD, SignalSource};
use unik_fs::timerfd::{Alarm, TimerFd};
use unik_fs::wait::WaitQueue;

/// Clocks and timers for timerfd.
pub struct Clocks;

/// Armed timers, by the address of their timerfd.
static ARMED: Locked<BTreeMap<usize, TimerId>> = Locked::new(BTreeMap::new());

fn is_realtime(clock: u32) -> bool {
    matches!(clock, linux::CLOCK_REALTIME | linux::CLOCK_REALTIME_ALARM)
}

impl Alarm for Clocks {
    fn now(&self, clock: u32) -> u64 {
        if is_realtime(clock) {
            time::realtime()
        } else {
            time::now()
        }
    }

    fn arm(&self, timer: &Weak<TimerFd>, clock: u32, at: Option<u64>) {
        let key = timer.as_ptr() as usize;
        if let Some(old) = ARMED.get().remove(&key) {
            timers::cancel(old);
        }
        let Some(at) = at else { return };
        let ring = timer.clone();
        let action = timers::Action::Call(Rc::new(move || {
            ARMED.get().remove(&(ring.as_ptr() as usize));
            if let Some(timer) = ring.upgrade() {
                timer.tick();
            }
        }));
        let id = timers::add(deadline_from(at, is_realtime(clock)), action);
        ARMED.get().insert(key, id);
        timers::watch_next();
    }
}

/// Pending signals for signalfd.
pub struct Signals(Rc<Arrival>);

impl Signals {
    /// A source.
    pub fn new() -> Rc<Self> {
        Rc::new(Self(signal::arrival()))
    }
}

impl SignalSource for Signals {
    fn take(&self, mask: u64) -> Option<[u8; RECORD]> {
        signal::take(mask).map(|info| record(&info))
    }

    fn pending(&self) -> u64 {
        signal::pending_set()
    }

    fn queue(&self) -> &WaitQueue {
        &self.0.0
    }
}

/// A `struct signalfd_siginfo` (signalfd(2)).
fn record(info: &Info) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &info.signo.to_le_bytes());
    put(8, &info.code.to_le_bytes());
    let [first, second, _] = info.payload;
    match info.code {
        signal::SI_TIMER => {
            put(24, &(first as u32).to_le_bytes());
            put(32, &((first >> 32) as u32).to_le_bytes());
        }
        _ => {
            put(12, &(first as u32).to_le_bytes());
            put(16, &((first >> 32) as u32).to_le_bytes());
        }
    }
    // The value that sigqueue or a timer sends, as an int and as a pointer.
    put(44, &(second as u32).to_le_bytes());
    put(48, &second.to_le_bytes());
    bytes
}
