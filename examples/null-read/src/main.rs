//! Touches what it must not: address 0, or with `write` its own constants, or with `execute` its own data.

use std::hint::black_box;

static CONSTANT: [u8; 16] = [1; 16];

fn main() {
    println!("touching");
    match std::env::args().nth(1).as_deref() {
        // SAFETY: none; the fault is what this program is for.
        Some("write") => unsafe { black_box(CONSTANT.as_ptr().cast_mut()).write_volatile(2) },
        Some("execute") => {
            let data = black_box(Box::new([0xc3u8; 16]));
            // SAFETY: none, as above.
            let call: extern "C" fn() = unsafe { std::mem::transmute(data.as_ptr()) };
            call();
        }
        // SAFETY: none, as above.
        _ => println!("{}", unsafe {
            black_box(std::ptr::without_provenance::<u8>(8)).read_volatile()
        }),
    }
    println!("never printed");
}
