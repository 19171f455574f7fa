//! Threads: clone(2), exit(2), scheduling, robust lists.

use crate::arch::{self, fpu, smp};
use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::process::{self, PID};
use crate::sched::thread::Thread;
use crate::sched::{self, futex};
use alloc::rc::Rc;
use core::sync::atomic::{AtomicBool, Ordering};
use linux_raw_sys::general as linux;
use unik_abi::layout::USER_TOP;
use unik_core::runqueue::EVERYWHERE;

// asm/prctl.h
const ARCH_SET_FS: u32 = 0x1002;
const ARCH_GET_FS: u32 = 0x1003;

const THREAD_FLAGS: u32 = linux::CLONE_VM | linux::CLONE_SIGHAND | linux::CLONE_THREAD;

/// Whether it was said that there are no other processes.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Makes a thread. Anything that asks for another process is refused.
pub fn clone(flags: u64, stack: u64, parent_tid: u64, child_tid: u64, tls: u64) -> Result<u64> {
    let flags = flags as u32;
    if flags & THREAD_FLAGS != THREAD_FLAGS {
        // Run-times try one way after the other, and programs go on trying.
        if !TOLD.swap(true, Ordering::Relaxed) {
            crate::console::warn(
                "the program tried to start another process (fork, vfork or posix_spawn): one image is one process, so this answers ENOSYS",
            );
        }
        return Err(Errno::ENOSYS);
    }
    if flags & linux::CLONE_SETTLS != 0 && tls >= USER_TOP {
        return Err(Errno::EPERM);
    }
    let parent = sched::current();
    // SAFETY: the frame of a thread that is inside the library OS.
    let mut frame = unsafe { *parent.frame() };
    frame.rax = 0;
    frame.orig_rax = crate::arch::frame::NO_SYSCALL;
    if stack != 0 {
        frame.rsp = stack;
    }
    let fs_base = if flags & linux::CLONE_SETTLS != 0 {
        tls
    } else {
        arch::fs_base()
    };
    let mut vector_state = fpu::State::new();
    vector_state.save();
    let tid = sched::new_tid();
    if flags & linux::CLONE_PARENT_SETTID != 0 {
        user::put(parent_tid, tid)?;
    }
    if flags & linux::CLONE_CHILD_SETTID != 0 {
        user::put(child_tid, tid)?;
    }
    let thread = Thread::new(tid, frame, fs_base, vector_state).ok_or(Errno::EAGAIN)?;
    if flags & linux::CLONE_CHILD_CLEARTID != 0 {
        thread.clear_tid.set(child_tid);
    }
    thread.name.set(parent.name.get());
    thread.affinity.set(parent.affinity.get());
    thread.signals.borrow_mut().blocked = parent.signals.borrow().blocked;
    sched::add(Rc::new(thread));
    Ok(tid as u64)
}

/// Ends this thread; the last one ends the process.
pub fn exit(code: u64) -> Result<u64> {
    if sched::thread_count() == 1 {
        process::exit(code as u8);
    }
    let thread = sched::current();
    futex::exit_robust_list();
    let word = thread.clear_tid.get();
    if word != 0 && user::put(word, 0u32).is_ok() {
        futex::wake_waiters(word, 1, futex::MATCH_ANY);
    }
    let process = process::get();
    process
        .past_ticks
        .set(process.past_ticks.get() + thread.cpu_ticks());
    drop(process);
    sched::exit_current()
}

/// Ends the process.
pub fn exit_group(code: u64) -> Result<u64> {
    process::exit(code as u8)
}

/// Where to clear and wake at exit.
pub fn set_tid_address(address: u64) -> Result<u64> {
    sched::current().clear_tid.set(address);
    Ok(sched::current().tid as u64)
}

/// Head of the robust futex list.
pub fn set_robust_list(head: u64, len: u64) -> Result<u64> {
    if len != 24 {
        return Err(Errno::EINVAL);
    }
    sched::current().robust_list.set(head);
    Ok(0)
}

/// Reads it back.
pub fn get_robust_list(tid: u64, head: u64, len: u64) -> Result<u64> {
    let list = with_thread(tid, |thread| thread.robust_list.get())?;
    user::put(head, list)?;
    user::put(len, 24u64)?;
    Ok(0)
}

/// Runs `action` on the thread `tid` (0: the caller).
fn with_thread<T>(tid: u64, action: impl FnOnce(&Thread) -> T) -> Result<T> {
    if tid == 0 {
        return Ok(action(sched::current()));
    }
    sched::find(tid as u32)
        .map(|thread| action(&thread))
        .ok_or(Errno::ESRCH)
}

/// Thread pointer.
pub fn arch_prctl(code: u64, address: u64) -> Result<u64> {
    match code as u32 {
        ARCH_SET_FS => {
            if address >= USER_TOP {
                return Err(Errno::EPERM);
            }
            arch::set_fs_base(address);
            Ok(0)
        }
        ARCH_GET_FS => user::put(address, arch::fs_base()).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

/// Thread id.
pub fn gettid() -> Result<u64> {
    Ok(sched::current().tid as u64)
}

/// Lets others run.
pub fn sched_yield() -> Result<u64> {
    sched::yield_now();
    Ok(0)
}

fn all_vcpus() -> u64 {
    (1u64 << smp::count()) - 1
}

/// Restricts a thread to vCPUs.
pub fn sched_setaffinity(tid: u64, size: u64, mask: u64) -> Result<u64> {
    let bytes = user::slice(mask, size.min(8))?;
    let wanted = bytes
        .iter()
        .rev()
        .fold(0u64, |mask, &byte| mask << 8 | byte as u64)
        & all_vcpus();
    if wanted == 0 {
        return Err(Errno::EINVAL);
    }
    // All of them is no restriction: such threads cost the scheduler least.
    let allowed = match wanted == all_vcpus() {
        true => EVERYWHERE,
        false => wanted,
    };
    with_thread(tid, |thread| sched::restrict(thread, allowed))?;
    Ok(0)
}

/// The vCPUs a thread may run on. Returns the bytes written.
pub fn sched_getaffinity(tid: u64, size: u64, out: u64) -> Result<u64> {
    if size < 8 || !size.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let mask = with_thread(tid, |thread| thread.affinity.get())? & all_vcpus();
    user::put(out, mask)?;
    Ok(8)
}

fn check_policy(policy: u64) -> Result<()> {
    match policy as u32 & !linux::SCHED_RESET_ON_FORK {
        linux::SCHED_NORMAL | linux::SCHED_BATCH | linux::SCHED_IDLE => Ok(()),
        linux::SCHED_FIFO | linux::SCHED_RR => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// Scheduling policy: ordinary ones only.
pub fn sched_setscheduler(tid: u64, policy: u64, param: u64) -> Result<u64> {
    check_policy(policy)?;
    sched_setparam(tid, param)
}

/// SCHED_OTHER.
pub fn sched_getscheduler(tid: u64) -> Result<u64> {
    with_thread(tid, |_| 0)
}

/// Priority: 0 for the ordinary policies.
pub fn sched_setparam(tid: u64, param: u64) -> Result<u64> {
    with_thread(tid, |_| ())?;
    if user::get::<i32>(param)? == 0 {
        Ok(0)
    } else {
        Err(Errno::EINVAL)
    }
}

/// Priority 0.
pub fn sched_getparam(tid: u64, param: u64) -> Result<u64> {
    with_thread(tid, |_| ())?;
    user::put(param, 0i32).map(|()| 0)
}

/// Highest priority of a policy.
pub fn sched_get_priority_max(policy: u64) -> Result<u64> {
    match check_policy(policy) {
        Err(Errno::EPERM) => Ok(99),
        other => other.map(|()| 0),
    }
}

/// Lowest priority of a policy.
pub fn sched_get_priority_min(policy: u64) -> Result<u64> {
    match check_policy(policy) {
        Err(Errno::EPERM) => Ok(1),
        other => other.map(|()| 0),
    }
}

/// Length of a time slice.
pub fn sched_rr_get_interval(tid: u64, out: u64) -> Result<u64> {
    with_thread(tid, |_| ())?;
    super::time::write_timespec(out, sched::SLICE).map(|()| 0)
}

/// Nice value, as getpriority encodes it (20 - nice).
pub fn getpriority(which: u64, who: u64) -> Result<u64> {
    if which != 0 {
        return Err(if which <= 2 {
            Errno::ESRCH
        } else {
            Errno::EINVAL
        });
    }
    let tid = if who == PID as u64 { 0 } else { who };
    with_thread(tid, |thread| (20 - thread.nice.get()) as u64)
}

/// Remembers a nice value.
pub fn setpriority(which: u64, who: u64, value: u64) -> Result<u64> {
    if which > 2 {
        return Err(Errno::EINVAL);
    }
    let tid = if which != 0 || who == PID as u64 {
        0
    } else {
        who
    };
    with_thread(tid, |thread| thread.nice.set((value as i32).clamp(-20, 19)))?;
    Ok(0)
}
