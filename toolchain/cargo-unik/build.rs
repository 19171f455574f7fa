//! Builds the library OS (`libos/kernel`, a workspace of its own) and leaves its ELF in OUT_DIR, where `src/act/link.rs`
//! embeds it. Flags come from `libos/kernel/.cargo/config.toml`; nothing of the outer build's settings may leak in.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates that the library OS is made of.
const CRATES: [&str; 6] = ["abi", "core", "fs", "kernel", "net", "virtio"];
/// What of a crate decides its build.
const SOURCES: [&str; 6] = [
    "src",
    "Cargo.toml",
    "Cargo.lock",
    "build.rs",
    "libos.ld",
    ".cargo",
];
const TARGET: &str = "x86_64-unknown-linux-gnu";
const NAME: &str = "unik-libos";

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let libos = here.join("../../libos");
    watch(&libos);
    let target = out.join("libos");
    let status = cargo(&libos.join("kernel"), &target).status();
    match status {
        Ok(status) if status.success() => {}
        other => panic!(
            "the library OS in libos/kernel does not build ({other:?}); its messages stand above"
        ),
    }
    let elf = target.join(TARGET).join("release").join(NAME);
    std::fs::copy(&elf, out.join(NAME)).unwrap_or_else(|e| panic!("{}: {e}", elf.display()));
}

/// Builds again when a source of the library OS changes (and not when something is built inside its folder).
fn watch(libos: &Path) {
    let all = CRATES
        .iter()
        .flat_map(|krate| SOURCES.iter().map(move |s| libos.join(krate).join(s)));
    for path in all.filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!("cargo::rerun-if-changed=build.rs");
}

fn cargo(kernel: &Path, target: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(kernel)
        .args(["build", "--release", "--target", TARGET, "--target-dir"])
        .arg(target);
    for (name, _) in std::env::vars_os().filter(|(name, _)| leaks(&name.to_string_lossy())) {
        cargo.env_remove(name);
    }
    cargo
}

/// Variables of the outer build that would change the inner one: flags, wrappers (clippy's), target directory, profile.
fn leaks(name: &str) -> bool {
    let kept = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_NET",
        "CARGO_HTTP",
        "CARGO_REGISTR",
        "CARGO_SOURCE",
        "CARGO_TERM",
    ];
    let cargos = name.starts_with("CARGO_") && !kept.iter().any(|k| name.starts_with(k));
    let build = [
        "RUSTFLAGS",
        "RUSTC",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
    ];
    cargos || build.contains(&name)
}
