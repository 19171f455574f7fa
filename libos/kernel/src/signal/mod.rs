//! Signals (signal(7)): dispositions, pending sets, delivery.
//!
//! - [`info`]: `siginfo_t`. [`frame`]: the frame on the program's stack and sigreturn.

pub mod frame;
pub mod info;

use crate::arch::frame::{Frame, NO_SYSCALL};
use crate::errno::Errno;
use crate::lock::Locked;
use crate::sched::thread::{State, Thread};
use crate::sched::{self, Wake};
use crate::{power, process};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
pub use info::*;
use linux_raw_sys::general as linux;
use unik_abi::control::ExitReport;
use unik_fs::wait::{WaitQueue, ready};

/// Bit of a signal in a set.
pub const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// Signals that cannot be blocked, caught or ignored.
pub const UNBLOCKABLE: u64 = bit(linux::SIGKILL) | bit(linux::SIGSTOP);

/// What rt_sigaction sets, in the kernel's layout.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Action {
    /// SIG_DFL (0), SIG_IGN (1) or the handler.
    pub handler: u64,
    /// SA_*.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Blocked meanwhile.
    pub mask: u64,
}

// SAFETY: four integers without padding.
unsafe impl crate::mm::user::Plain for Action {}

const DEFAULT: u64 = 0;
const IGNORE: u64 = 1;

/// Signals waiting for delivery: a set, and the information of each in order.
#[derive(Default)]
pub struct Pending {
    set: u64,
    queue: VecDeque<Info>,
}

/// Standard signals are kept once, real-time signals queue up to this many (RLIMIT_SIGPENDING).
const MAX_QUEUED: usize = 1024;

impl Pending {
    fn add(&mut self, info: Info) -> bool {
        if info.signo < 32 && self.set & bit(info.signo) != 0 {
            return true;
        }
        if self.queue.len() >= MAX_QUEUED {
            return false;
        }
        self.set |= bit(info.signo);
        self.queue.push_back(info);
        true
    }

    /// Takes the lowest pending signal in `wanted`.
    fn take(&mut self, wanted: u64) -> Option<Info> {
        let set = self.set & wanted;
        if set == 0 {
            return None;
        }
        let signo = set.trailing_zeros() + 1;
        let at = self.queue.iter().position(|info| info.signo == signo)?;
        let info = self.queue.remove(at);
        if !self.queue.iter().any(|info| info.signo == signo) {
            self.set &= !bit(signo);
        }
        info
    }

    fn forget(&mut self, set: u64) {
        self.set &= !set;
        self.queue.retain(|info| bit(info.signo) & set == 0);
    }
}

/// What a thread has of its own.
#[derive(Default)]
pub struct ThreadSignals {
    /// Blocked set.
    pub blocked: u64,
    /// Set to restore after the handler (sigsuspend, ppoll, ...).
    pub saved_mask: Option<u64>,
    /// Signals that sigtimedwait waits for.
    pub waiting: u64,
    /// Alternate stack: base, size, flags.
    pub alt_stack: (u64, u64, u32),
    pending: Pending,
}

struct Shared {
    actions: [Action; 64],
    pending: Pending,
}

static SHARED: Locked<Shared> = Locked::new(Shared {
    actions: [Action {
        handler: 0,
        flags: 0,
        restorer: 0,
        mask: 0,
    }; 64],
    pending: Pending {
        set: 0,
        queue: VecDeque::new(),
    },
});

/// Whom signalfd tells of new signals.
pub struct Arrival(pub WaitQueue);
static ARRIVAL: Locked<Option<Rc<Arrival>>> = Locked::new(None);

/// Woken whenever a signal becomes pending.
pub fn arrival() -> Rc<Arrival> {
    ARRIVAL
        .get()
        .get_or_insert_with(|| Rc::new(Arrival(WaitQueue::new())))
        .clone()
}

/// The action of a signal (1..=64).
pub fn action(signal: u32) -> Action {
    SHARED.get().actions[signal as usize - 1]
}

/// Changes an action; a signal that is ignored from now on is no longer pending.
pub fn set_action(signal: u32, action: Action) {
    let mut shared = SHARED.get();
    shared.actions[signal as usize - 1] = action;
    let ignored = is_ignored(&action, signal);
    if ignored {
        shared.pending.forget(bit(signal));
    }
    drop(shared);
    if ignored {
        sched::threads()
            .iter()
            .for_each(|thread| thread.signals.borrow_mut().pending.forget(bit(signal)));
    }
    let handled = (1..=64)
        .filter(|&n| SHARED.get().actions[n as usize - 1].handler != DEFAULT)
        .fold(0, |set, n| set | bit(n));
    // SAFETY: the control page is mapped for ever; the monitor only reads this field.
    unsafe { (&raw mut (*power::control_page()).handled).write_volatile(handled) };
}

/// Whether the default action of a signal is to do nothing. Stop signals count too: one process with nobody to continue it is not stopped.
fn default_ignores(signal: u32) -> bool {
    matches!(
        signal,
        linux::SIGCHLD
            | linux::SIGURG
            | linux::SIGWINCH
            | linux::SIGCONT
            | linux::SIGSTOP
            | linux::SIGTSTP
            | linux::SIGTTIN
            | linux::SIGTTOU
    )
}

fn is_ignored(action: &Action, signal: u32) -> bool {
    match action.handler {
        IGNORE => true,
        DEFAULT => default_ignores(signal),
        _ => false,
    }
}

fn ignored(signal: u32) -> bool {
    is_ignored(&action(signal), signal)
}

/// Whether a signal would interrupt `thread` now.
pub fn is_deliverable(thread: &Thread) -> bool {
    let own = thread.signals.borrow();
    let open = !own.blocked | own.waiting | UNBLOCKABLE;
    (own.pending.set | SHARED.get().pending.set) & open != 0
}

/// Signals pending for the current thread (rt_sigpending).
pub fn pending_set() -> u64 {
    sched::current().signals.borrow().pending.set | SHARED.get().pending.set
}

/// Takes a pending signal out of `set` for the current thread (sigtimedwait, signalfd).
pub fn take(set: u64) -> Option<Info> {
    let own = sched::current().signals.borrow_mut().pending.take(set);
    own.or_else(|| SHARED.get().pending.take(set))
}

/// Sends a signal to one thread.
pub fn send_to_thread(thread: &Rc<Thread>, info: Info) {
    let blocked = thread.signals.borrow().blocked & bit(info.signo) != 0;
    if !blocked && ignored(info.signo) {
        return;
    }
    thread.signals.borrow_mut().pending.add(info);
    notify(thread);
    arrival().0.wake(ready::IN);
}

/// Sends a signal to the process: whichever thread does not block it takes it.
pub fn send_to_process(info: Info) {
    let threads = sched::threads();
    let set = bit(info.signo);
    let taker = threads.iter().find(|thread| {
        let own = thread.signals.borrow();
        (!own.blocked | own.waiting) & set != 0
    });
    if taker.is_some()
        && ignored(info.signo)
        && !threads
            .iter()
            .any(|thread| thread.signals.borrow().waiting & set != 0)
    {
        return;
    }
    SHARED.get().pending.add(info);
    if let Some(thread) = taker {
        notify(thread);
    }
    arrival().0.wake(ready::IN);
}

fn notify(thread: &Rc<Thread>) {
    if !is_deliverable(thread) {
        return;
    }
    if thread.state.get() == State::Blocked && thread.interruptible.get() {
        sched::wake(thread, Wake::Signal);
    } else {
        sched::kick(thread);
    }
}

/// A fault of the current thread: the signal is delivered even if it is blocked or ignored, which then kills.
pub fn force(info: Info, vector: u64, error: u64, address: u64) {
    let thread = sched::current();
    let frame = thread.frame();
    // SAFETY: the frame of a thread that is inside the library OS.
    let (rip, rsp) = unsafe { ((*frame).rip, (*frame).rsp) };
    power::set_fault(vector, error, address, rip, rsp);
    let mut own = thread.signals.borrow_mut();
    let blocked = own.blocked & bit(info.signo) != 0;
    if blocked || SHARED.get().actions[info.signo as usize - 1].handler == IGNORE {
        SHARED.get().actions[info.signo as usize - 1].handler = DEFAULT;
        own.blocked &= !bit(info.signo);
    }
    own.pending.add(info);
}

/// What the monitor asked for: SIGINT, SIGTERM and the like.
pub fn from_monitor() {
    // SAFETY: the control page is mapped for ever; the field is shared with the monitor as an atomic.
    let mailbox = unsafe {
        core::sync::atomic::AtomicU64::from_ptr(&raw mut (*power::control_page()).signals)
    };
    let mut set = mailbox.swap(0, core::sync::atomic::Ordering::SeqCst);
    while set != 0 {
        let signal = set.trailing_zeros() + 1;
        set &= set - 1;
        send_to_process(Info::kernel(signal));
    }
}

/// Delivers what is deliverable before the program goes on. Returns whether registers beyond rax changed.
pub fn deliver(frame: &mut Frame, errno: Option<Errno>) -> bool {
    let mut changed = false;
    let mut errno = errno.filter(|_| frame.orig_rax != NO_SYSCALL);
    loop {
        let open = !sched::current().signals.borrow().blocked | UNBLOCKABLE;
        let Some(info) = take(open) else { break };
        let action = action(info.signo);
        if is_ignored(&action, info.signo) {
            continue;
        }
        if action.handler == DEFAULT {
            die(info.signo);
        }
        if action.flags & linux::SA_RESETHAND as u64 != 0 {
            set_action(info.signo, Action::default());
        }
        if errno.take() == Some(Errno::EINTR)
            && action.flags & linux::SA_RESTART as u64 != 0
            && restarts(frame)
        {
            restart(frame);
        }
        if frame::push(frame, &info, &action).is_err() {
            die(linux::SIGSEGV);
        }
        changed = true;
    }
    let mut own = sched::current().signals.borrow_mut();
    if let Some(mask) = own.saved_mask.take() {
        own.blocked = mask;
    }
    changed
}

/// Whether an interrupted call starts again after a handler with SA_RESTART (signal(7), "Interruption of system calls").
fn restarts(frame: &Frame) -> bool {
    match frame.orig_rax {
        202 => frame.r10 == 0 || frame.rsi & 0x7f != 0, // futex wait without a timeout
        0 | 1 | 19 | 20 | 42 | 43 | 44 | 45 | 46 | 47 | 288 => {
            !crate::sys::socket::has_timeout(frame.rdi)
        }
        2 | 16 | 17 | 18 | 61 | 72 | 73 | 247 | 257 | 295 | 296 | 318 | 327 | 328 | 437 => true,
        _ => false,
    }
}

/// Makes the program repeat its system call: back to the `syscall`, or to the `lea` before a trampoline's jump.
fn restart(frame: &mut Frame) {
    const TRAMPOLINE: u64 = 15; // lea back(%rip),%rcx (7 bytes); jmp *%gs:entry (8 bytes)
    let is_syscall = crate::mm::user::get::<[u8; 2]>(frame.rip.wrapping_sub(2))
        .is_ok_and(|bytes| bytes == [0x0f, 0x05]);
    frame.rip -= if is_syscall { 2 } else { TRAMPOLINE };
    frame.rax = frame.orig_rax;
}

/// The program dies by a signal.
pub fn die(signal: u32) -> ! {
    process::at_exit();
    power::exit(ExitReport::Signaled(signal as u8))
}
