//! Signals: rt_sigaction(2) and its relatives.

use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::process::PID;
use crate::sched::{self, Wake};
use crate::signal::{self, Action, Info, UNBLOCKABLE};
use linux_raw_sys::general as linux;
use unik_abi::control::Phase;

const SET_SIZE: u64 = 8;

fn check_signal(number: u64) -> Result<u32> {
    let number = number as u32;
    if (1..=64).contains(&number) {
        Ok(number)
    } else {
        Err(Errno::EINVAL)
    }
}

/// Reads or changes the action of a signal.
pub fn rt_sigaction(number: u64, new: u64, old: u64, size: u64) -> Result<u64> {
    let number = check_signal(number)?;
    if size != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let previous = signal::action(number);
    if new != 0 {
        let action: Action = user::get(new)?;
        if matches!(number, linux::SIGKILL | linux::SIGSTOP) {
            return Err(Errno::EINVAL);
        }
        signal::set_action(
            number,
            Action {
                mask: action.mask & !UNBLOCKABLE,
                ..action
            },
        );
    }
    user::put_optional(old, previous)?;
    Ok(0)
}

/// Reads or changes the blocked set.
pub fn rt_sigprocmask(how: u64, set: u64, old: u64, size: u64) -> Result<u64> {
    if size != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let thread = sched::current();
    let previous = thread.signals.borrow().blocked;
    if set != 0 {
        let set: u64 = user::get(set)?;
        let blocked = match how as u32 {
            linux::SIG_BLOCK => previous | set,
            linux::SIG_UNBLOCK => previous & !set,
            linux::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        thread.signals.borrow_mut().blocked = blocked & !UNBLOCKABLE;
    }
    user::put_optional(old, previous)?;
    Ok(0)
}

/// Returns from a handler: the registers are the frame's, rax among them.
pub fn rt_sigreturn() -> Result<u64> {
    // SAFETY: the frame of this thread, which is inside the library OS; nobody else holds it.
    let frame = unsafe { &mut *sched::current().frame() };
    if signal::frame::pop(frame).is_err() {
        signal::die(linux::SIGSEGV);
    }
    Ok(frame.rax)
}

/// Pending and blocked signals.
pub fn rt_sigpending(out: u64, size: u64) -> Result<u64> {
    if size > SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let set = signal::pending_set() & sched::current().signals.borrow().blocked;
    user::slice_mut(out, size)?.copy_from_slice(&set.to_le_bytes()[..size as usize]);
    Ok(0)
}

/// Replaces the blocked set until a handler has run.
pub fn set_temporary_mask(address: u64, size: u64) -> Result<()> {
    if address == 0 {
        return Ok(());
    }
    if size != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let mask: u64 = user::get(address)?;
    let mut own = sched::current().signals.borrow_mut();
    own.saved_mask = Some(own.blocked);
    own.blocked = mask & !UNBLOCKABLE;
    Ok(())
}

/// Waits for a signal with another mask.
pub fn rt_sigsuspend(set: u64, size: u64) -> Result<u64> {
    if set == 0 {
        return Err(Errno::EFAULT);
    }
    set_temporary_mask(set, size)?;
    pause()
}

/// Waits for a signal.
pub fn pause() -> Result<u64> {
    while sched::block(None, true) != Wake::Signal {}
    Err(Errno::EINTR)
}

/// Waits for a signal of a set and takes it.
pub fn rt_sigtimedwait(set: u64, info: u64, timeout: u64, size: u64) -> Result<u64> {
    if size != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let set = user::get::<u64>(set)? & !UNBLOCKABLE;
    let deadline = match timeout {
        0 => None,
        _ => Some(crate::time::now().saturating_add(super::time::read_timespec(timeout)?)),
    };
    let thread = sched::current();
    loop {
        if let Some(found) = signal::take(set) {
            user::put_optional(info, found.to_bytes())?;
            return Ok(found.signo as u64);
        }
        thread.signals.borrow_mut().waiting = set;
        let why = sched::block(deadline, true);
        thread.signals.borrow_mut().waiting = 0;
        match why {
            Wake::Timeout => return Err(Errno::EAGAIN),
            Wake::Signal if signal::pending_set() & set == 0 => return Err(Errno::EINTR),
            _ => {}
        }
    }
}

/// The alternate signal stack.
pub fn sigaltstack(new: u64, old: u64) -> Result<u64> {
    let thread = sched::current();
    // SAFETY: the frame of this thread, which is inside the library OS.
    let rsp = unsafe { (*thread.frame()).rsp };
    let current = thread.signals.borrow().alt_stack;
    let flags = signal::frame::stack_flags(rsp, current);
    if new != 0 {
        // The last thing that Rust's runtime does before `main`.
        crate::power::stamp_once(Phase::Main);
        let [base, wanted, size]: [u64; 3] = user::get(new)?;
        let wanted = wanted as u32;
        if flags & linux::SS_ONSTACK != 0 {
            return Err(Errno::EPERM);
        }
        let stack = match wanted & !linux::SS_AUTODISARM {
            linux::SS_DISABLE => (0, 0, 0),
            0 | linux::SS_ONSTACK if size < linux::MINSIGSTKSZ as u64 => return Err(Errno::ENOMEM),
            0 | linux::SS_ONSTACK => (base, size, wanted & linux::SS_AUTODISARM),
            _ => return Err(Errno::EINVAL),
        };
        thread.signals.borrow_mut().alt_stack = stack;
    }
    user::put_optional(old, [current.0, flags as u64, current.1])?;
    Ok(0)
}

/// Sends a signal to the process.
pub fn kill(pid: u64, number: u64) -> Result<u64> {
    let pid = pid as i32;
    if number as u32 > 64 {
        return Err(Errno::EINVAL);
    }
    if !matches!(pid, 0 | -1) && pid.unsigned_abs() != PID {
        return Err(Errno::ESRCH);
    }
    if number != 0 {
        signal::send_to_process(Info::user(number as u32, signal::SI_USER, PID));
    }
    Ok(0)
}

fn send(tid: u64, number: u64, info: impl FnOnce(u32) -> Info) -> Result<u64> {
    if number as u32 > 64 || tid as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let thread = sched::find(tid as u32).ok_or(Errno::ESRCH)?;
    if number != 0 {
        signal::send_to_thread(&thread, info(number as u32));
    }
    Ok(0)
}

/// Sends a signal to a thread.
pub fn tkill(tid: u64, number: u64) -> Result<u64> {
    send(tid, number, |number| {
        Info::user(number, signal::SI_TKILL, PID)
    })
}

/// Sends a signal to a thread of a process.
pub fn tgkill(pid: u64, tid: u64, number: u64) -> Result<u64> {
    if pid as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    if pid as u32 != PID {
        return Err(Errno::ESRCH);
    }
    tkill(tid, number)
}

/// Sends a signal with information to the process.
pub fn rt_sigqueueinfo(pid: u64, number: u64, info: u64) -> Result<u64> {
    if pid as u32 != PID {
        return Err(Errno::ESRCH);
    }
    let bytes: [u8; 128] = user::get(info)?;
    if number as u32 > 64 {
        return Err(Errno::EINVAL);
    }
    if number != 0 {
        signal::send_to_process(Info::from_bytes(number as u32, &bytes));
    }
    Ok(0)
}

/// Sends a signal with information to a thread.
pub fn rt_tgsigqueueinfo(pid: u64, tid: u64, number: u64, info: u64) -> Result<u64> {
    if pid as u32 != PID {
        return Err(Errno::ESRCH);
    }
    let bytes: [u8; 128] = user::get(info)?;
    send(tid, number, |number| Info::from_bytes(number, &bytes))
}

/// Interrupted calls are repeated by the program itself, so there is nothing to restart.
pub fn restart_syscall() -> Result<u64> {
    Err(Errno::EINTR)
}
