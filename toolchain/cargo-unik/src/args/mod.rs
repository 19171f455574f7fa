//! The command line: what the user may type. Text goes in, [`Cli`] comes out; nothing is resolved here.
//!
//! [`cargo::CargoArgs`] holds the flags that belong to cargo, [`run::RunArgs`] those that describe the virtual machine.

pub mod cargo;
pub mod run;

use cargo::{CargoArgs, RunTarget, TargetArgs, TestArgs};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use run::RunArgs;
use std::ffi::OsString;
use std::path::PathBuf;

/// Builds, runs and tests unmodified Rust programs as unikernels.
#[derive(Debug, Parser)]
#[command(name = "cargo unik", bin_name = "cargo unik", version, after_long_help = crate::exit_codes::HELP, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more (twice: very verbose cargo)
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Colours: auto, always, never
    #[arg(long, global = true, value_name = "WHEN", value_parser = ["auto", "always", "never"])]
    pub color: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a small project to start from
    New(NewArgs),
    /// Show what this machine offers, and the command that mends what is missing
    Doctor,
    /// Compile the package and link each program with the library OS into an image
    #[command(visible_alias = "b")]
    Build(BuildArgs),
    /// Build one program and run it as a unikernel; its exit code is returned
    #[command(visible_alias = "r")]
    Run(RunCommand),
    /// Run each test binary of the package as a unikernel
    #[command(visible_alias = "t")]
    Test(TestCommand),
    /// Show what an image holds
    Inspect(InspectArgs),
    /// Say which system calls a program can reach, and whether the library OS has them
    Check(CheckArgs),
    /// Make an image of any static Linux program
    Pack(PackArgs),
    /// Boot an image as `run` does, without building anything
    #[command(hide = true)]
    Boot(BootArgs),
}

/// `new`
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The directory to create; its last part names the package
    pub path: PathBuf,
    /// Which template to write
    #[arg(long, value_name = "NAME", default_value = "hello")]
    pub template: String,
    /// The package's name, when the directory is called otherwise
    #[arg(long)]
    pub name: Option<String>,
}

/// `build`
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Which targets.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Cargo's flags.
    #[command(flatten)]
    pub cargo: CargoArgs,
    /// The image.
    #[command(flatten)]
    pub image: ImageArgs,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunCommand {
    /// Which target.
    #[command(flatten)]
    pub target: RunTarget,
    /// Cargo's flags.
    #[command(flatten)]
    pub cargo: CargoArgs,
    /// The image.
    #[command(flatten)]
    pub image: ImageArgs,
    /// The machine.
    #[command(flatten)]
    pub run: RunArgs,
    /// Arguments for the program
    #[arg(trailing_var_arg = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}

/// `test`
#[derive(Debug, Args)]
pub struct TestCommand {
    /// Which tests.
    #[command(flatten)]
    pub tests: TestArgs,
    /// Cargo's flags.
    #[command(flatten)]
    pub cargo: CargoArgs,
    /// The image.
    #[command(flatten)]
    pub image: ImageArgs,
    /// The machine.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What goes into an image beside the program.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Image")]
pub struct ImageArgs {
    /// Pack a file or directory (repeatable); the guest path is SRC unless given
    #[arg(long, value_name = "SRC[:GUESTPATH]")]
    pub files: Vec<String>,
    /// Leave every system-call site as it is (slow, for comparison)
    #[arg(long)]
    pub no_bind: bool,
    /// Another library OS than the built-in one
    #[arg(long, value_name = "ELF", hide = true, env = "UNIK_LIBOS")]
    pub libos: Option<PathBuf>,
}

/// `boot`: what `unik-vmm run` does, with the choice of a monitor.
#[derive(Debug, Args)]
pub struct BootArgs {
    /// The image file
    pub image: PathBuf,
    /// The machine.
    #[command(flatten)]
    pub run: RunArgs,
    /// Arguments for the program
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}

/// `inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image file
    pub image: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A static x86-64 Linux program
    pub elf: PathBuf,
    /// List the supported calls, too, and the functions that hold each
    #[arg(long)]
    pub all: bool,
}

/// `pack`
#[derive(Debug, Args)]
pub struct PackArgs {
    /// A static x86-64 Linux program
    pub elf: PathBuf,
    /// The image file to write
    #[arg(short, long, value_name = "IMAGE")]
    pub output: PathBuf,
    /// The image.
    #[command(flatten)]
    pub image: ImageArgs,
    /// An environment variable that the program always gets (repeatable)
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Memory of the machine, such as 64M or 2G
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<run::Memory>,
    /// Number of virtual CPUs
    #[arg(long, value_name = "N", value_parser = run::cpus)]
    pub cpus: Option<u32>,
    /// Arguments that the program gets when the run command gives none
    #[arg(trailing_var_arg = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}

/// Which monitor boots the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Monitor {
    /// Unik's own (needs /dev/kvm)
    Unik,
    /// QEMU's microvm machine, with KVM where there is one, else emulated
    Qemu,
}

/// Drops what cargo puts before our own arguments (`cargo-unik unik ...`) and tells docker-like flags from cargo's.
pub fn normalise(args: Vec<OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    let mut rest: Vec<OsString> = args.collect();
    if rest.first().is_some_and(|a| a == "unik") {
        rest.remove(0);
    }
    out.extend(run::tell_apart(rest));
    out
}
