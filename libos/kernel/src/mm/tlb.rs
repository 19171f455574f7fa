//! TLB flushes. Removing or narrowing a mapping flushes every vCPU that may have used it; adding one needs nothing.
//!
//! A flush of the other vCPUs can be waited for at once ([`flush_all`]) or later ([`start`], [`wait`]): a vCPU that the host does not
//! run right now answers only after milliseconds.

use crate::arch::smp;
use crate::arch::vcpu::{VCPU_BLOCKS, Vcpu};
use crate::arch::{apic, nucleus, pause};
use core::sync::atomic::{AtomicU64, Ordering, fence};
use unik_abi::MAX_VCPUS;
use unik_abi::control::PORT_YIELD;

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Looks at a vCPU before it is taken for preempted by the host (each look ~50-150 cycles).
const PATIENCE: u32 = 500;

/// Flushes all vCPUs. An idle vCPU flushes when it leaves its idle loop ([`catch_up`]).
pub fn flush_all() {
    wait(start());
}

/// Flushes this vCPU and asks the others to; the answer names the flush for [`is_done`] and [`wait`].
pub fn start() -> u64 {
    let generation = GENERATION.fetch_add(1, Ordering::SeqCst) + 1;
    let this = Vcpu::index();
    for index in online_others() {
        VCPU_BLOCKS[index].want_flush(generation);
        apic::send(index, apic::FLUSH_VECTOR);
    }
    nucleus::flush_tlb();
    VCPU_BLOCKS[this].set_flushed(generation);
    generation
}

/// Whether no vCPU can use anything any more that was removed before this flush was started.
pub fn is_done(generation: u64) -> bool {
    others().all(|index| has_flushed(index, generation))
}

/// Waits until [`is_done`].
pub fn wait(generation: u64) {
    others().for_each(|index| until(|| has_flushed(index, generation)));
}

/// A full memory barrier on each vCPU that runs a program thread: the interrupt and the return from it. The big lock is held.
pub fn barrier() {
    fence(Ordering::SeqCst);
    let mut before = [None; MAX_VCPUS];
    for index in online_others() {
        before[index] = Some(VCPU_BLOCKS[index].answers());
        apic::send(index, apic::FLUSH_VECTOR);
    }
    for (vcpu, before) in VCPU_BLOCKS.iter().zip(before) {
        let answered = || before.is_none_or(|before| vcpu.answers() != before);
        until(|| answered() || !vcpu.online.load(Ordering::SeqCst));
    }
}

fn until(done: impl Fn() -> bool) {
    let mut looks = 0;
    while !done() {
        looks += 1;
        if looks % PATIENCE == 0 {
            nucleus::out32(PORT_YIELD, 0);
        }
        pause();
    }
}

fn others() -> impl Iterator<Item = usize> {
    let this = Vcpu::index();
    (0..smp::count()).filter(move |&index| index != this)
}

fn online_others() -> impl Iterator<Item = usize> {
    others().filter(|&index| VCPU_BLOCKS[index].online.load(Ordering::SeqCst))
}

fn has_flushed(index: usize, generation: u64) -> bool {
    let vcpu = &VCPU_BLOCKS[index];
    !vcpu.online.load(Ordering::SeqCst) || vcpu.flushed(generation)
}

/// Makes up for flushes that this vCPU slept through. Called with the big lock held, before a program thread runs here again.
pub fn catch_up() {
    let this = Vcpu::this();
    let generation = GENERATION.load(Ordering::SeqCst);
    this.online.store(true, Ordering::SeqCst);
    if !this.flushed(generation) {
        nucleus::flush_tlb();
        this.set_flushed(generation);
    }
}
