//! Flags that belong to cargo. They are read only as far as the plan needs them and handed on as they came.

use clap::{ArgAction, Args};
use std::ffi::OsString;
use std::path::PathBuf;

/// What `cargo build`, `run` and `test` share.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cargo")]
pub struct CargoArgs {
    /// Package to build (repeatable for build and test)
    #[arg(short, long, value_name = "SPEC")]
    pub package: Vec<String>,
    /// Build optimized
    #[arg(short, long, conflicts_with = "profile")]
    pub release: bool,
    /// Build with this profile
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Features to activate
    #[arg(short = 'F', long)]
    pub features: Vec<String>,
    /// Activate all features
    #[arg(long)]
    pub all_features: bool,
    /// Do not activate the `default` feature
    #[arg(long)]
    pub no_default_features: bool,
    /// Path of Cargo.toml
    #[arg(long, value_name = "PATH")]
    pub manifest_path: Option<PathBuf>,
    /// Directory for all that is built
    #[arg(long, value_name = "DIR")]
    pub target_dir: Option<PathBuf>,
    /// Target: x86_64-unknown-linux-gnu (the default) or x86_64-unknown-linux-musl
    #[arg(long, value_name = "TRIPLE")]
    pub target: Option<String>,
    /// Demand that Cargo.lock stays as it is
    #[arg(long)]
    pub locked: bool,
    /// Do not use the network
    #[arg(long)]
    pub offline: bool,
    /// The same as --locked and --offline
    #[arg(long)]
    pub frozen: bool,
    /// Number of parallel jobs
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<String>,
    /// Build as much as possible after an error
    #[arg(long)]
    pub keep_going: bool,
    /// Ignore `rust-version`
    #[arg(long)]
    pub ignore_rust_version: bool,
    /// How cargo's messages look: human, short, json, ...
    #[arg(long, value_name = "FMT")]
    pub message_format: Vec<String>,
    /// Override a configuration value
    #[arg(long, value_name = "KEY=VALUE")]
    pub config: Vec<OsString>,
    /// Unstable flags (nightly only)
    #[arg(short = 'Z', value_name = "FLAG")]
    pub unstable: Vec<String>,
}

impl CargoArgs {
    /// The flags which cargo gets back; packages, target, target directory and message format are the plan's.
    pub fn pass_on(&self) -> Vec<OsString> {
        let mut out = Flags::default();
        out.flag("--release", self.release)
            .flag("--all-features", self.all_features);
        out.flag("--no-default-features", self.no_default_features)
            .flag("--keep-going", self.keep_going);
        out.flag("--ignore-rust-version", self.ignore_rust_version);
        out.values("--profile", &self.profile)
            .values("--features", &self.features)
            .values("--jobs", &self.jobs);
        out.values("--manifest-path", &self.manifest_path)
            .values("--config", &self.config)
            .values("-Z", &self.unstable);
        out.0
            .extend(self.lock_flags().into_iter().map(OsString::from));
        out.0
    }

    /// `--locked`, `--offline`, `--frozen`: what `cargo metadata` must obey too.
    pub fn lock_flags(&self) -> Vec<String> {
        let given = [
            ("--locked", self.locked),
            ("--offline", self.offline),
            ("--frozen", self.frozen),
        ];
        given
            .iter()
            .filter(|(_, on)| *on)
            .map(|(flag, _)| (*flag).to_owned())
            .collect()
    }
}

/// Which targets `build` builds.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Targets")]
pub struct TargetArgs {
    /// All packages of the workspace
    #[arg(long, visible_alias = "all")]
    pub workspace: bool,
    /// Packages to leave out
    #[arg(long, value_name = "SPEC", requires = "workspace")]
    pub exclude: Vec<String>,
    /// This binary (repeatable)
    #[arg(long, value_name = "NAME")]
    pub bin: Vec<String>,
    /// All binaries
    #[arg(long)]
    pub bins: bool,
    /// This example (repeatable)
    #[arg(long, value_name = "NAME")]
    pub example: Vec<String>,
    /// All examples
    #[arg(long)]
    pub examples: bool,
}

impl TargetArgs {
    /// The flags as cargo takes them.
    pub fn pass_on(&self) -> Vec<OsString> {
        let mut out = Flags::default();
        out.flag("--workspace", self.workspace)
            .flag("--bins", self.bins)
            .flag("--examples", self.examples);
        out.values("--exclude", &self.exclude)
            .values("--bin", &self.bin)
            .values("--example", &self.example);
        out.0
    }
}

/// Which program `run` runs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Targets")]
pub struct RunTarget {
    /// The binary to run
    #[arg(long, value_name = "NAME", conflicts_with = "example")]
    pub bin: Option<String>,
    /// The example to run
    #[arg(long, value_name = "NAME")]
    pub example: Option<String>,
}

/// Which tests `test` runs, and how.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Targets")]
pub struct TestArgs {
    /// All packages of the workspace
    #[arg(long, visible_alias = "all")]
    pub workspace: bool,
    /// Packages to leave out
    #[arg(long, value_name = "SPEC", requires = "workspace")]
    pub exclude: Vec<String>,
    /// The library's unit tests
    #[arg(long)]
    pub lib: bool,
    /// This binary's unit tests (repeatable)
    #[arg(long, value_name = "NAME")]
    pub bin: Vec<String>,
    /// All binaries' unit tests
    #[arg(long)]
    pub bins: bool,
    /// This example (repeatable)
    #[arg(long, value_name = "NAME")]
    pub example: Vec<String>,
    /// All examples
    #[arg(long)]
    pub examples: bool,
    /// This integration test (repeatable)
    #[arg(long, value_name = "NAME")]
    pub test: Vec<String>,
    /// All targets that have `test = true`
    #[arg(long)]
    pub tests: bool,
    /// This benchmark (repeatable)
    #[arg(long, value_name = "NAME")]
    pub bench: Vec<String>,
    /// All benchmarks
    #[arg(long)]
    pub benches: bool,
    /// All targets but doctests
    #[arg(long)]
    pub all_targets: bool,
    /// Doctests only: not possible here, `cargo test --doc` runs them
    #[arg(long, hide = true)]
    pub doc: bool,
    /// Build the images but do not run them
    #[arg(long)]
    pub no_run: bool,
    /// Run all test binaries whatever fails
    #[arg(long)]
    pub no_fail_fast: bool,
    /// Only tests whose names contain this
    #[arg(value_name = "TESTNAME")]
    pub filter: Option<OsString>,
    /// Arguments for the test binary, after `--`
    #[arg(last = true, value_name = "ARGS", action = ArgAction::Append)]
    pub args: Vec<OsString>,
}

impl TestArgs {
    /// The flags as `cargo test` takes them.
    pub fn pass_on(&self) -> Vec<OsString> {
        let mut out = Flags::default();
        out.flag("--workspace", self.workspace)
            .flag("--lib", self.lib)
            .flag("--bins", self.bins);
        out.flag("--examples", self.examples)
            .flag("--tests", self.tests)
            .flag("--benches", self.benches);
        out.flag("--all-targets", self.all_targets);
        out.values("--exclude", &self.exclude)
            .values("--bin", &self.bin)
            .values("--example", &self.example);
        out.values("--test", &self.test)
            .values("--bench", &self.bench);
        out.0
    }

    /// Whether cargo would have run doctests too.
    pub fn wants_doctests(&self) -> bool {
        let lists = [&self.bin, &self.example, &self.test, &self.bench];
        let flags = [
            self.lib,
            self.bins,
            self.examples,
            self.tests,
            self.benches,
            self.all_targets,
        ];
        lists.iter().all(|l| l.is_empty()) && !flags.contains(&true)
    }
}

/// Collects flags for a child's command line.
#[derive(Default)]
struct Flags(Vec<OsString>);

impl Flags {
    fn flag(&mut self, name: &str, on: bool) -> &mut Self {
        if on {
            self.0.push(name.into());
        }
        self
    }

    fn values<T: Into<OsString> + Clone>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        for value in values {
            self.0.extend([name.into(), value.into()]);
        }
        self
    }
}
