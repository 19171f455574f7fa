//! `cargo unik`: arguments -> plan -> action. Runs cargo, the image linker and a monitor.
//!
//! - [`args`]: what the user typed.
//! - [`plan`]: what it means here: workspace, manifest, files, compiler flags.
//! - [`act`]: the commands.
//! - [`monitor`]: the child process that boots an image.
//! - [`exit_codes`]: every exit code; [`error`] folds errors into them.
//!
//! The library OS is embedded ([`act::link`]), and so is the monitor: started under the name `unik-vmm` this binary is it.
#![forbid(unsafe_code)]

pub mod act;
pub mod args;
pub mod error;
pub mod exit_codes;
pub mod monitor;
pub mod plan;
pub mod shell;

pub use error::Error;

use act::cargo::Level;
use args::{Cli, Command};
use clap::Parser;
use shell::{Shell, Verbosity};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Does what `args` (with the program's name first) ask for.
pub fn main(args: Vec<OsString>) -> ExitCode {
    if args
        .first()
        .is_some_and(|name| Path::new(name).ends_with(monitor::unik::NAME))
    {
        return unik_monitor::cli::main(args);
    }
    let cli = match Cli::try_parse_from(args::normalise(args)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let verbosity = match (cli.quiet, cli.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, _) => Verbosity::Verbose,
    };
    let shell = Shell::new(verbosity, cli.color.as_deref());
    match act(&cli, &shell) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if !error.is_silent() {
                shell.error(&error);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn act(cli: &Cli, shell: &Shell) -> Result<u8, Error> {
    let level = Level {
        quiet: cli.quiet,
        verbose: cli.verbose,
        color: cli.color.clone(),
    };
    match &cli.command {
        Command::New(args) => act::new::new(args, shell)?,
        Command::Doctor => return Ok(act::doctor::doctor()),
        Command::Build(args) => act::build::build(args, shell, level)?,
        Command::Run(args) => return act::run::run(args, shell, level),
        Command::Test(args) => return act::test::test(args, shell, level),
        Command::Inspect(args) => act::inspect::inspect(args)?,
        Command::Check(args) => act::check::check(args)?,
        Command::Boot(args) => return act::run::boot(args, shell),
        Command::Pack(args) => act::pack::pack(args, shell)?,
    }
    Ok(exit_codes::OK)
}

fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(if error.use_stderr() {
        exit_codes::USAGE
    } else {
        exit_codes::OK
    })
}
