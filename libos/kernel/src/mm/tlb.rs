//! TLB flushes. Removing or narrowing a mapping flushes every vCPU that may have used it; adding one needs nothing.

use crate::arch::smp;
use crate::arch::vcpu::{VCPU_BLOCKS, Vcpu};
use crate::arch::{apic, nucleus, pause};
use core::sync::atomic::{AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Flushes all vCPUs. An idle vCPU flushes when it leaves its idle loop ([`catch_up`]).
pub fn flush_all() {
    let generation = GENERATION.fetch_add(1, Ordering::SeqCst) + 1;
    let this = Vcpu::index();
    let others =
        || (0..smp::count()).filter(|&i| i != this && VCPU_BLOCKS[i].online.load(Ordering::SeqCst));
    for index in others() {
        VCPU_BLOCKS[index].want_flush(generation);
        apic::send(index, apic::FLUSH_VECTOR);
    }
    nucleus::flush_tlb();
    VCPU_BLOCKS[this].set_flushed(generation);
    for index in others() {
        while VCPU_BLOCKS[index].online.load(Ordering::SeqCst)
            && !VCPU_BLOCKS[index].flushed(generation)
        {
            pause();
        }
    }
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
