//! Panics three calls deep; with `abort` it aborts instead. Standard output before it must arrive all the same.

#[inline(never)]
fn deep(n: u32) {
    deeper(n + 1);
    println!("never printed");
}

#[inline(never)]
fn deeper(n: u32) {
    assert!(n < 42, "the inner reason {n}");
    println!("never printed");
}

fn main() {
    print!("before the end, without a newline");
    if std::env::args().any(|a| a == "abort") {
        use std::io::Write;
        let _ = std::io::stdout().flush();
        std::process::abort();
    }
    deep(41);
}
