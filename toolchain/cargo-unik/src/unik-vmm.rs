//! `unik-vmm`: the monitor, installed together with `cargo unik`. Everything is in `vmm/monitor`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    unik_monitor::cli::main(std::env::args_os())
}
