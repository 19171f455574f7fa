//! Clocks, sleeps and POSIX timers: clock_gettime(2), clock_nanosleep(2), timer_create(2), setitimer(2).

use crate::errno::{Errno, Result};
use crate::lock::Locked;
use crate::mm::user;
use crate::process;
use crate::sched::{self, Wake, timers};
use crate::signal::{self, Info};
use crate::time;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::cell::Cell;
use linux_raw_sys::general as linux;
use unik_core::timers::TimerId;

const SECOND: u64 = 1_000_000_000;

/// A `struct timespec` as nanoseconds; EINVAL when it is none.
pub fn read_timespec(address: u64) -> Result<u64> {
    let [seconds, nanoseconds]: [i64; 2] = user::get(address)?;
    if seconds < 0 || !(0..SECOND as i64).contains(&nanoseconds) {
        return Err(Errno::EINVAL);
    }
    Ok((seconds as u64)
        .saturating_mul(SECOND)
        .saturating_add(nanoseconds as u64))
}

/// Writes nanoseconds as a `struct timespec`.
pub fn write_timespec(address: u64, ns: u64) -> Result<()> {
    user::put(address, [ns / SECOND, ns % SECOND])
}

/// The deadline (nanoseconds since boot) of an absolute time.
pub fn deadline_from(absolute: u64, realtime: bool) -> u64 {
    if !realtime {
        return absolute;
    }
    let now = time::realtime();
    if absolute >= now {
        time::now().saturating_add(absolute - now)
    } else {
        0
    }
}

/// CPU time of one thread, nanoseconds.
fn thread_time() -> u64 {
    time::ticks_to_ns(sched::current().cpu_ticks())
}

fn read_clock(clock: u64) -> Result<u64> {
    Ok(match clock as u32 {
        linux::CLOCK_REALTIME | linux::CLOCK_REALTIME_COARSE | linux::CLOCK_REALTIME_ALARM => {
            time::realtime()
        }
        linux::CLOCK_TAI => time::realtime() + 37 * SECOND,
        linux::CLOCK_MONOTONIC
        | linux::CLOCK_MONOTONIC_RAW
        | linux::CLOCK_MONOTONIC_COARSE
        | linux::CLOCK_BOOTTIME
        | linux::CLOCK_BOOTTIME_ALARM => time::now(),
        linux::CLOCK_PROCESS_CPUTIME_ID => process::cpu_time(),
        linux::CLOCK_THREAD_CPUTIME_ID => thread_time(),
        // clock_getcpuclockid and pthread_getcpuclockid: ~pid << 3 | kind.
        other if other as i32 & 4 == 4 && (other as i32) < 0 => {
            let tid = !(other as i32 >> 3) as u32;
            let thread = if tid == 0 {
                None
            } else {
                Some(sched::find(tid).ok_or(Errno::EINVAL)?)
            };
            time::ticks_to_ns(
                thread.map_or_else(|| sched::current().cpu_ticks(), |thread| thread.cpu_ticks()),
            )
        }
        other if (other as i32) < 0 => process::cpu_time(),
        _ => return Err(Errno::EINVAL),
    })
}

/// clock_gettime without the lock, for the clocks that need none. Falls back (`None`) when the result cannot be stored straight away.
pub fn clock_gettime_fast(clock: u64, out: u64) -> Option<u64> {
    let ns = match clock as u32 {
        linux::CLOCK_REALTIME => time::realtime(),
        linux::CLOCK_MONOTONIC | linux::CLOCK_BOOTTIME | linux::CLOCK_MONOTONIC_RAW => time::now(),
        _ => return None,
    };
    crate::mm::user::store_pair(out, ns / SECOND, ns % SECOND).then_some(0)
}

/// Reads a clock.
pub fn clock_gettime(clock: u64, out: u64) -> Result<u64> {
    write_timespec(out, read_clock(clock)?).map(|()| 0)
}

/// Resolution of a clock.
pub fn clock_getres(clock: u64, out: u64) -> Result<u64> {
    read_clock(clock)?;
    if out != 0 {
        write_timespec(out, time::RESOLUTION)?;
    }
    Ok(0)
}

/// Sets CLOCK_REALTIME.
pub fn clock_settime(clock: u64, value: u64) -> Result<u64> {
    let ns = read_timespec(value)?;
    if clock as u32 != linux::CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    time::set_realtime(ns);
    Ok(0)
}

/// Seconds and microseconds since 1970.
pub fn gettimeofday(out: u64, zone: u64) -> Result<u64> {
    let ns = time::realtime();
    user::put_optional(out, [ns / SECOND, ns % SECOND / 1000])?;
    user::put_optional(zone, [0u32; 2])?;
    Ok(0)
}

/// Seconds since 1970.
pub fn time(out: u64) -> Result<u64> {
    let seconds = time::realtime() / SECOND;
    user::put_optional(out, seconds)?;
    Ok(seconds)
}

/// Sleeps for a relative time.
pub fn nanosleep(request: u64, remaining: u64) -> Result<u64> {
    let wanted = read_timespec(request)?;
    sleep_until(time::now().saturating_add(wanted), remaining)
}

fn sleep_until(deadline: u64, remaining: u64) -> Result<u64> {
    loop {
        if time::now() >= deadline {
            return Ok(0);
        }
        match sched::block(Some(deadline), true) {
            Wake::Timeout => return Ok(0),
            Wake::Event => {}
            Wake::Signal => {
                if remaining != 0 {
                    write_timespec(remaining, deadline.saturating_sub(time::now()))?;
                }
                return Err(Errno::EINTR);
            }
        }
    }
}

/// Sleeps by a clock, relative or absolute.
pub fn clock_nanosleep(clock: u64, flags: u64, request: u64, remaining: u64) -> Result<u64> {
    if clock as u32 == linux::CLOCK_THREAD_CPUTIME_ID {
        return Err(Errno::EINVAL);
    }
    read_clock(clock)?;
    let wanted = read_timespec(request)?;
    let realtime = matches!(clock as u32, linux::CLOCK_REALTIME | linux::CLOCK_TAI);
    if flags & linux::TIMER_ABSTIME as u64 != 0 {
        return sleep_until(deadline_from(wanted, realtime), 0);
    }
    sleep_until(time::now().saturating_add(wanted), remaining)
}

/// A timer that sends a signal: POSIX timers and the interval timers.
struct Alarm {
    info: Cell<Info>,
    /// Thread to signal (SIGEV_THREAD_ID), 0: the process; None: no signal.
    target: Cell<Option<u32>>,
    realtime: bool,
    deadline: Cell<u64>,
    interval: Cell<u64>,
    pending: Cell<Option<TimerId>>,
    overrun: Cell<u64>,
}

static ALARMS: Locked<BTreeMap<i32, Rc<Alarm>>> = Locked::new(BTreeMap::new());
/// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
static INTERVALS: Locked<[Option<Rc<Alarm>>; 3]> = Locked::new([None, None, None]);

impl Alarm {
    fn new(info: Info, target: Option<u32>, realtime: bool) -> Rc<Self> {
        Rc::new(Self {
            info: Cell::new(info),
            target: Cell::new(target),
            realtime,
            deadline: Cell::new(0),
            interval: Cell::new(0),
            pending: Cell::new(None),
            overrun: Cell::new(0),
        })
    }

    /// Time left and interval, nanoseconds; (0, interval) when not armed.
    fn remaining(&self) -> (u64, u64) {
        let left = if self.pending.get().is_some() {
            self.deadline.get().saturating_sub(time::now()).max(1)
        } else {
            0
        };
        (left, self.interval.get())
    }

    fn set(self: &Rc<Self>, deadline: Option<u64>, interval: u64) {
        if let Some(id) = self.pending.take() {
            timers::cancel(id);
        }
        self.interval.set(interval);
        if let Some(deadline) = deadline {
            self.arm(deadline);
        }
    }

    fn arm(self: &Rc<Self>, deadline: u64) {
        self.deadline.set(deadline);
        let this = self.clone();
        let id = timers::add(deadline, timers::Action::Call(Rc::new(move || this.fire())));
        self.pending.set(Some(id));
        timers::watch_next();
    }

    fn fire(self: &Rc<Self>) {
        self.pending.set(None);
        let interval = self.interval.get();
        let behind = time::now().saturating_sub(self.deadline.get());
        if let Some(late) = behind.checked_div(interval) {
            self.overrun.set(late);
            self.arm(self.deadline.get() + (late + 1) * interval);
        }
        match self.target.get() {
            Some(0) => signal::send_to_process(self.info.get()),
            Some(tid) => {
                if let Some(thread) = sched::find(tid) {
                    signal::send_to_thread(&thread, self.info.get());
                }
            }
            None => {}
        }
    }
}

fn read_pair(address: u64) -> Result<(u64, u64)> {
    Ok((read_timespec(address)?, read_timespec(address + 16)?))
}

/// Creates a POSIX timer.
pub fn timer_create(clock: u64, event: u64, out: u64) -> Result<u64> {
    read_clock(clock)?;
    let mut alarms = ALARMS.get();
    let id = (0..)
        .find(|id| !alarms.contains_key(id))
        .ok_or(Errno::EAGAIN)?;
    let (value, number, notify, tid) = if event == 0 {
        (id as u64, linux::SIGALRM, linux::SIGEV_SIGNAL, 0)
    } else {
        let [signo, notify, tid]: [u32; 3] = user::get(event + 8)?;
        (user::get::<u64>(event)?, signo, notify, tid)
    };
    let target = match notify {
        linux::SIGEV_NONE => None,
        linux::SIGEV_THREAD_ID => Some(sched::find(tid).ok_or(Errno::EINVAL)?.tid),
        linux::SIGEV_SIGNAL | linux::SIGEV_THREAD => Some(0),
        _ => return Err(Errno::EINVAL),
    };
    if target.is_some() && !(1..=64).contains(&number) {
        return Err(Errno::EINVAL);
    }
    let realtime = clock as u32 == linux::CLOCK_REALTIME;
    alarms.insert(
        id,
        Alarm::new(Info::timer(number, id, value), target, realtime),
    );
    drop(alarms);
    user::put(out, id).map(|()| 0)
}

fn alarm_of(id: u64) -> Result<Rc<Alarm>> {
    ALARMS.get().get(&(id as i32)).cloned().ok_or(Errno::EINVAL)
}

/// Arms a POSIX timer.
pub fn timer_settime(id: u64, flags: u64, new: u64, old: u64) -> Result<u64> {
    let alarm = alarm_of(id)?;
    let (interval, value) = read_pair(new)?;
    let previous = alarm.remaining();
    let deadline = match value {
        0 => None,
        _ if flags & linux::TIMER_ABSTIME as u64 != 0 => Some(deadline_from(value, alarm.realtime)),
        _ => Some(time::now().saturating_add(value)),
    };
    alarm.set(deadline, interval);
    if old != 0 {
        write_timespec(old, previous.1)?;
        write_timespec(old + 16, previous.0)?;
    }
    Ok(0)
}

/// Time left of a POSIX timer.
pub fn timer_gettime(id: u64, out: u64) -> Result<u64> {
    let (left, interval) = alarm_of(id)?.remaining();
    write_timespec(out, interval)?;
    write_timespec(out + 16, left)?;
    Ok(0)
}

/// Expirations missed.
pub fn timer_getoverrun(id: u64) -> Result<u64> {
    Ok(alarm_of(id)?.overrun.get().min(i32::MAX as u64))
}

/// Deletes a POSIX timer.
pub fn timer_delete(id: u64) -> Result<u64> {
    alarm_of(id)?.set(None, 0);
    ALARMS.get().remove(&(id as i32));
    Ok(0)
}

fn interval_timer(which: u64) -> Result<Rc<Alarm>> {
    let signal = *[linux::SIGALRM, linux::SIGVTALRM, linux::SIGPROF]
        .get(which as usize)
        .ok_or(Errno::EINVAL)?;
    let mut intervals = INTERVALS.get();
    Ok(intervals[which as usize]
        .get_or_insert_with(|| Alarm::new(Info::kernel(signal), Some(0), false))
        .clone())
}

fn write_interval(address: u64, (left, interval): (u64, u64)) -> Result<()> {
    user::put(
        address,
        [
            interval / SECOND,
            interval % SECOND / 1000,
            left / SECOND,
            left % SECOND / 1000,
        ],
    )
}

/// Arms an interval timer.
pub fn setitimer(which: u64, new: u64, old: u64) -> Result<u64> {
    let alarm = interval_timer(which)?;
    let previous = alarm.remaining();
    if new != 0 {
        let [interval, interval_us, value, value_us]: [i64; 4] = user::get(new)?;
        let ns = |seconds: i64, us: i64| {
            if seconds < 0 || !(0..1_000_000).contains(&us) {
                Err(Errno::EINVAL)
            } else {
                Ok((seconds as u64).saturating_mul(SECOND) + us as u64 * 1000)
            }
        };
        let (interval, value) = (ns(interval, interval_us)?, ns(value, value_us)?);
        alarm.set(
            (value > 0).then(|| time::now().saturating_add(value)),
            interval,
        );
    }
    if old != 0 {
        write_interval(old, previous)?;
    }
    Ok(0)
}

/// Time left of an interval timer.
pub fn getitimer(which: u64, out: u64) -> Result<u64> {
    write_interval(out, interval_timer(which)?.remaining()).map(|()| 0)
}

/// SIGALRM in so many seconds; returns the seconds left of the previous one.
pub fn alarm(seconds: u64) -> Result<u64> {
    let alarm = interval_timer(0)?;
    let left = alarm.remaining().0.div_ceil(SECOND);
    alarm.set(
        (seconds > 0).then(|| time::now().saturating_add((seconds as u32 as u64) * SECOND)),
        0,
    );
    Ok(left)
}

/// Ticks of CPU time (100 a second) and the ticks since boot.
pub fn times(out: u64) -> Result<u64> {
    let ticks = process::cpu_time() / 10_000_000;
    user::put_optional(out, [ticks, 0, 0, 0])?;
    Ok(time::now() / 10_000_000)
}
