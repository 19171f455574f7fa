//! From arguments to a plan: which workspace, which package, which program, where things are written.
//!
//! [`Workspace`] is what `cargo metadata` says; [`Workspace::program`] picks what `cargo run` would pick.

pub mod files;
pub mod manifest;
pub mod rustflags;

use crate::args::cargo::{CargoArgs, RunTarget};
use crate::exit_codes;
use cargo_metadata::{Metadata, MetadataCommand, Package, PackageId, TargetKind};
use manifest::{Manifest, ManifestError};
use std::path::{Path, PathBuf};

/// The target triple unless the user names another.
pub const DEFAULT_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// `cargo metadata` refused; its own words say why.
    #[error("{0}")]
    Metadata(String),
    /// Another target than we can link.
    #[error(
        "target `{0}` cannot become a unikernel; leave --target out, or use x86_64-unknown-linux-gnu or x86_64-unknown-linux-musl"
    )]
    Target(String),
    /// No such package.
    #[error(
        "package `{0}` is no member of this workspace; `cargo metadata --no-deps` lists the members"
    )]
    Package(String),
    /// Nothing to run.
    #[error("a bin target must be available for `cargo unik run`")]
    NoProgram,
    /// Too many to run.
    #[error(
        "`cargo unik run` could not determine which binary to run; use the `--bin` option to specify a binary, or the `default-run` manifest key\navailable binaries: {0}"
    )]
    ManyPrograms(String),
    /// The section in the manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Configuration files of cargo.
    #[error("cannot read cargo's configuration: {0}")]
    Config(#[from] cargo_config2::Error),
    /// The working directory is gone.
    #[error("cannot find the working directory: {0}")]
    Directory(std::io::Error),
}

impl PlanError {
    /// Cargo's own code where cargo would have refused too; see [`exit_codes`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Target(_) => exit_codes::USAGE,
            Self::Manifest(_) => exit_codes::CONFIG,
            Self::Directory(_) => exit_codes::HOST,
            _ => exit_codes::CARGO,
        }
    }
}

/// A cargo workspace and where its images go.
#[derive(Debug)]
pub struct Workspace {
    metadata: Metadata,
    current: Option<PathBuf>,
    target_dir: PathBuf,
    /// The target triple.
    pub target: String,
}

/// The one program that `run` runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// A package to name to cargo with `-p`, when cargo would not pick it by itself.
    pub package: Option<String>,
    /// `--bin` or `--example`.
    pub flag: &'static str,
    /// The target's name.
    pub name: String,
}

impl Workspace {
    /// Asks cargo.
    pub fn load(args: &CargoArgs) -> Result<Self, PlanError> {
        let target = args
            .target
            .clone()
            .unwrap_or_else(|| DEFAULT_TARGET.to_owned());
        if !matches!(
            target.as_str(),
            DEFAULT_TARGET | "x86_64-unknown-linux-musl"
        ) {
            return Err(PlanError::Target(target));
        }
        let mut command = MetadataCommand::new();
        command.no_deps().other_options(args.lock_flags());
        if let Some(path) = &args.manifest_path {
            command.manifest_path(path);
        }
        let metadata = command.exec().map_err(metadata_error)?;
        let here = std::env::current_dir().map_err(PlanError::Directory)?;
        let target_dir = match &args.target_dir {
            Some(dir) => here.join(dir),
            None => metadata.target_directory.clone().into_std_path_buf(),
        };
        let current = current_manifest(args.manifest_path.as_deref(), &here);
        Ok(Self {
            metadata,
            current,
            target_dir,
            target,
        })
    }

    /// Where cargo builds for us: apart from native builds, so that neither makes the other stale.
    pub fn cargo_target_dir(&self) -> PathBuf {
        self.target_dir.join("unik/build")
    }

    /// The image that belongs to an executable which cargo wrote: `target/unik/<profile>/[examples/|deps/]<name>.unik`.
    pub fn image_path(&self, executable: &Path) -> PathBuf {
        let built = self.cargo_target_dir().join(&self.target);
        let relative = executable
            .strip_prefix(&built)
            .unwrap_or(executable.file_name().map_or(executable, Path::new));
        let mut path = self.target_dir.join("unik").join(relative).into_os_string();
        path.push(".unik");
        path.into()
    }

    /// The package with this id.
    pub fn package(&self, id: &PackageId) -> Option<&Package> {
        self.metadata.packages.iter().find(|p| p.id == *id)
    }

    /// The `[package.metadata.unik]` section of a package.
    pub fn manifest(&self, package: &Package) -> Result<Manifest, PlanError> {
        Ok(Manifest::read(
            &package.metadata,
            package.manifest_path.as_std_path(),
        )?)
    }

    /// What `cargo run` would run.
    pub fn program(&self, packages: &[String], wanted: &RunTarget) -> Result<Program, PlanError> {
        let among = self.selected(packages)?;
        let package = packages.first().cloned();
        if let Some(name) = &wanted.example {
            return Ok(Program {
                package,
                flag: "--example",
                name: name.clone(),
            });
        }
        if let Some(name) = &wanted.bin {
            return Ok(Program {
                package,
                flag: "--bin",
                name: name.clone(),
            });
        }
        let defaults: Vec<_> = among.iter().filter_map(|p| p.default_run.clone()).collect();
        let bins: Vec<_> = among.iter().flat_map(|p| bins(p)).collect();
        match (defaults.as_slice(), bins.as_slice()) {
            ([name], _) | ([], [name]) => Ok(Program {
                package,
                flag: "--bin",
                name: name.clone(),
            }),
            (_, []) => Err(PlanError::NoProgram),
            (_, many) => Err(PlanError::ManyPrograms(many.join(", "))),
        }
    }

    /// The packages that cargo would look at: those named, else the one we are in, else the workspace's default members.
    fn selected(&self, specs: &[String]) -> Result<Vec<&Package>, PlanError> {
        if specs.is_empty() {
            return Ok(self.default_packages());
        }
        let find = |spec: &String| {
            let name = spec
                .rsplit(['/', '#'])
                .next()
                .unwrap_or(spec)
                .split('@')
                .next()
                .unwrap_or(spec);
            let found = self
                .metadata
                .packages
                .iter()
                .find(|p| p.name.as_str() == name || p.id.repr == *spec);
            found.ok_or_else(|| PlanError::Package(spec.clone()))
        };
        specs.iter().map(find).collect()
    }

    fn default_packages(&self) -> Vec<&Package> {
        let root = self.metadata.workspace_root.join("Cargo.toml");
        let current = self.current.as_deref().filter(|c| *c != root.as_std_path());
        match self
            .metadata
            .packages
            .iter()
            .find(|p| Some(p.manifest_path.as_std_path()) == current)
        {
            Some(package) => vec![package],
            None => self.metadata.workspace_default_packages(),
        }
    }
}

fn bins(package: &Package) -> Vec<String> {
    let bins = package
        .targets
        .iter()
        .filter(|t| t.kind.contains(&TargetKind::Bin));
    bins.map(|t| t.name.clone()).collect()
}

/// The manifest that cargo starts from: `--manifest-path`, else the nearest Cargo.toml upwards.
fn current_manifest(given: Option<&Path>, here: &Path) -> Option<PathBuf> {
    match given {
        Some(path) => here.join(path).canonicalize().ok(),
        None => here
            .ancestors()
            .map(|d| d.join("Cargo.toml"))
            .find(|p| p.is_file()),
    }
}

fn metadata_error(error: cargo_metadata::Error) -> PlanError {
    let text = match &error {
        cargo_metadata::Error::CargoMetadata { stderr } => stderr.trim().to_owned(),
        other => format!("cannot run `cargo metadata`: {other}"),
    };
    PlanError::Metadata(
        text.strip_prefix("error: ")
            .map(str::to_owned)
            .unwrap_or(text),
    )
}
