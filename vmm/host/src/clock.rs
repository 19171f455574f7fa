//! The time stamp counter and the wall clock of the host.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The host's time stamp counter now.
pub fn tsc() -> u64 {
    // SAFETY: `rdtsc` has no precondition; Linux lets every process use it unless it asked not to.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A wall-clock time (nanoseconds since 1970) and the TSC value of the same moment. Of several tries the one with the
/// shortest time between two TSC readings is kept, so that a preemption in between does no harm.
pub fn wall_and_tsc() -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..4 {
        let before = tsc();
        let wall = SystemTime::now();
        let span = tsc().saturating_sub(before);
        if span < best.0 {
            let ns = wall
                .duration_since(UNIX_EPOCH)
                .unwrap_or(Duration::ZERO)
                .as_nanos() as u64;
            best = (span, ns, before + span / 2);
        }
    }
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    #[test]
    fn wall_and_tsc_move_forward_together() {
        let (wall_a, tsc_a) = super::wall_and_tsc();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let (wall_b, tsc_b) = super::wall_and_tsc();
        assert!(wall_b > wall_a && tsc_b > tsc_a);
    }
}
