//! futex(2).

use super::time::deadline_from;
use crate::errno::{Errno, Result};
use crate::sched::futex as queue;
use crate::{mm::user, time};
use linux_raw_sys::general as linux;

const WAIT: u32 = linux::FUTEX_WAIT;
const WAKE: u32 = linux::FUTEX_WAKE;
const REQUEUE: u32 = linux::FUTEX_REQUEUE;
const CMP_REQUEUE: u32 = linux::FUTEX_CMP_REQUEUE;
const WAKE_OP: u32 = linux::FUTEX_WAKE_OP;
const WAIT_BITSET: u32 = linux::FUTEX_WAIT_BITSET;
const WAKE_BITSET: u32 = linux::FUTEX_WAKE_BITSET;

/// Fast userspace locking.
pub fn futex(
    address: u64,
    operation: u64,
    value: u64,
    timeout: u64,
    second: u64,
    value3: u64,
) -> Result<u64> {
    let operation = operation as u32;
    let realtime = operation & linux::FUTEX_CLOCK_REALTIME != 0;
    let command = operation & !(linux::FUTEX_PRIVATE_FLAG | linux::FUTEX_CLOCK_REALTIME);
    if realtime && !matches!(command, WAIT | WAIT_BITSET) {
        return Err(Errno::ENOSYS);
    }
    let (value, value3, count2) = (value as u32, value3 as u32, timeout as u32);
    match command {
        WAIT => {
            // The only relative timeout.
            let deadline = if timeout == 0 {
                None
            } else {
                Some(time::now().saturating_add(super::time::read_timespec(timeout)?))
            };
            queue::wait(address, value, queue::MATCH_ANY, deadline).map(|()| 0)
        }
        WAIT_BITSET => {
            let deadline = if timeout == 0 {
                None
            } else {
                Some(deadline_from(
                    super::time::read_timespec(timeout)?,
                    realtime,
                ))
            };
            queue::wait(address, value, value3, deadline).map(|()| 0)
        }
        WAKE | WAKE_BITSET => {
            let bitset = if command == WAKE {
                queue::MATCH_ANY
            } else {
                value3
            };
            if bitset == 0 {
                return Err(Errno::EINVAL);
            }
            if !address.is_multiple_of(4) {
                return Err(Errno::EINVAL);
            }
            Ok(queue::wake_waiters(address, value.max(1), bitset) as u64)
        }
        REQUEUE => {
            queue::requeue(address, value, count2, second, None).map(|(woken, _)| woken as u64)
        }
        CMP_REQUEUE => queue::requeue(address, value, count2, second, Some(value3))
            .map(|(woken, moved)| (woken + moved) as u64),
        WAKE_OP => {
            user::atomic(address)?;
            queue::wake_op(address, value, second, count2, value3).map(u64::from)
        }
        _ => Err(Errno::ENOSYS),
    }
}
