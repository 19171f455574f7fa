//! What interrupts mean. Called with the big lock held, outside the nucleus.

use crate::arch::apic;
use crate::arch::vcpu::Vectors;
use crate::config;
use crate::console::Bus;
use crate::sched::{self, timers};
use unik_abi::control::{CONTROL_VECTOR, GSI_VECTOR_BASE};
use unik_abi::layout::IOAPIC_PADDR;
use unik_virtio::bus::{RegOp, RegisterBus};

/// Pins of the I/O APIC.
const PINS: u32 = 24;

/// Handles what arrived.
pub fn dispatch(vectors: Vectors) {
    if vectors.has(apic::TIMER_VECTOR) {
        timers::interrupt();
    }
    if vectors.has(apic::WAKE_VECTOR) {
        sched::woken();
    }
    if vectors.has(CONTROL_VECTOR) {
        crate::signal::from_monitor();
    }
    crate::console::interrupt(vectors);
    crate::net::interrupt(vectors);
}

/// The global system interrupt of the announced virtio-mmio window at `window`.
pub fn gsi_of(window: u64) -> Option<u32> {
    let known = config::get().windows.iter();
    known
        .filter(|(address, gsi)| *address == window && *gsi < PINS)
        .map(|&(_, gsi)| gsi)
        .next()
}

/// Whether the interrupt of `gsi` is among `vectors`.
pub fn has(vectors: Vectors, gsi: u32) -> bool {
    vectors.has(GSI_VECTOR_BASE + gsi as u8)
}

/// Routes `gsi` to vCPU 0 through the I/O APIC (82093AA).
pub fn route(gsi: u32) {
    let (select, data, low) = (IOAPIC_PADDR, IOAPIC_PADDR + 0x10, 0x10 + 2 * gsi);
    Bus.run(&mut [
        RegOp::write(select, low + 1),
        RegOp::write(data, 0),
        RegOp::write(select, low),
        RegOp::write(data, GSI_VECTOR_BASE as u32 + gsi),
    ]);
}
