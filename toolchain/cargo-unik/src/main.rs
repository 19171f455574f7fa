//! `cargo unik`: hands the arguments to the library and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    cargo_unik::main(std::env::args_os().collect())
}
