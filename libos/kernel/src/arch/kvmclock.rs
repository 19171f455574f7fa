//! kvmclock: how a monitor that hands over no configuration tells the frequency of the time stamp counter and the time of day.
//!
//! Source: Linux `Documentation/virt/kvm/x86/msr.rst` and `cpuid.rst`.

use super::nucleus::{self, CpuidQuery};
use crate::mm::frames;

const SIGNATURE_LEAF: u32 = 0x4000_0000;
const MSR_WALL_CLOCK: u32 = 0x4b56_4d00;
const MSR_SYSTEM_TIME: u32 = 0x4b56_4d01;
/// KVM_FEATURE_CLOCKSOURCE2.
const CLOCKSOURCE2: u32 = 1 << 3;

/// What it says.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// TSC frequency, kHz.
    pub khz: u64,
    /// CLOCK_REALTIME in nanoseconds at TSC value `tsc`.
    pub wall_ns: u64,
    /// See `wall_ns`.
    pub tsc: u64,
}

/// Asks, if this is KVM and it offers the clock.
pub fn read() -> Option<Reading> {
    let query = |leaf| CpuidQuery {
        leaf,
        ..CpuidQuery::default()
    };
    let mut leaves = [query(SIGNATURE_LEAF), query(SIGNATURE_LEAF + 1)];
    nucleus::cpuid(&mut leaves);
    let [id, features] = leaves;
    let signature = [id.ebx, id.ecx, id.edx].map(u32::to_le_bytes).concat();
    if signature != b"KVMKVMKVM\0\0\0" || features.eax & CLOCKSOURCE2 == 0 {
        return None;
    }
    let page = frames::alloc()?;
    nucleus::wrmsr(MSR_WALL_CLOCK, page);
    nucleus::wrmsr(MSR_SYSTEM_TIME, (page + 64) | 1);
    // SAFETY: KVM has filled both structures by the time the writes returned; the frame is ours and mapped for ever.
    let word =
        |offset: usize| unsafe { (frames::virt(page).add(offset) as *const u32).read_volatile() }
            as u64;
    let long = |offset: usize| word(offset) | word(offset + 4) << 32;
    let (seconds, nanoseconds) = (word(4), word(8));
    let (tsc, system_time, multiplier, shift) = (
        long(64 + 8),
        long(64 + 16),
        word(64 + 24),
        word(64 + 28) as u8 as i8,
    );
    nucleus::wrmsr(MSR_SYSTEM_TIME, 0);
    frames::free(page, 1);
    if multiplier == 0 {
        return None;
    }
    let khz = (1_000_000u64 << 32) / multiplier;
    let khz = if shift < 0 {
        khz << -shift
    } else {
        khz >> shift
    };
    Some(Reading {
        khz,
        wall_ns: seconds * 1_000_000_000 + nanoseconds + system_time,
        tsc,
    })
}
