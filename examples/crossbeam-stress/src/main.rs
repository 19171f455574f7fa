//! Crossbeam's channels, queues, deques, epochs and wait groups under many threads.

use crossbeam::channel::{self, Receiver, Sender, select};
use crossbeam::deque::{Injector, Steal, Worker};
use crossbeam::epoch::{self, Atomic, Owned};
use crossbeam::queue::{ArrayQueue, SegQueue};
use crossbeam::sync::{ShardedLock, WaitGroup};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const EACH: u64 = 5_000;

fn main() {
    for capacity in [None, Some(0), Some(1), Some(64)] {
        let pair = capacity.map_or_else(channel::unbounded, channel::bounded);
        println!("channel {capacity:?}: {}", many_to_many(pair));
    }
    println!("select {}", selecting());
    println!("queues {}", queues());
    println!("stolen {}", stealing());
    println!("epoch {}", swapping());
    println!("sharded {}", sharded());
}

fn many_to_many((sender, receiver): (Sender<u64>, Receiver<u64>)) -> u64 {
    let sum = AtomicU64::new(0);
    crossbeam::scope(|s| {
        for t in 0..4 {
            let (sender, receiver, sum) = (sender.clone(), receiver.clone(), &sum);
            s.spawn(move |_| (0..EACH).for_each(|n| sender.send(t * EACH + n).unwrap()));
            s.spawn(move |_| {
                (0..EACH)
                    .for_each(|_| _ = sum.fetch_add(receiver.recv().unwrap(), Ordering::Relaxed))
            });
        }
    })
    .unwrap();
    sum.into_inner()
}

fn selecting() -> u64 {
    let (a, from_a) = channel::bounded(1);
    let (b, from_b) = channel::bounded(1);
    crossbeam::scope(|s| {
        s.spawn(move |_| (0..EACH).for_each(|n| a.send(n).unwrap()));
        s.spawn(move |_| (0..EACH).for_each(|n| b.send(n * 2).unwrap()));
        let (mut sum, mut from_a, mut from_b, mut open) = (0, from_a, from_b, 2);
        while open > 0 {
            select! {
                recv(from_a) -> n => match n {
                    Ok(n) => sum += n,
                    Err(_) => (from_a, open) = (channel::never(), open - 1),
                },
                recv(from_b) -> n => match n {
                    Ok(n) => sum += n,
                    Err(_) => (from_b, open) = (channel::never(), open - 1),
                },
                default(Duration::from_secs(10)) => panic!("nothing came for ten seconds"),
            }
        }
        sum
    })
    .unwrap()
}

fn queues() -> u64 {
    let (bounded, unbounded, sum) = (ArrayQueue::new(32), SegQueue::new(), AtomicU64::new(0));
    crossbeam::scope(|s| {
        for _ in 0..3 {
            s.spawn(|_| {
                for n in 0..EACH {
                    while bounded.push(n).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
            s.spawn(|_| {
                for _ in 0..EACH {
                    let n = loop {
                        match bounded.pop() {
                            Some(n) => break n,
                            None => std::thread::yield_now(),
                        }
                    };
                    unbounded.push(n + 1);
                }
            });
        }
    })
    .unwrap();
    while let Some(n) = unbounded.pop() {
        sum.fetch_add(n, Ordering::Relaxed);
    }
    sum.into_inner()
}

fn stealing() -> u64 {
    let (global, sum, wait) = (Injector::new(), AtomicU64::new(0), WaitGroup::new());
    (0..EACH * 4).for_each(|n| global.push(n));
    crossbeam::scope(|s| {
        for _ in 0..4 {
            let (global, sum, wait) = (&global, &sum, wait.clone());
            s.spawn(move |_| {
                let local = Worker::new_fifo();
                loop {
                    match local
                        .pop()
                        .map_or_else(|| global.steal_batch_and_pop(&local), Steal::Success)
                    {
                        Steal::Success(n) => _ = sum.fetch_add(n, Ordering::Relaxed),
                        Steal::Retry => {}
                        Steal::Empty => break,
                    }
                }
                drop(wait);
            });
        }
        wait.wait();
    })
    .unwrap();
    sum.into_inner()
}

/// Readers see whole pairs while writers replace them.
fn swapping() -> bool {
    let pair = Atomic::new((0u64, 0u64));
    crossbeam::scope(|s| {
        for t in 0..2 {
            let pair = &pair;
            s.spawn(move |_| {
                for n in 0..EACH {
                    let guard = epoch::pin();
                    let old =
                        pair.swap(Owned::new((n * 2 + t, n * 2 + t)), Ordering::AcqRel, &guard);
                    // SAFETY: `old` is out of the structure; readers that still hold it are pinned.
                    unsafe { guard.defer_destroy(old) };
                }
            });
        }
        let readers: Vec<_> = (0..2)
            .map(|_| s.spawn(|_| (0..EACH).all(|_| whole(&pair))))
            .collect();
        readers.into_iter().all(|r| r.join().unwrap())
    })
    .unwrap()
}

fn whole(pair: &Atomic<(u64, u64)>) -> bool {
    let guard = epoch::pin();
    // SAFETY: loaded while pinned, never null.
    let (a, b) = unsafe { pair.load(Ordering::Acquire, &guard).deref() };
    a == b
}

fn sharded() -> u64 {
    let lock = ShardedLock::new(0u64);
    crossbeam::scope(|s| {
        for _ in 0..4 {
            s.spawn(|_| (0..500).for_each(|_| *lock.write().unwrap() += 1));
            s.spawn(|_| (0..500).for_each(|_| assert!(*lock.read().unwrap() <= 2000)));
        }
    })
    .unwrap();
    lock.into_inner().unwrap()
}
