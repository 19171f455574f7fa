//! Says what it was given: arguments, one variable, and with `--echo` its standard input. `--exit=N` sets the exit code.

use std::io::BufRead;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    println!(
        "{} from Rust",
        std::env::var("GREETING").unwrap_or_else(|_| "hello".into())
    );
    for (n, arg) in args.iter().enumerate() {
        println!("argument {n}: {arg:?}");
    }
    if args.iter().any(|a| a == "--echo") {
        for (n, line) in std::io::stdin()
            .lock()
            .lines()
            .map_while(Result::ok)
            .enumerate()
        {
            println!("line {n}: {}", line);
        }
    }
    let code = args
        .iter()
        .find_map(|a| a.strip_prefix("--exit="))
        .and_then(|n| n.parse().ok());
    eprintln!("leaving with {}", code.unwrap_or(0));
    ExitCode::from(code.unwrap_or(0))
}
