//! Waiting on many files: poll(2), select(2), epoll(7).

use super::signal::set_temporary_mask;
use super::time::{read_timespec, write_timespec};
use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::sched::{self, Wake, wait};
use crate::time;
use crate::vfs::{fds, file, install};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use unik_fs::epoll::{Epoll, Event};
use unik_fs::fdtable::FdTable;
use unik_fs::file::OpenFile;
use unik_fs::wait::{WaitQueue, ready};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// When to give up waiting.
#[derive(Clone, Copy)]
enum Until {
    /// At once: only look.
    Now,
    /// At this time since boot, nanoseconds; `None`: never.
    Deadline(Option<u64>),
}

impl Until {
    /// From a relative time.
    fn after(ns: u64) -> Self {
        if ns == 0 {
            Self::Now
        } else {
            Self::Deadline(Some(time::now().saturating_add(ns)))
        }
    }

    /// From a `struct timespec`; null: never.
    fn from_timespec(address: u64) -> Result<Self> {
        if address == 0 {
            Ok(Self::Deadline(None))
        } else {
            read_timespec(address).map(Self::after)
        }
    }

    /// From milliseconds; negative: never.
    fn from_milliseconds(timeout: u64) -> Self {
        match timeout as i32 {
            ms if ms < 0 => Self::Deadline(None),
            ms => Self::after(ms as u64 * MILLISECOND),
        }
    }

    fn remaining(self) -> u64 {
        match self {
            Self::Deadline(Some(deadline)) => deadline.saturating_sub(time::now()),
            _ => 0,
        }
    }
}

/// Repeats `look` until it finds something (not `None`) or the time is over (`Ok(None)`); waits on `files` in between.
fn until_ready<T>(
    files: &[(Rc<OpenFile>, u32)],
    until: Until,
    mut look: impl FnMut() -> Option<T>,
) -> Result<Option<T>> {
    loop {
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        let Until::Deadline(deadline) = until else {
            return Ok(None);
        };
        let queues: Vec<(&WaitQueue, u32)> = files
            .iter()
            .filter_map(|(file, mask)| Some((file.object().wait_queue()?, *mask)))
            .collect();
        match wait::on_queues(&queues, deadline) {
            Wake::Event => {}
            Wake::Timeout => return Ok(look()),
            Wake::Signal => return look().map(Some).ok_or(Errno::EINTR),
        }
    }
}

/// Undoes [`set_temporary_mask`] unless a signal ended the wait: then its handler runs under the temporary mask first.
fn with_mask<T>(mask: u64, size: u64, wait: impl FnOnce() -> Result<T>) -> Result<T> {
    set_temporary_mask(mask, size)?;
    let result = wait();
    if !matches!(result, Err(Errno::EINTR)) {
        let mut own = sched::current().signals.borrow_mut();
        if let Some(blocked) = own.saved_mask.take() {
            own.blocked = blocked;
        }
    }
    result
}

/// An entry of poll's array.
struct Watched {
    file: Option<Rc<OpenFile>>,
    fd: i32,
    events: u32,
}

impl Watched {
    fn state(&self) -> u16 {
        let wanted = self.events | ready::ERR | ready::HUP;
        match &self.file {
            None if self.fd < 0 => 0,
            None => ready::NVAL as u16,
            Some(file) => (file.object().poll_for(self.events) & wanted) as u16,
        }
    }
}

/// An O_PATH descriptor is as good as closed here.
fn pollable(fds: &FdTable, fd: i32) -> Option<Rc<OpenFile>> {
    fds.get(fd).ok().filter(|file| !file.path_only())
}

/// Bytes of a `struct pollfd`.
const POLLFD: u64 = 8;

fn wait_poll(array: u64, count: u64, until: Until) -> Result<u64> {
    let fds = fds();
    if count > fds.limit() as u64 {
        return Err(Errno::EINVAL);
    }
    let entries = user::slice(array, count * POLLFD)?
        .as_chunks::<{ POLLFD as usize }>()
        .0;
    let watched: Vec<Watched> = entries
        .iter()
        .map(|entry| {
            let word = u64::from_le_bytes(*entry);
            let fd = word as i32;
            Watched {
                file: pollable(&fds, fd),
                fd,
                events: (word >> 32) as u16 as u32,
            }
        })
        .collect();
    let files: Vec<_> = watched
        .iter()
        .filter_map(|entry| Some((entry.file.clone()?, entry.events | ready::ERR | ready::HUP)))
        .collect();
    let states = until_ready(&files, until, || {
        let states: Vec<u16> = watched.iter().map(Watched::state).collect();
        states.iter().any(|&state| state != 0).then_some(states)
    })?;
    let states = states.unwrap_or_else(|| alloc::vec![0; watched.len()]);
    let entries = user::slice_mut(array, count * POLLFD)?
        .as_chunks_mut::<{ POLLFD as usize }>()
        .0;
    for (entry, state) in entries.iter_mut().zip(&states) {
        entry[6..].copy_from_slice(&state.to_le_bytes());
    }
    Ok(states.iter().filter(|&&state| state != 0).count() as u64)
}

/// Waits until a file is ready.
pub fn poll(array: u64, count: u64, timeout: u64) -> Result<u64> {
    wait_poll(array, count, Until::from_milliseconds(timeout))
}

/// As poll, with a signal mask meanwhile.
pub fn ppoll(array: u64, count: u64, timeout: u64, mask: u64, size: u64) -> Result<u64> {
    let until = Until::from_timespec(timeout)?;
    let result = with_mask(mask, size, || wait_poll(array, count, until));
    if timeout != 0 {
        write_timespec(timeout, until.remaining())?;
    }
    result
}

const READ_SET: u32 = ready::IN | ready::RDNORM | ready::HUP | ready::ERR;
const WRITE_SET: u32 = ready::OUT | ready::WRNORM | ready::ERR;
const EXCEPT_SET: u32 = ready::PRI;

/// The three bit sets of select, as words.
struct Sets {
    addresses: [u64; 3],
    bits: [Vec<u64>; 3],
}

impl Sets {
    fn read(count: u64, addresses: [u64; 3]) -> Result<Self> {
        let words = count.div_ceil(64);
        let mut bits = [const { Vec::new() }; 3];
        for (set, &address) in bits.iter_mut().zip(&addresses) {
            for word in 0..words {
                let bits = if address == 0 {
                    0
                } else {
                    user::get::<u64>(address + word * 8)?
                };
                let valid = if (word + 1) * 64 > count {
                    (1u64 << (count % 64)) - 1
                } else {
                    u64::MAX
                };
                set.push(bits & valid);
            }
        }
        Ok(Self { addresses, bits })
    }

    fn wanted(&self, fd: usize) -> u32 {
        let has = |set: usize| self.bits[set][fd / 64] >> (fd % 64) & 1 == 1;
        let mut mask = 0;
        for (set, bits) in [READ_SET, WRITE_SET, EXCEPT_SET].into_iter().enumerate() {
            mask |= if has(set) { bits } else { 0 };
        }
        mask
    }

    fn write(&self, found: &[Vec<u64>; 3]) -> Result<()> {
        for (&address, words) in self.addresses.iter().zip(found) {
            for (index, word) in words.iter().enumerate().filter(|_| address != 0) {
                user::put(address + index as u64 * 8, *word)?;
            }
        }
        Ok(())
    }
}

/// One look at all files of the sets: what is ready, and how many bits that is.
fn look_select(sets: &Sets, files: &[(usize, Rc<OpenFile>)]) -> ([Vec<u64>; 3], u64) {
    let words = sets.bits[0].len();
    let mut found = [const { Vec::new() }; 3].map(|mut set: Vec<u64>| {
        set.resize(words, 0);
        set
    });
    let mut count = 0;
    for (fd, file) in files {
        let state = file.object().poll();
        for (set, mask) in [READ_SET, WRITE_SET, EXCEPT_SET].into_iter().enumerate() {
            let bit = 1 << (fd % 64);
            if sets.bits[set][fd / 64] & bit != 0 && state & mask != 0 {
                found[set][fd / 64] |= bit;
                count += 1;
            }
        }
    }
    (found, count)
}

fn wait_select(count: u64, addresses: [u64; 3], until: Until) -> Result<u64> {
    if (count as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let table = fds();
    let count = (count as u32).min(table.limit()) as u64;
    let sets = Sets::read(count, addresses)?;
    let mut files = Vec::new();
    for fd in (0..count as usize).filter(|&fd| sets.wanted(fd) != 0) {
        files.push((fd, pollable(&table, fd as i32).ok_or(Errno::EBADF)?));
    }
    let waits: Vec<_> = files
        .iter()
        .map(|(fd, file)| (file.clone(), sets.wanted(*fd) | ready::ERR | ready::HUP))
        .collect();
    let found = until_ready(&waits, until, || {
        Some(look_select(&sets, &files)).filter(|found| found.1 > 0)
    })?;
    let (found, ready_bits) =
        found.unwrap_or_else(|| (sets.bits.clone().map(|set| alloc::vec![0; set.len()]), 0));
    sets.write(&found)?;
    Ok(ready_bits)
}

/// Waits until a file of the sets is ready; the time left is written back.
pub fn select(count: u64, read: u64, write: u64, except: u64, timeout: u64) -> Result<u64> {
    let until = match timeout {
        0 => Until::Deadline(None),
        _ => {
            let [seconds, micros]: [i64; 2] = user::get(timeout)?;
            if seconds < 0 || micros < 0 {
                return Err(Errno::EINVAL);
            }
            Until::after(
                (seconds as u64)
                    .saturating_mul(SECOND)
                    .saturating_add((micros as u64).saturating_mul(1000)),
            )
        }
    };
    let result = wait_select(count, [read, write, except], until);
    if timeout != 0 {
        let left = until.remaining();
        user::put(timeout, [left / SECOND, left % SECOND / 1000])?;
    }
    result
}

/// As select, with a signal mask meanwhile.
pub fn pselect6(
    count: u64,
    read: u64,
    write: u64,
    except: u64,
    timeout: u64,
    mask: u64,
) -> Result<u64> {
    let until = Until::from_timespec(timeout)?;
    let [mask, size]: [u64; 2] = if mask == 0 { [0, 0] } else { user::get(mask)? };
    let result = with_mask(mask, size, || {
        wait_select(count, [read, write, except], until)
    });
    if timeout != 0 {
        write_timespec(timeout, until.remaining())?;
    }
    result
}

/// A new epoll instance.
pub fn epoll_create1(flags: u64) -> Result<u64> {
    if flags as u32 & !linux::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    install(OpenFile::new(Epoll::new(), linux::O_RDWR), flags as u32)
}

/// A new epoll instance.
pub fn epoll_create(size: u64) -> Result<u64> {
    if (size as i32) <= 0 {
        Err(Errno::EINVAL)
    } else {
        epoll_create1(0)
    }
}

/// Bytes of a `struct epoll_event` (packed on x86-64).
const EVENT_SIZE: u64 = 12;

/// Adds, changes or removes an interest.
pub fn epoll_ctl(fd: u64, operation: u64, target: u64, event: u64) -> Result<u64> {
    let event = if operation as u32 == linux::EPOLL_CTL_DEL {
        Event { events: 0, data: 0 }
    } else {
        Event {
            events: user::get(event)?,
            data: user::get(event + 4)?,
        }
    };
    let (epoll, target_file) = (file(fd)?, file(target)?);
    let epoll = epoll.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    epoll
        .control(operation as u32, target as i32, &target_file, event)
        .map(|()| 0)
}

fn wait_epoll(fd: u64, events: u64, max: u64, until: Until) -> Result<u64> {
    let max = max as i32;
    if max <= 0 || max as u64 > i32::MAX as u64 / EVENT_SIZE {
        return Err(Errno::EINVAL);
    }
    let file = file(fd)?;
    let epoll = file.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    let max = max.min(4096) as usize;
    user::check(
        events,
        max.min(16) as u64 * EVENT_SIZE,
        crate::mm::space::Access::Write,
    )?;
    let files = [(file.clone(), ready::IN)];
    let found = until_ready(&files, until, || {
        let found = epoll.collect(max);
        (!found.is_empty()).then_some(found)
    })?
    .unwrap_or_default();
    let out = user::slice_mut(events, found.len() as u64 * EVENT_SIZE)?;
    for (record, event) in out.chunks_exact_mut(EVENT_SIZE as usize).zip(&found) {
        record[..4].copy_from_slice(&event.events.to_le_bytes());
        record[4..].copy_from_slice(&event.data.to_le_bytes());
    }
    Ok(found.len() as u64)
}

/// Waits for events.
pub fn epoll_wait(fd: u64, events: u64, max: u64, timeout: u64) -> Result<u64> {
    wait_epoll(fd, events, max, Until::from_milliseconds(timeout))
}

/// As epoll_wait, with a signal mask meanwhile.
pub fn epoll_pwait(
    fd: u64,
    events: u64,
    max: u64,
    timeout: u64,
    mask: u64,
    size: u64,
) -> Result<u64> {
    with_mask(mask, size, || {
        wait_epoll(fd, events, max, Until::from_milliseconds(timeout))
    })
}

/// As epoll_pwait, with a time in nanoseconds.
pub fn epoll_pwait2(
    fd: u64,
    events: u64,
    max: u64,
    timeout: u64,
    mask: u64,
    size: u64,
) -> Result<u64> {
    let until = Until::from_timespec(timeout)?;
    with_mask(mask, size, || wait_epoll(fd, events, max, until))
}
