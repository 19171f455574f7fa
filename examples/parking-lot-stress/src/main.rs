//! parking_lot's locks, condition variables and once cells (which park threads by futex themselves) under many threads.

use parking_lot::{
    Condvar, FairMutex, Mutex, Once, ReentrantMutex, RwLock, RwLockUpgradableReadGuard,
};
use std::cell::Cell;
use std::thread;
use std::time::Duration;

const EACH: u64 = 5_000;

fn main() {
    let mutex = Mutex::new(0u64);
    many(8, || *mutex.lock() += 1);
    println!("mutex {}", mutex.into_inner());
    let fair = FairMutex::new(0u64);
    many(4, || *fair.lock() += 1);
    println!("fair {}", fair.into_inner());
    let reentrant = ReentrantMutex::new(Cell::new(0u64));
    many(4, || {
        let (outer, inner) = (reentrant.lock(), reentrant.lock());
        outer.set(inner.get() + 1);
    });
    println!("reentrant {}", reentrant.into_inner().get());
    println!("rwlock {}", readers_and_writers());
    println!("handover {}", handover());
    println!(
        "timed out {}",
        Mutex::new(())
            .try_lock_for(Duration::from_millis(1))
            .is_some()
    );
    let (once, count) = (Once::new(), Mutex::new(0));
    many(8, || once.call_once(|| *count.lock() += 1));
    println!("once {}", count.into_inner());
}

fn many(threads: usize, work: impl Fn() + Sync) {
    thread::scope(|s| (0..threads).for_each(|_| drop(s.spawn(|| (0..EACH).for_each(|_| work())))));
}

fn readers_and_writers() -> u64 {
    let lock = RwLock::new(0u64);
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| (0..EACH).for_each(|_| *lock.write() += 1));
            s.spawn(|| (0..EACH).for_each(|_| assert!(*lock.read() <= 6 * EACH)));
            s.spawn(|| {
                for _ in 0..EACH {
                    let read = lock.upgradable_read();
                    let before = *read;
                    let mut write = RwLockUpgradableReadGuard::upgrade(read);
                    assert_eq!(*write, before);
                    *write += 1;
                }
            });
        }
    });
    lock.into_inner()
}

fn handover() -> u64 {
    let (turn, changed) = (Mutex::new(0u64), Condvar::new());
    thread::scope(|s| {
        for side in 0..4 {
            let (turn, changed) = (&turn, &changed);
            s.spawn(move || {
                for _ in 0..500 {
                    let mut now = turn.lock();
                    changed.wait_while(&mut now, |n| *n % 4 != side);
                    *now += 1;
                    changed.notify_all();
                }
            });
        }
    });
    turn.into_inner()
}
