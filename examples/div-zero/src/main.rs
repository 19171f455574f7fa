//! Divides by zero: Rust's check panics; with `machine` the processor's own exception (#DE) becomes SIGFPE.

use std::hint::black_box;

fn main() {
    println!("dividing");
    if std::env::args().any(|a| a == "machine") {
        let zero = black_box(0u32);
        // SAFETY: the instruction faults before it changes anything.
        unsafe {
            std::arch::asm!("xor edx, edx", "div {0:e}", in(reg) zero, inout("eax") 1u32 => _, out("edx") _)
        };
    }
    println!("{}", 1u32 / black_box(0u32));
}
