//! `cargo xtask dist`: an archive with the tools, built as users get them, and what they should read.

use crate::e2e::tools::Tools;
use crate::sh;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// Programs and texts in the archive.
const PROGRAMS: [&str; 2] = ["cargo-unik", "unik-vmm"];
const TEXTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// Writes `target/dist/unik-VERSION-x86_64-linux.tar.gz`. The same sources give the same bytes.
pub fn dist() -> Result<()> {
    let tools = Tools::build(true)?;
    let name = format!("unik-{}-x86_64-linux", env!("CARGO_PKG_VERSION"));
    let folder = sh::target_dir()?.join("dist");
    let stage = folder.join(&name);
    if stage.exists() {
        std::fs::remove_dir_all(&stage)?;
    }
    std::fs::create_dir_all(&stage)?;
    for program in PROGRAMS {
        copy(
            &tools.cargo_unik.with_file_name(program),
            &stage.join(program),
        )?;
    }
    for text in TEXTS {
        copy(&sh::root().join(text), &stage.join(text))?;
    }
    let archive = folder.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.current_dir(&folder).args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "-I",
        "gzip -9n",
        "-cf",
    ]);
    sh::run(tar.arg(&archive).arg(&name))?;
    println!(
        "{} ({} bytes)",
        archive.display(),
        std::fs::metadata(&archive)?.len()
    );
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(())
}
