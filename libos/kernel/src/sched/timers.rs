//! Deadlines of the whole system, and which vCPU's hardware timer watches them.
//!
//! Arming costs ~30 us on a paravirtual KVM, so a timer that is armed for no later than needed is left alone.

use crate::arch::vcpu::{VCPU_BLOCKS, Vcpu};
use crate::arch::{apic, smp};
use crate::lock::Locked;
use crate::sched::{self, Wake, thread::Thread};
use crate::time;
use alloc::rc::Rc;
use core::sync::atomic::Ordering;
use unik_abi::MAX_VCPUS;
use unik_core::timers::{TimerId, Timers};

/// What happens at a deadline.
pub enum Action {
    /// A thread's wait times out.
    Wake(Rc<Thread>),
    /// Something else: called with the big lock held.
    Call(Rc<dyn Fn()>),
}

static TIMERS: Locked<Timers<Action>> = Locked::new(Timers::new());
/// For what each vCPU's timer is armed, nanoseconds since boot; 0: not.
static ARMED: Locked<[u64; MAX_VCPUS]> = Locked::new([0; MAX_VCPUS]);

/// Adds a deadline, nanoseconds since boot.
pub fn add(deadline: u64, action: Action) -> TimerId {
    TIMERS.get().add(deadline, action)
}

/// Takes it back, if it has not passed.
pub fn cancel(id: TimerId) {
    TIMERS.get().cancel(id);
}

/// Runs what is due; makes sure the next deadline is watched by somebody unless this vCPU is about to idle.
pub fn run_due() {
    loop {
        let now = time::now();
        let Some(action) = TIMERS.get().pop_due(now) else {
            break;
        };
        match action {
            Action::Wake(thread) => sched::wake(&thread, Wake::Timeout),
            Action::Call(call) => call(),
        }
    }
}

/// Arms this vCPU's timer unless some vCPU's is armed for `deadline` or earlier.
pub fn ensure_armed(deadline: u64) {
    let this = Vcpu::index();
    if !watches(this, deadline) {
        ARMED.get()[this] = deadline;
        apic::arm(time::to_tsc(deadline));
    }
}

/// Asks the vCPU `cpu`, another one, to arm its timer for the end of its thread's slice, unless it is armed for `deadline` or earlier.
pub fn ensure_armed_on(cpu: usize, deadline: u64) {
    if !watches(cpu, deadline) {
        apic::send(cpu, apic::WAKE_VECTOR);
    }
}

/// Makes sure that the earliest deadline is watched by some vCPU.
pub fn watch_next() {
    let next = TIMERS.get().next();
    if let Some(next) = next
        && !watched_by_another(next)
    {
        ensure_armed(next);
    }
}

/// Whether the timer of vCPU `cpu` is armed for `deadline` or earlier.
fn watches(cpu: usize, deadline: u64) -> bool {
    let armed = ARMED.get()[cpu];
    armed != 0 && armed <= deadline
}

fn watched_by_another(deadline: u64) -> bool {
    let this = Vcpu::index();
    (0..smp::count()).any(|cpu| cpu != this && watches(cpu, deadline))
}

/// What an idle vCPU should arm before it halts: `None` to leave the timer as it is.
pub fn idle_deadline() -> Option<u64> {
    let next = TIMERS.get().next()?;
    if watched_by_another(next) {
        return None;
    }
    let this = Vcpu::index();
    if watches(this, next) {
        return None;
    }
    ARMED.get()[this] = next;
    Some(next)
}

/// The earliest deadline.
pub fn next() -> Option<u64> {
    TIMERS.get().next()
}

/// This vCPU's timer fired: run what is due, watch what is next, end the slice if threads wait.
pub fn interrupt() {
    let this = Vcpu::index();
    ARMED.get()[this] = 0;
    run_due();
    watch_next();
    if sched::has_ready() {
        VCPU_BLOCKS[this].resched.store(true, Ordering::SeqCst);
    }
}
