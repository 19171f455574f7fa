//! The frequency of the time stamp counter where no KVM can be asked: from CPUID, else measured.

use raw_cpuid::CpuId;
use std::time::{Duration, Instant};

/// How long a measurement takes; its error is a few microseconds of this.
const WINDOW: Duration = Duration::from_millis(20);

/// kHz of the host's counter, which QEMU's emulation shows its guests.
pub fn khz() -> u64 {
    from_cpuid().unwrap_or_else(measured)
}

/// CPUID leaf 0x15: crystal frequency times a ratio. Many processors leave the crystal out.
fn from_cpuid() -> Option<u64> {
    let hz = CpuId::new().get_tsc_info()?.tsc_frequency()?;
    Some(hz / 1000)
}

/// Counts ticks against the monotonic clock.
fn measured() -> u64 {
    let clock = quanta::Clock::new();
    let (start, ticks) = (Instant::now(), clock.raw());
    std::thread::sleep(WINDOW);
    let (took, ticks) = (start.elapsed(), clock.raw().wrapping_sub(ticks));
    u64::try_from(u128::from(ticks) * 1_000_000 / took.as_nanos().max(1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_measurements_agree() {
        let (one, two) = (super::measured(), super::measured());
        assert!(one > 100_000, "{one} kHz");
        assert!(one.abs_diff(two) < one / 50, "{one} and {two} kHz");
    }
}
