//! The local APIC: the timer by TSC deadline or one-shot count, inter-processor interrupts by x2APIC or xAPIC.
//!
//! Source: Intel SDM volume 3, chapter 11.

use super::nucleus::{self, RegisterOp};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use unik_abi::layout::PHYSMAP_VADDR;

/// Vector of the deadline timer.
pub const TIMER_VECTOR: u8 = 0x20;
/// Vector that only wakes a halted vCPU or makes it look for work.
pub const WAKE_VECTOR: u8 = 0x22;
/// Vector that the nucleus answers with a TLB flush.
pub const FLUSH_VECTOR: u8 = 0x23;

static X2APIC: AtomicBool = AtomicBool::new(true);
static DEADLINE: AtomicBool = AtomicBool::new(true);
/// APIC timer ticks per 2^20 TSC ticks, where there is no deadline mode.
static RATIO: AtomicU64 = AtomicU64::new(0);

const XAPIC: u64 = PHYSMAP_VADDR + 0xfee0_0000;
const INITIAL_COUNT: u64 = 0x380;
const CURRENT_COUNT: u64 = 0x390;

fn write(register: u64, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        nucleus::wrmsr(0x800 + (register / 16) as u32, value as u64);
    } else {
        nucleus::registers(&mut [RegisterOp {
            address: XAPIC + register,
            value,
            write: 1,
        }]);
    }
}

/// Takes note of what CPUID leaf 1 ECX says, and measures the one-shot timer if that is what there is.
pub fn init(features: u32) {
    X2APIC.store(features >> 21 & 1 == 1, Ordering::Relaxed);
    DEADLINE.store(features >> 24 & 1 == 1, Ordering::Relaxed);
    if !has_deadline() {
        calibrate();
    }
}

/// Whether interrupts are acknowledged through the memory-mapped registers.
pub fn is_xapic() -> bool {
    !X2APIC.load(Ordering::Relaxed)
}

fn has_deadline() -> bool {
    DEADLINE.load(Ordering::Relaxed)
}

fn calibrate() {
    let before = super::rdtsc();
    write(INITIAL_COUNT, u32::MAX);
    while super::rdtsc() - before < 1_000_000 {
        super::pause();
    }
    let mut read = [RegisterOp {
        address: XAPIC + CURRENT_COUNT,
        value: 0,
        write: 0,
    }];
    nucleus::registers(&mut read);
    let (ticks, cycles) = ((u32::MAX - read[0].value) as u64, super::rdtsc() - before);
    write(INITIAL_COUNT, 0);
    RATIO.store(((ticks << 20) / cycles).max(1), Ordering::Relaxed);
}

fn one_shot(deadline: u64) {
    let count = match deadline {
        0 => 0,
        _ => {
            let cycles = deadline.saturating_sub(super::rdtsc()) as u128;
            ((cycles * RATIO.load(Ordering::Relaxed) as u128) >> 20).clamp(1, u32::MAX as u128)
                as u32
        }
    };
    write(INITIAL_COUNT, count);
}

/// Arms this vCPU's timer for TSC value `deadline` (0: none). It may fire early, never silently not at all.
pub fn arm(deadline: u64) {
    if has_deadline() {
        nucleus::arm(deadline)
    } else {
        one_shot(deadline)
    }
}

/// Arms the timer (or keeps it, with [`nucleus::KEEP_DEADLINE`]) and halts until an interrupt comes.
pub fn halt(deadline: u64) {
    if has_deadline() || deadline == nucleus::KEEP_DEADLINE {
        return nucleus::halt(deadline);
    }
    one_shot(deadline);
    nucleus::halt(nucleus::KEEP_DEADLINE);
}

/// Sends `vector` to the vCPU with APIC id `target`.
pub fn send(target: usize, vector: u8) {
    command(target, vector as u32);
}

/// Sends an interrupt command (delivery mode and vector in the low word) to `target`.
pub fn command(target: usize, low: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        nucleus::send_ipi((target as u64) << 32 | low as u64);
    } else {
        nucleus::registers(&mut [
            RegisterOp {
                address: XAPIC + 0x310,
                value: (target as u32) << 24,
                write: 1,
            },
            RegisterOp {
                address: XAPIC + 0x300,
                value: low,
                write: 1,
            },
        ]);
    }
}
