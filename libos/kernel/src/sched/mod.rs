//! Threads and who runs where: one ready queue for all vCPUs, preemption by a timer that is armed only while threads wait for a vCPU.
//!
//! - [`thread`]: what a thread is. [`idle`]: what a vCPU does without one. [`futex`]: waiting on words of memory.
//! - [`timers`]: deadlines. [`wait`]: waiting on files.
//!
//! Everything here runs with the big lock held; a switch hands the lock over.

pub mod futex;
pub mod idle;
pub mod thread;
pub mod timers;
pub mod wait;

use crate::arch::vcpu::{VCPU_BLOCKS, Vcpu};
use crate::arch::{self, apic, smp};
use crate::lock::Locked;
use crate::mm::tlb;
use crate::time;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use thread::{State, Thread};
use unik_core::runqueue::RunQueue;

/// How long a thread may run while others wait, nanoseconds.
pub const SLICE: u64 = 4_000_000;

/// The vCPUs for which a thread is ready, readable without the lock by polling ones.
static WANTED: AtomicU64 = AtomicU64::new(0);

struct Scheduler {
    threads: BTreeMap<u32, Rc<Thread>>,
    ready: RunQueue<Rc<Thread>>,
    /// Threads that exited; freed once nobody runs on their stacks.
    dead: Vec<Rc<Thread>>,
    next_tid: u32,
}

static SCHEDULER: Locked<Scheduler> = Locked::new(Scheduler {
    threads: BTreeMap::new(),
    ready: RunQueue::new(),
    dead: Vec::new(),
    next_tid: 1,
});

/// Why a blocked thread runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// What it waited for may have happened.
    Event,
    /// Its deadline passed.
    Timeout,
    /// A signal wants to be delivered.
    Signal,
}

/// The thread that runs here.
#[inline(always)]
pub fn current() -> &'static Thread {
    // SAFETY: the pointer was set by `switch_to` or at start; a thread outlives its time on a vCPU (see `Scheduler::dead`).
    unsafe { &*Vcpu::current() }
}

/// The current thread as a counted reference.
pub fn current_rc() -> Option<Rc<Thread>> {
    find(current().tid)
}

/// The thread with this id.
pub fn find(tid: u32) -> Option<Rc<Thread>> {
    SCHEDULER.get().threads.get(&tid).cloned()
}

/// All threads, by id.
pub fn threads() -> Vec<Rc<Thread>> {
    SCHEDULER.get().threads.values().cloned().collect()
}

/// Number of threads.
pub fn thread_count() -> usize {
    SCHEDULER.get().threads.len()
}

/// A fresh thread id.
pub fn new_tid() -> u32 {
    let mut scheduler = SCHEDULER.get();
    let tid = scheduler.next_tid;
    scheduler.next_tid += 1;
    tid
}

/// Adds a new thread and makes it ready.
pub fn add(thread: Rc<Thread>) {
    SCHEDULER.get().threads.insert(thread.tid, thread.clone());
    make_ready(thread);
}

/// Whether threads wait that may run on this vCPU. Needs no lock.
pub fn has_ready() -> bool {
    WANTED.load(Ordering::SeqCst) >> Vcpu::index() & 1 == 1
}

/// Puts `thread` at the end of the ready queue.
fn enqueue(thread: Rc<Thread>) {
    thread.state.set(State::Ready);
    let allowed = thread.affinity.get();
    change_ready(|ready| ready.push(thread, allowed));
}

/// Changes the ready queue, and what polling vCPUs see of it.
fn change_ready<T>(change: impl FnOnce(&mut RunQueue<Rc<Thread>>) -> T) -> T {
    let ready = &mut SCHEDULER.get().ready;
    let result = change(ready);
    WANTED.store(ready.wanted(), Ordering::SeqCst);
    result
}

fn make_ready(thread: Rc<Thread>) {
    let allowed = thread.affinity.get();
    enqueue(thread);
    call_for_help(allowed);
}

/// Sees to it that one of the `allowed` vCPUs takes a ready thread: a free one, else a running one at the end of a slice.
fn call_for_help(allowed: u64) {
    if summon(allowed) {
        return;
    }
    if allowed >> Vcpu::index() & 1 == 0 {
        timers::ensure_armed_on(allowed.trailing_zeros() as usize, time::now() + SLICE);
    } else if !current().is_idle {
        timers::ensure_armed(time::now() + SLICE);
    }
}

/// Finds a free vCPU among the `allowed` ones: a polling one sees the queue by itself, a halted one needs an interrupt.
fn summon(allowed: u64) -> bool {
    let vcpus = VCPU_BLOCKS[..smp::count()].iter().enumerate();
    let mut allowed = vcpus.filter(|(index, _)| allowed >> index & 1 == 1);
    let polls = |(_, vcpu): (usize, &Vcpu)| vcpu.polling.load(Ordering::SeqCst);
    if allowed.clone().any(polls) {
        return true;
    }
    let halted = allowed.find(|(_, vcpu)| vcpu.halted.swap(false, Ordering::SeqCst));
    if let Some((index, _)) = halted {
        apic::send(index, apic::WAKE_VECTOR);
    }
    halted.is_some()
}

/// After a vCPU took a ready thread while more are waiting: somebody else may be free for them, else this one's slice must end.
fn share_the_rest() {
    if WANTED.load(Ordering::SeqCst) == 0 {
        return;
    }
    let is_free =
        |vcpu: &Vcpu| vcpu.polling.load(Ordering::SeqCst) || vcpu.halted.load(Ordering::SeqCst);
    if VCPU_BLOCKS[..smp::count()].iter().any(is_free) {
        SCHEDULER.get().ready.waiting().any(summon);
    }
    if has_ready() {
        timers::ensure_armed(time::now() + SLICE);
    }
}

/// Another vCPU asked this one to look: if it is running, its slice ends some time.
pub fn woken() {
    if has_ready() && !current().is_idle {
        timers::ensure_armed(time::now() + SLICE);
    }
}

fn take_ready() -> Option<Rc<Thread>> {
    change_ready(|ready| ready.take(Vcpu::index()))
}

/// Wakes a blocked thread; nothing happens to one that is not blocked.
pub fn wake(thread: &Rc<Thread>, why: Wake) {
    if thread.state.get() == State::Blocked {
        thread.wake.set(why);
        make_ready(thread.clone());
    }
}

/// Makes the current thread wait until [`wake`], `deadline` (nanoseconds since boot) or, if `interruptible`, a signal.
pub fn block(deadline: Option<u64>, interruptible: bool) -> Wake {
    let thread = current();
    if interruptible && crate::signal::is_deliverable(thread) {
        return Wake::Signal;
    }
    thread.state.set(State::Blocked);
    thread.interruptible.set(interruptible);
    let timer = deadline.and_then(|at| Some(timers::add(at, timers::Action::Wake(current_rc()?))));
    schedule();
    if let Some(timer) = timer {
        timers::cancel(timer);
    }
    thread.wake.get()
}

/// Lets others run; the current thread goes to the end of the queue.
pub fn yield_now() {
    if has_ready()
        && let Some(this) = current_rc()
    {
        enqueue(this);
        schedule();
    }
}

/// Gives the vCPU to the next ready thread, or to this vCPU's idle thread. The current thread's state says what becomes of it.
fn schedule() {
    crate::net::look();
    if has_ready() {
        timers::run_due();
    }
    match take_ready() {
        Some(next) => {
            timers::watch_next();
            share_the_rest();
            switch_to(&next);
        }
        None => switch_to(idle::thread_of(Vcpu::index())),
    }
}

/// At the end of a slice or on request, before the program goes on.
pub fn preempt_if_due() {
    let vcpu = Vcpu::this();
    if vcpu.resched.swap(false, Ordering::SeqCst) {
        match current().may_run_on(Vcpu::index()) {
            true => yield_now(),
            false => migrate(),
        }
    }
}

unsafe extern "C" {
    fn switch_stack(save: *mut u64, load: u64);
}

fn switch_to(next: &Thread) {
    let previous = current();
    next.state.set(State::Running);
    if core::ptr::eq(previous, next) {
        return;
    }
    let now = arch::rdtsc();
    if !previous.is_idle {
        previous.leave(now);
    }
    if !next.is_idle {
        next.enter(now);
    }
    Vcpu::this().set_current(next as *const Thread as *mut Thread, next.kstack_top);
    // SAFETY: `next.sp` was stored by the switch that left it, or built by `Thread::new`; its stack is its own.
    unsafe { switch_stack(previous.sp.as_ptr(), next.sp.get()) };
    after_switch();
}

/// First thing after every switch, on the new thread's stack.
pub fn after_switch() {
    let dead = core::mem::take(&mut SCHEDULER.get().dead);
    drop(dead);
    if !current().is_idle {
        tlb::catch_up();
    }
}

/// Ends the current thread.
pub fn exit_current() -> ! {
    let thread = current();
    thread.state.set(State::Dead);
    let mut scheduler = SCHEDULER.get();
    if let Some(this) = scheduler.threads.remove(&thread.tid) {
        scheduler.dead.push(this);
    }
    drop(scheduler);
    schedule();
    unreachable!("a dead thread was scheduled")
}

/// Asks the vCPU that runs `thread` (if one does) to come into the library OS soon.
pub fn kick(thread: &Thread) {
    if thread.state.get() == State::Running {
        let cpu = thread.cpu.get();
        if cpu != Vcpu::index() {
            VCPU_BLOCKS[cpu].resched.store(true, Ordering::SeqCst);
            apic::send(cpu, apic::WAKE_VECTOR);
        }
    }
}

/// Restricts a thread to the `allowed` vCPUs, wherever it is.
pub fn restrict(thread: &Thread, allowed: u64) {
    thread.affinity.set(allowed);
    match thread.state.get() {
        State::Ready => {
            change_ready(|ready| ready.restrict(|other| other.tid == thread.tid, allowed));
        }
        State::Running if thread.may_run_on(thread.cpu.get()) => return,
        State::Running if thread.cpu.get() == Vcpu::index() => return migrate(),
        State::Running => return kick(thread),
        State::Blocked | State::Dead => return,
    }
    call_for_help(allowed);
}

/// Moves the current thread, which may not run here any more, to a vCPU where it may.
fn migrate() {
    if let Some(this) = current_rc() {
        make_ready(this);
        schedule();
    }
}
