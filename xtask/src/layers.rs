//! The edges between crates: who may use whom. Anything else is refused, in either workspace.

use crate::sh;
use crate::tally::Tally;
use anyhow::Result;
use cargo_metadata::{MetadataCommand, Package};
use std::collections::BTreeSet;

/// Each crate of ours and what of ours it may use. (docs/architecture.md says why.)
const EDGES: &[(&str, &[&str])] = &[
    ("unik-abi", &[]),
    ("unik-core", &[]),
    ("unik-virtio", &[]),
    ("unik-devices", &[]),
    ("unik-host", &[]),
    ("unik-usernet", &[]),
    ("unik-templates", &[]),
    ("unik-fs", &["unik-abi"]),
    ("unik-net", &["unik-core"]),
    (
        "unik-kernel",
        &[
            "unik-abi",
            "unik-core",
            "unik-fs",
            "unik-net",
            "unik-virtio",
        ],
    ),
    ("unik-image", &["unik-abi"]),
    (
        "unik-monitor",
        &["unik-abi", "unik-devices", "unik-host", "unik-usernet"],
    ),
    (
        "cargo-unik",
        &["unik-abi", "unik-image", "unik-monitor", "unik-templates"],
    ),
    ("lab-agent", &[]),
    ("xtask", &["lab-agent"]),
];

/// Workspaces to look at. The examples must not know us at all.
const MANIFESTS: [&str; 3] = [
    "Cargo.toml",
    "libos/kernel/Cargo.toml",
    "examples/Cargo.toml",
];

/// Checks every crate.
pub fn layers() -> Result<Tally> {
    let mut tally = Tally::default();
    for manifest in MANIFESTS
        .map(|m| sh::root().join(m))
        .iter()
        .filter(|m| m.is_file())
    {
        let metadata = MetadataCommand::new()
            .no_deps()
            .manifest_path(manifest)
            .exec()?;
        let examples = manifest.starts_with(sh::root().join("examples"));
        for package in &metadata.packages {
            let wrong = if examples {
                ours(package)
            } else {
                refused(package)
            };
            let complaints = wrong.iter().map(|edge| {
                format!("must not depend on {edge} (xtask/src/layers.rs lists the edges)")
            });
            tally.complain(format!("layers: {}", package.name), complaints);
        }
    }
    Ok(tally)
}

/// What of ours a package uses.
fn ours(package: &Package) -> BTreeSet<String> {
    let known: BTreeSet<_> = EDGES.iter().map(|(name, _)| *name).collect();
    package
        .dependencies
        .iter()
        .map(|d| d.name.clone())
        // A crate may test itself from outside, with features that only tests need.
        .filter(|d| known.contains(d.as_str()) && *d != *package.name)
        .collect()
}

/// What it must not.
fn refused(package: &Package) -> BTreeSet<String> {
    let allowed = EDGES
        .iter()
        .find(|(name, _)| *name == package.name.as_str())
        .map(|(_, allowed)| *allowed);
    match allowed {
        Some(allowed) => ours(package)
            .into_iter()
            .filter(|d| !allowed.contains(&d.as_str()))
            .collect(),
        None => [format!(
            "anything: the crate `{}` has no place in the list",
            package.name
        )]
        .into(),
    }
}
