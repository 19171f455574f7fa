//! The tools under test, built from this tree, and the scratch folder.

use crate::sh;
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// Where the tools are.
#[derive(Clone, Debug)]
pub struct Tools {
    /// `cargo-unik`, the monitor included.
    pub cargo_unik: PathBuf,
    /// Everything that tests write.
    pub scratch: PathBuf,
}

impl Tools {
    /// Builds them. `release` as users get them, else as the tests have them already.
    pub fn build(release: bool) -> Result<Self> {
        let target = sh::target_dir()?;
        let mut build = sh::cargo(&["build", "--package", "cargo-unik", "--bins"]);
        if release {
            build.arg("--release");
        }
        sh::run(&mut build)?;
        let folder = if release { "release" } else { "debug" };
        let scratch = target.join("e2e");
        std::fs::create_dir_all(scratch.join("images"))?;
        Ok(Self {
            cargo_unik: target.join(folder).join("cargo-unik"),
            scratch,
        })
    }

    /// `cargo unik ARGS`, without the variables that only this run has.
    pub fn unik(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo_unik);
        command.arg("unik").args(args);
        clean(&mut command);
        command
    }

    /// The monitor alone.
    pub fn monitor(&self) -> Command {
        let mut command = Command::new(self.cargo_unik.with_file_name("unik-vmm"));
        clean(&mut command);
        command
    }
}

/// Takes away what cargo set for xtask, and what would reach the guests.
fn clean(command: &mut Command) {
    let set = |name: &str| {
        (name.starts_with("RUST_")
            || name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_"))
            && name != "RUST_LOG"
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(set)) {
        command.env_remove(name);
    }
    command.env_remove("CARGO_TARGET_DIR");
}
