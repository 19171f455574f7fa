//! Greets everyone named on the command line.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let file = std::env::var_os("GREETING_FILE")
        .map_or_else(|| "assets/greeting.txt".into(), PathBuf::from);
    match unik_template_hello::greeting(&file, &names) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot read {}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}
