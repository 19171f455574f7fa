//! What interrupts mean. Called with the big lock held, outside the nucleus.

use crate::arch::apic;
use crate::arch::vcpu::Vectors;
use crate::sched::timers;
use unik_abi::control::CONTROL_VECTOR;

/// Handles what arrived.
pub fn dispatch(vectors: Vectors) {
    if vectors.has(apic::TIMER_VECTOR) {
        timers::interrupt();
    }
    if vectors.has(CONTROL_VECTOR) {
        crate::signal::from_monitor();
    }
    crate::console::interrupt(vectors);
}
