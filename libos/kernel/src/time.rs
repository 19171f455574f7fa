//! Clocks: nanoseconds from the time stamp counter.

use crate::arch::rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds per tick, as a 32.32 fixed-point number.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(0);
/// Ticks per nanosecond, 32.32.
static TICKS_PER_NS: AtomicU64 = AtomicU64::new(0);
/// TSC at boot.
static START: AtomicU64 = AtomicU64::new(0);
/// CLOCK_REALTIME at boot, nanoseconds.
static WALL: AtomicU64 = AtomicU64::new(0);
static KHZ: AtomicU64 = AtomicU64::new(0);

/// Resolution of all clocks, nanoseconds.
pub const RESOLUTION: u64 = 1;

/// Sets the clocks: TSC at boot, its frequency, and the wall-clock time (nanoseconds) at TSC value `wall_tsc`.
pub fn init(start: u64, khz: u64, wall_ns: u64, wall_tsc: u64) {
    KHZ.store(khz, Ordering::Relaxed);
    NS_PER_TICK.store(
        ((1_000_000u128 << 32) / khz as u128) as u64,
        Ordering::Relaxed,
    );
    TICKS_PER_NS.store(
        ((khz as u128) << 32).div_ceil(1_000_000) as u64,
        Ordering::Relaxed,
    );
    START.store(start, Ordering::Relaxed);
    let since_wall = start as i64 - wall_tsc as i64;
    let offset = if since_wall < 0 {
        -(ticks_to_ns(-since_wall as u64) as i64)
    } else {
        ticks_to_ns(since_wall as u64) as i64
    };
    WALL.store(wall_ns.saturating_add_signed(offset), Ordering::Relaxed);
}

/// TSC frequency, kHz.
pub fn khz() -> u64 {
    KHZ.load(Ordering::Relaxed)
}

/// Ticks to nanoseconds.
#[inline]
pub fn ticks_to_ns(ticks: u64) -> u64 {
    ((ticks as u128 * NS_PER_TICK.load(Ordering::Relaxed) as u128) >> 32) as u64
}

/// Nanoseconds to ticks, rounded up.
#[inline]
pub fn ns_to_ticks(ns: u64) -> u64 {
    ((ns as u128 * TICKS_PER_NS.load(Ordering::Relaxed) as u128) >> 32).min(u64::MAX as u128) as u64
}

/// Nanoseconds since boot (CLOCK_MONOTONIC, CLOCK_BOOTTIME).
#[inline]
pub fn now() -> u64 {
    ticks_to_ns(rdtsc().saturating_sub(START.load(Ordering::Relaxed)))
}

/// TSC value of a time since boot; never 0 and never the "keep" mark.
pub fn to_tsc(ns: u64) -> u64 {
    START
        .load(Ordering::Relaxed)
        .saturating_add(ns_to_ticks(ns))
        .saturating_add(1)
        .min(u64::MAX - 1)
}

/// CLOCK_REALTIME, nanoseconds since 1970.
#[inline]
pub fn realtime() -> u64 {
    WALL.load(Ordering::Relaxed) + now()
}

/// Sets CLOCK_REALTIME.
pub fn set_realtime(ns: u64) {
    WALL.store(ns.saturating_sub(now()), Ordering::Relaxed);
}

/// CLOCK_REALTIME at boot.
pub fn boot_realtime() -> u64 {
    WALL.load(Ordering::Relaxed)
}
