//! Captures backtraces and prints the frames of this file: function, file and line come from the program's own symbols.

use std::backtrace::Backtrace;

#[inline(never)]
fn outer() -> String {
    inner(1) + "end"
}

#[inline(never)]
fn inner(depth: u32) -> String {
    match depth {
        0 => Backtrace::force_capture().to_string(),
        _ => inner(depth - 1) + "",
    }
}

fn main() {
    own_frames(&outer());
    let other = std::thread::spawn(|| inner(0));
    own_frames(&other.join().unwrap_or_default());
}

fn own_frames(trace: &str) {
    let lines: Vec<_> = trace.lines().map(str::trim).collect();
    for pair in lines
        .windows(2)
        .filter(|pair| pair[1].contains("backtrace/src/main.rs"))
    {
        let function = pair[0].split_once(": ").map_or(pair[0], |(_, name)| name);
        let place = pair[1].rsplit("backtrace/").next().unwrap_or(pair[1]);
        println!("{function} {place}");
    }
}
