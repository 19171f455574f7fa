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
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use thread::{State, Thread};

/// How long a thread may run while others wait, nanoseconds.
pub const SLICE: u64 = 4_000_000;

/// Number of threads in the ready queue, readable without the lock by polling vCPUs.
static READY: AtomicUsize = AtomicUsize::new(0);

struct Scheduler {
    threads: BTreeMap<u32, Rc<Thread>>,
    ready: VecDeque<Rc<Thread>>,
    /// Threads that exited; freed once nobody runs on their stacks.
    dead: Vec<Rc<Thread>>,
    next_tid: u32,
}

static SCHEDULER: Locked<Scheduler> = Locked::new(Scheduler {
    threads: BTreeMap::new(),
    ready: VecDeque::new(),
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

/// Whether threads wait for a vCPU. Needs no lock.
pub fn has_ready() -> bool {
    READY.load(Ordering::SeqCst) > 0
}

fn make_ready(thread: Rc<Thread>) {
    thread.state.set(State::Ready);
    let mut scheduler = SCHEDULER.get();
    scheduler.ready.push_back(thread);
    READY.store(scheduler.ready.len(), Ordering::SeqCst);
    drop(scheduler);
    call_for_help();
}

/// Sees to it that a vCPU takes the ready threads: a polling one by itself, a halted one by interrupt, else the running ones at the end of a slice.
fn call_for_help() {
    let vcpus = &VCPU_BLOCKS[..smp::count()];
    if vcpus.iter().any(|v| v.polling.load(Ordering::SeqCst)) {
        return;
    }
    for (index, vcpu) in vcpus.iter().enumerate() {
        if vcpu.halted.swap(false, Ordering::SeqCst) {
            apic::send(index, apic::WAKE_VECTOR);
            return;
        }
    }
    if !current().is_idle {
        timers::ensure_armed(time::now() + SLICE);
    }
}

/// After a vCPU took a ready thread while more are waiting: somebody else may be free for them, else this one's slice must end.
fn share_the_rest() {
    if has_ready() {
        call_for_help();
        timers::ensure_armed(time::now() + SLICE);
    }
}

fn take_ready() -> Option<Rc<Thread>> {
    let mut scheduler = SCHEDULER.get();
    let this = Vcpu::index();
    let at = scheduler
        .ready
        .iter()
        .position(|thread| thread.may_run_on(this))?;
    let next = scheduler.ready.remove(at);
    READY.store(scheduler.ready.len(), Ordering::SeqCst);
    next
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
        this.state.set(State::Ready);
        let mut scheduler = SCHEDULER.get();
        scheduler.ready.push_back(this);
        READY.store(scheduler.ready.len(), Ordering::SeqCst);
        drop(scheduler);
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
        yield_now();
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

/// Moves the current thread, which may not run here any more, to a vCPU where it may.
pub fn migrate() {
    if let Some(this) = current_rc() {
        make_ready(this);
        schedule();
    }
}
