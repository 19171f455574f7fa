//! Recurses until its stack ends, on the main thread or (with `thread`) on another.

use std::hint::black_box;

#[expect(unconditional_recursion, reason = "that is the point")]
#[inline(never)]
fn recurse(n: u64) -> u64 {
    let frame = black_box([n; 64]);
    recurse(n + 1) + frame[63]
}

fn main() {
    println!("on the way down");
    if std::env::args().any(|a| a == "thread") {
        let small = std::thread::Builder::new()
            .name("small".into())
            .stack_size(128 << 10);
        let _ = small.spawn(|| recurse(0)).map(|t| t.join());
    } else {
        println!("{}", recurse(0));
    }
}
