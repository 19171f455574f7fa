//! Futexes (futex(2)): threads wait on words of the program's memory. One process, so an address is a key.

use super::{Wake, block, current, current_rc, thread::Thread, wake};
use crate::errno::{Errno, Result};
use crate::lock::Locked;
use crate::mm::user;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use core::sync::atomic::Ordering;

/// Matches every waiter.
pub const MATCH_ANY: u32 = u32::MAX;

struct Waiter {
    thread: Rc<Thread>,
    bitset: u32,
}

static QUEUES: Locked<BTreeMap<u64, VecDeque<Waiter>>> = Locked::new(BTreeMap::new());

/// FUTEX_WAIT(_BITSET): waits while the word holds `expected`. EAGAIN, ETIMEDOUT, EINTR as in futex(2).
pub fn wait(address: u64, expected: u32, bitset: u32, deadline: Option<u64>) -> Result<()> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    if user::atomic(address)?.load(Ordering::SeqCst) != expected {
        return Err(Errno::EAGAIN);
    }
    let thread = current_rc().ok_or(Errno::EINVAL)?;
    thread.futex.set(address);
    QUEUES.get().entry(address).or_default().push_back(Waiter {
        thread: thread.clone(),
        bitset,
    });
    let why = block(deadline, true);
    let key = thread.futex.replace(0);
    if key == 0 {
        return Ok(()); // a waker took it off the queue
    }
    remove(key, &thread);
    match why {
        Wake::Event => Ok(()),
        Wake::Timeout => Err(Errno::ETIMEDOUT),
        Wake::Signal => Err(Errno::EINTR),
    }
}

/// Takes a thread off the queue of an address.
fn remove(address: u64, thread: &Rc<Thread>) {
    let mut queues = QUEUES.get();
    if let Some(queue) = queues.get_mut(&address) {
        queue.retain(|waiter| !Rc::ptr_eq(&waiter.thread, thread));
        if queue.is_empty() {
            queues.remove(&address);
        }
    }
}

/// FUTEX_WAKE(_BITSET): wakes at most `count` waiters; how many.
pub fn wake_waiters(address: u64, count: u32, bitset: u32) -> u32 {
    let mut woken = 0;
    while woken < count {
        let mut queues = QUEUES.get();
        let Some(queue) = queues.get_mut(&address) else {
            break;
        };
        let Some(at) = queue.iter().position(|waiter| waiter.bitset & bitset != 0) else {
            break;
        };
        let waiter = queue.remove(at);
        if queue.is_empty() {
            queues.remove(&address);
        }
        drop(queues);
        if let Some(waiter) = waiter {
            waiter.thread.futex.set(0);
            wake(&waiter.thread, Wake::Event);
            woken += 1;
        }
    }
    woken
}

/// FUTEX_(CMP_)REQUEUE: wakes `wake_count`, moves up to `move_count` more to `target`. Returns (woken, moved).
pub fn requeue(
    address: u64,
    wake_count: u32,
    move_count: u32,
    target: u64,
    expected: Option<u32>,
) -> Result<(u32, u32)> {
    if let Some(expected) = expected
        && user::atomic(address)?.load(Ordering::SeqCst) != expected
    {
        return Err(Errno::EAGAIN);
    }
    user::atomic(target)?;
    let woken = wake_waiters(address, wake_count, MATCH_ANY);
    let mut moved = 0;
    let mut queues = QUEUES.get();
    while moved < move_count {
        let Some(waiter) = queues.get_mut(&address).and_then(VecDeque::pop_front) else {
            break;
        };
        waiter.thread.futex.set(target);
        queues.entry(target).or_default().push_back(waiter);
        moved += 1;
    }
    if queues.get(&address).is_some_and(VecDeque::is_empty) {
        queues.remove(&address);
    }
    Ok((woken, moved))
}

/// FUTEX_WAKE_OP: changes the second word, wakes on the first, and on the second if the comparison of its old value holds.
pub fn wake_op(
    address: u64,
    count: u32,
    second: u64,
    second_count: u32,
    operation: u32,
) -> Result<u32> {
    let word = user::atomic(second)?;
    user::check(second, 4, crate::mm::space::Access::Write)?;
    let (op, cmp) = (operation >> 28 & 0xf, operation >> 24 & 0xf);
    let sign_extend = |v: u32| ((v << 20) as i32) >> 20;
    let (mut argument, compared) = (
        sign_extend(operation >> 12 & 0xfff),
        sign_extend(operation & 0xfff),
    );
    if op & 8 != 0 {
        argument = 1i32.wrapping_shl(argument as u32 & 31);
    }
    let old = word
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| match op & 7 {
            0 => Some(argument as u32),
            1 => Some(old.wrapping_add(argument as u32)),
            2 => Some(old | argument as u32),
            3 => Some(old & !(argument as u32)),
            4 => Some(old ^ argument as u32),
            _ => None,
        })
        .map_err(|_| Errno::ENOSYS)? as i32;
    let holds = match cmp {
        0 => old == compared,
        1 => old != compared,
        2 => old < compared,
        3 => old <= compared,
        4 => old > compared,
        5 => old >= compared,
        _ => return Err(Errno::ENOSYS),
    };
    let mut woken = wake_waiters(address, count, MATCH_ANY);
    if holds {
        woken += wake_waiters(second, second_count, MATCH_ANY);
    }
    Ok(woken)
}

const OWNER_DIED: u32 = 0x4000_0000;
const WAITERS: u32 = 0x8000_0000;
const TID_MASK: u32 = 0x3fff_ffff;

/// What a thread's exit owes to robust mutexes (set_robust_list(2)): marks those it holds and wakes one waiter each.
pub fn exit_robust_list() {
    let head = current().robust_list.get();
    if head == 0 {
        return;
    }
    let walk = || -> Result<()> {
        let offset: i64 = user::get(head + 8)?;
        let pending: u64 = user::get(head + 16)?;
        let mut entry: u64 = user::get(head)?;
        // The list is the program's: bounded as Linux bounds it (ROBUST_LIST_LIMIT).
        for _ in 0..2048 {
            if entry & !1 == head {
                break;
            }
            let next: u64 = user::get(entry & !1)?;
            if entry != pending {
                release_robust((entry & !1).wrapping_add_signed(offset))?;
            }
            entry = next;
        }
        if pending != 0 {
            release_robust((pending & !1).wrapping_add_signed(offset))?;
        }
        Ok(())
    };
    // A broken list is the program's own affair.
    let _ = walk();
}

fn release_robust(address: u64) -> Result<()> {
    let word = user::atomic(address)?;
    let value = word.load(Ordering::SeqCst);
    if value & TID_MASK == current().tid {
        word.store(value & WAITERS | OWNER_DIED, Ordering::SeqCst);
        if value & WAITERS != 0 {
            wake_waiters(address, 1, MATCH_ANY);
        }
    }
    Ok(())
}
