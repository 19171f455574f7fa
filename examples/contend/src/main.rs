//! 64 threads that contend for the same mutex, read-write lock, atomic, channel and condition variable.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Condvar, Mutex, RwLock, mpsc};
use std::thread;

const THREADS: u64 = 64;
const EACH: u64 = 1_000;

fn main() {
    let (mutex, lock, atomic) = (Mutex::new(0u64), RwLock::new(0u64), AtomicU64::new(0));
    let (turn, changed, start) = (
        Mutex::new(0u64),
        Condvar::new(),
        Barrier::new(THREADS as usize),
    );
    let (sender, receiver) = mpsc::sync_channel(4);
    thread::scope(|s| {
        for t in 0..THREADS {
            let sender = sender.clone();
            let (mutex, lock, atomic, turn, changed, start) =
                (&mutex, &lock, &atomic, &turn, &changed, &start);
            s.spawn(move || {
                start.wait();
                for n in 0..EACH {
                    *mutex.lock().unwrap() += n;
                    atomic.fetch_add(1, Ordering::Relaxed);
                    if n % 8 == 0 {
                        *lock.write().unwrap() += 1;
                    } else {
                        assert!(*lock.read().unwrap() <= THREADS * EACH);
                    }
                    if n % 50 == 0 {
                        sender.send(t).unwrap();
                        thread::yield_now();
                    }
                }
                for round in 0..10 {
                    let mut now = changed
                        .wait_while(turn.lock().unwrap(), |n| *n != round * THREADS + t)
                        .unwrap();
                    *now += 1;
                    changed.notify_all();
                }
            });
        }
        drop(sender);
        println!("received {}", receiver.iter().sum::<u64>());
    });
    println!(
        "mutex {} rwlock {} atomic {} turns {}",
        mutex.into_inner().unwrap(),
        lock.into_inner().unwrap(),
        atomic.into_inner(),
        turn.into_inner().unwrap()
    );
}
