//! Starts another program. A unikernel has one process: it must be refused with an error, not with a crash.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    println!("starting a process");
    match Command::new("/bin/true").status() {
        Ok(status) => {
            println!("it ran: {status}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("no process: {:?}", error.kind());
            ExitCode::from(3)
        }
    }
}
