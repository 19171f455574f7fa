//! `cargo unik run`: one program is built, linked and booted; its exit code is ours.

use super::build;
use super::cargo::Level;
use crate::Error;
use crate::args::{BootArgs, RunCommand};
use crate::monitor::{self, Job};
use crate::plan::manifest;
use crate::plan::{PlanError, Workspace};
use crate::shell::Shell;
use std::ffi::OsString;
use std::path::Path;

/// Builds and runs; the exit code is the program's.
pub fn run(args: &RunCommand, shell: &Shell, level: Level) -> Result<u8, Error> {
    monitor::refuse_volumes(&args.run)?;
    let env = environment(&args.run.env)?;
    let workspace = Workspace::load(&args.cargo)?;
    let program = workspace.program(&args.cargo.package, &args.target)?;
    let flags = vec![program.flag.into(), program.name.clone().into()];
    let images = build::images(&workspace, &args.cargo, flags, &args.image, shell, level)?;
    let wanted = images
        .into_iter()
        .rev()
        .find(|(built, _)| built.target.name == program.name);
    let (_, image) = wanted.ok_or(PlanError::NoProgram)?;
    shell.status(
        "Running",
        format_args!("`{}`", command_line(&image, &args.args)),
    );
    let job = Job {
        image: &image,
        machine: &args.run,
        env,
        args: (!args.args.is_empty()).then_some(&args.args),
    };
    Ok(monitor::run(&job, shell)?)
}

/// Boots an image that is there already.
pub fn boot(args: &BootArgs, shell: &Shell) -> Result<u8, Error> {
    monitor::refuse_volumes(&args.run)?;
    let env = environment(&args.run.env)?;
    let words = (!args.args.is_empty()).then_some(args.args.as_slice());
    let job = Job {
        image: &args.image,
        machine: &args.run,
        env,
        args: words,
    };
    Ok(monitor::run(&job, shell)?)
}

/// What a program finds of our own environment (the variables that steer Rust's runtime and logging), then the `-e` flags. What
/// describes a terminal is added by `unik_monitor::terminal`.
pub fn environment(flags: &[String]) -> Result<Vec<(OsString, OsString)>, Error> {
    let ours = |name: &OsString| name.to_str().is_some_and(|n| n.starts_with("RUST_"));
    let mut env: Vec<_> = std::env::vars_os().filter(|(name, _)| ours(name)).collect();
    env.sort();
    for text in flags {
        let (name, value) = manifest::variable(text).map_err(Error::Usage)?;
        env.push((name.into(), value.into()));
    }
    Ok(env)
}

/// For people, in cargo's manner: the path relative to here, then the arguments.
fn command_line(image: &Path, args: &[OsString]) -> String {
    let words =
        std::iter::once(short(image)).chain(args.iter().map(|a| a.to_string_lossy().into_owned()));
    words.collect::<Vec<_>>().join(" ")
}

/// A path relative to the working directory where it lies below it.
pub fn short(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here)
        .unwrap_or(path)
        .display()
        .to_string()
}
