//! ripgrep and fd from crates.io, unmodified, over a packed source tree.

use super::case::Case;
use super::subject::Subject;
use super::tools::Tools;
use crate::sh;
use anyhow::{Result, anyhow};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// Crate, version, binary.
const PROGRAMS: [(&str, &str, &str); 2] =
    [("ripgrep", "15.2.0", "rg"), ("fd-find", "10.5.0", "fd")];

/// Installs (once, at the same time) and packs them.
pub fn subjects(tools: &Tools) -> Result<Vec<Subject>> {
    let tree = tree(tools)?;
    let path = tree.display().to_string();
    let files = [format!("{path}:{path}")];
    let roots = thread::scope(|s| {
        PROGRAMS
            .map(|(krate, version, _)| s.spawn(move || install(tools, krate, version)))
            .map(|installing| {
                installing
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("installing panicked")))
            })
    });
    let mut subjects = Vec::new();
    for ((_, _, bin), root) in PROGRAMS.into_iter().zip(roots) {
        let elf = root?.join("bin").join(bin);
        let cases = if bin == "rg" {
            ripgrep(&path)
        } else {
            fd(&path)
        };
        subjects.push(Subject::pack(tools, bin, &elf, &files, cases)?);
    }
    Ok(subjects)
}

/// This project's files as of the last commit: a tree that nobody changes while tests run.
pub fn tree(tools: &Tools) -> Result<PathBuf> {
    let (tree, archive) = (tools.scratch.join("tree"), tools.scratch.join("tree.tar"));
    if tree.exists() {
        std::fs::remove_dir_all(&tree)?;
    }
    std::fs::create_dir_all(&tree)?;
    sh::output(
        Command::new("git")
            .current_dir(sh::root())
            .args(["archive", "HEAD", "-o"])
            .arg(&archive),
    )?;
    sh::output(
        Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&tree),
    )?;
    Ok(tree)
}

/// `cargo install` with the flags that make a static program; cargo itself sees when it is there already.
pub fn install(tools: &Tools, krate: &str, version: &str) -> Result<PathBuf> {
    let root = tools.scratch.join("programs").join(krate);
    let mut install = sh::cargo(&[
        "install",
        "--quiet",
        "--locked",
        "--target",
        sh::TARGET,
        "--version",
        version,
        krate,
        "--root",
    ]);
    install
        .arg(&root)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env(
            "CARGO_TARGET_DIR",
            tools.scratch.join("programs/build").join(krate),
        );
    if !Path::new(&root.join("bin")).is_dir() {
        sh::run(&mut install)?;
    }
    Ok(root)
}

fn ripgrep(tree: &str) -> Vec<Case> {
    let sorted = |name: &str, args: &[&str]| Case {
        sorted: true,
        ..Case::new(name, args)
    };
    vec![
        Case::new(
            "sorted",
            &["--sort", "path", "--line-number", "unsafe", tree],
        ),
        Case::new("nothing", &["no such words as these anywhere \\d{9}", tree]),
        sorted("parallel", &["--count", r"fn \w+\(", tree]),
        sorted("files", &["--files", "--hidden", tree]),
        sorted("mapped", &["--mmap", "--ignore-case", "syscall", tree]),
        sorted(
            "json",
            &[
                "--only-matching",
                "--no-filename",
                r"\bpub (struct|enum) \w+",
                tree,
            ],
        ),
    ]
}

fn fd(tree: &str) -> Vec<Case> {
    let sorted = |name: &str, args: &[&str]| Case {
        sorted: true,
        ..Case::new(name, args)
    };
    vec![
        sorted("all", &[".", tree]),
        sorted(
            "extension",
            &["--extension", "rs", "--size", "+2k", ".", tree],
        ),
        sorted("types", &["--hidden", "--type", "directory", "src", tree]),
        sorted("pattern", &["--full-path", "mod|lib", tree]),
    ]
}
