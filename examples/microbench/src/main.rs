//! Small measurements, named after LMbench's where it has them: `name value unit`, one a line.
//!
//! `--names` does the same with little work and prints no values, so that the output is always the same.

use std::hint::black_box;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

fn main() {
    let names = std::env::args().any(|a| a == "--names");
    let scale = if names { 100 } else { 1 };
    let report = |name: &str, unit: &str, value: f64| match names {
        true => println!("{name} {unit} {}", value > 0.0),
        false => println!("{name} {value:.2} {unit}"),
    };
    report(
        "getpid",
        "ns",
        per_call(1_000_000 / scale, || _ = black_box(std::process::id())),
    );
    report(
        "clock_gettime",
        "ns",
        per_call(1_000_000 / scale, || _ = black_box(Instant::now())),
    );
    report("futex_wake_wait", "ns", ping_pong(20_000 / scale));
    report(
        "thread_create_join",
        "ns",
        per_call(2_000 / scale, || thread::spawn(|| ()).join().unwrap_or(())),
    );
    report(
        "lat_pagefault",
        "ns",
        page_faults(if names { 4 } else { 64 }),
    );
    report("lat_ctx", "ns", context_switch(20_000 / scale));
    report("lat_pipe", "ns", pipe_latency(20_000 / scale));
    report("cpu_loop", "ms", cpu_loop(200_000_000 / scale));
    report(
        "bw_mem_cp",
        "MB/s",
        copy_bandwidth(if names { 1 } else { 16 }),
    );
    report(
        "lat_mem_rd",
        "ns",
        random_access(if names { 1 << 16 } else { 1 << 23 }),
    );
}

/// Nanoseconds a call.
fn per_call(count: u64, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..count).for_each(|_| call());
    start.elapsed().as_nanos() as f64 / count as f64
}

/// One wake and one wait: two threads take turns, each sleeping in the kernel until the other wakes it.
fn ping_pong(rounds: u64) -> f64 {
    let turn = AtomicU32::new(0);
    let play = |side: u32| {
        for _ in 0..rounds {
            while turn.load(Ordering::Acquire) != side {
                futex(&turn, libc::FUTEX_WAIT, 1 - side);
            }
            turn.store(1 - side, Ordering::Release);
            futex(&turn, libc::FUTEX_WAKE, 1);
        }
    };
    let start = Instant::now();
    thread::scope(|s| {
        s.spawn(|| play(1));
        play(0);
    });
    start.elapsed().as_nanos() as f64 / (2 * rounds) as f64
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    let nothing = std::ptr::null::<libc::timespec>();
    // SAFETY: the word outlives the call, which reads nothing else.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation | libc::FUTEX_PRIVATE_FLAG,
            value,
            nothing,
        )
    };
}

/// First touch of fresh memory, nanoseconds a page of 4 KiB.
fn page_faults(megabytes: usize) -> f64 {
    let size = megabytes << 20;
    let mut memory: Vec<u8> = Vec::with_capacity(size);
    let start = Instant::now();
    for page in memory.spare_capacity_mut()[..size].chunks_mut(4096) {
        page[0].write(black_box(1));
    }
    let time = start.elapsed().as_nanos() as f64;
    black_box(memory);
    time / (size / 4096) as f64
}

/// Two threads on one CPU pass a byte to and fro: one pass is a switch, a pipe write and a pipe read.
fn context_switch(rounds: u64) -> f64 {
    passes(rounds, true)
}

/// The same on any CPU.
fn pipe_latency(rounds: u64) -> f64 {
    passes(rounds, false)
}

fn passes(rounds: u64, one_cpu: bool) -> f64 {
    let ((from_a, to_b), (from_b, to_a)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let pass = move |mut from: PipeReader, mut to: PipeWriter| {
        stay_on_one(one_cpu);
        let mut byte = [0];
        for _ in 0..rounds {
            from.read_exact(&mut byte).expect("a byte comes");
            to.write_all(&byte).expect("a byte goes");
        }
    };
    let mut first = to_b.try_clone().expect("a descriptor");
    let other = thread::spawn(move || pass(from_a, to_a));
    let start = Instant::now();
    first.write_all(&[1]).expect("a byte goes");
    let here = thread::spawn(move || {
        stay_on_one(one_cpu);
        let (mut from, mut to, mut byte) = (from_b, to_b, [0]);
        for n in 0..rounds {
            from.read_exact(&mut byte).expect("a byte comes");
            if n + 1 < rounds {
                to.write_all(&byte).expect("a byte goes");
            }
        }
    });
    here.join().expect("no panic");
    other.join().expect("no panic");
    start.elapsed().as_nanos() as f64 / (2 * rounds) as f64
}

fn stay_on_one(wanted: bool) {
    if wanted {
        // SAFETY: a zeroed set is an empty one; CPU 0 exists; the call only reads the set.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(0, &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &set);
        }
    }
}

/// Milliseconds of integer arithmetic.
fn cpu_loop(rounds: u64) -> f64 {
    let start = Instant::now();
    let mut state = black_box(1u64);
    for n in 0..rounds {
        state = (state ^ n)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23);
    }
    black_box(state);
    start.elapsed().as_secs_f64() * 1000.0
}

/// Megabytes a second from one 32 MiB buffer to another.
fn copy_bandwidth(times: usize) -> f64 {
    let (from, mut to) = (vec![1u8; 32 << 20], vec![0u8; 32 << 20]);
    let start = Instant::now();
    for _ in 0..times {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    }
    (times * 32) as f64 / start.elapsed().as_secs_f64()
}

/// Nanoseconds a load, each of which needs the one before: a random cycle through `length` words.
fn random_access(length: usize) -> f64 {
    let mut next: Vec<usize> = (0..length).collect();
    let mut state = 88_172_645_463_325_252u64;
    for i in (1..length).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        next.swap(i, state as usize % i);
    }
    let (mut at, loads) = (0, 4_000_000);
    let start = Instant::now();
    (0..loads).for_each(|_| at = next[at]);
    black_box(at);
    start.elapsed().as_nanos() as f64 / f64::from(loads)
}
