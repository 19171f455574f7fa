//! The variables that cargo sets for the tests it runs.

use super::root;
use cargo_metadata::{BuildScript, Package};
use std::ffi::OsString;

/// What cargo sets when it runs a test (the Cargo book, "Environment variables Cargo sets").
pub fn cargo_variables(
    package: &Package,
    script: Option<&BuildScript>,
) -> Vec<(OsString, OsString)> {
    let version = &package.version;
    let text = |option: &Option<String>| option.clone().unwrap_or_default();
    let mut env = vec![
        ("CARGO_MANIFEST_DIR", root(package).display().to_string()),
        ("CARGO_MANIFEST_PATH", package.manifest_path.to_string()),
        ("CARGO_PKG_NAME", package.name.to_string()),
        ("CARGO_PKG_VERSION", version.to_string()),
        ("CARGO_PKG_VERSION_MAJOR", version.major.to_string()),
        ("CARGO_PKG_VERSION_MINOR", version.minor.to_string()),
        ("CARGO_PKG_VERSION_PATCH", version.patch.to_string()),
        ("CARGO_PKG_VERSION_PRE", version.pre.to_string()),
        ("CARGO_PKG_AUTHORS", package.authors.join(":")),
        ("CARGO_PKG_DESCRIPTION", text(&package.description)),
        ("CARGO_PKG_HOMEPAGE", text(&package.homepage)),
        ("CARGO_PKG_REPOSITORY", text(&package.repository)),
        ("CARGO_PKG_LICENSE", text(&package.license)),
        (
            "CARGO_PKG_LICENSE_FILE",
            package
                .license_file
                .as_ref()
                .map(|f| f.to_string())
                .unwrap_or_default(),
        ),
        (
            "CARGO_PKG_README",
            package
                .readme
                .as_ref()
                .map(|f| f.to_string())
                .unwrap_or_default(),
        ),
        (
            "CARGO_PKG_RUST_VERSION",
            package
                .rust_version
                .as_ref()
                .map(|v| v.to_string())
                .unwrap_or_default(),
        ),
    ];
    let out_dir = script.map(|s| s.out_dir.to_string());
    env.extend(out_dir.map(|dir| ("OUT_DIR", dir)));
    let set = script
        .iter()
        .flat_map(|s| &s.env)
        .map(|(n, v)| (n.into(), v.into()));
    env.into_iter()
        .map(|(n, v)| (n.into(), v.into()))
        .chain(set)
        .collect()
}
