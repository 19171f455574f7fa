//! The command line of `unik-vmm`: text to [`RunArgs`], the outcome to an exit code.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use unik_host::{limits, seccomp};

use crate::exit_codes;
use crate::net::NetArgs;
use crate::timings::Clock;

#[derive(Debug, Parser)]
#[command(
    name = "unik-vmm",
    version,
    about = "Boots a Unik image in a minimal KVM virtual machine"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Let the monitor make any system call while a guest runs
    #[arg(long, global = true)]
    no_seccomp: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot an image; its program's output and exit code come back
    Run(RunArgs),
    /// Boot a stock Linux kernel
    Linux(crate::linux::args::LinuxArgs),
}

/// The arguments of `unik-vmm run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// The image, as `cargo unik build` or `cargo unik pack` writes it
    pub image: PathBuf,
    /// Guest memory, for example 64M or 2G [default: the image's wish, else 1G]; the host gives only what the guest touches
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Number of vCPUs [default: the image's wish, else 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Set an environment variable for the program
    #[arg(short = 'e', long = "env", value_name = "KEY=VALUE")]
    pub env: Vec<OsString>,
    /// The guest's host name
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Print one line for each phase of the run on standard error
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub timings: Option<TimingsFormat>,
    /// List the system calls that were used or are missing when the program ends
    #[arg(long)]
    pub syscall_summary: bool,
    /// The network.
    #[command(flatten)]
    pub network: NetArgs,
    /// Say nothing but what the program says
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// The program's arguments
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}

/// How `--timings` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimingsFormat {
    /// A line for each phase.
    Text,
    /// One JSON object.
    Json,
}

/// Runs the tool with these arguments (the program's name first) and returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let clock = Clock::start();
    limits::share_heap();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    confine(!cli.no_seccomp);
    let result = match cli.command {
        Command::Run(args) => crate::run::run(&args, clock),
        Command::Linux(args) => crate::linux::run(&args, clock),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Whether threads that serve a guest may make only the system calls that they need, and what is said when one makes another.
fn confine(wanted: bool) {
    let name = |number| unik_abi::syscalls::find(number).map_or("?", |row| row.name);
    let report = seccomp::Report {
        name,
        code: exit_codes::HOST.into(),
    };
    if !wanted {
        seccomp::switch_off();
    }
    // Without the report a refused call ends the process all the same, by its signal.
    let _ = seccomp::set_report(report);
}

fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(exit_codes::USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// Parses `4096`, `64K`, `64M`, `2G`, also with `B` or `iB` behind the unit (all are powers of 1024).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit
        .to_ascii_lowercase()
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("unknown unit `{unit}`: use K, M, G or T")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a number such as 64M".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "more than this machine can address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("4096"), Ok(4096));
        for bad in ["", "M", "12X", "-1", "99999999999T", "1.5G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn run_flags_and_program_arguments() {
        let line = "unik-vmm run x.unik --memory 64M -e A=1 -e B=2 --timings -- --memory -x";
        let Command::Run(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("not `run`")
        };
        assert_eq!(args.memory, Some(64 << 20));
        assert_eq!(args.env, ["A=1", "B=2"]);
        assert_eq!(args.timings, Some(TimingsFormat::Text));
        assert_eq!(args.args, ["--memory", "-x"]);
        assert!(Cli::try_parse_from(["unik-vmm", "run", "x", "--gdb", "1"]).is_err());
    }
}
