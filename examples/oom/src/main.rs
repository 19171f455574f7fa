//! Allocates and touches memory until there is none.

use std::io::Write;

fn main() {
    println!("allocating");
    let _ = std::io::stdout().flush();
    let mut hoard = Vec::new();
    for n in 1.. {
        hoard.push(vec![n as u8 | 1; 1 << 20]);
        if n == 1 << 20 {
            println!("a terabyte and no end");
            return;
        }
    }
}
