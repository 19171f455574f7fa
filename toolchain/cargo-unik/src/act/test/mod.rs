//! `cargo unik test`: each test binary is linked with the package's own files and runs as a unikernel, in cargo's look.
//!
//! Tests see what cargo gives them: the package's directory under its own absolute path as working directory, and the
//! variables that cargo sets at run time ([`env`]). [`look`] has the words that cargo uses.

mod env;
mod look;

use super::cargo::{self, Built, Level};
use super::link::{self, LinkError, Recipe};
use super::run::{environment, short};
use crate::Error;
use crate::args::TestCommand;
use crate::args::run::RunArgs;
use crate::monitor::{self, Job};
use crate::plan::files::{self, Tree};
use crate::plan::manifest::Manifest;
use crate::plan::{PlanError, Workspace};
use crate::shell::Shell;
use cargo_metadata::{BuildScript, Package};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The most vCPUs a test gets unless told otherwise: test harnesses run as many threads.
const DEFAULT_CPUS: usize = 4;

/// Builds the tests and runs them; 101 when one fails, as cargo says it.
pub fn test(args: &TestCommand, shell: &Shell, level: Level) -> Result<u8, Error> {
    if args.tests.doc {
        let sentence = "doctests cannot run as unikernels: rustdoc builds and runs them itself; use `cargo test --doc`";
        return Err(Error::Usage(sentence.into()));
    }
    monitor::refuse_volumes(&args.run)?;
    let env = environment(&args.run.env)?;
    let workspace = Workspace::load(&args.cargo)?;
    let mut flags: Vec<OsString> = vec!["--no-run".into()];
    flags.extend(args.tests.pass_on());
    let packages = args.cargo.package.iter();
    flags.extend(packages.flat_map(|spec| ["--package".into(), spec.into()]));
    let output = cargo::run("test", &args.cargo, &flags, &workspace, shell, level)?;
    let mut tests: Vec<Built> = output.executables;
    tests.retain(|built| built.test);
    tests.sort_by_key(look::order);
    let session = Session {
        args,
        workspace,
        scripts: output.scripts,
        env,
        shell,
    };
    let failed = session.run_all(&tests)?;
    if args.tests.wants_doctests() && !args.tests.no_run {
        shell.note("doctests are not run as unikernels; `cargo test --doc` runs them");
    }
    Ok(look::report(&failed, args.tests.no_fail_fast, shell))
}

/// One `cargo unik test` after cargo has built.
struct Session<'a> {
    args: &'a TestCommand,
    workspace: Workspace,
    scripts: Vec<BuildScript>,
    env: Vec<(OsString, OsString)>,
    shell: &'a Shell,
}

impl Session<'_> {
    /// Runs each test binary; stops at the first failure unless told otherwise. Returns what failed, with exit codes.
    fn run_all<'b>(&self, tests: &'b [Built]) -> Result<Vec<(&'b Built, u8)>, Error> {
        let mut failed = Vec::new();
        for built in tests {
            let code = self.run_one(built)?;
            if code != 0 {
                failed.push((built, code));
                if !self.args.tests.no_fail_fast {
                    break;
                }
            }
        }
        Ok(failed)
    }

    fn run_one(&self, built: &Built) -> Result<u8, Error> {
        let package = self
            .workspace
            .package(&built.package)
            .ok_or_else(|| PlanError::Package(built.package.repr.clone()))?;
        let manifest = self.workspace.manifest(package)?;
        let image = self.workspace.image_path(&built.executable);
        link::link(
            &built.executable,
            &image,
            &self.recipe(built, package, &manifest)?,
            self.shell,
        )?;
        let label = format!(
            "{} ({})",
            look::label(built, package),
            short(&built.executable)
        );
        if self.args.tests.no_run {
            self.shell.status("Executable", label);
            return Ok(0);
        }
        self.shell.status("Running", label);
        self.boot(built, package, &manifest, &image)
    }

    /// A test image holds the package's tree at its own place.
    fn recipe(
        &self,
        built: &Built,
        package: &Package,
        manifest: &Manifest,
    ) -> Result<Recipe, LinkError> {
        let (root, here) = (root(package), Path::new(""));
        let mut tree = Tree::new();
        let kept = |name: &OsStr| name != "target" && name != ".git";
        files::add_tree(&mut tree, root, root, |e| {
            e.depth() > 1 || kept(e.file_name())
        })?;
        manifest
            .files
            .iter()
            .try_for_each(|spec| files::add(&mut tree, spec, root))?;
        self.args
            .image
            .files
            .iter()
            .try_for_each(|spec| files::add(&mut tree, spec, here))?;
        let mut recipe = Recipe::new(&built.target.name, &self.args.image);
        recipe.exe = Some(built.executable.clone());
        recipe.cwd = Some(root.to_owned());
        recipe.take(manifest);
        recipe.files = tree;
        Ok(recipe)
    }

    fn boot(
        &self,
        built: &Built,
        package: &Package,
        manifest: &Manifest,
        image: &Path,
    ) -> Result<u8, Error> {
        let words: Vec<OsString> = self
            .args
            .tests
            .filter
            .iter()
            .chain(&self.args.tests.args)
            .cloned()
            .collect();
        let script = self.scripts.iter().find(|s| s.package_id == built.package);
        let mut env = env::cargo_variables(package, script);
        env.extend(self.env.iter().cloned());
        let cpus = self
            .args
            .run
            .cpus
            .or(manifest.cpus)
            .unwrap_or_else(default_cpus);
        let machine = RunArgs {
            cpus: Some(cpus),
            ..self.args.run.clone()
        };
        let job = Job {
            image,
            machine: &machine,
            env,
            args: Some(&words),
        };
        Ok(monitor::run(&job, self.shell)?)
    }
}

/// The host's CPUs up to [`DEFAULT_CPUS`].
fn default_cpus() -> u32 {
    let here = std::thread::available_parallelism().map_or(1, usize::from);
    here.min(DEFAULT_CPUS) as u32
}

fn root(package: &Package) -> &Path {
    package
        .manifest_path
        .parent()
        .map_or(Path::new("/"), |p| p.as_std_path())
}
