//! Parallel sums, sorts and searches over all CPUs; the argument is how many numbers.

use rayon::prelude::*;
use std::time::Instant;

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn main() {
    let count: u64 = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(2_000_000);
    eprintln!("{} threads", rayon::current_num_threads());
    let start = Instant::now();
    println!(
        "sum {}",
        (0..count)
            .into_par_iter()
            .map(mix)
            .fold(|| 0u64, u64::wrapping_add)
            .reduce(|| 0, u64::wrapping_add)
    );
    println!("minimum {:?}", (0..count).into_par_iter().map(mix).min());
    let mut numbers: Vec<u64> = (0..count / 10).into_par_iter().map(mix).collect();
    numbers.par_sort_unstable();
    println!("sorted {} {:x?}", numbers.is_sorted(), numbers.first());
    println!(
        "found {:?}",
        numbers.par_iter().position_first(|n| *n > u64::MAX / 2)
    );
    let (a, b) = rayon::join(|| fib(24), || fib(25));
    println!("join {a} {b}");
    eprintln!("{count} numbers in {:?}", start.elapsed());
}

fn fib(n: u32) -> u64 {
    match n {
        0 | 1 => u64::from(n),
        _ if n < 12 => fib(n - 1) + fib(n - 2),
        _ => {
            let (a, b) = rayon::join(|| fib(n - 1), || fib(n - 2));
            a + b
        }
    }
}
