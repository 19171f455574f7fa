//! Clocks and sleeps: prints only what must hold, so that the output is always the same.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn main() {
    println!(
        "monotonic {}",
        (0..100_000).map(|_| Instant::now()).is_sorted()
    );
    println!(
        "sleeps long enough {}",
        [0u64, 1, 3, 10, 40]
            .iter()
            .all(|ms| slept(Duration::from_millis(*ms)))
    );
    println!(
        "not far too long {}",
        shortest(Duration::from_millis(20), 5) < Duration::from_millis(200)
    );
    let (_keep, receiver) = mpsc::channel::<()>();
    let start = Instant::now();
    println!(
        "timeout {:?} {}",
        receiver.recv_timeout(Duration::from_millis(15)),
        start.elapsed() >= Duration::from_millis(15)
    );
    let start = Instant::now();
    thread::park_timeout(Duration::from_millis(5));
    println!("parked {}", start.elapsed() < Duration::from_secs(5));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    println!(
        "this century {}",
        (1_700_000_000..4_000_000_000).contains(&now)
    );
    println!("clocks agree {}", agree(Duration::from_millis(100)));
    println!(
        "in parallel {}",
        parallel(20, Duration::from_millis(100)) < Duration::from_millis(1800)
    );
}

fn slept(time: Duration) -> bool {
    let start = Instant::now();
    thread::sleep(time);
    start.elapsed() >= time
}

fn shortest(time: Duration, tries: u32) -> Duration {
    let once = |_| {
        let start = Instant::now();
        thread::sleep(time);
        start.elapsed()
    };
    (0..tries).map(once).min().unwrap_or_default()
}

/// The monotonic and the wall clock measure the same time.
fn agree(time: Duration) -> bool {
    let (mono, wall) = (Instant::now(), SystemTime::now());
    thread::sleep(time);
    let (mono, wall) = (mono.elapsed(), wall.elapsed().unwrap_or_default());
    mono.abs_diff(wall) < time / 5
}

/// Threads that sleep at the same time do not wait for each other.
fn parallel(threads: u32, time: Duration) -> Duration {
    let start = Instant::now();
    thread::scope(|s| (0..threads).for_each(|_| drop(s.spawn(|| thread::sleep(time)))));
    start.elapsed()
}
