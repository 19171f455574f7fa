//! Threads that are pinned to CPUs: each must run, and only where it may, whoever wakes it and whatever the other CPUs do.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

fn main() {
    let cpus = allowed(0).expect("this thread's CPUs");
    println!(
        "inherited {}",
        thread::spawn(|| allowed(0)).join().unwrap() == Some(cpus.clone())
    );
    println!("pairs {}", pairs(&cpus));
    println!("sleepers {}", sleepers(&cpus));
    println!("beside a busy one {}", beside_a_busy_one(&cpus));
    println!("moved while it runs {}", moved_while_it_runs(&cpus));
    println!("moved while it sleeps {}", moved_while_it_sleeps(&cpus));
    println!("crowd {}", crowd(&cpus));
    println!("none {:?}", pin_to(0, &[]).err());
    println!("foreign {:?}", pin_to(0, &[1000]).err());
    println!("nobody {:?}", pin_to(i32::MAX, &cpus).err());
}

/// Two threads on one CPU take turns by sleeping and waking each other, on every CPU in turn.
fn pairs(cpus: &[usize]) -> usize {
    let pair = |&cpu: &usize| {
        let (to, from) = (mpsc::sync_channel(0), mpsc::sync_channel(0));
        let other = thread::spawn(move || {
            pin_to(0, &[cpu]).expect("a CPU of ours");
            to.1.into_iter()
                .all(|n: u32| from.0.send(n + 1).is_ok() && here() == cpu)
        });
        pin_to(0, &[cpu]).expect("a CPU of ours");
        for n in 0..200 {
            to.0.send(n).expect("it listens");
            assert_eq!((from.1.recv(), here()), (Ok(n + 1), cpu));
        }
        drop(to.0);
        let well = other.join().expect("no panic");
        pin_to(0, cpus).expect("what it was");
        well
    };
    cpus.iter().cycle().take(8).filter(|cpu| pair(cpu)).count()
}

/// Threads pinned to each CPU are woken by their own deadlines.
fn sleepers(cpus: &[usize]) -> usize {
    let sleeper = |cpu| {
        move || {
            pin_to(0, &[cpu]).expect("a CPU of ours");
            (0..20).all(|_| {
                thread::sleep(Duration::from_micros(700));
                here() == cpu
            })
        }
    };
    let all: Vec<_> = cpus
        .iter()
        .cycle()
        .take(16)
        .map(|&cpu| thread::spawn(sleeper(cpu)))
        .collect();
    all.into_iter()
        .map(|one| one.join().expect("no panic"))
        .filter(|well| *well)
        .count()
}

/// The CPU of a pinned thread is kept busy by another: it gets its share, whoever wakes it.
fn beside_a_busy_one(cpus: &[usize]) -> bool {
    let (last, stop, turns) = (
        cpus[cpus.len() - 1],
        AtomicBool::new(false),
        AtomicU32::new(0),
    );
    let (wake, woken) = mpsc::channel();
    thread::scope(|s| {
        s.spawn(|| {
            pin_to(0, &[last]).expect("a CPU of ours");
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let turns = &turns;
        s.spawn(move || {
            pin_to(0, &[last]).expect("a CPU of ours");
            for () in woken {
                turns.fetch_add(1, Ordering::SeqCst);
            }
        });
        pin_to(0, &cpus[..1]).expect("a CPU of ours");
        for n in 1..=10 {
            wake.send(()).expect("it listens");
            wait_until(|| turns.load(Ordering::SeqCst) == n);
        }
        stop.store(true, Ordering::Relaxed);
        drop(wake);
    });
    pin_to(0, cpus).expect("what it was");
    turns.into_inner() == 10
}

/// A thread that never enters the kernel is sent from CPU to CPU.
fn moved_while_it_runs(cpus: &[usize]) -> bool {
    let (stop, at, tid) = (
        AtomicBool::new(false),
        AtomicU32::new(u32::MAX),
        mpsc::channel(),
    );
    thread::scope(|s| {
        s.spawn(|| {
            tid.0.send(gettid()).expect("somebody asks");
            while !stop.load(Ordering::Relaxed) {
                at.store(here() as u32, Ordering::SeqCst);
            }
        });
        let tid = tid.1.recv().expect("it tells");
        for &cpu in cpus.iter().cycle().take(8) {
            pin_to(tid, &[cpu]).expect("a CPU of ours");
            wait_until(|| at.load(Ordering::SeqCst) == cpu as u32);
            assert_eq!(allowed(tid), Some(vec![cpu]));
        }
        stop.store(true, Ordering::Relaxed);
    });
    true
}

/// A thread that sleeps wakes up where it was sent meanwhile.
fn moved_while_it_sleeps(cpus: &[usize]) -> bool {
    let (tid, go, at) = (mpsc::channel(), mpsc::channel(), mpsc::channel());
    let sleeper = thread::spawn(move || {
        tid.0.send(gettid()).expect("somebody asks");
        go.1.iter()
            .for_each(|()| at.0.send(here()).expect("somebody asks"));
    });
    let tid = tid.1.recv().expect("it tells");
    let well = cpus.iter().cycle().take(8).all(|&cpu| {
        pin_to(tid, &[cpu]).expect("a CPU of ours");
        go.0.send(()).expect("it listens");
        at.1.recv() == Ok(cpu)
    });
    drop(go.0);
    sleeper.join().expect("no panic");
    well
}

/// More threads than CPUs, half of them pinned, all busy, all through one barrier again and again.
fn crowd(cpus: &[usize]) -> usize {
    let barrier = Barrier::new(12);
    thread::scope(|s| {
        let one = |n: usize| {
            let barrier = &barrier;
            let cpu = n.is_multiple_of(2).then(|| cpus[n / 2 % cpus.len()]);
            move || {
                if let Some(cpu) = cpu {
                    pin_to(0, &[cpu]).expect("a CPU of ours");
                }
                (0..50).all(|round| {
                    let start = Instant::now();
                    while start.elapsed() < Duration::from_micros((n as u64 * 7 + round) % 50) {}
                    barrier.wait();
                    cpu.is_none_or(|cpu| here() == cpu)
                })
            }
        };
        let all: Vec<_> = (0..12).map(|n| s.spawn(one(n))).collect();
        all.into_iter()
            .map(|one| one.join().expect("no panic"))
            .filter(|well| *well)
            .count()
    })
}

fn wait_until(happened: impl Fn() -> bool) {
    while !happened() {
        thread::sleep(Duration::from_micros(50));
    }
}

fn here() -> usize {
    // SAFETY: no arguments.
    unsafe { libc::sched_getcpu() as usize }
}

fn gettid() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

/// Restricts thread `tid` (0: this one) to `cpus`, or says errno.
fn pin_to(tid: i32, cpus: &[usize]) -> Result<(), i32> {
    let mut set = [0u64; 16];
    cpus.iter().for_each(|cpu| set[cpu / 64] |= 1 << (cpu % 64));
    // SAFETY: the set is as long as said and only read.
    match unsafe { libc::sched_setaffinity(tid, size_of_val(&set), set.as_ptr().cast()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}

/// The CPUs thread `tid` (0: this one) may run on.
fn allowed(tid: i32) -> Option<Vec<usize>> {
    let mut set = [0u64; 16];
    // SAFETY: the set is as long as said.
    let done = unsafe { libc::sched_getaffinity(tid, size_of_val(&set), set.as_mut_ptr().cast()) };
    let has = |cpu: &usize| set[cpu / 64] >> (cpu % 64) & 1 == 1;
    (done == 0).then(|| (0..1024).filter(has).collect())
}
