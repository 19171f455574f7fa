//! What a vCPU does when no thread is ready: look for a while, then halt.
//!
//! A halt and the interrupt that ends it cost 50-100 us on a paravirtual KVM, so looking pays when work comes soon. The time spent
//! looking grows when it found something, or would have if it had been the longest (as KVM's own halt polling does), else it shrinks.

use super::{Thread, share_the_rest, switch_to, take_ready, timers};
use crate::arch::vcpu::Vcpu;
use crate::arch::{apic, nucleus, pause, rdtsc};
use crate::{lock, net, time};
use alloc::boxed::Box;
use core::cell::Cell;
use core::sync::atomic::{AtomicPtr, Ordering};
use unik_abi::MAX_VCPUS;

/// Longest look, nanoseconds.
const MAX_LOOK: u64 = 200_000;
/// What a halt and the interrupt that ends it take themselves, nanoseconds.
const HALT: u64 = 100_000;
const MIN_LOOK: u64 = 5_000;

static IDLE: [AtomicPtr<Thread>; MAX_VCPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_VCPUS];

/// Makes what runs now, on the stack that ends at `stack_top`, the idle thread of this vCPU.
pub fn install(stack_top: u64) {
    let thread = Box::leak(Box::new(Thread::idle(stack_top)));
    let vcpu = Vcpu::this();
    vcpu.set_current(thread, stack_top);
    IDLE[Vcpu::index()].store(thread, Ordering::Release);
}

/// The idle thread of vCPU `index`.
pub fn thread_of(index: usize) -> &'static Thread {
    // SAFETY: installed before the vCPU schedules anything, never freed.
    unsafe { &*IDLE[index].load(Ordering::Acquire) }
}

/// The idle loop. Entered with the big lock held; never returns.
pub fn run() -> ! {
    let look = Cell::new(50_000u64);
    loop {
        crate::interrupts::dispatch(Vcpu::this().take_vectors());
        timers::run_due();
        net::look();
        if let Some(next) = take_ready() {
            timers::watch_next();
            share_the_rest();
            switch_to(&next);
            continue;
        }
        wait_for_work(&look);
    }
}

/// Gives the big lock back, waits until there may be work, and takes the lock again.
fn wait_for_work(look: &Cell<u64>) {
    let vcpu = Vcpu::this();
    vcpu.online.store(false, Ordering::SeqCst);
    let due = timers::next().map_or(u64::MAX, time::to_tsc);
    vcpu.polling.store(true, Ordering::SeqCst);
    lock::release();
    let start = rdtsc();
    let end = start + time::ns_to_ticks(look.get());
    let found = loop {
        let now = rdtsc();
        if super::has_ready() || vcpu.has_pending() || net::card::waiting() || now >= due {
            break true;
        }
        if now >= end {
            break false;
        }
        pause();
    };
    if found {
        look.set((look.get() * 2).min(MAX_LOOK));
        vcpu.polling.store(false, Ordering::SeqCst);
        return lock::acquire();
    }
    lock::acquire();
    vcpu.polling.store(false, Ordering::SeqCst);
    if super::has_ready() || vcpu.has_pending() || net::rest() {
        return;
    }
    let deadline = timers::idle_deadline().map_or(nucleus::KEEP_DEADLINE, time::to_tsc);
    vcpu.halted.store(true, Ordering::SeqCst);
    lock::release();
    apic::halt(deadline);
    let soon = rdtsc() - start < time::ns_to_ticks(MAX_LOOK + HALT);
    look.set(if soon {
        (look.get() * 2).min(MAX_LOOK)
    } else {
        (look.get() / 2).max(MIN_LOOK)
    });
    vcpu.halted.store(false, Ordering::SeqCst);
    lock::acquire();
}
