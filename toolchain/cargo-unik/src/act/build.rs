//! `cargo unik build`: cargo builds static programs, each is linked into an image.

use super::cargo::{self, Built, Level};
use super::link::{self, Recipe};
use crate::Error;
use crate::args::cargo::CargoArgs;
use crate::args::{BuildArgs, ImageArgs};
use crate::plan::files::{self, Tree};
use crate::plan::manifest::Manifest;
use crate::plan::{PlanError, Workspace};
use crate::shell::Shell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Builds and links what the flags name.
pub fn build(args: &BuildArgs, shell: &Shell, level: Level) -> Result<(), Error> {
    let workspace = Workspace::load(&args.cargo)?;
    images(
        &workspace,
        &args.cargo,
        args.targets.pass_on(),
        &args.image,
        shell,
        level,
    )
    .map(|_| ())
}

/// Runs `cargo build` with `more` flags and links every program that it reports. Returns the images with their programs.
pub fn images(
    workspace: &Workspace,
    args: &CargoArgs,
    mut more: Vec<OsString>,
    image: &ImageArgs,
    shell: &Shell,
    level: Level,
) -> Result<Vec<(Built, PathBuf)>, Error> {
    more.extend(
        args.package
            .iter()
            .flat_map(|spec| ["--package".into(), spec.into()]),
    );
    let output = cargo::run("build", args, &more, workspace, shell, level)?;
    let mut warned = BTreeSet::new();
    let mut linked = Vec::new();
    for built in output.executables {
        let manifest = manifest(workspace, &built, &mut warned, shell)?;
        let path = link(workspace, &built, &manifest, image, shell)?;
        linked.push((built, path));
    }
    Ok(linked)
}

/// The package's section; what this version cannot do is said once a package.
fn manifest(
    workspace: &Workspace,
    built: &Built,
    warned: &mut BTreeSet<String>,
    shell: &Shell,
) -> Result<Manifest, PlanError> {
    let Some(package) = workspace.package(&built.package) else {
        return Ok(Manifest::default());
    };
    let manifest = workspace.manifest(package)?;
    let later = !manifest.volumes.is_empty();
    if later && warned.insert(package.name.to_string()) {
        shell.warn(format_args!(
            "`volumes` of package `{}` have no effect: this version packs files instead (`files`)",
            package.name
        ));
    }
    Ok(manifest)
}

fn link(
    workspace: &Workspace,
    built: &Built,
    manifest: &Manifest,
    image: &ImageArgs,
    shell: &Shell,
) -> Result<PathBuf, Error> {
    let root = workspace
        .package(&built.package)
        .and_then(|p| p.manifest_path.parent())
        .map(|p| p.as_std_path().to_owned());
    let tree = packed(
        &manifest.files,
        root.as_deref().unwrap_or(Path::new(".")),
        &image.files,
    )?;
    let mut recipe = Recipe::new(&built.target.name, image);
    recipe.args = manifest.args.iter().map(OsString::from).collect();
    recipe.take(manifest);
    recipe.net.clone_from(&manifest.net);
    recipe.ports.clone_from(&manifest.ports);
    recipe.files = tree;
    let path = workspace.image_path(&built.executable);
    link::link(&built.executable, &path, &recipe, shell)?;
    Ok(path)
}

/// The manifest's files, relative to the package, and those of the command line, relative to the working directory.
pub fn packed(manifest: &[String], root: &Path, flags: &[String]) -> Result<Tree, link::LinkError> {
    let mut tree = Tree::new();
    manifest
        .iter()
        .try_for_each(|spec| files::add(&mut tree, spec, root))?;
    flags
        .iter()
        .try_for_each(|spec| files::add(&mut tree, spec, Path::new("")))?;
    Ok(tree)
}
