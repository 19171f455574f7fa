//! `cargo unik pack`: any static Linux program becomes an image.

use super::build::packed;
use super::link::{self, Recipe};
use crate::Error;
use crate::args::PackArgs;
use crate::plan::manifest;
use crate::shell::Shell;
use std::path::Path;

/// Links `args.elf` into `args.output`.
pub fn pack(args: &PackArgs, shell: &Shell) -> Result<(), Error> {
    let name = args
        .elf
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_else(|| "program".into());
    let mut recipe = Recipe::new(&name, &args.image);
    let env: Result<Vec<_>, _> = args
        .env
        .iter()
        .map(|text| manifest::variable(text))
        .collect();
    recipe.env = env
        .map_err(Error::Usage)?
        .into_iter()
        .map(|(n, v)| (n.into(), v.into()))
        .collect();
    recipe.args.clone_from(&args.args);
    recipe.memory = args.memory;
    recipe.cpus = args.cpus;
    recipe.files = packed(&[], Path::new(""), &args.image.files)?;
    Ok(link::link(&args.elf, &args.output, &recipe, shell)?)
}
