//! Runs cargo as a child and collects the executables that it reports.
//!
//! Cargo keeps its own standard error, so progress, colours and rendered diagnostics are as the user knows them; its
//! JSON messages come through a pipe.

use crate::args::cargo::CargoArgs;
use crate::plan::{Workspace, rustflags};
use crate::shell::Shell;
use cargo_metadata::{Artifact, BuildScript, Message, PackageId, Target};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Why cargo did not build.
#[derive(Debug, thiserror::Error)]
pub enum CargoError {
    /// Not startable.
    #[error("cannot run `{program}`: {source}; is cargo installed and in PATH?")]
    Start {
        /// The program.
        program: String,
        /// The reason.
        source: std::io::Error,
    },
    /// It refused; it has said why.
    #[error("cargo failed")]
    Failed {
        /// Its exit code, or 128 + signal.
        code: u8,
    },
    /// The pipe broke.
    #[error("cannot read cargo's messages: {0}")]
    Read(std::io::Error),
}

impl CargoError {
    /// Cargo's own code where it has one.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed { code } => *code,
            _ => crate::exit_codes::CARGO,
        }
    }
}

/// An executable that cargo wrote (or found fresh).
#[derive(Clone, Debug)]
pub struct Built {
    /// Its package.
    pub package: PackageId,
    /// Its target: name, kind, source.
    pub target: Target,
    /// The ELF file.
    pub executable: PathBuf,
    /// Whether it is a test binary.
    pub test: bool,
}

/// What a build gave.
#[derive(Debug, Default)]
pub struct Output {
    /// In cargo's order.
    pub executables: Vec<Built>,
    /// What build scripts said: `OUT_DIR` and variables that cargo sets for tests.
    pub scripts: Vec<BuildScript>,
}

/// Runs `cargo <command>` with the flags of `args` and `more`.
pub fn run(
    command: &str,
    args: &CargoArgs,
    more: &[OsString],
    workspace: &Workspace,
    shell: &Shell,
    level: Level,
) -> Result<Output, crate::Error> {
    let here = std::env::current_dir().map_err(crate::plan::PlanError::Directory)?;
    let flags =
        rustflags::encoded(&here, &workspace.target).map_err(crate::plan::PlanError::Config)?;
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(&program);
    cargo
        .arg(command)
        .args(level.flags())
        .args(args.pass_on())
        .args(more);
    cargo
        .args(["--target", &workspace.target])
        .arg("--target-dir")
        .arg(workspace.cargo_target_dir());
    cargo
        .args(message_flags(&args.message_format))
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env_remove("RUSTFLAGS");
    shell.verbose("Running", format_args!("{cargo:?}"));
    let echo = args.message_format.iter().any(|f| f.starts_with("json"));
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let child = child.as_mut().map_err(|source| CargoError::Start {
        program: program.display().to_string(),
        source: std::io::Error::new(source.kind(), source.to_string()),
    })?;
    let output = read(child, echo)?;
    finish(child.wait().map_err(CargoError::Read)?)?;
    Ok(output)
}

/// The messages that matter; with `echo` all of them go to standard output, as `--message-format json` asks.
fn read(child: &mut Child, echo: bool) -> Result<Output, CargoError> {
    let mut output = Output::default();
    let Some(pipe) = child.stdout.take() else {
        return Ok(output);
    };
    for line in BufReader::new(pipe).lines() {
        let line = line.map_err(CargoError::Read)?;
        if echo {
            let _ = writeln!(std::io::stdout(), "{line}");
        }
        match serde_json::from_str(&line) {
            Ok(Message::CompilerArtifact(artifact)) => output.executables.extend(built(artifact)),
            Ok(Message::BuildScriptExecuted(script)) => output.scripts.push(script),
            _ => {}
        }
    }
    Ok(output)
}

fn built(artifact: Artifact) -> Option<Built> {
    let executable = artifact.executable?.into_std_path_buf();
    Some(Built {
        package: artifact.package_id,
        target: artifact.target,
        executable,
        test: artifact.profile.test,
    })
}

fn finish(status: ExitStatus) -> Result<(), CargoError> {
    match status.code().or(status.signal().map(|s| 128 + s)) {
        Some(0) => Ok(()),
        code => Err(CargoError::Failed {
            code: code
                .and_then(|c| u8::try_from(c).ok())
                .unwrap_or(crate::exit_codes::CARGO),
        }),
    }
}

/// Cargo's messages as JSON, rendered for people by cargo itself unless the user wants JSON too.
fn message_flags(wanted: &[String]) -> Vec<String> {
    let format = match wanted.join(",").as_str() {
        "" | "human" => "json-render-diagnostics".to_owned(),
        "short" => "json-render-diagnostics,json-diagnostic-short".to_owned(),
        json => json.to_owned(),
    };
    vec!["--message-format".to_owned(), format]
}

/// How much cargo says.
#[derive(Clone, Debug)]
pub struct Level {
    /// `-q`
    pub quiet: bool,
    /// `-v`, counted
    pub verbose: u8,
    /// `--color`
    pub color: Option<String>,
}

impl Level {
    fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--verbose".to_owned(); usize::from(self.verbose.min(2))];
        flags.extend(self.quiet.then(|| "--quiet".to_owned()));
        flags.extend(
            self.color
                .iter()
                .flat_map(|when| ["--color".to_owned(), when.clone()]),
        );
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_formats() {
        let flag = |wanted: &[&str]| {
            message_flags(&wanted.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())[1].clone()
        };
        assert_eq!(flag(&[]), "json-render-diagnostics");
        assert_eq!(
            flag(&["short"]),
            "json-render-diagnostics,json-diagnostic-short"
        );
        assert_eq!(
            flag(&["json", "json-diagnostic-short"]),
            "json,json-diagnostic-short"
        );
    }
}
