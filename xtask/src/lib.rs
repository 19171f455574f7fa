//! The project's own commands. They run the project's binaries and depend on none of its crates.
//!
//! - [`ci`]: everything that must hold, in one command.
//! - [`e2e`]: every example and several programs of other people, natively and as unikernels, compared.
//! - [`tidy`] and [`layers`]: the rules for files and for crate edges.
//! - [`lab`]: the tests that need hardware-like KVM, in an emulated machine that has it.
//! - [`fuzz`]: fuzz targets, for seconds or for hours.
//! - [`packages`]: the programs of others that these need. [`port`]: ports of the host. [`running`]: programs that end with us.
//! - [`bench`]: the table of figures. [`dist`]: the release archive.
#![forbid(unsafe_code)]

pub mod bench;
pub mod ci;
pub mod dist;
pub mod e2e;
pub mod fuzz;
pub mod lab;
pub mod layers;
pub mod packages;
pub mod port;
pub mod running;
pub mod sh;
pub mod tally;
pub mod tap;
pub mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check and test everything
    Ci(ci::Args),
    /// Run every example natively and as a unikernel, and compare
    E2e(e2e::Args),
    /// Test under hardware-like KVM inside an emulated machine
    Lab(lab::Args),
    /// Run the fuzz targets
    Fuzz(fuzz::Args),
    /// Check the rules for files
    Tidy,
    /// Check the edges between crates
    Layers,
    /// Print the table of figures
    Bench(bench::Args),
    /// Write the release archive
    Dist,
    /// Run the hello example as a unikernel
    Demo,
}

/// Reads the command line and acts.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let result = running::end_with_us().and_then(|()| act(command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("{}error{:#}: {error:#}", sh::FAIL, sh::FAIL);
            ExitCode::FAILURE
        }
    }
}

fn act(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ci(args) => ci::ci(&args),
        Command::E2e(args) => e2e::e2e(&args).and_then(|tally| tally.verdict()),
        Command::Lab(args) => lab::lab(&args),
        Command::Fuzz(args) => fuzz::fuzz(&args).and_then(|tally| tally.verdict()),
        Command::Tidy => tidy::tidy().and_then(|tally| tally.verdict()),
        Command::Layers => layers::layers().and_then(|tally| tally.verdict()),
        Command::Bench(args) => bench::bench(&args),
        Command::Dist => dist::dist(),
        Command::Demo => e2e::demo(),
    }
}
