//! The programs that go into the laboratory, built so that they need no files beside them.

use super::debian;
use super::outer::Maker;
use crate::{packages, sh};
use anyhow::Result;
use std::path::PathBuf;

/// What every laboratory is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Makes machines.
    pub maker: Maker,
    /// `unik-vmm`, static.
    pub monitor: PathBuf,
    /// `lab-probe`, static.
    pub probe: PathBuf,
}

/// Installs and fetches what is missing, and builds where wanted.
pub fn parts(fresh: bool) -> Result<Parts> {
    packages::need(packages::LAB)?;
    let target = sh::target_dir()?.join("lab");
    let mut build = sh::cargo(&[
        "build",
        "--release",
        "--package",
        "unik-monitor",
        "--package",
        "lab-agent",
        "--target",
        sh::TARGET,
    ]);
    build
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_TARGET_DIR", &target);
    if fresh {
        sh::run(&mut build)?;
    }
    let built = target.join(sh::TARGET).join("release");
    let maker = Maker {
        debian: debian::fetch()?,
        agent: built.join("lab-agent"),
        scratch: target,
        disk: None,
    };
    Ok(Parts {
        maker,
        monitor: built.join("unik-vmm"),
        probe: built.join("lab-probe"),
    })
}
