//! `unik-vmm`: boots a Unik image on KVM. Everything is in the library; see [`unik_monitor::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    unik_monitor::cli::main(std::env::args_os())
}
