//! What `std::thread` and `std::sync` offer, each used so that the output is always the same.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering, compiler_fence};
use std::sync::{Arc, Barrier, Condvar, Mutex, Once, OnceLock, RwLock, mpsc};
use std::thread;
use std::time::Duration;

thread_local! {
    static SLOT: Cell<u32> = const { Cell::new(7) };
}

fn main() {
    counters();
    channels();
    condvar_ping_pong();
    barrier_rounds();
    readers_and_writers();
    names_and_locals();
    panics_are_contained();
    parking();
    many_short_threads();
    one_sided_barriers();
    println!("done");
}

fn counters() {
    let total = Arc::new(Mutex::new(HashMap::new()));
    let threads: Vec<_> = (0..8u64)
        .map(|t| {
            let total = Arc::clone(&total);
            thread::spawn(move || {
                (0..1000u64).for_each(|i| *total.lock().unwrap().entry(i % 10).or_insert(0u64) += t)
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let mut all: Vec<_> = total
        .lock()
        .unwrap()
        .iter()
        .map(|(k, v)| (*k, *v))
        .collect();
    all.sort();
    println!("counters {all:?}");
}

fn channels() {
    let (sender, receiver) = mpsc::sync_channel(3);
    thread::scope(|s| {
        for t in 0..4u64 {
            let sender = sender.clone();
            s.spawn(move || (0..250).for_each(|i| sender.send(t * 1000 + i).unwrap()));
        }
        drop(sender);
        let (count, sum) = receiver.iter().fold((0, 0), |(n, sum), v| (n + 1, sum + v));
        println!("channel {count} messages, sum {sum}");
    });
}

fn condvar_ping_pong() {
    let turn = (Mutex::new(0u32), Condvar::new());
    thread::scope(|s| {
        for side in 0..2 {
            let turn = &turn;
            s.spawn(move || {
                for _ in 0..500 {
                    let mut now = turn
                        .1
                        .wait_while(turn.0.lock().unwrap(), |n| *n % 2 != side)
                        .unwrap();
                    *now += 1;
                    turn.1.notify_one();
                }
            });
        }
    });
    println!("ping-pong {} turns", turn.0.lock().unwrap());
}

fn barrier_rounds() {
    let (barrier, leaders) = (Barrier::new(5), AtomicUsize::new(0));
    thread::scope(|s| {
        for _ in 0..5 {
            s.spawn(|| {
                for _ in 0..20 {
                    if barrier.wait().is_leader() {
                        leaders.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    println!("barrier {} leaders", leaders.load(Ordering::Relaxed));
}

fn readers_and_writers() {
    let shared = RwLock::new((0u64, 0u64));
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..300 {
                    let mut pair = shared.write().unwrap();
                    pair.0 += 1;
                    pair.1 += 2;
                }
            });
            s.spawn(|| {
                for _ in 0..300 {
                    let pair = shared.read().unwrap();
                    assert_eq!(pair.0 * 2, pair.1);
                }
            });
        }
    });
    println!("rwlock {:?}", *shared.read().unwrap());
}

fn names_and_locals() {
    static ONCE: Once = Once::new();
    static CELL: OnceLock<String> = OnceLock::new();
    let named = thread::Builder::new()
        .name("worker-seven".into())
        .stack_size(256 << 10);
    let seen = named.spawn(|| {
        SLOT.set(SLOT.get() * 2);
        ONCE.call_once(|| println!("once"));
        (
            thread::current().name().map(str::to_owned),
            SLOT.get(),
            CELL.get_or_init(|| "cell".into()).clone(),
        )
    });
    println!(
        "named {:?}, here {}",
        seen.unwrap().join().unwrap(),
        SLOT.get()
    );
}

fn panics_are_contained() {
    std::panic::set_hook(Box::new(|_| {}));
    let joined = thread::spawn(|| panic!("in a thread")).join().unwrap_err();
    println!("thread panic {:?}", joined.downcast_ref::<&str>());
    println!("caught {}", catch_unwind(|| Vec::<u8>::new()[3]).is_err());
    let _ = std::panic::take_hook();
}

fn parking() {
    let parked = thread::spawn(|| {
        thread::park();
        "unparked"
    });
    thread::sleep(Duration::from_millis(5));
    parked.thread().unpark();
    println!("{}", parked.join().unwrap());
}

fn many_short_threads() {
    let sum: usize = (0..200)
        .map(|i| thread::spawn(move || i).join().unwrap())
        .sum();
    println!("short threads {sum}");
}

fn membarrier(command: i32, flags: u32) -> Result<i64, i32> {
    // SAFETY: the call takes numbers only.
    match unsafe { libc::syscall(libc::SYS_membarrier, command, flags, 0) } {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
        done => Ok(done),
    }
}

/// One thread stores and looks without a fence, the other lets the kernel fence both (`membarrier(2)`): at least one sees the other's store.
fn one_sided_barriers() {
    const ROUNDS: usize = 500;
    const PRIVATE: i32 = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED;
    println!("unregistered {:?}", membarrier(PRIVATE, 0));
    let register = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
    println!("registered {:?}", membarrier(register, 0));
    println!("flags {:?}", membarrier(PRIVATE, 2));
    println!("unknown {:?}", membarrier(1 << 20, 0));
    let cells: Vec<_> = (0..ROUNDS)
        .map(|_| [const { AtomicUsize::new(0) }; 2])
        .collect();
    let arrived = AtomicUsize::new(0);
    let missed = |mine: usize, fence: fn()| {
        let look = |(number, round): (usize, &[AtomicUsize; 2])| {
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < 2 * (number + 1) {
                thread::yield_now();
            }
            round[mine].store(1, Ordering::Relaxed);
            fence();
            round[1 - mine].load(Ordering::Relaxed) == 0
        };
        cells.iter().enumerate().map(look).collect::<Vec<_>>()
    };
    let (fast, slow) = thread::scope(|s| {
        let fast = s.spawn(|| missed(0, || compiler_fence(Ordering::SeqCst)));
        let slow = missed(1, || assert_eq!(membarrier(PRIVATE, 0), Ok(0)));
        (fast.join().unwrap(), slow)
    });
    let both = fast.iter().zip(&slow).filter(|(a, b)| **a && **b).count();
    println!("stores that neither saw: {both}");
}
